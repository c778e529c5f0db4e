"""The Summary API and the metrics of pods: their exact form, and how readings are shared."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.builders import make_pod
from tests.clocks import ManualClock
from tests.server.figures import SECOND, summary
from tests.server.kubelet import ADMIN_TOKEN, Files, Pods, serving
from vkubelet import metrics
from vkubelet.errors import ProviderUnavailableError
from vkubelet.model.stats import CpuStats, NodeStats, StatsSummary
from vkubelet.server import exposition
from vkubelet.server.app import Powers
from vkubelet.server.cadvisor_metrics import cadvisor_metrics
from vkubelet.server.metrics import is_long_running, path_bucket
from vkubelet.server.resource_metrics import resource_metrics
from vkubelet.server.stats import StatsReader
from vkubelet.server.summary import summary_json
from vkubelet.server.usage_rates import UsageRates

Form = Callable[[StatsSummary | None], str]
GOLDEN = Path(__file__).parent / "golden"


def assert_golden(name: str, text: str) -> None:
    """`REWRITE_GOLDEN=1` writes the file instead; look at the difference before it is committed."""
    file = GOLDEN / name
    if os.environ.get("REWRITE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text()


class Source:
    """A `StatsSource` that a test steers."""

    def __init__(self) -> None:
        self.asked: list[bool] = []
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def stats_summary(self, *, only_cpu_and_memory: bool = False) -> StatsSummary:
        self.asked.append(only_cpu_and_memory)
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return summary()


def powers(source: Source) -> Powers:
    return Powers(pods=Pods(make_pod()), stats=source)


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every sample, as a client of Prometheus' reads them."""
    return {
        sample.name: [(s.labels, s.value) for s in each.samples if s.name == sample.name]
        for each in text_string_to_metric_families(text)
        for sample in each.samples
    }


# --- the exact form ---------------------------------------------------------------------------------------


def test_the_summary_has_the_form_of_the_kubelets() -> None:
    rates = UsageRates()
    summary_json(summary(90, 2_000_000_000), "node-1", rates)

    shown = summary_json(summary(), "node-1", rates)

    assert_golden("summary.json", orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode() + "\n")


def test_the_brief_summary_has_cpu_and_memory_alone() -> None:
    shown = summary_json(summary(), "node-1", UsageRates(), only_cpu_and_memory=True)

    assert_golden("summary-brief.json", orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode() + "\n")


def test_resource_metrics_have_the_form_of_the_kubelets() -> None:
    assert_golden("resource.txt", resource_metrics(summary()))


def test_cadvisor_metrics_have_the_form_of_the_kubelets() -> None:
    assert_golden("cadvisor.txt", cadvisor_metrics(summary()))


@pytest.mark.parametrize("form", [resource_metrics, cadvisor_metrics])
def test_a_scrape_that_fails_says_so_and_nothing_else(form: Form) -> None:
    text = form(None)

    assert {line.split()[-1] for line in text.splitlines() if not line.startswith("#")} == {"1"}
    assert "scrape_error" in text


@pytest.mark.parametrize("form", [resource_metrics, cadvisor_metrics])
def test_prometheus_understands_every_sample(form: Form) -> None:
    text = form(summary())

    families = list(text_string_to_metric_families(text))

    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert sum(len(each.samples) for each in families) == len(lines)
    assert 'agent-"1"' in {sample.labels.get("pod") for each in families for sample in each.samples}


def test_what_metrics_server_reads_is_there_for_each_container_with_its_time() -> None:
    [usage] = [
        each
        for each in text_string_to_metric_families(resource_metrics(summary()))
        if each.name == "container_cpu_usage_seconds"
    ]

    [sample] = usage.samples
    assert sample.labels == {"container": "main", "namespace": "default", "pod": "web"}
    assert sample.value == 2.5
    assert str(sample.timestamp) == "1767225700.25"


def test_only_containers_have_the_label_that_queries_tell_them_by() -> None:
    found = samples(cadvisor_metrics(summary()))["container_memory_working_set_bytes"]

    assert {labels["container"]: value for labels, value in found if labels["container"]} == {
        "main": 30_000_000,
        "half": 7,
    }
    assert [value for labels, value in found if labels["id"] == "/"] == [5_000]


# --- rates ------------------------------------------------------------------------------------------------


def rate(rates: UsageRates, at_s: float, used_s: float) -> int | None:
    rates.begin()
    found = rates.rate("key", CpuStats(int(at_s * SECOND), int(used_s * SECOND)))
    rates.end()
    return found


def test_a_rate_takes_two_readings_a_second_apart() -> None:
    rates = UsageRates()

    assert [rate(rates, *each) for each in ((0, 0), (0.5, 0.5), (2, 1))] == [None, None, SECOND // 2]


def test_many_readers_do_not_shorten_the_window() -> None:
    rates = UsageRates()
    for each in ((0, 0), (10, 5)):
        rate(rates, *each)

    assert [rate(rates, *each) for each in ((11, 6), (19, 6), (20, 7))] == [
        SECOND // 2,
        SECOND // 2,
        SECOND // 5,
    ]


def test_a_counter_that_went_back_starts_afresh() -> None:
    rates = UsageRates()
    for each in ((0, 5), (10, 10)):
        rate(rates, *each)

    assert [rate(rates, *each) for each in ((20, 1), (30, 2))] == [None, SECOND // 10]


def test_what_was_not_in_a_reading_is_forgotten() -> None:
    rates = UsageRates()
    rate(rates, 0, 0)
    rates.begin()
    rates.end()

    assert rate(rates, 10, 5) is None


# --- sharing ----------------------------------------------------------------------------------------------


async def test_scrapers_that_come_together_share_one_reading() -> None:
    source, clock = Source(), ManualClock()
    reader = StatsReader(source, clock)

    found = await asyncio.gather(*(reader.read(only_cpu_and_memory=False) for _ in range(3)))
    await reader.read(only_cpu_and_memory=True)

    assert source.asked == [False]
    assert all(each is found[0] for each in found)


async def test_a_brief_reading_is_not_shown_to_those_who_want_all() -> None:
    source = Source()
    reader = StatsReader(source, ManualClock())

    await reader.read(only_cpu_and_memory=True)
    await reader.read(only_cpu_and_memory=False)

    assert source.asked == [True, False]


async def test_a_reading_is_taken_afresh_after_a_second() -> None:
    source, clock = Source(), ManualClock()
    reader = StatsReader(source, clock)

    for _ in range(2):
        await reader.read(only_cpu_and_memory=True)
        await clock.advance(1)

    assert source.asked == [True, True]


async def test_a_failure_is_not_shared_with_those_who_come_later() -> None:
    source = Source()
    source.error = ProviderUnavailableError("the engine is away")
    reader = StatsReader(source, ManualClock())
    with pytest.raises(ProviderUnavailableError):
        await reader.read(only_cpu_and_memory=True)

    source.error = None
    assert await reader.read(only_cpu_and_memory=True) == summary()


async def test_a_client_that_leaves_takes_nothing_from_the_others() -> None:
    source = Source()
    source.answers.clear()
    reader = StatsReader(source, ManualClock())
    leaving = asyncio.create_task(reader.read(only_cpu_and_memory=True))
    staying = asyncio.create_task(reader.read(only_cpu_and_memory=True))
    await asyncio.sleep(0)

    leaving.cancel()
    source.answers.set()

    assert await staying == summary()
    assert source.asked == [True]


# --- endpoints --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_summary_is_served_by_get_and_post(files: Files, method: str) -> None:
    async with (
        serving(files, powers(Source())) as kubelet,
        kubelet.session() as session,
        session.request(method, "/stats/summary") as response,
    ):
        assert response.content_type == "application/json"
        assert (await response.json())["node"]["nodeName"] == "node-1"


async def test_only_cpu_and_memory_are_read_when_nothing_else_is_asked_for(files: Files) -> None:
    source = Source()
    async with serving(files, powers(source)) as kubelet:
        status, text = await kubelet.get("/stats/summary?only_cpu_and_memory=true")

    assert status == 200
    assert source.asked == [True]
    assert "network" not in orjson.loads(text)["pods"][0]


async def test_a_summary_that_cannot_be_made_is_an_error(files: Files) -> None:
    source = Source()
    source.error = ProviderUnavailableError("the engine is away")
    async with serving(files, powers(source)) as kubelet:
        assert await kubelet.get("/stats/summary") == (500, "Internal Error: the engine is away")
        status, text = await kubelet.get("/metrics/resource")

    assert status == 200
    assert "resource_scrape_error 1" in text


@pytest.mark.parametrize("path", ["/stats/summary", "/metrics/resource", "/metrics/cadvisor"])
async def test_a_provider_without_statistics_is_told_apart_from_a_failure(files: Files, path: str) -> None:
    async with serving(files) as kubelet:
        assert await kubelet.get(path) == (501, "this node's provider has no statistics\n")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/probes"])
async def test_metrics_are_prometheus_text_and_can_be_read(files: Files, path: str) -> None:
    async with (
        serving(files, powers(Source())) as kubelet,
        kubelet.session() as session,
        session.get(path, headers={"Accept": "application/openmetrics-text,*/*;q=0.1"}) as response,
    ):
        text = await response.text()

    assert response.headers["Content-Type"] == exposition.CONTENT_TYPE
    assert list(text_string_to_metric_families(text))


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("identity", False), ("gzip;q=0", False), ("", False)],
)
async def test_a_scrape_is_compressed_for_those_who_accept_it(
    files: Files, accepted: str, compressed: bool
) -> None:
    async with (
        serving(files, powers(Source())) as kubelet,
        kubelet.session() as session,
        session.get("/metrics/cadvisor", headers={"Accept-Encoding": accepted}) as response,
    ):
        text = await response.text()

    assert (response.headers.get("Content-Encoding") == "gzip") is compressed
    assert text == cadvisor_metrics(summary())


@pytest.mark.parametrize(
    ("path", "bucket"),
    [
        ("/exec/default/web/main", "exec"),
        ("/metrics", "metrics"),
        ("/metrics/cadvisor", "metrics/cadvisor"),
        ("/metrics/../../etc", "other"),
        ("/healthz/ping", "healthz"),
        ("/anything/else", "other"),
        ("/", "other"),
    ],
)
def test_requests_are_counted_under_few_words(path: str, bucket: str) -> None:
    assert path_bucket(path) == bucket


def test_streams_are_long_running_requests() -> None:
    assert [each for each in ("exec", "attach", "portForward", "pods") if is_long_running(each)] == [
        "exec",
        "attach",
        "portForward",
    ]


async def test_requests_are_counted(files: Files) -> None:
    def count() -> float:
        labels = {"method": "GET", "path": "pods", "server_type": "readwrite", "long_running": "false"}
        return metrics.REGISTRY.get_sample_value("kubelet_http_requests_total", labels) or 0

    before = count()
    async with serving(files) as kubelet:
        await kubelet.get("/pods", ADMIN_TOKEN)

    assert count() == before + 1


async def test_system_logs_are_refused_as_the_kubelet_does_without_them(files: Files) -> None:
    async with serving(files) as kubelet:
        assert await kubelet.get("/logs/") == (405, "logs endpoint is disabled.\n")
        assert (await kubelet.get("/logs/syslog"))[0] == 405


def test_a_node_without_pods_has_a_summary() -> None:
    empty = StatsSummary(NodeStats(0), ())

    assert summary_json(empty, "n", UsageRates()) == {
        "node": {"nodeName": "n", "startTime": "1970-01-01T00:00:00Z"},
        "pods": [],
    }
    assert "scrape_error 0" in resource_metrics(empty)


@pytest.mark.parametrize("value", ["plain", 'quo"te', "back\\slash", "line\nbreak"])
def test_labels_are_escaped_so_that_they_come_back_as_they_were(value: str) -> None:
    text = exposition.family("m", "gauge", "words", [f'{{l="{exposition.escaped(value)}"}} 1'])

    [family] = text_string_to_metric_families(text)
    assert family.samples[0].labels == {"l": value}
