"""A pod's way as a trace, seen by an exporter in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from vkubelet import tracing
from vkubelet.errors import ConfigurationError, ProviderError
from vkubelet.model.keys import PodKey

UID = "8a464a82-8ca0-4b2d-b187-c42d8f4be5f0"
WEB = PodKey("default", "web", UID)

Spans = Callable[[], dict[str, Any]]


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Ends tracing and gives the finished spans by name."""
    exporter = InMemorySpanExporter()
    end = tracing.configure(exporter, node_name="node-1", version="0.1.0")

    def finished() -> dict[str, Any]:
        end()
        return {each.name: each for each in exporter.get_finished_spans()}

    yield finished
    end()


def test_a_span_costs_nothing_when_nobody_wants_it() -> None:
    assert tracing.pod_span("sync", WEB) is tracing.pod_span("sync", WEB)
    with tracing.pod_span("sync", WEB), tracing.span("part"):
        pass


def test_a_pod_is_a_trace_whose_id_is_its_uid(spans: Spans) -> None:
    with tracing.pod_span("watch event", WEB, kind="Added"):
        pass
    with tracing.pod_span("sync pod", WEB):
        pass

    found = spans()

    assert {each.context.trace_id for each in found.values()} == {uuid.UUID(UID).int}
    assert found["watch event"].attributes == {
        "k8s.pod.uid": UID,
        "k8s.pod.name": "web",
        "k8s.namespace.name": "default",
        "kind": "Added",
    }


def test_parts_are_children_of_what_is_under_way(spans: Spans) -> None:
    with tracing.pod_span("sync pod", WEB), tracing.span("provider.create_pod"):
        pass

    found = spans()

    part, whole = found["provider.create_pod"], found["sync pod"]
    assert part.parent.span_id == whole.context.span_id
    assert part.context.trace_id == whole.context.trace_id
    assert whole.parent is None


def test_pods_do_not_get_into_each_others_traces(spans: Spans) -> None:
    other = PodKey("default", "db", "not-a-uuid")
    with tracing.pod_span("outer", WEB), tracing.pod_span("inner", other):
        pass
    with tracing.span("alone"):
        pass

    found = spans()

    ids = {each.context.trace_id for each in found.values()}
    assert len(ids) == 3
    assert 0 not in ids


def test_an_error_is_named_and_its_message_stays_out(spans: Spans) -> None:
    with pytest.raises(ProviderError), tracing.pod_span("sync pod", WEB):
        raise ProviderError("the password is 1234")

    found = spans()["sync pod"]

    assert found.attributes["error.type"] == "ProviderError"
    assert not found.status.is_ok
    assert "1234" not in found.to_json()


def test_the_resource_says_who_speaks(spans: Spans) -> None:
    with tracing.span("part"):
        pass

    attributes = spans()["part"].resource.attributes
    assert (attributes["service.name"], attributes["k8s.node.name"]) == ("vkubelet", "node-1")


def test_without_the_packages_the_option_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        __import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None
    )

    with pytest.raises(ConfigurationError, match=r"--tracing-endpoint .* pip install 'vkubelet\[otel\]'"):
        tracing.otlp_exporter("http://localhost:4318")


def test_the_collector_is_asked_for_at_the_path_of_traces() -> None:
    exporter: Any = tracing.otlp_exporter("http://localhost:4318/")

    assert exporter._endpoint == "http://localhost:4318/v1/traces"
    exporter.shutdown()
