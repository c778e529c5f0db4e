"""Ports of pods where nothing listens: what is sent comes back."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["EchoConnection", "echo"]

_ROOM_BYTES = 256 * 1024


class EchoConnection:
    """
    A `PortConnection` whose other side sends back what it gets, and ends when it has got everything.

    Like a socket it holds some bytes, and then makes the writer wait for the reader.
    """

    def __init__(self) -> None:
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._ended = False
        self._closed = False
        self._changed = asyncio.Condition()

    async def read(self, limit: int) -> bytes:
        """What has been written, b"" at the end."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._held or self._ended)
            if not self._held:
                return b""
            data = self._held.popleft()
            if len(data) > limit:
                self._held.appendleft(data[limit:])
                data = data[:limit]
            self._held_bytes -= len(data)
            self._changed.notify_all()
        return data

    async def write(self, data: bytes) -> None:
        """Returns when there is room for more."""
        async with self._changed:
            if self._closed or self._ended:
                raise BrokenPipeError("the connection has ended")
            self._held.append(data)
            self._held_bytes += len(data)
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._held_bytes <= _ROOM_BYTES)

    async def write_eof(self) -> None:
        """The other side ends too, behind what it still has to send back."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """End both directions."""
        self._closed = True
        self._held.clear()


async def echo(sandbox_id: str, port: int) -> EchoConnection:
    """Behind every port of every pod."""
    return EchoConnection()
