"""`kubectl port-forward`, from a socket of this machine to a process of a pod in Docker."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e.harness import manifests, network, pods
from e2e.harness.cluster import Cluster
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.port_forward import exchange, kubectl_port_forward, sha256, upload
from e2e.harness.vkubelet import Vkubelet
from e2e.harness.websocket_client import WebSocketStream
from tests.server.forward_client import Way, forwarding, spdy_headers
from tests.server.spdy_client import request

NODE = "docker-node"
SERVER = "server"
ON_HOST = "on-host"
GOES = "goes"
ECHO, DIGEST, ON_LOCALHOST, SOURCE, REFUSED = 7000, 7001, 7002, 7003, 7009
HOST_PORT = network.free_ports(1)[0]
MIB = 1 << 20

SERVE = f"""
mkdir /www; echo hello > /www/index.html; httpd -p 127.0.0.1:{ON_LOCALHOST} -h /www
nc -ll -p {ECHO} -e cat &
nc -ll -p {DIGEST} -e sha256sum &
nc -ll -p {SOURCE} -e head -c 52428800 /dev/zero &
trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done
"""
SERVE_ON_HOST = f"""
mkdir /www; echo host > /www/index.html; httpd -p 127.0.0.1:{HOST_PORT} -h /www
trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done
"""
PODS = [
    manifests.pod(SERVER, NODE, ["sh", "-c", SERVE]),
    manifests.pod(
        ON_HOST, NODE, containers=[container(command=["sh", "-c", SERVE_ON_HOST])], hostNetwork=True
    ),
    manifests.pod(GOES, NODE, ["sh", "-c", SERVE]),
]
GET = b"GET / HTTP/1.0\r\n\r\n"

transports = pytest.mark.parametrize("websockets", ["true", "false"], ids=["websocket", "spdy"])
both_ways = pytest.mark.parametrize("way", ["spdy", "tunnel"])


@pytest.fixture(scope="module")
def kubectl(module_kubectl: Kubectl, vkubelet_docker: Vkubelet) -> Kubectl:
    assert vkubelet_docker.node_name == NODE
    module_kubectl.apply({"apiVersion": "v1", "kind": "List", "items": PODS})
    pods.wait_ready(module_kubectl, SERVER, ON_HOST, GOES)
    for pod, ports in ((SERVER, (ECHO, DIGEST, ON_LOCALHOST)), (GOES, (ECHO,)), (ON_HOST, (HOST_PORT,))):
        listening = "; ".join(
            f"until nc -w1 127.0.0.1 {port} </dev/null; do sleep 0.1; done" for port in ports
        )
        module_kubectl.run("exec", pod, "--", "sh", "-c", f"({listening}) 2>/dev/null")
    return module_kubectl


def transport(websockets: str) -> dict[str, str]:
    return {"KUBECTL_PORT_FORWARD_WEBSOCKETS": websockets}


# --- through the API server -------------------------------------------------------------------------------


@transports
def test_many_connections_at_the_same_time(kubectl: Kubectl, websockets: str) -> None:
    with (
        kubectl_port_forward(kubectl, SERVER, ECHO, environment=transport(websockets)) as forward,
        contextlib.ExitStack() as opened,
    ):
        socks = [opened.enter_context(forward.connect(ECHO))]
        while len(socks) < 40:
            assert exchange(socks[-1], b"!") == b"!"  # nc takes one at a time and resets what comes meanwhile
            socks.append(opened.enter_context(forward.connect(ECHO)))

        def one(sock: socket.socket) -> None:
            data = os.urandom(200_000)
            assert sha256(exchange(sock, data)) == sha256(data)

        with ThreadPoolExecutor(40) as threads:
            assert list(threads.map(one, socks)) == [None] * 40


@transports
def test_50_mb_go_through_both_ways_unchanged(kubectl: Kubectl, websockets: str) -> None:
    data = os.urandom(50 * MIB)
    with kubectl_port_forward(
        kubectl, SERVER, ECHO, DIGEST, SOURCE, environment=transport(websockets)
    ) as forward:
        with forward.connect(DIGEST) as sock:
            assert upload(sock, data) == sha256(data)
        with forward.connect(SOURCE) as sock:
            assert exchange(sock, b"") == b""
            assert upload(sock, b"") == "\0" * (50 * MIB)
        with forward.connect(ECHO) as sock:
            assert exchange(sock, data) == data


@transports
def test_a_port_on_the_pods_own_127_0_0_1_is_reached(kubectl: Kubectl, websockets: str) -> None:
    with (
        kubectl_port_forward(kubectl, SERVER, ON_LOCALHOST, environment=transport(websockets)) as forward,
        forward.connect(ON_LOCALHOST) as sock,
    ):
        assert upload(sock, GET).endswith("hello\n")


def test_a_pod_on_the_hosts_network_is_reached_at_the_hosts_127_0_0_1(kubectl: Kubectl) -> None:
    with (
        kubectl_port_forward(kubectl, ON_HOST, HOST_PORT) as forward,
        forward.connect(HOST_PORT) as sock,
    ):
        assert upload(sock, GET).endswith("host\n")


@transports
def test_a_port_that_refuses_is_told_in_words(kubectl: Kubectl, websockets: str) -> None:
    with kubectl_port_forward(kubectl, SERVER, REFUSED, environment=transport(websockets)) as forward:
        with forward.connect(REFUSED) as sock:
            assert upload(sock, b"") == ""
        assert forward.wait_for_end() != 0  # kubectl itself gives up then
        assert f"error forwarding port {REFUSED} to pod {SERVER}" in forward.output
        assert "IPv4: connection refused" in forward.output


def test_a_pod_that_is_deleted_ends_its_connections(kubectl: Kubectl) -> None:
    with kubectl_port_forward(kubectl, GOES, ECHO) as forward:
        with forward.connect(ECHO) as sock:
            assert exchange(sock, b"here") == b"here"
            kubectl.run("delete", "pod", GOES, "--grace-period=1", "--wait=true")
            assert sock.recv(1) == b""
        with forward.connect(ECHO) as sock:
            assert upload(sock, b"") == ""
        assert forward.wait_for_end() != 0
        assert f"error forwarding port {ECHO} to pod {GOES}" in forward.output


# --- straight at the kubelet's port -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def context(cluster: Cluster) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cluster.control_plane.authority_file))


@pytest.fixture(scope="module")
def token(kubectl: Kubectl) -> Iterator[str]:
    """Of a service account that may use the kubelet's API, and forward ports."""
    kubectl.run("create", "serviceaccount", "forwarder")
    name = f"forwarder-{kubectl.namespace}"
    kubectl.run("create", "clusterrole", name, "--verb=get,create", "--resource=nodes/proxy,pods/portforward")
    subject = f"--serviceaccount={kubectl.namespace}:forwarder"
    kubectl.run("create", "clusterrolebinding", name, f"--clusterrole={name}", subject)
    yield kubectl.run("create", "token", "forwarder").strip()
    kubectl.run("delete", "clusterrolebinding,clusterrole", name)


@both_ways
async def test_a_refused_port_ends_no_other_connection(
    kubectl: Kubectl, vkubelet_docker: Vkubelet, context: ssl.SSLContext, token: str, way: Way
) -> None:
    path = f"/portForward/{kubectl.namespace}/{SERVER}"
    headers = [("Authorization", f"Bearer {token}")]
    async with forwarding(vkubelet_docker.port, way, path=path, tls=context, headers=headers) as client:
        echo, refused, digest = [await client.open(port) for port in (ECHO, REFUSED, DIGEST)]
        assert f"failed to connect to localhost:{REFUSED}" in await refused.error()
        await echo.send(b"still here")
        assert await echo.until_received(10) == b"still here"
        data = os.urandom(20 * MIB)
        for start in range(0, len(data), 1 << 16):
            await digest.send(data[start : start + (1 << 16)])
        await digest.send(b"", end=True)
        assert (await digest.rest()).decode() == sha256(data)


@both_ways
async def test_who_may_not_is_not_let_in(
    kubectl: Kubectl, vkubelet_docker: Vkubelet, context: ssl.SSLContext, way: Way
) -> None:
    path = f"/portForward/{kubectl.namespace}/{SERVER}"
    stranger = await asyncio.to_thread(kubectl.run, "create", "token", "default")
    for token, status in (("", 401), ("no-such-token", 401), (stranger.strip(), 403)):
        given = [("Authorization", f"Bearer {token}")] if token else []
        answer, _, writer = await request(
            vkubelet_docker.port, path, headers=[*spdy_headers(), *given], tls=context
        )
        writer.transport.abort()
        assert answer.status == status


# --- channels of a WebSocket, which kubectl does not speak ------------------------------------------------


@pytest.mark.parametrize("subprotocol", ["v4.channel.k8s.io", "v4.base64.channel.k8s.io"])
@pytest.mark.parametrize("direct", [True, False], ids=["kubelet", "api-server"])
def test_each_port_has_its_channels(
    cluster: Cluster,
    kubectl: Kubectl,
    vkubelet_docker: Vkubelet,
    context: ssl.SSLContext,
    token: str,
    subprotocol: str,
    direct: bool,
) -> None:
    ports = f"{ECHO},{REFUSED},{ON_LOCALHOST}"
    address = ("127.0.0.1", vkubelet_docker.port)
    path, query = f"/portForward/{kubectl.namespace}/{SERVER}", [("port", ports)]
    if not direct:
        address = ("127.0.0.1", int(cluster.control_plane.server.rpartition(":")[2]))
        path = f"/api/v1/namespaces/{kubectl.namespace}/pods/{SERVER}/portforward"
        query = [("ports", port) for port in ports.split(",")]
    with WebSocketStream(address, context, path, query, subprotocol, token=token) as stream:
        told = stream.expect(3, b"refused")
        assert told.startswith(REFUSED.to_bytes(2, "little"))
        stream.send(0, b"hello")
        assert stream.expect(0, b"hello")
        stream.send(4, GET)
        assert stream.expect(4, b"hello\n").endswith(b"hello\n")
