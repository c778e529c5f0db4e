"""
WebSocket driven over a `Link`: channels with numbers, all of them there from the start.

The client opens nothing: which channels there are follows from what it asked for in the query, so `open` is
called for each of them before anything is read. Messages on other channels are passed over, as on the
kubelet.

A client that says goodbye (Close) has gone, even if its socket stays open until ours is closed, which is the
order of RFC 6455, section 7.1.1.
"""

from __future__ import annotations

from typing import assert_never

from vkubelet.clock import Clock
from vkubelet.protocols import websocket
from vkubelet.protocols.channel_messages import ChannelData, ChannelDecoder, ChannelEnd, Subprotocol
from vkubelet.protocols.websocket.frames import WebSocketError
from vkubelet.server.connection import Link
from vkubelet.server.streaming import Channel, Streams

__all__ = ["WebSocketStreams"]

_UNBOUNDED = 1 << 62


class WebSocketStreams(Streams):
    """The channels of one WebSocket."""

    def __init__(self, link: Link, clock: Clock, subprotocol: Subprotocol) -> None:
        super().__init__(link, clock)
        self._subprotocol = subprotocol
        self._websocket = websocket.Connection(websocket.Role.SERVER)
        self._decoder = ChannelDecoder(subprotocol)

    def open(self, channel_id: int, stream_type: str) -> Channel:
        """A channel of that number, as a stream of that type."""
        channel = Channel(self, channel_id, {"streamtype": stream_type})
        self._channels[channel_id] = channel
        return channel

    def greet(self, channel_id: int) -> None:
        """An empty message: the kubelet's sign that the connection stands, for which some clients wait."""
        self._send_piece(channel_id, b"")
        self._flush()

    # --- for the channels and the session -----------------------------------------------------------------

    def end(self, channel_id: int) -> None:
        """No more output. There is no word for it from a server: the end of the connection says it."""
        self._channels.pop(channel_id, None)

    def reset(self, channel_id: int) -> None:
        """Forget the channel; what still comes on it is thrown away."""
        self._channels.pop(channel_id, None)

    def goaway(self, *, complete: bool) -> None:
        """Say goodbye: 1000 when all was said, 1001 when not, which clients take for a failure."""
        code = websocket.CloseCode.NORMAL if complete else websocket.CloseCode.GOING_AWAY
        self._websocket.close(code)
        self._flush()

    # --- messages -----------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> None:
        for event in self._websocket.receive_data(data):
            match event:
                case websocket.DataReceived():
                    self._note_activity()
                    self._message(event)
                case websocket.PingReceived():
                    self._note_activity()
                case websocket.PongReceived():
                    pass  # of our own asking
                case websocket.Closed():
                    self._flush()
                    self._link.peer_left()
                case _:
                    assert_never(event)

    def _message(self, piece: websocket.DataReceived) -> None:
        try:
            heard = self._decoder.feed(piece)
        except WebSocketError as error:
            self._websocket.close(error.code, str(error))
            raise
        match heard:
            case ChannelData(channel_id, data):
                self._deliver(channel_id, data)
            case ChannelEnd(channel_id):
                if (channel := self._channels.get(channel_id)) is not None:
                    channel.ended()
            case None:
                pass

    def _outgoing(self) -> bytes:
        return self._websocket.data_to_send()

    def _sendable(self, channel_id: int) -> int:
        return _UNBOUNDED

    def _send_piece(self, channel_id: int, piece: bytes) -> None:
        if not self._websocket.close_sent:
            prefix, payload = self._subprotocol.encode(channel_id, piece)
            self._websocket.send_message(payload, prefix=prefix, is_text=self._subprotocol.is_base64)

    def _acknowledge(self, channel_id: int, count: int) -> None:
        """A WebSocket has no windows: TCP alone holds the peer back."""

    def _sign_of_life(self) -> None:
        """
        Ask, and where the peer's own questions wait unread behind its input, answer unasked.

        Go's clients give up 61 s after the last answer (`k8s.io/client-go/tools/remotecommand`).
        """
        self._websocket.ping()
        if not self._link.is_reading:
            self._websocket.pong()
