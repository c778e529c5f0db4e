"""A real HTTP server with the exec endpoint, over a runner that is a function."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web
from aiohttp.test_utils import TestServer

from vkubelet.clock import Clock, SystemClock
from vkubelet.errors import StreamError
from vkubelet.model.keys import PodKey
from vkubelet.provider import ExecIO
from vkubelet.server.exec import ExecHandler
from vkubelet.server.remote_session import RemoteCommandServer
from vkubelet.server.served_connection import StreamTimeouts

Run = Callable[[Sequence[str], ExecIO], Awaitable[int]]


class FunctionRunner:
    """
    An `ExecRunner` that calls a function, and remembers for whom.

    Attributes:
        running: the containers that run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.running = {"main"}
        self.calls: list[tuple[PodKey, str, tuple[str, ...]]] = []

    async def is_running(self, key: PodKey, container: str) -> bool:
        return container in self.running

    async def exec(self, key: PodKey, container: str, command: Sequence[str], io: ExecIO) -> int:
        self.calls.append((key, container, tuple(command)))
        return await self._run(command, io)


KEY = PodKey("default", "web", "uid-of-web")


def find_pod(namespace: str, name: str, uid: str | None) -> PodKey | None:
    matches = (namespace, name) == (KEY.namespace, KEY.name) and uid in (None, KEY.uid)
    return KEY if matches else None


@dataclass(frozen=True)
class ExecServer:
    port: int
    runner: FunctionRunner
    streams: RemoteCommandServer


@web.middleware
async def _errors_as_text(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except StreamError as error:
        return web.Response(status=error.status, text=str(error))


@asynccontextmanager
async def serving_routes(
    routes: Iterable[web.RouteDef], streams: RemoteCommandServer, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """A server with these routes; its port."""
    app = web.Application(middlewares=[_errors_as_text])
    app.router.add_routes(routes)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(ssl=tls, shutdown_timeout=0.1)
    assert server.port is not None
    try:
        yield server.port
    finally:
        streams.shutdown()
        await server.close()


@asynccontextmanager
async def exec_server(
    run: Run,
    *,
    clock: Clock | None = None,
    timeouts: StreamTimeouts | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[ExecServer]:
    runner = FunctionRunner(run)
    streams = RemoteCommandServer(clock or SystemClock(), timeouts or StreamTimeouts(linger_s=0.05))
    routes = ExecHandler(runner, find_pod, streams).routes()
    async with serving_routes(routes, streams, tls) as port:
        yield ExecServer(port, runner, streams)
