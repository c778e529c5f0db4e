"""
One SPDY/3.1 connection: its streams, their states, and what either side may do next.

Each stream has two halves, one for each direction, and each half is a small machine (`_TRANSITIONS`) that
knows when it may carry a reply, headers and data. The stream is gone when both halves are closed.

Two kinds of fault are told apart, as the specification does. A fault of one stream (section 2.4.2) ends
that stream: RST_STREAM goes out, `StreamReset(by_peer=False)` comes back, the others go on. A fault of the
connection (section 2.4.1), such as headers that cannot be decompressed, raises `RemoteProtocolError`; a
GOAWAY then waits in `data_to_send`, and nothing else will be understood.

An object per stream with methods of its own was turned down: the driver keeps such objects anyway, with
their queues, and would have to keep the two in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import assert_never

from vkubelet.errors import LocalProtocolError, RemoteProtocolError
from vkubelet.protocols.spdy import events, frames
from vkubelet.protocols.spdy.events import Event
from vkubelet.protocols.spdy.flow import INITIAL_WINDOW_BYTES, ReceiveWindow, SendWindow
from vkubelet.protocols.spdy.frames import GoAwayStatus, ResetStatus
from vkubelet.protocols.spdy.headers import HeaderCompressor, HeaderDecompressor

__all__ = ["Connection", "Limits", "Role"]

_UNBOUNDED = frames.MAX_FRAME_LENGTH
_SETTINGS_INITIAL_WINDOW_SIZE = 7
_MAX_STREAM_ID = (1 << 31) - 1


class Role(StrEnum):
    """Which side we are: clients open odd streams, servers even ones."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What we accept from a peer.

    Attributes:
        max_streams: streams of the peer open at once; more are refused one by one.
        max_control_length: payload of a control frame, compressed headers included.
        max_header_size: bytes of one header block after decompression.
        max_header_count: headers in one block.
    """

    max_streams: int = 1024
    max_control_length: int = 64 * 1024
    max_header_size: int = 64 * 1024
    max_header_count: int = 64


class _Half(Enum):
    """One direction of a stream."""

    UNREPLIED = auto()  # the direction from the one that was asked to the one that asked, before SYN_REPLY
    OPEN = auto()
    CLOSED = auto()


class _Act(Enum):
    """What a frame does to the half that it travels on."""

    REPLY = auto()
    CARRY = auto()  # data or headers
    FINISH = auto()  # FLAG_FIN on any frame


_TRANSITIONS: Mapping[tuple[_Half, _Act], _Half] = {
    (_Half.UNREPLIED, _Act.REPLY): _Half.OPEN,
    (_Half.OPEN, _Act.CARRY): _Half.OPEN,
    (_Half.OPEN, _Act.FINISH): _Half.CLOSED,
}
"""What is not here is a fault of whoever did it."""


@dataclass(slots=True)
class _Stream:
    local: _Half
    remote: _Half
    ours: bool
    send_window: SendWindow
    receive_window: ReceiveWindow = field(default_factory=ReceiveWindow)


class Connection:
    """
    A SPDY/3.1 connection without input and output.

    Everything to be written collects in `data_to_send`, answers to pings and resets included: call it after
    each `receive_data`, also after one that raised.
    """

    def __init__(self, role: Role, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._next_id = 1 if role is Role.CLIENT else 2
        self._next_ping_id = self._next_id
        self._last_remote_id = 0
        self._streams: dict[int, _Stream] = {}
        self._remote_streams = 0
        self._decoder = frames.FrameDecoder(self._limits.max_control_length)
        self._compressor = HeaderCompressor()
        self._decompressor = HeaderDecompressor(
            max_size=self._limits.max_header_size, max_count=self._limits.max_header_count
        )
        self._initial_window = INITIAL_WINDOW_BYTES
        self._send_window = SendWindow()
        self._receive_window = ReceiveWindow()
        self._peer_knows_windows = False
        self._peer_keeps_windows = False
        self._goaway_sent = False
        self._failed = False
        self._outgoing: list[bytes] = []

    # --- from the peer ------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:
        """
        What the bytes that were read mean, in order.

        Raises:
            RemoteProtocolError: the peer broke a rule of the connection; close it.
        """
        if self._failed:
            raise RemoteProtocolError("the SPDY connection has failed before")
        happened: list[Event] = []
        try:
            for frame in self._decoder.feed(data):
                self._receive(frame, happened)
        except RemoteProtocolError:
            self._failed = True
            self.goaway(GoAwayStatus.PROTOCOL_ERROR)
            raise
        return happened

    def _receive(self, frame: frames.Frame, happened: list[Event]) -> None:
        match frame:
            case frames.Data():
                self._receive_on_stream(frame, frame.payload, happened)
            case frames.SynStream():
                self._receive_syn_stream(frame, happened)
            case frames.SynReply() | frames.Headers():
                self._receive_on_stream(frame, self._decompressor.decompress(frame.header_block), happened)
            case frames.RstStream():
                if self._forget(frame.stream_id):
                    happened.append(events.StreamReset(frame.stream_id, frame.status))
            case frames.Ping():
                self._receive_ping(frame, happened)
            case frames.Settings():
                self._receive_settings(frame, happened)
            case frames.WindowUpdate():
                self._receive_window_update(frame, happened)
            case frames.GoAway():
                happened.append(events.GoAwayReceived(frame.last_good_stream_id, frame.status))
            case _:
                assert_never(frame)

    def _receive_syn_stream(self, frame: frames.SynStream, happened: list[Event]) -> None:
        """Section 2.3.2: ids of the peer's parity, rising. The limit on streams refuses (2.6.3)."""
        headers = self._decompressor.decompress(frame.header_block)
        stream_id = frame.stream_id
        if stream_id % 2 == self._next_id % 2 or stream_id <= self._last_remote_id:
            raise RemoteProtocolError(f"SPDY SYN_STREAM with id {stream_id} out of order")
        self._last_remote_id = stream_id
        if self._goaway_sent:
            return  # section 2.6.6: streams after a GOAWAY are ignored
        if self._remote_streams >= self._limits.max_streams:
            self._write(frames.RstStream(stream_id, ResetStatus.REFUSED_STREAM))
            return
        self._streams[stream_id] = _Stream(
            local=_Half.CLOSED if frame.unidirectional else _Half.UNREPLIED,
            remote=_Half.OPEN,
            ours=False,
            send_window=SendWindow(self._initial_window),
        )
        self._remote_streams += 1
        happened.append(events.StreamOpened(stream_id, headers))
        if frame.fin:
            self._finish_remote(stream_id, happened)

    def _receive_on_stream(
        self,
        frame: frames.Data | frames.SynReply | frames.Headers,
        content: bytes | dict[str, str],
        happened: list[Event],
    ) -> None:
        """Data, a reply or headers: passed on if the stream's remote half may carry them now."""
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._receive_on_unknown(frame, happened)
            return
        act = _Act.REPLY if isinstance(frame, frames.SynReply) else _Act.CARRY
        after = _TRANSITIONS.get((stream.remote, act))
        if after is None:
            self._fault(frame.stream_id, _fault_of(stream.remote, act), frame, happened)
            return
        stream.remote = after
        if isinstance(content, bytes):
            if content:
                happened.append(events.DataReceived(frame.stream_id, content))
        elif act is _Act.REPLY:
            happened.append(events.StreamReplied(frame.stream_id, content))
        else:
            happened.append(events.HeadersReceived(frame.stream_id, content))
        if frame.fin:
            self._finish_remote(frame.stream_id, happened)

    def _receive_on_unknown(
        self, frame: frames.Data | frames.SynReply | frames.Headers, happened: list[Event]
    ) -> None:
        """A stream that has ended is ignored, as frames cross on their way; one that never was is a fault."""
        ours = frame.stream_id % 2 == self._next_id % 2
        if frame.stream_id >= self._next_id if ours else frame.stream_id > self._last_remote_id:
            self._fault(frame.stream_id, ResetStatus.INVALID_STREAM, frame, happened)
        elif isinstance(frame, frames.Data):
            self._grant_connection(len(frame.payload))

    def _fault(self, stream_id: int, status: ResetStatus, frame: frames.Frame, happened: list[Event]) -> None:
        if isinstance(frame, frames.Data):
            self._grant_connection(len(frame.payload))
        self._write(frames.RstStream(stream_id, status))
        if self._forget(stream_id):
            happened.append(events.StreamReset(stream_id, status, by_peer=False))

    def _finish_remote(self, stream_id: int, happened: list[Event]) -> None:
        stream = self._streams[stream_id]
        happened.append(events.StreamEnded(stream_id))
        # A SYN_REPLY or SYN_STREAM with FLAG_FIN closes a half that has just opened.
        stream.remote = _Half.CLOSED
        self._forget_if_closed(stream_id, stream)

    def _receive_ping(self, frame: frames.Ping, happened: list[Event]) -> None:
        """Section 2.6.5: an id of our parity answers us, any other is sent back."""
        if frame.ping_id % 2 == self._next_ping_id % 2:
            happened.append(events.PingAcknowledged(frame.ping_id))
        else:
            self._write(frame)

    def _receive_settings(self, frame: frames.Settings, happened: list[Event]) -> None:
        """Section 2.6.4; of all settings only the initial window says something to us."""
        self._peer_knows_windows = True
        for key, value in frame.values:
            if key != _SETTINGS_INITIAL_WINDOW_SIZE:
                continue
            difference, self._initial_window = value - self._initial_window, value
            for stream in self._streams.values():
                stream.send_window.open(difference)
            happened.append(events.WindowOpened(0))

    def _receive_window_update(self, frame: frames.WindowUpdate, happened: list[Event]) -> None:
        """Section 2.6.8. From here on the peer's windows bind us (`flow`)."""
        self._peer_knows_windows = self._peer_keeps_windows = True
        stream = self._streams.get(frame.stream_id)
        if frame.stream_id == 0:
            self._send_window.open(frame.delta)
        elif stream is None:
            return
        else:
            try:
                stream.send_window.open(frame.delta)
            except RemoteProtocolError:
                self._fault(frame.stream_id, ResetStatus.FLOW_CONTROL_ERROR, frame, happened)
                return
        happened.append(events.WindowOpened(frame.stream_id))

    # --- to the peer --------------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """What is to be written now; each byte is returned once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)

    def open_stream(self, headers: Mapping[str, str], *, end_stream: bool = False) -> int:
        """
        Open a stream and return its id. Data may follow before the peer's reply.

        Raises:
            LocalProtocolError: the ids are used up, or a header cannot be sent.
        """
        stream_id = self._next_id
        if stream_id > _MAX_STREAM_ID:
            raise LocalProtocolError("the SPDY connection has no stream ids left")
        block = self._compressor.compress(headers)
        self._next_id += 2
        self._streams[stream_id] = _Stream(
            local=_Half.CLOSED if end_stream else _Half.OPEN,
            remote=_Half.UNREPLIED,
            ours=True,
            send_window=SendWindow(self._initial_window),
        )
        self._write(frames.SynStream(stream_id, block, fin=end_stream))
        return stream_id

    def reply(
        self, stream_id: int, headers: Mapping[str, str] | None = None, *, end_stream: bool = False
    ) -> None:
        """
        Accept a stream of the peer.

        Raises:
            LocalProtocolError: it is not waiting for a reply.
        """
        stream = self._act(stream_id, _Act.REPLY)
        block = self._compressor.compress(headers or {})
        self._write(frames.SynReply(stream_id, block, fin=end_stream))
        if end_stream:
            self._finish_local(stream_id, stream)

    def sendable(self, stream_id: int) -> int:
        """
        How many bytes `send_data` may take now; after 0, wait for `WindowOpened`.

        As good as unlimited for a peer that keeps no windows, which is every known one (`flow`).
        """
        stream = self._streams.get(stream_id)
        if stream is None or not self._peer_keeps_windows:
            return _UNBOUNDED
        return max(0, min(stream.send_window.available, self._send_window.available))

    def send_data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        """
        Send one data frame of at most 2^24 - 1 bytes.

        Raises:
            LocalProtocolError: the stream cannot carry data (any more), or the frame is too large.
        """
        if len(data) > frames.MAX_FRAME_LENGTH:
            raise LocalProtocolError(f"a SPDY data frame cannot hold {len(data)} bytes")
        stream = self._act(stream_id, _Act.CARRY)
        stream.send_window.sent(len(data))
        self._send_window.sent(len(data))
        self._outgoing.append(frames.data_frame_header(stream_id, len(data), fin=end_stream))
        if data:
            self._outgoing.append(data)
        if end_stream:
            self._finish_local(stream_id, stream)

    def acknowledge(self, stream_id: int, count: int) -> None:
        """`count` bytes of `DataReceived` were consumed: lets a peer that waits for windows go on."""
        self._grant_connection(count)
        stream = self._streams.get(stream_id)
        if (
            stream is not None
            and self._peer_knows_windows
            and (delta := stream.receive_window.consumed(count))
        ):
            self._write(frames.WindowUpdate(stream_id, delta))

    def reset(self, stream_id: int, status: ResetStatus = ResetStatus.CANCEL) -> None:
        """End a stream at once in both directions; nothing happens when it has ended."""
        if self._forget(stream_id):
            self._write(frames.RstStream(stream_id, status))

    def ping(self) -> int:
        """Ask for a sign of life; the id comes back in `PingAcknowledged`."""
        ping_id = self._next_ping_id
        self._next_ping_id = ping_id + 2 if ping_id + 2 < 1 << 32 else 2 - ping_id % 2
        self._write(frames.Ping(ping_id))
        return ping_id

    def goaway(self, status: GoAwayStatus = GoAwayStatus.OK) -> None:
        """Announce the end: streams that the peer opens from now on are ignored. Sent once."""
        if not self._goaway_sent:
            self._goaway_sent = True
            self._write(frames.GoAway(self._last_remote_id, status))

    def is_open(self, stream_id: int) -> bool:
        """Whether either half of the stream can still carry something."""
        return stream_id in self._streams

    # --- both ---------------------------------------------------------------------------------------------

    def _act(self, stream_id: int, act: _Act) -> _Stream:
        stream = self._streams.get(stream_id)
        after = None if stream is None else _TRANSITIONS.get((stream.local, act))
        if stream is None or after is None:
            raise LocalProtocolError(f"SPDY stream {stream_id} cannot {act.name.lower()} now")
        stream.local = after
        return stream

    def _finish_local(self, stream_id: int, stream: _Stream) -> None:
        stream.local = _TRANSITIONS[stream.local, _Act.FINISH]
        self._forget_if_closed(stream_id, stream)

    def _forget_if_closed(self, stream_id: int, stream: _Stream) -> None:
        if stream.local is stream.remote is _Half.CLOSED:
            self._forget(stream_id)

    def _forget(self, stream_id: int) -> bool:
        stream = self._streams.pop(stream_id, None)
        if stream is not None and not stream.ours:
            self._remote_streams -= 1
        return stream is not None

    def _grant_connection(self, count: int) -> None:
        if self._peer_knows_windows and (delta := self._receive_window.consumed(count)):
            self._write(frames.WindowUpdate(0, delta))

    def _write(self, frame: frames.Frame) -> None:
        self._outgoing.append(frames.serialize(frame))


def _fault_of(half: _Half, act: _Act) -> ResetStatus:
    """Section 2.2.2 for data after the end, 2.3.4 for a second reply, 2.6.2 for data before the reply."""
    match half:
        case _Half.CLOSED:
            return ResetStatus.STREAM_ALREADY_CLOSED
        case _Half.OPEN if act is _Act.REPLY:
            return ResetStatus.STREAM_IN_USE
        case _:
            return ResetStatus.PROTOCOL_ERROR
