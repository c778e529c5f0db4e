"""What of a pod's way is counted and traced."""

from __future__ import annotations

from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.controllers.pod_node import FakeNode
from tests.test_metrics import Watched
from vkubelet import tracing
from vkubelet.errors import ProviderUnavailableError


async def test_a_pod_that_comes_to_run_is_counted_once(node: FakeNode) -> None:
    started = Watched("kubelet_pod_start_duration_seconds_count")
    created = Watched("kubelet_pod_worker_duration_seconds_count", operation_type="create")
    told = Watched("kubelet_pod_status_sync_duration_seconds_count")

    key = await node.create()
    await node.advance(300)
    await node.delete(key)
    await node.advance(60)

    assert (started.growth, created.growth) == (1, 1)
    assert told.growth >= 2  # Running, and its end


async def test_refused_calls_of_the_provider_are_counted_by_their_error(node: FakeNode) -> None:
    refused = Watched(
        "vkubelet_provider_calls_total", call="create_pod", code=ProviderUnavailableError.__name__
    )
    node.platform.fail("create_pod", ProviderUnavailableError("away"))

    await node.create()
    await node.advance(5)

    assert refused.growth == 1


async def test_a_pods_way_is_in_its_trace(node: FakeNode) -> None:
    exporter = InMemorySpanExporter()
    end = tracing.configure(exporter, node_name="node-1", version="0")
    key = await node.create()
    await node.advance(5)
    end()

    found = {span.name: span for span in exporter.get_finished_spans()}
    sync, write = found["sync pod"], found["write pod status"]
    assert sync.context.trace_id == write.context.trace_id
    assert sync.attributes["k8s.pod.uid"] == key.uid
    assert found["create_pod"].parent.span_id == sync.context.span_id
