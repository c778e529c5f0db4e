"""
The engine's machine as a node.

Facts come from ``GET /info``; free disk and memory from this machine, where the engine runs on it. Reasons
and thresholds of the conditions are the kubelet's (`pkg/kubelet/nodestatus`, `evictionHard`: memory
available below 100 MiB, node file system below 10 %).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from providers.docker.settings import DockerSettings
from vkubelet.model.observations import NodeCondition, NodeObservation

__all__ = ["HostFacts", "describe", "host_facts", "unreachable"]

_DEFAULT_MAX_PODS = 110
_ARCHITECTURES = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "armv6l": "arm",
    "i386": "386",
    "i686": "386",
}
_MIN_FREE_DISK = 0.10
_MIN_FREE_MEMORY_BYTES = 100 << 20
_NOTHING: Mapping[str, str] = {"cpu": "0", "memory": "0", "pods": "0"}


@dataclass(frozen=True, slots=True)
class HostFacts:
    """
    What only the engine's own machine can tell; all unknown where that is another one.

    Attributes:
        ids: machineID, systemUUID and bootID, as far as they can be read.
    """

    disk_total_bytes: int | None = None
    disk_free_bytes: int | None = None
    memory_available_bytes: int | None = None
    ids: Mapping[str, str] | None = None


def host_facts(root_dir: str) -> HostFacts:
    """
    This machine's facts; small reads that do not wait.

    Args:
        root_dir: the engine's `DockerRootDir`.
    """
    try:
        disk = os.statvfs(root_dir)
    except OSError:
        return HostFacts()  # the socket leads to an engine in a virtual machine
    ids = {
        "machineID": _read("/etc/machine-id"),
        "systemUUID": _read("/sys/class/dmi/id/product_uuid"),
        "bootID": _read("/proc/sys/kernel/random/boot_id"),
    }
    return HostFacts(
        disk_total_bytes=disk.f_blocks * disk.f_frsize,
        disk_free_bytes=disk.f_bavail * disk.f_frsize,
        memory_available_bytes=_memory_available_bytes(),
        ids={name: value for name, value in ids.items() if value},
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _memory_available_bytes() -> int | None:
    for line in _read("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def describe(
    info: Mapping[str, Any], host: HostFacts, settings: DockerSettings, max_pods: int | None, problem: str
) -> NodeObservation:
    """
    The node.

    Args:
        info: the answer of ``GET /info``.
        host: of the engine's machine.
        settings: what is reserved.
        max_pods: the operator's limit, None for the kubelet's 110.
        problem: what keeps pods from being started, "" for nothing.
    """
    capacity = {
        "cpu": str(info.get("NCPU") or 0),
        "memory": f"{(info.get('MemTotal') or 0) // 1024}Ki",
        "pods": str(_DEFAULT_MAX_PODS if max_pods is None else max_pods),
    }
    cpu_millicores = max((info.get("NCPU") or 0) * 1000 - settings.system_reserved_cpu_millicores, 0)
    memory_kib = max((info.get("MemTotal") or 0) // 1024 - settings.system_reserved_memory_mib * 1024, 0)
    allocatable = {**capacity, "cpu": f"{cpu_millicores}m", "memory": f"{memory_kib}Ki"}
    if cpu_millicores % 1000 == 0:
        allocatable["cpu"] = str(cpu_millicores // 1000)
    if host.disk_total_bytes is not None:
        capacity["ephemeral-storage"] = f"{host.disk_total_bytes // 1024}Ki"
        allocatable["ephemeral-storage"] = str(int(host.disk_total_bytes * (1 - _MIN_FREE_DISK)))
    return NodeObservation(
        capacity=capacity,
        allocatable=allocatable,
        conditions=(_ready(problem), *_pressures(host)),
        node_info={**_node_info(info), **(host.ids or {})},
    )


def unreachable(last: NodeObservation | None, error: str) -> NodeObservation:
    """The node while the engine does not answer: as it was, but not ready."""
    conditions = (_ready(f"container runtime is down: {error}"), *_pressures(HostFacts()))
    if last is None:
        return NodeObservation(_NOTHING, _NOTHING, conditions, node_info={})
    return replace(last, conditions=conditions)


def _node_info(info: Mapping[str, Any]) -> dict[str, str]:
    architecture = str(info.get("Architecture") or "")
    facts = {
        "operatingSystem": str(info.get("OSType") or "linux"),
        "architecture": _ARCHITECTURES.get(architecture, architecture),
        "kernelVersion": str(info.get("KernelVersion") or ""),
        "osImage": str(info.get("OperatingSystem") or ""),
        "containerRuntimeVersion": f"docker://{info.get('ServerVersion') or 'unknown'}",
    }
    return {name: value for name, value in facts.items() if value}


def _ready(problem: str) -> NodeCondition:
    if problem:
        return NodeCondition("Ready", "False", "KubeletNotReady", problem)
    return NodeCondition("Ready", "True", "KubeletReady", "kubelet is posting ready status")


def _pressures(host: HostFacts) -> tuple[NodeCondition, ...]:
    available = host.memory_available_bytes
    memory = available is not None and available < _MIN_FREE_MEMORY_BYTES
    total, free = host.disk_total_bytes, host.disk_free_bytes
    disk = bool(total) and free is not None and free < _MIN_FREE_DISK * (total or 0)
    return (
        _pressure("MemoryPressure", memory, "InsufficientMemory", "SufficientMemory", "memory available"),
        _pressure("DiskPressure", disk, "DiskPressure", "NoDiskPressure", "disk"),
        _pressure("PIDPressure", False, "InsufficientPID", "SufficientPID", "PID available"),
    )


def _pressure(kind: str, pressed: bool, bad: str, good: str, what: str) -> NodeCondition:
    if kind == "DiskPressure":
        message = "kubelet has disk pressure" if pressed else "kubelet has no disk pressure"
    else:
        message = f"kubelet has {'insufficient' if pressed else 'sufficient'} {what}"
    return NodeCondition(kind, str(pressed), f"KubeletHas{bad if pressed else good}", message)
