"""
What this machine uses, where the engine runs on it: the node's part of the statistics.

From ``/proc``, as cAdvisor's figures for the root control group: memory in use is all but the free, its
working set leaves out the page cache that was not used lately. CPU time comes from the root control group,
which counts nanoseconds, or from ``/proc/stat``, which counts ticks: whichever has counted more, for where
only a part of the hierarchy is mounted as the root, that part has counted less than the machine.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from providers.docker.cgroups import CGROUP_ROOT
from vkubelet.kuberuntime.disk_usage import file_system
from vkubelet.model.stats import (
    ContainerStats,
    CpuStats,
    InterfaceStats,
    MemoryStats,
    NetworkStats,
    NodeStats,
    ProcessLimits,
    SwapStats,
)

__all__ = ["Machine", "interfaces"]

_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_NOT_THE_NODES: Final = ("lo", "veth", "docker", "br-", "cni", "flannel")
"""Interfaces of containers, which the node's own traffic passes once more."""


@dataclass(frozen=True, slots=True)
class Machine:
    """
    A machine's files.

    Attributes:
        proc: where ``/proc`` is mounted.
        cgroup_root: where control groups are.
        root_dir: on the file system of pods' volumes.
        image_dir: on the file system of images and containers.
    """

    root_dir: Path
    image_dir: Path
    proc: Path = Path("/proc")
    cgroup_root: Path = CGROUP_ROOT

    @property
    def memory_bytes(self) -> int:
        """All of its memory; tells one machine from another."""
        return self._meminfo().get("MemTotal", 0)

    def read(self, *, brief: bool) -> NodeStats:
        """
        What it uses now.

        Args:
            brief: CPU and memory alone.

        Raises:
            OSError: ``/proc`` cannot be read.
            ValueError: it is not Linux's.
        """
        now_ns, stat, memory = time.time_ns(), self._stat(), self._meminfo()
        swap_bytes = memory.get("SwapTotal", 0) - memory.get("SwapFree", 0)
        start_ns = stat["btime"][0] * 1_000_000_000
        return NodeStats(
            start_ns=start_ns,
            cpu=CpuStats(now_ns, max(self._counted_by_ticks(stat["cpu"]), self._counted_by_cgroup())),
            memory=self._memory(now_ns, memory, brief),
            swap=SwapStats(now_ns, swap_bytes, memory.get("SwapFree", 0)),
            network=None if brief else NetworkStats(now_ns, tuple(self._own_interfaces())),
            fs=None if brief else file_system(self.root_dir, now_ns),
            image_fs=None if brief else file_system(self.image_dir, now_ns),
            process_limits=None if brief else self._process_limits(now_ns),
            system_containers=(self._this_process(now_ns, start_ns),),
            cores=os.cpu_count(),
            memory_bytes=memory["MemTotal"],
        )

    def _memory(self, now_ns: int, info: dict[str, int], brief: bool) -> MemoryStats:
        usage_bytes = info["MemTotal"] - info["MemFree"]
        working_set_bytes = max(usage_bytes - info.get("Inactive(file)", 0), 0)
        faults = {} if brief else self._pairs("vmstat")
        return MemoryStats(
            now_ns,
            working_set_bytes,
            usage_bytes=usage_bytes,
            rss_bytes=info.get("AnonPages"),
            available_bytes=max(info["MemTotal"] - working_set_bytes, 0),
            cache_bytes=info.get("Cached"),
            mapped_file_bytes=info.get("Mapped"),
            page_faults=faults.get("pgfault"),
            major_page_faults=faults.get("pgmajfault"),
        )

    def _counted_by_ticks(self, times: list[int]) -> int:
        """User, nice, system, irq, softirq, steal: all but idle and waiting; guests are in user already."""
        return sum((*times[:3], *times[5:8])) * _TICK_NS

    def _counted_by_cgroup(self) -> int:
        try:
            return int((self.cgroup_root / "cpuacct" / "cpuacct.usage").read_text())
        except OSError:
            pass  # version 2
        try:
            words = (self.cgroup_root / "cpu.stat").read_text().split()
        except OSError:
            return 0
        return int(words[words.index("usage_usec") + 1]) * 1000

    def _own_interfaces(self) -> Iterator[InterfaceStats]:
        for each in interfaces((self.proc / "net" / "dev").read_text()):
            if not each.name.startswith(_NOT_THE_NODES):
                yield each

    def _process_limits(self, now_ns: int) -> ProcessLimits:
        limits = [int((self.proc / "sys/kernel" / name).read_text()) for name in ("pid_max", "threads-max")]
        _, _, running = (self.proc / "loadavg").read_text().split()[3].partition("/")
        return ProcessLimits(now_ns, min(limits), int(running))

    def _this_process(self, now_ns: int, start_ns: int) -> ContainerStats:
        used = resource.getrusage(resource.RUSAGE_SELF)
        resident_bytes = int((self.proc / "self" / "statm").read_text().split()[1]) * _PAGE_BYTES
        return ContainerStats(
            "kubelet",
            start_ns,
            cpu=CpuStats(now_ns, int((used.ru_utime + used.ru_stime) * 1e9)),
            memory=MemoryStats(now_ns, resident_bytes, usage_bytes=resident_bytes, rss_bytes=resident_bytes),
        )

    # --- files ----------------------------------------------------------------------------------------------

    def _stat(self) -> dict[str, list[int]]:
        """``/proc/stat``'s lines by their names."""
        lines = (line.split() for line in (self.proc / "stat").read_text().splitlines())
        return {name: list(map(int, values)) for name, *values in lines}

    def _meminfo(self) -> dict[str, int]:
        """In bytes."""
        found: dict[str, int] = {}
        for line in (self.proc / "meminfo").read_text().splitlines():
            name, _, amount = line.partition(":")
            found[name] = int(amount.split()[0]) * (1024 if amount.endswith("kB") else 1)
        return found

    def _pairs(self, name: str) -> dict[str, int]:
        words = (self.proc / name).read_text().split()
        return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def interfaces(net_dev: str) -> Iterator[InterfaceStats]:
    """The interfaces that a ``/proc/<pid>/net/dev`` lists, the loopback aside."""
    for line in net_dev.splitlines()[2:]:
        name, _, counts = line.partition(":")
        name = name.strip()
        if name == "lo":
            continue
        received, sent = (values := list(map(int, counts.split())))[:4], values[8:12]
        yield InterfaceStats(
            name=name,
            rx_bytes=received[0],
            tx_bytes=sent[0],
            rx_errors=received[2],
            tx_errors=sent[2],
            rx_packets=received[1],
            tx_packets=sent[1],
            rx_dropped=received[3],
            tx_dropped=sent[3],
        )
