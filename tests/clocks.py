"""A clock that moves only when told to."""

from __future__ import annotations

import asyncio
import datetime
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(order=True)
class _ManualTimer:
    due: float
    order: int
    callback: Callable[[], object] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """Implements `vkubelet.clock.Clock`; `advance` makes what falls due, in order."""

    def __init__(self, start: str = "2026-01-01T00:00:00+00:00") -> None:
        self._start = datetime.datetime.fromisoformat(start)
        self._elapsed = 0.0
        self._timers: list[_ManualTimer] = []
        self._order = itertools.count()

    def now(self) -> datetime.datetime:
        return self._start + datetime.timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        done = asyncio.Event()
        timer = self.call_later(seconds, done.set)
        try:
            await done.wait()
        finally:
            timer.cancel()

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> _ManualTimer:
        timer = _ManualTimer(self._elapsed + max(delay_s, 0.0), next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    def next_due_s(self) -> float | None:
        """Seconds until the next timer, None when there is none."""
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].due - self._elapsed if self._timers else None

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`, letting the event loop settle after each timer that falls due."""
        await settle()
        target = self._elapsed + seconds
        while (due := self.next_due_s()) is not None and self._elapsed + due <= target:
            timer = heapq.heappop(self._timers)
            self._elapsed = max(self._elapsed, timer.due)
            timer.callback()
            await settle()
        self._elapsed = target
        await settle()


async def settle(rounds: int = 50) -> None:
    """Let every task that can run do so; no time passes on a `ManualClock`."""
    for _ in range(rounds):
        await asyncio.sleep(0)
