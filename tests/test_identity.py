from __future__ import annotations

import asyncio
import datetime
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.clocks import ManualClock, settle
from tests.fake_api_server import FakeApiServer
from tests.kube.signer import CSRS, DAY_S, Authority
from vkubelet import identity
from vkubelet.errors import ConfigurationError
from vkubelet.kube.client import KubeClient
from vkubelet.settings import Settings, load_settings


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.datetime.now(datetime.UTC).isoformat())


@pytest.fixture
def authority(clock: ManualClock) -> Authority:
    return Authority(clock)


@pytest.fixture
def settings(api_server: FakeApiServer, tmp_path: Path) -> Settings:
    """Of a node that has only a token to begin with."""
    api_server.kubeconfig(tmp_path, token="bootstrap-token").rename(tmp_path / "bootstrap.kubeconfig")
    return load(tmp_path)


def load(directory: Path) -> Settings:
    flags = {
        "bootstrap_kubeconfig": str(directory / "bootstrap.kubeconfig"),
        "kubeconfig": str(directory / "etc" / "kubelet.kubeconfig"),
        "provider": "memory",
        "root_dir": str(directory / "root"),
        "node_name": "node-1",
    }
    return load_settings(flags, {}, providers=("memory",))


async def approve(api_server: FakeApiServer, authority: Authority, number: int = 1) -> None:
    """Approve the latest request, once there are so many and somebody waits."""
    await api_server.wait_for(lambda: len(api_server.objects.list(CSRS)) >= number and api_server.watches > 0)
    requests = api_server.objects.list(CSRS)
    latest = max(requests, key=lambda request: int(request["metadata"]["resourceVersion"]))
    authority.approve(api_server.objects, latest["metadata"]["name"])


async def bootstrapped(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer, authority: Authority
) -> Any:
    """Run it through; the kubeconfig that was written."""
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(identity.bootstrap(settings, clock))
        await approve(api_server, authority)
    assert settings.kubeconfig is not None
    return yaml.safe_load(settings.kubeconfig.read_text())


async def test_the_kubeconfig_names_the_certificate_that_was_signed(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer, authority: Authority
) -> None:
    written = await bootstrapped(settings, clock, api_server, authority)
    pem = settings.root_dir / "pki" / "kubelet-client-current.pem"
    assert written["users"][0]["user"] == {"client-certificate": str(pem), "client-key": str(pem)}
    assert written["clusters"][0]["cluster"]["server"] == api_server.url
    assert settings.kubeconfig is not None
    assert stat.S_IMODE(settings.kubeconfig.stat().st_mode) == 0o600
    spec = api_server.objects.list(CSRS)[0]["spec"]
    assert spec["signerName"] == "kubernetes.io/kube-apiserver-client-kubelet"
    assert spec["usages"] == ["digital signature", "client auth"]
    assert authority.requests[0].subject.rfc4514_string() == "CN=system:node:node-1,O=system:nodes"
    [request] = api_server.requests_to("POST", CSRS)
    assert request.headers["Authorization"] == "Bearer bootstrap-token"


async def test_the_client_uses_it_from_then_on(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer, authority: Authority
) -> None:
    written = await bootstrapped(settings, clock, api_server, authority)
    written["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:6443"  # certificates need TLS
    assert settings.kubeconfig is not None
    settings.kubeconfig.write_text(yaml.safe_dump(written))
    async with KubeClient.connect(settings.kubeconfig, clock=clock) as client:
        assert client.credentials.authorization is None
        assert client.credentials.certificate_file == settings.root_dir / "pki" / "kubelet-client-current.pem"


async def test_once_is_enough(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer, authority: Authority, tmp_path: Path
) -> None:
    await bootstrapped(settings, clock, api_server, authority)
    (tmp_path / "bootstrap.kubeconfig").unlink()
    asked = len(api_server.requests)
    await identity.bootstrap(load(tmp_path), clock)
    assert len(api_server.requests) == asked


async def test_a_kubeconfig_of_somebody_else_is_left_alone(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer
) -> None:
    assert settings.kubeconfig is not None
    settings.kubeconfig.parent.mkdir()
    for content in ("nonsense", "{}", yaml.safe_dump({"users": [{"name": "u", "user": {"token": "t"}}]})):
        settings.kubeconfig.write_text(content)
        await identity.bootstrap(settings, clock)
        assert settings.kubeconfig.read_text() == content
    assert api_server.requests == []


async def test_a_node_that_was_away_for_too_long_starts_over(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer, authority: Authority
) -> None:
    await bootstrapped(settings, clock, api_server, authority)
    await clock.advance(11 * DAY_S)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(identity.bootstrap(settings, clock))
        await approve(api_server, authority, 2)
    assert len(api_server.objects.list(CSRS)) == 2


async def test_a_lost_kubeconfig_is_written_again_without_asking(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer, authority: Authority
) -> None:
    first = await bootstrapped(settings, clock, api_server, authority)
    assert settings.kubeconfig is not None
    settings.kubeconfig.unlink()
    await identity.bootstrap(settings, clock)
    assert yaml.safe_load(settings.kubeconfig.read_text()) == first
    assert len(api_server.objects.list(CSRS)) == 1


async def test_relative_files_of_the_bootstrap_kubeconfig_are_found_from_elsewhere(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    source = tmp_path / "bootstrap.kubeconfig"
    document = yaml.safe_load(source.read_text())
    document["clusters"][0]["cluster"]["certificate-authority"] = "ca.crt"
    source.write_text(yaml.safe_dump(document))
    written = await bootstrapped(load(tmp_path), clock, api_server, authority)
    assert written["clusters"][0]["cluster"]["certificate-authority"] == str(tmp_path / "ca.crt")


async def test_a_token_that_is_not_accepted_is_told_with_its_option(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer
) -> None:
    api_server.accepted_token = "another"
    with pytest.raises(ConfigurationError, match=r"^--bootstrap-kubeconfig .*does not accept"):
        await identity.bootstrap(settings, clock)


async def test_without_the_option_nothing_is_done(api_server: FakeApiServer, tmp_path: Path) -> None:
    flags = {"kubeconfig": str(api_server.kubeconfig(tmp_path)), "provider": "memory"}
    await identity.bootstrap(load_settings(flags, {}, providers=("memory",)), ManualClock())
    assert api_server.requests == []


# --- renewal ----------------------------------------------------------------------------------------------


async def test_it_is_renewed_in_time_and_shown_on_new_connections(
    settings: Settings, clock: ManualClock, api_server: FakeApiServer, authority: Authority
) -> None:
    await bootstrapped(settings, clock, api_server, authority)
    async with KubeClient.connect(settings.kubeconfig, clock=clock) as client:
        pem = settings.root_dir / "pki" / "kubelet-client-current.pem"
        client.credentials._loaded.cert_file = str(pem)  # which a server without TLS is not asked with
        session = client._session
        keeping = asyncio.create_task(identity.keep_certificate(settings, client, clock))
        await settle()
        advancing = asyncio.create_task(clock.advance(9 * DAY_S))
        async with asyncio.timeout(5):
            await approve(api_server, authority, 2)
            await advancing
            await api_server.wait_for(lambda: client._session is not session)
        keeping.cancel()
        await asyncio.wait([keeping])


async def test_other_identities_are_not_renewed(
    settings: Settings, api_server: FakeApiServer, kube_client: KubeClient, clock: ManualClock
) -> None:
    await identity.keep_certificate(settings, kube_client, clock)
    assert api_server.requests == []
