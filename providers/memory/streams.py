"""Logs and exec of containers that do not exist."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Sequence

from providers.memory.behaviour import Behaviour
from providers.memory.script import FOREVER, Script
from vkubelet.clock import Clock
from vkubelet.provider import ExecIO, LogOptions

__all__ = ["attach", "log", "not_found", "run"]

NOT_FOUND_EXIT_CODE = 127


def not_found(command: Sequence[str]) -> bytes:
    """What a shell says of a command that it does not know."""
    return f"sh: {' '.join(command)}: not found in the memory provider\n".encode()


async def run(script: Script, command: Sequence[str], io: ExecIO, clock: Clock) -> int:
    """Act a command out; returns its exit code."""
    if not script.is_known:
        sink = io.stderr or io.stdout
        if sink is not None:
            await sink.write(not_found(command))
        return NOT_FOUND_EXIT_CODE
    if script.output and io.stdout is not None:
        await io.stdout.write(script.output)
    if script.copies_stdin and io.stdin is not None:
        async for chunk in io.stdin:
            if io.stdout is not None:
                await io.stdout.write(chunk)
    if script.run_s == FOREVER:
        await asyncio.Event().wait()
    await clock.sleep(script.run_s)
    return script.exit_code


async def attach(io: ExecIO, ended: asyncio.Event, behaviour: Behaviour) -> None:
    """Echo for a container that echoes, until it ends (`ended`) or the client's input does."""
    copying = asyncio.create_task(_copy(io, echoes=behaviour.copies_stdin), name="memory attach input")
    waiting = asyncio.create_task(ended.wait(), name="memory attach end")
    try:
        parts = (copying, waiting) if io.stdin is not None else (waiting,)
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        if copying.done():
            copying.result()
    finally:
        copying.cancel()
        waiting.cancel()


async def _copy(io: ExecIO, *, echoes: bool) -> None:
    if io.stdin is None:
        return
    async for chunk in io.stdin:
        if echoes and io.stdout is not None:
            await io.stdout.write(chunk)


@contextlib.asynccontextmanager
async def log(
    output: bytes, written_at: datetime.datetime, options: LogOptions, ended: asyncio.Event | None
) -> AsyncIterator[AsyncIterator[bytes]]:
    """
    A log of lines that were all written at one moment.

    Args:
        output: the whole log.
        written_at: that moment.
        options: which part of it, and how.
        ended: set when the container ends, None when it has; what `follow` waits for.
    """
    yield _chunks(_selected(output, written_at, options), ended if options.follow else None)


async def _chunks(text: bytes, ended: asyncio.Event | None) -> AsyncIterator[bytes]:
    if text:
        yield text
    if ended is not None:
        await ended.wait()


def _selected(output: bytes, written_at: datetime.datetime, options: LogOptions) -> bytes:
    if options.since is not None and written_at < options.since:
        return b""
    lines = output.splitlines(keepends=True)
    if options.tail_lines is not None:
        lines = lines[len(lines) - min(options.tail_lines, len(lines)) :]
    if options.timestamps:
        stamp = written_at.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ").encode()
        lines = [stamp + line for line in lines]
    return b"".join(lines)
