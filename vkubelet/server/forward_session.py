"""
All that is forwarded for one client: pairs of streams, as they come, each with a task of its own.

Knows no transport: streams that the client opens come in by `accept`, streams that are there from the start
as pairs by `forward`.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine

import structlog

from vkubelet.clock import Clock, Timer
from vkubelet.model.keys import PodKey
from vkubelet.protocols import port_forward
from vkubelet.protocols.port_forward import ForwardStream, Pair, PairTable, RequestId, StreamKind
from vkubelet.provider import PortConnection, PortForwarder
from vkubelet.server.forwarded_port import ForwardedPort
from vkubelet.server.streaming import Channel

__all__ = ["ForwardSession"]

_log = structlog.get_logger(__name__)

_LARGEST_CHUNK_BYTES = 256 * 1024
_SMALLEST_CHUNK_BYTES = 4 * 1024
_ALL_CHUNKS_BYTES = 1024 * 1024


class ForwardSession:
    """
    The forwarded connections of one client; `tasks` must be set before the first one comes.

    Args:
        forwarder: connects to the pod.
        key: the pod.
        creation_s: how long a stream waits for the other one of its pair.

    Attributes:
        tasks: the parent of each connection's task.
        drained: set when nothing more will be forwarded, after `drain`.
    """

    def __init__(self, forwarder: PortForwarder, key: PodKey, clock: Clock, creation_s: float) -> None:
        self._forwarder = forwarder
        self._key = key
        self._clock = clock
        self._creation_s = creation_s
        self._table: PairTable[Channel] = PairTable()
        self._timers: dict[RequestId, Timer] = {}
        self._open: set[asyncio.Task[None]] = set()
        self._draining = False
        self._context = contextvars.copy_context()  # streams come from the event loop, which has no log keys
        self.tasks: asyncio.TaskGroup | None = None
        self.drained = asyncio.Event()

    def accept(self, channel: Channel) -> bool:
        """Take a stream that the client opens; False for one whose headers make no sense."""
        if self._draining:
            return False
        try:
            stream = port_forward.parse_stream(channel.id, channel.headers)
            pair = self._table.add(stream, channel)
        except ValueError as error:
            _log.info("stream refused", error=str(error))
            return False
        if pair is not None:
            self._timers.pop(stream.request_id).cancel()
            self.forward(pair, half_closes=True)
        else:
            self._timers[stream.request_id] = self._clock.call_later(
                self._creation_s, lambda: self._give_up(stream, channel)
            )
        return True

    def forward(self, pair: Pair[Channel], *, half_closes: bool) -> None:
        """Begin to forward one connection (`ForwardedPort`)."""
        forwarded = ForwardedPort(
            pair,
            self._connect,
            describe=self._describe,
            chunk_bytes=self._chunk_bytes,
            half_closes=half_closes,
        )
        self._begin(forwarded.run(), f"forward port {pair.port}")

    def drain(self) -> None:
        """Take no more, and say when all is over."""
        self._draining = True
        if not self._open:
            self.drained.set()

    def close(self) -> None:
        """The connection has ended."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    # --- inside -------------------------------------------------------------------------------------------

    def _begin(self, work: Coroutine[None, None, None], name: str) -> None:
        assert self.tasks is not None
        task = self.tasks.create_task(work, name=name, context=self._context.copy())
        self._open.add(task)
        task.add_done_callback(self._ended)

    async def _connect(self, port: int) -> PortConnection:
        return await self._forwarder.connect_port(self._key, port)

    def _describe(self, port: int) -> str:
        return f"error forwarding port {port} to pod {self._key.name}, uid {self._key.uid}"

    def _chunk_bytes(self) -> int:
        """The more there are, the less each may hold."""
        share = _ALL_CHUNKS_BYTES // max(len(self._open), 1)
        return max(_SMALLEST_CHUNK_BYTES, min(_LARGEST_CHUNK_BYTES, share))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        if self._draining and not self._open:
            self.drained.set()

    def _give_up(self, stream: ForwardStream, channel: Channel) -> None:
        """The other stream of the pair has not come in time."""
        self._timers.pop(stream.request_id, None)
        if self._table.give_up(stream.request_id, channel):
            self._begin(self._refuse(stream, channel), "refuse half a pair")

    async def _refuse(self, stream: ForwardStream, channel: Channel) -> None:
        if stream.kind is StreamKind.ERROR:
            text = f"{self._describe(stream.port)}: timed out waiting for the data stream"
            await channel.write(text.encode())
            channel.end()
        channel.reset()
