"""
Who translates a client's WebSocket: vkubelet, whose node declares that it can, or the API server.

The API server counts, in `apiserver_websocket_streaming_requests_total`, which way it sent each request, and
by itself what it then translated (`apiserver_stream_translator_requests_total`, exec and attach) or tunnelled
(`apiserver_stream_tunnel_requests_total`). kubectl speaks WebSocket by default.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.harness import manifests, pods
from e2e.harness.cluster import Cluster
from e2e.harness.kubectl import Kubectl
from e2e.harness.namespaces import own_namespace
from e2e.harness.port_forward import exchange, kubectl_port_forward
from e2e.harness.vkubelet import Vkubelet
from e2e.harness.waiting import wait_until

FEATURE = "ExtendWebSocketsToKubelet"
POD = "web"
TRANSLATED = 'stream_translator code="200"'  # counted when the command has ended
TUNNELLED = 'stream_tunnel code="101"'
_COUNTER = re.compile(
    r"^apiserver_(websocket_streaming|stream_translator|stream_tunnel)_requests_total\{(.*)\} (\d+)", re.M
)


@dataclass(frozen=True)
class Way:
    """How requests go, and a pod that answers them."""

    kubectl: Kubectl
    node: str
    passes_through: bool


@pytest.fixture(scope="module", params=[True, False], ids=["passed-through", "translated"])
def way(request: pytest.FixtureRequest, run_directory: Path, cluster_ids: list[str]) -> Iterator[Way]:
    """The shared cluster, or one whose API server does not make use of what nodes declare."""
    if request.param:
        cluster: Cluster = request.getfixturevalue("cluster")
        vkubelet: Vkubelet = request.getfixturevalue("vkubelet_memory")
        yield from _with_pod(cluster, vkubelet.node_name, passes_through=True)
        return
    gate = f"--feature-gates={FEATURE}=false"
    cluster = Cluster.start(run_directory / "translating", one_process=True, api_server_flags=[gate])
    cluster_ids.append(cluster.uid)
    try:
        with cluster.vkubelet("memory", "memory-node") as vkubelet:
            yield from _with_pod(cluster, vkubelet.node_name, passes_through=False)
    finally:
        cluster.stop()


def _with_pod(cluster: Cluster, node: str, *, passes_through: bool) -> Iterator[Way]:
    with own_namespace(cluster.kubectl, f"websockets-{passes_through}".lower()) as kubectl:
        kubectl.apply(manifests.pod(POD, node))
        pods.wait_ready(kubectl, POD)
        yield Way(kubectl, node, passes_through)
        kubectl.run("delete", "pod", POD, "--grace-period=1")


def counted(kubectl: Kubectl) -> Counter[str]:
    """The API server's counters, by name and labels."""
    text = kubectl.run("get", "--raw", "/metrics")
    return Counter({f"{name} {labels}": int(value) for name, labels, value in _COUNTER.findall(text)})


def streaming(subresource: str, way: Way) -> str:
    """The counter of what is sent this way."""
    proxy_type = "proxied_to_kubelet" if way.passes_through else "translated_at_apiserver"
    return f'websocket_streaming proxy_type="{proxy_type}",subresource="{subresource}"'


def expected(subresource: str, way: Way, by_itself: str) -> Counter[str]:
    """What one request adds; `by_itself` is the counter of the API server's own work."""
    added = Counter({streaming(subresource, way): 1})
    if not way.passes_through:
        added[by_itself] = 1
    return added


def test_the_node_declares_that_it_takes_websockets(way: Way) -> None:
    status = way.kubectl.get("node", way.node)["status"]
    assert status.get("declaredFeatures") == [FEATURE]


def test_exec(way: Way) -> None:
    before = counted(way.kubectl)
    assert way.kubectl.run("exec", POD, "--", "echo", "hello") == "hello\n"
    assert way.kubectl.try_run("exec", POD, "--", "sh", "-c", "exit 7").returncode == 7
    added = counted(way.kubectl) - before
    one = expected("exec", way, TRANSLATED)
    assert added == one + one


def test_exec_with_input(way: Way) -> None:
    before = counted(way.kubectl)
    sent = "a line\n" * 10_000
    assert way.kubectl.run("exec", "-i", POD, "--", "cat", stdin=sent) == sent
    assert counted(way.kubectl) - before == expected("exec", way, TRANSLATED)


def test_attach(way: Way) -> None:
    before = counted(way.kubectl)
    attached = way.kubectl.popen("attach", POD)
    try:
        wait_until(
            lambda: counted(way.kubectl) - before == Counter({streaming("attach", way): 1}),
            timeout_s=30,
            describe="kubectl to attach",
            seen=lambda: counted(way.kubectl) - before,
        )
        assert attached.poll() is None
    finally:
        attached.kill()
        attached.communicate()


def test_port_forward(way: Way) -> None:
    before = counted(way.kubectl)
    with kubectl_port_forward(way.kubectl, POD, 80) as forward, forward.connect(80) as sock:
        assert exchange(sock, b"hello" * 100_000) == b"hello" * 100_000
    assert counted(way.kubectl) - before == expected("portforward", way, TUNNELLED)


def test_spdy_goes_through_as_it_is(way: Way) -> None:
    before = counted(way.kubectl)
    environment = {"KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
    with (
        kubectl_port_forward(way.kubectl, POD, 80, environment=environment) as forward,
        forward.connect(80) as sock,
    ):
        assert exchange(sock, b"hello") == b"hello"
    # It is counted before the API server has looked at what the client speaks; then nothing is translated.
    assert counted(way.kubectl) - before == Counter({streaming("portforward", way): 1})
