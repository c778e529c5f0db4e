"""
SPDY flow control as arithmetic (draft 3.1, section 2.6.8).

A receiver grants each stream, and in 3.1 the connection as a whole, a window of bytes; what it consumes it
grants again with WINDOW_UPDATE. Go's spdystream does none of this: it never grants and never waits. A
sender that kept to the 64 KiB window would therefore hang after 64 KiB on every real peer, and back-pressure
is TCP's alone. So `Connection` counts from the start, but is bound by the count only after the peer has sent
a WINDOW_UPDATE, and grants windows only to a peer that has shown it knows them.

Sending WINDOW_UPDATE to everybody was turned down: spdystream queues the frames behind its data, 50 deep,
where they could hold up the streams that they are meant to help.
"""

from __future__ import annotations

from vkubelet.errors import RemoteProtocolError

__all__ = ["INITIAL_WINDOW_BYTES", "ReceiveWindow", "SendWindow"]

INITIAL_WINDOW_BYTES = 64 * 1024
_MAX_WINDOW_BYTES = (1 << 31) - 1


class SendWindow:
    """How many bytes the peer is ready for. Below zero when more was sent than it had granted."""

    def __init__(self, size: int = INITIAL_WINDOW_BYTES) -> None:
        self.available = size

    def sent(self, count: int) -> None:
        """Account for `count` bytes that were sent."""
        self.available -= count

    def open(self, delta: int) -> None:
        """
        Account for a WINDOW_UPDATE, or with a negative delta for a smaller INITIAL_WINDOW_SIZE.

        Raises:
            RemoteProtocolError: the window would exceed 2^31 - 1 bytes.
        """
        if self.available + delta > _MAX_WINDOW_BYTES:
            raise RemoteProtocolError("SPDY window beyond 2^31 - 1 bytes")
        self.available += delta


class ReceiveWindow:
    """What was consumed and not yet granted again."""

    def __init__(self, size: int = INITIAL_WINDOW_BYTES) -> None:
        self._size = size
        self._owed = 0

    def consumed(self, count: int) -> int:
        """
        The delta to send now for `count` more bytes that were consumed, 0 when it can wait.

        Waits for half a window, so that a stream of small reads does not become a stream of updates.
        """
        self._owed += count
        if self._owed < self._size // 2:
            return 0
        delta, self._owed = self._owed, 0
        return delta
