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
            self._remaining -= len(data)
            return [Piece(self._stream, data, starts_frame=False)]
        return self._pieces(memoryview(data), by_frame)

    def _pieces(self, view: memoryview, by_frame: bool) -> list[Piece]:
        pieces: list[Piece] = []
        run: list[memoryview] = []
        starts_frame = False
        position = 0
        while position < len(view):
            if self._remaining == 0:
                before = self._stream
                position = self._read_header(view, position)
                if run and (by_frame or self._stream is not before):
                    pieces.append(Piece(before, b"".join(run), starts_frame))
                    run = []
                starts_frame = starts_frame if run else True
                continue
            payload = view[position : position + self._remaining]
            run.append(payload)
            position += len(payload)
            self._remaining -= len(payload)
        if run:
            pieces.append(Piece(self._stream, b"".join(run), starts_frame))
        return pieces

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
        return min(end, len(view))
