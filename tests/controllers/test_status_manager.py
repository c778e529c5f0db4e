"""The one writer of pod status: what it writes, how often, and to whom never."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tests.builders import observed, observed_pod, pod_json, terminated
from tests.controllers.pod_node import FakeNode
from vkubelet.controllers.status_manager import HOLD_S, LAST_RETRY_S
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import Waiting


def condition(node: FakeNode, key: PodKey, kind: str) -> str:
    conditions = node.status(key)["conditions"]
    found: str = next(c["status"] for c in conditions if c["type"] == kind)
    return found


async def test_a_pod_that_starts_at_once_gets_one_write_up_to_ready(node: FakeNode) -> None:
    key = await node.create()

    assert len(node.patches()) == 1
    assert node.status(key)["phase"] == "Running"
    assert condition(node, key, "Ready") == "True"
    assert node.status(key)["hostIP"] == "192.0.2.1"
    assert node.status(key)["qosClass"] == "BestEffort"
    await node.advance(600)
    assert len(node.patches()) == 1


async def test_every_patch_carries_the_uid_and_no_resource_version(node: FakeNode) -> None:
    key = await node.create()

    (patch,) = node.patches()
    assert patch.path.endswith("/pods/web/status")
    assert patch.body["metadata"] == {"uid": key.uid}


async def test_a_first_status_that_only_says_creating_waits_for_a_better_one(node: FakeNode) -> None:
    node.platform.starts = False
    key = await node.create()
    await node.advance(HOLD_S * 0.9)
    assert node.patches() == []

    node.fake.report(observed_pod(key, observed()))
    await node.settle()

    assert len(node.patches()) == 1
    assert node.status(key)["phase"] == "Running"


async def test_a_pod_that_takes_its_time_is_told_to_be_creating_within_a_second(node: FakeNode) -> None:
    node.platform.starts = False
    key = await node.create()
    await node.advance(HOLD_S)

    assert len(node.patches()) == 1
    assert node.container(key)["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert "startTime" in node.status(key)

    node.fake.report(observed_pod(key, observed()))
    await node.settle()
    assert len(node.patches()) == 2


async def test_a_reason_to_worry_is_not_held_back(node: FakeNode) -> None:
    node.platform.starts = False
    key = await node.create()
    node.fake.report(observed_pod(key, observed(state=Waiting("ErrImagePull", "no such image"))))
    await node.settle()

    assert len(node.patches()) == 1
    assert node.container(key)["state"]["waiting"]["reason"] == "ErrImagePull"


async def test_the_echo_of_an_own_write_causes_no_second_one(node: FakeNode) -> None:
    node.server.lags = True
    key = await node.create()
    assert node.patches() == []  # the watch has not shown the pod

    node.server.show()
    await node.settle()
    assert len(node.patches()) == 1
    node.server.cut_watches()
    await node.advance(60)

    assert len(node.patches()) == 1
    assert node.status(key)["phase"] == "Running"


async def test_changes_before_the_echo_build_on_what_was_written(node: FakeNode) -> None:
    key = await node.create()
    node.server.lags = True
    running = node.platform.pods[key]
    restarted = observed(restart_count=1, last_state=terminated(3), container_id="docker://2")
    node.fake.report(dataclasses.replace(running, containers=(restarted,)))
    await node.settle()
    node.fake.report(dataclasses.replace(running, containers=(restarted,)))
    await node.settle()
    assert len(node.patches()) == 2

    node.server.show()
    await node.settle()
    assert len(node.patches()) == 2
    assert node.container(key)["lastState"]["terminated"]["exitCode"] == 3


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"status": {"phase": "Pending"}}, id="phase"),
        pytest.param({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, id="condition"),
        pytest.param({"status": {"podIP": None, "podIPs": [{"$patch": "replace"}]}}, id="address"),
        pytest.param({"status": {"containerStatuses": None}}, id="containers"),
    ],
)
async def test_what_somebody_else_does_to_our_status_is_undone(
    node: FakeNode, patch: dict[str, object]
) -> None:
    key = await node.create()
    before = node.status(key)
    node.server.objects.patch("pods", "web", patch, subresource="status")
    await node.settle()

    after = node.status(key)
    assert len(node.patches()) == 2
    assert [{**c, "lastTransitionTime": ""} for c in after.pop("conditions")] == [
        {**c, "lastTransitionTime": ""} for c in before.pop("conditions")
    ]
    assert after == before


async def test_others_conditions_stay(node: FakeNode) -> None:
    key = await node.create()
    gate = {"type": "example.com/gate", "status": "True"}
    node.server.objects.patch("pods", "web", {"status": {"conditions": [gate]}}, subresource="status")
    await node.settle()
    node.fake.end(key, 1)
    await node.settle()

    assert condition(node, key, "example.com/gate") == "True"
    assert node.status(key)["phase"] == "Failed"


async def test_a_successor_of_the_same_name_is_never_written_to(node: FakeNode) -> None:
    key = await node.create()
    node.server.lags = True
    node.begin_deletion(key, 0)
    successor = node.server.objects.create("pods", pod_json())
    node.fake.report(observed_pod(key, observed(restart_count=7)))
    await node.settle()

    assert len(node.patches(key)) == 2
    present = node.server.objects.get("pods", "web")
    assert present["metadata"]["uid"] == successor["metadata"]["uid"]
    assert "containerStatuses" not in present["status"]

    node.server.show()
    await node.settle()
    status = node.server.objects.get("pods", "web")["status"]
    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["restartCount"] == 0


async def test_a_write_that_fails_is_tried_again(node: FakeNode) -> None:
    node.server.fail(500, "PATCH", "/status", times=2)
    key = await node.create()
    assert node.status(key)["phase"] == "Pending"
    await node.advance(2)

    assert len(node.patches()) == 3
    assert node.status(key)["phase"] == "Running"


async def test_a_write_that_lost_a_race_in_the_api_server_is_tried_again(node: FakeNode) -> None:
    node.server.fail(409, "PATCH", "/status")
    key = await node.create()
    await node.advance(1)

    assert node.status(key)["phase"] == "Running"


async def test_an_answer_that_was_lost_does_no_harm(node: FakeNode) -> None:
    node.server.drop("PATCH", "/status", after=True)
    key = await node.create()
    await node.advance(2)

    assert node.status(key)["phase"] == "Running"
    assert len(node.patches()) == 1  # the watch showed that it had arrived


async def test_a_terminal_phase_is_never_left(node: FakeNode) -> None:
    key = await node.create(restartPolicy="Never")
    node.fake.end(key, 0)
    await node.settle()
    assert node.status(key)["phase"] == "Succeeded"

    node.fake.report(observed_pod(key, observed()))
    await node.advance(5)
    assert node.status(key)["phase"] == "Succeeded"


async def test_many_reports_during_one_write_become_one_more(node: FakeNode) -> None:
    gate = node.server.hold("PATCH", "/status")
    key = await node.create()
    for count in range(1, 20):
        node.fake.report(observed_pod(key, observed(restart_count=count)))
        await asyncio.sleep(0)
    gate.set()
    await node.settle()

    assert len(node.patches()) == 2
    assert node.container(key)["restartCount"] == 19


async def test_non_final_statuses_of_a_pod_on_its_way_out_are_held_back(node: FakeNode) -> None:
    node.platform.stops = False
    containers = [pod_json()["spec"]["containers"][0] | {"name": name} for name in ("a", "b")]
    key = await node.create(containers=containers)
    await node.delete(key)
    written = len(node.patches())
    one_ended = (observed("a", terminated(0)), observed("b"))
    node.fake.report(observed_pod(key, *one_ended))
    await node.settle()
    assert len(node.patches()) == written

    node.fake.end(key, 0)
    await node.settle()
    assert len(node.patches()) == written + 1
    assert node.pod(key) is None


async def test_when_the_api_server_is_back_statuses_follow_within_seconds(node: FakeNode) -> None:
    key = await node.create()
    node.server.is_down = True
    node.fake.report(observed_pod(key, observed(restart_count=1)))
    await node.advance(1000)
    node.server.come_up()
    await node.advance(LAST_RETRY_S * 1.25)

    assert node.container(key)["restartCount"] == 1


async def test_the_api_server_may_ask_for_patience(node: FakeNode) -> None:
    node.server.fail(429, "PATCH", "/status", retry_after=20)
    key = await node.create()
    await node.advance(19)
    assert len(node.patches()) == 1

    await node.advance(2)
    assert len(node.patches()) == 2
    assert node.status(key)["phase"] == "Running"
