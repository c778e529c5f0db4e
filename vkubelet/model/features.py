"""
Which fields of a pod a provider serves, as one tree, and which fields of a pod are not in it.

A field that nobody serves must not be ignored: the pod would run and do something else than it says. So a
provider declares a `FieldTree`; what a pod sets beyond it is named by path, and the pod is refused with that.
The tree is data, because the same table can be printed as documentation and checked before anything runs.
A list of refused fields was turned down: it lets every field through that a later Kubernetes invents.

`KUBERUNTIME_FIELDS` is what the pod engine serves on any container runtime. To serve one more field, add it
there; for one runtime alone, build on its parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from vkubelet.model.pod import Json

__all__ = [
    "CONTAINER_FIELDS",
    "EPHEMERAL_CONTAINER_FIELDS",
    "INIT_CONTAINER_FIELDS",
    "KUBERUNTIME_FIELDS",
    "VOLUME_FIELDS",
    "FieldTree",
    "Rule",
    "only",
    "served",
    "unsupported_ephemeral_fields",
    "unsupported_fields",
]

Rule: TypeAlias = Callable[[Any, Json, Json], bool]
"""Whether a value is served, given the object that holds it and the pod's spec."""

FieldTree: TypeAlias = "Mapping[str, Rule | FieldTree]"
"""The served fields of an object; of each object in a list where the value is a list."""


_EPHEMERAL = "ephemeralContainers"


def unsupported_fields(pod_raw: Json, supported: FieldTree) -> tuple[str, ...]:
    """
    The paths of what the pod's spec asks for beyond `supported`, such as ``spec.containers[0].lifecycle``.

    In a field that is not in the tree, a value that asks for nothing is harmless: null, false, empty text,
    an empty list or object. A field in the tree may mean something by them.

    Ephemeral containers are left to `unsupported_ephemeral_fields` where the tree has them at all: they come
    to a pod that runs, and must not end it.
    """
    spec: Json = pod_raw["spec"]
    if _EPHEMERAL in supported:
        spec = {name: value for name, value in spec.items() if name != _EPHEMERAL}
    return tuple(_unsupported("spec", spec, supported, spec, spec))


def unsupported_ephemeral_fields(pod_raw: Json, supported: FieldTree) -> dict[str, tuple[str, ...]]:
    """The same paths of each ephemeral container that has any, by its name."""
    spec: Json = pod_raw["spec"]
    tree = supported.get(_EPHEMERAL, _absent)
    paths = {
        container["name"]: tuple(_unsupported(f"spec.{_EPHEMERAL}[{index}]", container, tree, spec, spec))
        for index, container in enumerate(spec.get(_EPHEMERAL) or ())
    }
    return {name: found for name, found in paths.items() if found}


def _unsupported(
    path: str, value: Any, supported: Rule | FieldTree, owner: Json, spec: Json
) -> Iterator[str]:
    if value is None:
        return
    if callable(supported):
        if not supported(value, owner, spec):
            yield path
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unsupported(f"{path}[{index}]", item, supported, owner, spec)
    elif isinstance(value, dict):
        for name, field in value.items():
            yield from _unsupported(f"{path}.{name}", field, supported.get(name, _absent), value, spec)
    else:
        yield path


# --- rules ------------------------------------------------------------------------------------------------


def served(value: Any, owner: Json, spec: Json) -> bool:
    """Whatever it says."""
    del value, owner, spec
    return True


def _absent(value: Any, owner: Json, spec: Json) -> bool:
    """Nothing that asks for anything."""
    del owner, spec
    return value is False or value in ("", [], {})


def only(*values: Any) -> Rule:
    """These values and no others."""

    def rule(value: Any, owner: Json, spec: Json) -> bool:
        del owner, spec
        return value in values

    return rule


def _on_host_network(value: Any, owner: Json, spec: Json) -> bool:
    """`hostPort`: on the host's network the port is the host's anyway; else it would have to be mapped."""
    del value, owner
    return bool(spec.get("hostNetwork"))


def _in_memory(value: Any, owner: Json, spec: Json) -> bool:
    """`sizeLimit`: a tmpfs keeps to it; on disk nobody would measure."""
    del value, spec
    return owner.get("medium") == "Memory"


# --- what the pod engine serves ---------------------------------------------------------------------------


def _all(*names: str) -> FieldTree:
    return dict.fromkeys(names, served)


_PROFILE: FieldTree = {"type": only("RuntimeDefault", "Unconfined")}

_CONTAINER_SECURITY: FieldTree = {
    **_all("runAsUser", "runAsGroup", "runAsNonRoot", "privileged", "readOnlyRootFilesystem"),
    "allowPrivilegeEscalation": served,
    "capabilities": _all("add", "drop"),
    "seccompProfile": _PROFILE,
    "procMount": only("Default"),
}

_ITEMS: FieldTree = _all("key", "path", "mode")
_DOWNWARD_ITEMS: FieldTree = _all("path", "mode", "fieldRef", "resourceFieldRef")

CONTAINER_FIELDS: FieldTree = MappingProxyType(
    {
        **_all("name", "image", "command", "args", "workingDir", "imagePullPolicy"),
        **_all("terminationMessagePath", "terminationMessagePolicy", "stdin", "stdinOnce", "tty"),
        "ports": {
            **_all("name", "containerPort", "protocol"),
            "hostPort": _on_host_network,
            "hostIP": _on_host_network,
        },
        "envFrom": _all("prefix", "configMapRef", "secretRef"),
        "env": {
            **_all("name", "value"),
            "valueFrom": _all("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"),
        },
        "resources": {"requests": served, "limits": _all("cpu", "memory")},
        "resizePolicy": served,  # the API server's default; resources do not change in place
        "volumeMounts": {
            **_all("name", "mountPath", "readOnly"),
            "recursiveReadOnly": only("Disabled", "IfPossible"),
            "mountPropagation": only("None"),
        },
        "securityContext": _CONTAINER_SECURITY,
    }
)
"""An app container."""

INIT_CONTAINER_FIELDS: FieldTree = CONTAINER_FIELDS
"""An init container that runs to its end; `restartPolicy`, which makes a sidecar of it, is not in it."""

EPHEMERAL_CONTAINER_FIELDS: FieldTree = MappingProxyType({**CONTAINER_FIELDS, "targetContainerName": served})
"""A container for debugging (`kubectl debug`)."""

VOLUME_FIELDS: FieldTree = MappingProxyType(
    {
        "name": served,
        "emptyDir": {"medium": only("", "Memory"), "sizeLimit": _in_memory},
        "configMap": {**_all("name", "defaultMode", "optional"), "items": _ITEMS},
        "secret": {**_all("secretName", "defaultMode", "optional"), "items": _ITEMS},
        "downwardAPI": {"defaultMode": served, "items": _DOWNWARD_ITEMS},
        "projected": {
            "defaultMode": served,
            "sources": {
                "configMap": {**_all("name", "optional"), "items": _ITEMS},
                "secret": {**_all("name", "optional"), "items": _ITEMS},
                "downwardAPI": {"items": _DOWNWARD_ITEMS},
                "serviceAccountToken": _all("audience", "expirationSeconds", "path"),
            },
        },
    }
)
"""`spec.volumes`: an emptyDir on disk or in memory, and files from the API server."""

_SCHEDULING: FieldTree = _all(
    "nodeName",
    "nodeSelector",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "schedulerName",
    "schedulingGates",
    "schedulingGroup",
    "workloadRef",
    "priority",
    "priorityClassName",
    "preemptionPolicy",
    "overhead",
)
"""Over when a pod comes to a node."""

KUBERUNTIME_FIELDS: FieldTree = MappingProxyType(
    {
        **_SCHEDULING,
        **_all("restartPolicy", "terminationGracePeriodSeconds", "activeDeadlineSeconds", "readinessGates"),
        **_all("serviceAccountName", "serviceAccount", "automountServiceAccountToken", "imagePullSecrets"),
        **_all("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "enableServiceLinks"),
        **_all("hostname", "hostnameOverride", "subdomain", "hostAliases", "dnsPolicy", "dnsConfig"),
        "hostUsers": only(True),
        "os": {"name": only("linux")},
        "containers": CONTAINER_FIELDS,
        "initContainers": INIT_CONTAINER_FIELDS,
        "ephemeralContainers": EPHEMERAL_CONTAINER_FIELDS,
        "volumes": VOLUME_FIELDS,
        "securityContext": {
            **_all("runAsUser", "runAsGroup", "runAsNonRoot", "supplementalGroups"),
            **_all("fsGroup", "fsGroupChangePolicy"),
            "supplementalGroupsPolicy": only("Merge"),
            "seccompProfile": _PROFILE,
        },
    }
)
"""`spec` of a pod that the pod engine can run."""
