"""
Whose request is this? Client certificates, bearer tokens, and nobody.

The order and the outcome are the kubelet's: a certificate first, then a token; the first credentials that
are accepted count. Where none is, credentials that were refused mean 401 even if anonymous requests are let
in, so that a wrong token never makes a client somebody else.

TLS has verified a certificate against the client CA before it arrives here (`tls`). A connection may live
longer than that verdict, so validity and issuer are looked at again with each request.
"""

from __future__ import annotations

import asyncio
import binascii
import hashlib
import hmac
import secrets
import ssl
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias
from weakref import WeakKeyDictionary

import structlog
from aiohttp import hdrs, web
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from vkubelet.clock import Clock
from vkubelet.errors import ConfigurationError, VirtualKubeletError
from vkubelet.model.access import ALL_AUTHENTICATED, ANONYMOUS, TokenReviewResult, UserInfo
from vkubelet.server.expiring_cache import ExpiringCache, Fetched
from vkubelet.server.review_retry import retried
from vkubelet.server.tls import ClientTrust, trust_of

__all__ = [
    "Authenticator",
    "BearerTokens",
    "ClientCertificates",
    "Rejected",
    "ReviewToken",
    "Verdict",
    "make_authenticator",
]

log = structlog.get_logger(__name__)

ReviewToken: TypeAlias = Callable[[str], Awaitable[TokenReviewResult]]
"""Makes a TokenReview; raises `ApiError` when there is no answer."""

TOKEN_TTL_S = 120.0
_MAX_TOKENS = 8192
_REVIEW_TIMEOUT_S = 30.0
_WEBSOCKET_TOKEN_PREFIX = "base64url.bearer.authorization.k8s.io."
_CREDENTIAL_ID = "authentication.kubernetes.io/credential-id"
_UID_OID = x509.ObjectIdentifier("1.3.6.1.4.1.57683.2")


@dataclass(frozen=True, slots=True)
class Rejected:
    """There were credentials, and they are no good; `reason` is for the log, not for the client."""

    reason: str


Verdict: TypeAlias = UserInfo | Rejected | None
"""The user; or why not; or None, when there was nothing to judge."""


class Authenticator(Protocol):
    """Judges one kind of credentials."""

    async def authenticate(self, request: web.Request) -> Verdict:
        """Whose request it is."""


def make_authenticator(
    *,
    client_trust: Callable[[], ClientTrust | None] | None,
    review_token: ReviewToken | None,
    anonymous_auth: bool,
    clock: Clock,
    token_ttl_s: float = TOKEN_TTL_S,
) -> Authenticator:
    """
    The authenticator that the options ask for.

    Args:
        client_trust: who signs client certificates just now; None without ``--client-ca-file``.
        review_token: None without ``--authentication-token-webhook``.
        anonymous_auth: let requests without credentials in, as ``system:anonymous``.
        clock: for how long answers hold.
        token_ttl_s: how long the API server's word on a token holds.

    Raises:
        ConfigurationError: nobody could ever be authenticated.
    """
    methods: list[Authenticator] = []
    if client_trust is not None:
        methods.append(ClientCertificates(client_trust, clock))
    if review_token is not None:
        methods.append(BearerTokens(review_token, clock, token_ttl_s))
    if not methods and not anonymous_auth:
        raise ConfigurationError(
            "the kubelet server cannot tell who its clients are: give --client-ca-file or set "
            "--authentication-token-webhook=true"
        )
    return _FirstAccepted(methods, anonymous_auth=anonymous_auth)


class _FirstAccepted:
    def __init__(self, methods: Sequence[Authenticator], *, anonymous_auth: bool) -> None:
        self._methods = tuple(methods)
        self._anonymous_auth = anonymous_auth

    async def authenticate(self, request: web.Request) -> Verdict:
        """Whose request it is, members of ``system:authenticated`` all."""
        rejected: Rejected | None = None
        for method in self._methods:
            verdict = await method.authenticate(request)
            if isinstance(verdict, UserInfo):
                return _with_group(verdict)
            rejected = rejected or verdict
        if rejected is not None:
            return rejected
        return ANONYMOUS if self._anonymous_auth else None


def _with_group(user: UserInfo) -> UserInfo:
    if user.name == ANONYMOUS.name or ALL_AUTHENTICATED in user.groups:
        return user
    return replace(user, groups=(*user.groups, ALL_AUTHENTICATED))


# --- client certificates ----------------------------------------------------------------------------------


class ClientCertificates:
    """The common name is the user, the organisations are its groups."""

    def __init__(self, client_trust: Callable[[], ClientTrust | None], clock: Clock) -> None:
        self._client_trust = client_trust
        self._clock = clock
        self._parsed: WeakKeyDictionary[ssl.SSLObject, _Peer] = WeakKeyDictionary()

    async def authenticate(self, request: web.Request) -> Verdict:
        """Whose connection it is; None without a certificate or one without a common name."""
        connection = _ssl_object(request)
        if connection is None:
            return None
        peer = self._peer(connection)
        trust = self._client_trust()
        if peer is None or trust is None:
            return None
        if (
            not peer.certificate.not_valid_before_utc
            <= self._clock.now()
            <= peer.certificate.not_valid_after_utc
        ):
            return Rejected(f"the client certificate of {peer.name} is not valid at this time")
        if not _is_trusted(connection, peer.certificate, trust):
            return Rejected(f"the client certificate of {peer.name} is no longer trusted")
        return peer.user

    def _peer(self, connection: ssl.SSLObject) -> _Peer | None:
        found = self._parsed.get(connection)
        if found is None:
            der = connection.getpeercert(binary_form=True)
            if der is None:
                return None
            found = self._parsed[connection] = _parse_peer(der)
        return found


@dataclass(frozen=True, slots=True)
class _Peer:
    certificate: x509.Certificate
    name: str
    user: Verdict


def _ssl_object(request: web.Request) -> ssl.SSLObject | None:
    if request.transport is None:
        return None
    found: ssl.SSLObject | None = request.transport.get_extra_info("ssl_object")
    return found


def _parse_peer(der: bytes) -> _Peer:
    certificate = x509.load_der_x509_certificate(der)
    names = _subject_values(certificate, NameOID.COMMON_NAME)
    name = names[-1] if names else ""
    return _Peer(certificate, name, _user_of(certificate, name, der) if name else None)


def _user_of(certificate: x509.Certificate, name: str, der: bytes) -> Verdict:
    uids = _subject_values(certificate, _UID_OID)
    if len(uids) > 1 or uids == ("",):
        return Rejected(f"the client certificate of {name} has no single uid")
    return UserInfo(
        name,
        uid="".join(uids),
        groups=_subject_values(certificate, NameOID.ORGANIZATION_NAME),
        extra={_CREDENTIAL_ID: ("X509SHA256=" + hashlib.sha256(der).hexdigest(),)},
    )


def _subject_values(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> tuple[str, ...]:
    values = (attribute.value for attribute in certificate.subject.get_attributes_for_oid(oid))
    return tuple(value if isinstance(value, str) else value.decode("utf-8", "replace") for value in values)


def _is_trusted(connection: ssl.SSLObject, certificate: x509.Certificate, trust: ClientTrust) -> bool:
    """
    Whether today's client CA vouches for it.

    TLS has said so if the CA is still the one of the handshake. If not (the file changed, or the session was
    resumed from an older one), the signature is checked here; a client behind an intermediate CA then gets
    401 once and, with its next connection, the full check of TLS.
    """
    if trust_of(connection) is trust and not connection.session_reused:
        return True
    return any(_signed_by(certificate, authority) for authority in trust.authorities)


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


# --- bearer tokens ----------------------------------------------------------------------------------------


class BearerTokens:
    """
    Asks the API server; its answer holds for `ttl_s`, by default for 2 minutes as the kubelet's.

    An answer with an error is not kept, nor is none. Tokens are remembered only by a keyed hash.
    """

    def __init__(self, review_token: ReviewToken, clock: Clock, ttl_s: float = TOKEN_TTL_S) -> None:
        self._review_token = review_token
        self._clock = clock
        self._ttl_s = ttl_s
        self._cache: ExpiringCache[bytes, UserInfo | Rejected] = ExpiringCache(clock, _MAX_TOKENS)
        self._hash_key = secrets.token_bytes(32)

    async def authenticate(self, request: web.Request) -> Verdict:
        """Whose token it is; None without one."""
        token = bearer_token(request)
        if token is None:
            return None
        key = hmac.digest(self._hash_key, token.encode("utf-8", "surrogateescape"), "sha256")
        return await self._cache.get(key, lambda: self._review(token))

    async def _review(self, token: str) -> Fetched[UserInfo | Rejected]:
        try:
            async with asyncio.timeout(_REVIEW_TIMEOUT_S):
                result = await retried(lambda: self._review_token(token), self._clock)
        except (VirtualKubeletError, TimeoutError) as error:
            reason = str(error) or "no answer to the TokenReview in time"
            log.warning("token review failed", error=reason)
            return Fetched(Rejected(reason), 0)
        if result.authenticated and result.user is not None:
            return Fetched(result.user, self._ttl_s)
        return Fetched(Rejected(result.error or "invalid bearer token"), 0 if result.error else self._ttl_s)


def bearer_token(request: web.Request) -> str | None:
    """
    The token of the Authorization header or of a WebSocket client, which can set no such header.

    The latter offers a subprotocol ``base64url.bearer.authorization.k8s.io.<token>``.
    """
    words = request.headers.get(hdrs.AUTHORIZATION, "").strip().split(" ", 2)
    if len(words) >= 2 and words[0].lower() == "bearer":
        return words[1] or None
    return _websocket_token(request)


def _websocket_token(request: web.Request) -> str | None:
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        return None
    for header in request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, []):
        for protocol in header.split(","):
            name = protocol.strip()
            if name.startswith(_WEBSOCKET_TOKEN_PREFIX):
                return _decode_token(name.removeprefix(_WEBSOCKET_TOKEN_PREFIX))
    return None


def _decode_token(encoded: str) -> str | None:
    try:
        return urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4)).decode() or None
    except (binascii.Error, UnicodeError, ValueError):
        return None
