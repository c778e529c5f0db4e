"""
The one source of time.

Everything that reads the time or waits for it takes a `Clock`, so that a test with a `ManualClock`
(`tests/clocks.py`) runs a day of back-off in a millisecond. Time limits on I/O (`asyncio.timeout`) guard
against a peer, not against the calendar, and stay with the event loop.
"""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Clock", "SystemClock", "Timer", "rfc3339", "rfc3339_micro"]


class Timer(Protocol):
    """A call that is due; `cancel` is harmless after it was made."""

    def cancel(self) -> None:
        """Do not make the call."""


class Clock(Protocol):
    """Wall time, monotonic time, and waiting."""

    def now(self) -> datetime.datetime:
        """Wall time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, at once when that is not positive."""

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the event loop after `delay_s`."""


class SystemClock:
    """The machine's clock and the running event loop's timers."""

    def now(self) -> datetime.datetime:
        """Wall time, aware, in UTC."""
        return datetime.datetime.now(datetime.UTC)

    def monotonic(self) -> float:
        """Seconds from an arbitrary start; never goes back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`, at once when that is not positive."""
        await asyncio.sleep(max(seconds, 0.0))

    def call_later(self, delay_s: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the event loop after `delay_s`."""
        return asyncio.get_running_loop().call_later(max(delay_s, 0.0), callback)


def rfc3339(moment: datetime.datetime) -> str:
    """`metav1.Time` as the API server writes it: UTC, whole seconds, ``2026-01-02T03:04:05Z``."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime.datetime) -> str:
    """`metav1.MicroTime`, for Leases: ``2026-01-02T03:04:05.000006Z``."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
