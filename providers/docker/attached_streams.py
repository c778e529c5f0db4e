"""
The streams of a command or container that the engine has attached us to: moving bytes both ways.

Output is passed on in chunks as large as come, one write at a time, so a slow reader slows the command;
input likewise. The end of output is the end of it all: a client that types on is not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog

from providers.docker.client import EngineClient
from providers.docker.hijack import HijackedConnection
from providers.docker.stdcopy import Demultiplexer, Piece, StreamId
from vkubelet.clock import Clock
from vkubelet.errors import ProviderError, StreamError
from vkubelet.provider import ByteSink, ExecIO, TerminalSize

__all__ = ["AttachedStreams", "write"]

log = structlog.get_logger(__name__)

_RESIZE_ATTEMPTS = 8
_FIRST_RESIZE_PAUSE_S = 0.01


class AttachedStreams:
    """
    Moves the bytes of one connection; one use.

    Args:
        target: the engine's path of the exec or container, under which it is resized.
        has_terminal: the output is one raw stream.
        failure: output that begins so is held back, as it looks like the engine's failure to start.

    Attributes:
        received: something has come.
        waiting_since: when it began to wait for what comes next, in the clock's monotonic seconds; None while
            it passes on what has come.
    """

    def __init__(
        self,
        client: EngineClient,
        clock: Clock,
        target: str,
        connection: HijackedConnection,
        io: ExecIO,
        *,
        has_terminal: bool,
        failure: bytes | None = None,
    ) -> None:
        self._client = client
        self._clock = clock
        self._target = target
        self._connection = connection
        self._io = io
        self._has_terminal = has_terminal
        self._failure = failure
        self.received = False
        self.waiting_since: float | None = None

    async def run(self) -> bytes:
        """
        Move everything until output ends; returns what was held back.

        Raises:
            StreamError: the engine reports an error on its stream.
        """
        helpers = []
        try:
            async with asyncio.TaskGroup() as group:
                if self._io.stdin is not None:
                    helpers.append(group.create_task(self._move_input(self._io.stdin), name="move stdin"))
                if self._io.resizes is not None:
                    helpers.append(group.create_task(self._resize(self._io.resizes), name="resize"))
                held = await (self._move_terminal() if self._has_terminal else self._move_output())
                for helper in helpers:
                    helper.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return held

    async def _move_terminal(self) -> bytes:
        held = b""
        first = True
        while data := await self._read():
            if held or (first and self._is_failure(data)):
                held += data
            else:
                await write(self._io.stdout, data)
            first = False
        return held

    async def _move_output(self) -> bytes:
        demultiplexer = Demultiplexer()
        held = b""
        first = True
        while data := await self._read():
            for piece in demultiplexer.receive_data(data):
                if held or (first and self._is_failure(piece.data)):
                    held += piece.data
                else:
                    await self._hand_on(piece)
                first = False
        return held

    async def _read(self) -> bytes:
        self.waiting_since = self._clock.monotonic()
        data = await self._connection.read()
        self.waiting_since = None
        self.received |= bool(data)
        return data

    def _is_failure(self, data: bytes) -> bool:
        return self._failure is not None and data.startswith(self._failure)

    async def _hand_on(self, piece: Piece) -> None:
        if piece.stream is StreamId.SYSTEM_ERROR:
            raise StreamError(piece.data.decode(errors="replace").strip())
        await write(self._io.stderr if piece.stream is StreamId.STDERR else self._io.stdout, piece.data)

    async def _move_input(self, stdin: AsyncIterator[bytes]) -> None:
        async for data in stdin:
            try:
                await self._connection.write(data)
            except OSError:
                return  # the command has ended or has closed its input
        try:
            await self._connection.write_eof()
        except OSError:
            return

    async def _resize(self, sizes: AsyncIterator[TerminalSize]) -> None:
        async for size in sizes:
            params = {"h": str(size.height), "w": str(size.width)}
            for attempt in range(_RESIZE_ATTEMPTS):
                try:
                    await self._client.call("POST", f"{self._target}/resize", params)
                    break
                except ProviderError as error:  # not started yet, or ended already
                    log.debug("terminal not resized", attempt=attempt, error=str(error))
                    await self._clock.sleep(_FIRST_RESIZE_PAUSE_S * 2**attempt)


async def write(sink: ByteSink | None, data: bytes) -> None:
    """Write where there is somebody who wants it."""
    if sink is not None:
        await sink.write(data)
