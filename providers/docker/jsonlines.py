"""The engine's streams of JSON objects (events, progress): bytes in, objects out."""

from __future__ import annotations

from typing import Any

import orjson

from vkubelet.errors import RemoteProtocolError

__all__ = ["JsonLines"]

_MAX_LINE_BYTES = 4 << 20


class JsonLines:
    """Takes the stream in chunks of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def receive_data(self, data: bytes) -> list[dict[str, Any]]:
        """
        The objects that `data` completes; b"" at the end of the stream completes a last line.

        Raises:
            RemoteProtocolError: a line is no JSON object, or longer than any that the engine writes.
        """
        *lines, self._rest = (self._rest + (data or b"\n")).split(b"\n")
        if len(self._rest) > _MAX_LINE_BYTES:
            raise RemoteProtocolError("the Docker engine sent a line without end")
        return [_parsed(line) for line in lines if line.strip()]


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise RemoteProtocolError(f"the Docker engine sent a line that is not JSON: {line[:80]!r}") from error
    if not isinstance(value, dict):
        raise RemoteProtocolError(f"the Docker engine sent a line that is no object: {line[:80]!r}")
    return value
