"""
A thin client of the Docker Engine API, and the one place where its errors become ours.

Knows HTTP, versions and errors; what to ask for is left to its callers. Ordinary calls and streams of the
engine (logs, events, progress) go through aiohttp; hijacked ones through `hijack`, since they change to raw
bytes in both directions, which aiohttp's client cannot do. docker-py was turned down: it is synchronous, and
the Engine API is small where a kubelet uses it.

The API version is negotiated at the first call and after every lost connection: the newest that both sides
know, at least 1.41 (Docker 20.10).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
import orjson

from providers.docker import hijack
from providers.docker.settings import Endpoint
from vkubelet.errors import ConfigurationError, PodNotFoundError, ProviderError, ProviderUnavailableError

__all__ = ["EngineClient", "EngineError", "error_from"]

OLDEST_API = (1, 41)
NEWEST_API = (1, 47)
_CONNECT_TIMEOUT_S = 10.0
_READ_BUFFER_BYTES = 1 << 20
_NOT_FOUND_WORDS = ("no such container", "no such image", "no such exec")


class EngineError(ProviderError):
    """
    The engine refused; the message is its own.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def error_from(status: int, body: bytes) -> ProviderError:
    """
    The error that an answer of the engine means.

    404 alone does not say that a container is gone: a command that is not found and a registry that denies
    access give it too. So the message decides.
    """
    message = _message(body) or f"the Docker engine answered with HTTP status {status}"
    if status == 404 and any(words in message.lower() for words in _NOT_FOUND_WORDS):
        return PodNotFoundError(message)
    if status == 503:
        return ProviderUnavailableError(message)
    return EngineError(message, status=status)


def _message(body: bytes) -> str:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode(errors="replace").strip()
    return str(answer.get("message") or "").strip() if isinstance(answer, dict) else ""


class EngineClient:
    """
    One engine.

    Every method raises `ProviderUnavailableError` when the engine does not answer, `PodNotFoundError` when
    it knows no such container or image, and `EngineError` for anything else that it refuses.
    """

    def __init__(self, endpoint: Endpoint, *, request_timeout_s: float) -> None:
        self.endpoint = endpoint
        self._request_timeout_s = request_timeout_s
        self._tls = _tls_context(endpoint)
        self._session: aiohttp.ClientSession | None = None
        self._prefix: str | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Usable from entry to exit; the engine need not answer yet."""
        connector: aiohttp.BaseConnector
        if self.endpoint.unix_path is not None:
            connector = aiohttp.UnixConnector(self.endpoint.unix_path, limit=0)
        else:
            connector = aiohttp.TCPConnector(ssl=self._tls or True, limit=0)
        async with aiohttp.ClientSession(
            connector=connector, read_bufsize=_READ_BUFFER_BYTES, trust_env=False
        ) as self._session:
            yield
        self._session = None

    async def get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        """The JSON that a GET of `path` gives."""
        _, body = await self.call("GET", path, params)
        return orjson.loads(body)

    async def post(
        self, path: str, params: Mapping[str, str] | None = None, *, body: object = None
    ) -> dict[str, Any]:
        """Make a POST; returns the JSON object of the answer, {} when there is none."""
        _, answer = await self.call("POST", path, params, body=body)
        return orjson.loads(answer) if answer.strip() else {}

    async def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: object = None,
        timeout_s: float | None = None,
    ) -> tuple[int, bytes]:
        """
        One request; returns status and body of an answer below 400.

        Args:
            method: of HTTP.
            path: without the version.
            params: of the query.
            body: sent as JSON unless None.
            timeout_s: None for the usual limit.
        """
        timeout = aiohttp.ClientTimeout(
            total=timeout_s or self._request_timeout_s, sock_connect=_CONNECT_TIMEOUT_S
        )
        prefix = await self._negotiated()
        with self._translated():
            async with self._request(method, prefix + path, params, body, {}, timeout) as response:
                answer = await response.read()
        if response.status >= 400:
            raise error_from(response.status, answer)
        return response.status, answer

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """An answer without end: its body in chunks as large as come, read as fast as they are taken."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)
        prefix = await self._negotiated()
        with self._translated():
            response = await self._request(method, prefix + path, params, None, headers or {}, timeout)
        try:
            if response.status >= 400:
                with self._translated():
                    answer = await response.read()
                raise error_from(response.status, answer)
            yield self._chunks(response.content)
        finally:
            response.close()

    async def hijack(self, path: str, body: object = None) -> hijack.HijackedConnection:
        """
        POST and keep the connection, which carries raw bytes from then on; the caller closes it.

        `body` is sent as JSON unless None: where the engine expects none, it would be taken for input.
        """
        prefix = await self._negotiated()
        with self._translated():
            connection, refusal = await hijack.open_hijacked(
                self.endpoint, self._tls, prefix + path, b"" if body is None else orjson.dumps(body)
            )
        if refusal is not None:
            raise error_from(refusal.status, refusal.body)
        assert connection is not None
        return connection

    async def ping(self) -> None:
        """Return when the engine answers."""
        with self._translated():
            timeout = aiohttp.ClientTimeout(total=_CONNECT_TIMEOUT_S)
            async with self._request("GET", "/_ping", None, None, {}, timeout) as response:
                await response.read()
                self._prefix = _version_prefix(response.headers.get("Api-Version", ""))

    async def _negotiated(self) -> str:
        if self._prefix is None:
            await self.ping()
        assert self._prefix is not None
        return self._prefix

    def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: object,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.client._RequestContextManager:
        if self._session is None:
            raise ProviderUnavailableError("the Docker client is not running")
        data = None if body is None else orjson.dumps(body)
        if data is not None:
            headers = {**headers, "Content-Type": "application/json"}
        query = f"?{urlencode(params)}" if params else ""
        url = f"{self.endpoint.base_url}{path}{query}"
        return self._session.request(method, url, data=data, headers=headers, timeout=timeout)

    async def _chunks(self, content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
        while True:
            with self._translated():
                chunk = await content.readany()
            if not chunk:
                return
            yield chunk

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, asyncio.IncompleteReadError, OSError) as error:
            self._prefix = None  # the engine that answers next may be another version
            why = str(error) or type(error).__name__
            raise ProviderUnavailableError(
                f"the Docker engine at {self.endpoint.url} does not answer: {why}"
            ) from error


def _version_prefix(announced: str) -> str:
    """
    ``/v1.41``: the newest version that both sides know.

    Raises:
        ProviderUnavailableError: the engine is older than `OLDEST_API`.
    """
    major, _, minor = announced.partition(".")
    theirs = (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
    if theirs < OLDEST_API:
        raise ProviderUnavailableError(
            f"the Docker engine speaks API {announced or 'of an unknown version'}, but at least "
            f"{OLDEST_API[0]}.{OLDEST_API[1]} is needed: use Docker 20.10 or newer"
        )
    version = min(theirs, NEWEST_API)
    return f"/v{version[0]}.{version[1]}"


def _tls_context(endpoint: Endpoint) -> ssl.SSLContext | None:
    if endpoint.cert_dir is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(endpoint.cert_dir / "ca.pem"))
        context.load_cert_chain(endpoint.cert_dir / "cert.pem", endpoint.cert_dir / "key.pem")
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"DOCKER_CERT_PATH={endpoint.cert_dir}: ca.pem, cert.pem and key.pem cannot be used: {error}"
        ) from error
    return context
