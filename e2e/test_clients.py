"""
Clients other than kubectl, and who of them may do what.

client-go and the Python client, each through the API server and straight at the kubelet's port, with a bearer
token and with a client certificate; then every endpoint of the kubelet API for those who may not use it.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
from collections.abc import Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from kubernetes_asyncio.client import Configuration, CoreV1Api
from kubernetes_asyncio.stream import WsApiClient

from e2e.harness import manifests, pods
from e2e.harness.client_go import Access, ClientGo
from e2e.harness.cluster import Cluster
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.namespaces import own_namespace
from e2e.harness.pki import CertificateAuthority
from e2e.harness.vkubelet import Vkubelet

NODE = "docker-node"
POD = "target"
PORT = 7000
OPERATOR = "operator"
SCRIPT = "cat; echo err >&2; exit 3"

SERVE = (
    f"echo from the log; nc -ll -p {PORT} -e cat & trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done"
)
SPEAKS = container("speaks", ["cat"], stdin=True)


@pytest.fixture(scope="module")
def kubectl(cluster: Cluster, vkubelet_docker: Vkubelet) -> Iterator[Kubectl]:
    assert vkubelet_docker.node_name == NODE
    with own_namespace(cluster.kubectl, "clients") as kubectl:
        kubectl.apply(manifests.pod(POD, NODE, containers=[container(command=["sh", "-c", SERVE]), SPEAKS]))
        kubectl.run("create", "serviceaccount", OPERATOR)
        pods.wait_ready(kubectl, POD)
        yield kubectl


@pytest.fixture(scope="module")
def operator(cluster: Cluster, kubectl: Kubectl) -> Iterator[str]:
    """A token of somebody who may do everything here; a user of that name may too, with a certificate."""
    name = f"{OPERATOR}-{kubectl.namespace}"
    subresources = "pods/exec,pods/attach,pods/portforward,pods/log,nodes/proxy"
    kubectl.run("create", "clusterrole", name, "--verb=get,create", f"--resource=pods,{subresources}")
    subjects = (f"--serviceaccount={kubectl.namespace}:{OPERATOR}", f"--user={OPERATOR}")
    kubectl.run("create", "clusterrolebinding", name, f"--clusterrole={name}", *subjects)
    cluster.control_plane.issue_kubeconfig(OPERATOR, OPERATOR)
    yield kubectl.run("create", "token", OPERATOR).strip()
    kubectl.run("delete", "clusterrolebinding,clusterrole", name)


def access_of(cluster: Cluster, vkubelet: Vkubelet, through: str, **shown: Any) -> Access:
    is_node = through == "kubelet"
    server = f"https://{vkubelet.node_ip}:{vkubelet.port}" if is_node else cluster.control_plane.server
    return Access(server, is_node, cluster.control_plane.authority_file, **shown)


@pytest.fixture(params=["apiserver", "kubelet"])
def through(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["token", "certificate"])
def access(
    request: pytest.FixtureRequest, cluster: Cluster, vkubelet_docker: Vkubelet, operator: str, through: str
) -> Access:
    if request.param == "token":
        return access_of(cluster, vkubelet_docker, through, token=operator)
    directory = cluster.control_plane.directory
    certificate = (directory / f"{OPERATOR}.crt", directory / f"{OPERATOR}.key")
    return access_of(cluster, vkubelet_docker, through, certificate=certificate)


# --- client-go ----------------------------------------------------------------------------------------------


@pytest.fixture
def client_go(access: Access, kubectl: Kubectl) -> ClientGo:
    return ClientGo(access, str(kubectl.namespace), POD)


transports = pytest.mark.parametrize("transport", ["spdy", "websocket"])


@transports
def test_client_go_runs_a_command(client_go: ClientGo, transport: str) -> None:
    flags = (f"-transport={transport}", "-stdin")
    done = client_go.run("exec", "sh", "-c", SCRIPT, flags=flags, stdin=b"there and back\n")
    assert (done.returncode, done.stdout) == (3, b"there and back\n"), done.stderr
    assert done.stderr.splitlines()[0] == b"err"


@transports
def test_client_go_attaches_to_a_container(client_go: ClientGo, transport: str) -> None:
    flags = (f"-transport={transport}", "-stdin", "-container=speaks")
    with client_go.popen("attach", flags=flags) as client:
        assert client.stdin
        assert client.stdout
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        try:
            assert client.stdout.readline() == b"hello\n"
        finally:
            client.kill()


@transports
def test_client_go_forwards_a_port(client_go: ClientGo, transport: str) -> None:
    with client_go.popen("port-forward", str(PORT), flags=(f"-transport={transport}",)) as client:
        assert client.stdin
        assert client.stdout
        try:
            assert asyncio.run(_echo(int(client.stdout.readline()))) == b"to and fro"
            client.stdin.close()
            assert client.wait(timeout=20) == 0
        finally:
            client.kill()


async def _echo(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"to and fro")
    answer = await reader.readexactly(10)
    writer.close()
    await writer.wait_closed()
    return answer


def test_client_go_reads_logs(client_go: ClientGo) -> None:
    done = client_go.run("logs")
    assert (done.returncode, done.stdout) == (0, b"from the log\n"), done.stderr


# --- the Python client --------------------------------------------------------------------------------------


@asynccontextmanager
async def python_client(access: Access) -> Any:
    configuration = Configuration(host=access.server)
    configuration.ssl_ca_cert = str(access.authority_file)
    if access.token:
        configuration.api_key = {"BearerToken": f"Bearer {access.token}"}
    if access.certificate:
        configuration.cert_file, configuration.key_file = map(str, access.certificate)
    async with WsApiClient(configuration) as client:
        yield client


async def stream(client: WsApiClient, access: Access, namespace: str, command: Any) -> Any:
    """An exec with stdin; `command` is a list, whatever the client's own types say."""
    if not access.is_node:
        streams = {"stdin": True, "stdout": True, "stderr": True, "tty": False}
        return await CoreV1Api(client).connect_get_namespaced_pod_exec(
            POD, namespace, container="main", command=command, **streams, _preload_content=False
        )
    return await client.call_api(
        f"/exec/{namespace}/{POD}/main",
        "GET",
        query_params=[("command", command), ("input", "1"), ("output", "1"), ("error", "1")],
        auth_settings=["BearerToken"],
        _preload_content=False,
        _return_http_data_only=True,
    )


async def test_the_python_client_runs_a_command(access: Access, kubectl: Kubectl) -> None:
    heard = dict.fromkeys(range(1, 4), b"")
    async with (
        python_client(access) as client,
        await stream(
            client, access, str(kubectl.namespace), ["sh", "-c", "read line; echo $line; exit 3"]
        ) as websocket,
    ):
        await websocket.send_bytes(b"\0there and back\n")
        async for message in websocket:
            heard[message.data[0]] += message.data[1:]
    assert heard[1] == b"there and back\n"
    assert WsApiClient.parse_error_data(heard[3].decode()) == 3


# --- who may not --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """
    A request to the kubelet API.

    Attributes:
        opened_by: the subresources of ``nodes`` of which each lets it pass.
    """

    method: str
    path: str
    opened_by: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _asked() -> Iterator[Asked]:
    for path in (
        "/healthz",
        "/healthz/",
        "/healthz/ping",
        "/livez",
        "/livez/ping",
        "/readyz",
        "/readyz/ping",
    ):
        yield Asked("GET", path, ("healthz", "proxy"))
    for path in ("/pods", "/pods/", "/runningpods/"):
        yield Asked("GET", path, ("pods", "proxy"))
    yield Asked("GET", "/configz", ("configz", "proxy"))
    yield Asked("GET", "/flagz", ("configz",))
    yield Asked("GET", "/statusz", ("statusz",))
    for method in ("GET", "POST"):
        yield Asked(method, "/stats/summary", ("stats",))
    yield Asked("GET", "/stats/summary?only_cpu_and_memory=true", ("stats",))
    for path in ("/metrics", "/metrics/resource", "/metrics/cadvisor", "/metrics/probes"):
        yield Asked("GET", path, ("metrics",))
    yield Asked("GET", "/logs/", ("log",))
    yield Asked("POST", "/checkpoint/{namespace}/{pod}/main", ("checkpoint",))
    yield Asked("GET", "/containerLogs/{namespace}/{pod}/main", ("proxy",))
    for method in ("GET", "POST"):
        for family in ("exec", "attach", "run"):
            yield Asked(method, f"/{family}/{{namespace}}/{{pod}}/main", ("proxy",))
            yield Asked(method, f"/{family}/{{namespace}}/{{pod}}/{{uid}}/main", ("proxy",))
        yield Asked(method, "/portForward/{namespace}/{pod}", ("proxy",))
        yield Asked(method, "/portForward/{namespace}/{pod}/{uid}", ("proxy",))
    for path in ("/", "/debug/pprof/", "/debug/flags/v", "/no/such/path"):
        yield Asked("GET", path, ("proxy",))


ASKED = list(_asked())
SUBRESOURCES = sorted({subresource for asked in ASKED for subresource in asked.opened_by})


@dataclass
class Kubelet:
    """The kubelet API, asked as it stands: without a client's own ideas."""

    vkubelet: Vkubelet
    context: ssl.SSLContext
    names: dict[str, str]

    def status(self, asked: Asked, token: str = "") -> int:
        connection = http.client.HTTPSConnection(
            self.vkubelet.node_ip, self.vkubelet.port, timeout=20, context=self.context
        )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request(asked.method, asked.path.format(**self.names), headers=headers)
            return connection.getresponse().status
        finally:
            connection.close()


@pytest.fixture(scope="module")
def kubelet(cluster: Cluster, kubectl: Kubectl, vkubelet_docker: Vkubelet) -> Kubelet:
    context = ssl.create_default_context(cafile=str(cluster.control_plane.authority_file))
    uid = kubectl.get("pod", POD)["metadata"]["uid"]
    return Kubelet(vkubelet_docker, context, {"namespace": str(kubectl.namespace), "pod": POD, "uid": uid})


@pytest.fixture(scope="module")
def tokens(kubectl: Kubectl, kubelet: Kubelet) -> Iterator[dict[str, str]]:
    """For each subresource a token that opens it and nothing else; "" opens nothing."""
    made: dict[str, str] = {}
    for subresource in ("", *SUBRESOURCES):
        name = f"only-{subresource or 'known'}"
        kubectl.run("create", "serviceaccount", name)
        if subresource:
            resource = f"--resource=nodes/{subresource}"
            kubectl.run("create", "clusterrole", name, "--verb=get,create", resource)
            subject = f"--serviceaccount={kubectl.namespace}:{name}"
            kubectl.run("create", "clusterrolebinding", name, f"--clusterrole={name}", subject)
        made[subresource] = kubectl.run("create", "token", name).strip()
    yield made
    for subresource in SUBRESOURCES:
        kubectl.run("delete", "clusterrolebinding,clusterrole", f"only-{subresource}")


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_each_endpoint_is_for_those_who_may(asked: Asked, kubelet: Kubelet, tokens: dict[str, str]) -> None:
    assert kubelet.status(asked) == 401
    assert kubelet.status(asked, "no.such.token") == 401
    refused = {subresource for subresource, token in tokens.items() if kubelet.status(asked, token) == 403}
    assert refused == tokens.keys() - set(asked.opened_by)


def test_a_certificate_of_another_authority_is_refused(cluster: Cluster, kubelet: Kubelet) -> None:
    stranger = CertificateAuthority.create("strangers").issue_client("admin", ["system:masters"])
    files = stranger.write(cluster.control_plane.directory / "stranger", "client")
    context = ssl.create_default_context(cafile=str(cluster.control_plane.authority_file))
    context.load_cert_chain(*files)
    try:
        assert replace_context(kubelet, context).status(ASKED[0]) == 401
    except (ssl.SSLError, ConnectionError):
        pass  # refused before it could ask


def test_a_certificate_without_rights_is_told_so(cluster: Cluster, kubelet: Kubelet) -> None:
    nobody = cluster.control_plane.pki.authority.issue_client("nobody")
    files = nobody.write(cluster.control_plane.directory / "nobody", "client")
    context = ssl.create_default_context(cafile=str(cluster.control_plane.authority_file))
    context.load_cert_chain(*files)
    assert {replace_context(kubelet, context).status(asked) for asked in ASKED} == {403}


def replace_context(kubelet: Kubelet, context: ssl.SSLContext) -> Kubelet:
    return replace(kubelet, context=context)


@transports
def test_client_go_is_told_that_it_may_not(
    cluster: Cluster,
    kubectl: Kubectl,
    vkubelet_docker: Vkubelet,
    tokens: dict[str, str],
    through: str,
    transport: str,
) -> None:
    for token, words in (("no.such.token", b"nauthorized"), (tokens[""], b"orbidden")):
        access = access_of(cluster, vkubelet_docker, through, token=token)
        client = ClientGo(access, str(kubectl.namespace), POD)
        for operation in (("exec", "true"), ("attach",), ("logs",)):
            done = client.run(*operation, flags=(f"-transport={transport}",))
            assert done.returncode == 125, operation
            assert words in done.stderr, (operation, done.stderr)
