from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from tests.clocks import ManualClock
from tests.fake_api_server import FakeApiServer
from tests.kube.signer import CSRS, Authority, deny
from vkubelet.clock import SystemClock
from vkubelet.errors import ApiUnavailableError, ForbiddenError
from vkubelet.kube.certificate_requests import CertificateRequestApi, CertificateRequestDenied
from vkubelet.kube.certificates import CertificateManager, serving_request
from vkubelet.kube.client import KubeClient

REQUEST = serving_request("node-1", ("node-1",), ("10.0.0.1",))


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture
def authority() -> Authority:
    return Authority(ManualClock())


class Asking:
    """A request under way."""

    def __init__(self, client: KubeClient, key: ec.EllipticCurvePrivateKey) -> None:
        self.name = REQUEST.name(key)
        self.pending: list[str] = []
        api = CertificateRequestApi(client, ManualClock())
        self.task = asyncio.create_task(api.obtain(REQUEST, key, self.pending.append))


@pytest.fixture
async def asking(
    api_server: FakeApiServer, kube_client: KubeClient, key: ec.EllipticCurvePrivateKey
) -> AsyncIterator[Asking]:
    asking = Asking(kube_client, key)
    await api_server.wait_for(lambda: api_server.watches == 1)
    yield asking
    asking.task.cancel()
    await asyncio.wait([asking.task])


async def test_what_is_asked_for(
    api_server: FakeApiServer, asking: Asking, key: ec.EllipticCurvePrivateKey
) -> None:
    spec = api_server.objects.get(CSRS, asking.name)["spec"]
    assert spec["signerName"] == "kubernetes.io/kubelet-serving"
    assert spec["usages"] == ["digital signature", "server auth"]
    assert x509.load_pem_x509_csr(base64.b64decode(spec["request"])).public_key() == key.public_key()
    assert asking.pending == [asking.name]


async def test_an_approval_is_seen_at_once(
    api_server: FakeApiServer, asking: Asking, authority: Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    authority.approve(api_server.objects, asking.name)
    certificate = x509.load_pem_x509_certificate(await asking.task)
    assert certificate.public_key() == key.public_key()
    assert len(api_server.requests_to("GET", "/certificatesigningrequests/")) == 1


async def test_approved_but_not_yet_signed_is_waited_for(
    api_server: FakeApiServer, asking: Asking, authority: Authority
) -> None:
    approved = {"conditions": [{"type": "Approved", "status": "True"}]}
    api_server.objects.patch(CSRS, asking.name, {"status": approved}, subresource="status")
    authority.approve(api_server.objects, asking.name)
    assert await asking.task


async def test_a_denial_is_told_in_the_cluster_s_words(api_server: FakeApiServer, asking: Asking) -> None:
    deny(api_server.objects, asking.name)
    with pytest.raises(CertificateRequestDenied, match=r"csr-\w+ is Denied: KubectlDeny not that one"):
        await asking.task


async def test_a_request_that_is_deleted_is_refused(api_server: FakeApiServer, asking: Asking) -> None:
    api_server.objects.delete(CSRS, asking.name)
    with pytest.raises(CertificateRequestDenied, match="deleted before it was answered"):
        await asking.task


async def test_a_watch_that_breaks_off_is_an_api_error(api_server: FakeApiServer, asking: Asking) -> None:
    api_server.cut_watches()
    with pytest.raises(ApiUnavailableError):
        await asking.task


async def test_a_request_made_before_a_restart_is_not_made_twice(
    api_server: FakeApiServer,
    kube_client: KubeClient,
    asking: Asking,
    authority: Authority,
    key: ec.EllipticCurvePrivateKey,
) -> None:
    again = Asking(kube_client, key)
    await api_server.wait_for(lambda: api_server.watches == 2)
    assert len(api_server.objects.list(CSRS)) == 1
    authority.approve(api_server.objects, asking.name)
    assert await again.task == await asking.task


async def test_an_answer_that_came_while_we_were_away_is_taken(
    api_server: FakeApiServer,
    kube_client: KubeClient,
    asking: Asking,
    authority: Authority,
    key: ec.EllipticCurvePrivateKey,
) -> None:
    authority.approve(api_server.objects, asking.name)
    await asking.task
    api = CertificateRequestApi(kube_client, ManualClock())
    pending: list[str] = []
    assert await api.obtain(REQUEST, key, pending.append) == await asking.task
    assert pending == []


async def test_without_the_permission_nobody_is_told_to_approve(
    api_server: FakeApiServer, kube_client: KubeClient, key: ec.EllipticCurvePrivateKey
) -> None:
    api_server.fail(403, "POST", CSRS)
    pending: list[str] = []
    with pytest.raises(ForbiddenError):
        await CertificateRequestApi(kube_client, ManualClock()).obtain(REQUEST, key, pending.append)
    assert pending == []


async def test_the_manager_gets_its_pair_through_the_api(
    api_server: FakeApiServer, kube_client: KubeClient, tmp_path: Path
) -> None:
    clock = SystemClock()
    authority = Authority(clock)
    manager = CertificateManager(
        CertificateRequestApi(kube_client, clock),
        REQUEST,
        tmp_path,
        "kubelet-server",
        clock=clock,
        on_pending=lambda name: authority.approve(api_server.objects, name),
    )
    await manager.ensure()
    assert manager.has_certificate()
