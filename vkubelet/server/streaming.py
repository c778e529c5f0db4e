"""
Streams over one connection: SPDY/3.1 driven over a `Link`, each stream a `Channel`.

This module moves bytes and keeps them few. It knows neither exec nor ports: `remote_session.py` (exec,
attach) gives the streams their meaning. A `Channel` sees its connection through `ChannelTransport`, four
methods, which is all that a WebSocket with its numbered channels has to offer to take SPDY's place.

Memory per connection is bounded whatever the peer does: input that nobody has read yet stops the reading of
the socket at `_HELD_HIGH_BYTES`, output waits for the write buffer, and so do answers to a peer that asks
without listening (pings, refused streams).

Frames are handled as they arrive, in the event loop's callback. A reader task with a queue behind it was
turned down: it costs a task switch per read, and hides how much is held.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from vkubelet.clock import Clock
from vkubelet.errors import RemoteProtocolError
from vkubelet.protocols import spdy
from vkubelet.server.connection import Link

__all__ = ["Channel", "ChannelTransport", "SpdyStreams"]

_log = structlog.get_logger(__name__)

_HELD_HIGH_BYTES = 1024 * 1024
_HELD_LOW_BYTES = 256 * 1024
_BACKLOG_LIMIT_BYTES = 1024 * 1024
_FRAME_BYTES = 64 * 1024
_YIELD_AFTER_BYTES = 512 * 1024


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
    half-close. One task at a time may iterate.

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
        self._arrived: deque[bytes] = deque()
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
        while not self._arrived:
            if self._broken:
                raise ConnectionResetError("the client has gone")
            if self._ended:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        data = self._arrived[0] if len(self._arrived) == 1 else b"".join(self._arrived)
        self._arrived.clear()
        self._transport.consumed(self.id, len(data))
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
        held = sum(map(len, self._arrived))
        self._arrived.clear()
        if held:
            self._transport.consumed(self.id, held)

    # --- for its transport --------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Input has arrived."""
        if self._discarding:
            self._transport.consumed(self.id, len(data))
            return
        self._arrived.append(data)
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


class SpdyStreams:
    """
    The streams of one SPDY/3.1 connection: a `Receiver` of its link, a `ChannelTransport` for its channels.

    Attributes:
        last_activity: when something last went in or out, in the clock's monotonic seconds.
    """

    def __init__(
        self, link: Link, clock: Clock, accept: Callable[[Channel], bool], *, max_streams: int
    ) -> None:
        """Serve `link`; `accept` is told of each stream that the peer opens, and refuses it with False."""
        self._link = link
        self._clock = clock
        self._accept = accept
        self._spdy = spdy.Connection(spdy.Role.SERVER, spdy.Limits(max_streams=max_streams))
        self._channels: dict[int, Channel] = {}
        self._held_bytes = 0
        self._sent_since_yield = 0
        self._window = asyncio.Event()
        self.last_activity = clock.monotonic()

    # --- for the link -------------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Take in what was read; a peer that breaks the protocol loses the connection."""
        self.last_activity = self._clock.monotonic()
        try:
            for event in self._spdy.receive_data(data):
                self._dispatch(event)
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

    def _dispatch(self, event: spdy.Event) -> None:
        match event:
            case spdy.DataReceived():
                self._held_bytes += len(event.data)
                if (channel := self._channels.get(event.stream_id)) is None:
                    self.consumed(event.stream_id, len(event.data))
                else:
                    channel.received(event.data)
            case spdy.StreamOpened():
                self._open(event)
            case spdy.StreamEnded():
                if (channel := self._channels.get(event.stream_id)) is not None:
                    channel.ended()
                    self._drop_if_closed(event.stream_id)
            case spdy.StreamReset():
                if (channel := self._channels.pop(event.stream_id, None)) is not None:
                    channel.was_reset()
                self._wake_senders()
            case spdy.WindowOpened():
                self._wake_senders()
            case spdy.GoAwayReceived() | spdy.PingAcknowledged():
                pass  # the client closes the connection itself when it is done
            case spdy.HeadersReceived() | spdy.StreamReplied():
                pass  # neither means anything to a server of Kubernetes' streams

    def _open(self, event: spdy.StreamOpened) -> None:
        channel = Channel(self, event.stream_id, event.headers)
        if not self._accept(channel):
            self._spdy.reset(event.stream_id, spdy.ResetStatus.REFUSED_STREAM)
            return
        self._channels[event.stream_id] = channel
        self._spdy.reply(event.stream_id)

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
            count = min(_FRAME_BYTES, self._spdy.sendable(channel_id))
            if not count:
                await self._wait_for_window()
                continue
            piece = data[position : position + count]
            position += len(piece)
            self._spdy.send_data(channel_id, piece)
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

    def end(self, channel_id: int) -> None:
        """Half-close a stream that is still open."""
        if channel_id in self._channels:
            self._spdy.send_data(channel_id, b"", end_stream=True)
            self._drop_if_closed(channel_id)
            self._flush()

    def reset(self, channel_id: int) -> None:
        """Close a stream at once in both directions."""
        self._channels.pop(channel_id, None)
        self._spdy.reset(channel_id)
        self._flush()

    def consumed(self, channel_id: int, count: int) -> None:
        """Make room for more input."""
        self._held_bytes -= count
        self._spdy.acknowledge(channel_id, count)
        self._flush()
        self._balance()

    # --- for the session ----------------------------------------------------------------------------------

    def goaway(self) -> None:
        """Tell the peer that this connection ends."""
        self._spdy.goaway()
        self._flush()

    def lost(self) -> None:
        """The connection is gone: whoever waits for input or for a window finds out."""
        for channel in self._channels.values():
            channel.broken()
        self._channels.clear()
        self._wake_senders()

    # --- inside -------------------------------------------------------------------------------------------

    def _drop_if_closed(self, channel_id: int) -> None:
        if not self._spdy.is_open(channel_id):
            del self._channels[channel_id]

    def _flush(self) -> None:
        if outgoing := self._spdy.data_to_send():
            self.last_activity = self._clock.monotonic()
            self._link.write(outgoing)

    def _balance(self) -> None:
        """Read on, or not: too much unread input or too many unread answers hold the peer back."""
        if self._held_bytes > _HELD_HIGH_BYTES or self._link.backlog_bytes > _BACKLOG_LIMIT_BYTES:
            self._link.set_reading(False)
        elif self._held_bytes <= _HELD_LOW_BYTES:
            self._link.set_reading(True)
