"""
Streams over one connection, each a `Channel`, whatever protocol carries them.

`Streams` is what SPDY (`spdy_streams`) and WebSocket (`websocket_streams`) have in common: it moves bytes and
keeps them few. It knows neither exec nor ports: `remote_session.py` (exec, attach) gives the streams their
meaning. A `Channel` sees its connection through `ChannelTransport`, four methods.

Memory per connection is bounded whatever the peer does: input that nobody has read yet stops the reading of
the socket at `_HELD_HIGH_BYTES`, output waits for the write buffer, and so do answers to a peer that asks
without listening (pings, refused streams).

Frames are handled as they arrive, in the event loop's callback. A reader task with a queue behind it was
turned down: it costs a task switch per read, and hides how much is held.
"""

from __future__ import annotations

import abc
import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Protocol

import structlog

from vkubelet.clock import Clock
from vkubelet.errors import RemoteProtocolError
from vkubelet.server.connection import Link

__all__ = ["Channel", "ChannelTransport", "Streams"]

_log = structlog.get_logger(__name__)

_HELD_HIGH_BYTES = 1024 * 1024
_HELD_LOW_BYTES = 256 * 1024
_BACKLOG_LIMIT_BYTES = 1024 * 1024
_FRAME_BYTES = 64 * 1024
_SLICE_BYTES = 64 * 1024
_YIELD_AFTER_BYTES = 512 * 1024
_SMALL_BYTES = 1024


class ChannelTransport(Protocol):
    """What carries a channel."""

    async def send(self, channel_id: int, data: bytes) -> None:
        """Send data, and wait while the peer is slower than we are."""

    def end(self, channel_id: int) -> None:
        """Say that no more data will follow."""

    def consumed(self, channel_id: int, count: int) -> None:
        """Account for data that was read, or thrown away."""

    def reset(self, channel_id: int) -> None:
        """End both directions at once."""


class Channel:
    """
    One stream of a connection: iterate for its input, `write` its output.

    The iterator gives everything that has arrived since the last step as one chunk, and ends at the peer's
    half-close. One task at a time may iterate. A chunk counts as held until the next one is asked for, so
    that a slow consumer slows the peer by all that it has taken.

    Attributes:
        id: its number on the connection.
        headers: what the stream was opened with, names in lower case.
        closed: set when what is written goes nowhere any more: the stream was reset, or the connection lost.
    """

    def __init__(self, transport: ChannelTransport, channel_id: int, headers: Mapping[str, str]) -> None:
        self._transport = transport
        self.id = channel_id
        self.headers = headers
        self.closed = asyncio.Event()
        self._arrived: deque[bytes | bytearray] = deque()
        self._taken_bytes = 0
        self._news = asyncio.Event()
        self._ended = False
        self._broken = False
        self._discarding = False

    # --- for its user -------------------------------------------------------------------------------------

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> bytes:
        """
        The input that has arrived.

        Raises:
            ConnectionResetError: the connection broke before the input's end.
        """
        self._account()
        while not self._arrived:
            if self._broken:
                raise ConnectionResetError("the client has gone")
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        first = self._arrived[0]
        data = first if len(self._arrived) == 1 and isinstance(first, bytes) else b"".join(self._arrived)
        self._arrived.clear()
        self._taken_bytes = len(data)
        return data

    async def write(self, data: bytes) -> None:
        """
        Send output; returns when the client keeps up. Dropped when the client has closed this stream.

        Raises:
            ConnectionResetError: the connection is lost.
        """
        if data:
            await self._transport.send(self.id, data)

    def end(self) -> None:
        """Half-close: no more output will follow."""
        self._transport.end(self.id)

    def reset(self) -> None:
        """Close both directions at once."""
        self.discard()
        self._transport.reset(self.id)
        self.closed.set()

    def discard(self) -> None:
        """Nobody will read the input: throw away what is here and what comes."""
        self._discarding = True
        self._taken_bytes += sum(map(len, self._arrived))
        self._arrived.clear()
        self._account()

    def _account(self) -> None:
        """Whoever took input is done with it."""
        count, self._taken_bytes = self._taken_bytes, 0
        if count:
            self._transport.consumed(self.id, count)

    # --- for its transport --------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Input has arrived. Small pieces are joined: an object for each byte would cost fifty."""
        if self._discarding:
            self._transport.consumed(self.id, len(data))
            return
        if len(data) >= _SMALL_BYTES:
            self._arrived.append(data)
        elif self._arrived and isinstance(last := self._arrived[-1], bytearray):
            last += data
        else:
            self._arrived.append(bytearray(data))
        self._news.set()

    def ended(self) -> None:
        """The peer has closed its half."""
        self._ended = True
        self._news.set()

    def was_reset(self) -> None:
        """Both directions have ended at once; what has arrived can still be read."""
        self.closed.set()
        self.ended()

    def broken(self) -> None:
        """The connection has ended, perhaps before the input did."""
        self.closed.set()
        if not self._ended:
            self._broken = True
            self._news.set()


class Streams(abc.ABC):
    """
    The streams of one connection: a `Receiver` of its link, a `ChannelTransport` for its channels.

    Attributes:
        last_activity: when something last went in or out, our own signs of life and the answers to them left
            out; in the clock's monotonic seconds.
    """

    def __init__(self, link: Link, clock: Clock) -> None:
        self._link = link
        self._clock = clock
        self._channels: dict[int, Channel] = {}
        self._held_bytes = 0
        self._sent_since_yield = 0
        self._window = asyncio.Event()
        self.last_activity = clock.monotonic()

    # --- a protocol's part --------------------------------------------------------------------------------

    @abc.abstractmethod
    def _receive(self, data: bytes) -> None:
        """Act on what was read; raises `RemoteProtocolError` when the peer breaks the protocol."""

    @abc.abstractmethod
    def _outgoing(self) -> bytes:
        """What is to be written now."""

    @abc.abstractmethod
    def _sendable(self, channel_id: int) -> int:
        """How much the peer lets us send on an open channel; after 0 it calls `_wake_senders`."""

    @abc.abstractmethod
    def _send_piece(self, channel_id: int, piece: bytes) -> None:
        """Make one frame of output."""

    @abc.abstractmethod
    def _acknowledge(self, channel_id: int, count: int) -> None:
        """Tell the peer, where it wants to know, that input was consumed."""

    @abc.abstractmethod
    def _sign_of_life(self) -> None:
        """Make a frame that the peer answers."""

    @abc.abstractmethod
    def end(self, channel_id: int) -> None:
        """Half-close a channel that is still open."""

    @abc.abstractmethod
    def reset(self, channel_id: int) -> None:
        """Close a channel at once in both directions."""

    @abc.abstractmethod
    def goaway(self, *, complete: bool) -> None:
        """Tell the peer that this connection ends; not `complete`: before its work was done. Told once."""

    # --- for the link -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take in what was read; a peer that breaks the protocol loses the connection."""
        try:
            for start in range(0, len(data), _SLICE_BYTES):
                self._receive(data[start : start + _SLICE_BYTES])
        except RemoteProtocolError as error:
            _log.warning("stream protocol violated", error=str(error))
            self._flush()
            self._link.abort()
            return
        self._flush()
        self._balance()

    def writable(self) -> None:
        """There is room to answer again."""
        self._balance()

    # --- for the channels ---------------------------------------------------------------------------------

    async def send(self, channel_id: int, data: bytes) -> None:
        """
        Send data in frames small enough that streams take turns, never more than the write buffer holds.

        Raises:
            ConnectionResetError: the connection is lost.
        """
        position = 0
        while position < len(data):
            await self._link.drain()
            if channel_id not in self._channels:
                return
            count = min(_FRAME_BYTES, self._sendable(channel_id))
            if not count:
                await self._wait_for_window()
                continue
            piece = data[position : position + count]
            position += len(piece)
            self._send_piece(channel_id, piece)
            self._flush()
            await self._share_the_loop(len(piece))
        await self._link.drain()

    async def _share_the_loop(self, count: int) -> None:
        """Let others run now and then: to a fast peer one could send forever without ever waiting."""
        self._sent_since_yield += count
        if self._sent_since_yield >= _YIELD_AFTER_BYTES:
            self._sent_since_yield = 0
            await asyncio.sleep(0)

    async def _wait_for_window(self) -> None:
        self._window.clear()
        await self._window.wait()

    def _wake_senders(self) -> None:
        self._window.set()

    def consumed(self, channel_id: int, count: int) -> None:
        """Make room for more input."""
        self._held_bytes -= count
        self._acknowledge(channel_id, count)
        self._flush()
        self._balance()

    # --- for the session ----------------------------------------------------------------------------------

    def lost(self) -> None:
        """The connection is gone: whoever waits for input or for a window finds out."""
        for channel in self._channels.values():
            channel.broken()
        self._channels.clear()
        self._wake_senders()

    def keep_alive(self) -> None:
        """
        Give a sign of life that the peer answers, so that what stands between does not forget us.

        Nobody is closed for not answering: a peer that reads slowly answers late. One that is gone is found
        out by TCP, which now has something to send. Left out where output is waiting anyway.
        """
        if not self._link.backlog_bytes:
            self._sign_of_life()
            self._link.write(self._outgoing())

    # --- inside -------------------------------------------------------------------------------------------

    def _note_activity(self) -> None:
        self.last_activity = self._clock.monotonic()

    def _deliver(self, channel_id: int, data: bytes) -> None:
        """Input for a channel, or for none that is known."""
        self._held_bytes += len(data)
        if (channel := self._channels.get(channel_id)) is None:
            self.consumed(channel_id, len(data))
        else:
            channel.received(data)

    def _flush(self) -> None:
        if outgoing := self._outgoing():
            self._note_activity()
            self._link.write(outgoing)

    def _balance(self) -> None:
        """Read on, or not: too much unread input or too many unread answers hold the peer back."""
        if self._held_bytes > _HELD_HIGH_BYTES or self._link.backlog_bytes > _BACKLOG_LIMIT_BYTES:
            self._link.set_reading(False)
        elif self._held_bytes <= _HELD_LOW_BYTES:
            self._link.set_reading(True)
