"""Stopping pods: grace periods, orphans, and what must be left behind."""

from __future__ import annotations

import asyncio

import pytest

from tests.builders import container_json, make_pod
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.errors import PodNotFoundError, ProviderUnavailableError
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import Running, Terminated
from vkubelet.model.pod import Pod
from vkubelet.model.references import References

STUBBORN = {"annotations": {"memory.vkubelet.io/ignores-term": "true"}}


def exit_code(engine: Engine, pod: Pod, name: str = "main") -> int:
    state = engine.state(pod, name)
    assert isinstance(state, Terminated)
    return state.exit_code


async def test_a_stubborn_container_is_killed_after_its_grace_period(engine: Engine) -> None:
    pod = await engine.create(metadata=STUBBORN)

    await engine.terminate(pod, 30)
    await engine.clock.advance(29)
    assert isinstance(engine.state(pod), Running)
    await engine.clock.advance(1)

    assert exit_code(engine, pod) == 137
    assert engine.seen(pod).terminated


async def test_a_second_call_with_a_shorter_grace_period_shortens(engine: Engine) -> None:
    pod = await engine.create(metadata=STUBBORN)
    await engine.terminate(pod, 300)
    await engine.clock.advance(10)

    await engine.terminate(pod, 5)
    await engine.clock.advance(5)

    assert exit_code(engine, pod) == 137
    assert len(engine.events(pod, "Killing")) == 1


async def test_a_longer_grace_period_changes_nothing(engine: Engine) -> None:
    pod = await engine.create(metadata=STUBBORN)
    await engine.terminate(pod, 5)
    await engine.terminate(pod, 300)
    await engine.clock.advance(5)

    assert engine.seen(pod).terminated


async def test_also_without_a_grace_period_the_signal_is_heard(engine: Engine) -> None:
    pod = await engine.create(metadata=STUBBORN)
    await engine.terminate(pod, 0)
    await engine.clock.advance(1.5)
    assert isinstance(engine.state(pod), Running)
    await engine.clock.advance(0.5)
    assert engine.seen(pod).terminated


async def test_containers_stop_at_the_same_time_and_the_sandbox_after_them(engine: Engine) -> None:
    pod = await engine.create(metadata=STUBBORN, containers=[container_json("a"), container_json("b")])

    await engine.terminate(pod, 10)
    await engine.clock.advance(5)
    assert engine.seen(pod).sandbox_ready
    await engine.clock.advance(5)

    assert (exit_code(engine, pod, "a"), exit_code(engine, pod, "b")) == (137, 137)
    assert not engine.seen(pod).sandbox_ready
    assert engine.clock.monotonic() == 10


async def test_nothing_is_restarted_while_the_pod_terminates(engine: Engine) -> None:
    pod = await engine.create(metadata=STUBBORN, containers=[container_json("a"), container_json("b")])
    await engine.terminate(pod, 10)

    engine.runtime.end_container(pod.key, "a", 3)
    await engine.clock.advance(100)

    assert exit_code(engine, pod, "a") == 3
    (status,) = engine.runtime.pods()
    assert len(status.containers) == 2


async def test_a_pod_in_back_off_terminates_at_once_with_its_last_exit_code(engine: Engine) -> None:
    pod = await engine.create(metadata={"annotations": {"memory.vkubelet.io/exit-code": "7"}})
    await engine.terminate(pod)

    assert exit_code(engine, pod) == 7
    assert engine.seen(pod).terminated
    assert engine.clock.next_due_s() is None


async def test_a_pod_that_was_never_started_is_terminated_at_once(engine: Engine) -> None:
    pod = make_pod()
    await engine.provider.create_pod(pod, References())
    await engine.provider.terminate_pod(pod.key, 30)
    await settle()

    assert engine.seen(pod).terminated
    assert engine.runtime.pods() == ()


async def test_an_unknown_pod_is_not_found(engine: Engine) -> None:
    key = PodKey("default", "nobody", "uid-nobody")

    with pytest.raises(PodNotFoundError):
        await engine.provider.terminate_pod(key, 0)
    with pytest.raises(PodNotFoundError):
        await engine.provider.update_pod(make_pod(), References())
    await engine.provider.delete_pod(key)


async def test_a_pod_that_only_the_runtime_knows_is_listed_terminated_and_deleted(engine: Engine) -> None:
    pod = await engine.create()
    async with engine.restarted():
        (seen,) = await engine.provider.list_pods()
        assert seen.key == pod.key
        assert seen.sandbox_ready
        assert [c.name for c in seen.containers] == ["main"]
        assert isinstance(seen.containers[0].state, Running)

        await engine.terminate(pod)
        assert engine.seen(pod).terminated
        assert exit_code(engine, pod) == 0
        await engine.provider.delete_pod(pod.key)
        assert engine.runtime.pods() == ()


async def test_deleting_a_running_pod_leaves_nothing(engine: Engine) -> None:
    pod = await engine.create(metadata=STUBBORN)

    deletion = asyncio.create_task(engine.provider.delete_pod(pod.key))
    await engine.clock.advance(0)
    await deletion

    assert engine.runtime.pods() == ()
    await engine.clock.advance(100)
    assert engine.runtime.pods() == ()


async def test_a_deletion_that_fails_can_be_repeated(engine: Engine) -> None:
    pod = await engine.create()
    await engine.terminate(pod)
    failures = iter([ProviderUnavailableError("no answer")])

    async def hook(method: str, moment: str) -> None:
        if method == "remove_pod_sandbox" and (error := next(failures, None)) is not None:
            raise error

    engine.runtime.hook = hook
    with pytest.raises(ProviderUnavailableError):
        await engine.provider.delete_pod(pod.key)
    assert await engine.provider.list_pods()
    await engine.provider.delete_pod(pod.key)

    assert engine.runtime.pods() == ()
    assert await engine.provider.list_pods() == []


async def test_a_stop_that_fails_is_repeated(engine: Engine) -> None:
    pod = await engine.create()
    failures = iter([ProviderUnavailableError("no answer")] * 2)

    async def hook(method: str, moment: str) -> None:
        if method == "stop_container" and (error := next(failures, None)) is not None:
            raise error

    engine.runtime.hook = hook
    await engine.terminate(pod)
    await engine.clock.advance(10)

    assert engine.seen(pod).terminated


async def test_a_pod_marked_as_deleted_is_not_started(engine: Engine) -> None:
    deleted = {"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}
    pod = await engine.create(make_pod(metadata=deleted))

    assert engine.runtime.pods() == ()
    await engine.terminate(pod)
    assert engine.seen(pod).terminated
