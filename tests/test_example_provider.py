"""The example provider of the documentation keeps the contract that it explains."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import yaml

from docs.examples.processes import Processes
from tests.builders import pod_json
from tests.kuberuntime.engine import RecordingHost
from vkubelet.clock import SystemClock
from vkubelet.errors import PodNotFoundError, UnsupportedFeatureError
from vkubelet.model.observations import PodObservation, Running, Terminated
from vkubelet.model.pod import Pod, parse_pod
from vkubelet.model.references import References
from vkubelet.provider import Provider, ProviderContext
from vkubelet.settings import installed_providers

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
NO_REFERENCES = References()


def make_context(root_dir: Path) -> ProviderContext:
    return ProviderContext(RecordingHost(), SystemClock(), "laptop", "cluster", ("192.0.2.1",), root_dir)


def pod_running(*command: str) -> Pod:
    raw = pod_json(restartPolicy="Never")
    spec = raw["spec"]
    spec["containers"] = [{"name": "main", "image": "none", "command": list(command)}]
    spec.pop("securityContext", None)
    return parse_pod(raw)


@pytest.fixture
async def provider(tmp_path: Path) -> AsyncIterator[Processes]:
    provider = Processes(make_context(tmp_path))
    yield provider
    for pod in await provider.list_pods():
        await provider.delete_pod(pod.key)


async def seen(provider: Provider, until: Callable[[PodObservation], bool]) -> PodObservation:
    """The first observation of the only pod for which `until` holds."""
    while True:
        [observation] = await provider.list_pods()
        if until(observation):
            return observation
        await SystemClock().sleep(0.002)


def has_ended(observation: PodObservation) -> bool:
    return observation.terminated


def runs(observation: PodObservation) -> bool:
    return all(isinstance(container.state, Running) for container in observation.containers)


def exit_codes(observation: PodObservation) -> list[int | None]:
    states = [container.state for container in observation.containers]
    return [state.exit_code if isinstance(state, Terminated) else None for state in states]


async def test_exit_codes_and_environment_reach_the_observation(provider: Processes) -> None:
    raw = yaml.safe_load((EXAMPLES / "processes-pod.yaml").read_text())
    raw["metadata"] |= {"namespace": "default", "uid": "uid-two"}
    raw["spec"]["containers"][0]["command"] = ["true"]
    await provider.create_pod(parse_pod(raw), NO_REFERENCES)
    assert exit_codes(await seen(provider, has_ended)) == [3, 0]  # in order of names: failing, sleeper
    [log] = provider._root.glob("*/failing/log")
    assert log.read_text() == "to the log\n"


async def test_a_pod_runs_once_however_often_it_is_created(provider: Processes, tmp_path: Path) -> None:
    count = tmp_path / "count"
    pod = pod_running("sh", "-c", f"echo x >> {count}; exec sleep 60")
    for _ in range(3):
        await provider.create_pod(pod, NO_REFERENCES)
    restarted = Processes(make_context(tmp_path))
    await restarted.create_pod(pod, NO_REFERENCES)
    await seen(restarted, lambda observation: runs(observation) and count.exists())
    assert count.read_text() == "x\n"


async def test_leaving_stops_no_pod_and_the_next_process_finds_it(
    provider: Processes, tmp_path: Path
) -> None:
    pod = pod_running("sleep", "60")
    async with provider.running():
        await provider.create_pod(pod, NO_REFERENCES)
        first = await seen(provider, runs)
    restarted = Processes(make_context(tmp_path))
    assert list(await restarted.list_pods()) == [first]


async def test_a_stopped_pod_has_the_exit_code_of_its_signal(provider: Processes, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    pod = pod_running("sh", "-c", f"touch {ready}; exec sleep 60")
    await provider.create_pod(pod, NO_REFERENCES)
    await seen(provider, lambda _: ready.exists())
    await provider.terminate_pod(pod.key, 30)
    assert exit_codes(await seen(provider, has_ended)) == [143]


async def test_after_the_grace_period_a_pod_is_killed(provider: Processes, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    pod = pod_running("sh", "-c", f"trap '' TERM; touch {ready}; while :; do sleep 0.01; done")
    await provider.create_pod(pod, NO_REFERENCES)
    await seen(provider, lambda _: ready.exists())
    await provider.terminate_pod(pod.key, 0.05)
    assert exit_codes(await seen(provider, has_ended)) == [137]


async def test_a_deleted_pod_leaves_nothing(provider: Processes) -> None:
    pod = pod_running("sleep", "60")
    await provider.create_pod(pod, NO_REFERENCES)
    await provider.delete_pod(pod.key)
    assert await provider.list_pods() == []
    await provider.delete_pod(pod.key)
    with pytest.raises(PodNotFoundError):
        await provider.terminate_pod(pod.key, 0)


async def test_changes_are_reported_while_it_runs(tmp_path: Path, provider: Processes) -> None:
    host = provider._host
    assert isinstance(host, RecordingHost)
    pod = pod_running("true")
    await provider.create_pod(pod, NO_REFERENCES)
    await seen(provider, has_ended)
    async with provider.running():
        while pod.key not in host.observations:
            await SystemClock().sleep(0.002)
    assert host.observations[pod.key][0].terminated


async def test_what_it_cannot_do_is_refused_by_name(provider: Processes) -> None:
    raw = pod_json(restartPolicy="Always", hostNetwork=True)
    with pytest.raises(UnsupportedFeatureError) as refused:
        await provider.create_pod(parse_pod(raw), NO_REFERENCES)
    assert {"spec.restartPolicy", "spec.hostNetwork"} <= set(refused.value.fields)
    assert await provider.list_pods() == []


async def test_it_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "vkubelet_processes-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Name: vkubelet-processes\nVersion: 0.1.0\n")
    entry = "[vkubelet.providers]\nprocesses = docs.examples.processes:Processes\n"
    (information / "entry_points.txt").write_text(entry)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    create = installed_providers()["processes"].load()
    provider = create(make_context(tmp_path))
    assert (await provider.describe_node()).conditions[0].status == "True"
