"""The Node: registered or adopted, true, there again when somebody deletes it, NotReady at the end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from tests.clocks import ManualClock, settle
from tests.controllers.direct import DirectClient, DirectServer
from tests.controllers.fake_provider import READY, Platform
from vkubelet.controllers.node_controller import POLL_S, NodeController
from vkubelet.kube.reflector import Reflector
from vkubelet.kube.store import Deleted, StoreEvent
from vkubelet.model.node import NodeIdentity
from vkubelet.model.observations import NodeObservation
from vkubelet.model.pod import Json
from vkubelet.settings import Taint

NAME = "node-1"
TAINT = Taint("virtual-kubelet.io/provider", "fake", "NoSchedule")
REPORT_S = 300.0


class Registered:
    """A node controller that runs, with the watch on its Node, and what a test wants to know."""

    def __init__(self, server: DirectServer | None = None) -> None:
        self.server = server or DirectServer()
        self.clock = ManualClock()
        self.platform = Platform()
        self.wake = asyncio.Event()
        self._client = DirectClient(self.server)
        self.controller = NodeController(
            self._client.nodes,
            self._describe,
            NodeIdentity(
                NAME,
                provider="fake",
                version="1.0",
                addresses=("192.0.2.1",),
                port=10250,
                labels={"zone": "a"},
                taints=(TAINT,),
            ),
            self.wake,
            clock=self.clock,
            report_s=REPORT_S,
        )

    async def _describe(self) -> NodeObservation:
        return self.platform.node

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        watch = Reflector(
            self._client,
            "/api/v1/nodes",
            key=lambda raw: str(raw["metadata"]["uid"]),
            parse=lambda raw: raw,
            params={"fieldSelector": f"metadata.name={NAME}"},
            handler=self._seen,
            clock=self.clock,
        )
        loops = [asyncio.create_task(c) for c in (self.controller.run(), watch.run())]
        await settle(100)
        try:
            yield
        finally:
            assert not any(loop.done() for loop in loops), "a loop has ended by itself"
            for loop in loops:
                loop.cancel()
            await asyncio.wait(loops)

    def _seen(self, event: StoreEvent[Json]) -> None:
        if not isinstance(event, Deleted):
            self.controller.node_seen(event.new)
        elif event.old["metadata"]["uid"] == self.controller.uid:
            self.controller.node_seen(None)

    async def becomes(self, **changes: Any) -> None:
        """The platform is otherwise from now on, and says so."""
        self.platform.node = dataclasses.replace(self.platform.node, **changes)
        self.wake.set()
        await settle(100)

    @property
    def node(self) -> Json:
        return self.server.objects.get("nodes", NAME)

    def condition(self, kind: str = "Ready") -> Json:
        found: Json = next(c for c in self.node["status"]["conditions"] if c["type"] == kind)
        return found

    @property
    def writes(self) -> int:
        return len(self.server.requests_to("PATCH", f"/nodes/{NAME}/status"))


@pytest.fixture
async def registered() -> AsyncIterator[Registered]:
    one = Registered()
    async with one.running():
        yield one


async def test_a_node_is_registered_whole_by_one_request(registered: Registered) -> None:
    node = registered.node
    assert node["metadata"]["labels"] == {
        "type": "virtual-kubelet",
        "kubernetes.io/role": "agent",
        "kubernetes.io/hostname": NAME,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        "zone": "a",
    }
    assert node["spec"]["taints"] == [
        {"key": "virtual-kubelet.io/provider", "value": "fake", "effect": "NoSchedule"}
    ]
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert registered.condition()["status"] == "True"
    assert registered.controller.uid == node["metadata"]["uid"]
    assert [r.verb for r in registered.server.requests if "nodes" in r.path and r.verb != "WATCH"].count(
        "POST"
    ) == 1
    assert registered.writes == 0


async def test_a_node_to_which_nothing_happens_is_written_every_five_minutes(registered: Registered) -> None:
    await registered.clock.advance(REPORT_S - POLL_S)
    assert registered.writes == 0
    heartbeat = registered.condition()["lastHeartbeatTime"]
    since = registered.condition()["lastTransitionTime"]

    await registered.clock.advance(2 * POLL_S)
    assert registered.writes == 1
    assert registered.condition()["lastHeartbeatTime"] > heartbeat
    assert registered.condition()["lastTransitionTime"] == since

    await registered.clock.advance(10 * REPORT_S)
    assert 10 <= registered.writes <= 11


async def test_a_change_is_written_at_once(registered: Registered) -> None:
    failing = dataclasses.replace(READY, status="False", reason="EngineDown", message="no answer")
    await registered.becomes(conditions=(failing,))

    assert registered.writes == 1
    assert registered.condition()["status"] == "False"
    assert registered.condition()["reason"] == "EngineDown"

    await registered.becomes(conditions=(READY,), capacity={"cpu": "8", "memory": "8Gi", "pods": "110"})
    assert registered.writes == 2
    assert registered.condition()["status"] == "True"
    assert registered.node["status"]["capacity"]["cpu"] == "8"


async def test_a_change_that_nobody_announced_is_found_by_the_next_poll(registered: Registered) -> None:
    registered.platform.node = dataclasses.replace(registered.platform.node, capacity={"cpu": "2"})
    await registered.clock.advance(POLL_S)

    assert registered.node["status"]["capacity"]["cpu"] == "2"


async def test_a_node_that_somebody_deleted_is_registered_again(registered: Registered) -> None:
    before = registered.controller.uid
    registered.server.objects.delete("nodes", NAME)
    await settle(200)

    assert registered.controller.uid == registered.node["metadata"]["uid"] != before
    assert registered.condition()["status"] == "True"
    assert registered.node["spec"]["taints"]


async def test_a_deletion_that_the_watch_has_not_shown_is_noticed_by_a_write(registered: Registered) -> None:
    registered.server.lags = True
    registered.server.objects.delete("nodes", NAME)
    await registered.becomes(capacity={"cpu": "2"})
    assert registered.node["status"]["capacity"] == {"cpu": "2"}
    uid = registered.node["metadata"]["uid"]

    registered.server.show()
    await settle(200)
    await registered.clock.advance(POLL_S)
    assert registered.controller.uid == registered.node["metadata"]["uid"] == uid
    assert len(registered.server.requests_to("POST", "/nodes")) == 2


async def test_a_watch_that_lags_does_not_undo_what_we_know(registered: Registered) -> None:
    registered.server.lags = True
    registered.server.objects.patch("nodes", NAME, {"metadata": {"labels": {"x": "y"}}})
    await registered.becomes(capacity={"cpu": "2"})
    registered.server.show()
    await settle(200)
    await registered.clock.advance(10 * POLL_S)

    assert registered.writes == 1


async def test_what_others_put_on_a_node_stays(registered: Registered) -> None:
    others: Json = {
        "metadata": {"labels": {"team": "blue"}, "annotations": {"note": "hello"}},
        "spec": {
            "taints": [
                *registered.node["spec"]["taints"],
                {"key": "maintenance", "effect": "NoExecute"},
            ]
        },
    }
    problem = {"type": "KernelDeadlock", "status": "False", "reason": "KernelHasNoDeadlock"}
    registered.server.objects.patch("nodes", NAME, others)
    status: Json = {"status": {"conditions": [problem], "capacity": {"example.com/gpu": "1"}}}
    registered.server.objects.patch("nodes", NAME, status, subresource="status")
    await settle(100)
    await registered.becomes(capacity={"cpu": "2"})

    assert registered.node["metadata"]["labels"]["team"] == "blue"
    assert registered.node["metadata"]["annotations"]["note"] == "hello"
    assert len(registered.node["spec"]["taints"]) == 2
    assert registered.condition("KernelDeadlock")["reason"] == "KernelHasNoDeadlock"
    assert registered.node["status"]["capacity"]["example.com/gpu"] == "1"


async def test_a_node_that_was_declared_lost_is_ready_again_within_seconds(registered: Registered) -> None:
    lost = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    registered.server.objects.patch("nodes", NAME, {"status": {"conditions": [lost]}}, subresource="status")
    await registered.clock.advance(POLL_S)

    assert registered.condition()["status"] == "True"


# --- adoption ---------------------------------------------------------------------------------------------


def existing() -> Json:
    """A Node as somebody else, or an earlier vkubelet, has left it."""
    return {
        "metadata": {"name": NAME, "labels": {"team": "blue", "zone": "b"}, "annotations": {"note": "hello"}},
        "spec": {"taints": [{"key": "maintenance", "effect": "NoExecute"}], "podCIDR": "10.1.0.0/24"},
        "status": {
            "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": "2025-01-01T00:00:00Z"},
                {"type": "KernelDeadlock", "status": "False"},
            ]
        },
    }


async def test_a_node_that_exists_is_adopted() -> None:
    one = Registered()
    one.server.objects.create("nodes", existing())
    async with one.running():
        labels = one.node["metadata"]["labels"]
        assert labels["team"] == "blue"
        assert labels["zone"] == "a"
        assert labels["type"] == "virtual-kubelet"
        assert one.node["metadata"]["annotations"] == {"note": "hello"}
        assert {t["key"] for t in one.node["spec"]["taints"]} == {"maintenance", TAINT.key}
        assert one.node["spec"]["podCIDR"] == "10.1.0.0/24"
        assert one.condition()["lastTransitionTime"] == "2025-01-01T00:00:00Z"
        assert one.condition()["reason"] == "KubeletReady"
        assert one.condition("KernelDeadlock")["status"] == "False"
        assert one.controller.uid == one.node["metadata"]["uid"]


async def test_after_a_restart_an_own_node_is_adopted_with_its_status_alone(registered: Registered) -> None:
    before = registered.node
    async with Registered(registered.server).running():
        assert registered.node["metadata"]["uid"] == before["metadata"]["uid"]
        assert registered.node["spec"] == before["spec"]
        patches = registered.server.requests_to("PATCH", f"/nodes/{NAME}")
        assert all(r.path.endswith("/status") for r in patches)


async def test_an_adoption_that_fails_half_way_is_made_up_for() -> None:
    one = Registered()
    one.server.objects.create("nodes", existing())
    one.server.fail(500, "PATCH", f"/nodes/{NAME}")
    async with one.running():
        await one.clock.advance(POLL_S)
        assert one.node["metadata"]["labels"]["type"] == "virtual-kubelet"
        assert {t["key"] for t in one.node["spec"]["taints"]} == {"maintenance", TAINT.key}


async def test_a_taint_that_was_set_while_we_set_ours_is_not_lost() -> None:
    one = Registered()
    one.server.objects.create("nodes", existing())
    gate = one.server.hold("PATCH", f"/nodes/{NAME}", times=2)
    async with one.running():
        taints = [{"key": "urgent", "effect": "NoExecute"}, *one.node["spec"]["taints"]]
        one.server.objects.patch("nodes", NAME, {"spec": {"taints": taints}})
        gate.set()
        await settle(100)
        await one.clock.advance(POLL_S)
        assert {t["key"] for t in one.node["spec"]["taints"]} == {"urgent", "maintenance", TAINT.key}


# --- a node's own credentials -----------------------------------------------------------------------------


class NodeRestriction(DirectServer):
    """Refuses what a node's own credentials may not do (NodeRestriction admission)."""

    async def exchange(
        self, method: str, path: str, query: Mapping[str, str], body: bytes, content_type: str
    ) -> Json:
        changes_node = "/nodes" in path and not path.endswith("/status")
        if changes_node and (b"kubernetes.io/role" in body or (method == "PATCH" and b"taints" in body)):
            self.fail(403, method, "/nodes")
        return await super().exchange(method, path, query, body, content_type)


async def test_a_label_that_is_not_permitted_is_left_out() -> None:
    one = Registered(NodeRestriction())
    async with one.running():
        labels = one.node["metadata"]["labels"]
        assert "kubernetes.io/role" not in labels
        assert labels["type"] == "virtual-kubelet"
        assert one.node["spec"]["taints"]


async def test_of_a_node_that_exists_what_is_permitted_is_changed() -> None:
    server = NodeRestriction()
    server.objects.create("nodes", existing())
    one = Registered(server)
    async with one.running():
        labels = one.node["metadata"]["labels"]
        assert "kubernetes.io/role" not in labels
        assert (labels["type"], labels["zone"]) == ("virtual-kubelet", "a")
        assert {t["key"] for t in one.node["spec"]["taints"]} == {"maintenance"}
        assert one.condition()["reason"] == "KubeletReady"


# --- the API server is away, and the end ------------------------------------------------------------------


async def test_a_node_is_registered_when_the_api_server_comes_up() -> None:
    one = Registered()
    one.server.is_down = True
    async with one.running():
        await one.clock.advance(120)
        assert one.controller.uid is None
        one.server.come_up()
        await one.clock.advance(POLL_S)
        assert one.controller.uid == one.node["metadata"]["uid"]


async def test_a_change_that_could_not_be_written_is_written_later(registered: Registered) -> None:
    registered.server.go_down()
    await registered.becomes(capacity={"cpu": "2"})
    await registered.clock.advance(300)
    registered.server.come_up()
    await registered.clock.advance(POLL_S)

    assert registered.node["status"]["capacity"]["cpu"] == "2"


async def test_at_the_end_the_node_says_that_it_is_not_ready(registered: Registered) -> None:
    await registered.controller.say_goodbye("vkubelet is shutting down")

    ready = registered.condition()
    assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
    assert ready["message"] == "vkubelet is shutting down"
    assert ready["lastTransitionTime"] == "2026-01-01T00:00:00Z"


async def test_the_end_does_not_wait_for_an_api_server_that_is_away(registered: Registered) -> None:
    registered.server.is_down = True
    await registered.controller.say_goodbye("vkubelet is shutting down")


async def test_a_node_that_never_was_says_nothing() -> None:
    one = Registered()
    await one.controller.say_goodbye("vkubelet is shutting down")
    assert one.server.requests == []
