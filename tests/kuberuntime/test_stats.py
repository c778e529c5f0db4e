"""Figures of pods and of the node, over the memory runtime and over readings that a test makes up."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from tests.builders import make_pod
from tests.clocks import ManualClock, settle
from tests.kuberuntime.engine import Engine
from vkubelet.kuberuntime.disk_usage import DiskUsage, measure
from vkubelet.kuberuntime.stats import PodFigures
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
)
from vkubelet.provider import StatsSource

KEY = PodKey("default", "web", "uid-1")
OTHER = PodKey("default", "db", "uid-2")
NODE = NodeStats(start_ns=1)


def reading(container_id: str, used: int | None, memory: int = 10) -> ContainerStats:
    cpu = None if used is None else CpuStats(100, used)
    return ContainerStats("main", 1, container_id, cpu=cpu, memory=MemoryStats(100, memory))


def pod(*containers: ContainerStats, key: PodKey = KEY) -> PodStats:
    return PodStats(key, 1, containers, sandbox=dataclasses.replace(reading("pause", 1, 1), name="POD"))


def figures(tmp_path: Path) -> PodFigures:
    return PodFigures(tmp_path, ManualClock(), uses_paths=False)


def summed(made: PodFigures, *pods: PodStats, node: NodeStats | None = NODE) -> StatsSummary:
    return made.summary(pods, node, {}, only_cpu_and_memory=False)


def cpu_of(summary: StatsSummary, number: int = 0) -> int:
    cpu = summary.pods[number].cpu
    assert cpu is not None
    return cpu.usage_core_ns


# --- whole pods -------------------------------------------------------------------------------------------


def test_a_pod_is_the_sum_of_its_containers_and_its_sandbox(tmp_path: Path) -> None:
    found = summed(figures(tmp_path), pod(reading("a", 100, 20), reading("b", 50, 30))).pods[0]

    assert found.cpu == CpuStats(100, 151)
    assert found.memory == MemoryStats(100, working_set_bytes=51)


def test_the_counter_of_a_pod_goes_on_when_a_container_is_replaced(tmp_path: Path) -> None:
    made = figures(tmp_path)

    used = [cpu_of(summed(made, pod(reading(*each)))) for each in (("a", 100), ("b", 5), ("b", 8), ("c", 0))]

    assert used == [101, 106, 109, 109]


def test_a_container_that_cannot_be_read_costs_its_own_figures_alone(tmp_path: Path) -> None:
    made = figures(tmp_path)
    summed(made, pod(reading("a", 100), reading("b", 40)))

    found = summed(made, pod(reading("a", 110), dataclasses.replace(reading("b", None), memory=None)))

    assert cpu_of(found) == 151  # what it had used is not taken back
    assert cpu_of(summed(made, pod(reading("a", 110), reading("b", 60)))) == 171


def test_a_pod_that_nothing_is_known_of_has_no_figures(tmp_path: Path) -> None:
    found = summed(figures(tmp_path), PodStats(KEY, 1)).pods[0]

    assert (found.cpu, found.memory, found.process_count) == (None, None, None)


# --- the node ---------------------------------------------------------------------------------------------


def test_a_machine_that_cannot_be_seen_is_the_sum_of_its_pods(tmp_path: Path) -> None:
    made = figures(tmp_path)
    both = (pod(reading("a", 100, 20)), pod(reading("b", 50, 30), key=OTHER))

    node = summed(made, *both, node=None).node

    assert node.cpu == CpuStats(100, 152)
    assert node.memory is not None
    assert node.memory.working_set_bytes == 52


def test_the_counter_of_the_node_goes_on_when_a_pod_is_removed(tmp_path: Path) -> None:
    made = figures(tmp_path)
    both = (pod(reading("a", 100)), pod(reading("b", 50), key=OTHER))
    before = summed(made, *both).node.cpu

    after = summed(made, pod(reading("a", 103))).node.cpu

    assert before is not None
    assert after is not None
    assert after.usage_core_ns == before.usage_core_ns + 3


def test_what_is_known_of_the_machine_is_kept_and_all_pods_are_a_system_container(tmp_path: Path) -> None:
    machine = NodeStats(start_ns=7, cpu=CpuStats(100, 999), memory=MemoryStats(100, 888))

    node = summed(figures(tmp_path), pod(reading("a", 100, 20)), node=machine).node

    assert (node.start_ns, node.cpu, node.memory) == (7, machine.cpu, machine.memory)
    assert [(each.name, each.cpu) for each in node.system_containers] == [("pods", CpuStats(100, 101))]


# --- the memory provider ----------------------------------------------------------------------------------


async def test_the_memory_runtime_uses_what_its_annotations_say(engine: Engine) -> None:
    annotations = {"memory.vkubelet.io/cpu": "250m", "memory.vkubelet.io/memory": "64Mi"}
    created = await engine.create(make_pod(metadata={"annotations": annotations}))
    await engine.clock.advance(10)

    found = (await engine.provider.stats_summary()).pods[0]

    assert found.key == created.key
    assert found.cpu is not None
    assert found.cpu.usage_core_ns == 2_500_000_000
    assert found.memory is not None
    assert found.memory.working_set_bytes == 64 << 20
    assert found.network == NetworkStats(found.cpu.time_ns, (InterfaceStats("eth0", 10_000, 5_000),))


async def test_the_memory_node_uses_what_its_pods_use(engine: Engine) -> None:
    for name in ("a", "b"):
        await engine.create(make_pod(name))
    await engine.clock.advance(10)

    node = (await engine.provider.stats_summary()).node

    assert isinstance(engine.provider, StatsSource)
    assert node.cpu is not None
    assert node.cpu.usage_core_ns == 2 * 10_000_000
    assert node.memory is not None
    assert node.memory.available_bytes == (100 << 30) - (2 << 20)
    assert node.cores == 20


async def test_only_running_containers_of_ready_pods_have_figures(engine: Engine) -> None:
    ended = await engine.create(make_pod("ended", restartPolicy="Never"))
    engine.runtime.end_container(ended.key, "main")
    await settle()

    found = await engine.provider.stats_summary(only_cpu_and_memory=True)

    assert [container for each in found.pods for container in each.containers] == []


# --- directories ------------------------------------------------------------------------------------------


def test_a_tree_takes_what_its_files_take_and_hard_links_count_once(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    data = tmp_path / "deep" / "er" / "data"
    data.write_bytes(b"x" * 100_000)
    before = measure(tmp_path, 5)

    os.link(data, tmp_path / "again")
    after = measure(tmp_path, 5)

    assert before.used_bytes is not None
    assert after.used_bytes is not None
    assert 100_000 <= before.used_bytes < 130_000
    assert after.inodes_used == before.inodes_used == 4
    assert after.time_ns == 5


async def test_directories_are_measured_in_the_background_and_no_more_than_once_a_minute(
    tmp_path: Path,
) -> None:
    clock = ManualClock()
    usage = DiskUsage(clock)
    assert usage.of([tmp_path]) == {}
    await usage.idle()
    first = usage.of([tmp_path])[tmp_path]

    (tmp_path / "more").write_bytes(b"x" * 100_000)
    await clock.advance(59)
    assert usage.of([tmp_path])[tmp_path] == first
    await clock.advance(1)
    usage.of([tmp_path])
    await usage.idle()

    assert (usage.of([tmp_path])[tmp_path].used_bytes or 0) >= 100_000
    await usage.close()


async def test_a_directory_that_is_gone_is_left_out(tmp_path: Path) -> None:
    usage = DiskUsage(ManualClock())
    usage.of([tmp_path / "gone"])
    await usage.idle()

    assert usage.of([tmp_path / "gone"]) == {}


async def test_volumes_and_ephemeral_storage_are_shown_once_measured(tmp_path: Path) -> None:
    directory = tmp_path / "uid-1" / "volumes" / "kubernetes.io~empty-dir" / "scratch"
    directory.mkdir(parents=True)
    (directory / "data").write_bytes(b"x" * 50_000)
    known = make_pod(
        uid="uid-1", volumes=[{"name": "scratch", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}]
    )
    made = PodFigures(tmp_path, ManualClock(), uses_paths=True)
    container = dataclasses.replace(reading("a", 1), rootfs=FsStats(3, used_bytes=1000))
    read = [pod(container)]
    made.summary(read, NODE, {KEY: known}, only_cpu_and_memory=False)
    await made.idle()

    found = made.summary(read, NODE, {KEY: known}, only_cpu_and_memory=False).pods[0]

    [(name, volume)] = found.volumes
    assert name == "scratch"
    assert volume.used_bytes is not None
    assert volume.used_bytes >= 50_000
    assert volume.capacity_bytes is not None
    assert found.ephemeral_storage is not None
    assert found.ephemeral_storage.used_bytes == volume.used_bytes + 1000
    await made.close()
