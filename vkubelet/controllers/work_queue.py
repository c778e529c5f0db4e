"""
A keyed work queue: the shape of every controller's loop.

As client-go's workqueue: a key added twice before it is handled is handled once; a key added while it is
being handled is handled again afterwards; two workers never hold the same key. So one pod's work is in
order and different pods' work is in parallel. Delays and back-off are kept here, so that a handler is a
plain function of its key: it looks up what is true now, and an event's content is never queued.

A task per pod was turned down: 5,000 sleeping tasks cost more memory than their pods.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from vkubelet import metrics
from vkubelet.clock import Clock, Timer
from vkubelet.errors import ApiUnavailableError, ProviderUnavailableError, VirtualKubeletError
from vkubelet.logs import get_logger

__all__ = ["WorkQueue"]

K = TypeVar("K", bound=Hashable)

log = get_logger("work_queue")

FIRST_RETRY_S = 0.25
LAST_RETRY_S = 60.0


class WorkQueue(Generic[K]):
    """
    Calls `handler(key)` for every key that was added, by `workers` tasks at the most.

    A handler that raises is called again after a back-off that doubles from 0.25 s to `last_retry_s`, or
    after the time that a platform or the API server names. This is the one boundary for unexpected errors of
    its loop; only those are logged with their traceback.

    Attributes:
        name: for logs and task names.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[[K], Awaitable[None]],
        *,
        workers: int,
        clock: Clock,
        last_retry_s: float = LAST_RETRY_S,
    ) -> None:
        self.name = name
        self._handler = handler
        self._workers = workers
        self._clock = clock
        self._last_retry_s = last_retry_s
        self._ready: deque[K] = deque()
        self._queued: dict[K, float] = {}
        self._working: dict[K, float] = {}
        self._again: set[K] = set()
        self._timers: dict[K, tuple[float, Timer]] = {}
        self._failures: dict[K, int] = {}
        self._idle: deque[asyncio.Future[None]] = deque()
        self._became_idle: asyncio.Future[None] | None = None
        self._metrics = metrics.queue_metrics(name, lambda: len(self._ready))

    def __len__(self) -> int:
        """Keys that wait for a worker now."""
        return len(self._ready)

    @property
    def is_idle(self) -> bool:
        """Nothing is waiting and nothing is being handled (delayed keys apart)."""
        return not self._ready and not self._working

    @property
    def longest_s(self) -> float:
        """How long the handler that has worked longest has been at it; 0 when none works."""
        return self._clock.monotonic() - min(self._working.values(), default=self._clock.monotonic())

    async def wait_idle(self) -> None:
        """Return once it `is_idle`."""
        while not self.is_idle:
            self._became_idle = self._became_idle or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._became_idle)

    def add(self, key: K) -> None:
        """Handle `key` soon."""
        self._metrics.adds.inc()
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued[key] = self._clock.monotonic()
            self._ready.append(key)
            self._wake_one()

    def add_after(self, key: K, delay_s: float) -> None:
        """Handle `key` after `delay_s`; of several delays for one key the earliest holds."""
        if delay_s <= 0:
            self.add(key)
            return
        due = self._clock.monotonic() + delay_s
        earlier = self._timers.get(key)
        if earlier is not None:
            if earlier[0] <= due:
                return
            earlier[1].cancel()
        self._timers[key] = (due, self._clock.call_later(delay_s, lambda: self._fire(key)))

    def forget(self, key: K) -> None:
        """Drop the delays and the failure count of a key that is finished with."""
        self._failures.pop(key, None)
        if (timer := self._timers.pop(key, None)) is not None:
            timer[1].cancel()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._workers):
                    group.create_task(self._work(), name=f"{self.name}-{number}")
        finally:
            for _, timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _wake_one(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _work(self) -> None:
        while True:
            while self._ready:
                await self._handle(self._ready.popleft())
            if self._became_idle is not None and self.is_idle:
                self._became_idle.set_result(None)
                self._became_idle = None
            waiter = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter

    async def _handle(self, key: K) -> None:
        started = self._clock.monotonic()
        self._metrics.queued_s.observe(started - self._queued.pop(key, started))
        self._working[key] = started
        try:
            await self._handler(key)
        except Exception as error:  # noqa: BLE001 - the loop's one boundary: logged, retried with back-off
            self._retry(key, error)
        else:
            self._failures.pop(key, None)
        finally:
            self._metrics.worked_s.observe(self._clock.monotonic() - started)
            del self._working[key]
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _retry(self, key: K, error: Exception) -> None:
        self._metrics.retries.inc()
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        delay_s = min(FIRST_RETRY_S * 2 ** min(failures - 1, 10), self._last_retry_s)
        delay_s *= random.uniform(1.0, 1.25)
        known = isinstance(error, VirtualKubeletError)
        if isinstance(error, ProviderUnavailableError | ApiUnavailableError):
            delay_s = delay_s if error.retry_after_s is None else error.retry_after_s
        log.warning(
            "work failed, will be retried",
            queue=self.name,
            key=str(key),
            attempt=failures,
            retry_in_s=round(delay_s, 2),
            error=str(error) or type(error).__name__,
            exc_info=None if known else error,
        )
        self.add_after(key, delay_s)
