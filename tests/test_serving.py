from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from structlog.testing import capture_logs

from tests.builders import make_pod
from tests.clocks import ManualClock
from tests.fake_api_server import FakeApiServer
from tests.kube.signer import CSRS, Authority
from tests.server.kubelet import Files, Pods
from tests.server.pki import make_authority
from vkubelet.kube.client import KubeClient
from vkubelet.kube.events import EventRecorder
from vkubelet.server.app import Powers
from vkubelet.server.listener import bind
from vkubelet.serving import KubeletApi
from vkubelet.settings import load_settings

HEADERS = {"Authorization": "Bearer admin-token"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.datetime.now(datetime.UTC).isoformat())


@pytest.fixture
def authority(clock: ManualClock) -> Authority:
    return Authority(clock)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, make_authority("server-ca"), make_authority("client-ca"))


class Node:
    """The API of a node, and the cluster's side of it."""

    def __init__(self, api: KubeletApi, cluster: FakeApiServer, authority: Authority) -> None:
        self.api = api
        self._cluster = cluster
        self._authority = authority

    async def pending(self, number: int = 1) -> str:
        """The name of the request that is the `number`th, once it is there."""
        await self._cluster.wait_for(lambda: len(self._requests()) >= number and self._cluster.watches > 0)
        return self._requests()[-1]

    async def approve(self, number: int = 1) -> None:
        self._authority.approve(self._cluster.objects, await self.pending(number))

    def _requests(self) -> list[str]:
        requests = self._cluster.objects.list(CSRS)
        requests.sort(key=lambda request: int(request["metadata"]["resourceVersion"]))
        return [request["metadata"]["name"] for request in requests]

    async def certificate(self) -> x509.Certificate:
        """What a new client is shown."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.api.port, ssl=unverified())
        der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await reader.read()
        return x509.load_der_x509_certificate(der)

    async def serves(self) -> None:
        """Return once somebody listens."""
        while True:
            try:
                await self.certificate()
                return
            except ConnectionRefusedError:
                await asyncio.sleep(0.005)

    async def shows_another_than(self, before: x509.Certificate) -> None:
        """Return once new clients are shown another certificate."""
        while True:
            if await self.certificate() != before:
                return
            await asyncio.sleep(0.005)


def unverified() -> ssl.SSLContext:
    """The certificates of a manual clock's future are not valid yet."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


Start = Callable[..., AbstractAsyncContextManager[Node]]


@pytest.fixture
def start(
    api_server: FakeApiServer,
    kube_client: KubeClient,
    authority: Authority,
    clock: ManualClock,
    tmp_path: Path,
) -> Start:
    api_server.tokens["admin-token"] = {"username": "admin"}

    @asynccontextmanager
    async def start(**flags: str) -> AsyncIterator[Node]:
        settings = load_settings(
            {
                "kubeconfig": str(tmp_path / "kubeconfig"),
                "provider": "memory",
                "root_dir": str(tmp_path / "root"),
                "node_name": "node-1",
                "node_ip": "127.0.0.1",
                "address": "127.0.0.1",
                "port": "0",
                **flags,
            },
            {},
            providers=("memory",),
        )
        recorder = EventRecorder(kube_client, node_name="node-1", clock=clock, qps=50, burst=100)
        telling = asyncio.create_task(recorder.run())
        with bind("127.0.0.1", 0) as listener:
            api = KubeletApi(settings, kube_client, recorder, listener, clock)
            async with asyncio.timeout(20), api.running(Powers(pods=Pods(make_pod()))):
                yield Node(api, api_server, authority)
        telling.cancel()
        await asyncio.wait([telling])

    return start


async def test_nothing_is_served_until_somebody_approves_and_then_without_a_restart(start: Start) -> None:
    async with start() as node:
        await node.pending()
        with pytest.raises(ConnectionRefusedError):
            await node.certificate()
        await node.approve()
        await node.serves()
        names = (await node.certificate()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert names.value.get_values_for_type(x509.DNSName) == ["node-1"]
        assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]


async def test_a_client_that_trusts_the_cluster_trusts_the_node(start: Start, authority: Authority) -> None:
    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    trusting.verify_flags &= ~ssl.VERIFY_X509_STRICT
    async with start() as node:
        await node.approve()
        await node.serves()
        async with aiohttp.ClientSession(headers=HEADERS) as session:
            url = f"https://127.0.0.1:{node.api.port}/healthz"
            async with session.get(url, ssl=trusting) as response:
                assert (response.status, await response.text()) == (200, "ok")


async def test_an_event_on_the_node_says_how_to_approve(api_server: FakeApiServer, start: Start) -> None:
    async with start() as node:
        name = await node.pending()
        await api_server.wait_for(lambda: bool(api_server.objects.list("events")))
        [event] = api_server.objects.list("events")
    assert event["involvedObject"]["kind"] == "Node"
    assert event["involvedObject"]["name"] == "node-1"
    assert (event["type"], event["reason"]) == ("Warning", "ServingCertificatePending")
    assert event["message"].endswith(f"kubectl certificate approve {name}")


async def test_a_restart_serves_at_once_with_what_was_signed_before(
    api_server: FakeApiServer, start: Start
) -> None:
    async with start() as node:
        await node.approve()
        await node.serves()
        before = await node.certificate()
    async with start() as node:
        await node.serves()
        assert await node.certificate() == before
    assert len(api_server.objects.list(CSRS)) == 1


async def test_with_another_address_the_old_certificate_serves_until_the_new_one_is_there(
    start: Start,
) -> None:
    async with start() as node:
        await node.approve()
        await node.serves()
        before = await node.certificate()
    async with start(node_ip="127.0.0.2") as node:
        await node.serves()
        assert await node.certificate() == before
        await node.approve(2)
        await node.shows_another_than(before)
        names = (await node.certificate()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.2"]


async def test_a_renewal_is_shown_to_new_clients_and_drops_no_connection(
    clock: ManualClock, authority: Authority, start: Start
) -> None:
    authority.life_s = 100
    async with start() as node:
        await node.approve()
        await node.serves()
        before = await node.certificate()
        connector = aiohttp.TCPConnector(ssl=unverified(), limit=1)
        async with aiohttp.ClientSession(
            f"https://127.0.0.1:{node.api.port}", connector=connector, headers=HEADERS
        ) as session:
            async with session.get("/healthz") as response:
                assert response.status == 200
            opened = [proto.transport for proto, _ in next(iter(connector._conns.values()))]
            renewing = asyncio.create_task(clock.advance(90))
            await node.approve(2)
            await node.shows_another_than(before)
            async with session.get("/healthz") as response:
                assert response.status == 200
            assert opened == [proto.transport for proto, _ in next(iter(connector._conns.values()))]
        await renewing


async def test_self_signed_is_served_at_once_when_asked_for(api_server: FakeApiServer, start: Start) -> None:
    async with start(tls_self_signed="true") as node:
        shown = await node.certificate()
    assert shown.issuer == shown.subject
    assert api_server.objects.list(CSRS) == []


async def test_a_node_that_is_named_by_its_address_has_it_as_an_address(start: Start) -> None:
    async with start(node_name="10.0.0.7") as node:
        await node.approve()
        await node.serves()
        names = (await node.certificate()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == []
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["10.0.0.7", "127.0.0.1"]


@pytest.mark.parametrize(("node_ip", "told"), [("127.0.0.1", []), ("127.0.0.9", ["127.0.0.9"])])
async def test_a_certificate_file_for_another_address_is_told(
    node_ip: str, told: list[str], files: Files, start: Start
) -> None:
    flags = {
        "tls_cert_file": str(files.paths.certificate),
        "tls_private_key_file": str(files.paths.private_key),
    }
    with capture_logs() as logged:
        async with start(node_ip=node_ip, **flags) as node:
            await node.serves()
    assert [name for entry in logged for name in entry.get("missing", ())] == told


async def test_the_limits_and_times_of_the_options_hold(
    api_server: FakeApiServer, clock: ManualClock, start: Start
) -> None:
    times = {"authentication_token_webhook_cache_ttl_s": "10s"}
    async with start(tls_self_signed="true", request_qps="1", request_burst="2", **times) as node:
        connector = aiohttp.TCPConnector(ssl=unverified())
        base = f"https://127.0.0.1:{node.api.port}"
        async with aiohttp.ClientSession(base, connector=connector, headers=HEADERS) as session:
            statuses = []
            for _ in range(3):
                async with session.get("/healthz") as response:
                    statuses.append(response.status)
            assert statuses == [200, 200, 429]
            await clock.advance(11)
            async with session.get("/healthz") as response:
                assert response.status == 200
    assert len(api_server.requests_to("POST", "tokenreviews")) == 2
