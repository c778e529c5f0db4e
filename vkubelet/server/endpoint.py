"""
The table that the server's routes are made from.

A row is a value, so that a list of what is served can be tested and printed without a server.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from aiohttp import web

from vkubelet.errors import StreamError

__all__ = ["Endpoint", "Handler", "Method", "not_supported"]

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
Method: TypeAlias = Literal["GET", "HEAD", "POST", "PUT"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    One path and what it does.

    Attributes:
        path: in aiohttp's notation, such as ``/exec/{namespace}/{pod}/{container}``; one without parameters
            is served with and without a slash at its end, as the kubelet's router does.
    """

    path: str
    handler: Handler
    methods: tuple[Method, ...] = ("GET",)

    def routes(self) -> Iterator[web.RouteDef]:
        """Its rows in aiohttp's table."""
        paths = (self.path,) if "{" in self.path else (self.path, self.path + "/")
        for path in paths:
            for method in self.methods:
                only_get = {"allow_head": False} if method == "GET" else {}
                yield web.route(method, path, self.handler, **only_get)


def not_supported(sentence: str) -> Handler:
    """A handler for what this node's provider cannot do: 501 with the sentence."""

    async def refuse(_: web.Request) -> web.StreamResponse:
        raise StreamError(sentence, status=501)

    return refuse
