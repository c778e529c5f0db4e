"""
What a container uses, read from its control groups: both versions, no engine in between.

The files are those of the kernel's documents "cgroup-v1" and "cgroup-v2"; the figures are made of them as
cAdvisor makes them, so that they agree with a kubelet's and with ``docker stats``. Asking the engine was
turned down where the files can be read: it takes a request for each container and keeps a thread busy.

Reading is synchronous, a few small files for each container; the caller does it for all of them in a thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

from vkubelet.model.stats import CpuStats, DiskIo, MemoryStats, SwapStats

__all__ = ["CGROUP_ROOT", "Cgroup", "Reading", "device_name", "locate", "memory_stats", "read"]

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")

_USER_HZ: Final = os.sysconf("SC_CLK_TCK")
_MAX_BYTES: Final = 1 << 20
_TICK_NS: Final = 1_000_000_000 // _USER_HZ
_CONTROLLERS: Final = ("cpuacct", "cpu", "memory", "blkio", "pids")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """
    Where a container's control group is.

    Attributes:
        version: of the hierarchy that has its memory.
        name: within it, such as ``/docker/<id>``.
        directories: by controller; one and the same for all of them in version 2.
    """

    version: Literal[1, 2]
    name: str
    directories: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read; `disk_io` and the counts are not there in a brief one."""

    cpu: CpuStats
    memory: MemoryStats
    swap: SwapStats | None
    disk_io: tuple[DiskIo, ...] = ()
    process_count: int | None = None
    thread_count: int | None = None


def locate(proc_cgroup: str, container_id: str, root: Path = CGROUP_ROOT) -> Cgroup | None:
    """
    The control group of a container's process.

    None where it cannot be seen from here: the process is another machine's, or one of the same number in
    another namespace (the group must bear the container's id), or the hierarchy is not mounted.

    Args:
        proc_cgroup: the text of ``/proc/<pid>/cgroup``.
        container_id: the engine's.
        root: where the hierarchies are mounted.
    """
    found: dict[str, str] = {}
    name = unified = ""
    for line in proc_cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        if container_id not in path:
            continue
        if not controllers:
            unified = path
        for controller in controllers.split(","):
            if controller in _CONTROLLERS:
                mount = root / controllers if (root / controllers).is_dir() else root / controller
                found[controller] = f"{mount}{path}"
                name = path
    if "memory" in found:
        return Cgroup(1, name, found) if {"cpuacct", "cpu"} <= found.keys() and _exist(found) else None
    directories = dict.fromkeys(_CONTROLLERS, f"{root}{unified}")
    return Cgroup(2, unified, directories) if unified and _exist(directories) else None


def _exist(directories: Mapping[str, str]) -> bool:
    return all(map(os.path.isdir, set(directories.values())))


def read(cgroup: Cgroup, memory_limit_bytes: int | None, *, brief: bool) -> Reading:
    """
    Read a control group now.

    Args:
        cgroup: where it is.
        memory_limit_bytes: the container's, None without one.
        brief: CPU and memory alone.

    Raises:
        OSError: it is gone, with its container.
        ValueError: a file does not have the form that the kernel's documents give it.
    """
    try:
        read_all = _read_v1 if cgroup.version == 1 else _read_v2
        return read_all(cgroup.directories, memory_limit_bytes, brief)
    except KeyError as error:
        raise ValueError(f"control group {cgroup.name} has no {error.args[0]}") from error


def _read_v1(directories: Mapping[str, str], limit_bytes: int | None, brief: bool) -> Reading:
    now_ns = time.time_ns()
    cpu = CpuStats(now_ns, _number(directories["cpuacct"], "cpuacct.usage"))
    memory = memory_stats(
        now_ns,
        _number(directories["memory"], "memory.usage_in_bytes"),
        limit_bytes,
        stat := _pairs(directories["memory"], "memory.stat"),
    )
    swap = SwapStats(now_ns, stat["total_swap"]) if "total_swap" in stat else None
    if brief:
        return Reading(cpu, memory, swap)
    ticks = _pairs(directories["cpuacct"], "cpuacct.stat")
    quota = _pairs(directories["cpu"], "cpu.stat")
    return Reading(
        replace(
            cpu,
            user_core_ns=ticks["user"] * _TICK_NS,
            system_core_ns=ticks["system"] * _TICK_NS,
            periods=quota["nr_periods"],
            throttled_periods=quota["nr_throttled"],
            throttled_ns=quota["throttled_time"],
        ),
        replace(
            memory,
            max_usage_bytes=_number(directories["memory"], "memory.max_usage_in_bytes"),
            failures=_number(directories["memory"], "memory.failcnt"),
            oom_kills=_pairs(directories["memory"], "memory.oom_control").get("oom_kill"),
        ),
        swap,
        tuple(_disk_io_v1(directories["blkio"])) if "blkio" in directories else (),
        _process_count(directories["memory"]),
        _number(directories["pids"], "pids.current") if "pids" in directories else None,
    )


def _read_v2(directories: Mapping[str, str], limit_bytes: int | None, brief: bool) -> Reading:
    directory, now_ns = directories["memory"], time.time_ns()
    times = _pairs(directory, "cpu.stat")
    cpu = CpuStats(
        now_ns,
        times["usage_usec"] * 1000,
        user_core_ns=times["user_usec"] * 1000,
        system_core_ns=times["system_usec"] * 1000,
        periods=times.get("nr_periods"),
        throttled_periods=times.get("nr_throttled"),
        throttled_ns=times["throttled_usec"] * 1000 if "throttled_usec" in times else None,
    )
    stat = _pairs(directory, "memory.stat")
    memory = memory_stats(now_ns, _number(directory, "memory.current"), limit_bytes, stat)
    used_swap = _optional_number(directory, "memory.swap.current")
    swap = None if used_swap is None else SwapStats(now_ns, used_swap)
    if brief:
        return Reading(cpu, memory, swap)
    events = _pairs(directory, "memory.events")
    memory = replace(
        memory,
        max_usage_bytes=_optional_number(directory, "memory.peak"),
        failures=events.get("max"),
        oom_kills=events.get("oom_kill"),
    )
    return Reading(
        cpu,
        memory,
        swap,
        tuple(_disk_io_v2(directory)),
        _process_count(directory),
        _optional_number(directory, "pids.current"),
    )


def memory_stats(
    time_ns: int, usage_bytes: int, limit_bytes: int | None, stat: Mapping[str, int]
) -> MemoryStats:
    """
    Memory out of a usage and a ``memory.stat``, of either version; the engine's answers have the same names.

    Raises:
        KeyError: the page cache that was not used lately is not in it.
    """
    names = _V1 if "total_inactive_file" in stat else _V2
    working_set_bytes = max(usage_bytes - stat[names.inactive_file], 0)
    return MemoryStats(
        time_ns,
        working_set_bytes,
        usage_bytes=usage_bytes,
        rss_bytes=stat.get(names.rss),
        available_bytes=None if limit_bytes is None else max(limit_bytes - working_set_bytes, 0),
        cache_bytes=stat.get(names.cache),
        mapped_file_bytes=stat.get(names.mapped_file),
        page_faults=stat.get(names.page_faults),
        major_page_faults=stat.get(names.major_page_faults),
    )


@dataclass(frozen=True, slots=True)
class _Names:
    inactive_file: str
    rss: str
    cache: str
    mapped_file: str
    page_faults: str
    major_page_faults: str


_V1 = _Names(
    "total_inactive_file",
    "total_rss",
    "total_cache",
    "total_mapped_file",
    "total_pgfault",
    "total_pgmajfault",
)
_V2 = _Names("inactive_file", "anon", "file", "file_mapped", "pgfault", "pgmajfault")


# --- block devices ----------------------------------------------------------------------------------------


def _disk_io_v1(directory: str) -> Iterator[DiskIo]:
    """From lines such as ``8:0 Read 4096``; another line sums all devices up."""
    read_bytes, written_bytes = _operations(directory, "io_service_bytes")
    reads, writes = _operations(directory, "io_serviced")
    for device in dict.fromkeys((*read_bytes, *written_bytes)):
        yield DiskIo(
            device_name(device),
            read_bytes.get(device, 0),
            written_bytes.get(device, 0),
            reads.get(device, 0),
            writes.get(device, 0),
        )


def _operations(directory: str, what: str) -> tuple[dict[str, int], dict[str, int]]:
    """Reads and writes by device."""
    read: dict[str, int] = {}
    written: dict[str, int] = {}
    try:
        text = _text(directory, f"blkio.throttle.{what}_recursive")
    except FileNotFoundError:  # kernels before 4.18
        text = _text(directory, f"blkio.throttle.{what}")
    for line in text.splitlines():
        match line.split():
            case [device, "Read", count]:
                read[device] = int(count)
            case [device, "Write", count]:
                written[device] = int(count)
    return read, written


def _disk_io_v2(directory: str) -> Iterator[DiskIo]:
    """From lines such as ``8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0``."""
    try:
        text = _text(directory, "io.stat")
    except FileNotFoundError:  # the controller is not switched on
        return
    for line in text.splitlines():
        device, *fields = line.split()
        counts = {name: int(value) for name, _, value in (each.partition("=") for each in fields) if value}
        yield DiskIo(
            device_name(device),
            counts.get("rbytes", 0),
            counts.get("wbytes", 0),
            counts.get("rios", 0),
            counts.get("wios", 0),
        )


@lru_cache(maxsize=1024)
def device_name(number: str) -> str:
    """``/dev/sda`` for ``8:0``; the numbers themselves where this machine has no such device."""
    try:
        return f"/dev/{Path(f'/sys/dev/block/{number}').readlink().name}"
    except OSError:
        return number


# --- files ------------------------------------------------------------------------------------------------


def _text(directory: str, name: str) -> str:
    """A file of the kernel's, whole: they are smaller than a page or two."""
    descriptor = os.open(f"{directory}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(descriptor, _MAX_BYTES)
    finally:
        os.close(descriptor)
    return data.decode("ascii", "replace")


def _number(directory: str, name: str) -> int:
    return int(_text(directory, name))


def _optional_number(directory: str, name: str) -> int | None:
    """None where the kernel does not keep it."""
    try:
        return _number(directory, name)
    except FileNotFoundError:
        return None


def _pairs(directory: str, name: str) -> dict[str, int]:
    """Lines of a name and a number."""
    words = _text(directory, name).split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=False))


def _process_count(directory: str) -> int:
    return _text(directory, "cgroup.procs").count("\n")
