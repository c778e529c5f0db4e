"""
The engine's multiplexed stream: output of a container or command without a terminal. Bytes in, pieces out.

Format (Docker Engine API, "Attach to a container", stream format): frames of an 8-byte header, which is the
stream (0 stdin, 1 stdout, 2 stderr, 3 an error of the engine) in the first byte and the payload's length in
the last four, big-endian, then the payload.

Payload is handed on as it arrives, never held back until its frame is whole, and neighbouring frames of one
stream become one piece: the work depends on the number of frames, not of lines or bytes. Frames were turned
down as the unit of output: a frame of 4 GiB would have to be buffered, and small frames would each cost the
reader a write.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from vkubelet.errors import RemoteProtocolError

__all__ = ["Demultiplexer", "Piece", "StreamId"]

_HEADER = struct.Struct(">BxxxI")


class StreamId(IntEnum):
    """The first byte of a header."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    SYSTEM_ERROR = 3


_STREAMS = {int(stream): stream for stream in StreamId}


@dataclass(frozen=True, slots=True)
class Piece:
    """
    Some bytes of one stream, in order.

    Attributes:
        starts_frame: the first byte of it is the first of a frame, which for logs is one message.
    """

    stream: StreamId
    data: bytes
    starts_frame: bool = True


class Demultiplexer:
    """Takes the stream in chunks of any size."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = StreamId.STDOUT
        self._remaining = 0
        self._is_fresh = True  # nothing of the present frame's payload was handed on

    @property
    def at_frame_end(self) -> bool:
        """Whether nothing of a begun frame is missing: at the end of a stream, whether it was whole."""
        return self._remaining == 0 and not self._header

    def receive_data(self, data: bytes, *, by_frame: bool = False) -> list[Piece]:
        """
        The pieces that `data` adds.

        Args:
            data: what came next.
            by_frame: keep the pieces of different frames apart.

        Raises:
            RemoteProtocolError: this is not a multiplexed stream; nothing more can be read from it.
        """
        if 0 < len(data) <= self._remaining:
            piece = Piece(self._stream, data, self._is_fresh)
            self._is_fresh = False
            self._remaining -= len(data)
            return [piece]
        return [
            Piece(stream, b"".join(parts), fresh)
            for stream, fresh, parts in self._runs(memoryview(data), by_frame)
        ]

    def _runs(self, view: memoryview, by_frame: bool) -> list[tuple[StreamId, bool, list[memoryview]]]:
        """Payload that belongs together: stream, whether it begins a frame, parts."""
        runs: list[tuple[StreamId, bool, list[memoryview]]] = []
        position = 0
        while position < len(view):
            if self._remaining == 0:
                position = self._read_header(view, position)
                continue
            payload = view[position : position + self._remaining]
            position += len(payload)
            self._remaining -= len(payload)
            if runs and runs[-1][0] is self._stream and not by_frame:
                runs[-1][2].append(payload)
            else:
                runs.append((self._stream, self._is_fresh, [payload]))
            self._is_fresh = False
        return runs

    def _read_header(self, view: memoryview, position: int) -> int:
        """Take header bytes from `position`; returns the position after them."""
        end = position + _HEADER.size - len(self._header)
        self._header += bytes(view[position:end])
        if len(self._header) == _HEADER.size:
            number, self._remaining = _HEADER.unpack(self._header)
            if self._header[1:4] != b"\0\0\0" or number not in _STREAMS:
                raise RemoteProtocolError(f"not a header of a multiplexed stream: {self._header.hex()}")
            self._stream = _STREAMS[number]
            self._header = b""
            self._is_fresh = True
        return min(end, len(view))
