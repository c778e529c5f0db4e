"""
``/metrics/resource``: what metrics-server, and through it `kubectl top` and autoscalers, read.

Names, types, help texts, labels and timestamps are those of kubelet 1.36 (`pkg/kubelet/metrics/collectors`).
There a scrape that fails as a whole is one sample, and so it is here: the node and its pods are missing, and
``resource_scrape_error`` is 1. ``scrape_error``, which it replaced in 1.29, is given too: alerts ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from vkubelet.model.stats import CpuStats, MemoryStats, StatsSummary, SwapStats
from vkubelet.server.exposition import escaped, family

__all__ = ["resource_metrics"]


def resource_metrics(summary: StatsSummary | None) -> str:
    """The text; `summary` is None when nothing could be read."""
    failed = f" {0 if summary is not None else 1}"
    result = "1 if there was an error while getting container metrics, 0 otherwise"
    return "".join(
        (
            *(_figures(summary) if summary is not None else ()),
            family("resource_scrape_error", "gauge", f"[STABLE] {result}", (failed,)),
            family("scrape_error", "gauge", f"[ALPHA] (Deprecated since 1.29.0) {result}", (failed,)),
        )
    )


def _figures(summary: StatsSummary) -> Iterator[str]:
    """Every family in the order of their names, as Go's registry has them."""
    containers, pods, node = _Samples(), _Samples(), _Samples()
    for pod in summary.pods:
        of_pod = f'namespace="{escaped(pod.key.namespace)}",pod="{escaped(pod.key.name)}"}}'
        for each in pod.containers:
            labels = f'{{container="{escaped(each.name)}",{of_pod}'
            if each.start_ns > 0:
                containers.start.append(f"{labels} {each.start_ns / 1e9!r}")
            containers.add(labels, each.cpu, each.memory, each.swap)
        pods.add("{" + of_pod, pod.cpu, pod.memory, pod.swap)
    node.add("", summary.node.cpu, summary.node.memory, summary.node.swap)
    yield from containers.families("container")
    yield from node.families("node")
    yield from pods.families("pod")


class _Samples:
    """What stands behind the names of the metrics of one kind of thing."""

    def __init__(self) -> None:
        self.start: list[str] = []
        self.cpu: list[str] = []
        self.memory: list[str] = []
        self.swap: list[str] = []
        self.swap_limit: list[str] = []

    def add(
        self, labels: str, cpu: CpuStats | None, memory: MemoryStats | None, swap: SwapStats | None
    ) -> None:
        if cpu is not None:
            self.cpu.append(f"{labels} {cpu.usage_core_ns / 1e9!r} {cpu.time_ns // 1_000_000}")
        if memory is not None:
            self.memory.append(f"{labels} {memory.working_set_bytes} {memory.time_ns // 1_000_000}")
        if swap is not None:
            at_ms = swap.time_ns // 1_000_000
            self.swap.append(f"{labels} {swap.usage_bytes} {at_ms}")
            if swap.available_bytes is not None:
                self.swap_limit.append(f"{labels} {swap.available_bytes + swap.usage_bytes} {at_ms}")

    def families(self, kind: Literal["container", "node", "pod"]) -> Iterator[str]:
        of_swap = "Current swap usage of the" if kind == "node" else "Current amount of the"
        swap_name = kind if kind == "node" else f"{kind} swap usage"
        yield family(
            f"{kind}_cpu_usage_seconds_total",
            "counter",
            f"[STABLE] Cumulative cpu time consumed by the {kind} in core-seconds",
            self.cpu,
        )
        yield family(
            f"{kind}_memory_working_set_bytes",
            "gauge",
            f"[STABLE] Current working set of the {kind} in bytes",
            self.memory,
        )
        if kind == "container":
            yield family(
                "container_start_time_seconds",
                "gauge",
                "[STABLE] Start time of the container since unix epoch in seconds",
                self.start,
            )
            yield family(
                "container_swap_limit_bytes",
                "gauge",
                "[ALPHA] Current amount of the container swap limit in bytes. "
                "Reported only on non-windows systems",
                self.swap_limit,
            )
        yield family(
            f"{kind}_swap_usage_bytes",
            "gauge",
            f"[ALPHA] {of_swap} {swap_name} in bytes. Reported only on non-windows systems",
            self.swap,
        )
