"""The files that options may name."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.settings.cases import kubeconfig


@pytest.fixture(scope="session")
def pem() -> Mapping[str, bytes]:
    """A certificate, its key, the key under a passphrase, and a key of somebody else."""
    key, other = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )

    def private(
        of: ec.EllipticCurvePrivateKey, protection: serialization.KeySerializationEncryption
    ) -> bytes:
        return of.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)

    return {
        "cert": certificate.public_bytes(serialization.Encoding.PEM),
        "key": private(key, serialization.NoEncryption()),
        "locked": private(key, serialization.BestAvailableEncryption(b"open sesame")),
        "other": private(other, serialization.NoEncryption()),
    }


@pytest.fixture
def here(tmp_path: Path, pem: Mapping[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the files that options may name, each in three copies."""
    for copy in "abc":
        (tmp_path / f"{copy}.kubeconfig").write_text(kubeconfig())
        (tmp_path / f"{copy}.yaml").write_text("region: west\n")
        (tmp_path / f"{copy}.crt").write_bytes(pem["cert"])
        (tmp_path / f"{copy}.key").write_bytes(pem["key"])
    monkeypatch.chdir(tmp_path)
    return tmp_path
