"""
An API server in the test's own process and event loop.

Objects and their rules are `tests.kube.fake_objects`; this is the HTTP around them: lists in pages, watches
with bookmarks, patches, deletions, token requests and reviews, and faults on demand::

    async def test_something(api_server: FakeApiServer, kube_client: KubeClient) -> None:
        api_server.objects.create("pods", pod_json())          # somebody else creates a pod
        api_server.fail(500, "PATCH", "/status", times=2)      # the next two status patches fail
        ...
        assert len(api_server.requests_to("PATCH", "/status")) == 3
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import yaml
from aiohttp import web

from tests.kube.fake_objects import KINDS, FakeObjects, StatusError, selector, watch_events

__all__ = ["FakeApiServer", "RecordedRequest", "serve"]

Json = dict[str, Any]

_PATH = re.compile(
    r"(?:/api/v1|/apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<subresource>[^/]+))?)?"
)


@dataclass(frozen=True)
class RecordedRequest:
    """What was asked; `verb` is the HTTP method, or WATCH."""

    verb: str
    path: str
    query: dict[str, str]
    body: Json
    headers: dict[str, str]


@dataclass
class _Fault:
    verb: str
    path: str
    times: int
    status: int = 0
    retry_after: int | None = None
    delay_s: float = 0.0
    after: bool = False
    gate: asyncio.Event | None = None


def _everybody(_spec: Json) -> bool:
    return True


@dataclass
class FakeApiServer:
    """
    The server, and what a test does to it.

    Attributes:
        objects: what is in the cluster; changes there are seen by watches.
        requests: everything that was asked, in order.
        tokens: bearer tokens that TokenReview knows, with their `UserInfo`.
        allow: the answer to a SubjectAccessReview, from its spec.
        accepted_token: when set, requests without this bearer token are answered 401.
        bookmark_s: seconds between bookmarks of a watch.
        version: the answer to ``/version``, None for 404.
    """

    objects: FakeObjects = field(default_factory=FakeObjects)
    requests: list[RecordedRequest] = field(default_factory=list)
    tokens: dict[str, Json] = field(default_factory=dict)
    allow: Callable[[Json], bool] = _everybody
    accepted_token: str | None = None
    bookmark_s: float = 60.0
    version: Json | None = field(default_factory=lambda: {"major": "1", "minor": "36"})
    url: str = ""
    _faults: list[_Fault] = field(default_factory=list)
    _watches: dict[int, web.Request] = field(default_factory=dict)
    _ending: asyncio.Event = field(default_factory=asyncio.Event)

    # --- for tests

    def fail(
        self,
        status: int,
        verb: str = "",
        path: str = "",
        *,
        times: int = 1,
        retry_after: int | None = None,
        after: bool = False,
    ) -> None:
        """
        Answer the next `times` requests that match with `status`.

        `verb` is the HTTP method or WATCH, `path` a part of the path; "" matches all. With `after` the
        request is carried out all the same.
        """
        self._faults.append(_Fault(verb, path, times, status, retry_after, after=after))

    def drop(self, verb: str = "", path: str = "", *, times: int = 1, after: bool = False) -> None:
        """Close the connection of the next requests without an answer; `after` carrying them out if asked."""
        self._faults.append(_Fault(verb, path, times, after=after))

    def delay(self, seconds: float, verb: str = "", path: str = "", *, times: int = 1) -> None:
        """Answer the next requests late."""
        self._faults.append(_Fault(verb, path, times, delay_s=seconds))

    def hold(self, verb: str = "", path: str = "", *, times: int = 1) -> asyncio.Event:
        """Answer the next requests only once the returned event is set."""
        gate = asyncio.Event()
        self._faults.append(_Fault(verb, path, times, gate=gate))
        return gate

    def recover(self) -> None:
        """Forget all faults that have not happened yet."""
        self._faults.clear()

    def cut_watches(self) -> None:
        """Break every watch off, as a killed server does."""
        for request in tuple(self._watches.values()):
            if request.transport is not None:
                request.transport.abort()
        self._watches.clear()

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    def requests_to(self, verb: str, path: str = "") -> list[RecordedRequest]:
        """The requests with this verb whose path contains `path`."""
        return [r for r in self.requests if r.verb == verb and path in r.path]

    async def wait_for(self, condition: Callable[[], bool], *, timeout_s: float = 5.0) -> None:
        """Return once `condition` holds; it is tried after every change and every request."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                changed = asyncio.ensure_future(self.objects.changed.wait())
                await asyncio.wait((changed,), timeout=0.01)
                changed.cancel()

    def kubeconfig(self, directory: Path, **user: Any) -> Path:
        """A kubeconfig for this server; keywords are the fields of its user."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "users": [{"name": "fake", "user": user}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "current-context": "fake",
        }
        path = directory / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    # --- HTTP

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        raw = await request.read()
        verb = "WATCH" if request.query.get("watch") in ("1", "true") else request.method
        body: Json = orjson.loads(raw) if raw else {}
        self.requests.append(
            RecordedRequest(verb, request.path, dict(request.query), body, dict(request.headers))
        )
        try:
            fault = self._next_fault(verb, request.path)
            await self._suffer(fault, request, after=False)
            self._authenticate(request)
            answer = await self._answer(request, verb, body)
            await self._suffer(fault, request, after=True)
        except StatusError as error:
            headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
            return _json(error.status, status=error.code, headers=headers)
        return answer

    def _next_fault(self, verb: str, path: str) -> _Fault | None:
        for fault in self._faults:
            if fault.verb in ("", verb) and fault.path in path:
                fault.times -= 1
                if fault.times <= 0:
                    self._faults.remove(fault)
                return fault
        return None

    async def _suffer(self, fault: _Fault | None, request: web.Request, *, after: bool) -> None:
        if fault is None or fault.after is not after:
            return
        if fault.gate is not None:
            await fault.gate.wait()
        elif fault.delay_s:
            await asyncio.sleep(fault.delay_s)
        elif fault.status:
            reason = {409: "Conflict", 410: "Expired", 429: "TooManyRequests"}.get(
                fault.status, "InternalError"
            )
            raise StatusError(fault.status, reason, f"fault {fault.status}", retry_after=fault.retry_after)
        elif request.transport is not None:
            request.transport.abort()

    def _authenticate(self, request: web.Request) -> None:
        if self.accepted_token is None:
            return
        if request.headers.get("Authorization") != f"Bearer {self.accepted_token}":
            raise StatusError(401, "Unauthorized", "Unauthorized")

    async def _answer(self, request: web.Request, verb: str, body: Json) -> web.StreamResponse:
        match = _PATH.fullmatch(request.path)
        if request.path == "/version" and self.version is not None:
            return _json(self.version)
        if match is None:
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        resource, name, subresource = match["resource"], match["name"], match["subresource"] or ""
        namespace = match["namespace"]
        if resource.endswith("reviews"):
            return _json(self._review(resource, body), status=201)
        if resource not in KINDS:
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        if verb == "WATCH":
            return await self._watch(request, resource, namespace)
        if subresource == "token":
            return _json(self._token(namespace or "", name, body), status=201)
        if name is None:
            return self._collection(request, resource, namespace, body)
        return _json(self._object(request, resource, namespace or "default", name, subresource, body))

    def _collection(
        self, request: web.Request, resource: str, namespace: str | None, body: Json
    ) -> web.Response:
        if request.method == "POST":
            return _json(self.objects.create(resource, body, namespace or "default"), status=201)
        if request.method != "GET":
            raise StatusError(405, "MethodNotAllowed", "the server does not allow this method")
        query = request.query
        items = self.objects.list(resource, namespace, query.get("fieldSelector", ""))
        version, _, start = query.get("continue", f"{self.objects.version}:0").partition(":")
        if int(version) < self.objects.oldest_version:
            raise StatusError(410, "Expired", "The provided continue parameter is too old")
        first, limit = int(start), int(query.get("limit") or 0) or len(items)
        metadata = {"resourceVersion": version}
        if first + limit < len(items):
            metadata["continue"] = f"{version}:{first + limit}"
        kind = KINDS[resource]
        page = items[first : first + limit]
        return _json(
            {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": page}
        )

    def _object(
        self, request: web.Request, resource: str, namespace: str, name: str, subresource: str, body: Json
    ) -> Json:
        match request.method:
            case "GET":
                return self.objects.get(resource, name, namespace)
            case "PUT":
                if KINDS[resource].namespaced:
                    body["metadata"].setdefault("namespace", namespace)
                return self.objects.update(resource, body, subresource)
            case "PATCH":
                strategic = "strategic" in request.headers["Content-Type"]
                return self.objects.patch(
                    resource, name, body, namespace=namespace, subresource=subresource, strategic=strategic
                )
            case "DELETE":
                options = {"gracePeriodSeconds": _int(request.query.get("gracePeriodSeconds"))} | body
                return self.objects.delete(
                    resource,
                    name,
                    namespace,
                    grace_period_s=options["gracePeriodSeconds"],
                    uid=(body.get("preconditions") or {}).get("uid"),
                )
            case _:
                raise StatusError(405, "MethodNotAllowed", "the server does not allow this method")

    def _review(self, resource: str, body: Json) -> Json:
        spec = body.get("spec") or {}
        match resource:
            case "tokenreviews":
                user = self.tokens.get(spec["token"])
                return {**body, "status": {"authenticated": True, "user": user} if user else {}}
            case "subjectaccessreviews":
                return {**body, "status": {"allowed": self.allow(spec)}}
            case _:
                groups = ["system:nodes", "system:authenticated"]
                return {**body, "status": {"userInfo": {"username": "system:node:node-1", "groups": groups}}}

    def _token(self, namespace: str, account: str, body: Json) -> Json:
        self.objects.get("serviceaccounts", account, namespace)
        spec = body["spec"]
        if bound := spec.get("boundObjectRef"):
            pod = self.objects.get("pods", bound["name"], namespace)
            if pod["metadata"]["uid"] != bound["uid"]:
                message = (
                    f'Operation cannot be fulfilled on Pod "{bound["name"]}": the UID in the bound object '
                )
                raise StatusError(409, "Conflict", message + "reference does not match the UID in record")
        expires_at = datetime.datetime.now(datetime.UTC) + datetime.timedelta(
            seconds=spec["expirationSeconds"]
        )
        audience = ",".join(spec.get("audiences") or ("api",))
        status = {
            "token": f"token.{namespace}.{account}.{audience}.{len(self.requests)}",
            "expirationTimestamp": expires_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        return {**body, "status": status}

    # --- watch

    async def _watch(self, request: web.Request, resource: str, namespace: str | None) -> web.StreamResponse:
        query = request.query
        version = int(query.get("resourceVersion") or 0)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        if version < self.objects.oldest_version:
            message = f"too old resource version: {version} ({self.objects.version})"
            error = StatusError(410, "Expired", message)
            return _json({"type": "ERROR", "object": error.status})
        await response.prepare(request)
        self._watches[id(request)] = request
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(float(query.get("timeoutSeconds") or 600)):
                    await self._follow(request, response, resource, namespace, version)
        finally:
            self._watches.pop(id(request), None)
        return response

    async def _follow(
        self,
        request: web.Request,
        response: web.StreamResponse,
        resource: str,
        namespace: str | None,
        version: int,
    ) -> None:
        fields = selector(request.query.get("fieldSelector", ""))

        def matches(obj: Json) -> bool:
            return fields(obj) and (namespace is None or obj["metadata"].get("namespace") == namespace)

        while not self._ending.is_set():
            changed = self.objects.changed
            entries = [e for e in self.objects.history if e.version > version]
            lines = [orjson.dumps(e) + b"\n" for e in watch_events(entries, resource, matches)]
            version = max(version, self.objects.version)
            if lines:
                await response.write(b"".join(lines))
            try:
                async with asyncio.timeout(self.bookmark_s):
                    await changed.wait()
            except TimeoutError:
                await response.write(orjson.dumps(self._bookmark(resource, version)) + b"\n")

    def _bookmark(self, resource: str, version: int) -> Json:
        kind = KINDS[resource]
        metadata = {"resourceVersion": str(version), "creationTimestamp": None}
        return {
            "type": "BOOKMARK",
            "object": {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata},
        }

    def end(self) -> None:
        """Let the watches end."""
        self._ending.set()
        self.objects.changed.set()


@asynccontextmanager
async def serve() -> AsyncIterator[FakeApiServer]:
    """A fake API server on a free port of the loopback interface."""
    server = FakeApiServer()
    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        yield server
    finally:
        server.end()
        server.cut_watches()
        await runner.cleanup()


def _json(body: Json, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(body), status=status, headers=headers, content_type="application/json"
    )


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)
