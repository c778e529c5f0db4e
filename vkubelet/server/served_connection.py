"""
The life of a connection that carries streams: what may end it, and how it says so.

The time limits are the kubelet's. A `ServedConnection` gives whoever serves it a task group, and ends that
with everything in it when the client has gone, when nothing has moved for too long, or when the server shuts
down.

The kubelet's way to end was not taken over: it resets the streams and closes the socket at once, and a client
that is still sending then answers with a TCP reset, which can cost it the end of the output. Here streams end
by themselves, and the connection is held open, reading and discarding, until the client has closed it or
`linger_s` is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from vkubelet.clock import Clock
from vkubelet.server.connection import Link
from vkubelet.server.streaming import Streams

__all__ = ["ServedConnection", "StreamTimeouts"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """
    How long streams may take; the defaults are the kubelet's.

    Attributes:
        idle_s: a connection on which nothing moves is closed.
        creation_s: for the client to open the streams it asked for.
        linger_s: for the client to close, once it has everything.
        keep_alive_s: between two signs of life of ours, which a kubelet gives none of: firewalls and load
            balancers forget connections that are silent for minutes.
    """

    idle_s: float = 4 * 3600
    creation_s: float = 30
    linger_s: float = 5
    keep_alive_s: float = 30


class _ConnectionEndedError(Exception):
    """The client has gone, or has been idle for too long; the message says which."""


class ServedConnection:
    """One connection, from its upgrade to its end."""

    def __init__(self, link: Link, streams: Streams, clock: Clock, timeouts: StreamTimeouts) -> None:
        self._link = link
        self._streams = streams
        self._clock = clock
        self._timeouts = timeouts
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def end(self, reason: str) -> None:
        """Cancel what is being done and close, for a reason of ours."""
        if not self._ended.done():
            self._ended.set_result(reason)

    @asynccontextmanager
    async def life(self) -> AsyncIterator[asyncio.TaskGroup]:
        """
        A task group for the work on this connection; what it carries is complete when it is left normally.

        Ended early, it is left all the same, without an error; and the connection is closed in any case.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                guards = [
                    tasks.create_task(self._until_lost(), name="stream until lost"),
                    tasks.create_task(self._until_idle(), name="stream until idle"),
                    tasks.create_task(self._until_ended(), name="stream until ended"),
                    tasks.create_task(self._keep_alive(), name="stream signs of life"),
                ]
                yield tasks
                self._streams.goaway(complete=True)
                await self._link.flush()
                for guard in guards:
                    guard.cancel()
            await self._linger()
        except* (_ConnectionEndedError, ConnectionResetError) as ended:
            _log.info("stream connection ended early", reason=str(ended.exceptions[0]))
        finally:
            self._streams.goaway(complete=False)
            self._link.close()

    async def _linger(self) -> None:
        """Give the client time to close the connection, which has carried all it will."""
        try:
            async with asyncio.timeout(self._timeouts.linger_s):
                await self._link.lost.wait()
        except TimeoutError:
            pass  # it has everything, and may be closed

    # --- guards: each ends the connection by raising ------------------------------------------------------

    async def _until_lost(self) -> None:
        await self._link.lost.wait()
        self._streams.lost()
        raise _ConnectionEndedError("the client has gone")

    async def _until_idle(self) -> None:
        while (left_s := self._idle_left_s()) > 0:
            await self._clock.sleep(left_s)
        raise _ConnectionEndedError(f"nothing moved for {self._timeouts.idle_s:g} s")

    async def _until_ended(self) -> None:
        raise _ConnectionEndedError(await self._ended)

    async def _keep_alive(self) -> None:
        while True:
            await self._clock.sleep(self._timeouts.keep_alive_s)
            self._streams.keep_alive()

    def _idle_left_s(self) -> float:
        return self._streams.last_activity + self._timeouts.idle_s - self._clock.monotonic()
