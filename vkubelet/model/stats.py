"""
What pods, containers and the node use: counters and levels as read, each with the time of its reading.

These are the figures of the kubelet's Summary API (`k8s.io/kubelet/pkg/apis/stats/v1alpha1`) and of
cAdvisor's metrics, before they have either's form. A provider fills in what it knows; None means that it
does not know, and the figure is then left out, never reported as 0. Counters are cumulative: rates are
worked out by who reads them.

Times are whole nanoseconds since 1970, as cgroups and the metrics formats count them: thousands of
`datetime` objects for one scrape would cost more than reading the figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vkubelet.model.keys import PodKey

__all__ = [
    "ContainerStats",
    "CpuStats",
    "DiskIo",
    "FsStats",
    "InterfaceStats",
    "MemoryStats",
    "NetworkStats",
    "NodeStats",
    "PodStats",
    "ProcessLimits",
    "StatsSummary",
    "SwapStats",
    "total_cpu",
    "total_memory",
]


@dataclass(frozen=True, slots=True)
class CpuStats:
    """
    CPU time.

    Attributes:
        usage_core_ns: used by all cores together since the start.
        user_core_ns, system_core_ns: its two parts.
        periods, throttled_periods, throttled_ns: what the quota, if any, has done.
    """

    time_ns: int
    usage_core_ns: int
    user_core_ns: int | None = None
    system_core_ns: int | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    throttled_ns: int | None = None


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """
    Memory now.

    Attributes:
        usage_bytes: all of it, page cache included.
        working_set_bytes: `usage_bytes` without the page cache that was not used lately: what cannot be had
            back under pressure, and what the kubelet evicts by.
        rss_bytes: anonymous memory.
        available_bytes: the limit less the working set; None without a limit.
        failures: how often the limit was hit.
    """

    time_ns: int
    working_set_bytes: int
    usage_bytes: int | None = None
    rss_bytes: int | None = None
    available_bytes: int | None = None
    cache_bytes: int | None = None
    mapped_file_bytes: int | None = None
    max_usage_bytes: int | None = None
    page_faults: int | None = None
    major_page_faults: int | None = None
    failures: int | None = None
    oom_kills: int | None = None


@dataclass(frozen=True, slots=True)
class SwapStats:
    """Swapped memory; `available_bytes` is None without a limit."""

    time_ns: int
    usage_bytes: int
    available_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class FsStats:
    """A file system, or (`used_bytes`, `inodes_used`) the part of it that something takes."""

    time_ns: int
    available_bytes: int | None = None
    capacity_bytes: int | None = None
    used_bytes: int | None = None
    inodes_free: int | None = None
    inodes: int | None = None
    inodes_used: int | None = None


@dataclass(frozen=True, slots=True)
class DiskIo:
    """Bytes and operations on one block device, such as ``/dev/sda``."""

    device: str
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


@dataclass(frozen=True, slots=True)
class InterfaceStats:
    """What went through a network interface since it was made."""

    name: str
    rx_bytes: int
    tx_bytes: int
    rx_errors: int = 0
    tx_errors: int = 0
    rx_packets: int = 0
    tx_packets: int = 0
    rx_dropped: int = 0
    tx_dropped: int = 0


@dataclass(frozen=True, slots=True)
class NetworkStats:
    """The interfaces of a network namespace, without the loopback."""

    time_ns: int
    interfaces: tuple[InterfaceStats, ...]

    @property
    def default(self) -> InterfaceStats | None:
        """The interface that pods reach the network by: ``eth0``, as the kubelet takes it."""
        return next((each for each in self.interfaces if each.name == "eth0"), None)


@dataclass(frozen=True, slots=True)
class ContainerStats:
    """
    A running container; a part that could not be read is None.

    Attributes:
        start_ns: when this attempt was started.
        container_id: bare.
        image: as the pod names it.
        cgroup: where it stands, such as ``/docker/<id>``, or another name that tells it from others.
        cpu_shares, cpu_quota_us, cpu_period_us, memory_limit_bytes: its limits.
    """

    name: str
    start_ns: int
    container_id: str = ""
    image: str = ""
    cgroup: str = ""
    cpu: CpuStats | None = None
    memory: MemoryStats | None = None
    swap: SwapStats | None = None
    rootfs: FsStats | None = None
    logs: FsStats | None = None
    disk_io: tuple[DiskIo, ...] = ()
    process_count: int | None = None
    thread_count: int | None = None
    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    memory_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PodStats:
    """
    A pod with a running sandbox.

    Attributes:
        start_ns: when its sandbox was made.
        containers: the running ones, without the sandbox.
        sandbox: what holds its namespaces, where that is a process of its own.
        cpu, memory: of all that runs for it; the counter goes on when a container is replaced.
        volumes: the part of a file system that each volume takes, by the volume's name.
    """

    key: PodKey
    start_ns: int
    containers: tuple[ContainerStats, ...] = ()
    sandbox: ContainerStats | None = None
    cpu: CpuStats | None = None
    memory: MemoryStats | None = None
    swap: SwapStats | None = None
    network: NetworkStats | None = None
    volumes: tuple[tuple[str, FsStats], ...] = ()
    ephemeral_storage: FsStats | None = None
    process_count: int | None = None


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Processes and threads of the machine, and how many there may be."""

    time_ns: int
    max_pids: int
    running: int


@dataclass(frozen=True, slots=True)
class NodeStats:
    """
    The machine.

    Attributes:
        start_ns: when it was booted.
        system_containers: by the kubelet's names: "kubelet" for this process, "pods" for all pods.
        fs: where pods' volumes are.
        image_fs: where images and containers are.
        cores, memory_bytes: what it has.
    """

    start_ns: int
    cpu: CpuStats | None = None
    memory: MemoryStats | None = None
    swap: SwapStats | None = None
    network: NetworkStats | None = None
    fs: FsStats | None = None
    image_fs: FsStats | None = None
    process_limits: ProcessLimits | None = None
    system_containers: tuple[ContainerStats, ...] = ()
    cores: int | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class StatsSummary:
    """The node and its pods; a pod or container that could not be read at all is not in it."""

    node: NodeStats
    pods: tuple[PodStats, ...]


def total_cpu(parts: Iterable[CpuStats | None]) -> CpuStats | None:
    """The usage of several together, at the newest of their times; None when none is known."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    if len(known) == 1:
        return known[0]
    return CpuStats(max(part.time_ns for part in known), sum(part.usage_core_ns for part in known))


def total_memory(parts: Iterable[MemoryStats | None]) -> MemoryStats | None:
    """The memory of several together, at the newest of their times; None when none is known."""
    known = [part for part in parts if part is not None]
    if not known:
        return None
    if len(known) == 1:
        return known[0]
    return MemoryStats(
        time_ns=max(part.time_ns for part in known),
        working_set_bytes=sum(part.working_set_bytes for part in known),
        usage_bytes=_sum(part.usage_bytes for part in known),
        rss_bytes=_sum(part.rss_bytes for part in known),
        page_faults=_sum(part.page_faults for part in known),
        major_page_faults=_sum(part.major_page_faults for part in known),
    )


def _sum(values: Iterable[int | None]) -> int | None:
    """Of those that are known; None when none is."""
    known = [value for value in values if value is not None]
    return sum(known) if known else None
