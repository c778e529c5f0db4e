"""The heartbeat: a Lease that is renewed in time, whatever others do to it."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator

import pytest

from tests.clocks import ManualClock, settle
from tests.controllers.direct import DirectClient, DirectServer
from vkubelet.controllers.lease_controller import LeaseController
from vkubelet.model.pod import Json

NAME = "node-1"
NAMESPACE = "kube-node-lease"
PERIOD_S = 10.0


class Leased:
    """A lease controller, and its surroundings."""

    def __init__(self) -> None:
        self.server = DirectServer()
        self.clock = ManualClock()
        self.node_uid: str | None = "uid-of-the-node"
        self.controller = LeaseController(
            DirectClient(self.server).leases, NAME, lambda: self.node_uid, clock=self.clock
        )

    @property
    def lease(self) -> Json:
        return self.server.objects.get("leases", NAME, NAMESPACE)

    @property
    def age_s(self) -> float:
        """Seconds since it was renewed."""
        renewed = datetime.datetime.fromisoformat(self.lease["spec"]["renewTime"])
        return (self.clock.now() - renewed).total_seconds()


@pytest.fixture
async def leased() -> AsyncIterator[Leased]:
    leased = Leased()
    loop = asyncio.create_task(leased.controller.run())
    await settle()
    yield leased
    assert not loop.done()
    loop.cancel()
    await asyncio.wait({loop})


async def test_a_lease_is_created_for_the_node(leased: Leased) -> None:
    assert leased.lease["spec"] == {
        "holderIdentity": NAME,
        "leaseDurationSeconds": 40,
        "renewTime": "2026-01-01T00:00:00.000000Z",
    }
    (owner,) = leased.lease["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Node", NAME, "uid-of-the-node")


async def test_it_is_renewed_every_ten_seconds_by_one_request(leased: Leased) -> None:
    before = len(leased.server.requests)
    for _ in range(12):
        await leased.clock.advance(PERIOD_S)
        assert leased.age_s == 0
    assert [r.verb for r in leased.server.requests[before:]] == ["PUT"] * 12


async def test_there_is_no_lease_without_a_node() -> None:
    leased = Leased()
    leased.node_uid = None
    assert await leased.controller.renew() is False
    assert leased.server.requests == []


async def test_it_follows_a_node_within_a_second() -> None:
    leased = Leased()
    leased.node_uid = None
    loop = asyncio.create_task(leased.controller.run())
    await leased.clock.advance(5)
    leased.node_uid = "late"
    await leased.clock.advance(1)
    assert leased.lease["metadata"]["ownerReferences"][0]["uid"] == "late"
    loop.cancel()
    await asyncio.wait({loop})


async def test_a_lease_that_is_there_is_taken_over() -> None:
    leased = Leased()
    leased.server.objects.create(
        "leases",
        {"metadata": {"name": NAME, "labels": {"a": "b"}}, "spec": {"leaseTransitions": 3}},
        NAMESPACE,
    )
    assert await leased.controller.renew() is True
    assert leased.age_s == 0
    assert leased.lease["metadata"]["labels"] == {"a": "b"}
    assert leased.lease["spec"]["leaseTransitions"] == 3


async def test_a_lease_that_somebody_else_wrote_is_read_again(leased: Leased) -> None:
    leased.server.objects.patch("leases", NAME, {"metadata": {"labels": {"a": "b"}}}, namespace=NAMESPACE)
    await leased.clock.advance(PERIOD_S + 1)

    assert leased.age_s <= 1
    assert leased.lease["metadata"]["labels"] == {"a": "b"}


async def test_a_lease_that_is_gone_is_created_with_the_present_nodes_uid(leased: Leased) -> None:
    leased.server.objects.delete("leases", NAME, NAMESPACE)
    leased.node_uid = "uid-of-the-next-node"
    await leased.clock.advance(PERIOD_S + 1)

    assert leased.age_s <= 1
    assert leased.lease["metadata"]["ownerReferences"][0]["uid"] == "uid-of-the-next-node"


@pytest.mark.parametrize("after", [False, True], ids=["lost", "answer lost"])
async def test_one_failure_costs_a_second_and_not_the_lease(leased: Leased, after: bool) -> None:
    leased.server.drop("PUT", "/leases", times=1, after=after)
    await leased.clock.advance(PERIOD_S + 3)

    assert leased.age_s <= 3


async def test_when_the_api_server_is_back_the_lease_is_renewed_within_seconds(leased: Leased) -> None:
    leased.server.is_down = True
    await leased.clock.advance(600)
    leased.server.come_up()
    await leased.clock.advance(2)

    assert leased.age_s <= 2
