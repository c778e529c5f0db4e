"""`/exec` over real sockets, with a client that does what client-go does."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence

import pytest

from tests.server.exec_server import KEY, exec_server
from tests.server.spdy_client import V4, request, upgraded
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.protocols import spdy
from vkubelet.provider import ExecIO, TerminalSize
from vkubelet.server.served_connection import StreamTimeouts

PATH = "/exec/default/web/main"
OUTPUT = [("command", "cmd"), ("output", "1")]
INPUT_OUTPUT = [("command", "cat"), ("input", "1"), ("output", "1")]
TERMINAL = [("command", "sh"), ("input", "1"), ("output", "1"), ("error", "1"), ("tty", "1")]
MIB = 1 << 20


async def _succeed(_: Sequence[str], __: ExecIO) -> int:
    return 0


async def _echo(_: Sequence[str], io: ExecIO) -> int:
    assert io.stdin is not None
    assert io.stdout is not None
    async for data in io.stdin:
        await io.stdout.write(data)
    return 0


# --- who and what -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_uid", [False, True], ids=["by name", "by name and uid"])
async def test_the_runner_is_told_pod_container_and_command(with_uid: bool) -> None:
    async with exec_server(_succeed) as server:
        path = f"/exec/default/web/{KEY.uid}/main" if with_uid else PATH
        query = [("command", "sh"), ("command", "-c"), ("command", "a b; c"), ("output", "1")]
        async with upgraded(server.port, path, query) as client:
            await client.open("error", "stdout")
            assert json.loads(await client.status()) == {"status": "Success"}
        assert server.runner.calls == [(KEY, "main", ("sh", "-c", "a b; c"))]


@pytest.mark.parametrize("code", [0, 7, 137])
async def test_the_exit_code_is_told_on_the_error_stream(code: int) -> None:
    async def run(_: Sequence[str], __: ExecIO) -> int:
        return code

    async with exec_server(run) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        status = json.loads(await client.status())
        causes = status.get("details", {}).get("causes", [])
        assert [cause["message"] for cause in causes] == ([str(code)] if code else [])


async def test_all_output_comes_before_the_end_of_its_stream_and_the_status() -> None:
    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdout is not None
        assert io.stderr is not None
        await io.stdout.write(b"out")
        await io.stderr.write(b"err")
        return 0

    query = [*OUTPUT, ("error", "1")]
    async with exec_server(run) as server, upgraded(server.port, PATH, query) as client:
        await client.open("error", "stdout", "stderr")
        await client.until_closed()
        assert client.received == {"stdout": b"out", "stderr": b"err", "error": b'{"status":"Success"}'}
        ends = [event.stream_id for event in client.events if isinstance(event, spdy.StreamEnded)]
        assert ends == [client.streams[name] for name in ("stdout", "stderr", "error")]
        assert isinstance(client.events[-1], spdy.GoAwayReceived)


async def test_before_v4_success_says_nothing_and_failure_is_text() -> None:
    async def run(command: Sequence[str], _: ExecIO) -> int:
        return 7 if command == ("fail",) else 0

    async with exec_server(run) as server:
        for command, text in (
            ("ok", b""),
            ("fail", b"command terminated with non-zero exit code: exit status 7"),
        ):
            query = [("command", command), ("output", "1")]
            async with upgraded(server.port, PATH, query, version="v3.channel.k8s.io") as client:
                await client.open("error", "stdout")
                assert await client.status() == text


# --- refusals before the upgrade --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "query", "status", "text"),
    [
        pytest.param(
            PATH,
            [("command", "x")],
            400,
            "you must specify at least 1 of stdin, stdout, stderr",
            id="no stream",
        ),
        pytest.param("/exec/default/other/main", OUTPUT, 404, "pod does not exist", id="another pod"),
        pytest.param("/exec/default/web/other-uid/main", OUTPUT, 404, "pod does not exist", id="another uid"),
        pytest.param(
            PATH,
            [("output", "1")],
            400,
            "you must specify at least one command for the container",
            id="no command",
        ),
        pytest.param(
            "/exec/default/web/sidecar",
            OUTPUT,
            500,
            'container not found ("sidecar")',
            id="a container that does not run",
        ),
    ],
)
async def test_a_wrong_request_is_refused_in_plain_text(
    path: str, query: list[tuple[str, str]], status: int, text: str
) -> None:
    async with exec_server(_succeed) as server:
        answer, _, writer = await request(server.port, path, query)
        writer.close()
        assert (answer.status, answer.body.decode()) == (status, text)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param([], 400, id="no upgrade"),
        pytest.param([("Connection", "Upgrade"), ("Upgrade", "h2c")], 400, id="another protocol"),
        pytest.param([("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")], 400, id="no version"),
        pytest.param(
            [
                ("Connection", "Upgrade"),
                ("Upgrade", "SPDY/3.1"),
                ("X-Stream-Protocol-Version", "v9.channel.k8s.io"),
            ],
            403,
            id="an unknown version",
        ),
    ],
)
async def test_a_request_that_cannot_be_upgraded_is_refused(
    headers: list[tuple[str, str]], status: int
) -> None:
    async with exec_server(_succeed) as server:
        answer, _, writer = await request(server.port, PATH, OUTPUT, method="GET", headers=headers)
        writer.close()
        assert answer.status == status
        accepted = answer.all("X-Accepted-Stream-Protocol-Versions")
        assert accepted == (
            [] if status == 400 else [V4, "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"]
        )
        assert server.runner.calls == []


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_101_names_the_protocol_and_the_version(method: str) -> None:
    async with exec_server(_succeed) as server:
        answer, _, writer = await request(server.port, PATH, OUTPUT, method=method)
        writer.close()
        assert answer.status == 101
        assert (answer.all("Connection"), answer.all("Upgrade")) == (["Upgrade"], ["SPDY/3.1"])
        assert answer.all("X-Stream-Protocol-Version") == [V4]
        assert answer.all("Transfer-Encoding") == answer.all("Content-Length") == []


# --- failures after the upgrade ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(PodNotFoundError('container not found ("main")'), id="the container has gone"),
        pytest.param(StreamError("no shell here", status=400), id="the provider refuses"),
        pytest.param(RuntimeError("surprise"), id="something unexpected"),
    ],
)
async def test_an_error_of_the_runner_is_told_on_the_error_stream(error: Exception) -> None:
    async def run(_: Sequence[str], __: ExecIO) -> int:
        raise error

    async with exec_server(run) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        status = json.loads(await client.status())
        assert (status["reason"], status["code"]) == ("InternalError", 500)
        assert status["message"] == f"Internal error occurred: error executing command in container: {error}"


# --- streams ----------------------------------------------------------------------------------------------


async def test_stdin_ends_at_the_half_close_while_output_goes_on() -> None:
    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdin is not None
        assert io.stdout is not None
        lines = b"".join([data async for data in io.stdin])
        await io.stdout.write(b"got " + lines)
        return 0

    async with exec_server(run) as server, upgraded(server.port, PATH, INPUT_OUTPUT) as client:
        await client.open("error", "stdin", "stdout")
        await client.send("stdin", b"one ")
        await client.send("stdin", b"two", end=True)
        await client.status()
        assert client.received["stdout"] == b"got one two"


async def test_a_command_that_ends_while_stdin_is_open_ends_the_exec() -> None:
    async with exec_server(_succeed) as server, upgraded(server.port, PATH, INPUT_OUTPUT) as client:
        await client.open("error", "stdin", "stdout")
        assert json.loads(await client.status()) == {"status": "Success"}
        await client.until_closed()
        assert client.has(spdy.StreamReset(client.streams["stdin"], spdy.ResetStatus.CANCEL))


async def test_a_client_that_still_sends_gets_all_output_of_a_command_that_has_ended() -> None:
    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdin is not None
        assert io.stdout is not None
        await anext(io.stdin)
        await io.stdout.write(bytes(4 * MIB))
        return 3

    timeouts = StreamTimeouts(linger_s=10)
    async with (
        exec_server(run, timeouts=timeouts) as server,
        upgraded(server.port, PATH, INPUT_OUTPUT) as client,
    ):
        await client.open("error", "stdin", "stdout")
        for _ in range(20):
            if client.closed or not client.connection.is_open(client.streams["stdin"]):
                break
            await client.send("stdin", bytes(MIB))
        assert json.loads(await client.status())["reason"] == "NonZeroExitCode"
        assert len(client.received["stdout"]) == 4 * MIB


async def test_50_mb_go_through_and_come_back_unchanged() -> None:
    payload = hashlib.sha256(b"seed").digest() * (50 * MIB // 32)

    async with exec_server(_echo) as server, upgraded(server.port, PATH, INPUT_OUTPUT) as client:
        await client.open("error", "stdin", "stdout")
        for start in range(0, len(payload), 32 * 1024):
            await client.send("stdin", payload[start : start + 32 * 1024])
        await client.send("stdin", b"", end=True)
        await client.status()
        assert hashlib.sha256(client.received["stdout"]).digest() == hashlib.sha256(payload).digest()


async def test_a_terminal_has_sizes_and_no_stderr() -> None:
    sizes: list[TerminalSize] = []

    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert (io.tty, io.stderr) == (True, None)
        assert io.resizes is not None
        async for size in io.resizes:
            sizes.append(size)
            if size.width == 0:
                break
        return 0

    async with exec_server(run) as server, upgraded(server.port, PATH, TERMINAL) as client:
        await client.open("error", "stdin", "stdout", "resize")
        await client.send("resize", b'{"Width":80,"Height":24}\n{"Wid')
        await client.send("resize", b'th":132,"Height":50}\n{"Width":0,"Height":0}\n')
        await client.status()
    assert sizes == [TerminalSize(80, 24), TerminalSize(132, 50), TerminalSize(0, 0)]


async def test_what_was_not_asked_for_is_not_there() -> None:
    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert (io.stdin, io.stderr, io.resizes, io.tty) == (None, None, None, False)
        return 0

    async with exec_server(run) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout", "stdin", "resize")
        assert json.loads(await client.status()) == {"status": "Success"}


async def test_a_client_that_vanishes_cancels_the_command() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def run(_: Sequence[str], __: ExecIO) -> int:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return 0

    async with exec_server(run) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        await started.wait()
        client.vanish()
        async with asyncio.timeout(5):
            await cancelled.wait()


async def test_a_command_that_waits_for_input_learns_that_the_client_has_gone() -> None:
    cancelled = asyncio.Event()

    async def run(command: Sequence[str], io: ExecIO) -> int:
        try:
            return await _echo(command, io)
        finally:
            cancelled.set()

    async with exec_server(run) as server, upgraded(server.port, PATH, INPUT_OUTPUT) as client:
        await client.open("error", "stdin", "stdout")
        await client.send("stdin", b"half of something")
        await client.until(lambda: client.received["stdout"] == b"half of something")
        client.vanish()
        async with asyncio.timeout(5):
            await cancelled.wait()
