"""Init containers: one after the other, each to its end, before anything else."""

from __future__ import annotations

from tests.builders import container_json
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.model.observations import Running, Terminated, Waiting

PREFIX = "memory.vkubelet.io/"


def running_for(seconds: float, code: int = 0) -> list[str]:
    return ["sh", "-c", f"sleep {seconds}; exit {code}"]


async def test_they_run_in_order_and_then_the_app_containers_start(engine: Engine) -> None:
    pod = await engine.create(
        initContainers=[
            container_json("one", command=running_for(5)),
            container_json("two", command=running_for(5)),
        ]
    )
    assert isinstance(engine.state(pod, "one"), Running)
    assert [c.name for c in engine.seen(pod).containers] == ["one"]

    await engine.clock.advance(5)
    assert isinstance(engine.state(pod, "one"), Terminated)
    assert engine.container(pod, "one").ready
    assert isinstance(engine.state(pod, "two"), Running)

    await engine.clock.advance(5)
    assert isinstance(engine.state(pod, "main"), Running)
    started = [e.container for e in engine.events(pod, "Started")]
    assert started == ["one", "two", "main"]


async def test_one_that_fails_is_restarted_with_back_off(engine: Engine) -> None:
    pod = await engine.create(initContainers=[container_json("one", command=running_for(0, 3))])

    state = engine.state(pod, "one")
    assert isinstance(state, Waiting)
    assert state.reason == "CrashLoopBackOff"
    assert engine.container(pod, "one").restart_count == 1
    await engine.clock.advance(10)
    assert engine.container(pod, "one").restart_count == 2
    assert not [c for c in engine.seen(pod).containers if c.name == "main"]


async def test_one_that_fails_ends_a_run_once_pod(engine: Engine) -> None:
    pod = await engine.create(
        restartPolicy="Never", initContainers=[container_json("one", command=running_for(0, 3))]
    )

    state = engine.state(pod, "one")
    assert isinstance(state, Terminated)
    assert state.exit_code == 3
    assert engine.seen(pod).terminated
    assert [e.container for e in engine.events(pod, "Started")] == ["one"]


async def test_they_run_again_in_a_new_sandbox(engine: Engine) -> None:
    pod = await engine.create(initContainers=[container_json("one")])

    engine.runtime.lose_sandbox(pod.key)
    await settle()

    assert engine.container(pod, "one").restart_count == 1
    assert isinstance(engine.state(pod, "main"), Running)
    assert not engine.events(pod, "BackOff")


async def test_one_that_was_removed_after_its_work_does_not_run_again(engine: Engine) -> None:
    pod = await engine.create(initContainers=[container_json("one")])
    (status,) = engine.runtime.pods()
    done = next(c.id for c in status.containers if c.name == "one")

    engine.runtime.lose_container(done)
    engine.runtime.end_container(pod.key, "main", 1)
    await settle()

    assert isinstance(engine.state(pod, "main"), Running)
    assert [e.container for e in engine.events(pod, "Started")] == ["one", "main", "main"]
    state = engine.state(pod, "one")
    assert isinstance(state, Terminated)
    assert state.exit_code == 0
