"""
Requests and limits: the QoS class of a pod, and what a container's share of CPU and memory comes to.

`ContainerLimits` are numbers as the Linux kernel and CRI take them. Whether a platform can apply them is the
platform's matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from vkubelet.model import quantity
from vkubelet.model.pod import Container, Json, Pod

__all__ = [
    "ContainerLimits",
    "QosClass",
    "container_limits",
    "cpu_quota_us",
    "cpu_shares",
    "oom_score_adj",
    "qos_class",
]


class QosClass(StrEnum):
    """`status.qosClass`."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


@dataclass(frozen=True, slots=True)
class ContainerLimits:
    """
    CRI's LinuxContainerResources for one container; None means no limit.

    Attributes:
        cpu_shares: relative weight, 1024 for one core.
        cpu_quota_us: CPU time per `cpu_period_us`, in microseconds.
        oom_score_adj: -1000 to 1000.
    """

    cpu_shares: int
    cpu_quota_us: int | None
    cpu_period_us: int | None
    memory_limit_bytes: int | None
    oom_score_adj: int


_COMPUTE = ("cpu", "memory")
_PERIOD_US = 100_000
_MIN_QUOTA_US = 1_000
_MIN_SHARES, _MAX_SHARES = 2, 262_144

_OOM_GUARANTEED, _OOM_BEST_EFFORT = -997, 1000
_NODE_CRITICAL = "system-node-critical"


def qos_class(pod: Pod) -> QosClass:
    """
    The QoS class of the pod's spec (Kubernetes docs, "Pod Quality of Service Classes").

    Guaranteed: each container (or, where `spec.resources` is set, the pod) limits CPU and memory, and
    requests what it limits. BestEffort: nothing is requested or limited.
    """
    pod_level: Json | None = pod.spec.get("resources")
    containers = (*pod.containers, *pod.init_containers)
    resources = [pod_level] if pod_level else [c.resources for c in containers]
    requests = _totals(r.get("requests") for r in resources)
    limits = _totals(r.get("limits") for r in resources)
    if not requests and not limits:
        return QosClass.BEST_EFFORT
    all_limited = all(len(_totals([r.get("limits")])) == len(_COMPUTE) for r in resources)
    return QosClass.GUARANTEED if all_limited and requests == limits else QosClass.BURSTABLE


def _totals(lists: Iterable[Json | None]) -> dict[str, Fraction]:
    """CPU and memory summed up; zero counts as not there."""
    totals: dict[str, Fraction] = {}
    for amounts in lists:
        for name in _COMPUTE:
            if amounts and name in amounts and (value := quantity.parse(amounts[name])) > 0:
                totals[name] = totals.get(name, Fraction(0)) + value
    return totals


def container_limits(pod: Pod, container: Container, *, memory_capacity_bytes: int) -> ContainerLimits:
    """
    What the container gets.

    Args:
        pod: it belongs to this pod.
        container: one of its containers.
        memory_capacity_bytes: the node's, for the OOM score of Burstable pods.
    """
    requests = container.resources.get("requests") or {}
    limits = container.resources.get("limits") or {}
    cpu_request: str | None = requests.get("cpu", limits.get("cpu"))
    cpu_limit = quantity.millicores(limits.get("cpu", "0"))
    return ContainerLimits(
        cpu_shares=cpu_shares(quantity.millicores(cpu_request or "0")),
        cpu_quota_us=cpu_quota_us(cpu_limit) if cpu_limit else None,
        cpu_period_us=_PERIOD_US if cpu_limit else None,
        memory_limit_bytes=quantity.bytes_(limits.get("memory", "0")) or None,
        oom_score_adj=oom_score_adj(pod, container, memory_capacity_bytes=memory_capacity_bytes),
    )


def cpu_shares(cpu_millicores: int) -> int:
    """The weight for a CPU request: 1024 for a core, at least 2 (kubelet: MilliCPUToShares)."""
    return min(max(cpu_millicores * 1024 // 1000, _MIN_SHARES), _MAX_SHARES)


def cpu_quota_us(cpu_millicores: int) -> int:
    """CPU time in each period of 100 ms for a CPU limit, at least 1 ms (kubelet: MilliCPUToQuota)."""
    return max(cpu_millicores * _PERIOD_US // 1000, _MIN_QUOTA_US)


def oom_score_adj(pod: Pod, container: Container, *, memory_capacity_bytes: int) -> int:
    """
    Who is killed first when the node runs out of memory (kubelet: GetContainerOOMScoreAdjust).

    Best-effort pods first, Guaranteed and node-critical ones last; Burstable ones by the part of the node's
    memory that they have not requested. A sidecar is no likelier to be killed than the least of the app
    containers it serves.
    """
    if pod.spec.get("priorityClassName") == _NODE_CRITICAL:
        return _OOM_GUARANTEED
    match QosClass(pod.status.get("qosClass") or qos_class(pod)):
        case QosClass.GUARANTEED:
            return _OOM_GUARANTEED
        case QosClass.BEST_EFFORT:
            return _OOM_BEST_EFFORT
        case QosClass.BURSTABLE:
            return _burstable_oom_score(pod, container, max(memory_capacity_bytes, 1))


def _burstable_oom_score(pod: Pod, container: Container, capacity_bytes: int) -> int:
    requested = _memory_request(container)
    if container.is_sidecar:
        requested = max(requested, min(_memory_request(c) for c in pod.containers))
    score = 1000 - 1000 * requested // capacity_bytes
    return min(max(score, 1000 + _OOM_GUARANTEED), _OOM_BEST_EFFORT - 1)


def _memory_request(container: Container) -> int:
    return quantity.bytes_((container.resources.get("requests") or {}).get("memory", "0"))
