"""
A certificate that the cluster signs, on disk, and renewed before it expires.

As the kubelet's certificate manager: certificate and key stand together in ``<name>-<date>.pem``, and the
link ``<name>-current.pem`` names the present one, so a reader never sees half a pair and the swap is one
rename. A key that has been asked for but not answered is kept (``<name>-pending.key``), so a restart waits
for the same request. What is signed is looked at before it is used: it must be for our key, and valid.
Renewal comes when 70 to 90 % of the life is over, each time drawn anew, so that a thousand nodes do not ask
in one minute.
"""

from __future__ import annotations

import datetime
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vkubelet.clock import Clock
from vkubelet.errors import ApiError, ConfigurationError
from vkubelet.kube.certificate_requests import CertificateRequest, CertificateRequestDenied
from vkubelet.logs import get_logger

__all__ = ["CertificateManager", "client_request", "is_usable", "missing_names", "serving_request"]

log = get_logger("certificates")

_FIRST_RETRY_S = 2.0
_LAST_RETRY_S = 32.0
_LAST_RETRY_DENIED_S = 300.0
_LEAST_LIFE_S = 1.0
_KEY_BEGIN = b"-----BEGIN PRIVATE KEY-----"
_NODE_GROUP = "system:nodes"


class Signer(Protocol):
    """Whoever answers requests."""

    async def obtain(
        self, request: CertificateRequest, key: ec.EllipticCurvePrivateKey, pending: Callable[[str], object]
    ) -> bytes:
        """The signed certificate in PEM; `pending` is told the request's name while nobody decides."""


def serving_request(node_name: str, dns_names: tuple[str, ...], ips: tuple[str, ...]) -> CertificateRequest:
    """What a kubelet's server asks for (signer ``kubernetes.io/kubelet-serving``)."""
    return CertificateRequest(
        "kubernetes.io/kubelet-serving",
        "server auth",
        f"system:node:{node_name}",
        _NODE_GROUP,
        dns_names,
        ips,
    )


def client_request(node_name: str) -> CertificateRequest:
    """What a kubelet asks for to be that node (signer ``kubernetes.io/kube-apiserver-client-kubelet``)."""
    return CertificateRequest(
        "kubernetes.io/kube-apiserver-client-kubelet",
        "client auth",
        f"system:node:{node_name}",
        _NODE_GROUP,
    )


class CertificateManager:
    """
    One certificate.

    Args:
        directory: where its files are; made if need be.
        name: such as ``kubelet-server``.
        on_change: called when the link names another pair.
        on_pending: called, now and then, with the name of a request that waits for somebody to approve it.
    """

    def __init__(
        self,
        signer: Signer,
        request: CertificateRequest,
        directory: Path,
        name: str,
        *,
        clock: Clock,
        on_change: Callable[[], object] = lambda: None,
        on_pending: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._signer = signer
        self._request = request
        self._directory = directory
        self._name = name
        self._clock = clock
        self._on_change = on_change
        self._on_pending = on_pending
        self._obtained_at: datetime.datetime | None = None

    @property
    def current_file(self) -> Path:
        """Certificate and key, in one PEM file; may not exist yet."""
        return self._directory / f"{self._name}-current.pem"

    def is_usable(self) -> bool:
        """A pair is there that has not expired, though it may be for a name or address of yesterday."""
        return is_usable(self.current_file, self._clock)

    def has_certificate(self) -> bool:
        """A pair is there that has not expired and says what we ask for."""
        certificate = self._current()
        return certificate is not None and self.is_usable() and _says(certificate, self._request)

    async def ensure(self) -> Path:
        """The pair, once there is one: at once if a good one is on disk, else when the cluster has signed."""
        if not self.has_certificate():
            await self._renew_until_done()
        return self.current_file

    async def run(self) -> None:
        """Renew in time, until cancelled."""
        while True:
            await self.ensure()
            certificate = self._current()
            if certificate is not None:  # else somebody removed it just now
                await self._clock.sleep(self._renewal_in_s(certificate))
                await self._renew_until_done()

    async def _renew_until_done(self) -> None:
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                await self.renew()
            except CertificateRequestDenied as error:
                log.error(
                    "certificate was refused, will be asked for anew", name=self._name, error=str(error)
                )
                self._pending_file.unlink(missing_ok=True)
                longest_s = _LAST_RETRY_DENIED_S
            except ApiError as error:
                log.warning("certificate was not obtained yet", name=self._name, error=str(error))
                longest_s = _LAST_RETRY_S
            else:
                return
            await self._clock.sleep(min(delay_s, longest_s) * random.uniform(1.0, 1.25))
            delay_s = min(delay_s * 2, _LAST_RETRY_DENIED_S)

    async def renew(self) -> None:
        """
        Ask for a new certificate and put it in place.

        Raises:
            CertificateRequestDenied: it was refused, or is of no use.
            ApiError: it was not given.
            ConfigurationError: the directory cannot be written.
        """
        key = self._pending_key()
        log.info(
            "asking the cluster for a certificate",
            name=self._name,
            request=self._request.name(key),
            signer=self._request.signer_name,
        )
        certificate = await self._signer.obtain(self._request, key, self._on_pending)
        self._check(certificate, key)
        try:
            self._store(certificate, key)
        except OSError as error:
            raise self._not_writable(error) from error
        self._obtained_at = self._clock.now()
        log.info("certificate obtained", name=self._name, file=str(self.current_file))
        self._on_change()

    def _renewal_in_s(self, certificate: x509.Certificate) -> float:
        """
        Seconds until 70 to 90 % of its life are over.

        Signers date certificates back by some minutes, for clocks that are behind. Of a life of minutes that
        would leave nothing, and we would ask again and again: its life begins when we got it.
        """
        begin = certificate.not_valid_before_utc
        if self._obtained_at is not None:
            begin = max(begin, self._obtained_at)
        due = begin + (certificate.not_valid_after_utc - begin) * random.uniform(0.7, 0.9)
        return max((due - self._clock.now()).total_seconds(), _LEAST_LIFE_S)

    def _check(self, pem: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
        except ValueError as error:
            raise CertificateRequestDenied("the signer's answer is no certificate in PEM") from error
        if certificate.public_key() != key.public_key():
            raise CertificateRequestDenied("the signer's certificate is for another key")
        if certificate.not_valid_after_utc <= self._clock.now() + datetime.timedelta(seconds=_LEAST_LIFE_S):
            raise CertificateRequestDenied(
                f"the signer's certificate expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            )

    # --- files ----------------------------------------------------------------------------------------

    @property
    def _pending_file(self) -> Path:
        return self._directory / f"{self._name}-pending.key"

    def _pending_key(self) -> ec.EllipticCurvePrivateKey:
        """The key of a request under way, else a new one, which is kept until it is answered."""
        try:
            pending = serialization.load_pem_private_key(self._pending_file.read_bytes(), None)
        except (OSError, ValueError):
            pending = None
        if isinstance(pending, ec.EllipticCurvePrivateKey):
            return pending
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            _write(self._pending_file, _key_pem(key))
        except OSError as error:
            raise self._not_writable(error) from error
        return key

    def _store(self, certificate: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        previous = self.current_file.resolve() if self.current_file.is_symlink() else None
        stamp = self._clock.now().strftime("%Y-%m-%d-%H-%M-%S-%f")
        pair = self._directory / f"{self._name}-{stamp}.pem"
        _write(pair, certificate.rstrip() + b"\n" + _key_pem(key))
        link = self._directory / f"{self._name}-next.pem"
        link.unlink(missing_ok=True)
        link.symlink_to(pair.name)
        os.replace(link, self.current_file)
        self._pending_file.unlink(missing_ok=True)
        for old in self._directory.glob(f"{self._name}-2*.pem"):
            if old.resolve() not in (pair.resolve(), previous):
                old.unlink()

    def _current(self) -> x509.Certificate | None:
        return _read_pair(self.current_file)

    def _not_writable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(f"--root-dir: cannot write to {self._directory}: {error.strerror}")


def is_usable(file: Path, clock: Clock) -> bool:
    """`file` holds a certificate that has not expired, and its key."""
    certificate = _read_pair(file)
    return certificate is not None and certificate.not_valid_after_utc > clock.now()


def _read_pair(file: Path) -> x509.Certificate | None:
    """The certificate in `file`, None unless its key stands beside it."""
    try:
        pem = file.read_bytes()
        certificate = x509.load_pem_x509_certificate(pem)
        key = serialization.load_pem_private_key(pem[pem.rindex(_KEY_BEGIN) :], None)
    except (OSError, ValueError):
        return None
    return certificate if certificate.public_key() == key.public_key() else None


def missing_names(certificate: x509.Certificate, request: CertificateRequest) -> tuple[str, ...]:
    """The host names and addresses of `request` that the certificate is not for."""
    try:
        alternative = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (*request.dns_names, *request.ips)
    names = {*alternative.get_values_for_type(x509.DNSName)}
    names |= {str(ip) for ip in alternative.get_values_for_type(x509.IPAddress)}
    return tuple(name for name in (*request.dns_names, *request.ips) if name not in names)


def _says(certificate: x509.Certificate, request: CertificateRequest) -> bool:
    """It was made for the same name and addresses."""
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [name.value for name in names] == [request.common_name] and not missing_names(certificate, request)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    """Readable by us alone from its first byte on, and whole or not there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
