"""
One forwarded connection: a pair of streams of the client's, and a connection to a port of the pod.

Each direction is copied in large chunks by a task of its own and ends by itself. Who is slow slows the other
side: input that the pod does not take stays with the client, output that the client does not take stays with
the pod.

What goes wrong before there is a connection is told as text on the error stream. Once there is one, nothing
is: when the pod's process resets it, the client's data stream is reset. The kubelet tells that as an error
too, whereupon kubectl drops all that it forwards, because one process closed one connection carelessly.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import structlog

from vkubelet.errors import ProviderError
from vkubelet.protocols.port_forward import Pair
from vkubelet.provider import PortConnection
from vkubelet.server.streaming import Channel

__all__ = ["Connect", "ForwardedPort"]

_log = structlog.get_logger(__name__)

Connect: TypeAlias = Callable[[int], Awaitable[PortConnection]]
"""A port to a connection; raises `ProviderError` with what the client is to be told."""


class _ResetError(Exception):
    """One of the two sides wants no more of it, and need not be told why."""


class ForwardedPort:
    """
    Carries one connection.

    Args:
        pair: the client's streams, and the port.
        connect: to the pod.
        describe: what the client is told before the message of an error, by port.
        chunk_bytes: how much to read at once, asked before each step.
        half_closes: the client's half may go on when the pod's has ended. A transport that cannot tell the
            client of an end has to end both.
    """

    def __init__(
        self,
        pair: Pair[Channel],
        connect: Connect,
        *,
        describe: Callable[[int], str],
        chunk_bytes: Callable[[], int],
        half_closes: bool,
    ) -> None:
        self._port = pair.port
        self._data = pair.data
        self._error = pair.error
        self._connect = connect
        self._describe = describe
        self._chunk_bytes = chunk_bytes
        self._half_closes = half_closes
        self._connection: PortConnection | None = None
        pair.error.discard()

    async def run(self) -> None:
        """
        Connect, and carry until both directions have ended or one side has broken off.

        The boundary for what goes wrong with this connection: it concerns no other.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(self._until_reset(), name="forwarded port until reset")
                await self._carry(tasks)
                watch.cancel()
        except* (_ResetError, ConnectionResetError) as ended:
            _log.debug("forwarded connection broken off", port=self._port, reason=str(ended.exceptions[0]))
        except* ProviderError as errors:
            await self._tell(str(errors.exceptions[0]))
        except* Exception:  # noqa: BLE001 - logged, which the rule does not see behind a star
            _log.exception("port forward failed", port=self._port)
            await self._tell("internal error: the log of vkubelet has the details")
        finally:
            self._end()

    async def _carry(self, tasks: asyncio.TaskGroup) -> None:
        self._connection = connection = await self._connect(self._port)
        upload = tasks.create_task(self._upload(connection), name="forwarded port to the pod")
        await self._download(connection)
        # Older clients wait for the end of the error stream before they close the data stream.
        self._data.end()
        self._error.end()
        if self._half_closes:
            await upload
        else:
            upload.cancel()

    async def _download(self, connection: PortConnection) -> None:
        """From the pod to the client."""
        while True:
            try:
                chunk = await connection.read(self._chunk_bytes())
            except OSError as error:
                raise _ResetError(f"the pod: {error}") from error
            if not chunk:
                return
            await self._data.write(chunk)

    async def _upload(self, connection: PortConnection) -> None:
        """From the client to the pod; what the pod will not take is thrown away."""
        async for chunk in self._data:
            try:
                await connection.write(chunk)
            except OSError:
                self._data.discard()  # the pod may have more to say all the same
        with contextlib.suppress(OSError):
            await connection.write_eof()

    async def _until_reset(self) -> None:
        await self._data.closed.wait()
        raise _ResetError("the client")

    async def _tell(self, message: str) -> None:
        text = f"{self._describe(self._port)}: {message}"
        _log.info("port cannot be forwarded", port=self._port, error=message)
        await self._error.write(text.encode(errors="replace"))
        self._error.end()

    def _end(self) -> None:
        """Close what is still open; what was said before arrives before."""
        if self._connection is not None:
            self._connection.close()
        self._data.reset()
        self._error.reset()
