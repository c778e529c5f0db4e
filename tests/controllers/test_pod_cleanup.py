"""Adoption at the start, and removal of what nobody wants: only on proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from tests.builders import observed, observed_pod
from tests.controllers.pod_node import NODE_NAME, FakeNode
from vkubelet.errors import ProviderUnavailableError
from vkubelet.model.keys import PodKey

PERIOD_S = 120.0


def leftover(node: FakeNode, name: str = "web", uid: str = "uid-of-an-orphan") -> PodKey:
    """Something that the platform has, whatever the API server says."""
    key = PodKey("default", name, uid)
    node.platform.pods[key] = observed_pod(key, observed(container_id="fake://leftover"))
    return key


async def test_a_pod_that_ran_before_the_start_is_adopted(node: FakeNode) -> None:
    key = await node.create()
    before = node.status(key)
    await node.restart()
    await node.advance(600)

    assert node.status(key) == before
    assert len(node.patches()) == 1
    assert list(node.platform.pods) == [key]
    assert "terminate_pod" not in node.platform.methods(key)


async def test_an_ended_pod_is_adopted_without_a_write(node: FakeNode) -> None:
    key = await node.create(restartPolicy="Never")
    node.fake.end(key, 3)
    await node.settle()
    before = node.status(key)
    await node.restart()

    assert node.status(key) == before
    assert len(node.patches()) == 2
    assert node.platform.methods(key).count("create_pod") == 1


def nothing(_node: FakeNode) -> None:
    """No pod of that name."""


def a_successor(node: FakeNode) -> None:
    node.server.objects.create("pods", {"metadata": {"name": "web"}, "spec": _spec("node-1")})


def one_on_another_node(node: FakeNode) -> None:
    node.server.objects.create("pods", {"metadata": {"name": "web"}, "spec": _spec("node-2")})


def _spec(node_name: str) -> dict[str, object]:
    return {"nodeName": node_name, "containers": [{"name": "main", "image": "i"}]}


@pytest.mark.parametrize("present", [nothing, a_successor, one_on_another_node])
async def test_an_orphan_is_removed_at_the_start(node: FakeNode, present: Callable[[FakeNode], None]) -> None:
    await node.kill()
    orphan = leftover(node)
    present(node)
    await node.start()

    assert orphan not in node.platform.pods
    assert node.platform.methods(orphan) == ["terminate_pod", "delete_pod"]
    assert node.patches(orphan) == node.deletes(orphan) == []


async def test_an_orphan_that_turns_up_later_is_removed_within_two_minutes(node: FakeNode) -> None:
    orphan = leftover(node)
    await node.advance(PERIOD_S + 1)

    assert orphan not in node.platform.pods
    assert len(node.records) == 0


async def test_an_orphan_that_takes_long_to_stop_is_asked_once(node: FakeNode) -> None:
    node.platform.stops = False
    orphan = leftover(node)
    await node.advance(PERIOD_S * 3 + 1)
    assert node.platform.methods(orphan) == ["terminate_pod"]

    node.fake.end(orphan)
    await node.settle()
    assert orphan not in node.platform.pods


async def test_an_orphan_whose_end_nobody_reported_is_found_at_the_next_look(node: FakeNode) -> None:
    node.platform.stops = False
    orphan = leftover(node)
    await node.advance(PERIOD_S + 1)
    seen = node.platform.pods[orphan]
    node.platform.pods[orphan] = dataclasses.replace(seen, terminated=True)
    await node.advance(PERIOD_S)

    assert orphan not in node.platform.pods


async def test_nothing_is_removed_while_the_api_server_does_not_list(node: FakeNode) -> None:
    key = await node.create()
    await node.kill()
    orphan = leftover(node)
    node.server.fail(500, "GET", "/api/v1/pods", times=20)
    await node.start()
    await node.advance(200)
    assert {key, orphan} <= set(node.platform.pods)
    assert node.platform.methods(orphan) == []

    await node.advance(600)
    assert list(node.platform.pods) == [key]


async def test_nothing_is_removed_while_the_api_server_does_not_answer_for_that_pod(node: FakeNode) -> None:
    await node.kill()
    orphan = leftover(node)
    node.server.fail(503, "GET", "/pods/web", times=3)
    await node.start()
    assert node.platform.methods(orphan) == []

    await node.advance(10)
    assert orphan not in node.platform.pods


async def test_nothing_is_removed_while_the_platform_does_not_list(node: FakeNode) -> None:
    orphan = leftover(node)
    node.platform.fail("list_pods", *[ProviderUnavailableError("away")] * 2)
    await node.advance(PERIOD_S * 2 + 1)
    assert node.platform.methods(orphan) == []

    await node.advance(PERIOD_S)
    assert orphan not in node.platform.pods


async def test_a_pod_that_the_watch_has_not_shown_yet_is_no_orphan(node: FakeNode) -> None:
    node.server.lags = True
    key = await node.create(nodeName=NODE_NAME)
    node.platform.pods[key] = observed_pod(key, observed())
    await node.advance(PERIOD_S * 2)
    assert node.platform.methods(key) == []

    node.server.show()
    await node.settle()
    assert node.platform.methods(key) == ["create_pod"]
    assert node.status(key)["phase"] == "Running"


async def test_a_pod_that_was_created_while_the_platform_listed_is_no_orphan(node: FakeNode) -> None:
    gate = node.platform.hold("list_pods")
    await node.advance(PERIOD_S)
    key = await node.create()
    gate.set()
    await node.settle()

    assert node.platform.methods(key) == ["create_pod"]


async def test_a_list_that_is_older_than_a_report_does_not_overwrite_it(node: FakeNode) -> None:
    node.platform.starts = False
    key = await node.create()
    await node.advance(2)
    await node.kill()
    node.platform.hold("list_pods")
    await node.start()
    node.fake.report(observed_pod(key, observed()))
    await node.settle()
    node.platform.gates.pop("list_pods").set()
    await node.advance(5)

    assert node.status(key)["phase"] == "Running"
