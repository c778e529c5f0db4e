"""
`kubernetes_asyncio`'s reading of kubeconfigs, without its generated client.

A plain ``import kubernetes_asyncio.config`` runs the package's ``__init__``, which imports some 900 modules
of generated models: 37 MB and a third of a second for classes that are never used here, where a whole node is
to fit in 100 MB. So the two modules that matter are imported below bare stand-ins for their packages, and
`sys.modules` is left as it was: whoever imports `kubernetes_asyncio` later gets all of it, untouched by this.
When it is there already, it is used as it is.

Turned down: a copy of the loader in this project (exec plugins, OIDC and token files change with their
upstream), and `importlib.util.LazyLoader` (the loader's own ``from kubernetes_asyncio.client import
Configuration`` would set it off).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType

__all__ = ["incluster_config", "kube_config"]

_ROOT = "kubernetes_asyncio"
_KUBE_CONFIG = f"{_ROOT}.config.kube_config"
_INCLUSTER_CONFIG = f"{_ROOT}.config.incluster_config"


class _NotImported:
    """Stands for `ApiClient` and `Configuration`, which the loader names but does not need."""


def _import() -> tuple[ModuleType, ModuleType]:
    if _KUBE_CONFIG in sys.modules:
        return sys.modules[_KUBE_CONFIG], importlib.import_module(_INCLUSTER_CONFIG)
    displaced = _take_out()
    try:
        _put_stand_ins()
        return importlib.import_module(_KUBE_CONFIG), importlib.import_module(_INCLUSTER_CONFIG)
    finally:
        _take_out()
        sys.modules.update(displaced)


def _put_stand_ins() -> None:
    spec = importlib.util.find_spec(_ROOT)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{_ROOT} is not installed", name=_ROOT)
    places = list(spec.submodule_search_locations)
    for name in (_ROOT, f"{_ROOT}.client", f"{_ROOT}.config"):
        package = ModuleType(name)
        package.__path__ = ["/".join((place, *name.split(".")[1:])) for place in places]
        sys.modules[name] = package
    vars(sys.modules[f"{_ROOT}.client"]).update(ApiClient=_NotImported, Configuration=_NotImported)


def _take_out() -> dict[str, ModuleType]:
    """Remove the package and everything in it from `sys.modules`; returns what was removed."""
    names = [name for name in sys.modules if name == _ROOT or name.startswith(f"{_ROOT}.")]
    return {name: sys.modules.pop(name) for name in names}


kube_config, incluster_config = _import()
