"""What is learnt once of a running container, by one inspection: where its figures are, and its limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.docker import cgroups, labels, machine, status
from providers.docker.cgroups import Cgroup
from vkubelet.model.stats import ContainerStats, FsStats, NetworkStats

__all__ = ["Tracked", "learn", "log_usage", "network_usage"]

Json = Mapping[str, Any]

PROC = Path("/proc")

_DEFAULT_SHARES = 1024
_DEFAULT_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True)
class Tracked:
    """
    A running container.

    Attributes:
        cgroup: None where it cannot be seen from here: the engine must be asked.
        has_network: its counters of network interfaces are a pod's, not the host's.
        net_dev: where they are; set where the control group is.
        upper_dir: what it has written; None where the storage driver keeps that elsewhere.
        log_path: its newest log file.
        blank: its figures without any.
    """

    cgroup: Cgroup | None
    has_network: bool
    net_dev: Path | None
    upper_dir: Path | None
    log_path: Path | None
    blank: ContainerStats


def learn(
    inspected: Json, *, sees_machine: bool, proc: Path = PROC, cgroup_root: Path = cgroups.CGROUP_ROOT
) -> Tracked:
    """
    From ``GET /containers/{id}/json``.

    Args:
        inspected: the answer.
        sees_machine: the engine may be on this machine.
        proc: where ``/proc`` is mounted.
        cgroup_root: where control groups are.
    """
    state, host = inspected.get("State") or {}, inspected.get("HostConfig") or {}
    process = proc / str(state.get("Pid") or 0)
    cgroup = _cgroup(process, inspected["Id"], cgroup_root) if sees_machine else None
    has_network = host.get("NetworkMode") != "host"
    sees_files = cgroup is not None
    data = (inspected.get("GraphDriver") or {}).get("Data") or {}
    return Tracked(
        cgroup=cgroup,
        has_network=has_network,
        net_dev=process / "net" / "dev" if sees_files and has_network else None,
        upper_dir=Path(data["UpperDir"]) if sees_files and data.get("UpperDir") else None,
        log_path=Path(inspected["LogPath"]) if sees_files and inspected.get("LogPath") else None,
        blank=_blank(inspected, state, host, "" if cgroup is None else cgroup.name),
    )


def _cgroup(process: Path, container_id: str, root: Path) -> Cgroup | None:
    try:
        return cgroups.locate((process / "cgroup").read_text(), container_id, root)
    except (OSError, ValueError):  # its process is on another machine, or has just ended
        return None


def _blank(inspected: Json, state: Json, host: Json, cgroup: str) -> ContainerStats:
    config = inspected.get("Config") or {}
    kept = config.get("Labels") or {}
    started_at = status.parse_time(state.get("StartedAt"))
    quota = host.get("CpuQuota") or 0
    return ContainerStats(
        name=kept.get(labels.CONTAINER_NAME, ""),
        start_ns=0 if started_at is None else int(started_at.timestamp() * 1_000_000) * 1000,
        container_id=inspected["Id"],
        image=kept.get(labels.IMAGE) or str(config.get("Image") or ""),
        cgroup=cgroup or f"/docker/{inspected['Id']}",
        cpu_shares=host.get("CpuShares") or _DEFAULT_SHARES,
        cpu_quota_us=quota if quota > 0 else None,
        cpu_period_us=host.get("CpuPeriod") or _DEFAULT_PERIOD_US,
        memory_limit_bytes=host.get("Memory") or None,
    )


def network_usage(tracked: Tracked, time_ns: int) -> NetworkStats | None:
    """What went through its interfaces; raises `OSError` when its process has ended."""
    if tracked.net_dev is None:
        return None
    return NetworkStats(time_ns, tuple(machine.interfaces(tracked.net_dev.read_text())))


def log_usage(tracked: Tracked, time_ns: int) -> FsStats | None:
    """What its log files take, the rotated ones included."""
    if tracked.log_path is None:
        return None
    sizes = list(_log_sizes(tracked.log_path))
    return FsStats(time_ns, used_bytes=sum(sizes), inodes_used=len(sizes))


def _log_sizes(newest: Path) -> Iterator[int]:
    for file in newest.parent.glob(f"{newest.name}*"):
        try:
            yield file.stat().st_size
        except FileNotFoundError:
            continue  # just rotated away
