"""Pods whose ConfigMaps, Secrets or rights are not what they need."""

from __future__ import annotations

import pytest

from tests.builders import container_json, make_pod
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.errors import UnsupportedFeatureError
from vkubelet.model.observations import Running, Waiting
from vkubelet.model.pod import Pod
from vkubelet.model.references import ConfigMapData, References, Unavailable

MISSING = References(config_maps={"app": Unavailable('configmap "app" not found', missing=True)})
PRESENT = References(config_maps={"app": ConfigMapData({"mode": "fast"})})


def with_env() -> Pod:
    env = [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "app", "key": "mode"}}}]
    return make_pod(containers=[container_json(env=env), container_json("other")])


def with_volume() -> Pod:
    return make_pod(volumes=[{"name": "cfg", "configMap": {"name": "app"}}])


async def test_a_missing_variable_holds_back_that_container_alone(engine: Engine) -> None:
    pod = await engine.create(with_env(), MISSING)

    assert engine.state(pod) == Waiting("CreateContainerConfigError", 'configmap "app" not found')
    assert isinstance(engine.state(pod, "other"), Running)
    assert engine.events(pod, "Failed")[0].message == 'Error: configmap "app" not found'

    await engine.provider.update_pod(pod, PRESENT)
    await settle()
    assert isinstance(engine.state(pod), Running)


async def test_without_news_it_is_tried_again_every_ten_seconds(engine: Engine) -> None:
    pod = await engine.create(with_env(), MISSING)
    await engine.clock.advance(30)

    assert len(engine.events(pod, "Failed")) == 4


async def test_a_missing_volume_holds_back_the_pod(engine: Engine) -> None:
    pod = await engine.create(with_volume(), MISSING)

    assert engine.runtime.pods() == ()
    (event,) = engine.events(pod)
    assert (event.type, event.reason) == ("Warning", "FailedMount")
    assert event.message == 'MountVolume.SetUp failed for volume "cfg" : configmap "app" not found'
    await engine.clock.advance(60)
    assert len(engine.events(pod)) == 1, "the same failure is told once"

    await engine.provider.update_pod(pod, PRESENT)
    await settle()
    assert isinstance(engine.state(pod), Running)


async def test_a_pod_with_a_missing_volume_can_be_terminated_and_deleted(engine: Engine) -> None:
    pod = await engine.create(with_volume(), MISSING)

    await engine.terminate(pod)
    assert engine.seen(pod).terminated
    await engine.provider.delete_pod(pod.key)
    await engine.clock.advance(60)
    assert engine.runtime.pods() == ()


async def test_root_is_refused_where_the_pod_says_so(engine: Engine) -> None:
    pod = await engine.create(securityContext={"runAsNonRoot": True})

    state = engine.state(pod)
    assert isinstance(state, Waiting)
    assert state.reason == "CreateContainerConfigError"
    assert state.message == (
        'container has runAsNonRoot and image will run as root (pod: "web_default(uid-web)", container: main)'
    )


async def test_a_field_that_nobody_serves_is_refused_by_name(engine: Engine) -> None:
    pod = make_pod(containers=[container_json(livenessProbe={"exec": {"command": ["true"]}})])

    with pytest.raises(UnsupportedFeatureError, match=r"spec\.containers\[0\]\.livenessProbe"):
        await engine.provider.create_pod(pod, References())

    assert engine.runtime.pods() == ()


async def test_the_environment_knows_the_pods_address(engine: Engine) -> None:
    seen: list[tuple[tuple[str, str], ...]] = []
    decide = engine.runtime.script

    def script(config, sandbox):  # type: ignore[no-untyped-def]  # passes its arguments on
        seen.append(config.env)
        return decide(config, sandbox)

    engine.runtime.script = script
    env = [
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
    ]
    await engine.create(containers=[container_json(env=env)])

    assert dict(seen[0]) == {"IP": "10.244.0.2", "HOST": "192.0.2.1", "CPUS": "20"}


async def test_a_pod_that_cannot_have_cluster_dns_is_told(engine: Engine) -> None:
    async with engine.restarted(cluster_dns=()):
        pod = await engine.create()

        (event,) = engine.events(pod, "MissingClusterDNS")
        assert "Falling back to" in event.message
