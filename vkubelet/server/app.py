"""
The kubelet server: one port, TLS, the gate, and the table of endpoint families.

It knows no provider and no API server: what it can show and do comes in as `Powers`, each of which may be
missing (the endpoint then answers 501), and who may use it as a `Gate`, without which there is no server.

To end: no new connections, idle ones are closed, running requests get `shutdown_timeout_s`, then streams
are ended and the rest is cancelled. (aiohttp's own shutdown waits, but cuts off what is still running and
waits its time twice.)
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog
from aiohttp import hdrs, web

from vkubelet import metrics
from vkubelet.clock import Clock
from vkubelet.errors import (
    PodNotFoundError,
    ProviderUnavailableError,
    StreamError,
    VirtualKubeletError,
)
from vkubelet.provider import Attacher, ExecRunner, LogSource, PortForwarder, StatsSource
from vkubelet.server.auth import Gate
from vkubelet.server.commands import command_routes
from vkubelet.server.container_logs import container_log_endpoints
from vkubelet.server.endpoint import Endpoint, Handler
from vkubelet.server.health import HealthCheck, health_endpoints
from vkubelet.server.listener import MAX_CONNECTIONS, Acceptor
from vkubelet.server.metrics import is_long_running, metrics_endpoints, path_bucket
from vkubelet.server.pods import ListRunning, PodLookup, pod_endpoints
from vkubelet.server.port_forward import PortForwardServer, port_forward_routes
from vkubelet.server.rate_limit import TokenBucket
from vkubelet.server.remote_session import RemoteCommandServer
from vkubelet.server.stats import stats_endpoints
from vkubelet.server.tls import ServingTLS
from vkubelet.server.zpages import ProcessInfo, zpage_endpoints

__all__ = ["KubeletServer", "Limits", "Powers"]

log = structlog.get_logger(__name__)

_MAX_FIELD_BYTES: Final = 16 * 1024
_MAX_LINE_BYTES: Final = 256 * 1024
"""``kubectl exec`` puts its command into the request line: one argument may have 128 KiB, escaped more."""
_KEEPALIVE_S: Final = 120.0
"""Longer than Go's clients keep an idle connection (90 s), so that theirs is the side that closes."""
_END_OF_STREAMS_S: Final = 1.0
_HAS_BEGUN: Final = web.RequestKey("has_begun", bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """
    What the server bears.

    Attributes:
        max_connections: at once.
        request_qps: requests a second, over all clients; 0 for no limit.
        request_burst: requests at once.
    """

    max_connections: int = MAX_CONNECTIONS
    request_qps: int = 1000
    request_burst: int = 2000


_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Powers:
    """
    What the server shows and does.

    Attributes:
        list_running: `Provider.list_pods`.
        process: for ``/configz``, ``/flagz`` and ``/statusz``; None serves none of them.
        health_checks: by name, for ``/healthz``, ``/livez`` and ``/readyz``; the kubelet has "syncloop".
        readiness_checks: further ones for ``/readyz`` alone.
    """

    pods: PodLookup
    list_running: ListRunning | None = None
    logs: LogSource | None = None
    exec: ExecRunner | None = None
    attach: Attacher | None = None
    port_forward: PortForwarder | None = None
    stats: StatsSource | None = None
    process: ProcessInfo | None = None
    health_checks: Mapping[str, HealthCheck] = field(default_factory=dict)
    readiness_checks: Mapping[str, HealthCheck] = field(default_factory=dict)


class KubeletServer:
    """
    Serves from entry to exit of `running`; can do so once.

    Args:
        listener: bound, see `listener.bind`; closed at the end.
    """

    def __init__(
        self,
        *,
        listener: socket.socket,
        tls: ServingTLS,
        gate: Gate,
        powers: Powers,
        clock: Clock,
        limits: Limits = _LIMITS,
        shutdown_timeout_s: float = 20.0,
    ) -> None:
        self._listener = listener
        self._port: int = listener.getsockname()[1]
        self._tls = tls
        self._gate = gate
        self._clock = clock
        self._limits = limits
        self._bucket = TokenBucket(limits.request_qps, limits.request_burst, clock)
        self._acceptor: Acceptor | None = None
        self._shutdown_timeout_s = shutdown_timeout_s
        self._streams = RemoteCommandServer(clock)
        self._forwards = PortForwardServer(clock)
        self._routes = _routes(powers, self._streams, self._forwards, gate.node_name, clock)
        self._requests: set[asyncio.Task[object]] = set()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """
        Listen, and keep the certificates fresh.

        Raises:
            ConfigurationError: the port is taken.
        """
        runner = self._runner()
        await runner.setup()
        assert runner.server is not None
        acceptor = Acceptor(self._listener, runner.server, self._tls.context, self._limits.max_connections)
        self._acceptor = acceptor
        reloading = asyncio.create_task(self._tls.run(), name="reload of serving certificates")
        try:
            acceptor.listen()
            log.info("kubelet server listening", address=self._listener.getsockname()[0], port=self._port)
            yield
        finally:
            reloading.cancel()
            await acceptor.close()
            await runner.cleanup()
            await asyncio.wait([reloading])

    def _runner(self) -> web.AppRunner:
        application = web.Application(middlewares=[self._middleware])
        application.router.add_routes(self._routes)
        application.on_response_prepare.append(_note_begin)
        application.on_shutdown.append(self._end_requests)
        return web.AppRunner(
            application,
            access_log=None,
            handler_cancellation=True,  # a client that leaves ends what was done for it
            keepalive_timeout=_KEEPALIVE_S,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_FIELD_BYTES,
            shutdown_timeout=_END_OF_STREAMS_S,
        )

    async def _end_requests(self, _: web.Application) -> None:
        """Let the running requests finish in time, then end them."""
        self._forwards.drain()
        await _finished(self._requests, self._shutdown_timeout_s)
        if self._streams.open_connections or self._forwards.open_connections:
            self._streams.shutdown()
            self._forwards.shutdown()
            await _finished(self._requests, _END_OF_STREAMS_S)
        for request in self._requests:
            request.cancel()
        await _finished(self._requests, _END_OF_STREAMS_S)

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every request passes here, also one for an unknown path: judged, served, logged."""
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        if self._acceptor is not None:
            self._acceptor.head_came(request.protocol)
        started_at = self._clock.monotonic()
        status = 0  # of one whose client has gone
        try:
            with _counted(request):
                response = await self._answer(request, handler)
            status = response.status
            return response
        finally:
            self._requests.discard(task)
            log.debug(
                "request served",
                method=request.method,
                path=request.path,  # never the query: commands may hold secrets
                status=status,
                duration_s=round(self._clock.monotonic() - started_at, 6),
            )

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return self._overload() or await self._gate.refusal(request) or await handler(request)
        except web.HTTPException as answer:
            return web.Response(status=answer.status, text=f"{answer.text}\n", headers=_allow(answer))
        except ConnectionResetError:
            return _cut_off(request)
        except VirtualKubeletError as error:
            if not _has_begun(request):
                return web.Response(status=_status_of(error), text=f"{error}\n")
            log.warning("response broken off", path=request.path, error=str(error))
            return _cut_off(request)
        except Exception:  # the one boundary of the server: a bug costs one request
            log.exception("request failed", method=request.method, path=request.path)
            if not _has_begun(request):
                return web.Response(status=500, text="internal error: the log of vkubelet has the details\n")
            return _cut_off(request)

    def _overload(self) -> web.Response | None:
        retry_after_s = self._bucket.take()
        if not retry_after_s:
            return None
        return web.Response(
            status=429,
            text="Too many requests, please try again later.\n",
            headers={hdrs.RETRY_AFTER: str(retry_after_s)},
        )


def _routes(
    powers: Powers, streams: RemoteCommandServer, forwards: PortForwardServer, node_name: str, clock: Clock
) -> list[web.RouteDef]:
    """Everything that is served: a new family is a line here."""
    endpoints = (
        *health_endpoints(powers.health_checks, powers.readiness_checks),
        *pod_endpoints(powers.pods, powers.list_running),
        *container_log_endpoints(powers.pods, powers.logs, clock),
        *stats_endpoints(powers.stats, node_name, clock),
        *metrics_endpoints(),
        Endpoint("/logs/{path:.*}", _system_logs_disabled),
    )
    rows = [row for endpoint in endpoints for row in endpoint.routes()] + command_routes(
        powers.pods, powers.exec, powers.attach, streams
    )
    rows += port_forward_routes(powers.pods, powers.port_forward, forwards)
    if powers.process is not None:
        zpages = zpage_endpoints(powers.process, (row.path for row in rows), clock)
        rows += [row for endpoint in zpages for row in endpoint.routes()]
    return rows


async def _system_logs_disabled(_: web.Request) -> web.StreamResponse:
    """The kubelet's answer without `enableSystemLogHandler`: the machine's logs are not this node's."""
    return web.Response(status=405, text="logs endpoint is disabled.\n")


async def _finished(tasks: set[asyncio.Task[object]], timeout_s: float) -> None:
    if tasks:
        await asyncio.wait(tuple(tasks), timeout=timeout_s)


async def _note_begin(request: web.Request, _: web.StreamResponse) -> None:
    request[_HAS_BEGUN] = True


def _has_begun(request: web.Request) -> bool:
    return _HAS_BEGUN in request


def _cut_off(request: web.Request) -> web.Response:
    """Close without the end that the protocol asks for, so that nobody takes the part for the whole."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _counted(request: web.Request) -> AbstractContextManager[None]:
    bucket = path_bucket(request.path)
    method = request.method if request.method in hdrs.METH_ALL else "other"
    return metrics.http_request(method, bucket, is_long_running=is_long_running(bucket))


def _allow(answer: web.HTTPException) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name == hdrs.ALLOW}


def _status_of(error: VirtualKubeletError) -> int:
    match error:
        case StreamError():
            return error.status
        case PodNotFoundError():
            return 404
        case ProviderUnavailableError():
            return 503
        case _:
            return 500
