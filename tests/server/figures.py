"""Figures of a node with two pods, one of them on the host's network and with little that is known of it."""

from __future__ import annotations

from vkubelet.model.keys import PodKey
from vkubelet.model.stats import (
    ContainerStats,
    CpuStats,
    DiskIo,
    FsStats,
    InterfaceStats,
    MemoryStats,
    NetworkStats,
    NodeStats,
    PodStats,
    ProcessLimits,
    StatsSummary,
    SwapStats,
)

SECOND = 1_000_000_000
START = 1_767_225_600 * SECOND  # 2026-01-01T00:00:00Z


def summary(later_s: int = 100, used_core_ns: int = 2_500_000_000) -> StatsSummary:
    """A reading so many seconds after the start."""
    now = START + later_s * SECOND + 250_000_000
    web = PodStats(
        key=PodKey("default", "web", "uid-web"),
        start_ns=START,
        containers=(_main(now, used_core_ns),),
        sandbox=ContainerStats(
            name="POD",
            start_ns=START,
            container_id="5a",
            image="pause:1",
            cgroup="/docker/5a",
            cpu=CpuStats(now, 20_000_000),
            memory=MemoryStats(now, 400_000, usage_bytes=500_000),
        ),
        cpu=CpuStats(now, used_core_ns + 20_000_000),
        memory=MemoryStats(now, 30_400_000, usage_bytes=40_500_000, rss_bytes=20_000_000),
        swap=SwapStats(now, 0),
        network=NetworkStats(now, (InterfaceStats("eth0", 1000, 500, 1, 2, 10, 5, 3, 4),)),
        volumes=(("scratch", FsStats(now, 100, 200, 50, 10, 20, 5)),),
        ephemeral_storage=FsStats(now, 100, 200, 9000, 10, 20, 8),
        process_count=4,
    )
    agent = PodStats(
        key=PodKey("kube-system", 'agent-"1"', "uid-agent"),
        start_ns=START,
        containers=(ContainerStats("unread", START), ContainerStats("half", 0, memory=MemoryStats(now, 7))),
        memory=MemoryStats(now, 7),
    )
    return StatsSummary(_node(now), (web, agent))


def _main(now: int, used_core_ns: int) -> ContainerStats:
    return ContainerStats(
        name="main",
        start_ns=START + SECOND // 2,
        container_id="c1",
        image="registry.example/app:1.0",
        cgroup="/docker/c1",
        cpu=CpuStats(now, used_core_ns, 2_000_000_000, 500_000_000, 10, 2, 300_000_000),
        memory=MemoryStats(
            time_ns=now,
            working_set_bytes=30_000_000,
            usage_bytes=40_000_000,
            rss_bytes=20_000_000,
            available_bytes=70_000_000,
            cache_bytes=15_000_000,
            mapped_file_bytes=1_000_000,
            max_usage_bytes=45_000_000,
            page_faults=123,
            major_page_faults=4,
            failures=1,
            oom_kills=0,
        ),
        swap=SwapStats(now, 0, 1000),
        rootfs=FsStats(now, 100, 200, 4096, 10, 20, 2),
        logs=FsStats(now, 100, 200, 1024, 10, 20, 1),
        disk_io=(DiskIo("/dev/sda", 4096, 8192, 1, 2),),
        process_count=3,
        thread_count=7,
        cpu_shares=512,
        cpu_quota_us=50_000,
        cpu_period_us=100_000,
        memory_limit_bytes=100_000_000,
    )


def _node(now: int) -> NodeStats:
    return NodeStats(
        start_ns=START - 1000 * SECOND,
        cpu=CpuStats(now, 90_000_000_000),
        memory=MemoryStats(now, 5_000, usage_bytes=6_000, rss_bytes=4_000, available_bytes=3_000),
        swap=SwapStats(now, 10, 90),
        network=NetworkStats(now, (InterfaceStats("eth0", 1, 2), InterfaceStats("eth1", 3, 4))),
        fs=FsStats(now, 1, 10, 9, 2, 20, 18),
        image_fs=FsStats(now, 1, 10, None, 2, 20),
        process_limits=ProcessLimits(now, 32768, 534),
        system_containers=(ContainerStats("kubelet", START, cpu=CpuStats(now, 1_000)),),
        cores=2,
        memory_bytes=8_000,
    )
