"""
``/configz``, ``/flagz`` and ``/statusz``: what this process was told, and what it is.

``/configz`` is the kubelet's: a `KubeletConfiguration` under ``kubeletconfig``. The other two are the zpages
of every Kubernetes component (KEP-4827, KEP-4828): text for people unless the client asks for the versioned
object, as in ``Accept: application/json;as=Statusz;v=v1beta1;g=config.k8s.io``; anything else is 406. Of the
text the format is explicitly nobody's to parse; Go picks the delimiter by lot, here it is always the same.
"""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson
import yaml
from aiohttp import hdrs, web

from vkubelet.clock import Clock, rfc3339
from vkubelet.server.endpoint import Endpoint, Handler

__all__ = ["ProcessInfo", "zpage_endpoints"]

_COMPONENT: Final = "kubelet"
_GROUP: Final = "config.k8s.io"
_VERSIONS: Final = ("v1beta1", "v1alpha1")
_OLD_VERSION: Final = "v1alpha1"
_WARNING: Final = (
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility "
    "guarantees and is for debugging purposes only."
)
_HIDDEN_PATHS: Final = frozenset({"/api", "/apis", "/openid", "/openapi", "/.well-known"})

Kind = Literal["Flagz", "Statusz"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """
    This process, as its operator may see it.

    Attributes:
        version: of vkubelet.
        kubernetes_version: whose kubelet it behaves like, such as ``1.36``.
        started_at: when.
        flags: every option as text, by its flag's name without dashes; secrets are not among them.
        configuration: the `KubeletConfiguration` that they amount to.
    """

    version: str
    kubernetes_version: str
    started_at: datetime.datetime
    flags: Mapping[str, str] = field(default_factory=dict)
    configuration: Mapping[str, Any] = field(default_factory=dict)


def zpage_endpoints(info: ProcessInfo, paths: Iterable[str], clock: Clock) -> tuple[Endpoint, ...]:
    """
    The three.

    Args:
        info: what is shown.
        paths: of everything else that is served.
        clock: for the uptime.
    """
    configuration = orjson.dumps({"kubeletconfig": dict(info.configuration)})

    async def configz(_: web.Request) -> web.StreamResponse:
        headers = {"X-Content-Type-Options": "nosniff"}
        return web.Response(body=configuration, content_type="application/json", headers=headers)

    own = ("/configz", "/flagz", "/statusz")
    folders = sorted({"/" + path.split("/")[1] for path in (*paths, *own)} - _HIDDEN_PATHS - {"/"})
    return (
        Endpoint("/configz", configz),
        Endpoint("/flagz", _flagz_handler(info)),
        Endpoint("/statusz", _statusz_handler(info, folders, clock)),
    )


def _flagz_handler(info: ProcessInfo) -> Handler:
    lines = "".join(f"{name}={value}\n" for name, value in sorted(info.flags.items()))

    async def flagz(request: web.Request) -> web.StreamResponse:
        return _answer(request, "Flagz", lines, {"flags": dict(info.flags)})

    return flagz


def _statusz_handler(info: ProcessInfo, folders: list[str], clock: Clock) -> Handler:
    async def statusz(request: web.Request) -> web.StreamResponse:
        up_s = max(int((clock.now() - info.started_at).total_seconds()), 0)
        started = info.started_at.astimezone(datetime.UTC).strftime("%a %b %e %H:%M:%S UTC %Y")
        python = f"Python {platform.python_version()}"
        text = (
            f"\nStarted: {started}\n"
            f"Up: {up_s // 3600} hr {up_s // 60 % 60:02} min {up_s % 60:02} sec\n"
            f"Go version: {python}\n"
            f"Binary version: {info.version}\n"
            f"Emulation version: {info.kubernetes_version}\n"
            f"Paths: {' '.join(folders)}\n"
        )
        fields = {
            "startTime": rfc3339(info.started_at),
            "uptimeSeconds": up_s,
            "goVersion": python,
            "binaryVersion": info.version,
            "emulationVersion": info.kubernetes_version,
            "paths": folders,
        }
        return _answer(request, "Statusz", text, fields)

    return statusz


# --- content negotiation ----------------------------------------------------------------------------------


def _answer(request: web.Request, kind: Kind, text: str, fields: Json) -> web.Response:
    accepted = request.headers.get(hdrs.ACCEPT, "").strip()
    for offer in accepted.split(",") if accepted else ("text/plain",):
        media_type, parameters = _parsed(offer)
        if media_type in ("text/plain", "text/*", "*/*") and "as" not in parameters:
            heading = f"\n{_COMPONENT} {kind.lower()}\n{_WARNING}\n"
            return web.Response(text=heading + text)
        version = parameters.get("v", "")
        asked = (parameters.get("as"), parameters.get("g"))
        if asked == (kind, _GROUP) and version in _VERSIONS and media_type in _ENCODERS:
            return _structured(media_type, kind, version, fields)
    accepts = ", ".join(("text/plain", *(f"{each};as={kind};v=v1beta1;g={_GROUP}" for each in _ENCODERS)))
    return web.Response(status=406, text=f"only the following media types are accepted: {accepts}\n")


def _parsed(offer: str) -> tuple[str, dict[str, str]]:
    media_type, *parameters = (part.strip() for part in offer.split(";"))
    pairs = (parameter.partition("=") for parameter in parameters)
    return media_type.lower(), {name.strip(): value.strip() for name, _, value in pairs}


def _structured(media_type: str, kind: Kind, version: str, fields: Json) -> web.Response:
    document = {
        "kind": kind,
        "apiVersion": f"{_GROUP}/{version}",
        "metadata": {"name": _COMPONENT},
        **fields,
    }
    response = web.Response(body=_ENCODERS[media_type](document), content_type=media_type)
    if version == _OLD_VERSION:
        response.headers["Warning"] = (
            f'299 - "This version of the {kind.lower()} endpoint is deprecated. Please use a newer version."'
        )
    return response


def _yaml(document: Json) -> bytes:
    return yaml.safe_dump(document, sort_keys=False).encode()


_ENCODERS: Final[Mapping[str, Callable[[Json], bytes]]] = {
    "application/json": orjson.dumps,
    "application/yaml": _yaml,
}
