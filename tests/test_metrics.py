"""What the node counts of itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import observed, observed_pod, running, terminated
from tests.clocks import ManualClock, settle
from vkubelet import metrics
from vkubelet.controllers.pod_counts import publish_pod_counts
from vkubelet.controllers.pod_records import PodRecords
from vkubelet.controllers.work_queue import WorkQueue
from vkubelet.errors import ProviderUnavailableError
from vkubelet.instrumented import instrument
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import Waiting


class Watched:
    """A sample of our own metrics, and what it has grown by since."""

    def __init__(self, name: str, /, **labels: str) -> None:
        self._name = name
        self._labels = labels
        self._before = self.value

    @property
    def value(self) -> float:
        return metrics.REGISTRY.get_sample_value(self._name, self._labels) or 0.0

    @property
    def growth(self) -> float:
        return self.value - self._before


# --- names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "kubelet_desired_pods",
        "kubelet_http_requests_total",
        "kubelet_http_requests_duration_seconds",
        "kubelet_node_name",
        "kubelet_pod_start_duration_seconds",
        "kubelet_pod_status_sync_duration_seconds",
        "kubelet_pod_worker_duration_seconds",
        "kubelet_running_containers",
        "kubelet_running_pods",
        "kubelet_runtime_operations_total",
        "kubelet_runtime_operations_errors_total",
        "kubelet_runtime_operations_duration_seconds",
        "kubelet_started_containers_total",
        "kubelet_started_pods_total",
        "process_resident_memory_bytes",
        "rest_client_requests_total",
        "rest_client_request_duration_seconds",
        "vkubelet_provider_calls_total",
        "vkubelet_stream_connections",
        "vkubelet_stream_sent_bytes_total",
        "vkubelet_watch_restarts_total",
        "workqueue_adds_total",
        "workqueue_depth",
        "workqueue_queue_duration_seconds",
    ],
)
def test_dashboards_find_their_metrics(name: str) -> None:
    assert f"# TYPE {name} " in metrics.exposition(metrics.REGISTRY)


@pytest.mark.parametrize("registry", [metrics.REGISTRY, metrics.PROBES])
def test_all_that_is_exposed_can_be_read(registry: CollectorRegistry) -> None:
    text = metrics.exposition(registry)

    assert list(text_string_to_metric_families(text))
    assert "_created" not in text


# --- who counts -------------------------------------------------------------------------------------------


async def test_a_queue_tells_how_long_keys_wait_and_are_worked_on() -> None:
    clock = ManualClock()
    added = Watched("workqueue_adds_total", name="counted")
    retried = Watched("workqueue_retries_total", name="counted")
    waited = Watched("workqueue_queue_duration_seconds_sum", name="counted")
    worked = Watched("workqueue_work_duration_seconds_sum", name="counted")

    async def work(key: str) -> None:
        await clock.sleep(2)
        raise ProviderUnavailableError("later", retry_after_s=1000)

    queue = WorkQueue("counted", work, workers=1, clock=clock)
    running_queue = asyncio.create_task(queue.run())
    await settle()
    queue.add("a")
    queue.add("b")
    await settle()
    assert Watched("workqueue_depth", name="counted").value == 1
    await clock.advance(5)

    assert (added.growth, retried.growth, waited.growth, worked.growth) == (2, 2, 2, 4)
    running_queue.cancel()
    await asyncio.wait([running_queue])


class Contract:
    """Whose implementations are observed."""

    def __init_subclass__(cls) -> None:
        instrument(cls, {"act": "act", "look": "look"}, metrics.provider_call)

    async def act(self, number: int) -> int:
        raise AssertionError

    async def look(self) -> int:
        return 1


class Implementation(Contract):
    async def act(self, number: int) -> int:
        """Twice the number."""
        if number < 0:
            raise ProviderUnavailableError("no")
        return number * 2


def calls(**labels: str) -> Watched:
    return Watched("vkubelet_provider_calls_total", **labels)


async def test_calls_are_counted_by_their_outcome() -> None:
    fine, failed = calls(call="act", code="OK"), calls(call="act", code="ProviderUnavailableError")
    taken = Watched("vkubelet_provider_call_duration_seconds_count", call="act")

    assert await Implementation().act(2) == 4
    with pytest.raises(ProviderUnavailableError):
        await Implementation().act(-1)

    assert (fine.growth, failed.growth, taken.growth) == (1, 1, 2)


async def test_what_is_inherited_is_not_counted_twice() -> None:
    class Further(Implementation):
        pass

    fine = calls(call="act", code="OK")
    await Further().act(1)

    assert fine.growth == 1
    assert Further.act.__doc__ == "Twice the number."


async def test_a_call_that_is_cancelled_is_counted_as_such() -> None:
    class Waiting_(Contract):  # noqa: N801 - a name of its own, beside the state of that name
        async def act(self, number: int) -> int:
            await asyncio.Event().wait()
            return number

    cancelled = calls(call="act", code="CancelledError")
    task = asyncio.create_task(Waiting_().act(1))
    await settle()
    task.cancel()
    await asyncio.wait([task])

    assert cancelled.growth == 1


def test_sandboxes_are_the_pods_that_were_started() -> None:
    started, failed = Watched("kubelet_started_pods_total"), Watched("kubelet_started_pods_errors_total")
    with metrics.runtime_operation("run_podsandbox"):
        pass
    with pytest.raises(ProviderUnavailableError), metrics.runtime_operation("run_podsandbox"):
        raise ProviderUnavailableError("no")

    assert (started.growth, failed.growth) == (1, 1)


def test_a_request_without_an_answer_is_counted_as_client_go_does() -> None:
    labels = {"method": "GET", "host": "api:6443"}
    lost = Watched("rest_client_requests_total", code="<error>", **labels)
    found = Watched("rest_client_requests_total", code="404", **labels)
    with pytest.raises(OSError, match="away"), metrics.RestRequest("GET", "api:6443"):
        raise OSError("away")
    with metrics.RestRequest("GET", "api:6443") as request:
        request.code = "404"

    assert (lost.growth, found.growth) == (1, 1)


def test_the_build_is_named_as_the_node_names_it() -> None:
    metrics.set_build_info("0.1.0", "docker", "node-1", "v1.36.0-docker-vkubelet-0.1.0")

    named = {
        sample.labels["git_version"]: sample.labels
        for family in text_string_to_metric_families(metrics.exposition(metrics.REGISTRY))
        if family.name == "kubernetes_build_info"
        for sample in family.samples
    }
    labels = named["v1.36.0-docker-vkubelet-0.1.0"]
    assert (labels["major"], labels["minor"]) == ("1", "36")


def test_watches_are_counted_by_resource() -> None:
    restarts = Watched("vkubelet_watch_restarts_total", resource="pods")
    metrics.watch_restarted("/api/v1/pods")

    assert restarts.growth == 1


# --- pods -------------------------------------------------------------------------------------------------


def test_pods_and_containers_are_counted_when_they_are_scraped() -> None:
    records = PodRecords()
    wanted: Mapping[str, None] = {"a": None, "b": None, "c": None}
    publish_pod_counts(records, wanted)
    records.observe(
        observed_pod(
            PodKey("default", "web", "uid-web"),
            observed("one", running(), container_id="x://1"),
            observed("two", terminated(), container_id="x://2"),
            observed("three", Waiting("ContainerCreating"), container_id=""),
        )
    )
    records.of(PodKey("default", "unseen", "uid"))

    found = {
        state: Watched("kubelet_running_containers", container_state=state).value
        for state in ("running", "exited", "created")
    }

    assert found == {"running": 1, "exited": 1, "created": 0}
    assert Watched("kubelet_running_pods").value == 1
    assert Watched("kubelet_desired_pods", static="").value == 3


# --- documents --------------------------------------------------------------------------------------------


def test_every_metric_of_ours_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    exposed = re.findall(r"^# TYPE (\S+) ", metrics.exposition(metrics.REGISTRY), re.MULTILINE)

    missing = [
        name
        for name in exposed
        if not name.startswith("process_") and name not in page and not _is_abbreviated(name, page)
    ]
    assert missing == []


def _is_abbreviated(name: str, page: str) -> bool:
    """``…_errors_total`` after the metric whose name begins alike."""
    return any(
        name.endswith(ending) and name.removesuffix(ending) in page
        for ending in re.findall(r"`…(_\w+)`", page)
    )
