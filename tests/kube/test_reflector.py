"""The mirror of a collection, against the fake API server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.builders import pod_json
from tests.fake_api_server import FakeApiServer
from vkubelet.clock import SystemClock
from vkubelet.kube.client import KubeClient
from vkubelet.kube.pods import PodApi, pod_key
from vkubelet.kube.reflector import Reflector
from vkubelet.kube.store import Added, Deleted, Modified, Store, StoreEvent
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Json, Pod, parse_pod


class ImpatientClock(SystemClock):
    """Waits a thousandth of what it is asked to, and remembers it."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await super().sleep(seconds / 1000)


class Seen(list[StoreEvent[Pod]]):
    """The changes that a handler was told."""

    def names(self) -> list[tuple[str, str]]:
        return [(type(e).__name__, (e.old if isinstance(e, Deleted) else e.new).name) for e in self]


Mirror = tuple[Reflector[PodKey, Pod], Seen]


@asynccontextmanager
async def mirroring(
    client: KubeClient,
    *,
    clock: ImpatientClock | None = None,
    parse: Callable[[Json], Pod | None] = parse_pod,
    handler: Callable[[StoreEvent[Pod]], None] | None = None,
) -> AsyncIterator[Mirror]:
    seen = Seen()
    reflector = Reflector(
        client,
        PodApi.collection,
        key=pod_key,
        parse=parse,
        clock=clock or ImpatientClock(),
        params=PodApi.on_node("node-1"),
        handler=handler or seen.append,
    )
    task = asyncio.create_task(reflector.run(), name="reflector")
    try:
        async with asyncio.timeout(5):
            yield reflector, seen
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_what_was_there_is_listed_before_has_synced(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    for number in range(3):
        api_server.objects.create("pods", pod_json(f"p{number}"))
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        assert seen.names() == [("Added", "p0"), ("Added", "p1"), ("Added", "p2")]
        assert {pod.name for pod in reflector.store.values()} == {"p0", "p1", "p2"}


async def test_an_empty_collection_has_synced_too(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        assert (len(reflector.store), seen) == (0, [])


async def test_a_list_is_consistent_and_selects_the_pods_of_the_node(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    api_server.objects.create("pods", pod_json("elsewhere", nodeName="node-2"))
    async with mirroring(kube_client) as (reflector, _):
        await reflector.store.wait_for_sync()
        assert len(reflector.store) == 0
    (listed,) = api_server.requests_to("GET", "/pods")
    assert listed.query["fieldSelector"] == "spec.nodeName=node-1"
    assert "resourceVersion" not in listed.query


async def test_a_long_list_comes_in_pages(
    api_server: FakeApiServer, kube_client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vkubelet.kube.reflector._PAGE", 4)
    for number in range(10):
        api_server.objects.create("pods", pod_json(f"p{number}"))
    async with mirroring(kube_client) as (reflector, _):
        await reflector.store.wait_for_sync()
        assert len(reflector.store) == 10
    assert len(api_server.requests_to("GET", "/pods")) == 3


async def test_a_list_whose_later_pages_have_expired_is_read_at_once(
    api_server: FakeApiServer, kube_client: KubeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vkubelet.kube.reflector._PAGE", 4)
    for number in range(10):
        api_server.objects.create("pods", pod_json(f"p{number}"))
    pages = kube_client.list_pages

    async def slow_pages(
        path: str, params: dict[str, str] | None = None, *, limit: int = 500
    ) -> AsyncIterator[Json]:
        async for page in pages(path, params, limit=limit):
            yield page
            api_server.objects.create("configmaps", {"metadata": {"generateName": "more-"}})
            api_server.objects.compact()

    monkeypatch.setattr(kube_client, "list_pages", slow_pages)
    async with mirroring(kube_client) as (reflector, _):
        await reflector.store.wait_for_sync()
        assert len(reflector.store) == 10
    assert [r.query.get("limit") for r in api_server.requests_to("GET", "/pods")][:3] == ["4", "4", None]


async def test_changes_arrive_in_order(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        api_server.objects.create("pods", pod_json("web"))
        api_server.objects.patch("pods", "web", {"metadata": {"labels": {"a": "b"}}})
        api_server.objects.delete("pods", "web", grace_period_s=0)
        await api_server.wait_for(lambda: len(seen) == 3)
        added, modified, deleted = seen
        assert isinstance(added, Added)
        assert isinstance(modified, Modified)
        assert isinstance(deleted, Deleted)
        assert (modified.old.labels, modified.new.labels) == ({}, {"a": "b"})
        assert deleted.old is modified.new
        assert len(reflector.store) == 0


async def test_a_pod_replaced_by_another_of_its_name_is_deleted_and_added(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    first = api_server.objects.create("pods", pod_json("web"))
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        api_server.cut_watches()
        gate = api_server.hold("WATCH")
        api_server.objects.delete("pods", "web", grace_period_s=0)
        second = api_server.objects.create("pods", pod_json("web"))
        api_server.objects.compact()
        gate.set()
        await api_server.wait_for(lambda: len(seen) == 3)
        assert seen.names() == [("Added", "web"), ("Deleted", "web"), ("Added", "web")]
        assert reflector.store.get(pod_key(first)) is None
        assert reflector.store.get(pod_key(second)) is not None


async def test_a_broken_watch_goes_on_from_the_last_version_without_a_list(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        await api_server.wait_for(lambda: api_server.watches == 1)
        made = api_server.objects.create("pods", pod_json("before"))
        await api_server.wait_for(lambda: len(seen) == 1)
        api_server.cut_watches()
        api_server.objects.create("pods", pod_json("after"))
        await api_server.wait_for(lambda: len(seen) == 2)
    assert len(api_server.requests_to("GET", "/pods")) == 1
    assert api_server.requests_to("WATCH")[-1].query["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_bookmarks_move_the_version_on(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.bookmark_s = 0.02
    async with mirroring(kube_client) as (reflector, _):
        await reflector.store.wait_for_sync()
        api_server.objects.create("pods", pod_json("elsewhere", nodeName="node-2"))
        version = str(api_server.objects.version)
        await asyncio.sleep(0.06)
        api_server.cut_watches()
        await api_server.wait_for(
            lambda: api_server.requests_to("WATCH")[-1].query["resourceVersion"] == version
        )
    assert len(api_server.requests_to("GET", "/pods")) == 1


async def test_a_version_that_is_too_old_leads_to_a_list(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    gone = api_server.objects.create("pods", pod_json("gone"))
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        await api_server.wait_for(lambda: api_server.watches == 1)
        gate = api_server.hold("WATCH")
        api_server.cut_watches()
        api_server.objects.delete("pods", "gone", grace_period_s=0)
        api_server.objects.create("pods", pod_json("new"))
        api_server.objects.compact()
        gate.set()
        await api_server.wait_for(lambda: len(seen) == 3)
        assert seen.names() == [("Added", "gone"), ("Deleted", "gone"), ("Added", "new")]
        assert pod_key(gone) not in reflector.store
    assert len(api_server.requests_to("GET", "/pods")) == 2


@pytest.mark.parametrize("status", [410, 500, 503, 429, 401, 403])
async def test_every_refusal_is_survived(
    api_server: FakeApiServer, kube_client: KubeClient, status: int
) -> None:
    api_server.fail(status, "GET", "/pods")
    api_server.fail(status, "WATCH", times=2)
    async with mirroring(kube_client) as (_, seen):
        api_server.objects.create("pods", pod_json("web"))
        await api_server.wait_for(lambda: len(seen) == 1)


async def test_dropped_connections_are_survived(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.drop("GET", "/pods", times=3)
    api_server.drop("WATCH", times=3)
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        api_server.objects.create("pods", pod_json("web"))
        await api_server.wait_for(lambda: len(seen) == 1)


async def test_delays_between_failures_double_up_to_half_a_minute_with_jitter(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    api_server.fail(500, "GET", "/pods", times=9)
    clock = ImpatientClock()
    async with mirroring(kube_client, clock=clock) as (reflector, _):
        await reflector.store.wait_for_sync()
    means = [min(0.8 * 2**n, 30.0) for n in range(9)]
    assert all(0.5 * m <= s <= 1.5 * m for s, m in zip(clock.slept, means, strict=True))


async def test_a_longer_delay_is_kept_when_the_server_asks_for_it(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    api_server.fail(429, "GET", "/pods", retry_after=7)
    clock = ImpatientClock()
    async with mirroring(kube_client, clock=clock) as (reflector, _):
        await reflector.store.wait_for_sync()
    assert clock.slept == [7.0]


async def test_an_object_that_makes_no_sense_does_not_hide_the_others(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    api_server.objects.create("pods", pod_json("bad", restartPolicy="Sometimes"))
    api_server.objects.create("pods", pod_json("good"))
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        api_server.objects.create("pods", pod_json("worse", restartPolicy="Sometimes"))
        api_server.objects.create("pods", pod_json("better"))
        await api_server.wait_for(lambda: len(seen) == 2)
        assert seen.names() == [("Added", "good"), ("Added", "better")]


async def test_a_handler_that_raises_does_not_end_the_mirror(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    told: list[str] = []

    def handler(event: StoreEvent[Pod]) -> None:
        told.append(type(event).__name__)
        raise RuntimeError("a bug")

    async with mirroring(kube_client, handler=handler) as (reflector, _):
        await reflector.store.wait_for_sync()
        api_server.objects.create("pods", pod_json("web"))
        api_server.objects.delete("pods", "web", grace_period_s=0)
        await api_server.wait_for(lambda: told == ["Added", "Deleted"])


async def test_an_object_that_parse_turns_down_counts_as_absent(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    def labelled(raw: Json) -> Pod | None:
        return parse_pod(raw) if raw["metadata"].get("labels") else None

    async with mirroring(kube_client, parse=labelled) as (reflector, seen):
        await reflector.store.wait_for_sync()
        api_server.objects.create("pods", pod_json("web"))
        api_server.objects.patch("pods", "web", {"metadata": {"labels": {"a": "b"}}})
        api_server.objects.patch("pods", "web", {"metadata": {"labels": None}})
        await api_server.wait_for(lambda: len(seen) == 2)
        assert seen.names() == [("Added", "web"), ("Deleted", "web")]


async def test_managed_fields_are_not_kept(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.objects.create("pods", pod_json("web", metadata={"managedFields": [{"manager": "kubectl"}]}))
    async with mirroring(kube_client) as (reflector, _):
        await reflector.store.wait_for_sync()
        (pod,) = reflector.store.values()
        assert "managedFields" not in pod.raw["metadata"]


async def test_a_burst_of_events_leaves_turns_for_others(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    async with mirroring(kube_client) as (reflector, seen):
        await reflector.store.wait_for_sync()
        await api_server.wait_for(lambda: api_server.watches == 1)
        for number in range(1000):
            api_server.objects.create("pods", pod_json(f"p{number}"))
        progress = []
        while len(seen) < 1000:
            progress.append(len(seen))
            await asyncio.sleep(0)
        steps = [b - a for a, b in itertools.pairwise(progress)]
        assert max(steps) <= 50


async def test_a_store_keeps_the_value_when_nothing_of_interest_changed() -> None:
    store: Store[str, tuple[int, ...]] = Store()
    assert store.put("a", (1,)) == Added((1,))
    assert store.put("a", (1,)) is None
    assert store.put("a", (2,)) == Modified((1,), (2,))
    assert store.replace([("b", (3,))]) == [Deleted((2,)), Added((3,))]
    assert store.remove("b") == Deleted((3,))
    assert store.remove("b") is None
