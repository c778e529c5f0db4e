"""
Requests to the API server: JSON bytes out, JSON bytes in.

Objects go as plain dictionaries, written and read by orjson. Generated client models were turned down: they
drop the fields that are newer than themselves and cost fifty times as much time. Every exception of aiohttp
ends here as an `ApiError`.

Watches have connections of their own, without a limit, so that they never keep requests waiting. A request's
time limit counts silence of the server, not time spent waiting for a free connection: a burst of a thousand
patches is no reason for the last one to fail.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, Literal, Self
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import orjson
import structlog
from yarl import URL

from vkubelet import metrics
from vkubelet.clock import Clock
from vkubelet.errors import (
    ApiError,
    ApiUnavailableError,
    ConfigurationError,
    InvalidObjectError,
    UnauthorizedError,
)
from vkubelet.kube.api_errors import error_from_answer
from vkubelet.kube.credentials import Credentials
from vkubelet.kube.lines import LineSplitter
from vkubelet.model.pod import Json

__all__ = ["JSON_MERGE_PATCH", "JSON_PATCH", "STRATEGIC_MERGE_PATCH", "PatchType", "RestClient", "segment"]

log = structlog.get_logger(__name__)

PatchType = Literal[
    "application/strategic-merge-patch+json", "application/merge-patch+json", "application/json-patch+json"
]
STRATEGIC_MERGE_PATCH: Final = "application/strategic-merge-patch+json"
JSON_MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"

_JSON: Final = "application/json"
_Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")

_CONNECT_S = 10.0
_SILENCE_S = 30.0
_WATCH_GRACE_S = 30.0
_KEEPALIVE_S = 60.0
"""Shorter than the API server's 90 s, so that it never closes a connection just as we use it."""


def segment(name: str) -> str:
    """
    `name` as one segment of a path.

    Pods name ConfigMaps and Secrets in strings that the API server does not check: ``../secrets/x`` must not
    become another request.

    Raises:
        InvalidObjectError: no object can have that name.
    """
    if _PLAIN_NAME.fullmatch(name):
        return name
    if name in ("", ".", "..") or "/" in name or "%" in name:
        raise InvalidObjectError(f'invalid resource name "{name}"', code=400, reason="BadRequest")
    return quote(name, safe="")


class RestClient:
    """
    Requests to one API server; an async context manager that owns its connections.

    At most `connections` requests are under way at once; more wait for their turn.

    Paths are absolute, such as ``/api/v1/nodes/n1``; names inside them have gone through `segment`.

    Every method raises what `vkubelet.errors` says of the API server, `ApiUnavailableError` with code 0 when
    there was no answer. A request that failed so may have been carried out.
    """

    def __init__(self, credentials: Credentials, *, user_agent: str, connections: int = 32) -> None:
        self.credentials = credentials
        self._base = credentials.server
        self._host = urlsplit(credentials.server).netloc
        self._headers = {"User-Agent": user_agent, "Accept": _JSON}
        self._connections = connections
        self._options: dict[str, Any] = {"allow_redirects": False}
        if credentials.proxy:
            self._options["proxy"] = credentials.proxy
        if credentials.server_hostname:
            self._options["server_hostname"] = credentials.server_hostname
        self._session: aiohttp.ClientSession
        self._watch_session: aiohttp.ClientSession
        self._watches: set[aiohttp.ClientResponse] = set()

    async def __aenter__(self) -> Self:
        """Open the sessions; nothing is sent yet."""
        self._open_sessions()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        """Close every connection."""
        await self._watch_session.close()
        await self._session.close()

    def _open_sessions(self) -> None:
        timeout = aiohttp.ClientTimeout(sock_connect=_CONNECT_S, sock_read=_SILENCE_S)
        self._session = self._new_session(self._connections, timeout)
        self._watch_session = self._new_session(0, aiohttp.ClientTimeout(sock_connect=_CONNECT_S))

    async def renew_connections(self, clock: Clock) -> None:
        """
        Go on with new connections, for a client certificate that was replaced: TLS shows it once for each.

        Watches are broken off and go on where they were, as the kubelet's do; requests under way get the
        time that they would have anyway, for which this waits.
        """
        sessions = self._watch_session, self._session
        self._open_sessions()
        for watch in self._watches:
            if watch.connection is not None and watch.connection.transport is not None:
                watch.connection.transport.abort()  # closing the session would leave its reader waiting
        try:
            await clock.sleep(_CONNECT_S + _SILENCE_S)
        finally:
            for session in sessions:
                await session.close()

    async def get(self, path: str, **params: str) -> Json:
        """The object at `path`."""
        return await self._request("GET", path, params=params)

    async def create(self, path: str, body: Json) -> Json:
        """POST `body` to a collection, or to a subresource that answers; returns the answer."""
        return await self._request("POST", path, body)

    async def update(self, path: str, body: Json) -> Json:
        """PUT: replace the object; a conflict where its `resourceVersion` is not the present one."""
        return await self._request("PUT", path, body)

    async def patch(self, path: str, body: Json, content_type: PatchType = STRATEGIC_MERGE_PATCH) -> Json:
        """Change parts of an object; returns it as it is then."""
        return await self._request("PATCH", path, body, content_type)

    async def delete(self, path: str, body: Json | None = None) -> Json:
        """Delete, with `body` as `DeleteOptions`; returns the object, or a Status."""
        return await self._request("DELETE", path, body)

    async def list_pages(
        self, path: str, params: Mapping[str, str] | None = None, *, limit: int = 250
    ) -> AsyncIterator[Json]:
        """
        A collection, one List object of up to `limit` items after the other; 0 asks for all at once.

        All pages show the collection at the ``metadata.resourceVersion`` of the first. Without a
        `resourceVersion` among `params` that is a consistent read, never an old state.

        Raises:
            GoneError: the list took so long that its later pages are no more to be had.
        """
        query = dict(params or {}) | ({"limit": str(limit)} if limit else {})
        while True:
            page = await self._request("GET", path, params=query)
            yield page
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = token

    @asynccontextmanager
    async def watch(
        self, path: str, params: Mapping[str, str], *, timeout_s: int
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """
        The events of a collection as they come: batches of lines, each line one JSON watch event.

        Entering it waits for the answer's head. The iterator ends when the server ends the watch, which it
        does after `timeout_s` if nothing happens before.
        """
        url = self._url(path, {**params, "watch": "1", "timeoutSeconds": str(timeout_s)})
        limit = aiohttp.ClientTimeout(total=timeout_s + _WATCH_GRACE_S, sock_connect=_CONNECT_S)
        await self._renew_if_due()
        with self._translated("WATCH", path):
            async with self._watch_session.request(
                "GET", url, headers=self._authorized({}), timeout=limit, **self._options
            ) as response:
                if response.status != 200:
                    error = await _error_of(response, f"WATCH {path}")
                    if error.code == 401:
                        await self._renew()
                    raise error
                self._watches.add(response)
                try:
                    yield self._lines(response.content, path)
                finally:
                    self._watches.discard(response)

    async def _lines(self, content: aiohttp.StreamReader, path: str) -> AsyncIterator[list[bytes]]:
        splitter = LineSplitter()
        with self._translated("WATCH", path):
            while data := await content.readany():
                if lines := splitter.feed(data):
                    yield lines
        if rest := splitter.rest():
            yield [rest]

    # --- one exchange -------------------------------------------------------------------------------------

    async def _request(
        self,
        method: _Method,
        path: str,
        body: Json | None = None,
        content_type: str = _JSON,
        params: Mapping[str, str] | None = None,
    ) -> Json:
        url = self._url(path, params)
        data = None if body is None else orjson.dumps(body)
        headers = {} if data is None else {"Content-Type": content_type}
        await self._renew_if_due()
        try:
            return await self._exchange(method, path, url, data, headers)
        except UnauthorizedError:
            if not await self._renew():
                raise
            return await self._exchange(method, path, url, data, headers)

    async def _exchange(
        self, method: _Method, path: str, url: URL, data: bytes | None, headers: dict[str, str]
    ) -> Json:
        with self._translated(method, path), metrics.RestRequest(method, self._host) as request:
            async with self._session.request(
                method, url, data=data, headers=self._authorized(headers), **self._options
            ) as response:
                request.code = str(response.status)
                if response.status >= 300:
                    raise await _error_of(response, f"{method} {path}")
                return _decoded(await response.read(), method, path)

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        query = f"?{urlencode(params)}" if params else ""
        return URL(f"{self._base}{path}{query}", encoded=True)

    def _authorized(self, headers: dict[str, str]) -> dict[str, str]:
        token = self.credentials.authorization
        return headers if token is None else {**headers, "Authorization": token}

    async def _renew_if_due(self) -> None:
        if self.credentials.is_due:
            await self._renew(refused=False)

    async def _renew(self, *, refused: bool = True) -> bool:
        """Fetch the credentials again; returns whether they are others now."""
        before = self.credentials.authorization
        try:
            await self.credentials.refresh(refused=refused)
        except ConfigurationError as error:
            log.warning("credentials were not renewed", error=str(error))
        return self.credentials.authorization != before

    @contextmanager
    def _translated(self, method: str, path: str) -> Iterator[None]:
        """Foreign exceptions become `ApiUnavailableError`: there was no answer, or only a part of one."""
        try:
            yield
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            words = _words(error)
            raise ApiUnavailableError(
                f"{method} {path}: no answer from the API server {self._base}: {words}"
            ) from error

    def _new_session(self, connections: int, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=connections,
            ssl=self.credentials.ssl_context or True,
            keepalive_timeout=_KEEPALIVE_S,
            socket_factory=_keepalive_socket,
        )
        return aiohttp.ClientSession(
            connector=connector, headers=self._headers, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        )


async def _error_of(response: aiohttp.ClientResponse, what: str) -> ApiError:
    body = await response.read()
    return error_from_answer(
        response.status, body, retry_after=response.headers.get("Retry-After"), what=what
    )


def _decoded(answer: bytes, method: str, path: str) -> Json:
    try:
        decoded = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise ApiUnavailableError(f"{method} {path}: the answer is no JSON: {answer[:100]!r}") from error
    if not isinstance(decoded, dict):
        raise ApiUnavailableError(f"{method} {path}: the answer is no object: {answer[:100]!r}")
    return decoded


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "time limit reached"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate cannot be verified: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"the name cannot be resolved: {error.os_error.strerror}"
    if isinstance(error, aiohttp.ClientConnectorError) and (number := error.os_error.errno):
        return os.strerror(number)
    return str(error) or type(error).__name__


def _keepalive_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """
    A socket that notices a peer that is gone without a word (a node of the control plane switched off).

    A watch may be silent for a minute; probes after 15 s of silence find a dead peer within 45 s, as the
    pings of Go's HTTP/2 client do.
    """
    family, kind, protocol, _, _ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
    return made
