"""Figures of an engine's containers: from control groups here, from the engine elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from providers.docker import engine_stats
from providers.docker.client import EngineClient
from providers.docker.runtime import DockerRuntime
from providers.docker.settings import DockerSettings, endpoint
from providers.docker.stats import EngineStats
from tests.clocks import ManualClock
from tests.docker.builders import KEY, container, sandbox
from tests.docker.fake_engine import INFO, FakeContainer, FakeEngine, RefusedError
from tests.docker.test_cgroups import V2_DIRECTORY, V2_FILES
from tests.docker.test_machine import PROC
from vkubelet.errors import ProviderUnavailableError
from vkubelet.kuberuntime.contract import LinuxResources
from vkubelet.model.stats import ContainerStats, InterfaceStats, PodStats

ANSWER: dict[str, Any] = {
    "read": "2026-01-01T00:01:40.25Z",
    "cpu_stats": {
        "cpu_usage": {"total_usage": 2_500, "usage_in_usermode": 2_000, "usage_in_kernelmode": 500},
        "throttling_data": {"periods": 10, "throttled_periods": 2, "throttled_time": 300},
    },
    "memory_stats": {
        "usage": 40_000,
        "stats": {"total_inactive_file": 10_000, "total_rss": 20_000, "total_cache": 15_000},
        "limit": 100_000,
    },
    "pids_stats": {"current": 7},
    "blkio_stats": {
        "io_service_bytes_recursive": [
            {"major": 9999, "minor": 1, "op": "Read", "value": 4096},
            {"major": 9999, "minor": 1, "op": "Write", "value": 8192},
            {"major": 9999, "minor": 1, "op": "Total", "value": 12288},
        ],
        "io_serviced_recursive": [{"major": 9999, "minor": 1, "op": "Read", "value": 1}],
    },
    "networks": {"eth0": {"rx_bytes": 1, "rx_packets": 2, "tx_bytes": 3, "tx_packets": 4}},
}


async def running_pod(runtime: DockerRuntime, engine: FakeEngine) -> tuple[FakeContainer, FakeContainer]:
    """Its sandbox and its container."""
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    resources = LinuxResources(cpu_shares=512, memory_limit_bytes=100_000)
    container_id = await runtime.create_container(sandbox_id, container(resources=resources), sandbox())
    await runtime.start_container(container_id)
    for each in engine.containers.values():
        each.stats = ANSWER
    return engine.containers[sandbox_id], engine.containers[container_id]


async def only_pod(runtime: DockerRuntime, *, brief: bool = False) -> PodStats:
    [pod] = await runtime.list_pod_sandbox_stats(only_cpu_and_memory=brief)
    return pod


def only_container(pod: PodStats) -> ContainerStats:
    [found] = pod.containers
    return found


# --- from the engine --------------------------------------------------------------------------------------


async def test_the_engine_is_asked_where_control_groups_cannot_be_seen(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    await running_pod(runtime, engine)

    pod = await only_pod(runtime)

    app = only_container(pod)
    assert pod.key == KEY
    assert (app.name, app.image, app.cpu_shares, app.memory_limit_bytes) == ("app", "app:1", 512, 100_000)
    assert app.cpu is not None
    assert (app.cpu.usage_core_ns, app.cpu.time_ns) == (2_500, 1_767_225_700_250_000_000)
    assert app.cpu.periods is None  # it has no quota
    assert app.memory is not None
    assert (app.memory.working_set_bytes, app.memory.available_bytes) == (30_000, 70_000)
    assert app.thread_count == 7
    assert app.disk_io[0].written_bytes == 8192
    assert pod.network is not None
    assert pod.network.default == InterfaceStats("eth0", 1, 3, rx_packets=2, tx_packets=4)


async def test_a_container_is_inspected_once(runtime: DockerRuntime, engine: FakeEngine) -> None:
    await running_pod(runtime, engine)
    await only_pod(runtime)
    before = engine.count("GET", "/json")

    await only_pod(runtime)

    assert engine.count("GET", "/json") == before + 1  # the list


async def test_a_container_that_cannot_be_read_costs_its_own_figures_alone(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    made, app = await running_pod(runtime, engine)
    engine.refuse_next[f"{app.id}/stats"] = RefusedError(500, "no such cgroup")

    pod = await only_pod(runtime)

    assert (only_container(pod).cpu, only_container(pod).memory) == (None, None)
    assert pod.sandbox is not None
    assert pod.sandbox.cpu is not None
    assert pod.sandbox.container_id == made.id


async def test_an_answer_of_a_container_that_has_just_ended_is_no_reading(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    _, app = await running_pod(runtime, engine)
    app.stats = {
        "read": "0001-01-01T00:00:00Z",
        "cpu_stats": {"cpu_usage": {"total_usage": 0}},
        "memory_stats": {},
    }

    assert only_container(await only_pod(runtime)).cpu is None


async def test_ended_containers_and_pods_without_a_sandbox_are_left_out(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    made, app = await running_pod(runtime, engine)
    engine.finish(app)
    assert (await only_pod(runtime)).containers == ()

    engine.finish(made)
    assert await runtime.list_pod_sandbox_stats(only_cpu_and_memory=True) == []


async def test_the_hosts_network_is_not_a_pods(runtime: DockerRuntime, engine: FakeEngine) -> None:
    await runtime.run_pod_sandbox(sandbox(host_network=True))
    for each in engine.containers.values():
        each.stats = ANSWER

    assert (await only_pod(runtime)).network is None


async def test_an_engine_that_does_not_answer_is_told(runtime: DockerRuntime, engine: FakeEngine) -> None:
    await engine.stop()

    with pytest.raises(ProviderUnavailableError):
        await runtime.list_pod_sandbox_stats(only_cpu_and_memory=True)
    assert await runtime.node_stats(only_cpu_and_memory=True) is None


@pytest.mark.parametrize("missing", ["read", "memory_stats"], ids=["no time", "no memory"])
def test_answers_that_lack_figures_are_refused(missing: str) -> None:
    with pytest.raises(ValueError, match="the container does not run"):
        engine_stats.reading({name: value for name, value in ANSWER.items() if name != missing}, None)


# --- from this machine ------------------------------------------------------------------------------------


class Local:
    """An engine on a machine whose files a test writes."""

    def __init__(self, engine: FakeEngine, stats: EngineStats, root: Path) -> None:
        self.engine = engine
        self.stats = stats
        self.root = root

    def give_files(self, container: FakeContainer, pid: int) -> None:
        """The files of its process and control group, and where it keeps what it writes."""
        process = self.root / "proc" / str(pid)
        (process / "net").mkdir(parents=True)
        (process / "cgroup").write_text(f"0::/{V2_DIRECTORY.format(id=container.id)}\n")
        (process / "net" / "dev").write_text(PROC["net/dev"])
        for name, text in V2_FILES.items():
            file = self.root / "cgroup" / name.format(id=container.id)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        upper = self.root / f"upper-{pid}"
        upper.mkdir()
        (upper / "data").write_bytes(b"x" * 50_000)
        log_file = self.root / f"log-{pid}" / "c-json.log"
        log_file.parent.mkdir()
        for file in (log_file, log_file.with_name("c-json.log.1")):
            file.write_bytes(b"x" * 100)
        container.details = {
            "State": {"Pid": pid},
            "GraphDriver": {"Data": {"UpperDir": str(upper)}},
            "LogPath": str(log_file),
        }

    async def pods(self, *, brief: bool = False) -> list[PodStats]:
        running = [each.summary() for each in self.engine.containers.values() if each.running]
        return await self.stats.pods(running, brief=brief)


@pytest.fixture
async def local(
    engine: FakeEngine,
    settings: DockerSettings,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Local]:
    for name, text in PROC.items():
        (tmp_path / "proc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "proc" / name).write_text(text)
    monkeypatch.setitem(INFO, "DockerRootDir", str(tmp_path))
    monkeypatch.setitem(INFO, "MemTotal", 24_684_096 * 1024)
    client = EngineClient(endpoint(settings), request_timeout_s=5)
    async with client.running():
        stats = EngineStats(client, clock, tmp_path, proc=tmp_path / "proc", cgroup_root=tmp_path / "cgroup")
        yield Local(engine, stats, tmp_path)
        await stats.aclose()


async def test_control_groups_are_read_where_they_are_here(
    local: Local, runtime: DockerRuntime, engine: FakeEngine
) -> None:
    made, app = await running_pod(runtime, engine)
    local.give_files(made, 10)
    local.give_files(app, 11)

    [pod] = await local.pods()

    found = only_container(pod)
    assert engine.count("GET", "/stats") == 0
    assert found.cpu is not None
    assert found.cpu.usage_core_ns == 2_500_000_000
    assert found.cgroup == f"/{V2_DIRECTORY.format(id=app.id)}"
    assert found.logs is not None
    assert found.logs.used_bytes == 200
    assert found.logs.capacity_bytes
    assert pod.network is not None
    assert pod.network.default == InterfaceStats("eth0", 2000, 3000, 1, 3, 20, 30, 2, 4)


async def test_what_a_container_has_written_is_shown_once_it_is_measured(
    local: Local, runtime: DockerRuntime, engine: FakeEngine
) -> None:
    made, app = await running_pod(runtime, engine)
    local.give_files(made, 10)
    local.give_files(app, 11)
    await local.pods()
    await local.stats.idle()

    [pod] = await local.pods()

    rootfs = only_container(pod).rootfs
    assert rootfs is not None
    assert rootfs.used_bytes is not None
    assert rootfs.used_bytes >= 50_000
    assert rootfs.capacity_bytes


async def test_a_container_whose_files_have_gone_is_looked_at_afresh(
    local: Local, runtime: DockerRuntime, engine: FakeEngine
) -> None:
    made, app = await running_pod(runtime, engine)
    local.give_files(made, 10)
    local.give_files(app, 11)
    await local.pods(brief=True)
    for file in (local.root / "cgroup").rglob("memory.stat"):
        if app.id in str(file):
            file.unlink()

    [pod] = await local.pods(brief=True)
    assert only_container(pod).cpu is None
    assert pod.sandbox is not None
    assert pod.sandbox.cpu is not None

    app.details["State"] = {"Pid": 0}  # it now runs where it cannot be seen
    [pod] = await local.pods(brief=True)
    assert only_container(pod).cpu is not None


async def test_a_process_of_the_same_number_is_not_taken_for_the_containers(
    local: Local, runtime: DockerRuntime, engine: FakeEngine
) -> None:
    made, app = await running_pod(runtime, engine)
    local.give_files(made, 10)
    app.details = {"State": {"Pid": 10}}

    [pod] = await local.pods()

    assert only_container(pod).cpu is not None
    assert engine.count("GET", f"{app.id}/stats") == 1


async def test_the_engines_machine_is_read_when_it_is_this_one(local: Local) -> None:
    node = await local.stats.node(brief=False)

    assert node is not None
    assert node.memory_bytes == 24_684_096 * 1024


async def test_an_engine_in_a_virtual_machine_is_not_taken_for_this_one(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(INFO, "MemTotal", 8 << 30)

    assert await local.stats.node(brief=False) is None
