"""
What containers that do not exist would use: the same figures for the same pod at the same time.

Each running container uses as much CPU and memory as its `Behaviour` says, from its start on, so that rates
come out as configured and an autoscaler can be tried. Nothing is random: two readings at one time are equal.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable

from providers.memory.behaviour import Behaviour
from vkubelet.kuberuntime.contract import ContainerInfo, ContainerStatus, RuntimePod
from vkubelet.model import quantity
from vkubelet.model.stats import (
    ContainerStats,
    CpuStats,
    FsStats,
    InterfaceStats,
    MemoryStats,
    NetworkStats,
    NodeStats,
    PodStats,
)

__all__ = ["node_stats", "pod_stats"]

_RX_BYTES_PER_S = 1000
_TX_BYTES_PER_S = 500
_ROOTFS_BYTES = 4096
_LOG_BYTES = 1024


def pod_stats(
    pods: Iterable[RuntimePod],
    behaviour: Callable[[str], Behaviour],
    now: datetime.datetime,
    *,
    only_cpu_and_memory: bool,
) -> list[PodStats]:
    """
    Every pod with a ready sandbox.

    Args:
        pods: what there is.
        behaviour: of a container, by its id.
        now: the time of the reading.
        only_cpu_and_memory: leave out the rest.
    """
    now_ns = _ns(now)
    return [
        _pod_stats(pod, behaviour, now_ns, only_cpu_and_memory)
        for pod in pods
        if pod.sandboxes and pod.sandboxes[0].ready
    ]


def _pod_stats(
    pod: RuntimePod, behaviour: Callable[[str], Behaviour], now_ns: int, only_cpu_and_memory: bool
) -> PodStats:
    sandbox = pod.sandboxes[0]
    start_ns = _ns(sandbox.created_at)
    return PodStats(
        key=pod.key,
        start_ns=start_ns,
        containers=tuple(
            _container_stats(info, behaviour(info.id), now_ns, only_cpu_and_memory)
            for info in pod.containers
            if info.status is ContainerStatus.RUNNING
        ),
        network=None if only_cpu_and_memory or not sandbox.ips else _network(start_ns, now_ns),
    )


def _container_stats(
    info: ContainerInfo, behaviour: Behaviour, now_ns: int, only_cpu_and_memory: bool
) -> ContainerStats:
    start_ns = _ns(info.started_at or info.created_at)
    used_ns = max(now_ns - start_ns, 0) * behaviour.cpu_millicores // 1000
    rest = not only_cpu_and_memory
    return ContainerStats(
        name=info.name,
        start_ns=start_ns,
        container_id=info.id,
        image=info.image,
        cgroup=f"/memory/{info.id}",
        cpu=CpuStats(now_ns, used_ns),
        memory=MemoryStats(
            now_ns,
            working_set_bytes=behaviour.memory_bytes,
            usage_bytes=behaviour.memory_bytes,
            rss_bytes=behaviour.memory_bytes,
        ),
        rootfs=FsStats(now_ns, used_bytes=_ROOTFS_BYTES, inodes_used=1) if rest else None,
        logs=FsStats(now_ns, used_bytes=_LOG_BYTES, inodes_used=1) if rest else None,
        process_count=1 if rest else None,
    )


def _network(start_ns: int, now_ns: int) -> NetworkStats:
    age_s = max(now_ns - start_ns, 0) // 1_000_000_000
    return NetworkStats(now_ns, (InterfaceStats("eth0", age_s * _RX_BYTES_PER_S, age_s * _TX_BYTES_PER_S),))


def node_stats(start: datetime.datetime, *, cpu: str, memory: str) -> NodeStats:
    """
    The node, which uses what its pods use.

    Args:
        start: since when there is a node.
        cpu: its capacity, a quantity.
        memory: its capacity, a quantity.
    """
    cores = quantity.millicores(cpu) // 1000
    return NodeStats(start_ns=_ns(start), cores=cores, memory_bytes=quantity.bytes_(memory))


def _ns(moment: datetime.datetime) -> int:
    """In whole milliseconds, as scrapers see times: the rate that they work out is the configured one."""
    return int(moment.timestamp() * 1000) * 1_000_000
