"""
The fake API server without sockets: requests and watches are turns of the event loop.

With a `ManualClock` beside it everything is deterministic and takes microseconds: `tests.clocks.settle` is
enough to let all follow from all. Answers take a varying number of turns, so that a watch shows a write now
before, now after its answer. The requests run through the same routing, faults and objects as over HTTP.
"""

from __future__ import annotations

import asyncio
import datetime
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import orjson
from aiohttp import web

from tests.clocks import ManualClock
from tests.fake_api_server import FakeApiServer, RecordedRequest
from tests.kube.fake_objects import FakeObjects, selector, watch_events
from vkubelet.clock import rfc3339
from vkubelet.errors import ApiUnavailableError
from vkubelet.kube.api_errors import error_from_answer
from vkubelet.kube.client import KubeClient
from vkubelet.kube.nodes import LeaseApi, NodeApi
from vkubelet.kube.pods import PodApi
from vkubelet.kube.references import ReferenceApi
from vkubelet.kube.reviews import ReviewApi

__all__ = ["DirectClient", "DirectServer"]

Json = dict[str, Any]


@dataclass
class _Request:
    """As much of `aiohttp.web.Request` as the fake API server looks at."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        return self.body

    @property
    def transport(self) -> _Request:
        return self

    def abort(self) -> None:
        raise ConnectionResetError("connection reset by peer")


class _Objects(FakeObjects):
    """Objects whose pods go as the API server lets them go: first marked with a grace period of 0."""

    def _remove(self, key: tuple[str, str, str]) -> None:
        if key[0] == "pods":
            self._begin_deletion(key, self._objects[key], 0)
        super()._remove(key)


@dataclass
class DirectServer(FakeApiServer):
    """
    Further things that a test does to it.

    Attributes:
        is_down: nothing is answered; `go_down` also ends the watches.
        lags: watches show nothing; see `show`.
        clock: where it gets the time from that ends tokens.
    """

    objects: FakeObjects = field(default_factory=_Objects)
    is_down: bool = False
    lags: bool = False
    clock: ManualClock = field(default_factory=ManualClock)
    _turns: Iterator[int] = field(default_factory=lambda: itertools.cycle((1, 6, 2, 0, 9)))
    _cut: asyncio.Event = field(default_factory=asyncio.Event)

    def go_down(self) -> None:
        """As a killed process: watches end, requests are refused."""
        self.is_down = True
        self.cut_watches()

    def come_up(self) -> None:
        """It answers again, with the objects it had."""
        self.is_down = False

    def cut_watches(self) -> None:
        """Break every watch off."""
        self._cut.set()
        self._cut = asyncio.Event()
        self._nudge()

    def show(self) -> None:
        """Let the watches show what they have held back while `lags` was set."""
        self.lags = False
        self._nudge()

    def _nudge(self) -> None:
        self.objects.changed.set()
        self.objects.changed = asyncio.Event()

    async def exchange(
        self, method: str, path: str, query: Mapping[str, str], body: bytes, content_type: str
    ) -> Json:
        """One request; raises `ApiError` as the client does."""
        await asyncio.sleep(0)
        self._check_up(method, path)
        request = _Request(method, path, query, body, {"Content-Type": content_type})
        try:
            response = await self.handle(cast(web.Request, request))
        except ConnectionResetError as error:
            raise ApiUnavailableError(f"{method} {path}: {error}") from error
        for _ in range(next(self._turns)):
            await asyncio.sleep(0)
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        if response.status >= 300:
            raise error_from_answer(
                response.status, response.body, retry_after=response.headers.get("Retry-After")
            )
        answer: Json = orjson.loads(response.body)
        return answer

    async def follow(self, path: str, params: Mapping[str, str]) -> AsyncIterator[list[bytes]]:
        """One watch, from `resourceVersion` until it is cut."""
        cut, version = self._cut, int(params["resourceVersion"])
        resource, matches = path.rsplit("/", 1)[1], selector(params.get("fieldSelector", ""))
        while True:
            if version < self.objects.oldest_version:
                yield [orjson.dumps({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}})]
                return
            changed = self.objects.changed
            if cut.is_set():
                raise ApiUnavailableError(f"WATCH {path}: connection reset by peer")
            if not self.lags:
                entries = [e for e in self.objects.history if e.version > version]
                version = self.objects.version
                if lines := [orjson.dumps(e) for e in watch_events(entries, resource, matches)]:
                    yield lines
                    continue
            await changed.wait()

    async def admit_watch(self, path: str, params: Mapping[str, str]) -> None:
        """Record it, and suffer the faults that are planned for it."""
        await asyncio.sleep(0)
        self._check_up("WATCH", path)
        self.requests.append(RecordedRequest("WATCH", path, dict(params), {}, {}))
        request = _Request("GET", path, params, b"", {})
        await self._suffer(self._next_fault("WATCH", path), cast(web.Request, request), after=False)

    def _token(self, namespace: str, account: str, body: Json) -> Json:
        answer = super()._token(namespace, account, body)
        expires_at = self.clock.now() + datetime.timedelta(seconds=body["spec"]["expirationSeconds"])
        answer["status"]["expirationTimestamp"] = rfc3339(expires_at)
        return answer

    def _check_up(self, method: str, path: str) -> None:
        if self.is_down:
            raise ApiUnavailableError(f"{method} {path}: connection refused")


class DirectClient(KubeClient):
    """The client of a `DirectServer`; it has no connections, so there is nothing to open or close."""

    def __init__(self, server: DirectServer) -> None:
        self.server = server
        self.pods = PodApi(self)
        self.nodes = NodeApi(self)
        self.leases = LeaseApi(self)
        self.references = ReferenceApi(self)
        self.reviews = ReviewApi(self)

    async def _request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
    ) -> Json:
        data = b"" if body is None else orjson.dumps(body)
        return await self.server.exchange(method, path, params or {}, data, content_type)

    @asynccontextmanager
    async def watch(
        self, path: str, params: Mapping[str, str], *, timeout_s: int
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        del timeout_s
        await self.server.admit_watch(path, params)
        yield self.server.follow(path, params)
