"""A runtime that fails, and a vkubelet that is killed: nothing is made twice, and all comes right."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.builders import container_json, make_pod
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.errors import InvalidPodError, PodNotFoundError, ProviderError, ProviderUnavailableError
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import Running, Terminated, Waiting
from vkubelet.model.references import References

STEPS = ["pod_status", "run_pod_sandbox", "image_status", "create_container", "start_container"]


class Faults:
    """Fails the named call, at the named moment, as often as it is told."""

    def __init__(self, method: str, moment: str, error: Exception, times: int = 1) -> None:
        self._method, self._moment, self._error, self.times = method, moment, error, times

    async def __call__(self, method: str, moment: str) -> None:
        if (method, moment) == (self._method, self._moment) and self.times > 0:
            self.times -= 1
            raise self._error


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("method", STEPS)
async def test_one_pod_is_made_whatever_answer_is_lost(engine: Engine, method: str, moment: str) -> None:
    engine.runtime.hook = Faults(method, moment, ProviderUnavailableError("no answer"))
    pod = await engine.create()
    await engine.clock.advance(1)

    (status,) = engine.runtime.pods()
    assert len(status.sandboxes) == len(status.containers) == 1
    assert isinstance(engine.state(pod), Running)
    assert engine.container(pod).restart_count == 0


async def test_an_unavailable_runtime_is_asked_again_with_growing_delays(engine: Engine) -> None:
    faults = Faults("pod_status", "before", ProviderUnavailableError("no answer"), times=1000)
    engine.runtime.hook = faults
    pod = await engine.create()
    assert pod.key not in engine.host.observations

    await engine.clock.advance(300)
    assert 1000 - faults.times < 20
    faults.times = 0
    await engine.clock.advance(30)
    assert isinstance(engine.state(pod), Running)


async def test_the_runtime_may_say_how_long_to_wait(engine: Engine) -> None:
    engine.runtime.hook = Faults(
        "pod_status", "before", ProviderUnavailableError("busy", retry_after_s=17), times=1
    )
    await engine.create()

    assert engine.clock.next_due_s() == 17


async def test_an_unavailable_runtime_never_leads_to_a_second_container(engine: Engine) -> None:
    pod = await engine.create()
    faults = Faults("pod_status", "before", ProviderUnavailableError("no answer"), times=5)
    engine.runtime.hook = faults
    await engine.provider.update_pod(pod, References())
    await engine.clock.advance(100)

    assert faults.times == 0
    (status,) = engine.runtime.pods()
    assert len(status.containers) == 1


async def test_a_sandbox_that_cannot_be_made_is_told_and_tried_again(engine: Engine) -> None:
    engine.runtime.hook = Faults("run_pod_sandbox", "before", ProviderError("no address left"))
    pod = await engine.create()

    assert engine.events(pod, "FailedCreatePodSandBox")[0].message == (
        "Failed to create pod sandbox: no address left"
    )
    assert not engine.seen(pod).sandbox_ready
    await engine.clock.advance(10)
    assert isinstance(engine.state(pod), Running)


async def test_a_container_that_cannot_be_created_waits_and_others_run(engine: Engine) -> None:
    engine.runtime.hook = Faults("create_container", "before", ProviderError("invalid mount"))
    pod = await engine.create(containers=[container_json("a"), container_json("b")])

    assert engine.state(pod, "a") == Waiting("CreateContainerError", "invalid mount")
    assert isinstance(engine.state(pod, "b"), Running)
    assert engine.events(pod, "Failed")[0].message == "Error: invalid mount"
    await engine.clock.advance(10)
    assert isinstance(engine.state(pod, "a"), Running)


async def test_a_start_that_fails_without_a_trace_is_tried_again_later(engine: Engine) -> None:
    engine.runtime.hook = Faults("start_container", "before", ProviderError("out of memory"))
    pod = await engine.create()

    assert engine.state(pod) == Waiting("RunContainerError", "out of memory")
    await engine.clock.advance(10)
    container = engine.container(pod)
    assert isinstance(container.state, Running)
    assert container.restart_count == 0


@pytest.mark.parametrize("method", ["run_pod_sandbox", "create_container", "start_container"])
async def test_what_the_runtime_refuses_for_good_fails_the_pod(engine: Engine, method: str) -> None:
    error = InvalidPodError("the name is reserved", reason="InvalidName")
    engine.runtime.hook = Faults(method, "before", error)
    pod = await engine.create(containers=[container_json("a"), container_json("b")])

    seen = engine.seen(pod)
    assert seen.failure is not None
    assert (seen.failure.reason, seen.failure.message) == ("InvalidName", "the name is reserved")
    assert seen.terminated
    assert engine.events(pod, "InvalidName")


async def test_a_surprise_concerns_one_pod_and_is_tried_again(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.runtime.hook = Faults("run_pod_sandbox", "before", RuntimeError("a bug"))
    one = await engine.create(make_pod("one"))
    two = await engine.create(make_pod("two"))

    assert one.key not in engine.host.observations
    assert isinstance(engine.state(two), Running)
    await engine.clock.advance(1)
    assert isinstance(engine.state(one), Running)


async def test_a_container_that_vanishes_while_it_is_made_is_made_anew(engine: Engine) -> None:
    engine.runtime.hook = Faults("start_container", "before", PodNotFoundError("no such container"))
    pod = await engine.create()
    await engine.clock.advance(1)

    assert isinstance(engine.state(pod), Running)


# --- restarts of vkubelet ---------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("method", STEPS[1:])
async def test_a_pod_is_adopted_whatever_step_the_last_vkubelet_died_in(
    engine: Engine, method: str, moment: str
) -> None:
    pod = make_pod()
    async with engine.dies_in(method, moment):
        await engine.create(pod)
    async with engine.restarted():
        await engine.create(pod)

        (status,) = engine.runtime.pods()
        assert len(status.containers) == 1
        assert len([s for s in status.sandboxes if s.ready]) == 1
        assert isinstance(engine.state(pod), Running)
        assert engine.container(pod).restart_count == 0


async def test_a_running_pod_is_adopted_as_it_is(engine: Engine) -> None:
    pod = await engine.create()
    before = engine.runtime.pods()
    async with engine.restarted():
        await engine.clock.advance(60)
        await engine.create(pod)

        assert engine.runtime.pods() == before
        assert isinstance(engine.state(pod), Running)


async def test_back_off_goes_on_where_it_was(engine: Engine) -> None:
    pod = await engine.create(metadata={"annotations": {"memory.vkubelet.io/exit-code": "7"}})
    await engine.clock.advance(10)
    await engine.clock.advance(20)
    await engine.clock.advance(15)
    async with engine.restarted():
        await engine.create(pod)

        state = engine.state(pod)
        assert isinstance(state, Waiting)
        assert state.message.startswith("back-off 40s ")
        assert engine.clock.next_due_s() == 25
        assert engine.container(pod).restart_count == 3
        last = engine.container(pod).last_state
        assert last is not None
        assert last.exit_code == 7


async def test_back_off_remembers_that_the_row_was_broken(engine: Engine) -> None:
    pod = await engine.create()
    for _ in range(3):
        engine.runtime.end_container(pod.key, "main", 1)
        await engine.clock.advance(600)
    async with engine.restarted():
        await engine.create(pod)
        engine.runtime.end_container(pod.key, "main", 1)
        await settle()
        assert isinstance(engine.state(pod), Running)
        assert engine.container(pod).restart_count == 4


async def test_containers_that_vanished_meanwhile_are_known_from_the_api_server(engine: Engine) -> None:
    status = {
        "phase": "Running",
        "startTime": "2026-01-01T00:00:00Z",
        "containerStatuses": [
            {
                "name": "main",
                "restartCount": 4,
                "containerID": "memory://old",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }
        ],
    }
    pod = await engine.create(make_pod(status=status))

    container = engine.container(pod)
    assert isinstance(container.state, Running)
    assert container.restart_count == 5
    assert container.last_state is not None
    assert (container.last_state.exit_code, container.last_state.reason) == (137, "ContainerStatusUnknown")


async def test_a_run_once_pod_that_vanished_meanwhile_does_not_run_twice(engine: Engine) -> None:
    status = {
        "phase": "Running",
        "containerStatuses": [
            {
                "name": "main",
                "restartCount": 0,
                "containerID": "memory://old",
                "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
            }
        ],
    }
    pod = await engine.create(make_pod(restartPolicy="Never", status=status))

    state = engine.state(pod)
    assert isinstance(state, Terminated)
    assert state.exit_code == 137
    assert engine.seen(pod).terminated
    assert engine.runtime.pods() == ()


async def test_the_deadline_counts_from_the_first_start(engine: Engine) -> None:
    await engine.clock.advance(50)
    pod = await engine.create(
        make_pod(activeDeadlineSeconds=60, status={"phase": "Running", "startTime": "2026-01-01T00:00:00Z"})
    )
    await engine.clock.advance(10)

    failure = engine.seen(pod).failure
    assert failure is not None
    assert failure.reason == "DeadlineExceeded"


# --- events of the runtime --------------------------------------------------------------------------------


async def test_after_missed_events_every_pod_is_looked_at(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    missed = asyncio.Event()

    async def events() -> AsyncIterator[PodKey | None]:
        await missed.wait()
        yield None
        await asyncio.Event().wait()

    engine.runtime.events = events  # type: ignore[method-assign]  # a runtime that was cut off
    async with engine.running():
        pods = [await engine.create(make_pod(name, restartPolicy="Never")) for name in ("one", "two")]
        for pod in pods:
            engine.runtime.end_container(pod.key, "main", 3)
        await engine.clock.advance(100)
        assert not any(engine.seen(pod).terminated for pod in pods)

        missed.set()
        await settle()
        assert all(engine.seen(pod).terminated for pod in pods)


async def test_events_that_fail_are_asked_for_anew(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    original, failures = engine.runtime.events, [OSError("connection reset")]

    async def events() -> AsyncIterator[PodKey | None]:
        if failures:
            raise failures.pop()
        async for key in original():
            yield key

    engine.runtime.events = events  # type: ignore[method-assign]  # a runtime with a bug
    async with engine.running():
        pod = await engine.create(restartPolicy="Never")
        engine.runtime.end_container(pod.key, "main", 3)
        await engine.clock.advance(10)
        assert engine.seen(pod).terminated
