"""
The server's side of TLS: serving certificate, client CA, and their replacement while connections stand.

Files are the interface. Whoever renews a certificate (cert-manager, a signed CertificateSigningRequest, an
administrator) replaces files, and `ServingTLS` sees it: every connection asks for the present `SSLContext` in
its handshake (OpenSSL's server name callback, which is called without a name too), so the next client gets
the new certificate and the open ones go on. Loading into the one context again was turned down: it cannot
take back a CA, and a failure half-way leaves a certificate beside a foreign key.

Clients are *asked* for a certificate and may have none: bearer tokens come over the same port. One that
nobody trusts ends the handshake.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from vkubelet.clock import Clock
from vkubelet.errors import ConfigurationError
from vkubelet.settings.tls_names import TLS12_CIPHER_SUITES, TLSVersion

__all__ = ["ClientTrust", "ServingTLS", "TLSFiles", "TLSPolicy", "trust_of"]

log = structlog.get_logger(__name__)

_RELOAD_INTERVAL_S: Final = 10.0
_GOOD_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption; TLS 1.3 has nothing else."""
_VERSIONS: Final = {"VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Where the PEM files are; without `client_ca` no client is asked for a certificate."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class TLSPolicy:
    """
    How connections are protected.

    Attributes:
        min_version: the oldest version of TLS.
        cipher_suites: by their IANA names; empty for a good choice. Without one for TLS 1.2 that version is
            not served, as in Go.
    """

    min_version: TLSVersion = "VersionTLS12"
    cipher_suites: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class ClientTrust:
    """Who may sign client certificates; the same object as long as the file says the same."""

    pem: str
    authorities: tuple[x509.Certificate, ...]


_POLICY: Final = TLSPolicy()


class _ServingContext(ssl.SSLContext):
    """An `SSLContext` that knows which `ClientTrust` it verifies with."""

    client_trust: ClientTrust | None = None


def trust_of(connection: ssl.SSLObject) -> ClientTrust | None:
    """The trust with which this connection's handshake was made."""
    context = connection.context
    return context.client_trust if isinstance(context, _ServingContext) else None


class ServingTLS:
    """
    The present certificate and client CA. `run` keeps them present.

    Raises:
        ConfigurationError: a file cannot be read or does not hold what it should.
    """

    def __init__(self, files: TLSFiles, clock: Clock, policy: TLSPolicy = _POLICY) -> None:
        self._files = files
        self._policy = policy
        self._clock = clock
        self._seen = _fingerprints(files)
        self._last_problem = ""
        self._present = _load(files, policy, None)
        self._entrance = self._present
        self._entrance.sni_callback = self._choose_context

    @property
    def context(self) -> ssl.SSLContext:
        """The context to serve with; it stays the same through every reload."""
        return self._entrance

    @property
    def client_trust(self) -> ClientTrust | None:
        """Who signs client certificates just now; None without a client CA."""
        return self._present.client_trust

    def _choose_context(self, connection: ssl.SSLObject | ssl.SSLSocket, *_: object) -> None:
        connection.context = self._present

    async def run(self) -> None:
        """Look for changed files every 10 s, until cancelled."""
        while True:
            await self._clock.sleep(_RELOAD_INTERVAL_S)
            self.reload()

    def reload(self) -> bool:
        """
        Take over files that have changed; whether they were.

        A pair that is half replaced, or broken, is not taken over: what is present stays and the next call
        tries again. (Some kilobytes are read on the event loop: about a millisecond, once a renewal.)
        """
        try:
            seen = _fingerprints(self._files)
            if seen == self._seen:
                return False
            self._present = _load(self._files, self._policy, self._present.client_trust)
        except ConfigurationError as error:
            self._warn_once(str(error))
            return False
        self._seen = seen
        self._last_problem = ""
        log.info("serving certificate reloaded", file=str(self._files.certificate))
        return True

    def _warn_once(self, problem: str) -> None:
        if problem != self._last_problem:
            log.warning("serving certificate not reloaded", error=problem)
        self._last_problem = problem


_Fingerprints = tuple[tuple[int, int, int] | None, ...]


def _fingerprints(files: TLSFiles) -> _Fingerprints:
    """What changes when a file is written or (as in a Secret's volume) the link to it is swapped."""
    return tuple(
        _fingerprint(path, option)
        for path, option in (
            (files.certificate, "--tls-cert-file"),
            (files.private_key, "--tls-private-key-file"),
            (files.client_ca, "--client-ca-file"),
        )
    )


def _fingerprint(path: Path | None, option: str) -> tuple[int, int, int] | None:
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError as error:
        raise ConfigurationError(f"{option}: cannot read {path}: {error.strerror}") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _load(files: TLSFiles, policy: TLSPolicy, known: ClientTrust | None) -> _ServingContext:
    context = _ServingContext(ssl.PROTOCOL_TLS_SERVER)
    _apply(policy, context)
    context.set_alpn_protocols(["http/1.1"])
    # A resumed session would bring along the client's identity of back then.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    context.num_tickets = 0
    _load_certificate(context, files)
    if files.client_ca is not None:
        context.client_trust = _load_trust(files.client_ca, known)
        context.load_verify_locations(cadata=context.client_trust.pem)
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # each one in the file is an anchor, as in Go
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _apply(policy: TLSPolicy, context: ssl.SSLContext) -> None:
    context.minimum_version = _VERSIONS[policy.min_version]
    names = [TLS12_CIPHER_SUITES[name] for name in policy.cipher_suites if name in TLS12_CIPHER_SUITES]
    if policy.cipher_suites and not names:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_ciphers(":".join(names) or _GOOD_CIPHERS)


def _load_certificate(context: ssl.SSLContext, files: TLSFiles) -> None:
    def no_password() -> str:
        raise ConfigurationError(
            f"--tls-private-key-file: {files.private_key} is encrypted: give a key without a password"
        )

    try:
        context.load_cert_chain(files.certificate, files.private_key, no_password)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"--tls-cert-file {files.certificate} and --tls-private-key-file {files.private_key} must be a "
            f"certificate and its key in PEM: {error.reason or error}"
        ) from error
    except OSError as error:
        raise ConfigurationError(
            f"--tls-cert-file {files.certificate} or --tls-private-key-file {files.private_key} "
            f"cannot be read: {error.strerror}"
        ) from error


def _load_trust(path: Path, known: ClientTrust | None) -> ClientTrust:
    try:
        data = path.read_bytes()
        authorities = tuple(x509.load_pem_x509_certificates(data))
        pem = data.decode()
    except OSError as error:
        raise ConfigurationError(f"--client-ca-file: cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"--client-ca-file: {path} holds no certificates in PEM") from error
    return known if known is not None and known.pem == pem else ClientTrust(pem, authorities)
