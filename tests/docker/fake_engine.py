"""
A Docker engine in this process, on a Unix socket: behaves like one as far as the runtime can tell.

Answers, statuses and messages are those of Docker 20.10 (checked against it by `e2e/test_docker_runtime.py`,
which makes the same calls). Containers run nothing: a test ends them with `finish`. It speaks HTTP by hand,
since exec turns connections into raw ones and tests cut answers short.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

Json = dict[str, Any]

OOM_FAILURE = (
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container "
    "process: can't get final child's PID from pipe: EOF: unknown"
)
ZERO_TIME = "0001-01-01T00:00:00Z"


def frame(stream: int, data: bytes) -> bytes:
    """One frame of a multiplexed stream."""
    return struct.pack(">BxxxI", stream, len(data)) + data


@dataclass
class FakeContainer:
    """
    One container.

    Attributes:
        stubborn: it ignores its stop signal.
        listed_as: the state that lists still show, "" for the present one: they lag behind events.
        details: further fields of its inspection.
        stats: what ``/stats`` answers.
    """

    id: str
    name: str
    body: Json
    created: int
    status: str = "created"
    exit_code: int = 0
    error: str = ""
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    oom_killed: bool = False
    stubborn: bool = False
    listed_as: str = ""
    details: Json = field(default_factory=dict)
    stats: Json = field(default_factory=dict)
    starts: int = 0
    signals: list[str] = field(default_factory=list)
    log: list[bytes] = field(default_factory=list)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    sizes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def labels(self) -> dict[str, str]:
        return dict(self.body.get("Labels") or {})

    @property
    def running(self) -> bool:
        return self.status == "running"

    def inspected(self) -> Json:
        return {
            "Id": self.id,
            "Name": f"/{self.name}",
            "Created": f"2026-01-01T00:00:{self.created % 60:02}.123456789Z",
            "Image": self.body.get("Image"),
            "Config": {"Labels": self.labels, "Tty": self.body.get("Tty", False)},
            "HostConfig": {"OomScoreAdj": 0, **self.body.get("HostConfig", {})},
            "State": {
                "Status": self.status,
                "Running": self.running,
                "OOMKilled": self.oom_killed,
                "ExitCode": self.exit_code,
                "Error": self.error,
                "StartedAt": self.started_at,
                "FinishedAt": self.finished_at,
                **self.details.get("State", {}),
            },
            **{name: value for name, value in self.details.items() if name != "State"},
        }

    def summary(self) -> Json:
        address = "172.17.0.2" if self.running else ""
        return {
            "Id": self.id,
            "Names": [f"/{self.name}"],
            "Labels": self.labels,
            "State": self.listed_as or self.status,
            "Created": self.created,
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": address, "GlobalIPv6Address": ""}}},
        }


@dataclass
class Exec:
    """One command; `Pid` stays 0 when it could not be started."""

    id: str
    container: FakeContainer
    body: Json
    running: bool = False
    exit_code: int | None = None
    pid: int = 0
    sizes: list[tuple[str, str]] = field(default_factory=list)


class RefusedError(Exception):
    """An answer of 400 or more."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeEngine:
    """See the module."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.containers: dict[str, FakeContainer] = {}
        self.execs: dict[str, Exec] = {}
        self.images: dict[str, Json] = {}
        self.pull_answer: list[Json] = []
        self.pull_refusal: RefusedError | None = None
        self.pulled: Json | None = None
        self.pull_auths: list[str] = []
        self.api_version = "1.41"
        self.oom_scores_work = True
        self.refuse_next: dict[str, RefusedError] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.resizes_refused = 0  # how many of the next ones will be
        self._numbers = itertools.count(1)
        self._subscribers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life ----------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._accepted, str(self.socket))

    async def stop(self) -> None:
        """Go away: nobody listens, every connection is cut."""
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.socket.unlink(missing_ok=True)

    # --- what tests do -------------------------------------------------------------------------------------

    def add_image(self, name: str, number: int = 1, **values: object) -> str:
        image = {"Id": f"sha256:{number:064x}", "RepoTags": [name], "RepoDigests": [], "Size": 7, **values}
        image.setdefault("Config", {"User": ""})
        self.images[name] = self.images[str(image["Id"])] = image
        return str(image["Id"])

    def named(self, part: str) -> FakeContainer:
        (found,) = [c for c in self.containers.values() if part in f"{c.name}$"]
        return found

    def refuse_resizes(self, count: int) -> None:
        self.resizes_refused = count

    def finish(self, container: FakeContainer, exit_code: int = 0) -> None:
        container.status, container.exit_code = "exited", exit_code
        container.finished_at = "2026-01-01T00:01:00Z"
        container.stopped.set()
        self._publish(container, "die")

    def count(self, method: str, part: str) -> int:
        return sum(m == method and part in path for m, path, _ in self.requests)

    # --- HTTP ----------------------------------------------------------------------------------------------

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._answered(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self._subscribers.discard(writer)
            writer.transport.abort()

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query))
        self.requests.append((method, path, query))
        request = Request(method, path, query, json.loads(body or b"null"), headers, reader, writer)
        try:
            refusal = next((self.refuse_next.pop(part) for part in [*self.refuse_next] if part in path), None)
            if refusal is not None:
                raise refusal
            return await self._route(request)
        except RefusedError as refused:
            await request.answer(refused.status, {"message": str(refused)})
            return True

    async def _route(self, request: Request) -> bool:
        """Answer; whether the connection can be used again."""
        if request.path == "/_ping":
            await request.answer(200, None, {"Api-Version": self.api_version})
            return True
        version, _, rest = request.path.removeprefix("/").partition("/")
        assert version == f"v{self.api_version}"
        words = rest.split("/")
        match request.method, words:
            case "GET", ["info"]:
                await request.answer(200, INFO)
            case "GET", ["events"]:
                await self._events(request)
                return False
            case "GET", ["containers", "json"]:
                await request.answer(200, self._listed(json.loads(request.query["filters"])))
            case "POST", ["containers", "create"]:
                await request.answer(201, {"Id": self._create(request.query["name"], request.body)})
            case "DELETE", ["containers", name]:
                self._delete(name)
                await request.answer(204)
            case _, ["containers", name, verb]:
                return await self._on_container(request, self._container(name), verb)
            case _, ["exec", exec_id, verb]:
                return await self._on_exec(request, self.execs[exec_id], verb)
            case "POST", ["images", "create"]:
                await self._pull(request)
                return False
            case "GET", ["images", *name, "json"]:
                await request.answer(200, self._image("/".join(name)))
            case _:
                raise RefusedError(404, "page not found")
        return True

    # --- containers ----------------------------------------------------------------------------------------

    def _container(self, name: str) -> FakeContainer:
        for container in self.containers.values():
            if name in (container.id, container.name):
                return container
        raise RefusedError(404, f"No such container: {name}")

    def _listed(self, filters: dict[str, list[str]]) -> list[Json]:
        def matches(container: FakeContainer) -> bool:
            pairs = {f"{key}={value}" for key, value in container.labels.items()}
            has_status = container.status in filters.get("status", [container.status])
            return has_status and pairs.issuperset(filters["label"])

        return [c.summary() for c in self.containers.values() if matches(c)]

    def _create(self, name: str, body: Json) -> str:
        if any(c.name == name for c in self.containers.values()):
            raise RefusedError(409, f'Conflict. The container name "/{name}" is already in use')
        if body["Image"] not in self.images:
            raise RefusedError(404, f"No such image: {body['Image']}")
        number = next(self._numbers)
        container = FakeContainer(f"{number:064x}", name, body, created=1_767_225_600 + number)
        self.containers[container.id] = container
        self._publish(container, "create")
        return container.id

    def _delete(self, name: str) -> None:
        container = self._container(name)
        del self.containers[container.id]
        container.stopped.set()
        self._publish(container, "destroy")

    async def _on_container(self, request: Request, container: FakeContainer, verb: str) -> bool:
        match verb:
            case "json":
                await request.answer(200, container.inspected())
            case "start":
                await request.answer(self._start(container))
            case "kill":
                if not container.running:
                    raise RefusedError(409, f"Cannot kill container: {container.id} is not running")
                container.signals.append(request.query["signal"])
                self.finish(container, 137)
                await request.answer(204)
            case "stop":
                await request.answer(await self._stop(container))
            case "wait":
                if container.running:
                    await container.stopped.wait()
                await request.answer(200, {"StatusCode": container.exit_code})
            case "stats":
                assert request.query == {"stream": "false", "one-shot": "true"}  # else it waits a second
                await request.answer(200, container.stats)
            case "logs":
                await request.begin_chunks()
                for piece in container.log:
                    await request.chunk(piece)
                if request.query.get("follow"):
                    await container.stopped.wait()
                await request.end_chunks()
            case "exec":
                if not container.running:
                    raise RefusedError(409, f"Container {container.id} is not running")
                exec_id = f"exec{next(self._numbers)}"
                self.execs[exec_id] = Exec(exec_id, container, request.body)
                await request.answer(201, {"Id": exec_id})
            case "attach":
                await self._attach(request, container)
                return False
            case "resize":
                container.sizes.append((request.query["w"], request.query["h"]))
                await request.answer(200)
            case _:
                raise RefusedError(404, "page not found")
        return True

    async def _attach(self, request: Request, container: FakeContainer) -> None:
        """A container that says something on both streams and then what it hears."""
        tty = bool(container.body.get("Tty"))
        request.writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        for stream, data in ((1, b"out;"), (2, b"err;")):
            request.writer.write(data if tty else frame(stream, data))
        parts: list[asyncio.Task[Any]] = [asyncio.create_task(container.stopped.wait())]
        if "stdin" in request.query:
            parts.append(asyncio.create_task(self._hear(request, container, tty)))
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        for part in parts:
            part.cancel()
        request.writer.close()

    async def _hear(self, request: Request, container: FakeContainer, tty: bool) -> None:
        """The end of input ends a container with `StdinOnce` and no terminal; else it detaches."""
        while data := await request.reader.read(65536):
            request.writer.write(data if tty else frame(1, data))
        if container.body.get("StdinOnce") and not tty:
            self.finish(container, 0)

    def _start(self, container: FakeContainer) -> int:
        if container.running:
            return 304
        container.starts += 1
        score = container.body.get("HostConfig", {}).get("OomScoreAdj", 0)
        command = (container.body.get("Entrypoint") or [""])[0]
        if score < 0 and not self.oom_scores_work:
            container.error, container.exit_code = OOM_FAILURE, 128
            raise RefusedError(500, OOM_FAILURE)
        if command.startswith("no-such"):
            message = f'OCI runtime create failed: exec: "{command}": executable file not found in $PATH'
            container.error, container.exit_code = message, 127
            raise RefusedError(400, message)
        container.status, container.error, container.exit_code = "running", "", 0
        container.started_at = "2026-01-01T00:00:30.5Z"
        container.stopped = asyncio.Event()
        self._publish(container, "start")
        return 204

    async def _stop(self, container: FakeContainer) -> int:
        if not container.running:
            return 304
        container.signals.append("SIGTERM")
        if container.stubborn:
            await container.stopped.wait()
        else:
            self.finish(container, 143)
        return 204

    # --- events --------------------------------------------------------------------------------------------

    async def _events(self, request: Request) -> None:
        await request.begin_chunks()
        self._subscribers.add(request.writer)
        await request.reader.read()

    def _publish(self, container: FakeContainer, action: str) -> None:
        event = {"Action": action, "id": container.id, "Actor": {"Attributes": container.labels}}
        line = json.dumps(event).encode() + b"\n"
        for writer in self._subscribers:
            writer.write(b"%x\r\n%s\r\n" % (len(line), line))

    # --- images --------------------------------------------------------------------------------------------

    def _image(self, name: str) -> Json:
        for key, image in self.images.items():
            if key == name or str(image["Id"]).partition(":")[2].startswith(name):
                return image
        raise RefusedError(404, f"No such image: {name}")

    async def _pull(self, request: Request) -> None:
        self.pull_auths.append(request.headers.get("x-registry-auth", ""))
        if self.pull_refusal is not None:
            raise self.pull_refusal
        await request.begin_chunks()
        for entry in self.pull_answer:
            await request.chunk(json.dumps(entry).encode() + b"\r\n")
        if self.pulled is not None:
            self.images[str(self.pulled["RepoTags"][0])] = self.images[str(self.pulled["Id"])] = self.pulled
        await request.end_chunks()

    # --- exec ----------------------------------------------------------------------------------------------

    async def _on_exec(self, request: Request, command: Exec, verb: str) -> bool:
        match verb:
            case "json":
                state = {"Running": command.running, "ExitCode": command.exit_code, "Pid": command.pid}
                await request.answer(200, state)
            case "resize":
                if self.resizes_refused:
                    self.resizes_refused -= 1
                    raise RefusedError(500, "no running process")
                command.sizes.append((request.query["w"], request.query["h"]))
                await request.answer(200)
            case "start":
                request.writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                await self._run(request, command)
                request.writer.close()
                return False
            case _:
                raise RefusedError(404, "page not found")
        return True

    async def _run(self, request: Request, command: Exec) -> None:
        name, *arguments = command.body["Cmd"]
        tty = command.body["Tty"]

        async def out(data: bytes, stream: int = 1) -> None:
            request.writer.write(data if tty else frame(stream, data))
            await request.writer.drain()

        if name not in COMMANDS:
            await out(f'OCI runtime exec failed: exec: "{name}": executable file not found\r\n'.encode())
            command.exit_code = 126
            return
        command.pid, command.running = 1 << 30, True
        try:
            command.exit_code = await COMMANDS[name](arguments, request.reader, out)
        except ConnectionError:
            command.exit_code = 137  # as good as any: nobody is there to hear of it
        command.running = False


@dataclass
class Request:
    """One request and the connection that it came by."""

    method: str
    path: str
    query: dict[str, str]
    body: Any
    headers: dict[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def answer(self, status: int, value: object = None, headers: dict[str, str] | None = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        lines = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in (headers or {}).items())]
        if status not in (204, 304):
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await self.writer.drain()

    async def begin_chunks(self) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self.writer.drain()

    async def end_chunks(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


Out = Callable[..., Awaitable[None]]


async def _echo(arguments: list[str], reader: asyncio.StreamReader, out: Out) -> int:
    await out(" ".join(arguments).encode())
    return 0


async def _fail(arguments: list[str], reader: asyncio.StreamReader, out: Out) -> int:
    await out(b"bad", 2)
    return int(arguments[0])


async def _cat(arguments: list[str], reader: asyncio.StreamReader, out: Out) -> int:
    while data := await reader.read(65536):
        await out(data)
    return 0


async def _sleep(arguments: list[str], reader: asyncio.StreamReader, out: Out) -> int:
    await reader.read()
    return 137


async def _oci(arguments: list[str], reader: asyncio.StreamReader, out: Out) -> int:
    await out(b"OCI runtime exec failed, says the program")
    return 126


async def _broken(arguments: list[str], reader: asyncio.StreamReader, out: Out) -> int:
    await out(b"the disk is full", 3)
    return 0


COMMANDS = {"echo": _echo, "fail": _fail, "cat": _cat, "sleep": _sleep, "oci": _oci, "broken": _broken}

INFO: Json = {
    "NCPU": 4,
    "MemTotal": 8 << 30,
    "OSType": "linux",
    "Architecture": "aarch64",
    "KernelVersion": "6.1.0",
    "OperatingSystem": "Debian",
    "ServerVersion": "20.10.24",
    "DockerRootDir": "/",
}


@asynccontextmanager
async def serve(socket: Path) -> AsyncIterator[FakeEngine]:
    """A fake engine that listens at `socket`, with a sandbox image."""
    engine = FakeEngine(socket)
    engine.add_image("vkubelet.local/pause:1", 1)
    engine.add_image("app:1", 2, RepoDigests=["registry.example/app@sha256:abc"], Config={"User": "1000"})
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()
