"""SPDY/3.1 driven over a `Link`: the peer opens streams, each becomes a `Channel`."""

from __future__ import annotations

from collections.abc import Callable

from vkubelet.clock import Clock
from vkubelet.protocols import spdy
from vkubelet.server.connection import Link
from vkubelet.server.streaming import Channel, Streams

__all__ = ["SpdyStreams"]


class SpdyStreams(Streams):
    """The streams of one SPDY/3.1 connection."""

    def __init__(
        self, link: Link, clock: Clock, accept: Callable[[Channel], bool], *, max_streams: int
    ) -> None:
        """Serve `link`; `accept` is told of each stream that the peer opens, and refuses it with False."""
        super().__init__(link, clock)
        self._accept = accept
        self._spdy = spdy.Connection(spdy.Role.SERVER, spdy.Limits(max_streams=max_streams))

    # --- for the channels and the session -----------------------------------------------------------------

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

    def goaway(self, *, complete: bool) -> None:
        """Tell the peer that this connection ends; SPDY has no words for why."""
        del complete
        self._spdy.goaway()
        self._flush()

    # --- frames -------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        for event in self._spdy.receive_data(data):
            if not isinstance(event, spdy.PingAcknowledged):
                self._note_activity()
                self._dispatch(event)

    def _dispatch(self, event: spdy.Event) -> None:
        match event:
            case spdy.DataReceived():
                self._deliver(event.stream_id, event.data)
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
        if not self._spdy.is_open(event.stream_id):
            return  # what was read with it has ended it again
        channel = Channel(self, event.stream_id, event.headers)
        if not self._accept(channel):
            self._spdy.reset(event.stream_id, spdy.ResetStatus.REFUSED_STREAM)
            return
        self._channels[event.stream_id] = channel
        self._spdy.reply(event.stream_id)

    def _drop_if_closed(self, channel_id: int) -> None:
        if not self._spdy.is_open(channel_id):
            del self._channels[channel_id]

    def _outgoing(self) -> bytes:
        return self._spdy.data_to_send()

    def _sendable(self, channel_id: int) -> int:
        return self._spdy.sendable(channel_id)

    def _send_piece(self, channel_id: int, piece: bytes) -> None:
        self._spdy.send_data(channel_id, piece)

    def _acknowledge(self, channel_id: int, count: int) -> None:
        self._spdy.acknowledge(channel_id, count)

    def _sign_of_life(self) -> None:
        self._spdy.ping()
