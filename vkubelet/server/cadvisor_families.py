"""
The table of cAdvisor's metrics that are served: name, type, help text, and how samples are made of a subject.

Names, types and help texts are those of cAdvisor 0.56, in the order of the names. What a subject does not
know has no sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from vkubelet.model.stats import (
    ContainerStats,
    CpuStats,
    DiskIo,
    FsStats,
    InterfaceStats,
    MemoryStats,
    NetworkStats,
)
from vkubelet.server.exposition import MetricType, escaped

__all__ = ["FAMILIES", "Samples", "Subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """Something with figures, and its labels as they stand between braces."""

    labels: str
    stats: ContainerStats
    network: NetworkStats | None = None


Samples: TypeAlias = Callable[[Subject], Iterable[str]]
"""What stands behind the metric's name: labels, value and time in milliseconds."""


def _cpu(value: Callable[[CpuStats], float | None], *more_labels: str) -> Samples:
    more = "".join("," + label for label in more_labels)

    def samples(subject: Subject) -> Iterable[str]:
        cpu = subject.stats.cpu
        if cpu is None or (found := value(cpu)) is None:
            return ()
        return (f"{{{subject.labels}{more}}} {found!r} {cpu.time_ns // 1_000_000}",)

    return samples


def _memory(value: Callable[[MemoryStats], int | None], *more_labels: str) -> Samples:
    more = "".join("," + label for label in more_labels)

    def samples(subject: Subject) -> Iterable[str]:
        memory = subject.stats.memory
        if memory is None or (found := value(memory)) is None:
            return ()
        return (f"{{{subject.labels}{more}}} {found} {memory.time_ns // 1_000_000}",)

    return samples


def _swap(subject: Subject) -> Iterable[str]:
    swap = subject.stats.swap
    if swap is None:
        return ()
    return (f"{{{subject.labels}}} {swap.usage_bytes} {swap.time_ns // 1_000_000}",)


def _faults(subject: Subject) -> Iterable[str]:
    memory = subject.stats.memory
    if memory is None or memory.page_faults is None:
        return
    for kind, count in (("pgfault", memory.page_faults), ("pgmajfault", memory.major_page_faults or 0)):
        for scope in ("container", "hierarchy"):
            labels = f'{subject.labels},failure_type="{kind}",scope="{scope}"'
            yield f"{{{labels}}} {count} {memory.time_ns // 1_000_000}"


def _fs(value: Callable[[FsStats], int | None]) -> Samples:
    def samples(subject: Subject) -> Iterable[str]:
        rootfs = subject.stats.rootfs
        if rootfs is None or (found := value(rootfs)) is None:
            return ()
        return (f'{{{subject.labels},device=""}} {found} {rootfs.time_ns // 1_000_000}',)

    return samples


def _disk(value: Callable[[DiskIo], int]) -> Samples:
    def samples(subject: Subject) -> Iterable[str]:
        cpu = subject.stats.cpu
        at = f" {cpu.time_ns // 1_000_000}" if cpu is not None else ""
        return [
            f'{{{subject.labels},device="{escaped(each.device)}"}} {value(each)}{at}'
            for each in subject.stats.disk_io
        ]

    return samples


def _network(value: Callable[[InterfaceStats], int]) -> Samples:
    def samples(subject: Subject) -> Iterable[str]:
        network = subject.network
        if network is None:
            return ()
        at_ms = network.time_ns // 1_000_000
        return [
            f'{{{subject.labels},interface="{escaped(each.name)}"}} {value(each)} {at_ms}'
            for each in network.interfaces
        ]

    return samples


def _spec(value: Callable[[ContainerStats], int | None]) -> Samples:
    def samples(subject: Subject) -> Iterable[str]:
        found = value(subject.stats)
        return () if found is None else (f"{{{subject.labels}}} {found}",)

    return samples


def _started(subject: Subject) -> Iterable[str]:
    return (f"{{{subject.labels}}} {subject.stats.start_ns // 1_000_000_000}",)


def _last_seen(subject: Subject) -> Iterable[str]:
    cpu = subject.stats.cpu
    if cpu is None:
        return ()
    return (f"{{{subject.labels}}} {cpu.time_ns // 1_000_000_000} {cpu.time_ns // 1_000_000}",)


def _seconds(core_ns: int | None) -> float | None:
    return None if core_ns is None else core_ns / 1e9


FAMILIES: Final[tuple[tuple[str, MetricType, str, Samples], ...]] = (
    (
        "container_cpu_cfs_periods_total",
        "counter",
        "Number of elapsed enforcement period intervals.",
        _cpu(lambda cpu: cpu.periods),
    ),
    (
        "container_cpu_cfs_throttled_periods_total",
        "counter",
        "Number of throttled period intervals.",
        _cpu(lambda cpu: cpu.throttled_periods),
    ),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "counter",
        "Total time duration the container has been throttled.",
        _cpu(lambda cpu: _seconds(cpu.throttled_ns)),
    ),
    (
        "container_cpu_system_seconds_total",
        "counter",
        "Cumulative system cpu time consumed in seconds.",
        _cpu(lambda cpu: _seconds(cpu.system_core_ns)),
    ),
    (
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        _cpu(lambda cpu: cpu.usage_core_ns / 1e9, 'cpu="total"'),
    ),
    (
        "container_cpu_user_seconds_total",
        "counter",
        "Cumulative user cpu time consumed in seconds.",
        _cpu(lambda cpu: _seconds(cpu.user_core_ns)),
    ),
    (
        "container_fs_inodes_free",
        "gauge",
        "Number of available Inodes",
        _fs(lambda fs: fs.inodes_free),
    ),
    ("container_fs_inodes_total", "gauge", "Number of Inodes", _fs(lambda fs: fs.inodes)),
    (
        "container_fs_limit_bytes",
        "gauge",
        "Number of bytes that can be consumed by the container on this filesystem.",
        _fs(lambda fs: fs.capacity_bytes),
    ),
    (
        "container_fs_reads_bytes_total",
        "counter",
        "Cumulative count of bytes read",
        _disk(lambda io: io.read_bytes),
    ),
    (
        "container_fs_reads_total",
        "counter",
        "Cumulative count of reads completed",
        _disk(lambda io: io.reads),
    ),
    (
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
        _fs(lambda fs: fs.used_bytes),
    ),
    (
        "container_fs_writes_bytes_total",
        "counter",
        "Cumulative count of bytes written",
        _disk(lambda io: io.written_bytes),
    ),
    (
        "container_fs_writes_total",
        "counter",
        "Cumulative count of writes completed",
        _disk(lambda io: io.writes),
    ),
    ("container_last_seen", "gauge", "Last time a container was seen by the exporter", _last_seen),
    (
        "container_memory_cache",
        "gauge",
        "Number of bytes of page cache memory.",
        _memory(lambda memory: memory.cache_bytes),
    ),
    (
        "container_memory_failcnt",
        "counter",
        "Number of memory usage hits limits",
        _memory(lambda memory: memory.failures),
    ),
    (
        "container_memory_failures_total",
        "counter",
        "Cumulative count of memory allocation failures.",
        _faults,
    ),
    (
        "container_memory_mapped_file",
        "gauge",
        "Size of memory mapped files in bytes.",
        _memory(lambda memory: memory.mapped_file_bytes),
    ),
    (
        "container_memory_max_usage_bytes",
        "gauge",
        "Maximum memory usage recorded in bytes",
        _memory(lambda memory: memory.max_usage_bytes),
    ),
    ("container_memory_rss", "gauge", "Size of RSS in bytes.", _memory(lambda memory: memory.rss_bytes)),
    ("container_memory_swap", "gauge", "Container swap usage in bytes.", _swap),
    (
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        _memory(lambda memory: memory.usage_bytes),
    ),
    (
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set in bytes.",
        _memory(lambda memory: memory.working_set_bytes),
    ),
    (
        "container_network_receive_bytes_total",
        "counter",
        "Cumulative count of bytes received",
        _network(lambda each: each.rx_bytes),
    ),
    (
        "container_network_receive_errors_total",
        "counter",
        "Cumulative count of errors encountered while receiving",
        _network(lambda each: each.rx_errors),
    ),
    (
        "container_network_receive_packets_dropped_total",
        "counter",
        "Cumulative count of packets dropped while receiving",
        _network(lambda each: each.rx_dropped),
    ),
    (
        "container_network_receive_packets_total",
        "counter",
        "Cumulative count of packets received",
        _network(lambda each: each.rx_packets),
    ),
    (
        "container_network_transmit_bytes_total",
        "counter",
        "Cumulative count of bytes transmitted",
        _network(lambda each: each.tx_bytes),
    ),
    (
        "container_network_transmit_errors_total",
        "counter",
        "Cumulative count of errors encountered while transmitting",
        _network(lambda each: each.tx_errors),
    ),
    (
        "container_network_transmit_packets_dropped_total",
        "counter",
        "Cumulative count of packets dropped while transmitting",
        _network(lambda each: each.tx_dropped),
    ),
    (
        "container_network_transmit_packets_total",
        "counter",
        "Cumulative count of packets transmitted",
        _network(lambda each: each.tx_packets),
    ),
    (
        "container_oom_events_total",
        "counter",
        "Count of out of memory events observed for the container",
        _memory(lambda memory: memory.oom_kills),
    ),
    (
        "container_processes",
        "gauge",
        "Number of processes running inside the container.",
        _spec(lambda stats: stats.process_count),
    ),
    (
        "container_spec_cpu_period",
        "gauge",
        "CPU period of the container.",
        _spec(lambda stats: stats.cpu_period_us),
    ),
    (
        "container_spec_cpu_quota",
        "gauge",
        "CPU quota of the container.",
        _spec(lambda stats: stats.cpu_quota_us),
    ),
    (
        "container_spec_cpu_shares",
        "gauge",
        "CPU share of the container.",
        _spec(lambda stats: stats.cpu_shares),
    ),
    (
        "container_spec_memory_limit_bytes",
        "gauge",
        "Memory limit for the container.",
        _spec(lambda stats: stats.memory_limit_bytes),
    ),
    (
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds.",
        _started,
    ),
    (
        "container_threads",
        "gauge",
        "Number of threads running inside the container",
        _spec(lambda stats: stats.thread_count),
    ),
)
