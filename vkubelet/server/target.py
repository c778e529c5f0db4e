"""Which pod and container a request for a stream means, from its path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeAlias

from aiohttp import web

from vkubelet.errors import StreamError
from vkubelet.model.keys import PodKey
from vkubelet.server.endpoint import Handler

__all__ = ["FindPod", "Target", "container_routes", "find_target"]

FindPod: TypeAlias = Callable[[str, str, str | None], PodKey | None]
"""(namespace, name, uid or None for any) to the pod of this node, None if it has no such pod."""


class Target(NamedTuple):
    """A container of a pod that is here; whether it runs is another question."""

    key: PodKey
    container: str


def container_routes(family: str, handler: Handler, methods: Iterable[str]) -> Iterator[web.RouteDef]:
    """The rows of ``/<family>/{namespace}/{pod}/{container}``, with and without the pod's uid."""
    for path in ("{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"):
        for method in methods:
            yield web.route(method, f"/{family}/{path}", handler)


def find_target(request: web.Request, find_pod: FindPod) -> Target:
    """
    The container that the path names.

    Raises:
        StreamError: 404, there is no such pod here.
    """
    path = request.match_info
    key = find_pod(path["namespace"], path["pod"], path.get("uid"))
    if key is None:
        raise StreamError("pod does not exist", status=404)
    return Target(key, path["container"])
