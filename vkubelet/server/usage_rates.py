"""
CPU rates out of cumulative counters: the Summary API's `usageNanoCores`.

A provider reports how much CPU time was used; how much is used *now* takes two readings. The kubelet renews
its rate every ten seconds in the background. Here a rate is made when somebody reads, over the time since
the reading before, but never over less than ten seconds once there is a rate: what several readers ask for
at once would otherwise shorten the window until it says nothing. Nobody reading costs nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from vkubelet.model.stats import CpuStats

__all__ = ["UsageRates"]

_FIRST_WINDOW_NS: Final = 1_000_000_000
_WINDOW_NS: Final = 10_000_000_000


@dataclass(slots=True)
class _Known:
    base: CpuStats
    rate_nano_cores: int | None = None


class UsageRates:
    """The rates of everything that was in the last reading."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Known] = {}
        self._present: dict[Hashable, _Known] = {}

    def begin(self) -> None:
        """A reading begins: what it does not contain is forgotten at its end."""
        self._present = {}

    def end(self) -> None:
        """The reading is complete."""
        self._known, self._present = self._present, {}

    def rate(self, key: Hashable, cpu: CpuStats) -> int | None:
        """
        Billionths of a core in use; None before there are two readings a second apart.

        Args:
            key: whose counter it is; another one for each attempt of a container.
            cpu: the reading.
        """
        known = self._known.get(key)
        if known is None or cpu.usage_core_ns < known.base.usage_core_ns:
            known = _Known(cpu)
        window_ns = cpu.time_ns - known.base.time_ns
        if window_ns >= (_FIRST_WINDOW_NS if known.rate_nano_cores is None else _WINDOW_NS):
            used_ns = cpu.usage_core_ns - known.base.usage_core_ns
            known = _Known(cpu, used_ns * 1_000_000_000 // window_ns)
        self._present[key] = known
        return known.rate_nano_cores
