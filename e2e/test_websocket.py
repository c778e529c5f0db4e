"""Exec and attach over WebSocket: straight at the kubelet's port, and as the Python client does it."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes_asyncio import client, config
from kubernetes_asyncio.stream import WsApiClient

from e2e.harness import manifests, pods
from e2e.harness.cluster import Cluster
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.vkubelet import Vkubelet
from e2e.harness.websocket_client import (
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    HandshakeRefusedError,
    WebSocketStream,
)

NODE = "docker-node"
POD = "streams"
V5 = "v5.channel.k8s.io"
SUBPROTOCOLS = [
    V5,
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v3.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "",
]
BOTH = [("output", "1"), ("error", "1")]

Connect = Callable[..., WebSocketStream]


@pytest.fixture(scope="module")
def kubectl(module_kubectl: Kubectl, vkubelet_docker: Vkubelet) -> Kubectl:
    assert vkubelet_docker.node_name == NODE
    counter = ["sh", "-c", "i=0; while true; do i=$((i+1)); echo count $i; sleep 0.2; done"]
    module_kubectl.apply(manifests.pod(POD, NODE, containers=[container(), container("counter", counter)]))
    pods.wait_ready(module_kubectl, POD)
    return module_kubectl


@pytest.fixture(scope="module")
def token(kubectl: Kubectl) -> Iterator[str]:
    """Of a service account that may use the node's API."""
    kubectl.run("create", "serviceaccount", "operator")
    name = f"operator-{kubectl.namespace}"
    kubectl.run("create", "clusterrole", name, "--verb=get,create", "--resource=nodes/proxy")
    subject = f"--serviceaccount={kubectl.namespace}:operator"
    kubectl.run("create", "clusterrolebinding", name, f"--clusterrole={name}", subject)
    yield kubectl.run("create", "token", "operator").strip()
    kubectl.run("delete", "clusterrolebinding,clusterrole", name)


def trusting(cluster: Cluster) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cluster.control_plane.authority_file))


def command(*words: str) -> list[tuple[str, str]]:
    return [("command", word) for word in words]


@pytest.fixture
def connect(cluster: Cluster, kubectl: Kubectl, vkubelet_docker: Vkubelet, token: str) -> Connect:
    """Opens a stream to a container of the pod, given a family of endpoints, a query and subprotocols."""

    def open_stream(
        family: str, query: list[tuple[str, str]], *subprotocols: str, container: str = "main", **options: Any
    ) -> WebSocketStream:
        path = f"/{family}/{kubectl.namespace}/{POD}/{container}"
        address = (vkubelet_docker.node_ip, vkubelet_docker.port)
        given = {"token": token, "context": trusting(cluster), **options}
        return WebSocketStream(address, given.pop("context"), path, query, *subprotocols, **given)

    return open_stream


# --- exec -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", SUBPROTOCOLS, ids=lambda name: name or "none")
def test_exec_in_every_subprotocol(connect: Connect, subprotocol: str) -> None:
    query = [*command("sh", "-c", "echo out; echo err >&2; exit 7"), *BOTH]
    with connect("exec", query, *([subprotocol] if subprotocol else [])) as stream:
        assert stream.subprotocol == subprotocol
        received = stream.read_all()
    assert (received[STDOUT], received[STDERR]) == (b"out\n", b"err\n")
    if subprotocol[:2] in ("v4", "v5"):
        causes = json.loads(received[ERROR])["details"]["causes"]
        assert causes == [{"reason": "ExitCode", "message": "7"}]
    else:
        assert received[ERROR] == b"command terminated with non-zero exit code: exit status 7"


def test_10_mb_go_in_and_their_end_is_told(connect: Connect) -> None:
    data = random.Random(7).randbytes(10 * 2**20)
    query = [*command("sha256sum"), ("input", "1"), ("output", "1")]
    with connect("exec", query, V5) as stream:
        for start in range(0, len(data), 1 << 18):
            stream.send(STDIN, data[start : start + (1 << 18)])
        stream.close_channel(STDIN)
        received = stream.read_all()
    assert received[STDOUT].split()[0].decode() == hashlib.sha256(data).hexdigest()
    assert json.loads(received[ERROR]) == {"status": "Success"}


def test_30_mb_come_out(connect: Connect) -> None:
    query = [*command("sh", "-c", "yes | head -c 30000000"), ("output", "1")]
    with connect("exec", query, V5) as stream:
        received = stream.read_all()
    assert received[STDOUT] == b"y\n" * 15_000_000
    assert json.loads(received[ERROR]) == {"status": "Success"}


@pytest.mark.parametrize("subprotocol", [V5, "v4.base64.channel.k8s.io"])
def test_a_terminal_that_is_resized(connect: Connect, subprotocol: str) -> None:
    query = [*command("sh"), ("input", "1"), ("output", "1"), ("tty", "1")]
    with connect("exec", query, subprotocol) as stream:
        stream.send(RESIZE, b'{"Width":91,"Height":30}')
        stream.send(
            STDIN, b"until [ \"$(stty size)\" = '30 91' ]; do sleep 0.1; done; echo si''zed; exit 3\n"
        )
        stream.expect(STDOUT, b"sized\r\n")
        received = stream.read_all()
    assert b'"message":"3"' in received[ERROR]


# --- attach -----------------------------------------------------------------------------------------------


def test_attach_and_leave(connect: Connect, kubectl: Kubectl) -> None:
    for _ in range(2):
        with connect("attach", [("output", "1")], V5, container="counter") as stream:
            assert b"count " in stream.expect(STDOUT, b"count ")
    assert pods.container_status(kubectl.get("pod", POD), "counter")["restartCount"] == 0


def test_a_container_that_is_not_there_is_refused_before_the_upgrade(connect: Connect) -> None:
    with pytest.raises(HandshakeRefusedError) as refused:
        connect("exec", [*command("true"), *BOTH], V5, container="other")
    assert (refused.value.status, refused.value.body.strip()) == (500, 'container not found ("other")')
    with pytest.raises(HandshakeRefusedError) as refused:
        connect("attach", BOTH, V5, container="other")
    assert refused.value.status == 500
    assert "container other not found in pod" in refused.value.body


# --- who may ----------------------------------------------------------------------------------------------

TRUE = [*command("true"), *BOTH]


def test_a_browser_sends_its_token_as_a_subprotocol(connect: Connect, token: str) -> None:
    encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
    bearer = f"base64url.bearer.authorization.k8s.io.{encoded}"
    with connect("exec", TRUE, bearer, "v4.channel.k8s.io", token="") as stream:
        assert stream.subprotocol == "v4.channel.k8s.io"
        assert json.loads(stream.read_all()[ERROR]) == {"status": "Success"}


@pytest.mark.parametrize(
    ("groups", "status"), [(["system:masters"], 101), ([], 403)], ids=["admin", "nobody"]
)
def test_a_client_certificate_says_who_it_is(
    connect: Connect, cluster: Cluster, tmp_path: Path, groups: list[str], status: int
) -> None:
    certificate = cluster.control_plane.pki.authority.issue_client("visitor", groups)
    context = trusting(cluster)
    context.load_cert_chain(*certificate.write(tmp_path, "visitor"))
    for family in ("exec", "attach"):
        if status == 101:
            with connect(family, TRUE, V5, token="", context=context) as stream:
                assert stream.subprotocol == V5
            continue
        with pytest.raises(HandshakeRefusedError) as refused:
            connect(family, TRUE, V5, token="", context=context)
        assert refused.value.status == status


@pytest.mark.parametrize("token", ["", "wrong"], ids=["no token", "a wrong token"])
def test_without_a_name_there_is_no_upgrade(connect: Connect, token: str) -> None:
    for family in ("exec", "attach"):
        with pytest.raises(HandshakeRefusedError) as refused:
            connect(family, TRUE, V5, token=token)
        assert refused.value.status == 401


# --- kubernetes_asyncio -----------------------------------------------------------------------------------


async def test_the_python_client_execs_through_the_api_server(kubectl: Kubectl) -> None:
    """It speaks v4 over WebSocket; the API server passes that on to us as it is."""
    settings = client.Configuration()
    await config.load_kube_config(config_file=str(kubectl.kubeconfig), client_configuration=settings)
    async with WsApiClient(configuration=settings) as api:
        core: Any = client.CoreV1Api(api_client=api)  # its annotations know neither lists nor streams
        script = "echo out; echo err >&2; exit 3"
        whole = await core.connect_get_namespaced_pod_exec(
            POD,
            kubectl.namespace,
            command=["sh", "-c", script],
            container="main",
            stderr=True,
            stdin=False,
            stdout=True,
            tty=False,
        )
        assert sorted(whole.split()) == ["err", "out"]
        websocket = await core.connect_get_namespaced_pod_exec(
            POD,
            kubectl.namespace,
            command=["cat"],
            container="main",
            stderr=True,
            stdin=True,
            stdout=True,
            tty=False,
            _preload_content=False,
        )
        async with websocket as stream:
            await stream.send_bytes(b"\x00hello\n")
            heard = b""
            while b"hello\n" not in heard:
                message = await stream.receive_bytes(timeout=20)
                heard += message[1:]
