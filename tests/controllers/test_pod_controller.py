"""What the provider is asked to do, in which order, and what follows when it cannot."""

from __future__ import annotations

import pytest

from tests.builders import container_json, observed, observed_pod, pod_json
from tests.controllers.pod_node import FakeNode
from vkubelet.errors import (
    InvalidPodError,
    ProviderError,
    ProviderUnavailableError,
    UnsupportedFeatureError,
)
from vkubelet.model.observations import Running
from vkubelet.model.pod import Json
from vkubelet.model.references import ConfigMapData, References, SecretData, Unavailable

CONFIGURED = [container_json(envFrom=[{"configMapRef": {"name": "app"}}])]


def config_map(node: FakeNode, value: str, *, name: str = "app") -> None:
    body: Json = {"metadata": {"name": name}, "data": {"key": value}}
    if node.server.objects.find("configmaps", name) is None:
        node.server.objects.create("configmaps", body)
    else:
        node.server.objects.patch("configmaps", name, body)


# --- wanted -----------------------------------------------------------------------------------------------


async def test_a_pod_is_created_once_and_its_own_status_is_no_change_of_it(node: FakeNode) -> None:
    key = await node.create()
    await node.advance(300)

    assert node.platform.methods(key) == ["create_pod"]


async def test_a_pod_of_another_node_is_none_of_ours(node: FakeNode) -> None:
    key = await node.create(nodeName="node-2")

    assert node.platform.methods(key) == []
    assert node.patches() == []


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"metadata": {"labels": {"a": "b"}}}, id="labels"),
        pytest.param({"metadata": {"annotations": {"a": "b"}}}, id="annotations"),
        pytest.param(
            {"spec": {"containers": [{"name": "main", "image": "registry.example/app:2.0"}]}}, id="image"
        ),
        pytest.param({"spec": {"activeDeadlineSeconds": 5}}, id="deadline"),
    ],
)
async def test_a_change_of_a_pod_is_passed_on(node: FakeNode, patch: Json) -> None:
    key = await node.create()
    node.server.objects.patch("pods", "web", patch)
    await node.settle()

    assert node.platform.methods(key) == ["create_pod", "update_pod"]


async def test_a_change_that_is_bookkeeping_is_not_passed_on(node: FakeNode) -> None:
    key = await node.create()
    node.server.objects.patch("pods", "web", {"metadata": {"finalizers": ["example.com/hold"]}})
    await node.settle()

    assert node.platform.methods(key) == ["create_pod"]


async def test_a_pod_that_the_platform_does_not_know_any_more_is_created_again(node: FakeNode) -> None:
    key = await node.create()
    del node.platform.pods[key]
    node.server.objects.patch("pods", "web", {"metadata": {"labels": {"a": "b"}}})
    await node.settle()

    assert node.platform.methods(key) == ["create_pod", "update_pod", "create_pod"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
async def test_a_terminal_pod_is_never_started(node: FakeNode, phase: str) -> None:
    await node.kill()
    key = await node.create(status={"phase": phase})
    await node.start()

    assert node.platform.methods(key) == ["terminate_pod"]
    assert node.pod(key) is not None
    await node.advance(600)
    assert "create_pod" not in node.platform.methods(key)
    assert node.status(key)["phase"] == phase


async def test_a_pod_that_somebody_declares_failed_is_stopped(node: FakeNode) -> None:
    key = await node.create()
    node.server.objects.patch("pods", "web", {"status": {"phase": "Failed"}}, subresource="status")
    await node.settle()

    assert node.platform.methods(key) == ["create_pod", "terminate_pod"]
    assert node.platform.pods[key].terminated
    assert "terminated" in node.container(key)["state"]


async def test_a_pod_that_has_ended_stays_until_it_is_deleted(node: FakeNode) -> None:
    key = await node.create(restartPolicy="Never")
    node.fake.end(key, 7)
    await node.advance(600)
    assert node.status(key)["phase"] == "Failed"
    assert node.container(key)["state"]["terminated"]["exitCode"] == 7
    assert key in node.platform.pods
    assert node.deletes() == []

    await node.delete(key)
    assert node.pod(key) is None
    assert key not in node.platform.pods
    assert len(node.records) == 0


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(InvalidPodError("too big", reason="OutOfcpu"), "OutOfcpu", id="invalid"),
        pytest.param(
            UnsupportedFeatureError(("spec.hostPID",), provider="fake"), "UnsupportedPodFeature", id="feature"
        ),
    ],
)
async def test_a_pod_that_can_never_run_fails_and_its_owner_is_told_why(
    node: FakeNode, error: InvalidPodError, reason: str
) -> None:
    node.platform.fail("create_pod", error)
    key = await node.create()
    await node.advance(600)

    status = node.status(key)
    assert (status["phase"], status["reason"], status["message"]) == ("Failed", reason, str(error))
    assert "containerStatuses" not in status
    assert node.reasons(key) == [reason]
    assert node.platform.methods(key).count("create_pod") == 1
    assert len(node.patches()) == 1

    await node.delete(key)
    assert node.pod(key) is None


async def test_a_running_pod_that_is_changed_into_an_impossible_one_is_stopped_and_fails(
    node: FakeNode,
) -> None:
    key = await node.create()
    node.platform.fail("update_pod", InvalidPodError("no such size", reason="Impossible"))
    node.server.objects.patch("pods", "web", {"metadata": {"labels": {"size": "giant"}}})
    await node.settle()

    assert node.platform.methods(key) == ["create_pod", "update_pod", "terminate_pod"]
    assert node.status(key)["phase"] == "Failed"
    assert node.status(key)["reason"] == "Impossible"
    assert "terminated" in node.container(key)["state"]


async def test_a_pod_that_runs_and_is_refused_after_a_restart_is_not_said_to_have_ended_before_it_has(
    node: FakeNode,
) -> None:
    key = await node.create()
    node.platform.stops = False
    node.platform.fail("create_pod", InvalidPodError("no more", reason="Impossible"))
    await node.restart()
    assert node.status(key)["phase"] == "Running"
    assert "running" in node.container(key)["state"]

    node.fake.end(key, 5)
    await node.settle()
    assert node.status(key)["phase"] == "Failed"
    assert node.status(key)["reason"] == "Impossible"
    assert node.container(key)["state"]["terminated"]["exitCode"] == 5


async def test_a_platform_that_is_away_is_asked_again_when_it_says(node: FakeNode) -> None:
    node.platform.fail("create_pod", ProviderUnavailableError("busy", retry_after_s=42))
    key = await node.create()
    await node.advance(41)
    assert node.platform.methods(key) == ["create_pod"]
    assert node.status(key)["phase"] == "Pending"

    await node.advance(2)
    assert node.platform.methods(key) == ["create_pod", "create_pod"]
    assert node.status(key)["phase"] == "Running"
    assert node.reasons(key) == ["FailedSync"]


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ProviderError("no idea"), id="bare"),
        pytest.param(ProviderUnavailableError("throttled"), id="unavailable"),
        pytest.param(ValueError("a bug of the provider"), id="bug"),
    ],
)
async def test_an_update_that_fails_neither_regresses_nor_re_creates_a_running_pod(
    node: FakeNode, error: Exception
) -> None:
    key = await node.create()
    before = node.status(key)
    node.platform.fail("update_pod", *[error] * 5)
    node.server.objects.patch("pods", "web", {"metadata": {"labels": {"a": "b"}}})
    await node.advance(300)

    assert node.status(key) == before
    assert len(node.patches()) == 1
    assert node.platform.methods(key) == ["create_pod"] + ["update_pod"] * 6


async def test_one_pods_trouble_does_not_keep_others_waiting(node: FakeNode) -> None:
    gate = node.platform.hold("create_pod")
    await node.create(name="a")
    await node.create(name="b")
    assert node.platform.methods() == ["list_pods", "create_pod", "create_pod"]
    gate.set()


# --- references -------------------------------------------------------------------------------------------


async def test_a_pod_is_given_what_it_refers_to(node: FakeNode) -> None:
    config_map(node, "1")
    node.server.objects.create("secrets", {"metadata": {"name": "pw"}, "data": {"word": "b3Blbg=="}})
    env = [{"name": "W", "valueFrom": {"secretKeyRef": {"name": "pw", "key": "word"}}}]
    key = await node.create(containers=[container_json(envFrom=CONFIGURED[0]["envFrom"], env=env)])

    (call,) = node.platform.calls_of("create_pod")
    assert call.key == key
    assert call.references is not None
    assert call.references.config_maps == {"app": ConfigMapData({"key": "1"})}
    assert call.references.secrets == {"pw": SecretData({"word": b"open"})}


async def test_a_missing_configmap_is_asked_for_with_growing_delays_and_then_given(node: FakeNode) -> None:
    key = await node.create(containers=CONFIGURED)
    (call,) = node.platform.calls_of("create_pod")
    assert call.references is not None
    assert call.references.config_maps == {"app": Unavailable('configmap "app" not found', missing=True)}

    await node.advance(600)
    asked = len(node.server.requests_to("GET", "/configmaps/app"))
    assert 10 <= asked <= 20
    assert node.platform.methods(key) == ["create_pod"]

    config_map(node, "1")
    await node.advance(61)
    assert node.platform.methods(key) == ["create_pod", "update_pod"]
    assert last_references(node).config_maps == {"app": ConfigMapData({"key": "1"})}
    await node.advance(55)
    assert node.platform.methods(key) == ["create_pod", "update_pod"]


async def test_a_changed_configmap_reaches_its_pods_within_two_resync_periods(node: FakeNode) -> None:
    config_map(node, "1")
    key = await node.create(containers=CONFIGURED)
    config_map(node, "2")
    await node.advance(121)

    assert node.platform.methods(key) == ["create_pod", "update_pod"]
    assert last_references(node).config_maps == {"app": ConfigMapData({"key": "2"})}


async def test_what_a_running_pod_was_given_is_not_taken_away_when_the_api_server_is(node: FakeNode) -> None:
    config_map(node, "1")
    key = await node.create(containers=CONFIGURED)
    node.server.is_down = True
    await node.advance(600)
    assert node.platform.methods(key) == ["create_pod"]

    node.server.come_up()
    config_map(node, "2")
    await node.advance(121)
    assert last_references(node).config_maps == {"app": ConfigMapData({"key": "2"})}


async def test_a_configmap_that_was_deleted_is_missed(node: FakeNode) -> None:
    config_map(node, "1")
    await node.create(containers=CONFIGURED)
    node.server.objects.delete("configmaps", "app")
    await node.advance(121)

    assert last_references(node).config_maps["app"] == Unavailable('configmap "app" not found', missing=True)


def last_references(node: FakeNode) -> References:
    given = [c.references for c in node.platform.calls if c.references is not None]
    return given[-1]


# --- the API server is away -------------------------------------------------------------------------------


async def test_after_an_api_server_that_was_away_for_minutes_everything_converges(node: FakeNode) -> None:
    staying, leaving, ended = [await node.create(name=name) for name in ("staying", "leaving", "ended")]
    node.server.go_down()
    node.begin_deletion(leaving)
    coming = node.server.objects.create("pods", pod_json("coming"))
    node.fake.report(observed_pod(ended, observed(restart_count=4)))
    await node.advance(300)
    assert node.server.objects.find("pods", "leaving") is not None

    node.server.come_up()
    await node.advance(75)
    assert node.status(staying)["phase"] == "Running"
    assert node.pod(leaving) is None
    assert node.container(ended)["restartCount"] == 4
    names = {key.name for key in node.platform.pods}
    assert names == {"staying", "ended", "coming"}
    present = node.server.objects.get("pods", coming["metadata"]["name"])
    assert present["status"]["phase"] == "Running"
    assert isinstance(node.platform.pods[staying].containers[0].state, Running)
