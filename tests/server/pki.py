"""Certificates for tests: authorities, servers and clients, good and bad, made in a few milliseconds each."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key; `issue` makes those that it signs."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Certificate and key file, replaced one after the other."""
        certificate, key = directory / f"{name}.crt", directory / f"{name}.key"
        certificate.write_bytes(self.certificate_pem)
        key.write_bytes(self.key_pem)
        return certificate, key

    def issue_server(self, name: str = "node-1") -> Pair:
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        )
        return _make(_subject(name), self, [names], usage=ExtendedKeyUsageOID.SERVER_AUTH)

    def issue_client(
        self,
        name: str | None,
        groups: Sequence[str] = (),
        *,
        uids: Sequence[str] = (),
        starts: datetime.timedelta = -DAY,
        ends: datetime.timedelta = DAY,
        usage: ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
    ) -> Pair:
        return _make(_subject(name, groups, uids), self, [], usage=usage, starts=starts, ends=ends)

    def issue_authority(self, name: str) -> Pair:
        return _make(_subject(name), self, [], is_authority=True)


def make_authority(name: str = "ca") -> Pair:
    return _make(_subject(name), None, [], is_authority=True)


def client_context(
    server_authority: Pair, client: Pair | None = None, chain: Sequence[Pair] = (), *, directory: Path
) -> ssl.SSLContext:
    """How a client connects that trusts `server_authority` and shows `client` with the `chain` behind it."""
    context = ssl.create_default_context(cadata=server_authority.certificate_pem.decode())
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if client is not None:
        certificate, key = client.write(directory, f"client-{client.certificate.serial_number}")
        certificate.write_bytes(b"".join(pair.certificate_pem for pair in (client, *chain)))
        context.load_cert_chain(certificate, key)
    return context


def _subject(name: str | None, groups: Sequence[str] = (), uids: Sequence[str] = ()) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    if name is not None:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, name))
    uid_oid = ObjectIdentifier("1.3.6.1.4.1.57683.2")
    attributes += [x509.NameAttribute(uid_oid, uid) for uid in uids]
    return x509.Name(attributes)


def _make(
    subject: x509.Name,
    issuer: Pair | None,
    extensions: list[x509.ExtensionType],
    *,
    is_authority: bool = False,
    usage: ObjectIdentifier | None = None,
    starts: datetime.timedelta = -DAY,
    ends: datetime.timedelta = DAY,
) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + starts)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return Pair(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)
