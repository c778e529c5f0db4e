"""Restart policies, CrashLoopBackOff, and containers that end in every possible way."""

from __future__ import annotations

import pytest

from tests.builders import container_json, make_pod, moment
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.kuberuntime.contract import ContainerStatus
from vkubelet.model.observations import Running, Terminated, Waiting
from vkubelet.model.pod import Pod

PREFIX = "memory.vkubelet.io/"


def crashing() -> Pod:
    return make_pod(metadata={"annotations": {f"{PREFIX}exit-code": "7"}})


@pytest.mark.parametrize(
    ("policy", "code", "restarts"),
    [
        ("Always", 0, True),
        ("Always", 7, True),
        ("OnFailure", 0, False),
        ("OnFailure", 7, True),
        ("Never", 0, False),
        ("Never", 7, False),
    ],
)
async def test_the_restart_policy_decides(engine: Engine, policy: str, code: int, restarts: bool) -> None:
    pod = await engine.create(restartPolicy=policy)

    engine.runtime.end_container(pod.key, "main", code)
    await settle()

    container = engine.container(pod)
    if restarts:
        assert isinstance(container.state, Running)
        assert container.restart_count == 1
        assert container.last_state is not None
        assert container.last_state.exit_code == code
    else:
        assert isinstance(container.state, Terminated)
        assert container.state.exit_code == code
        assert container.state.reason == ("Completed" if code == 0 else "Error")
        assert engine.seen(pod).terminated
        assert not engine.seen(pod).sandbox_ready
        assert container.restart_count == 0


async def test_back_off_doubles_from_10_to_300_seconds(engine: Engine) -> None:
    pod = await engine.create(crashing())

    starts = [0.0]
    for _ in range(7):
        container = engine.container(pod)
        before = container.restart_count
        wait = engine.clock.next_due_s()
        assert wait is not None
        await engine.clock.advance(wait)
        assert engine.container(pod).restart_count == before + 1
        starts.append(wait)

    assert starts[1:] == [10, 20, 40, 80, 160, 300, 300]


async def test_the_wait_is_told_in_the_kubelets_words(engine: Engine) -> None:
    pod = await engine.create(crashing())
    await engine.clock.advance(10)
    await engine.clock.advance(20)
    await engine.clock.advance(40)

    assert engine.state(pod) == Waiting(
        "CrashLoopBackOff", "back-off 1m20s restarting failed container=main pod=web_default(uid-web)"
    )
    last = engine.container(pod).last_state
    assert last is not None
    assert (last.exit_code, last.reason) == (7, "Error")
    back_offs = engine.events(pod, "BackOff")
    assert len(back_offs) == 4
    assert back_offs[0].message == "Back-off restarting failed container main in pod web_default(uid-web)"
    assert back_offs[0].container == "main"


async def test_a_container_that_ran_for_ten_minutes_starts_afresh(engine: Engine) -> None:
    pod = await engine.create()
    for _ in range(2):
        engine.runtime.end_container(pod.key, "main", 1)
        await settle()
    assert isinstance(engine.state(pod), Waiting)
    await engine.clock.advance(10)
    assert isinstance(engine.state(pod), Running)

    await engine.clock.advance(600)
    engine.runtime.end_container(pod.key, "main", 1)
    await settle()
    assert isinstance(engine.state(pod), Running)

    engine.runtime.end_container(pod.key, "main", 1)
    await settle()
    assert engine.state(pod) == Waiting(
        "CrashLoopBackOff", "back-off 10s restarting failed container=main pod=web_default(uid-web)"
    )
    assert engine.container(pod).restart_count == 3


async def test_only_the_newest_two_attempts_are_kept(engine: Engine) -> None:
    await engine.create(crashing())
    await engine.clock.advance(1000)

    (status,) = engine.runtime.pods()
    attempts = [c.attempt for c in status.containers]
    assert attempts == [max(attempts), max(attempts) - 1]
    assert max(attempts) > 4


async def test_a_pod_is_over_when_all_its_containers_are(engine: Engine) -> None:
    pod = await engine.create(restartPolicy="Never", containers=[container_json("a"), container_json("b")])

    engine.runtime.end_container(pod.key, "a", 0)
    await settle()
    assert not engine.seen(pod).terminated
    assert engine.seen(pod).sandbox_ready

    engine.runtime.end_container(pod.key, "b", 3)
    await settle()
    assert engine.seen(pod).terminated
    assert engine.seen(pod).pod_ips, "the address stays readable"
    assert [c.state.exit_code for c in engine.seen(pod).containers if isinstance(c.state, Terminated)] == [
        0,
        3,
    ]
    (status,) = engine.runtime.pods()
    assert len(status.containers) == 2, "kept for their logs"

    await engine.provider.delete_pod(pod.key)
    assert engine.runtime.pods() == ()


async def test_a_container_killed_for_memory_says_so(engine: Engine) -> None:
    pod = await engine.create(restartPolicy="Never")

    engine.runtime.end_container(pod.key, "main", 137, oom_killed=True)
    await settle()

    state = engine.state(pod)
    assert isinstance(state, Terminated)
    assert (state.exit_code, state.reason) == (137, "OOMKilled")


async def test_a_command_that_cannot_start_is_a_start_error_and_backs_off(engine: Engine) -> None:
    message = 'exec: "nope": executable file not found in $PATH'
    pod = await engine.create(metadata={"annotations": {f"{PREFIX}start-error": message}})

    reasons = [
        c.state.reason
        for o in engine.host.observations[pod.key]
        for c in o.containers
        if isinstance(c.state, Waiting)
    ]
    assert reasons == ["RunContainerError", "RunContainerError", "CrashLoopBackOff"]
    last = engine.container(pod).last_state
    assert last is not None
    assert (last.exit_code, last.reason, last.message) == (128, "StartError", message)
    assert engine.events(pod, "Failed")[0].message == f"Error: {message}"
    assert engine.container(pod).restart_count == 1
    assert not engine.events(pod, "Started")


async def test_a_command_that_cannot_start_fails_a_run_once_pod(engine: Engine) -> None:
    pod = await engine.create(
        restartPolicy="Never", metadata={"annotations": {f"{PREFIX}start-error": "no such file"}}
    )

    state = engine.state(pod)
    assert isinstance(state, Terminated)
    assert (state.exit_code, state.reason) == (128, "StartError")
    assert engine.seen(pod).terminated


async def test_a_changed_image_replaces_the_container_whatever_the_restart_policy(engine: Engine) -> None:
    pod = await engine.create(restartPolicy="Never")

    changed = make_pod(restartPolicy="Never", containers=[container_json(image="registry.example/app:2.0")])
    await engine.provider.update_pod(changed, engine.no_references)
    await settle()

    container = engine.container(pod)
    assert isinstance(container.state, Running)
    assert container.image == "registry.example/app:2.0"
    assert container.restart_count == 1
    assert engine.events(pod, "Killing")[0].message == "Container main definition changed, will be restarted"
    assert not engine.events(pod, "BackOff")


async def test_a_past_deadline_fails_the_pod(engine: Engine) -> None:
    pod = await engine.create(activeDeadlineSeconds=60)

    await engine.clock.advance(59)
    assert engine.seen(pod).failure is None
    await engine.clock.advance(1)

    seen = engine.seen(pod)
    assert seen.failure is not None
    assert seen.failure.reason == "DeadlineExceeded"
    assert seen.failure.message == "Pod was active on the node longer than the specified deadline"
    assert seen.terminated
    assert engine.events(pod, "DeadlineExceeded")


async def test_a_pod_that_ended_in_time_does_not_fail_later(engine: Engine) -> None:
    pod = await engine.create(activeDeadlineSeconds=60, restartPolicy="Never")
    engine.runtime.end_container(pod.key, "main", 0)
    await engine.clock.advance(100)

    assert engine.seen(pod).failure is None
    assert engine.seen(pod).terminated


async def test_a_terminal_pod_is_never_started_again(engine: Engine) -> None:
    pod = await engine.create(make_pod(status={"phase": "Failed"}))

    assert engine.runtime.pods() == ()
    assert engine.seen(pod).terminated


@pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
async def test_a_container_removed_behind_our_back_counts_as_failed(engine: Engine, policy: str) -> None:
    pod = await engine.create(restartPolicy=policy)

    engine.runtime.lose_container(engine.runtime.live_container(pod.key, "main").id)
    await settle()

    container = engine.container(pod)
    ended = container.state if policy == "Never" else container.last_state
    assert isinstance(ended, Terminated)
    assert (ended.exit_code, ended.reason) == (137, "ContainerStatusUnknown")
    assert container.restart_count == (0 if policy == "Never" else 1)
    assert isinstance(container.state, Running) == (policy != "Never")


async def test_an_exited_container_removed_behind_our_back_keeps_its_exit_code(engine: Engine) -> None:
    pod = await engine.create(restartPolicy="Never", containers=[container_json("a"), container_json("b")])
    container_id = engine.runtime.live_container(pod.key, "a").id
    engine.runtime.end_container(pod.key, "a", 5)
    await settle()

    engine.runtime.lose_container(container_id)
    await settle()

    state = engine.state(pod, "a")
    assert isinstance(state, Terminated)
    assert (state.exit_code, state.finished_at) == (5, moment(0))


async def test_a_lost_sandbox_is_replaced_and_the_containers_run_again(engine: Engine) -> None:
    pod = await engine.create()

    engine.runtime.lose_sandbox(pod.key)
    await settle()

    container = engine.container(pod)
    assert isinstance(container.state, Running)
    assert container.restart_count == 1
    assert engine.events(pod, "SandboxChanged")[0].message == (
        "Pod sandbox changed, it will be killed and re-created."
    )
    (status,) = engine.runtime.pods()
    assert [s.attempt for s in status.sandboxes if s.ready] == [1]
    assert engine.seen(pod).pod_ips == ("10.244.0.3",)


async def test_a_lost_sandbox_ends_a_run_once_pod(engine: Engine) -> None:
    pod = await engine.create(restartPolicy="Never")

    engine.runtime.lose_sandbox(pod.key)
    await settle()

    state = engine.state(pod)
    assert isinstance(state, Terminated)
    assert state.exit_code == 137
    assert engine.seen(pod).terminated


async def test_sandboxes_that_no_kept_container_stood_in_are_removed(engine: Engine) -> None:
    pod = await engine.create()
    for _ in range(4):
        engine.runtime.lose_sandbox(pod.key)
        await engine.clock.advance(300)

    (status,) = engine.runtime.pods()
    assert [s.attempt for s in status.sandboxes] == [4, 3]
    assert [c.status for c in status.containers] == [ContainerStatus.RUNNING, ContainerStatus.EXITED]
