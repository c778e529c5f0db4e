"""
Certificate authorities, certificates and kubeconfigs of a test cluster.

One authority signs servers and clients of the cluster; the front proxy (API aggregation) has an authority
of its own, because whoever it signs may speak for any user. Keys are on P-256: they cost nothing to make.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["CertificateAuthority", "KeyPair", "Pki", "new_key", "write_kubeconfig"]

_HOUR = datetime.timedelta(hours=1)
_YEAR = datetime.timedelta(days=365)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write `<name>.crt` and `<name>.key` and return their paths."""
        directory.mkdir(parents=True, exist_ok=True)
        certificate_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
        certificate_file.write_bytes(self.certificate)
        _write_private(key_file, self.key)
        return certificate_file, key_file


class CertificateAuthority:
    """Signs certificates; `key_pair` is its own."""

    def __init__(self, key_pair: KeyPair) -> None:
        self.key_pair = key_pair
        self._certificate = x509.load_pem_x509_certificate(key_pair.certificate)
        key = serialization.load_pem_private_key(key_pair.key, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    @classmethod
    def create(cls, common_name: str) -> CertificateAuthority:
        """A new authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = (
            _builder(name, key, validity=10 * _YEAR)
            .issuer_name(name)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_key_usage(authority=True), critical=True)
        )
        return cls(KeyPair(_pem(builder.sign(key, hashes.SHA256())), _key_pem(key)))

    @classmethod
    def read_or_create(cls, directory: Path, name: str) -> CertificateAuthority:
        """The authority in `<name>.crt` and `<name>.key`; a new one is written there."""
        certificate_file, key_file = directory / f"{name}.crt", directory / f"{name}.key"
        if certificate_file.exists() and key_file.exists():
            return cls(KeyPair(certificate_file.read_bytes(), key_file.read_bytes()))
        authority = cls.create(name)
        authority.key_pair.write(directory, name)
        return authority

    def issue_client(
        self, user: str, groups: Sequence[str] = (), *, validity: datetime.timedelta = _YEAR
    ) -> KeyPair:
        """
        A client certificate: Kubernetes reads the user from the common name, groups from organisations.

        Args:
            user: such as ``system:node:worker``.
            groups: such as ``system:nodes``.
            validity: from now on; negative for a certificate that has expired.
        """
        name = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
            + [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        )
        return self._issue(name, [], ExtendedKeyUsageOID.CLIENT_AUTH, validity)

    def issue_server(
        self, common_name: str, names: Sequence[str], *, validity: datetime.timedelta = _YEAR
    ) -> KeyPair:
        """A serving certificate for `names`: host names and IP addresses."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return self._issue(
            subject, [_general_name(name) for name in names], ExtendedKeyUsageOID.SERVER_AUTH, validity
        )

    def _issue(
        self,
        subject: x509.Name,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        validity: datetime.timedelta,
    ) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, key, validity=validity)
            .issuer_name(self._certificate.subject)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return KeyPair(_pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key))


class Pki:
    """
    What a control plane needs of keys, kept in a directory across restarts.

    Attributes:
        directory: where the files are: `ca.crt`, `front-proxy-ca.crt`, `service-account.key` and so on.
        authority: signs servers and clients of the cluster.
        front_proxy: signs the API server as a client of aggregated API servers.
    """

    def __init__(self, directory: Path, api_server_names: Sequence[str]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.authority = CertificateAuthority.read_or_create(directory, "ca")
        self.front_proxy = CertificateAuthority.read_or_create(directory, "front-proxy-ca")
        if not (directory / "service-account.key").exists():
            self._issue_all(api_server_names)

    def _issue_all(self, api_server_names: Sequence[str]) -> None:
        self.authority.issue_server("kube-apiserver", api_server_names).write(self.directory, "apiserver")
        self.authority.issue_client("kube-apiserver-kubelet-client", ["system:masters"]).write(
            self.directory, "apiserver-kubelet-client"
        )
        self.front_proxy.issue_client("front-proxy-client").write(self.directory, "front-proxy-client")
        private, public = new_key()
        (self.directory / "service-account.pub").write_bytes(public)
        _write_private(self.directory / "service-account.key", private)

    def file(self, name: str) -> Path:
        """The path of one of the files."""
        return self.directory / name


def new_key() -> tuple[bytes, bytes]:
    """A private key and its public key, both PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return _key_pem(key), public


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    authority: bytes,
    client: KeyPair,
    user: str = "user",
    namespace: str = "default",
) -> Path:
    """
    Write a kubeconfig whose certificates are files beside it: short enough to read.

    Args:
        path: the kubeconfig; `<stem>.crt`, `<stem>.key` and `<stem>-ca.crt` are written beside it.
        server: the API server's URL.
        authority: the certificate, PEM, that signed the API server's.
        client: what the user shows.
        user: a name for the user's entry.
        namespace: what kubectl uses when none is given.
    """
    certificate_file, key_file = client.write(path.parent, path.stem)
    authority_file = path.with_name(f"{path.stem}-ca.crt")
    authority_file.write_bytes(authority)
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "vkubelet",
        "clusters": [
            {"name": "vkubelet", "cluster": {"server": server, "certificate-authority": str(authority_file)}}
        ],
        "users": [
            {
                "name": user,
                "user": {"client-certificate": str(certificate_file), "client-key": str(key_file)},
            }
        ],
        "contexts": [
            {"name": "vkubelet", "context": {"cluster": "vkubelet", "user": user, "namespace": namespace}}
        ],
    }
    _write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
    return path


def _builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, validity: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    # Clocks of containers and hosts differ a little; an expired certificate was valid before it expired.
    start = min(now, now + validity) - _HOUR
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(now + validity)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not authority,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_bytes(content)
