"""The way of a pod through the engine, from create to delete."""

from __future__ import annotations

from tests.builders import make_pod, moment
from tests.kuberuntime.engine import Engine
from vkubelet.model.observations import Running, Terminated


async def test_a_pod_is_running_after_one_report(engine: Engine) -> None:
    pod = await engine.create()

    assert len(engine.host.observations[pod.key]) == 1
    seen = engine.seen(pod)
    assert seen.sandbox_ready
    assert seen.pod_ips == ("10.244.0.2",)
    assert not seen.terminated
    container = engine.container(pod)
    assert container.state == Running(moment(0))
    assert container.ready
    assert container.started
    assert container.restart_count == 0
    assert container.container_id.startswith("memory://")
    assert engine.reasons(pod) == ["Pulled", "Created", "Started"]


async def test_a_terminated_pod_reports_its_exit_code_and_leaves_nothing_behind(engine: Engine) -> None:
    pod = await engine.create()

    await engine.terminate(pod)

    seen = engine.seen(pod)
    assert seen.terminated
    assert not seen.sandbox_ready
    assert isinstance(engine.state(pod), Terminated)
    assert engine.events(pod, "Killing")[0].message == "Stopping container main"

    await engine.provider.delete_pod(pod.key)

    assert engine.runtime.pods() == ()
    assert await engine.provider.list_pods() == []


async def test_creating_twice_makes_one_pod(engine: Engine) -> None:
    pod = await engine.create()
    await engine.create(make_pod())

    (status,) = engine.runtime.pods()
    assert status.key == pod.key
    assert len(status.sandboxes) == len(status.containers) == 1
