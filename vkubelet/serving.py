"""
The kubelet API of this node, from its certificate to its end: settings become a server that runs.

Where the certificate comes from: files that the operator names; or, when asked for, one that vouches for
itself; else the cluster, by CertificateSigningRequest, as the kubelet with `serverTLSBootstrap`. That last
may take until somebody approves it, and a node whose logs cannot be read is better than no node: pods are
run meanwhile, the port is bound but nothing listens, and the log and an Event on the Node say what to type.
A certificate that is still valid is used while one for a new address is asked for.

The names in it are the addresses that the Node carries and no others, since approvers compare the two.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from cryptography import x509

from vkubelet.clock import Clock
from vkubelet.kube.certificate_requests import CertificateRequest, CertificateRequestApi
from vkubelet.kube.certificates import CertificateManager, missing_names, serving_request
from vkubelet.kube.client import KubeClient
from vkubelet.kube.events import EventRecorder, node_reference
from vkubelet.logs import get_logger
from vkubelet.server.app import KubeletServer, Limits, Powers
from vkubelet.server.auth import Gate
from vkubelet.server.authentication import make_authenticator
from vkubelet.server.authorization import AlwaysAllow, Authorizer, WebhookAuthorizer
from vkubelet.server.self_signed import ensure_self_signed
from vkubelet.server.tls import ClientTrust, ServingTLS, TLSFiles, TLSPolicy
from vkubelet.settings import Settings

__all__ = ["KubeletApi"]

log = get_logger("serving")


class KubeletApi:
    """
    The server of one node, on the port that `listener` is bound to.

    Raises:
        ConfigurationError: the files cannot be served with, or nobody could ever log in.
    """

    def __init__(
        self,
        settings: Settings,
        client: KubeClient,
        recorder: EventRecorder,
        listener: socket.socket,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._client = client
        self._recorder = recorder
        self._listener = listener
        self._clock = clock
        self._tls: ServingTLS | None = None
        if (files := self._own_files()) is not None:
            self._tls = self._serving_tls(*files)
        self._gate = self._make_gate()

    @property
    def port(self) -> int:
        """The port, also before anything listens there."""
        port: int = self._listener.getsockname()[1]
        return port

    @asynccontextmanager
    async def running(self, powers: Powers) -> AsyncIterator[None]:
        """
        Serve inside, at once or as soon as there is a certificate.

        Raises:
            ConfigurationError: the port is taken, or the certificate cannot be kept.
        """
        if self._tls is not None:
            async with self._server(self._tls, powers):
                yield
            return
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self._serve_with_cluster_certificate(powers), name="kubelet API")
            try:
                yield
            finally:
                serving.cancel()

    async def _serve_with_cluster_certificate(self, powers: Powers) -> None:
        manager = CertificateManager(
            CertificateRequestApi(self._client, self._clock),
            _request(self._settings),
            self._settings.root_dir / "pki",
            "kubelet-server",
            clock=self._clock,
            on_change=self._reload,
            on_pending=self._tell_pending,
        )
        if not manager.is_usable():
            await manager.ensure()
        self._tls = self._serving_tls(manager.current_file, manager.current_file)
        async with self._server(self._tls, powers):
            await manager.run()

    def _reload(self) -> None:
        if self._tls is not None:
            self._tls.reload()

    def _tell_pending(self, request: str) -> None:
        command = f"kubectl certificate approve {request}"
        consequence = (
            "the node's logs, exec and metrics cannot be reached until then"
            if self._tls is None
            else "the present one is used until it expires"
        )
        log.warning("serving certificate waits to be approved", approve_with=command)
        self._recorder.record(
            node_reference(self._settings.node_name),
            "Warning",
            "ServingCertificatePending",
            f"The serving certificate waits for approval, {consequence}: {command}",
        )

    def _own_files(self) -> tuple[Path, Path] | None:
        """Certificate and key that are there from the start; None when the cluster shall sign."""
        settings = self._settings
        if settings.tls_cert_file is not None and settings.tls_private_key_file is not None:
            _warn_of_missing_names(settings.tls_cert_file, _request(settings))
            return settings.tls_cert_file, settings.tls_private_key_file
        if settings.tls_self_signed:
            names = [settings.node_name]
            return ensure_self_signed(settings.root_dir / "pki", names, [settings.node_ip], self._clock)
        return None

    def _serving_tls(self, certificate: Path, key: Path) -> ServingTLS:
        settings = self._settings
        files = TLSFiles(certificate, key, settings.client_ca_file)
        return ServingTLS(files, self._clock, TLSPolicy(settings.tls_min_version, settings.tls_cipher_suites))

    def _client_trust(self) -> ClientTrust | None:
        return self._tls.client_trust if self._tls is not None else None

    def _make_gate(self) -> Gate:
        settings, reviews = self._settings, self._client.reviews
        authenticator = make_authenticator(
            client_trust=self._client_trust if settings.client_ca_file else None,
            review_token=reviews.review_token if settings.authentication_token_webhook else None,
            anonymous_auth=settings.anonymous_auth,
            clock=self._clock,
            token_ttl_s=settings.authentication_token_webhook_cache_ttl_s,
        )
        authorizer: Authorizer = AlwaysAllow()
        if settings.authorization_mode == "Webhook":
            authorizer = WebhookAuthorizer(
                reviews.review_access,
                self._clock,
                allow_ttl_s=settings.authorization_webhook_cache_authorized_ttl_s,
                deny_ttl_s=settings.authorization_webhook_cache_unauthorized_ttl_s,
            )
        return Gate(authenticator, authorizer, settings.node_name)

    def _server(self, tls: ServingTLS, powers: Powers) -> AbstractAsyncContextManager[None]:
        settings = self._settings
        limits = Limits(
            max_connections=settings.max_connections,
            request_qps=settings.request_qps,
            request_burst=settings.request_burst,
        )
        return KubeletServer(
            listener=self._listener,
            tls=tls,
            gate=self._gate,
            powers=powers,
            clock=self._clock,
            limits=limits,
            shutdown_timeout_s=settings.shutdown_grace_period_s,
        ).running()


def _request(settings: Settings) -> CertificateRequest:
    """For the Node's addresses; its name is a DNS name, or an address where nodes are named so."""
    name, ips = settings.node_name, [settings.node_ip]
    if _is_ip(name):
        return serving_request(name, (), tuple(dict.fromkeys([name, *ips])))
    return serving_request(name, (name,), tuple(ips))


def _warn_of_missing_names(file: Path, request: CertificateRequest) -> None:
    """Clients that verify look for the address that they called; what cannot be read is told elsewhere."""
    try:
        certificate = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError):
        return
    if missing := [name for name in missing_names(certificate, request) if name in request.ips]:
        log.warning(
            "serving certificate is not for the node's address, who verifies it will not connect",
            file=str(file),
            missing=missing,
        )


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
