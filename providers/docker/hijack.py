"""
Raw connections to the engine, for exec and attach: HTTP once, then bytes in both directions.

A connection is a socket that is read and written by hand. What that buys over asyncio's transports: what
the engine sent before it went away can still be read after a write has failed (a transport drops it, and
with it the end of a command's output); input ends by a half-close while output goes on, also under TLS; and
nothing is read ahead of the reader, so back-pressure reaches the command through the kernel's buffers.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Protocol

from providers.docker.settings import Endpoint

__all__ = ["HijackedConnection", "Refusal", "open_hijacked"]

_READ_BYTES = 256 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_MAX_REFUSAL_BYTES = 64 * 1024
_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The engine's answer when it did not hand the connection over."""

    status: int
    body: bytes


class _Channel(Protocol):
    """Bytes both ways; OSError when that fails."""

    async def receive(self) -> bytes:
        """What has come, b"" at the end."""

    async def send(self, data: bytes) -> None:
        """Returns when the kernel has taken it."""

    async def send_eof(self) -> None:
        """Nothing more will be sent; receiving goes on."""

    def close(self) -> None:
        """End both directions."""


class HijackedConnection:
    """What is left of an HTTP connection that the engine has handed over."""

    def __init__(self, channel: _Channel, first: bytes) -> None:
        self._channel = channel
        self._first = first

    async def read(self) -> bytes:
        """Whatever has come, b"" at the end; a reset by the engine is an end as well."""
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return await self._channel.receive()
        except ConnectionError:
            return b""

    async def write(self, data: bytes) -> None:
        """Send; returns when the engine keeps up. Raises OSError when it does not listen any more."""
        await self._channel.send(data)

    async def write_eof(self) -> None:
        """Half-close: the command's stdin ends. Raises OSError when the engine does not listen any more."""
        await self._channel.send_eof()

    def close(self) -> None:
        """End the connection; no other call may be waiting."""
        self._channel.close()


async def open_hijacked(
    endpoint: Endpoint, tls: ssl.SSLContext | None, path: str, body: bytes
) -> tuple[HijackedConnection | None, Refusal | None]:
    """
    POST `body` to `path` and take the connection over; exactly one of the answers is set.

    Raises:
        OSError: there is no connection.
        asyncio.IncompleteReadError: it ended before the answer was whole.
    """
    channel = await _connect(endpoint, tls)
    try:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {endpoint.host}\r\nContent-Type: application/json\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        await channel.send(head.encode() + body)
        status, length, rest = await _read_head(channel)
        if status in (101, 200):
            return HijackedConnection(channel, rest), None
        while len(rest) < min(length, _MAX_REFUSAL_BYTES) and (more := await channel.receive()):
            rest += more
    except BaseException:
        channel.close()
        raise
    channel.close()
    return None, Refusal(status, rest[:length])


async def _read_head(channel: _Channel) -> tuple[int, int, bytes]:
    """Status, content length, and what came after the head."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = await channel.receive()
        if not more or len(received) > _MAX_HEAD_BYTES:
            raise asyncio.IncompleteReadError(received, None)
        received += more
    head, _, rest = received.partition(b"\r\n\r\n")
    status_line, *fields = head.decode("latin-1").split("\r\n")
    words = status_line.split(maxsplit=2)
    if len(words) < 2 or not words[1].isdecimal():
        raise ConnectionError(f"not an HTTP answer: {status_line[:80]!r}")
    headers = {name.strip().lower(): value.strip() for name, _, value in (f.partition(":") for f in fields)}
    length = headers.get("content-length", "")
    return int(words[1]), int(length) if length.isdecimal() else _MAX_REFUSAL_BYTES, rest


async def _connect(endpoint: Endpoint, tls: ssl.SSLContext | None) -> _Channel:
    async with asyncio.timeout(_CONNECT_TIMEOUT_S):
        if endpoint.unix_path is not None:
            sock = await _connected(socket.AF_UNIX, endpoint.unix_path)
        else:
            sock = await _connected_to_host(endpoint.host, endpoint.port)
        if tls is None:
            return _SocketChannel(sock)
        channel = _TlsChannel(_SocketChannel(sock), tls, endpoint.host)
        try:
            await channel.handshake()
        except BaseException:
            channel.close()
            raise
        return channel


async def _connected_to_host(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for index, (family, _, _, _, address) in enumerate(found):
        try:
            sock = await _connected(family, address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return sock
        except OSError:
            if index == len(found) - 1:
                raise
    raise OSError(f"{host} has no address")


async def _connected(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)  # type: ignore[arg-type]  # by family
    except BaseException:
        sock.close()
        raise
    return sock


class _SocketChannel:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def receive(self) -> bytes:
        return await self._loop.sock_recv(self._sock, _READ_BYTES)

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def send_eof(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._sock.close()


class _TlsChannel:
    """
    TLS over a channel, by memory buffers: asyncio's own TLS cannot half-close.

    The close_notify alert ends our direction (RFC 8446, section 6.1); the engine's goes on.
    """

    def __init__(self, channel: _SocketChannel, context: ssl.SSLContext, server_name: str) -> None:
        self._channel = channel
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._sending = asyncio.Lock()

    async def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    raise ConnectionResetError("the engine ended the TLS handshake") from None
                continue
            await self._flush()
            return

    async def receive(self) -> bytes:
        while True:
            try:
                return self._tls.read(_READ_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                if not await self._fill():
                    return b""
            except ssl.SSLZeroReturnError:
                return b""

    async def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
            await self._flush()

    async def send_eof(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # the engine's own close_notify comes at the end of its output
        await self._flush()

    def close(self) -> None:
        self._channel.close()

    async def _fill(self) -> bool:
        data = await self._channel.receive()
        if data:
            self._incoming.write(data)
        return bool(data)

    async def _flush(self) -> None:
        async with self._sending:
            if self._outgoing.pending:
                await self._channel.send(self._outgoing.read())
