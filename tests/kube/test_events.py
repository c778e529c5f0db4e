"""Events: counted, combined, limited, and never in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.builders import make_pod
from tests.clocks import ManualClock
from tests.fake_api_server import FakeApiServer
from vkubelet.kube.client import KubeClient
from vkubelet.kube.event_correlator import EventCorrelator, EventType, ObjectReference, Occurrence
from vkubelet.kube.events import EventRecorder, node_reference, pod_reference
from vkubelet.model.pod import Json

POD = ObjectReference("Pod", "default", "web", "uid-web")


@asynccontextmanager
async def recording(
    client: KubeClient, clock: ManualClock, *, busy: Callable[[], bool] = lambda: False, qps: float = 0
) -> AsyncIterator[EventRecorder]:
    recorder = EventRecorder(client, node_name="node-1", clock=clock, busy=busy, qps=qps, burst=2)
    task = asyncio.create_task(recorder.run())
    try:
        yield recorder
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def events(server: FakeApiServer) -> list[tuple[str, str, int]]:
    return [(e["reason"], e["message"], e["count"]) for e in server.objects.list("events")]


async def test_an_event_looks_like_the_kubelets(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    pod = make_pod("web")
    async with recording(kube_client, ManualClock()) as recorder:
        recorder.record(pod_reference(pod, pod.containers[0]), "Normal", "Started", "Started container main")
        await recorder.flush()
    (event,) = api_server.objects.list("events")
    name = event.pop("metadata")["name"]
    assert name.startswith("web.")
    assert event == {
        "kind": "Event",
        "apiVersion": "v1",
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "default",
            "name": "web",
            "uid": "uid-web",
            "resourceVersion": "1",
            "fieldPath": "spec.containers{main}",
        },
        "type": "Normal",
        "reason": "Started",
        "message": "Started container main",
        "source": {"component": "kubelet", "host": "node-1"},
        "reportingComponent": "kubelet",
        "reportingInstance": "node-1",
        "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "count": 1,
    }


async def test_a_nodes_events_stand_in_the_default_namespace(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    async with recording(kube_client, ManualClock()) as recorder:
        recorder.record(node_reference("node-1"), "Normal", "Starting", "")
        await recorder.flush()
    (event,) = api_server.objects.list("events", "default")
    assert (event["involvedObject"]["kind"], event["involvedObject"]["uid"]) == ("Node", "node-1")


async def test_the_same_again_is_counted(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    clock = ManualClock()
    async with recording(kube_client, clock) as recorder:
        for _ in range(3):
            recorder.record(POD, "Warning", "BackOff", "again")
            await recorder.flush()
            await clock.advance(5)
    (event,) = api_server.objects.list("events")
    assert (event["count"], event["firstTimestamp"], event["lastTimestamp"]) == (
        3,
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:10Z",
    )
    assert len(api_server.requests_to("POST")) == 1


async def test_an_event_that_has_expired_is_made_anew_with_its_count(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    async with recording(kube_client, ManualClock()) as recorder:
        recorder.record(POD, "Warning", "BackOff", "again")
        await recorder.flush()
        api_server.objects.delete("events", api_server.objects.list("events")[0]["metadata"]["name"])
        recorder.record(POD, "Warning", "BackOff", "again")
        await recorder.flush()
    assert events(api_server) == [("BackOff", "again", 2)]


async def test_similar_events_are_combined_from_the_tenth_on(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    async with recording(kube_client, ManualClock()) as recorder:
        for number in range(12):
            recorder.record(POD, "Warning", "FailedMount", f"volume {number}")
        await recorder.flush()
    found = events(api_server)
    assert len(found) == 10
    assert ("FailedMount", "(combined from similar events): volume 11", 3) in found


async def test_ten_minutes_without_a_similar_event_end_the_combining(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    clock = ManualClock()
    async with recording(kube_client, clock) as recorder:
        for number in range(10):
            recorder.record(POD, "Warning", "FailedMount", f"volume {number}")
        await recorder.flush()
        await clock.advance(601)
        recorder.record(POD, "Warning", "FailedMount", "volume 99")
        await recorder.flush()
    assert ("FailedMount", "volume 99", 1) in events(api_server)


def occurrence(number: int, at_s: float = 0.0, kind: EventType = "Warning") -> Occurrence:
    return Occurrence(POD, kind, f"Reason{number}", "m", at_s, "t", f"name-{number}")


def test_an_object_has_a_burst_of_25_and_one_more_every_5_minutes() -> None:
    correlator = EventCorrelator()
    told = [correlator.observe(occurrence(n)) is not None for n in range(30)]
    assert told == [True] * 25 + [False] * 5
    assert correlator.observe(occurrence(40, kind="Normal")) is not None
    assert correlator.observe(occurrence(50, at_s=299)) is None
    assert correlator.observe(occurrence(51, at_s=301)) is not None
    assert correlator.observe(occurrence(52, at_s=302)) is None


def test_the_memory_of_kinds_is_bounded() -> None:
    correlator = EventCorrelator()
    for number in range(5000):
        about = ObjectReference("Pod", "default", f"p{number}", f"u{number}")
        correlator.observe(Occurrence(about, "Normal", "R", "m", 0.0, "t", f"n{number}"))
    for recent in (correlator._told, correlator._similar, correlator._allowances):
        assert len(recent._values) <= 4096


async def test_recording_returns_at_once_and_drops_what_is_too_much(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    gate = api_server.hold("POST", "/events")
    async with recording(kube_client, ManualClock()) as recorder:
        for number in range(1100):
            recorder.record(ObjectReference("Pod", "default", f"p{number}", f"u{number}"), "Normal", "R", "m")
        assert recorder.dropped == 100
        gate.set()
        await recorder.flush(60.0)
    names = {e["involvedObject"]["name"] for e in api_server.objects.list("events")}
    assert names == {f"p{number}" for number in range(1000)}


async def test_only_one_request_is_under_way(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    gate = api_server.hold("POST", "/events")
    async with recording(kube_client, ManualClock()) as recorder:
        for reason in "abc":
            recorder.record(POD, "Normal", reason, "m")
        await api_server.wait_for(lambda: len(api_server.requests) == 1)
        gate.set()
        await recorder.flush()
    assert len(api_server.requests) == 3


async def test_events_give_way_to_what_matters_more_for_some_seconds(
    api_server: FakeApiServer, kube_client: KubeClient
) -> None:
    clock = ManualClock()
    async with recording(kube_client, clock, busy=lambda: True) as recorder:
        recorder.record(POD, "Normal", "Started", "m")
        await clock.advance(9)
        assert api_server.requests == []
        await clock.advance(2)
        await api_server.wait_for(lambda: len(api_server.requests) == 1)


async def test_events_keep_to_their_rate(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    clock = ManualClock()
    async with recording(kube_client, clock, qps=1) as recorder:
        for reason in "abcd":
            recorder.record(POD, "Normal", reason, "m")
        await api_server.wait_for(lambda: len(events(api_server)) == 2 and clock.next_due_s() is not None)
        await clock.advance(1.01)
        await api_server.wait_for(lambda: len(events(api_server)) == 3)


async def test_an_absent_server_is_tried_again(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    clock = ManualClock()
    api_server.fail(503, "POST", times=2)
    async with recording(kube_client, clock) as recorder:
        recorder.record(POD, "Normal", "Started", "m")
        await api_server.wait_for(lambda: clock.next_due_s() is not None)
        await clock.advance(10)
        await api_server.wait_for(lambda: len(api_server.requests) == 2 and clock.next_due_s() is not None)
        await clock.advance(10)
        await recorder.flush()
    assert events(api_server) == [("Started", "m", 1)]


@pytest.mark.parametrize("status", [403, 404, 409, 422])
async def test_a_refused_event_is_dropped_and_the_next_one_told(
    api_server: FakeApiServer, kube_client: KubeClient, status: int
) -> None:
    api_server.fail(status, "POST")
    async with recording(kube_client, ManualClock()) as recorder:
        recorder.record(POD, "Normal", "Killing", "m")
        recorder.record(POD, "Normal", "Started", "m")
        await recorder.flush()
    assert events(api_server) == [("Started", "m", 1)]


async def test_a_flush_ends_in_time(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    api_server.hold("POST", "/events")
    async with recording(kube_client, ManualClock()) as recorder:
        recorder.record(POD, "Normal", "Started", "m")
        await recorder.flush(0.05)
        assert recorder.dropped == 1


async def test_names_are_valid_and_differ(api_server: FakeApiServer, kube_client: KubeClient) -> None:
    about = ObjectReference("Pod", "default", "a" * 236 + "." + "b" * 16, "u")
    async with recording(kube_client, ManualClock()) as recorder:
        recorder.record(about, "Normal", "A", "m")
        recorder.record(about, "Normal", "B", "m")
        await recorder.flush()
    made: list[Json] = [r.body for r in api_server.requests]
    names = [body["metadata"]["name"] for body in made]
    assert len(set(names)) == 2
    assert all(len(name) <= 253 and ".." not in name for name in names)
