"""Kubeconfigs and the in-cluster account: what is read, kept fresh, and refused."""

from __future__ import annotations

import base64
import datetime
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.clocks import ManualClock
from tests.fake_api_server import FakeApiServer
from vkubelet.errors import ConfigurationError, UnauthorizedError
from vkubelet.kube import lean_import
from vkubelet.kube.client import KubeClient
from vkubelet.kube.credentials import Credentials


def certificate(days: float) -> tuple[bytes, bytes]:
    """A self-signed certificate that ends `days` after the manual clock's start, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "system:node:n1")])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start - datetime.timedelta(days=100))
        .not_valid_after(start + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return made.public_bytes(serialization.Encoding.PEM), pem


def kubeconfig(
    directory: Path, user: Mapping[str, Any] | None = None, cluster: Mapping[str, Any] | None = None
) -> Path:
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": dict(user or {})}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path = directory / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def inline(pem: bytes) -> str:
    return base64.b64encode(pem).decode()


async def test_inline_certificates_leave_no_files_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    cert, key = certificate(1)
    data = {"client-certificate-data": inline(cert), "client-key-data": inline(key)}
    path = kubeconfig(tmp_path, data, {"certificate-authority-data": inline(cert)})
    await Credentials.load(path, ManualClock())
    credentials = await Credentials.load(path, ManualClock())
    assert list(scratch.iterdir()) == []
    assert credentials.certificate_expires_at == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    credentials.check_certificate()


async def test_an_expired_certificate_is_named_with_its_date(tmp_path: Path) -> None:
    cert, key = certificate(-1)
    data = {"client-certificate-data": inline(cert), "client-key-data": inline(key)}
    credentials = await Credentials.load(kubeconfig(tmp_path, data), ManualClock())
    with pytest.raises(ConfigurationError, match=r"--kubeconfig .*expired on 2025-12-31 00:00 UTC"):
        credentials.check_certificate()


async def test_a_certificate_file_that_was_replaced_is_taken_up(tmp_path: Path) -> None:
    clock = ManualClock()
    cert_file, key_file = tmp_path / "crt", tmp_path / "key"

    def write(days: float, mtime: float) -> None:
        cert, key = certificate(days)
        cert_file.write_bytes(cert)
        key_file.write_bytes(key)
        os.utime(cert_file, (mtime, mtime))

    write(1, 1000)
    path = kubeconfig(tmp_path, {"client-certificate": str(cert_file), "client-key": str(key_file)})
    credentials = await Credentials.load(path, clock)
    write(9, 2000)
    await credentials.refresh()
    assert credentials.certificate_expires_at == datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    await clock.advance(60)
    assert credentials.is_due
    await credentials.refresh()
    assert credentials.certificate_expires_at == datetime.datetime(2026, 1, 10, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "this is no kubeconfig", id="empty"),
        pytest.param("- a", "this is no kubeconfig", id="list"),
        pytest.param("a: [", "it cannot be read", id="no-yaml"),
        pytest.param("clusters: 3", "clusters must be a list", id="shape"),
        pytest.param("current-context: x", "not a usable kubeconfig", id="no-context"),
    ],
)
async def test_an_unusable_kubeconfig_is_said_to_be_one(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=rf"--kubeconfig {path}: {message}") as caught:
        await Credentials.load(path, ManualClock())
    assert "\n" not in str(caught.value)


async def test_a_kubeconfig_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no such file"):
        await Credentials.load(tmp_path / "none", ManualClock())


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        pytest.param({"server": "ftp://x"}, {}, "is not the URL of an API server", id="scheme"),
        pytest.param({"server": "https://"}, {}, "is not the URL of an API server", id="no-host"),
        pytest.param({"proxy-url": "socks5://x"}, {}, "only http and https proxies", id="socks"),
        pytest.param({"certificate-authority": "/none"}, {}, "File does not exists", id="no-ca"),
        pytest.param({"certificate-authority-data": inline(b"x")}, {}, "certificate authority", id="bad-ca"),
        pytest.param(
            {}, {"client-certificate-data": inline(b"x")}, "client certificate and key", id="bad-cert"
        ),
        pytest.param({}, {"exec": {"apiVersion": "v1", "command": "/none"}}, "not a usable", id="no-plugin"),
    ],
)
async def test_what_a_kubeconfig_asks_for_in_vain_is_named(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await Credentials.load(kubeconfig(tmp_path, user, cluster), ManualClock())


async def test_options_of_the_connection_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    cluster = {"tls-server-name": "kubernetes", "insecure-skip-tls-verify": True}
    credentials = await Credentials.load(kubeconfig(tmp_path, cluster=cluster), ManualClock())
    assert (credentials.server_hostname, credentials.proxy) == ("kubernetes", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "192.0.2.1")
    assert (await Credentials.load(kubeconfig(tmp_path), ManualClock())).proxy is None


async def test_a_token_file_is_read_again_every_minute(api_server: FakeApiServer, tmp_path: Path) -> None:
    clock, token = ManualClock(), tmp_path / "token"
    token.write_text("one")
    api_server.accepted_token = "one"
    async with KubeClient.connect(
        api_server.kubeconfig(tmp_path, tokenFile=str(token)), clock=clock
    ) as client:
        await client.cluster_id()
        token.write_text("two")
        await clock.advance(61)
        api_server.accepted_token = "two"
        await client.cluster_id()
    assert [r.headers["Authorization"] for r in api_server.requests] == ["Bearer one", "Bearer two"]


async def test_a_refused_token_is_read_again_at_once_and_the_request_repeated(
    api_server: FakeApiServer, tmp_path: Path
) -> None:
    clock, token = ManualClock(), tmp_path / "token"
    token.write_text("one")
    path = api_server.kubeconfig(tmp_path, tokenFile=str(token))
    async with KubeClient.connect(path, clock=clock) as client:
        await clock.advance(11)
        token.write_text("two")
        api_server.accepted_token = "two"
        await client.cluster_id()
        api_server.accepted_token = "three"
        with pytest.raises(UnauthorizedError):
            await client.cluster_id()
    assert len(api_server.requests) == 3


async def test_an_exec_plugin_is_asked_again_when_its_token_is_refused(
    api_server: FakeApiServer, tmp_path: Path
) -> None:
    clock, count = ManualClock(), tmp_path / "count"
    program = (
        "import json, pathlib, sys; p = pathlib.Path(sys.argv[1]); "
        "n = int(p.read_text() or 0) + 1 if p.exists() else 1; p.write_text(str(n)); "
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential', "
        "'status': {'token': f't{n}'}}))"
    )
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-c", program, str(count)],
    }
    api_server.accepted_token = "t1"
    async with KubeClient.connect(api_server.kubeconfig(tmp_path, exec=plugin), clock=clock) as client:
        await clock.advance(3600)
        await client.cluster_id()
        assert count.read_text() == "1"
        await clock.advance(11)
        api_server.accepted_token = "t2"
        await client.cluster_id()
    assert count.read_text() == "2"


async def test_outside_a_cluster_a_kubeconfig_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="--kubeconfig: none is given and this is not a pod"):
        await Credentials.load(None, ManualClock())


async def test_in_a_cluster_the_service_account_is_used_and_its_token_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token, authority = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("one")
    authority.write_bytes(certificate(1)[0])
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(lean_import.incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(lean_import.incluster_config, "SERVICE_CERT_FILENAME", str(authority))
    clock = ManualClock()
    credentials = await Credentials.load(None, clock)
    assert (credentials.server, credentials.authorization) == ("https://[fd00::1]:443", "Bearer one")
    token.write_text("two")
    await clock.advance(60)
    await credentials.refresh()
    assert credentials.authorization == "Bearer two"


async def test_what_we_had_stays_in_use_when_it_cannot_be_renewed(
    api_server: FakeApiServer, tmp_path: Path
) -> None:
    clock, token = ManualClock(), tmp_path / "token"
    token.write_text("one")
    path = api_server.kubeconfig(tmp_path, tokenFile=str(token))
    async with KubeClient.connect(path, clock=clock) as client:
        token.unlink()
        await clock.advance(61)
        await client.cluster_id()
    assert api_server.requests[-1].headers["Authorization"] == "Bearer one"
