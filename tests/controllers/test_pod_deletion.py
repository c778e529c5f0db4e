"""Deletion: terminated, told, removed, deleted, in this order and from wherever it was interrupted."""

from __future__ import annotations

import pytest

from tests.builders import container_json, pod_json
from tests.controllers.pod_node import FakeNode
from vkubelet.errors import ProviderError, ProviderUnavailableError


async def test_deletion_terminates_then_tells_then_removes_then_deletes(node: FakeNode) -> None:
    key = await node.create(terminationGracePeriodSeconds=17)
    node.platform.exit_code = 143
    gate = node.platform.hold("delete_pod")
    await node.delete(key)

    assert node.platform.methods(key) == ["create_pod", "terminate_pod", "delete_pod"]
    assert node.platform.calls_of("terminate_pod")[0].grace_period_s == 17
    status = node.status(key)
    assert status["phase"] == "Failed"
    assert node.container(key)["state"]["terminated"]["exitCode"] == 143
    assert node.deletes() == []

    gate.set()
    await node.settle()
    (delete,) = node.deletes()
    assert delete.body["gracePeriodSeconds"] == 0
    assert delete.body["preconditions"] == {"uid": key.uid}
    assert node.pod(key) is None
    assert node.platform.methods(key) == ["create_pod", "terminate_pod", "delete_pod"]
    assert len(node.patches()) == 2
    assert len(node.records) == 0


async def test_a_pod_that_ended_well_while_it_was_deleted_has_succeeded(node: FakeNode) -> None:
    key = await node.create(restartPolicy="Never")
    node.platform.hold("delete_pod")
    await node.delete(key)

    assert node.status(key)["phase"] == "Succeeded"


async def test_nothing_is_deleted_before_its_final_status_is_known(node: FakeNode) -> None:
    key = await node.create()
    node.server.fail(409, "PATCH", "/status", times=3)
    await node.delete(key)
    assert node.platform.methods(key)[-1] == "terminate_pod"
    assert node.deletes() == []

    await node.advance(5)
    assert node.pod(key) is None
    final = [r.body["status"] for r in node.patches()][-1]
    assert final["phase"] == "Succeeded"


async def test_a_final_status_that_somebody_overwrote_is_written_again_before_the_pod_goes(
    node: FakeNode,
) -> None:
    key = await node.create(restartPolicy="Never")
    node.fake.end(key, 7)
    await node.settle()
    node.server.objects.patch("pods", "web", {"status": {"phase": "Pending"}}, subresource="status")
    await node.delete(key)

    assert node.pod(key) is None
    assert [r.body["status"].get("phase") for r in node.patches()] == ["Running", "Failed", "Failed"]


async def test_a_deletion_that_the_platform_cannot_do_yet_is_tried_again(node: FakeNode) -> None:
    key = await node.create()
    node.platform.fail("terminate_pod", ProviderUnavailableError("busy"), ProviderError("what?"))
    node.platform.fail("delete_pod", ProviderUnavailableError("busy"))
    await node.delete(key)
    await node.advance(5)

    assert node.pod(key) is None
    assert key not in node.platform.pods
    assert len(node.deletes()) == 1


async def test_a_deletion_that_the_api_server_refuses_for_now_is_tried_again(node: FakeNode) -> None:
    key = await node.create()
    node.server.fail(500, "DELETE", "/pods/", times=2)
    await node.delete(key)
    await node.advance(5)

    assert node.pod(key) is None
    assert len(node.deletes()) == 3
    assert len(node.patches()) == 2


async def test_a_pod_that_the_platform_never_had_is_deleted_all_the_same(node: FakeNode) -> None:
    node.platform.fail("create_pod", *[ProviderUnavailableError("away")] * 3)
    key = await node.create()
    await node.delete(key)

    assert node.pod(key) is None
    assert key not in node.platform.pods


async def test_a_pod_deleted_while_it_is_being_created_is_terminated_afterwards(node: FakeNode) -> None:
    gate = node.platform.hold("create_pod")
    key = await node.create()
    await node.delete(key)
    assert node.platform.methods(key) == ["create_pod"]

    gate.set()
    await node.settle()
    assert node.platform.methods(key) == ["create_pod", "terminate_pod", "delete_pod"]
    assert node.pod(key) is None
    assert node.platform.pods == {}


async def test_a_pod_deleted_while_its_references_are_fetched_is_not_created(node: FakeNode) -> None:
    gate = node.server.hold("GET", "/configmaps/app")
    key = await node.create(containers=[container_json(envFrom=[{"configMapRef": {"name": "app"}}])])
    await node.delete(key)
    gate.set()
    await node.settle()

    assert "create_pod" not in node.platform.methods(key)
    assert node.pod(key) is None


async def test_a_forced_deletion_leaves_the_minimum_of_grace(node: FakeNode) -> None:
    key = await node.create(terminationGracePeriodSeconds=600)
    node.platform.stops = False
    await node.delete(key, 600)
    await node.delete(key, 0)

    assert [c.grace_period_s for c in node.platform.calls_of("terminate_pod")] == [600, 1]
    assert node.pod(key) is None
    node.fake.end(key, 137)
    await node.settle()
    assert key not in node.platform.pods
    assert len(node.records) == 0


async def test_a_shorter_grace_period_is_passed_on_and_a_longer_one_is_not(node: FakeNode) -> None:
    key = await node.create()
    node.platform.stops = False
    for seconds in (30, 10, 20):
        await node.delete(key, seconds)

    assert [c.grace_period_s for c in node.platform.calls_of("terminate_pod")] == [30, 10]
    node.fake.end(key)
    await node.settle()
    assert node.pod(key) is None


async def test_a_pod_that_vanishes_from_the_api_server_is_stopped_and_removed(node: FakeNode) -> None:
    key = await node.create()
    node.server.go_down()
    node.begin_deletion(key, 0)
    node.server.objects.compact()
    node.server.come_up()
    await node.advance(60)

    assert node.platform.methods(key) == ["create_pod", "terminate_pod", "delete_pod"]
    assert node.platform.pods == {}
    assert len(node.records) == 0


async def test_a_finalizer_of_somebody_else_is_waited_for_without_asking_again(node: FakeNode) -> None:
    key = await node.create(metadata={"finalizers": ["example.com/hold"]})
    await node.delete(key)
    await node.advance(600)
    assert node.platform.methods(key) == ["create_pod", "terminate_pod", "delete_pod"]
    assert len(node.deletes()) == 1
    assert node.status(key)["phase"] == "Succeeded"

    node.server.objects.patch("pods", "web", {"metadata": {"finalizers": None}})
    await node.settle()
    assert node.pod(key) is None
    assert len(node.records) == 0


async def test_pods_of_one_name_follow_one_another(node: FakeNode) -> None:
    keys = []
    for _ in range(3):
        key = await node.create()
        keys.append(key)
        assert [k for k in node.platform.pods if k.name == "web"] == [key]
        await node.delete(key)
        assert node.pod(key) is None

    assert len(set(keys)) == 3
    for key in keys:
        assert node.platform.methods(key) == ["create_pod", "terminate_pod", "delete_pod"]


async def test_a_successor_is_left_alone_when_its_predecessor_ends_late(node: FakeNode) -> None:
    old = await node.create()
    node.platform.stops = False
    await node.delete(old, 0)
    new = await node.create()
    node.fake.end(old, 137)
    await node.settle()

    assert node.platform.methods(old) == ["create_pod", "terminate_pod", "delete_pod"]
    assert node.platform.methods(new) == ["create_pod"]
    assert node.deletes(new) == []
    assert list(node.platform.pods) == [new]
    assert node.status(new)["phase"] == "Running"


async def test_a_successor_that_was_made_behind_our_back_is_not_deleted(node: FakeNode) -> None:
    old = await node.create()
    gate = node.platform.hold("delete_pod")
    await node.delete(old)
    node.server.lags = True
    node.begin_deletion(old, 0)
    successor = node.server.objects.create("pods", pod_json())
    gate.set()
    await node.settle()
    present = node.server.objects.get("pods", "web")
    assert present["metadata"]["uid"] == successor["metadata"]["uid"]
    assert "deletionTimestamp" not in present["metadata"]

    node.server.show()
    await node.settle()
    assert node.server.objects.get("pods", "web")["status"]["phase"] == "Running"


# --- crashes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", ["terminate_pod", "delete_pod"])
async def test_a_crash_in_the_middle_of_a_deletion_is_no_matter(node: FakeNode, held: str) -> None:
    key = await node.create()
    node.platform.exit_code = 9
    node.platform.hold(held)
    await node.delete(key)
    await node.kill()
    node.platform.gates.clear()
    await node.start()

    assert node.pod(key) is None
    assert node.platform.pods == {}
    assert final_exit_codes(node) == [9]


@pytest.mark.parametrize("request_", ["PATCH", "DELETE"])
@pytest.mark.parametrize("carried_out", [False, True], ids=["before", "after"])
async def test_a_crash_around_a_request_of_a_deletion_is_no_matter(
    node: FakeNode, request_: str, carried_out: bool
) -> None:
    key = await node.create()
    node.platform.exit_code = 9
    node.server.fail(500, request_, times=100, after=carried_out)
    await node.delete(key)
    await node.kill()
    node.server.recover()
    await node.start()

    assert node.pod(key) is None
    assert node.platform.pods == {}
    assert final_exit_codes(node) == [9]


async def test_a_crash_while_a_pod_is_created_makes_one_pod(node: FakeNode) -> None:
    node.platform.hold("create_pod")
    key = await node.create()
    await node.kill()
    node.platform.gates.clear()
    await node.start()

    assert list(node.platform.pods) == [key]
    assert node.status(key)["phase"] == "Running"


async def test_a_pod_deleted_while_nobody_was_there_is_ended_with_its_exit_code(node: FakeNode) -> None:
    key = await node.create()
    await node.kill()
    node.begin_deletion(key)
    node.platform.exit_code = 3
    await node.start()

    assert node.pod(key) is None
    assert "create_pod" not in node.platform.methods(key)[1:]
    assert final_exit_codes(node) == [3]


async def test_what_ended_while_nobody_was_there_is_told(node: FakeNode) -> None:
    key = await node.create(restartPolicy="Never")
    await node.kill()
    node.fake.end(key, 4)
    await node.start()

    assert node.status(key)["phase"] == "Failed"
    assert node.container(key)["state"]["terminated"]["exitCode"] == 4


def final_exit_codes(node: FakeNode) -> list[int]:
    """Of all pods that the API server was ever told to have ended, once each."""
    codes: dict[str, int] = {}
    for entry in node.server.objects.history:
        for status in (entry.new.get("status") or {}).get("containerStatuses") or ():
            if "terminated" in status["state"]:
                codes[entry.new["metadata"]["uid"]] = status["state"]["terminated"]["exitCode"]
    return list(codes.values())
