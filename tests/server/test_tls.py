from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.clocks import ManualClock
from tests.server.kubelet import Files, Kubelet, serving, without_client_ca
from tests.server.pki import make_authority
from vkubelet.errors import ConfigurationError
from vkubelet.server.tls import ServingTLS, TLSFiles, TLSPolicy
from vkubelet.settings.tls_names import TLS12_CIPHER_SUITES


def test_a_client_certificate_is_asked_for_and_not_required(files: Files) -> None:
    assert ServingTLS(files.paths, ManualClock()).context.verify_mode is ssl.CERT_OPTIONAL


def test_without_a_client_ca_no_client_certificate_is_asked_for(files: Files) -> None:
    tls = ServingTLS(without_client_ca(files).paths, ManualClock())
    assert tls.context.verify_mode is ssl.CERT_NONE
    assert tls.client_trust is None


@pytest.mark.parametrize(
    ("policy", "version", "cipher"),
    [
        (TLSPolicy(), ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES256-GCM-SHA384"),
        (TLSPolicy(), ssl.TLSVersion.TLSv1_3, None),
        (TLSPolicy("VersionTLS13"), ssl.TLSVersion.TLSv1_3, None),
        (
            TLSPolicy(cipher_suites=("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",)),
            ssl.TLSVersion.TLSv1_2,
            "ECDHE-ECDSA-CHACHA20-POLY1305",
        ),
        (TLSPolicy(cipher_suites=("TLS_AES_128_GCM_SHA256",)), ssl.TLSVersion.TLSv1_3, None),
    ],
    ids=["1.2", "1.3", "1.3 alone", "a suite of 1.2", "a suite of 1.3"],
)
async def test_what_the_policy_allows_is_served(
    policy: TLSPolicy, version: ssl.TLSVersion, cipher: str | None, files: Files
) -> None:
    async with serving(files, policy=policy) as kubelet:
        spoken = await handshake(kubelet, version)
    assert spoken.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert cipher is None or (spoken.cipher() or ("",))[0] == cipher


@pytest.mark.parametrize(
    "policy",
    [TLSPolicy("VersionTLS13"), TLSPolicy(cipher_suites=("TLS_AES_128_GCM_SHA256",))],
    ids=["1.3 asked for", "no suite for 1.2"],
)
async def test_an_older_version_than_the_policy_s_is_refused(policy: TLSPolicy, files: Files) -> None:
    async with serving(files, policy=policy) as kubelet:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await handshake(kubelet, ssl.TLSVersion.TLSv1_2)


async def handshake(kubelet: Kubelet, version: ssl.TLSVersion) -> ssl.SSLObject:
    """What a client that speaks one version alone agrees on."""
    context = kubelet.files.client()
    context.minimum_version = context.maximum_version = version
    reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.server.port, ssl=context)
    spoken: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    await reader.read()
    return spoken


def test_every_cipher_suite_that_may_be_named_is_one_that_openssl_knows(files: Files) -> None:
    policy = TLSPolicy(cipher_suites=tuple(TLS12_CIPHER_SUITES))
    context = ServingTLS(files.paths, ManualClock(), policy).context
    offered = {cipher["name"] for cipher in context.get_ciphers()}
    assert offered >= set(TLS12_CIPHER_SUITES.values())


def test_old_protocols_and_weak_ciphers_are_not_offered(files: Files) -> None:
    context = ServingTLS(files.paths, ManualClock()).context
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert all(cipher["aead"] for cipher in context.get_ciphers())
    assert all(
        cipher["protocol"] == "TLSv1.3" or cipher["name"].startswith("ECDHE-")
        for cipher in context.get_ciphers()
    )


def test_unchanged_files_are_not_loaded_again(files: Files) -> None:
    assert ServingTLS(files.paths, ManualClock()).reload() is False


def test_a_new_pair_is_taken_over_as_a_whole(files: Files) -> None:
    tls = ServingTLS(files.paths, ManualClock())
    trust, new = tls.client_trust, files.server_authority.issue_server("renewed")
    files.paths.certificate.write_bytes(new.certificate_pem)
    assert tls.reload() is False  # the certificate has changed, its key has not yet
    files.paths.private_key.write_bytes(new.key_pem)
    assert tls.reload() is True
    assert tls.reload() is False
    assert tls.client_trust is trust


def test_a_swapped_link_is_seen(files: Files, tmp_path: Path) -> None:
    for number in ("1", "2"):
        (tmp_path / number).mkdir()
        files.server_authority.issue_server(number).write(tmp_path / number, "tls")
    (tmp_path / "data").symlink_to("1")
    tls = ServingTLS(TLSFiles(tmp_path / "data" / "tls.crt", tmp_path / "data" / "tls.key"), ManualClock())
    (tmp_path / "new").symlink_to("2")
    (tmp_path / "new").replace(tmp_path / "data")
    assert tls.reload() is True


def test_files_that_vanish_or_break_leave_what_is_served(files: Files) -> None:
    tls = ServingTLS(files.paths, ManualClock())
    assert files.paths.client_ca is not None
    trust = tls.client_trust
    files.paths.client_ca.write_bytes(b"no certificate")
    assert tls.reload() is False
    files.paths.certificate.unlink()
    assert tls.reload() is False
    assert tls.client_trust is trust


def test_another_client_ca_is_another_trust(files: Files) -> None:
    tls = ServingTLS(files.paths, ManualClock())
    assert files.paths.client_ca is not None
    files.paths.client_ca.write_bytes(make_authority("other").certificate_pem)
    assert tls.reload() is True
    assert tls.client_trust is not None
    assert [a.subject.rfc4514_string() for a in tls.client_trust.authorities] == ["CN=other"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("certificate", None, "--tls-cert-file: cannot read .*No such file"),
        ("private_key", None, "--tls-private-key-file: cannot read .*No such file"),
        ("client_ca", None, "--client-ca-file: cannot read .*No such file"),
        ("certificate", b"", "--tls-cert-file .* must be a certificate and its key"),
        ("private_key", b"nonsense", "--tls-private-key-file .* must be a certificate and its key"),
        ("client_ca", b"nonsense", "--client-ca-file: .* holds no certificates in PEM"),
        ("client_ca", b"\xff\xfe", "--client-ca-file: .* holds no certificates in PEM"),
    ],
)
def test_a_bad_file_is_a_configuration_error_that_names_the_option(
    files: Files, name: str, content: bytes | None, message: str
) -> None:
    path: Path = getattr(files.paths, name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        ServingTLS(files.paths, ManualClock())


def test_a_key_of_another_certificate_is_a_configuration_error(files: Files) -> None:
    files.paths.private_key.write_bytes(files.server_authority.key_pem)
    with pytest.raises(ConfigurationError, match="must be a certificate and its key"):
        ServingTLS(files.paths, ManualClock())


def test_an_encrypted_key_is_refused_instead_of_asked_about(files: Files) -> None:
    pair = files.server_authority.issue_server()
    encrypted = pair.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    files.paths.certificate.write_bytes(pair.certificate_pem)
    files.paths.private_key.write_bytes(encrypted)
    with pytest.raises(ConfigurationError, match="is encrypted"):
        ServingTLS(files.paths, ManualClock())
