"""
The kubelet's Summary API: `StatsSummary` as the JSON of `k8s.io/kubelet/pkg/apis/stats/v1alpha1`.

Only the form is decided here. A figure that is not known is left out, as Go's ``omitempty`` has it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Hashable, Iterable
from typing import Any

from vkubelet.model.keys import PodKey
from vkubelet.model.stats import (
    ContainerStats,
    CpuStats,
    FsStats,
    InterfaceStats,
    MemoryStats,
    NetworkStats,
    NodeStats,
    PodStats,
    StatsSummary,
    SwapStats,
)
from vkubelet.server.usage_rates import UsageRates

__all__ = ["summary_json"]

Json = dict[str, Any]

_NODE = "node"


def summary_json(
    summary: StatsSummary, node_name: str, rates: UsageRates, *, only_cpu_and_memory: bool = False
) -> Json:
    """
    The `Summary` object.

    Args:
        summary: the reading.
        node_name: the node's.
        rates: those of earlier readings, moved on by this one.
        only_cpu_and_memory: leave out the rest.
    """
    rates.begin()
    form = _Form(rates, only_cpu_and_memory)
    shown = {"node": form.node(summary.node, node_name), "pods": [form.pod(pod) for pod in summary.pods]}
    rates.end()
    return shown


@functools.lru_cache(maxsize=4096)
def _rfc3339_s(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _time(time_ns: int) -> str:
    """`metav1.Time`: thousands of figures have the time of a few seconds."""
    return _rfc3339_s(time_ns // 1_000_000_000)


class _Form:
    def __init__(self, rates: UsageRates, only_cpu_and_memory: bool) -> None:
        self._rates = rates
        self._brief = only_cpu_and_memory

    def node(self, node: NodeStats, node_name: str) -> Json:
        shown: Json = {"nodeName": node_name}
        if node.system_containers:
            containers = (self._container(_NODE, each) for each in node.system_containers)
            shown["systemContainers"] = list(containers)
        shown["startTime"] = _time(node.start_ns)
        self._usage(shown, _NODE, node.cpu, node.memory, node.swap)
        if self._brief:
            return shown
        if node.network is not None:
            shown["network"] = _network(node.network)
        if node.fs is not None:
            shown["fs"] = _fs(node.fs)
        if node.image_fs is not None:
            image_fs = _fs(node.image_fs)
            shown["runtime"] = {"imageFs": image_fs, "containerFs": image_fs}
        if (limits := node.process_limits) is not None:
            at = _time(limits.time_ns)
            shown["rlimit"] = {"time": at, "maxpid": limits.max_pids, "curproc": limits.running}
        return shown

    def pod(self, pod: PodStats) -> Json:
        key = pod.key
        shown: Json = {
            "podRef": {"name": key.name, "namespace": key.namespace, "uid": key.uid},
            "startTime": _time(pod.start_ns),
            "containers": [self._container(key, each) for each in pod.containers],
        }
        self._usage(shown, key, pod.cpu, pod.memory, pod.swap)
        if self._brief:
            return shown
        if pod.network is not None:
            shown["network"] = _network(pod.network)
        if pod.volumes:
            shown["volume"] = [{**_fs(usage), "name": name} for name, usage in pod.volumes]
        if pod.ephemeral_storage is not None:
            shown["ephemeral-storage"] = _fs(pod.ephemeral_storage)
        if pod.process_count is not None:
            shown["process_stats"] = {"process_count": pod.process_count}
        return shown

    def _container(self, owner: PodKey | str, container: ContainerStats) -> Json:
        shown: Json = {"name": container.name, "startTime": _time(container.start_ns)}
        counter = (owner, container.name, container.container_id)
        self._usage(shown, counter, container.cpu, container.memory, container.swap)
        if not self._brief:
            if container.rootfs is not None:
                shown["rootfs"] = _fs(container.rootfs)
            if container.logs is not None:
                shown["logs"] = _fs(container.logs)
        return shown

    def _usage(
        self,
        shown: Json,
        counter: Hashable,
        cpu: CpuStats | None,
        memory: MemoryStats | None,
        swap: SwapStats | None,
    ) -> None:
        if cpu is not None:
            shown["cpu"] = {"time": _time(cpu.time_ns)}
            if (rate := self._rates.rate(counter, cpu)) is not None:
                shown["cpu"]["usageNanoCores"] = rate
            shown["cpu"]["usageCoreNanoSeconds"] = cpu.usage_core_ns
        if memory is not None:
            shown["memory"] = _memory(memory)
        if swap is not None:
            shown["swap"] = _known(
                swap.time_ns,
                (("swapAvailableBytes", swap.available_bytes), ("swapUsageBytes", swap.usage_bytes)),
            )


def _known(time_ns: int, figures: Iterable[tuple[str, int | None]]) -> Json:
    shown: Json = {"time": _time(time_ns)}
    for name, value in figures:
        if value is not None:
            shown[name] = value
    return shown


def _memory(memory: MemoryStats) -> Json:
    return _known(
        memory.time_ns,
        (
            ("availableBytes", memory.available_bytes),
            ("usageBytes", memory.usage_bytes),
            ("workingSetBytes", memory.working_set_bytes),
            ("rssBytes", memory.rss_bytes),
            ("pageFaults", memory.page_faults),
            ("majorPageFaults", memory.major_page_faults),
        ),
    )


def _fs(fs: FsStats) -> Json:
    return _known(
        fs.time_ns,
        (
            ("availableBytes", fs.available_bytes),
            ("capacityBytes", fs.capacity_bytes),
            ("usedBytes", fs.used_bytes),
            ("inodesFree", fs.inodes_free),
            ("inodes", fs.inodes),
            ("inodesUsed", fs.inodes_used),
        ),
    )


def _network(network: NetworkStats) -> Json:
    shown: Json = {"time": _time(network.time_ns), "name": ""}
    if (default := network.default) is not None:
        shown.update(_interface(default))
    shown["interfaces"] = [_interface(each) for each in network.interfaces]
    return shown


def _interface(each: InterfaceStats) -> Json:
    return {
        "name": each.name,
        "rxBytes": each.rx_bytes,
        "rxErrors": each.rx_errors,
        "txBytes": each.tx_bytes,
        "txErrors": each.tx_errors,
    }
