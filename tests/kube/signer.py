"""A certificate authority that signs requests as kube-controller-manager does, by hand or by itself."""

from __future__ import annotations

import asyncio
import base64
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.kube.fake_objects import FakeObjects, Json
from vkubelet.clock import Clock
from vkubelet.kube.certificate_requests import CertificateRequest

CSRS = "certificatesigningrequests"
DAY_S = 86_400.0


@dataclass
class Authority:
    """
    Signs; `life_s` is how long what it signs is valid from now on, `backdated_s` how long it was before.

    Attributes:
        requests: what was signed.
    """

    clock: Clock
    life_s: float = 10 * DAY_S
    backdated_s: float = 0.0
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    requests: list[x509.CertificateSigningRequest] = field(default_factory=list)
    certificate: x509.Certificate = field(init=False)

    def __post_init__(self) -> None:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cluster-ca")])
        authority = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = (
            self._builder(name, name, self.key.public_key(), 100 * DAY_S)
            .add_extension(authority, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def sign(self, request_pem: bytes) -> bytes:
        request = x509.load_pem_x509_csr(request_pem)
        assert request.is_signature_valid
        self.requests.append(request)
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        builder = self._builder(request.subject, self.certificate.subject, key, self.life_s)
        for extension in request.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def approve(self, objects: FakeObjects, name: str) -> None:
        """What ``kubectl certificate approve`` and the signer do."""
        spec = objects.get(CSRS, name)["spec"]
        certificate = base64.b64encode(self.sign(base64.b64decode(spec["request"]))).decode()
        condition = {"type": "Approved", "status": "True", "reason": "KubectlApprove"}
        _answer(objects, name, {"conditions": [condition], "certificate": certificate})

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life_s: float
    ) -> x509.CertificateBuilder:
        now = self.clock.now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(seconds=self.backdated_s))
            .not_valid_after(now + datetime.timedelta(seconds=life_s))
        )


def deny(objects: FakeObjects, name: str) -> None:
    """What ``kubectl certificate deny`` does."""
    denied = {"type": "Denied", "status": "True", "reason": "KubectlDeny", "message": "not that one"}
    _answer(objects, name, {"conditions": [denied]})


def _answer(objects: FakeObjects, name: str, status: Json) -> None:
    objects.patch(CSRS, name, {"status": status}, subresource="status")


class SigningClerk:
    """
    A `Signer` without an API: answers when told to, or at once.

    Attributes:
        asked: each request with its key, in order.
        refuse: raised for the next requests, one each.
    """

    def __init__(self, authority: Authority, *, at_once: bool = True) -> None:
        self.authority = authority
        self.asked: list[tuple[CertificateRequest, ec.EllipticCurvePrivateKey]] = []
        self.refuse: list[Exception] = []
        self.approved = asyncio.Event()
        if at_once:
            self.approved.set()

    async def obtain(
        self, request: CertificateRequest, key: ec.EllipticCurvePrivateKey, pending: Callable[[str], object]
    ) -> bytes:
        self.asked.append((request, key))
        if self.refuse:
            raise self.refuse.pop(0)
        if not self.approved.is_set():
            pending(request.name(key))
        await self.approved.wait()
        return self.authority.sign(request.pem(key))
