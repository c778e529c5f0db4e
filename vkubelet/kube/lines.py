"""Bytes in any chunks to whole lines. Pure."""

from __future__ import annotations

__all__ = ["LineSplitter"]


class LineSplitter:
    """
    Cuts a stream at its line feeds.

    The start of a line that spans chunks is kept as the list of its parts and joined once, so a line of 1 MB
    in small chunks costs no more than its length.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their line feeds; empty lines are left out."""
        if b"\n" not in data:
            self._parts.append(data)
            return []
        first, *lines = data.split(b"\n")
        if self._parts:
            first = b"".join((*self._parts, first))
        self._parts = [rest] if (rest := lines.pop()) else []
        return [line for line in (first, *lines) if line]

    def rest(self) -> bytes:
        """What came after the last line feed; at the end of a stream, its last line."""
        return b"".join(self._parts)
