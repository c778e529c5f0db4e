"""
SPDY/3.1 frames: from bytes to values and back (draft 3.1, section 2.2 and 2.6).

Header blocks stay compressed here, since the zlib stream behind them belongs to the connection
(`headers.py`); whether a frame is allowed in its stream's state is `connection.py`'s question.

The payload of a data frame is handed on in the pieces in which it arrives. A frame may be 16 MiB long, and
waiting for its end would let each peer make us hold that much. Control frames must be whole to mean
anything, so their length is limited instead.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

from vkubelet.errors import RemoteProtocolError

__all__ = [
    "MAX_FRAME_LENGTH",
    "Data",
    "Frame",
    "FrameDecoder",
    "GoAway",
    "GoAwayStatus",
    "Headers",
    "Ping",
    "ResetStatus",
    "RstStream",
    "Settings",
    "SynReply",
    "SynStream",
    "WindowUpdate",
    "data_frame_header",
    "serialize",
]

MAX_FRAME_LENGTH = (1 << 24) - 1
"""What the 24-bit length field can say."""

_VERSION = 3
_CONTROL_BIT = 0x8000_0000
_ID_MASK = 0x7FFF_FFFF
_FLAG_FIN = 0x01
_FLAG_UNIDIRECTIONAL = 0x02
_HEADER = struct.Struct("!II")
_ONE = struct.Struct("!I")
_TWO = struct.Struct("!II")
_SYN_STREAM = struct.Struct("!IIBB")


class FrameType(IntEnum):
    """Control frame types (section 2.6); 5 was NOOP and 10 is CREDENTIAL, both ignored."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ResetStatus(IntEnum):
    """Why a stream was ended early (section 2.6.3)."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_IN_USE = 8
    STREAM_ALREADY_CLOSED = 9


class GoAwayStatus(IntEnum):
    """Why a connection ends (section 2.6.6)."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True, slots=True)
class SynStream:
    """Opens a stream. `priority` is 0 (highest) to 7."""

    stream_id: int
    header_block: bytes
    fin: bool = False
    unidirectional: bool = False
    associated_id: int = 0
    priority: int = 0


@dataclass(frozen=True, slots=True)
class SynReply:
    """Accepts a stream."""

    stream_id: int
    header_block: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class RstStream:
    """Ends a stream in both directions. `status` may be a number that we have no name for."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Pairs of setting id and value; 7 is INITIAL_WINDOW_SIZE."""

    values: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Ping:
    """A sign of life; sent back unchanged when its parity is the sender's."""

    ping_id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """No stream after `last_good_stream_id` was or will be served."""

    last_good_stream_id: int
    status: int = GoAwayStatus.OK


@dataclass(frozen=True, slots=True)
class Headers:
    """More headers on an open stream."""

    stream_id: int
    header_block: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """`delta` more bytes may be sent on a stream, or with id 0 on the connection."""

    stream_id: int
    delta: int


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of a stream's data; `fin` on the last piece of the last frame."""

    stream_id: int
    payload: bytes
    fin: bool = False


Frame = SynStream | SynReply | RstStream | Settings | Ping | GoAway | Headers | WindowUpdate | Data


# --- to bytes ---------------------------------------------------------------------------------------------


def data_frame_header(stream_id: int, length: int, *, fin: bool) -> bytes:
    """The 8 bytes before `length` bytes of data, apart from them so that the data need not be copied."""
    return _HEADER.pack(stream_id, (_FLAG_FIN if fin else 0) << 24 | length)


def serialize(frame: Frame) -> bytes:
    """The bytes of a frame."""
    match frame:
        case SynStream():
            flags = (_FLAG_FIN if frame.fin else 0) | (_FLAG_UNIDIRECTIONAL if frame.unidirectional else 0)
            fixed = _SYN_STREAM.pack(frame.stream_id, frame.associated_id, frame.priority << 5, 0)
            return _control(FrameType.SYN_STREAM, flags, fixed + frame.header_block)
        case SynReply():
            return _with_headers(FrameType.SYN_REPLY, frame)
        case Headers():
            return _with_headers(FrameType.HEADERS, frame)
        case RstStream():
            return _control(FrameType.RST_STREAM, 0, _TWO.pack(frame.stream_id, frame.status))
        case Settings():
            entries = b"".join(_TWO.pack(key, value) for key, value in frame.values)
            return _control(FrameType.SETTINGS, 0, _ONE.pack(len(frame.values)) + entries)
        case Ping():
            return _control(FrameType.PING, 0, _ONE.pack(frame.ping_id))
        case GoAway():
            return _control(FrameType.GOAWAY, 0, _TWO.pack(frame.last_good_stream_id, frame.status))
        case WindowUpdate():
            return _control(FrameType.WINDOW_UPDATE, 0, _TWO.pack(frame.stream_id, frame.delta))
        case Data():
            return data_frame_header(frame.stream_id, len(frame.payload), fin=frame.fin) + frame.payload
    assert_never(frame)


def _with_headers(frame_type: FrameType, frame: SynReply | Headers) -> bytes:
    flags = _FLAG_FIN if frame.fin else 0
    return _control(frame_type, flags, _ONE.pack(frame.stream_id) + frame.header_block)


def _control(frame_type: FrameType, flags: int, payload: bytes) -> bytes:
    first = _CONTROL_BIT | _VERSION << 16 | frame_type
    return _HEADER.pack(first, flags << 24 | len(payload)) + payload


# --- from bytes -------------------------------------------------------------------------------------------


class FrameDecoder:
    """
    Cuts a byte stream into frames, whatever the chunks in which it arrives.

    Holds at most one control frame (`max_control_length` + 8 bytes) between calls, and no data.
    """

    def __init__(self, max_control_length: int) -> None:
        self._max_control_length = max_control_length
        self._partial = bytearray()
        self._wanted = _HEADER.size
        self._data_stream_id = 0
        self._data_fin = False
        self._data_left = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """
        The frames that `data` completes, in order; exhaust the iterator before the next call.

        Raises:
            RemoteProtocolError: a frame breaks the format or a limit; the decoder is of no more use.
        """
        position, end = 0, len(data)
        while position < end:
            if self._data_left:
                piece = data[position : position + self._data_left]
                position += len(piece)
                yield self._data_piece(piece)
                continue
            taken = data[position : position + self._wanted - len(self._partial)]
            self._partial += taken
            position += len(taken)
            if len(self._partial) == self._wanted and (frame := self._advance()) is not None:
                yield frame

    def _data_piece(self, piece: bytes) -> Data:
        self._data_left -= len(piece)
        return Data(self._data_stream_id, piece, fin=self._data_fin and not self._data_left)

    def _advance(self) -> Frame | None:
        """What the wanted bytes make: nothing after a frame header that wants a payload, else a frame."""
        first, second = _HEADER.unpack_from(self._partial)
        flags, length = second >> 24, second & MAX_FRAME_LENGTH
        if not first & _CONTROL_BIT:
            self._restart()
            return self._start_data(first, flags, length)
        if self._wanted == _HEADER.size:
            self._check_control(first, length)
            if length:
                self._wanted += length
                return None
        payload = bytes(self._partial[_HEADER.size :])
        self._restart()
        parse = _PARSERS.get(first & 0xFFFF)
        # Section 2.2.1: control frames of unknown types are ignored.
        return None if parse is None else parse(flags, payload)

    def _restart(self) -> None:
        self._partial.clear()
        self._wanted = _HEADER.size

    def _start_data(self, stream_id: int, flags: int, length: int) -> Data | None:
        if stream_id == 0:
            raise RemoteProtocolError("SPDY data frame on stream 0")
        fin = bool(flags & _FLAG_FIN)
        if not length:
            return Data(stream_id, b"", fin=fin)
        self._data_stream_id, self._data_fin, self._data_left = stream_id, fin, length
        return None

    def _check_control(self, first: int, length: int) -> None:
        version = first >> 16 & 0x7FFF
        if version != _VERSION:
            raise RemoteProtocolError(f"SPDY control frame of version {version}, expected {_VERSION}")
        if length > self._max_control_length:
            raise RemoteProtocolError(
                f"SPDY control frame of {length} bytes, at most {self._max_control_length} are accepted"
            )


def _parse_syn_stream(flags: int, payload: bytes) -> SynStream:
    _require(len(payload) >= _SYN_STREAM.size, "SYN_STREAM")
    stream_id, associated_id, priority, _slot = _SYN_STREAM.unpack_from(payload)
    return SynStream(
        stream_id=_stream_id(stream_id, "SYN_STREAM"),
        header_block=payload[_SYN_STREAM.size :],
        fin=bool(flags & _FLAG_FIN),
        unidirectional=bool(flags & _FLAG_UNIDIRECTIONAL),
        associated_id=associated_id & _ID_MASK,
        priority=priority >> 5,
    )


def _parse_syn_reply(flags: int, payload: bytes) -> SynReply:
    stream_id, block = _parse_header_frame(payload, "SYN_REPLY")
    return SynReply(stream_id, block, fin=bool(flags & _FLAG_FIN))


def _parse_headers(flags: int, payload: bytes) -> Headers:
    stream_id, block = _parse_header_frame(payload, "HEADERS")
    return Headers(stream_id, block, fin=bool(flags & _FLAG_FIN))


def _parse_header_frame(payload: bytes, name: str) -> tuple[int, bytes]:
    _require(len(payload) >= _ONE.size, name)
    return _stream_id(_ONE.unpack_from(payload)[0], name), payload[_ONE.size :]


def _parse_rst_stream(_flags: int, payload: bytes) -> RstStream:
    stream_id, status = _pair(payload, "RST_STREAM")
    if status == 0:
        raise RemoteProtocolError("SPDY RST_STREAM frame with status 0")
    return RstStream(_stream_id(stream_id, "RST_STREAM"), status)


def _parse_settings(_flags: int, payload: bytes) -> Settings:
    _require(len(payload) >= _ONE.size, "SETTINGS")
    (count,) = _ONE.unpack_from(payload)
    _require(len(payload) == _ONE.size + count * _TWO.size, "SETTINGS")
    pairs = _TWO.iter_unpack(payload[_ONE.size :])
    return Settings(tuple((key & 0xFF_FFFF, value) for key, value in pairs))


def _parse_ping(_flags: int, payload: bytes) -> Ping:
    _require(len(payload) == _ONE.size, "PING")
    return Ping(_ONE.unpack(payload)[0])


def _parse_goaway(_flags: int, payload: bytes) -> GoAway:
    last_good_stream_id, status = _pair(payload, "GOAWAY")
    return GoAway(last_good_stream_id & _ID_MASK, status)


def _parse_window_update(_flags: int, payload: bytes) -> WindowUpdate:
    stream_id, delta = _pair(payload, "WINDOW_UPDATE")
    return WindowUpdate(stream_id & _ID_MASK, delta & _ID_MASK)


def _pair(payload: bytes, name: str) -> tuple[int, int]:
    _require(len(payload) == _TWO.size, name)
    first, second = _TWO.unpack(payload)
    return first, second


def _stream_id(raw: int, name: str) -> int:
    if not raw & _ID_MASK:
        raise RemoteProtocolError(f"SPDY {name} frame on stream 0")
    return raw & _ID_MASK


def _require(condition: bool, name: str) -> None:
    if not condition:
        raise RemoteProtocolError(f"SPDY {name} frame of the wrong length")


_PARSERS: dict[int, Callable[[int, bytes], Frame]] = {
    FrameType.SYN_STREAM: _parse_syn_stream,
    FrameType.SYN_REPLY: _parse_syn_reply,
    FrameType.RST_STREAM: _parse_rst_stream,
    FrameType.SETTINGS: _parse_settings,
    FrameType.PING: _parse_ping,
    FrameType.GOAWAY: _parse_goaway,
    FrameType.HEADERS: _parse_headers,
    FrameType.WINDOW_UPDATE: _parse_window_update,
}
