"""A client of the kubelet's port-forward, over SPDY or its tunnel, as client-go behaves; and a server."""

from __future__ import annotations

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.builders import make_pod
from tests.server.kubelet import Pods
from tests.server.spdy_client import request
from tests.server.websocket_client import handshake_headers
from vkubelet.clock import Clock, SystemClock
from vkubelet.errors import StreamError
from vkubelet.kuberuntime import tcp
from vkubelet.model.keys import PodKey
from vkubelet.protocols import spdy, websocket
from vkubelet.provider import PortConnection
from vkubelet.server.port_forward import PortForwardServer, port_forward_routes
from vkubelet.server.served_connection import StreamTimeouts

PROTOCOL = "portforward.k8s.io"
TUNNEL = f"SPDY/3.1+{PROTOCOL}"
PATH = "/portForward/default/web"

Way = Literal["spdy", "tunnel"]
Connect = Callable[[int], Awaitable[PortConnection]]


@dataclass(eq=False)
class Forward:
    """One forwarded connection, as the client sees it."""

    client: ForwardClient
    data_id: int
    error_id: int
    received: bytearray = field(default_factory=bytearray)
    told: bytearray = field(default_factory=bytearray)
    is_over: bool = False  # the server sends no more data
    is_error_over: bool = False
    is_reset: bool = False

    async def send(self, data: bytes, *, end: bool = False) -> None:
        self.client.connection.send_data(self.data_id, data, end_stream=end)
        await self.client.flush()

    async def reset(self) -> None:
        self.client.connection.reset(self.data_id)
        await self.client.flush()

    async def until_received(self, count: int) -> bytes:
        await self.client.until(lambda: len(self.received) >= count or self.is_over)
        return bytes(self.received)

    async def rest(self) -> bytes:
        """Everything, once the server has ended."""
        await self.client.until(lambda: self.is_over)
        return bytes(self.received)

    async def error(self) -> str:
        """What was told, once nothing more can be."""
        await self.client.until(lambda: self.is_error_over)
        return self.told.decode()


class ForwardClient:
    """Reads everything in the background unless told to hold still."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, tunnels: bool = False
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = spdy.Connection(spdy.Role.CLIENT)
        self.websocket = websocket.Connection(websocket.Role.CLIENT) if tunnels else None
        self.streams: dict[int, Forward] = {}
        self.events: list[spdy.Event] = []
        self.goodbye: websocket.Closed | None = None
        self.reading = asyncio.Event()
        self.reading.set()
        self.closed = False
        self._news = asyncio.Event()
        self._requests = itertools.count()

    async def open(self, port: int | str, *, request_id: bool = True) -> Forward:
        """Open both streams, the error stream first, and close our half of that."""
        headers = {"port": str(port)}
        if request_id:
            headers["requestID"] = str(next(self._requests))
        error_id = self.connection.open_stream({**headers, "streamType": "error"}, end_stream=True)
        data_id = self.connection.open_stream({**headers, "streamType": "data"})
        forward = Forward(self, data_id, error_id)
        self.streams[data_id] = self.streams[error_id] = forward
        await self.flush()
        return forward

    async def flush(self) -> None:
        data = self.connection.data_to_send()
        if self.websocket is not None and data:
            self.websocket.send_message(data)
            data = self.websocket.data_to_send()
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                assert not self.closed, "the server has closed the connection"
                self._news.clear()
                await self._news.wait()

    async def until_closed(self) -> None:
        async with asyncio.timeout(20):
            while not self.closed:
                self._news.clear()
                await self._news.wait()

    def has(self, event: spdy.Event) -> bool:
        return event in self.events

    def vanish(self) -> None:
        """Be gone, without a word."""
        self.writer.transport.abort()

    async def read_on(self) -> None:
        while True:
            await self.reading.wait()
            try:
                data = await self.reader.read(1 << 18)
            except ConnectionError:
                data = b""
            if not data:
                break
            for piece in self._untunnelled(data):
                for event in self.connection.receive_data(piece):
                    self._handle(event)
            self._news.set()
        self.closed = True
        self._news.set()

    def _untunnelled(self, data: bytes) -> list[bytes]:
        if self.websocket is None:
            return [data]
        pieces = []
        for event in self.websocket.receive_data(data):
            match event:
                case websocket.DataReceived():
                    assert not event.is_text
                    pieces.append(event.data)
                case websocket.Closed():
                    self.goodbye = event
        return pieces

    def _handle(self, event: spdy.Event) -> None:
        match event:
            case spdy.DataReceived():
                forward = self.streams[event.stream_id]
                target = forward.received if event.stream_id == forward.data_id else forward.told
                target += event.data
            case spdy.StreamEnded() | spdy.StreamReset():
                self.events.append(event)
                if (ended := self.streams.get(event.stream_id)) is None:
                    return
                if event.stream_id == ended.data_id:
                    ended.is_over = True
                    ended.is_reset = isinstance(event, spdy.StreamReset)
                else:
                    ended.is_error_over = True
            case _:
                self.events.append(event)


@asynccontextmanager
async def forwarding(
    port: int,
    way: Way = "spdy",
    *,
    path: str = PATH,
    tls: ssl.SSLContext | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> AsyncIterator[ForwardClient]:
    """A client after the 101."""
    asked = handshake_headers(TUNNEL) if way == "tunnel" else spdy_headers()
    answer, reader, writer = await request(
        port, path, method="GET" if way == "tunnel" else "POST", headers=[*asked, *headers], tls=tls
    )
    assert answer.status == 101, answer
    client = ForwardClient(reader, writer, tunnels=way == "tunnel")
    background = asyncio.create_task(client.read_on())
    try:
        yield client
    finally:
        background.cancel()
        client.vanish()
        await asyncio.gather(background, return_exceptions=True)


def spdy_headers(protocol: str = PROTOCOL) -> list[tuple[str, str]]:
    return [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", protocol)]


# --- the server's side ------------------------------------------------------------------------------------


class FunctionForwarder:
    """A `PortForwarder` that calls a function, and remembers for whom."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self.calls: list[tuple[PodKey, int]] = []

    async def connect_port(self, key: PodKey, port: int) -> PortConnection:
        self.calls.append((key, port))
        return await self._connect(port)


async def to_localhost(port: int) -> PortConnection:
    """Connect to this machine, as a provider of this machine would."""
    sock = tcp.socket_for("127.0.0.1")
    try:
        return await tcp.connect(sock, "127.0.0.1", port)
    except OSError as error:
        raise StreamError(f"failed to connect to localhost:{port}: {tcp.reason(error)}") from error


@dataclass(frozen=True)
class ForwardServer:
    port: int
    forwarder: FunctionForwarder
    forwards: PortForwardServer


@web.middleware
async def _errors_as_text(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except StreamError as error:
        return web.Response(status=error.status, text=str(error))


@asynccontextmanager
async def forward_server(
    connect: Connect | None = to_localhost,
    *,
    clock: Clock | None = None,
    timeouts: StreamTimeouts | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[ForwardServer]:
    """A real HTTP server with the endpoint, for the pod ``default/web``; None is a provider that cannot."""
    forwarder = FunctionForwarder(connect or to_localhost)
    forwards = PortForwardServer(clock or SystemClock(), timeouts or StreamTimeouts(linger_s=0.5))
    app = web.Application(middlewares=[_errors_as_text])
    app.router.add_routes(port_forward_routes(Pods(make_pod()), forwarder if connect else None, forwards))
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(ssl=tls, shutdown_timeout=0.1)
    assert server.port is not None
    try:
        yield ForwardServer(server.port, forwarder, forwards)
    finally:
        forwards.shutdown()
        await server.close()
