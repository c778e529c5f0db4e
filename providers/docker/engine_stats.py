"""
From what the engine says of a container (``GET /containers/{id}/stats``) to the contract's figures. Pure.

For engines on another machine, and for vkubelets that cannot see the control groups of this one. Asked with
``stream=false&one-shot=true``: without the latter the engine waits a second for a second reading.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from providers.docker import status
from providers.docker.cgroups import Reading, device_name, memory_stats
from vkubelet.model.stats import CpuStats, DiskIo, InterfaceStats, NetworkStats

__all__ = ["network", "reading"]

Answer = Mapping[str, Any]


def reading(answer: Answer, memory_limit_bytes: int | None) -> Reading:
    """
    What a container uses.

    Raises:
        ValueError: it does not run, or the answer lacks what must be there.
    """
    time_ns = _time_ns(answer)
    used, throttled = answer["cpu_stats"]["cpu_usage"], answer["cpu_stats"].get("throttling_data") or {}
    memory = answer.get("memory_stats") or {}
    if "usage" not in memory:
        raise ValueError("the engine has no figures: the container does not run")
    try:
        figures = memory_stats(time_ns, memory["usage"], memory_limit_bytes, memory.get("stats") or {})
    except KeyError as error:
        raise ValueError(f"the engine's answer has no {error.args[0]}") from error
    return Reading(
        CpuStats(
            time_ns,
            used["total_usage"],
            user_core_ns=used.get("usage_in_usermode"),
            system_core_ns=used.get("usage_in_kernelmode"),
            periods=throttled.get("periods"),
            throttled_periods=throttled.get("throttled_periods"),
            throttled_ns=throttled.get("throttled_time"),
        ),
        figures,
        None,
        tuple(_disk_io(answer.get("blkio_stats") or {})),
        thread_count=(answer.get("pids_stats") or {}).get("current"),
    )


def network(answer: Answer) -> NetworkStats | None:
    """What went through a container's interfaces; None where it has none of its own."""
    found = answer.get("networks")
    if not found:
        return None
    return NetworkStats(_time_ns(answer), tuple(_interface(name, found[name]) for name in sorted(found)))


def _interface(name: str, counts: Mapping[str, int]) -> InterfaceStats:
    fields = ("bytes", "errors", "packets", "dropped")
    given = {f"{way}_{what}": counts.get(f"{way}_{what}", 0) for way in ("rx", "tx") for what in fields}
    return InterfaceStats(name, **given)


def _time_ns(answer: Answer) -> int:
    read_at = status.parse_time(answer.get("read"))
    if read_at is None:
        raise ValueError("the engine's answer has no time: the container does not run")
    return int(read_at.timestamp() * 1_000_000) * 1000


def _disk_io(stats: Answer) -> Iterator[DiskIo]:
    """Version 1 says Read and Write, version 2 read and write."""
    amounts = _by_operation(stats.get("io_service_bytes_recursive") or ())
    counts = _by_operation(stats.get("io_serviced_recursive") or ())
    for device in dict.fromkeys(device for device, _ in amounts):
        yield DiskIo(
            device_name(device),
            amounts.get((device, "read"), 0),
            amounts.get((device, "write"), 0),
            counts.get((device, "read"), 0),
            counts.get((device, "write"), 0),
        )


def _by_operation(entries: Iterable[Answer]) -> dict[tuple[str, str], int]:
    return {
        (f"{entry['major']}:{entry['minor']}", entry["op"].lower()): entry["value"]
        for entry in entries
        if entry["op"].lower() in ("read", "write")
    }
