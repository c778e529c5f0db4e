"""
A container's whole log as it stands, from the files that the engine's json-file driver keeps.

For `kubectl logs` without further wishes, where the files are on this machine and may be read. The engine
decodes and encodes each line by itself: 100 MB of them cost it 6 s of CPU, and what it then sends 2 s here;
read in blocks they cost half a second. What needs judgement (followers, tails, times) stays the engine's.

The format (Docker docs, "JSON File logging driver"): a JSON object a line, its text under ``log``; the file
``<path>`` is being written, ``<path>.1`` was so before it, and so on.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

import orjson

__all__ = ["decode", "open_log", "read_log"]

_BLOCK_BYTES = 256 * 1024
_ATTEMPTS = 3


def open_log(path: Path, closing: ExitStack) -> list[FileIO] | None:
    """
    The files of a log, oldest first; None where they are not to be had.

    A rotation while they are being opened would give one of them twice: then all are opened again.
    """
    for _ in range(_ATTEMPTS):
        with ExitStack() as opened:
            files = _open_all(path, opened)
            if len({(found.st_dev, found.st_ino) for found in map(_stat, files)}) == len(files) > 0:
                closing.push(opened.pop_all())
                return files[::-1]
    return None


def _open_all(path: Path, opened: ExitStack) -> list[FileIO]:
    """Newest first, as a rotation moves files on in that direction."""
    files: list[FileIO] = []
    for number in itertools.count():
        try:
            file = FileIO(f"{path}.{number}" if number else path)
        except OSError:  # there is none, or it is not for us
            return files
        files.append(opened.enter_context(file))
    return files


def _stat(file: FileIO) -> os.stat_result:
    return os.fstat(file.fileno())


async def read_log(files: Sequence[FileIO]) -> AsyncIterator[bytes]:
    """The text of all messages, in chunks; a message that is just being written is left out."""
    for file in files:
        rest = b""
        while block := await _read(file):
            messages, _, rest = (rest + block).rpartition(b"\n")
            if text := decode(messages):
                yield text


async def _read(file: FileIO) -> bytes:
    """A block; the disk may take its time, so not in the event loop."""
    reading = asyncio.create_task(asyncio.to_thread(file.read, _BLOCK_BYTES), name="read log")
    try:
        return await asyncio.shield(reading) or b""
    except asyncio.CancelledError:
        await asyncio.wait([reading])  # whoever cancels us closes the file
        raise


def decode(messages: bytes) -> bytes:
    """The text of messages, one a line; lines that are none, as a crash may leave them, are left out."""
    try:
        decoded = orjson.loads(b"[%b]" % messages.replace(b"\n", b","))
        return "".join([message.get("log", "") for message in decoded]).encode()
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return b"".join(map(_decode_line, messages.split(b"\n")))


def _decode_line(line: bytes) -> bytes:
    try:
        message = orjson.loads(line)
    except orjson.JSONDecodeError:
        return b""
    text = message.get("log", "") if isinstance(message, dict) else ""
    return text.encode() if isinstance(text, str) else b""
