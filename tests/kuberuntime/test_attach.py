"""Attaching to containers, and ephemeral containers, which are what people attach to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.builders import container_json, make_pod
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from tests.kuberuntime.test_streams import FakeIO
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.kuberuntime.contract import ContainerConfig, ContainerStatus
from vkubelet.model.observations import Running, Terminated, Waiting
from vkubelet.model.pod import ContainerKind, Pod
from vkubelet.provider import Attacher


def cat(**fields: Any) -> Pod:
    return make_pod(containers=[container_json(command=["cat"], stdin=True, **fields)], restartPolicy="Never")


def debugged(pod: Pod, *containers: dict[str, Any]) -> Pod:
    """The same pod after `kubectl debug`."""
    return make_pod(ephemeralContainers=list(containers), containers=pod.raw["spec"]["containers"])


def test_the_engine_can_attach(engine: Engine) -> None:
    assert isinstance(engine.provider, Attacher)


async def test_a_client_is_heard_and_leaves_by_ending_its_input(engine: Engine) -> None:
    pod = await engine.create(cat())
    io = FakeIO(b"one ", b"two")

    await engine.provider.attach(pod.key, "main", io)
    await settle()

    assert bytes(io.stdout.data) == b"one two"
    assert isinstance(engine.state(pod), Running)


async def test_with_stdin_once_the_end_of_input_is_the_containers(engine: Engine) -> None:
    pod = await engine.create(cat(stdinOnce=True))

    await engine.provider.attach(pod.key, "main", FakeIO(b"all"))
    await settle()

    state = engine.state(pod)
    assert isinstance(state, Terminated)
    assert state.exit_code == 0


async def test_with_a_terminal_the_end_of_input_only_detaches(engine: Engine) -> None:
    pod = await engine.create(cat(stdinOnce=True, tty=True))

    await engine.provider.attach(pod.key, "main", FakeIO(b"all"))
    await settle()

    assert isinstance(engine.state(pod), Running)


async def test_a_client_that_leaves_is_detached(engine: Engine) -> None:
    pod = await engine.create(cat())
    attached = asyncio.create_task(engine.provider.attach(pod.key, "main", FakeIO()))
    await settle()
    attached.cancel()
    await asyncio.gather(attached, return_exceptions=True)
    await settle()

    assert isinstance(engine.state(pod), Running)


async def test_attach_ends_with_the_container(engine: Engine) -> None:
    pod = await engine.create()
    attached = asyncio.create_task(engine.provider.attach(pod.key, "main", FakeIO()))
    await settle()
    assert not attached.done()
    engine.runtime.end_container(pod.key, "main", 3)
    await attached


async def test_attach_needs_a_running_container(engine: Engine) -> None:
    pod = await engine.create(cat())

    with pytest.raises(StreamError, match=r'container not found \("other"\)'):
        await engine.provider.attach(pod.key, "other", FakeIO())
    with pytest.raises(PodNotFoundError):
        await engine.provider.attach(make_pod("nobody").key, "main", FakeIO())


async def test_whether_a_container_runs_is_known_of_seen_and_unseen_pods(engine: Engine) -> None:
    pod = await engine.create(containers=[container_json("a"), container_json("b")], restartPolicy="Never")
    engine.runtime.end_container(pod.key, "b", 0)
    await settle()

    async def running() -> list[bool]:
        return [await engine.provider.is_running(pod.key, name) for name in ("a", "b", "c")]

    assert await running() == [True, False, False]
    assert not await engine.provider.is_running(make_pod("nobody").key, "a")
    await engine.restart()
    assert await running() == [True, False, False]


# --- ephemeral containers ---------------------------------------------------------------------------------


async def test_an_ephemeral_container_comes_to_a_running_pod_and_is_never_restarted(engine: Engine) -> None:
    pod = await engine.create()
    pod = debugged(pod, container_json("doctor", command=["sh", "-c", "sleep 5; exit 3"]))
    await engine.provider.update_pod(pod, engine.no_references)
    await settle()
    assert isinstance(engine.state(pod, "doctor"), Running)

    await engine.clock.advance(600)
    state = engine.state(pod, "doctor")
    assert isinstance(state, Terminated)
    assert state.exit_code == 3
    assert engine.container(pod, "doctor").kind is ContainerKind.EPHEMERAL
    assert engine.container(pod, "doctor").restart_count == 0
    assert isinstance(engine.state(pod), Running)


async def test_it_is_told_whose_processes_to_see(engine: Engine) -> None:
    pod = await engine.create()
    configs: list[ContainerConfig] = []
    script = engine.runtime.script
    engine.runtime.script = lambda config, sandbox: configs.append(config) or script(config, sandbox)  # type: ignore[func-returns-value]  # for its effect

    pod = debugged(pod, container_json("doctor", targetContainerName="main"), container_json("nurse"))
    await engine.provider.update_pod(pod, engine.no_references)
    await settle()

    target = engine.runtime.live_container(pod.key, "main").id
    assert {config.name: config.target_id for config in configs} == {"doctor": target, "nurse": None}


async def test_a_target_that_is_not_there_is_named(engine: Engine) -> None:
    pod = await engine.create()
    pod = debugged(pod, container_json("doctor", targetContainerName="nobody"))
    await engine.provider.update_pod(pod, engine.no_references)
    await settle()

    state = engine.state(pod, "doctor")
    assert isinstance(state, Waiting)
    assert (state.reason, state.message) == (
        "CreateContainerConfigError",
        "unable to find target container nobody",
    )
    assert isinstance(engine.state(pod), Running)


async def test_one_that_asks_for_what_is_not_served_is_not_started_and_the_pod_goes_on(
    engine: Engine,
) -> None:
    pod = await engine.create()
    mount = {"name": "v", "mountPath": "/v", "subPath": "x"}
    pod = debugged(pod, container_json("doctor", volumeMounts=[mount]), container_json("nurse"))
    await engine.provider.update_pod(pod, engine.no_references)
    await settle()

    state = engine.state(pod, "doctor")
    assert isinstance(state, Waiting)
    assert state.reason == "CreateContainerConfigError"
    assert "spec.ephemeralContainers[0].volumeMounts[0].subPath" in state.message
    assert [e.container for e in engine.events(pod, "Failed")] == ["doctor"]
    assert isinstance(engine.state(pod, "nurse"), Running)
    assert isinstance(engine.state(pod), Running)


async def test_a_pod_with_ephemeral_containers_is_adopted_after_a_restart(engine: Engine) -> None:
    pod = await engine.create()
    pod = debugged(pod, container_json("doctor"))
    await engine.provider.update_pod(pod, engine.no_references)
    await settle()
    before = engine.runtime.live_container(pod.key, "doctor").id

    await engine.restart()
    await engine.create(pod)

    assert engine.runtime.live_container(pod.key, "doctor").id == before
    assert isinstance(engine.state(pod, "doctor"), Running)


async def test_it_is_stopped_with_its_pod(engine: Engine) -> None:
    pod = await engine.create()
    pod = debugged(pod, container_json("doctor"))
    await engine.provider.update_pod(pod, engine.no_references)
    await settle()
    await engine.terminate(pod)

    (left,) = engine.runtime.pods()
    assert {c.status for c in left.containers} == {ContainerStatus.EXITED}
    assert engine.seen(pod).terminated
