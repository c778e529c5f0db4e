"""`/attach` over both transports, and `/run`, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import pytest

from tests.server.exec_server import KEY, FunctionRunner, find_pod, serving_routes
from tests.server.spdy_client import request, upgraded
from tests.server.websocket_client import STDIN, STDOUT, websocket_request, websocket_to
from vkubelet.clock import SystemClock
from vkubelet.errors import StreamError
from vkubelet.model.keys import PodKey
from vkubelet.provider import ExecIO, TerminalSize
from vkubelet.server.attach import AttachHandler
from vkubelet.server.remote_session import RemoteCommandServer
from vkubelet.server.run import RunHandler
from vkubelet.server.served_connection import StreamTimeouts

PATH = "/attach/default/web/main"
OUTPUT = [("output", "1")]
INPUT_OUTPUT = [("input", "1"), ("output", "1")]
TERMINAL = [*INPUT_OUTPUT, ("tty", "1")]
MIB = 1 << 20

Attach = Callable[[ExecIO], Awaitable[None]]


@dataclass
class FunctionAttacher:
    """An `Attacher` that calls a function, and remembers for whom and how it ended."""

    function: Attach
    calls: list[tuple[PodKey, str]] = field(default_factory=list)
    detached: asyncio.Event = field(default_factory=asyncio.Event)

    async def is_running(self, key: PodKey, container: str) -> bool:
        return container == "main"

    async def attach(self, key: PodKey, container: str, io: ExecIO) -> None:
        self.calls.append((key, container))
        try:
            await self.function(io)
        except asyncio.CancelledError:
            self.detached.set()
            raise


@asynccontextmanager
async def attach_server(function: Attach) -> AsyncIterator[tuple[int, FunctionAttacher]]:
    attacher = FunctionAttacher(function)
    streams = RemoteCommandServer(SystemClock(), StreamTimeouts(linger_s=0.05))
    async with serving_routes(AttachHandler(attacher, find_pod, streams).routes(), streams) as port:
        yield port, attacher


async def _echo_a_line(io: ExecIO) -> None:
    assert io.stdin is not None
    assert io.stdout is not None
    await io.stdout.write(await anext(io.stdin))


async def _forever(_: ExecIO) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("path", [PATH, f"/attach/default/web/{KEY.uid}/main"], ids=["by name", "by uid"])
async def test_over_spdy_streams_go_both_ways_and_the_containers_end_is_success(path: str) -> None:
    async with attach_server(_echo_a_line) as (port, attacher), upgraded(port, path, INPUT_OUTPUT) as client:
        await client.open("error", "stdin", "stdout")
        await client.send("stdin", b"hello")
        assert json.loads(await client.status()) == {"status": "Success"}
        assert client.received["stdout"] == b"hello"
        assert attacher.calls == [(KEY, "main")]


async def test_over_websocket_likewise() -> None:
    async with attach_server(_echo_a_line) as (port, _), websocket_to(port, PATH, INPUT_OUTPUT) as client:
        await client.send(STDIN, b"hello")
        assert json.loads(await client.status()) == {"status": "Success"}
        assert client.received[STDOUT] == b"hello"


async def test_terminal_sizes_arrive() -> None:
    async def attach(io: ExecIO) -> None:
        assert io.resizes is not None
        assert await anext(io.resizes) == TerminalSize(80, 24)

    async with attach_server(attach) as (port, _), upgraded(port, PATH, TERMINAL) as client:
        await client.open("error", "stdin", "stdout", "resize")
        await client.send("resize", b'{"Width":80,"Height":24}')
        assert json.loads(await client.status()) == {"status": "Success"}


@pytest.mark.parametrize("transport", ["spdy", "websocket"])
async def test_a_client_that_leaves_is_detached(transport: str) -> None:
    async with attach_server(_forever) as (port, attacher):
        if transport == "spdy":
            async with upgraded(port, PATH, OUTPUT) as client:
                await client.open("error", "stdout")
                await client.until(lambda: bool(attacher.calls))
        else:
            async with websocket_to(port, PATH, OUTPUT) as other:
                await other.until(lambda: bool(other.messages))
        async with asyncio.timeout(5):
            await attacher.detached.wait()


async def test_an_error_is_told_on_the_error_stream() -> None:
    async def attach(_: ExecIO) -> None:
        raise StreamError("no such luck", status=500)

    async with attach_server(attach) as (port, _), upgraded(port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        status = json.loads(await client.status())
        assert status["message"] == "Internal error occurred: error attaching to container: no such luck"


@pytest.mark.parametrize(
    ("path", "query", "status", "text"),
    [
        (PATH, [], 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/attach/default/other/main", OUTPUT, 404, "pod does not exist"),
        ("/attach/default/web/sidecar", OUTPUT, 500, "container sidecar not found in pod web_default"),
    ],
    ids=["no stream", "another pod", "a container that does not run"],
)
async def test_a_wrong_request_is_refused_on_both_transports(
    path: str, query: list[tuple[str, str]], status: int, text: str
) -> None:
    async with attach_server(_forever) as (port, attacher):
        over_spdy, _, writer = await request(port, path, query)
        writer.close()
        over_websocket, writer = await websocket_request(port, path, query, "v5.channel.k8s.io")
        writer.close()
        for answer in (over_spdy, over_websocket):
            assert (answer.status, answer.body.decode()) == (status, text)
        assert attacher.calls == []


# --- run --------------------------------------------------------------------------------------------------


async def _run(runner: FunctionRunner, path: str, command: str, method: str = "POST") -> tuple[int, str, str]:
    streams = RemoteCommandServer(SystemClock())
    async with (
        serving_routes(RunHandler(runner, find_pod).routes(), streams) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session,
        session.request(method, path, params={"cmd": command}) as response,
    ):
        return response.status, await response.text(), response.headers.get("Content-Type", "")


def _runner(stdout: bytes = b"", stderr: bytes = b"", exit_code: int = 0) -> FunctionRunner:
    async def run(_: object, io: ExecIO) -> int:
        assert io.stdin is None
        assert io.stdout is not None
        assert io.stderr is not None
        await io.stderr.write(stderr)
        await io.stdout.write(stdout)
        return exit_code

    return FunctionRunner(run)


@pytest.mark.parametrize(
    "path", ["/run/default/web/main", f"/run/default/web/{KEY.uid}/main"], ids=["by name", "by uid"]
)
async def test_run_answers_with_stdout_then_stderr(path: str) -> None:
    runner = _runner(b"out\n", b"err\n")
    assert await _run(runner, path, "ls -l") == (200, "out\nerr\n", "application/json")
    assert runner.calls == [(KEY, "main", ("ls", "-l"))]


async def test_run_of_a_command_that_fails_is_an_error() -> None:
    status, text, _ = await _run(_runner(stderr=b"oh no", exit_code=3), "/run/default/web/main", "a b")
    assert (status, text) == (500, "command 'a b' exited with 3: oh no")


async def test_run_keeps_16_mib_of_output() -> None:
    status, text, _ = await _run(_runner(bytes(17 * MIB)), "/run/default/web/main", "yes")
    assert (status, len(text)) == (200, 16 * MIB)


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/run/default/other/main", "POST", 404),
        ("/run/default/web/sidecar", "POST", 500),
        ("/run/default/web/main", "GET", 405),
    ],
    ids=["another pod", "a container that does not run", "GET"],
)
async def test_a_run_that_cannot_be_is_refused(path: str, method: str, status: int) -> None:
    runner = _runner()
    assert (await _run(runner, path, "x", method))[0] == status
    assert runner.calls == []
