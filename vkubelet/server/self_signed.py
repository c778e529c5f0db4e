"""
A serving certificate that vouches for itself, when nobody gives a better one.

As the kubelet does without ``--tls-cert-file``: written once to ``<root-dir>/pki`` and used again after a
restart for as long as it is good. The API server takes it unless it runs with
``--kubelet-certificate-authority``; clients that verify need a certificate from a CA.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vkubelet.clock import Clock
from vkubelet.errors import ConfigurationError

__all__ = ["ensure_self_signed", "self_signed"]

log = structlog.get_logger(__name__)

_LIFETIME = datetime.timedelta(days=365)
_RENEW_BEFORE = datetime.timedelta(days=30)
_BACKDATED = datetime.timedelta(hours=1)
"""For clients whose clock is behind."""


def ensure_self_signed(
    pki_dir: Path, host_names: Sequence[str], ips: Sequence[str], clock: Clock
) -> tuple[Path, Path]:
    """
    Certificate and key file in `pki_dir`, made unless a good pair is there.

    A pair is good while it has 30 days left, names every host name and address, and fits together.

    Raises:
        ConfigurationError: `pki_dir` cannot be written.
    """
    certificate_file, key_file = pki_dir / "kubelet.crt", pki_dir / "kubelet.key"
    if _is_good(certificate_file, key_file, host_names, ips, clock.now()):
        return certificate_file, key_file
    certificate, key = self_signed(host_names, ips, clock.now())
    try:
        pki_dir.mkdir(parents=True, exist_ok=True)
        _write(key_file, key, 0o600)
        _write(certificate_file, certificate, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"--root-dir: cannot write a serving certificate to {pki_dir}: {error.strerror}"
        ) from error
    log.info("self-signed serving certificate made", file=str(certificate_file), names=[*host_names, *ips])
    return certificate_file, key_file


def self_signed(host_names: Sequence[str], ips: Sequence[str], now: datetime.datetime) -> tuple[bytes, bytes]:
    """
    Certificate and key (ECDSA P-256) in PEM, valid for a year from `now`.

    Raises:
        ValueError: one of `ips` is none, or there are no names at all.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.DNSName(name) for name in host_names]
    addresses = [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, (*host_names, *ips)[0][:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([*names, *addresses]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _is_good(
    certificate_file: Path,
    key_file: Path,
    host_names: Sequence[str],
    ips: Sequence[str],
    now: datetime.datetime,
) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return (
        certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc - _RENEW_BEFORE
        and certificate.public_key() == key.public_key()
        and set(host_names) <= set(names.get_values_for_type(x509.DNSName))
        and set(map(ipaddress.ip_address, ips)) <= set(names.get_values_for_type(x509.IPAddress))
    )


def _write(path: Path, data: bytes, mode: int) -> None:
    """Replace the file as a whole; nobody sees a part of it, or a key with a wider mode."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    beside.replace(path)
