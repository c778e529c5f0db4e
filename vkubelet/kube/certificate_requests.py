"""
Asking the cluster for a certificate: CertificateSigningRequest, from its creation to its answer.

The request's name follows from what is asked and the key, so a request that was made before a restart is
found again instead of made twice, and an operator who approves does not chase copies. The answer is watched
for, not polled. Whether anybody approves is the cluster's policy: kube-controller-manager does so by itself
for node client certificates where RBAC lets it, for serving certificates never.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vkubelet.clock import Clock
from vkubelet.errors import ApiError, ApiUnavailableError, ConflictError
from vkubelet.kube.rest import RestClient, segment
from vkubelet.model.pod import Json

__all__ = ["CertificateRequest", "CertificateRequestApi", "CertificateRequestDenied"]

_PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_WATCH_S = 300
_PAUSE_S = 1.0
"""Between two watches, in case the API server ends each at once."""


class CertificateRequestDenied(ApiError):  # noqa: N818 - it is an answer, named like the API's condition
    """The request was denied, or the signer failed; the message has the cluster's words."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """
    What is asked for.

    Attributes:
        signer_name: such as ``kubernetes.io/kubelet-serving``.
        usage: "server auth" or "client auth".
        common_name, organization: the subject.
        dns_names, ips: the subject alternative names.
    """

    signer_name: str
    usage: str
    common_name: str
    organization: str
    dns_names: tuple[str, ...] = ()
    ips: tuple[str, ...] = ()

    def pem(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """The PKCS#10 request, signed with `key`."""
        names: Sequence[x509.GeneralName] = [
            *(x509.DNSName(name) for name in self.dns_names),
            *(x509.IPAddress(ipaddress.ip_address(ip)) for ip in self.ips),
        ]
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, self.organization),
                x509.NameAttribute(NameOID.COMMON_NAME, self.common_name),
            ]
        )
        builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def name(self, key: ec.EllipticCurvePrivateKey) -> str:
        """The object's name, another one for each key and each content."""
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashlib.sha256(public + repr(self).encode()).hexdigest()
        return f"csr-{digest[:32]}"


class CertificateRequestApi:
    """CertificateSigningRequests, through a `RestClient`."""

    def __init__(self, client: RestClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def obtain(
        self, request: CertificateRequest, key: ec.EllipticCurvePrivateKey, pending: Callable[[str], object]
    ) -> bytes:
        """
        The signed certificate with its chain, in PEM; waits for as long as nobody decides.

        Args:
            request: what to ask for.
            key: whose certificate it shall be.
            pending: told the request's name while nobody has decided, again every few minutes.

        Raises:
            CertificateRequestDenied: it will not be signed.
            ApiError: the API server could not be asked.
        """
        name = request.name(key)
        try:
            await self._client.create(_PATH, _object(name, request, key))
        except ConflictError:
            pass  # made before a restart
        while True:
            present = await self._client.get(f"{_PATH}/{segment(name)}")
            if (certificate := _answer(present)) is not None:
                return certificate
            pending(name)
            certificate = await self._watch(name, present["metadata"]["resourceVersion"])
            if certificate is not None:
                return certificate
            await self._clock.sleep(_PAUSE_S)

    async def _watch(self, name: str, resource_version: str) -> bytes | None:
        params = {"fieldSelector": f"metadata.name={name}", "resourceVersion": resource_version}
        async with self._client.watch(_PATH, params, timeout_s=_WATCH_S) as batches:
            async for lines in batches:
                for line in lines:
                    if (certificate := _event_answer(line)) is not None:
                        return certificate
        return None


def _object(name: str, request: CertificateRequest, key: ec.EllipticCurvePrivateKey) -> Json:
    return {
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name},
        "spec": {
            "signerName": request.signer_name,
            "request": base64.b64encode(request.pem(key)).decode(),
            "usages": ["digital signature", request.usage],
        },
    }


def _event_answer(line: bytes) -> bytes | None:
    event: Json = orjson.loads(line)
    match event["type"]:
        case "DELETED":
            raise CertificateRequestDenied("the CertificateSigningRequest was deleted before it was answered")
        case "ERROR":
            raise ApiUnavailableError(
                f"the watch for the certificate ended: {event['object'].get('message')}"
            )
        case _:
            return _answer(event["object"])


def _answer(request: Json) -> bytes | None:
    """The certificate, None while nobody has decided."""
    status: Json = request.get("status") or {}
    for condition in status.get("conditions") or ():
        if condition["type"] in ("Denied", "Failed"):
            raise CertificateRequestDenied(
                f"CertificateSigningRequest {request['metadata']['name']} is {condition['type']}: "
                f"{condition.get('reason', '')} {condition.get('message', '')}".rstrip()
            )
    certificate = status.get("certificate")
    return base64.b64decode(certificate) if certificate else None
