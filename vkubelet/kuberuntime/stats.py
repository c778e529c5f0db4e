"""
From what a runtime reads of its containers to the figures of whole pods and of the node.

A pod is the sum of its containers and its sandbox. (The kubelet reads the pod's cgroup; a container engine
has none.) A sum of counters would fall when a container is replaced, and every rate that is made of it would
be wrong: what ended attempts had used by their last reading stays in the pod's sum.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vkubelet.clock import Clock
from vkubelet.kuberuntime.disk_usage import DiskUsage, file_system
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Pod
from vkubelet.model.stats import (
    ContainerStats,
    CpuStats,
    FsStats,
    MemoryStats,
    NodeStats,
    PodStats,
    StatsSummary,
    SwapStats,
    total_cpu,
    total_memory,
)

__all__ = ["PodFigures"]

_MEASURED_VOLUMES = {"emptyDir": "kubernetes.io~empty-dir"}
"""Those that a pod fills; the files of the other kinds are ours, and small."""


@dataclass(slots=True)
class _Ledger:
    """A pod's CPU time: what attempts that are gone had used, and the last reading of those that are not."""

    ended_core_ns: int = 0
    last: dict[str, int] = field(default_factory=dict)

    @property
    def used_core_ns(self) -> int:
        """All of it."""
        return self.ended_core_ns + sum(self.last.values())

    def total(self, cpu: CpuStats, parts: Iterable[ContainerStats]) -> CpuStats:
        """The pod's counter after a reading; the parts' own counters are only ever left out with them."""
        present = {part.container_id: part for part in parts}
        for container_id in tuple(self.last):
            if container_id not in present:
                self.ended_core_ns += self.last.pop(container_id)
        unread = 0
        for container_id, part in present.items():
            if part.cpu is not None:
                self.last[container_id] = part.cpu.usage_core_ns
            else:
                unread += self.last.get(container_id, 0)
        gone = self.ended_core_ns + unread
        return dataclasses.replace(cpu, usage_core_ns=cpu.usage_core_ns + gone) if gone else cpu


class PodFigures:
    """
    Makes the summary.

    Args:
        pods_dir: where pods' volumes are.
        uses_paths: False where there are no volumes on this machine.
    """

    def __init__(self, pods_dir: Path, clock: Clock, *, uses_paths: bool) -> None:
        self._pods_dir = pods_dir
        self._clock = clock
        self._uses_paths = uses_paths
        self._disk = DiskUsage(clock)
        self._ledgers: dict[PodKey, _Ledger] = {}
        self._removed_core_ns = 0

    async def idle(self) -> None:
        """Return when nothing goes on in the background."""
        await self._disk.idle()

    async def close(self) -> None:
        """End what goes on in the background."""
        await self._disk.close()

    def summary(
        self,
        read: Sequence[PodStats],
        node: NodeStats | None,
        pods: Mapping[PodKey, Pod],
        *,
        only_cpu_and_memory: bool,
    ) -> StatsSummary:
        """
        The summary of one reading.

        Args:
            read: the runtime's pods.
            node: the runtime's machine; what is not known of it is the sum of its pods.
            pods: what is known of them here, for their volumes.
            only_cpu_and_memory: leave out the rest.
        """
        self._open_ledgers(pod.key for pod in read)
        summed = [self._with_sums(pod) for pod in read]
        if not only_cpu_and_memory and self._uses_paths:
            summed = list(self._with_volumes(summed, pods))
        return StatsSummary(self._node(node, summed), tuple(summed))

    def _open_ledgers(self, keys: Iterable[PodKey]) -> None:
        """One for each pod that is read; what the others had used stays in the node's sum."""
        before, self._ledgers = self._ledgers, {}
        for key in keys:
            self._ledgers[key] = before.pop(key) if key in before else _Ledger()
        self._removed_core_ns += sum(ledger.used_core_ns for ledger in before.values())

    def _with_sums(self, pod: PodStats) -> PodStats:
        parts = pod.containers if pod.sandbox is None else (*pod.containers, pod.sandbox)
        cpu = total_cpu(part.cpu for part in parts)
        if cpu is not None:
            cpu = self._ledgers[pod.key].total(cpu, parts)
        counts = [part.process_count for part in parts if part.process_count is not None]
        return PodStats(
            key=pod.key,
            start_ns=pod.start_ns,
            containers=pod.containers,
            sandbox=pod.sandbox,
            cpu=cpu,
            memory=total_memory(part.memory for part in parts),
            swap=_total_swap(part.swap for part in parts),
            network=pod.network,
            process_count=sum(counts) if counts else None,
        )

    def _node(self, node: NodeStats | None, pods: Sequence[PodStats]) -> NodeStats:
        cpu, memory = total_cpu(pod.cpu for pod in pods), total_memory(pod.memory for pod in pods)
        if node is None:
            node = NodeStats(start_ns=min((pod.start_ns for pod in pods), default=0))
        all_pods = ContainerStats("pods", node.start_ns, cpu=cpu, memory=memory)
        if node.cpu is None and cpu is not None:
            used = sum(ledger.used_core_ns for ledger in self._ledgers.values())
            node = dataclasses.replace(node, cpu=CpuStats(cpu.time_ns, used + self._removed_core_ns))
        if node.memory is None and memory is not None:
            node = dataclasses.replace(node, memory=_of_machine(memory, node.memory_bytes))
        return dataclasses.replace(node, system_containers=(*node.system_containers, all_pods))

    # --- storage --------------------------------------------------------------------------------------

    def _with_volumes(self, read: Sequence[PodStats], pods: Mapping[PodKey, Pod]) -> Iterator[PodStats]:
        directories = {pod.key: self._volume_directories(pods.get(pod.key)) for pod in read}
        known = self._disk.of(path for by_name in directories.values() for path in by_name.values())
        disk = file_system(self._pods_dir, self._now_ns())
        for pod in read:
            volumes = tuple(
                (name, _on(known[path], disk)) for name, path in directories[pod.key].items() if path in known
            )
            yield dataclasses.replace(
                pod, volumes=volumes, ephemeral_storage=_ephemeral_storage(pod, volumes, disk)
            )

    def _volume_directories(self, pod: Pod | None) -> dict[str, Path]:
        if pod is None:
            return {}
        return {
            volume.name: self._pods_dir
            / pod.uid
            / "volumes"
            / _MEASURED_VOLUMES[volume.source_type]
            / volume.name
            for volume in pod.volumes
            if volume.source_type in _MEASURED_VOLUMES
        }

    def _now_ns(self) -> int:
        return int(self._clock.now().timestamp() * 1e9)


def _of_machine(memory: MemoryStats, memory_bytes: int | None) -> MemoryStats:
    """The same with what is left of the machine's memory."""
    if memory_bytes is None:
        return memory
    return dataclasses.replace(memory, available_bytes=max(memory_bytes - memory.working_set_bytes, 0))


def _on(usage: FsStats, disk: FsStats | None) -> FsStats:
    """What a directory takes, with the file system that it is on."""
    if disk is None:
        return usage
    return dataclasses.replace(
        disk, time_ns=usage.time_ns, used_bytes=usage.used_bytes, inodes_used=usage.inodes_used
    )


def _ephemeral_storage(
    pod: PodStats, volumes: Sequence[tuple[str, FsStats]], disk: FsStats | None
) -> FsStats | None:
    """Writable layers, logs and emptyDir volumes together; None when nothing of it is known."""
    parts = [
        part
        for part in (
            *(container.rootfs for container in pod.containers),
            *(container.logs for container in pod.containers),
            *(usage for _, usage in volumes),
        )
        if part is not None and part.used_bytes is not None
    ]
    if not parts:
        return None
    used = FsStats(
        max(part.time_ns for part in parts),
        used_bytes=sum(part.used_bytes or 0 for part in parts),
        inodes_used=sum(part.inodes_used or 0 for part in parts),
    )
    return _on(used, disk)


def _total_swap(parts: Iterable[SwapStats | None]) -> SwapStats | None:
    known = [part for part in parts if part is not None]
    if not known:
        return None
    return SwapStats(max(part.time_ns for part in known), sum(part.usage_bytes for part in known))
