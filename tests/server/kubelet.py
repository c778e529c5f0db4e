"""A kubelet server on localhost, over parts that a test can steer."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests.builders import make_pod
from tests.server.pki import Pair, client_context
from vkubelet.clock import Clock, SystemClock
from vkubelet.errors import ApiUnavailableError
from vkubelet.model.access import AccessAttributes, AccessReviewResult, TokenReviewResult, UserInfo
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Pod
from vkubelet.provider import LogOptions
from vkubelet.server.app import KubeletServer, Limits, Powers
from vkubelet.server.auth import Gate
from vkubelet.server.authentication import make_authenticator
from vkubelet.server.authorization import WebhookAuthorizer
from vkubelet.server.listener import bind
from vkubelet.server.tls import ServingTLS, TLSFiles, TLSPolicy

NODE_NAME = "node-1"
ADMIN_TOKEN = "admin-token"


class Pods:
    """`PodLookup` over a list."""

    def __init__(self, *pods: Pod) -> None:
        self.all = list(pods)

    def pod(self, namespace: str, name: str, uid: str | None = None) -> Pod | None:
        for pod in self.all:
            if (pod.namespace, pod.name) == (namespace, name) and uid in (None, pod.uid):
                return pod
        return None

    def pods(self) -> Sequence[Pod]:
        return self.all


@dataclass
class ApiServer:
    """
    The reviews of an API server: tokens by user, and what users may do.

    Attributes:
        allowed: (user, verb, subresource); the administrator may do all.
    """

    tokens: dict[str, UserInfo] = field(default_factory=lambda: {ADMIN_TOKEN: UserInfo("admin")})
    allowed: set[tuple[str, str, str]] = field(default_factory=set)
    is_up: bool = True
    reviewed_tokens: list[str] = field(default_factory=list)
    reviewed_access: list[AccessAttributes] = field(default_factory=list)

    async def review_token(self, token: str) -> TokenReviewResult:
        self._check_up()
        self.reviewed_tokens.append(token)
        user = self.tokens.get(token)
        if user is None:
            return TokenReviewResult(authenticated=False, error="invalid bearer token")
        return TokenReviewResult(authenticated=True, user=user)

    async def review_access(self, attributes: AccessAttributes) -> AccessReviewResult:
        self._check_up()
        self.reviewed_access.append(attributes)
        asked = (attributes.user.name, attributes.verb, attributes.subresource)
        return AccessReviewResult(allowed=attributes.user.name == "admin" or asked in self.allowed)

    def _check_up(self) -> None:
        if not self.is_up:
            raise ApiUnavailableError("connection refused")


class Logs:
    """A `LogSource` that gives what a test says and tells when it is closed."""

    def __init__(self, produce: Callable[[LogOptions], AsyncIterator[bytes]]) -> None:
        self._produce = produce
        self.asked: list[tuple[PodKey, str, LogOptions]] = []
        self.closed = asyncio.Event()

    @asynccontextmanager
    async def container_logs(
        self, key: PodKey, container: str, options: LogOptions
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append((key, container, options))
        try:
            yield self._produce(options)
        finally:
            self.closed.set()


@dataclass
class Files:
    """The PEM files of a server, and the authorities that signed what is in them."""

    directory: Path
    server_authority: Pair
    client_authority: Pair
    paths: TLSFiles = field(init=False)

    def __post_init__(self) -> None:
        certificate, key = self.server_authority.issue_server().write(self.directory, "serving")
        client_ca = self.directory / "client-ca.crt"
        client_ca.write_bytes(self.client_authority.certificate_pem)
        self.paths = TLSFiles(certificate, key, client_ca)

    def client(self, client: Pair | None = None, *chain: Pair) -> ssl.SSLContext:
        return client_context(self.server_authority, client, chain, directory=self.directory)


class Kubelet:
    """A server that runs, and its clients."""

    def __init__(self, server: KubeletServer, tls: ServingTLS, api: ApiServer, files: Files) -> None:
        self.server = server
        self.tls = tls
        self.api = api
        self.files = files
        self.anonymous_client = files.client()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.port}"

    @asynccontextmanager
    async def session(
        self, token: str | None = ADMIN_TOKEN, client: Pair | None = None, *chain: Pair
    ) -> AsyncIterator[aiohttp.ClientSession]:
        """Like a client with a connection pool of its own; read timeouts end a test that hangs."""
        context = self.files.client(client, *chain) if client else self.anonymous_client
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        timeout = aiohttp.ClientTimeout(total=10)
        connector = aiohttp.TCPConnector(ssl=context)
        async with aiohttp.ClientSession(
            self.url, connector=connector, headers=headers, timeout=timeout
        ) as session:
            yield session

    async def get(
        self, path: str, token: str | None = ADMIN_TOKEN, client: Pair | None = None
    ) -> tuple[int, str]:
        """Status and text of one request on a connection of its own."""
        async with self.session(token, client) as session, session.get(path) as response:
            return response.status, await response.text()


@asynccontextmanager
async def serving(
    files: Files,
    powers: Powers | None = None,
    *,
    api: ApiServer | None = None,
    clock: Clock | None = None,
    anonymous_auth: bool = False,
    limits: Limits | None = None,
    policy: TLSPolicy | None = None,
    listener: socket.socket | None = None,
    shutdown_timeout_s: float = 5.0,
) -> AsyncIterator[Kubelet]:
    """A kubelet with one pod ``default/web`` unless `powers` say otherwise."""
    api = api or ApiServer()
    clock = clock or SystemClock()
    tls = ServingTLS(files.paths, clock, policy or TLSPolicy())
    server = KubeletServer(
        listener=listener or bind("127.0.0.1", 0),
        tls=tls,
        gate=Gate(
            make_authenticator(
                client_trust=(lambda: tls.client_trust) if files.paths.client_ca else None,
                review_token=api.review_token,
                anonymous_auth=anonymous_auth,
                clock=clock,
            ),
            WebhookAuthorizer(api.review_access, clock),
            NODE_NAME,
        ),
        powers=powers or Powers(pods=Pods(make_pod())),
        clock=clock,
        limits=limits or Limits(),
        shutdown_timeout_s=shutdown_timeout_s,
    )
    async with server.running():
        yield Kubelet(server, tls, api, files)


def with_logs(logs: Logs, *pods: Pod) -> Powers:
    return Powers(pods=Pods(*(pods or (make_pod(),))), logs=logs)


def without_client_ca(files: Files) -> Files:
    files.paths = dataclasses.replace(files.paths, client_ca=None)
    return files
