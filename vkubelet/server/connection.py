"""
An HTTP connection after its upgrade: raw bytes, with back-pressure in both directions.

`take_over` answers 101 and makes a `Link` the protocol of aiohttp's transport (`Transport.set_protocol`,
part of asyncio's contract); aiohttp hears of the connection again when it is lost. What the bytes mean is
left to the link's receiver.

Turned down: aiohttp's own `RequestHandler.set_parser`, which hands over the bytes too, but keeps the
signals of a full write buffer to itself, behind one waiter that a second cancelled writer would cancel for
the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from vkubelet import metrics

__all__ = ["Link", "Receiver", "take_over"]

_WRITE_HIGH_BYTES = 256 * 1024
_WRITE_LOW_BYTES = 64 * 1024


class Receiver(Protocol):
    """Whoever understands the bytes; called from the event loop, may not raise."""

    def data_received(self, data: bytes) -> None:
        """Bytes as they were read."""

    def writable(self) -> None:
        """The write buffer, which was full, has room again."""


class Link(asyncio.Protocol):
    """
    Owns the transport from the 101 until it is lost.

    Attributes:
        lost: set when nothing can be read or written any more, or the peer has said goodbye.
    """

    def __init__(self, transport: asyncio.Transport, previous: asyncio.BaseProtocol) -> None:
        self._transport = transport
        self._previous = previous
        self._receiver: Receiver | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._reading = True
        self._closed = False
        self._disconnected = False
        self._loss: Exception | None = None
        self.lost = asyncio.Event()

    def start(self, receiver: Receiver) -> None:
        """From now on `receiver` gets what arrives."""
        self._receiver = receiver
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_BYTES, low=_WRITE_LOW_BYTES)
        self._transport.set_protocol(self)
        metrics.STREAM_CONNECTIONS.inc()

    # --- asyncio's side -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        metrics.STREAM_RECEIVED_BYTES.inc(len(data))
        if self._receiver is not None:
            self._receiver.data_received(data)

    def pause_writing(self) -> None:
        """The write buffer is full."""
        self._room.clear()

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        self._room.set()
        if self._receiver is not None:
            self._receiver.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more will come; who waits for room wakes up and finds out."""
        metrics.STREAM_CONNECTIONS.dec()
        self._loss = exc
        self._disconnected = True
        self.peer_left()
        if self._closed:
            self._previous.connection_lost(exc)

    # --- our side -----------------------------------------------------------------------------------------

    def peer_left(self) -> None:
        """The peer will neither send nor listen: what is written from now on goes nowhere."""
        self.lost.set()
        self._room.set()

    @property
    def is_reading(self) -> bool:
        """Whether the peer is not being held back."""
        return self._reading

    @property
    def backlog_bytes(self) -> int:
        """What was written and the peer has not taken yet."""
        return 0 if self.lost.is_set() else self._transport.get_write_buffer_size()

    def write(self, data: bytes) -> None:
        """Queue `data`; it goes nowhere when the connection is lost."""
        if data and not self.lost.is_set():
            metrics.STREAM_SENT_BYTES.inc(len(data))
            self._transport.write(data)

    async def drain(self) -> None:
        """
        Wait until there is room in the write buffer.

        Raises:
            ConnectionResetError: the connection is lost.
        """
        await self._room.wait()
        if self.lost.is_set():
            raise ConnectionResetError("the client has gone")

    async def flush(self) -> None:
        """
        Wait until the write buffer is empty, for good: from now on any write fills it.

        Raises:
            ConnectionResetError: the connection is lost.
        """
        if not self.lost.is_set():
            self._transport.set_write_buffer_limits(high=1, low=0)
        await self.drain()

    def set_reading(self, reading: bool) -> None:
        """Read, or let TCP hold the peer back."""
        if reading is self._reading or self._transport.is_closing():
            return
        self._reading = reading
        if reading:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def close(self) -> None:
        """
        Close when what was written has gone out, and hand back to aiohttp.

        It hears of a loss only now: told at once, it might cancel a handler that is about to return.
        """
        self._transport.close()
        if not self._closed and self._disconnected:
            asyncio.get_running_loop().call_soon(self._previous.connection_lost, self._loss)
        self._closed = True

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()


async def take_over(
    request: web.Request, headers: Mapping[str, str], *, link_type: type[Link] = Link
) -> tuple[Link, web.StreamResponse]:
    """
    Answer 101 with `headers`; the connection, and the response that the handler is to return in the end.

    Call `Link.start` before anything else is awaited: what arrives earlier would go to the HTTP parser.

    Raises:
        ConnectionResetError: the client has gone.
    """
    response = web.StreamResponse(status=101, headers={"Connection": "Upgrade", **headers})
    response.force_close()
    await response.prepare(request)
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has gone")
    return link_type(transport, request.protocol), response
