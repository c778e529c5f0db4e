"""Statistics and metrics as their users read them, beside the Docker engine's own and by metrics-server."""

from __future__ import annotations

import gzip
import http.client
import http.server
import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from e2e.harness import manifests, network, pods
from e2e.harness.cluster import Cluster
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.kubectl import Kubectl
from e2e.harness.metrics_server import metrics_server
from e2e.harness.vkubelet import Vkubelet
from e2e.harness.waiting import wait_until

NODE = "docker-node"
MIB = 1 << 20
BURNING = "while true; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; done"
BURNING_WHEN_TOLD = (
    "trap 'exit 0' TERM; while true; do if [ -e /tmp/load ]; "
    "then i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; else sleep 0.2 & wait $!; fi; done"
)
RESOURCES = {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def summary(kubectl: Kubectl, node: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        kubectl.run("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary")
    )
    return found


def pod_stats(kubectl: Kubectl, node: str, name: str) -> dict[str, Any] | None:
    for pod in summary(kubectl, node)["pods"]:
        if pod["podRef"]["name"] == name and pod["podRef"]["namespace"] == kubectl.namespace:
            found: dict[str, Any] = pod
            return found
    return None


def metrics(kubectl: Kubectl, node: str, path: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Samples by name."""
    text = kubectl.run("get", "--raw", f"/api/v1/nodes/{node}/proxy/metrics{path}")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


# --- beside the engine ------------------------------------------------------------------------------------


def test_the_figures_agree_with_the_engines(
    kubectl: Kubectl, vkubelet_docker: Vkubelet, docker_engine: DockerEngine
) -> None:
    script = "dd if=/dev/zero of=/dev/shm/data bs=1M count=20 2>/dev/null; " + BURNING
    container = manifests.container(command=shell(script), resources=RESOURCES)
    kubectl.apply(manifests.pod("busy", NODE, containers=[container]))
    [pod] = pods.wait_ready(kubectl, "busy")
    container_id = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("docker://")
    time.sleep(3)  # for something to be counted

    before = engine_stats(docker_engine, container_id)
    time.sleep(1.1)  # a reading is shared for a second
    stats = pod_stats(kubectl, NODE, "busy")
    after = engine_stats(docker_engine, container_id)

    assert stats is not None
    [shown] = stats["containers"]
    assert before["cpu"] <= shown["cpu"]["usageCoreNanoSeconds"] <= after["cpu"]
    assert math.isclose(shown["memory"]["workingSetBytes"], after["memory"], abs_tol=2 * MIB)
    assert shown["memory"]["workingSetBytes"] > 20 * MIB
    assert shown["memory"]["availableBytes"] == 128 * MIB - shown["memory"]["workingSetBytes"]
    assert stats["cpu"]["usageCoreNanoSeconds"] >= shown["cpu"]["usageCoreNanoSeconds"]
    assert stats["network"]["name"] == "eth0"
    assert stats["process_stats"]["process_count"] >= 2  # the sandbox and the shell


def engine_stats(engine: DockerEngine, container_id: str) -> dict[str, int]:
    """As ``docker stats`` shows them."""
    _, answer = engine.request("GET", f"/containers/{container_id}/stats?stream=false&one-shot=true")
    memory = answer["memory_stats"]
    inactive = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
    return {"cpu": answer["cpu_stats"]["cpu_usage"]["total_usage"], "memory": memory["usage"] - inactive}


def test_the_rate_of_a_busy_container_is_what_its_limit_lets_it_use(
    kubectl: Kubectl, vkubelet_docker: Vkubelet
) -> None:
    container = manifests.container(command=shell(BURNING), resources=RESOURCES)
    kubectl.apply(manifests.pod("burning", NODE, containers=[container]))
    pods.wait_ready(kubectl, "burning")

    def rate() -> int | None:
        stats = pod_stats(kubectl, NODE, "burning")
        containers = stats["containers"] if stats else []
        found: int | None = containers[0].get("cpu", {}).get("usageNanoCores") if containers else None
        return found

    found = wait_until(rate, timeout_s=30, describe="a rate")
    assert 0.1e9 < found < 0.25e9


def test_what_is_written_is_measured(kubectl: Kubectl, vkubelet_docker: Vkubelet) -> None:
    write = "dd if=/dev/zero of=/data bs=1M count=3; cp /data /scratch/data; " + " ".join(manifests.SLEEP[2:])
    container = manifests.container(
        command=shell(write), volumeMounts=[{"name": "scratch", "mountPath": "/scratch"}]
    )
    volumes = [{"name": "scratch", "emptyDir": {}}]
    kubectl.apply(manifests.pod("writer", NODE, containers=[container], volumes=volumes))
    pods.wait_ready(kubectl, "writer")
    kubectl.run("exec", "writer", "--", "sh", "-c", "until [ -e /scratch/data ]; do sleep 0.1; done; sync")

    def measured() -> dict[str, Any] | None:
        stats = pod_stats(kubectl, NODE, "writer")
        return stats if stats and stats.get("volume") and stats["containers"][0].get("rootfs") else None

    stats = wait_until(measured, timeout_s=30, describe="what was written to be measured")

    [scratch] = stats["volume"]
    assert scratch["name"] == "scratch"
    assert scratch["usedBytes"] >= 3 * MIB
    assert stats["containers"][0]["rootfs"]["usedBytes"] >= 3 * MIB
    assert stats["ephemeral-storage"]["usedBytes"] >= 6 * MIB


def test_the_node_is_shown_as_it_is(kubectl: Kubectl, vkubelet_docker: Vkubelet) -> None:
    node = summary(kubectl, NODE)["node"]

    capacity = kubectl.get("node", NODE)["status"]["capacity"]
    memory_bytes = int(capacity["memory"].removesuffix("Ki")) * 1024
    assert node["nodeName"] == NODE
    assert node["memory"]["availableBytes"] + node["memory"]["workingSetBytes"] == memory_bytes
    assert node["fs"]["capacityBytes"] > node["fs"]["availableBytes"] > 0
    assert {each["name"] for each in node["systemContainers"]} == {"kubelet", "pods"}
    assert node["rlimit"]["curproc"] > 1


# --- metrics ----------------------------------------------------------------------------------------------


def test_dashboards_find_their_containers(kubectl: Kubectl, vkubelet_docker: Vkubelet) -> None:
    kubectl.apply(manifests.pod("seen", NODE))
    pods.wait_ready(kubectl, "seen")
    time.sleep(1.1)  # a reading is shared for a second

    found = metrics(kubectl, NODE, "/cadvisor")

    ours = {"namespace": kubectl.namespace, "pod": "seen"}
    for name, container in (
        ("container_cpu_usage_seconds_total", "main"),
        ("container_memory_working_set_bytes", "main"),
        ("container_network_receive_bytes_total", ""),
        ("container_start_time_seconds", "main"),
        ("container_spec_cpu_shares", "main"),
    ):
        wanted = {**ours, "container": container}.items()
        assert any(wanted <= labels.items() for labels, _ in found[name]), name
    assert [value for labels, value in found["container_memory_working_set_bytes"] if labels["id"] == "/"]
    assert found["container_scrape_error"] == [({}, 0)]


@pytest.mark.parametrize("path", ["", "/resource", "/cadvisor", "/probes"])
def test_prometheus_can_read_all_of_a_memory_node(
    kubectl: Kubectl, vkubelet_memory: Vkubelet, path: str
) -> None:
    assert metrics(kubectl, vkubelet_memory.node_name, path)


def test_the_node_counts_what_it_does(kubectl: Kubectl, vkubelet_memory: Vkubelet) -> None:
    kubectl.apply(manifests.pod("counted", vkubelet_memory.node_name))
    pods.wait_ready(kubectl, "counted")

    found = metrics(kubectl, vkubelet_memory.node_name, "")

    def value(metric: str, /, **labels: str) -> float:
        return sum(each for own, each in found[metric] if labels.items() <= own.items())

    assert value("kubelet_running_pods") >= 1
    assert value("kubelet_pod_start_duration_seconds_count") >= 1
    assert value("kubelet_runtime_operations_total", operation_type="run_podsandbox") >= 1
    assert value("kubelet_started_containers_total", container_type="container") >= 1
    assert value("vkubelet_provider_calls_total", call="create_pod", code="OK") >= 1
    assert value("rest_client_requests_total", method="PATCH", code="200") >= 1
    assert value("kubelet_http_requests_total", path="metrics") >= 1
    assert value("workqueue_adds_total", name="pod-sync") >= 1
    assert value("kubelet_node_name", node=vkubelet_memory.node_name) == 1


# --- metrics-server ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def metrics_api(cluster: Cluster, vkubelet_docker: Vkubelet, vkubelet_memory: Vkubelet) -> Iterator[None]:
    with metrics_server(cluster):
        yield


def test_kubectl_top_shows_nodes_and_pods(
    kubectl: Kubectl, metrics_api: None, vkubelet_memory: Vkubelet
) -> None:
    annotations = {"memory.vkubelet.io/cpu": "250m", "memory.vkubelet.io/memory": "64Mi"}
    pod = manifests.pod("figures", vkubelet_memory.node_name)
    pod["metadata"]["annotations"] = annotations
    kubectl.apply(pod)
    kubectl.apply(manifests.pod("real", NODE))

    def top(*arguments: str) -> dict[str, list[str]] | None:
        done = kubectl.try_run("top", *arguments, "--no-headers")
        rows = (line.split() for line in done.stdout.splitlines())
        return {name: figures for name, *figures in rows} if done.returncode == 0 else None

    def both() -> dict[str, list[str]] | None:
        found = top("pod")
        return found if found and {"figures", "real"} <= found.keys() else None

    found = wait_until(both, timeout_s=90, describe="kubectl top pod to show both pods")
    assert found["figures"] == ["250m", "64Mi"]
    assert found["real"][0].endswith("m")
    nodes = top("node")
    assert nodes is not None
    assert {NODE, vkubelet_memory.node_name} <= nodes.keys()
    assert nodes[NODE][0] not in ("0m", "<unknown>")


def test_an_autoscaler_follows_the_load_up_and_down(kubectl: Kubectl, metrics_api: None) -> None:
    container = manifests.container(command=shell(BURNING_WHEN_TOLD), resources=RESOURCES)
    kubectl.apply(manifests.deployment("scaled", NODE, containers=[container]))
    kubectl.apply(autoscaler("scaled"))
    kubectl.run("rollout", "status", "deployment/scaled")
    [pod] = kubectl.items("pods", "--selector=app=scaled")
    kubectl.run("exec", pod["metadata"]["name"], "--", "touch", "/tmp/load")

    wait_replicas(kubectl, "scaled", lambda count: count >= 2)
    for each in kubectl.items("pods", "--selector=app=scaled"):
        kubectl.try_run("exec", each["metadata"]["name"], "--", "rm", "-f", "/tmp/load")
    wait_replicas(kubectl, "scaled", lambda count: count == 1)


def autoscaler(name: str) -> dict[str, Any]:
    """CPU at half of what is requested, and no waiting before it is scaled down."""
    utilization = {"type": "Utilization", "averageUtilization": 50}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 1,
            "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": utilization}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    }


def wait_replicas(kubectl: Kubectl, name: str, enough: Callable[[int], bool]) -> None:
    """Until so many are ready, and no others."""

    def settled(deployment: Any) -> bool:
        status = (deployment or {}).get("status", {})
        ready, replicas = status.get("readyReplicas", 0), status.get("replicas", 0)
        return bool(ready == replicas == deployment["spec"]["replicas"] and enough(ready))

    kubectl.wait_until("deployment", name, settled, timeout_s=120)


# --- traces and health ------------------------------------------------------------------------------------


class Collector:
    """An OTLP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, str]] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(ExportTraceServiceRequest.FromString(_plain(body, self.headers)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, request: Any) -> None:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += [(int.from_bytes(span.trace_id, "big"), span.name) for span in scope.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _plain(body: bytes, headers: Any) -> bytes:
    return gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body


def test_a_pods_way_is_a_trace(kubectl: Kubectl, make_vkubelet: Callable[..., Vkubelet]) -> None:
    collector = Collector()
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with make_vkubelet("memory", environment=environment) as vkubelet:
        kubectl.apply(manifests.pod("traced", vkubelet.node_name))
        [pod] = pods.wait_ready(kubectl, "traced")
        trace_id = uuid.UUID(pod["metadata"]["uid"]).int
        wanted = {"watch event", "sync pod", "create_pod", "run_podsandbox", "write pod status"}

        wait_until(
            lambda: wanted <= {name for trace, name in collector.spans if trace == trace_id},
            timeout_s=20,
            describe="the spans of a pod",
            seen=lambda: collector.spans[-50:],
        )
    collector.close()


def test_a_port_of_this_machine_tells_health_without_credentials(
    make_vkubelet: Callable[..., Vkubelet],
) -> None:
    [port] = network.free_ports(1)
    with make_vkubelet("memory", arguments=["--healthz-port", str(port)]):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok"
        connection.close()
