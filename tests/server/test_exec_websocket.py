"""`/exec` over WebSocket: every subprotocol, half-close, back-pressure, and how it ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clocks import ManualClock
from tests.server.exec_server import exec_server
from tests.server.spdy_client import request
from tests.server.test_streaming import Waiting, tls_contexts
from tests.server.websocket_client import (
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    V5,
    handshake_headers,
    websocket_request,
    websocket_to,
)
from vkubelet.protocols.channel_messages import REMOTE_COMMAND_SUBPROTOCOLS
from vkubelet.protocols.websocket import Closed, PingReceived, PongReceived
from vkubelet.provider import ExecIO, TerminalSize
from vkubelet.server.served_connection import StreamTimeouts

PATH = "/exec/default/web/main"
OUTPUT = [("command", "cmd"), ("output", "1")]
BOTH = [*OUTPUT, ("error", "1")]
INPUT_OUTPUT = [("command", "cat"), ("input", "1"), ("output", "1")]
TERMINAL = [("command", "sh"), ("input", "1"), ("output", "1"), ("tty", "1")]
MIB = 1 << 20
NAMES = [subprotocol.name for subprotocol in REMOTE_COMMAND_SUBPROTOCOLS]


async def _succeed(_: Sequence[str], __: ExecIO) -> int:
    return 0


async def _echo(_: Sequence[str], io: ExecIO) -> int:
    assert io.stdin is not None
    assert io.stdout is not None
    async for data in io.stdin:
        await io.stdout.write(data)
    return 0


# --- the handshake ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [
        (["v4.channel.k8s.io", "channel.k8s.io"], ["v4.channel.k8s.io"]),
        (["v4.channel.k8s.io", V5], [V5]),
        (["base64url.bearer.authorization.k8s.io.dG9r", "v4.channel.k8s.io"], ["v4.channel.k8s.io"]),
        ([], []),
    ],
    ids=["the client's order", "v5 whatever the order", "a token is no offer", "nothing offered"],
)
async def test_the_101_names_the_subprotocol(offered: list[str], spoken: list[str]) -> None:
    async with exec_server(_succeed) as server:
        answer, writer = await websocket_request(server.port, PATH, OUTPUT, *offered)
        writer.close()
        assert answer.status == 101
        assert (answer.all("Connection"), answer.all("Upgrade")) == (["Upgrade"], ["websocket"])
        assert answer.all("Sec-WebSocket-Protocol") == spoken
        assert answer.all("Transfer-Encoding") == answer.all("Content-Length") == []


async def test_a_client_with_no_subprotocol_of_ours_is_told_which_there_are() -> None:
    async with exec_server(_succeed) as server:
        answer, writer = await websocket_request(server.port, PATH, OUTPUT, "v9.channel.k8s.io")
        writer.close()
        assert answer.status == 403
        assert ", ".join(NAMES) in answer.body.decode()
        assert server.runner.calls == []


@pytest.mark.parametrize("left_out", ["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
async def test_a_handshake_that_lacks_something_is_refused(left_out: str) -> None:
    headers = [(name, value) for name, value in handshake_headers(V5) if name != left_out]
    async with exec_server(_succeed) as server:
        answer, _, writer = await request(server.port, PATH, OUTPUT, method="GET", headers=headers)
        writer.close()
        assert answer.status == 400
        assert answer.body.startswith(b"unable to upgrade: ")


# --- every version ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", [*NAMES, ""])
async def test_streams_are_kept_apart_and_the_status_comes_last(subprotocol: str) -> None:
    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdout is not None
        assert io.stderr is not None
        await io.stdout.write(b"out")
        await io.stderr.write(b"err")
        return 7

    async with (
        exec_server(run) as server,
        websocket_to(server.port, PATH, BOTH, subprotocol=subprotocol) as client,
    ):
        status = await client.status()
        assert client.received[STDOUT] == b"out"
        assert client.received[STDERR] == b"err"
        assert client.order == [STDOUT, STDERR, ERROR]
        assert client.close == Closed(1000, "")
        if client.subprotocol.version.has_json_status:
            assert json.loads(status)["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
        else:
            assert status == b"command terminated with non-zero exit code: exit status 7"


@pytest.mark.parametrize("subprotocol", NAMES)
async def test_input_comes_back_unchanged(subprotocol: str) -> None:
    async with (
        exec_server(_echo) as server,
        websocket_to(server.port, PATH, INPUT_OUTPUT, subprotocol=subprotocol) as client,
    ):
        data = bytes(range(256)) * 1000
        await client.send(STDIN, data)
        await client.until(lambda: client.received[STDOUT] == data)


@pytest.mark.parametrize("subprotocol", NAMES)
async def test_terminal_sizes_arrive_in_every_version(subprotocol: str) -> None:
    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.tty
        assert io.stderr is None
        assert io.resizes is not None
        assert await anext(io.resizes) == TerminalSize(80, 24)
        return 0

    async with (
        exec_server(run) as server,
        websocket_to(server.port, PATH, TERMINAL, subprotocol=subprotocol) as client,
    ):
        await client.send(RESIZE, b'{"Width":80,"Height":24}')
        status = await client.status()
        assert status in (b"", b'{"status":"Success"}')


@pytest.mark.parametrize(
    ("query", "greeting"),
    [
        (BOTH, b"\x01"),
        ([("command", "x"), ("error", "1")], b"\x02"),
        ([("command", "x"), ("input", "1")], b"\x03"),
    ],
    ids=["stdout", "stderr", "error"],
)
async def test_an_empty_message_says_that_the_connection_stands(
    query: list[tuple[str, str]], greeting: bytes
) -> None:
    command = Waiting()
    async with exec_server(command) as server, websocket_to(server.port, PATH, query) as client:
        await client.until(lambda: bool(client.messages))
        assert client.messages == [greeting]


# --- input ------------------------------------------------------------------------------------------------


async def test_the_close_signal_ends_stdin_while_output_goes_on() -> None:
    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdin is not None
        assert io.stdout is not None
        total = 0
        async for data in io.stdin:
            total += len(data)
        await io.stdout.write(b"%d" % total)
        return 0

    async with exec_server(run) as server, websocket_to(server.port, PATH, INPUT_OUTPUT) as client:
        await client.send(STDIN, bytes(1000))
        await client.close_stdin()
        assert json.loads(await client.status()) == {"status": "Success"}
        assert client.received[STDOUT] == b"1000"


async def test_one_message_of_any_size_is_handed_on_as_it_arrives() -> None:
    arrived = asyncio.Event()

    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdin is not None
        digest = hashlib.sha256()
        assert io.stdout is not None
        async for data in io.stdin:
            arrived.set()
            digest.update(data)
        await io.stdout.write(digest.hexdigest().encode())
        return 0

    data = bytes(range(251)) * 40_000
    async with exec_server(run) as server, websocket_to(server.port, PATH, INPUT_OUTPUT) as client:
        client.connection.send_fragment(b"\x00" + data[:1000], begins=True, ends=False)
        await client.flush()
        async with asyncio.timeout(5):
            await arrived.wait()
        client.connection.send_fragment(data[1000:], begins=False, ends=True)
        await client.close_stdin()
        await client.status()
        assert client.received[STDOUT].decode() == hashlib.sha256(data).hexdigest()


async def test_thousands_of_messages_of_a_byte_are_input_like_any_other() -> None:
    go_on = asyncio.Event()

    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdin is not None
        assert io.stdout is not None
        await go_on.wait()
        total = 0
        async for data in io.stdin:
            total += len(data)
        await io.stdout.write(b"%d" % total)
        return 0

    async with exec_server(run) as server, websocket_to(server.port, PATH, INPUT_OUTPUT) as client:
        client.connection.send_message(b"\x00x")
        client.writer.write(client.connection.data_to_send() * 20_000)
        go_on.set()
        await client.close_stdin()
        await client.status()
        assert client.received[STDOUT] == b"20000"


async def test_messages_on_channels_that_are_not_there_are_passed_over() -> None:
    async with exec_server(_echo) as server, websocket_to(server.port, PATH, INPUT_OUTPUT) as client:
        for channel in (STDOUT, ERROR, RESIZE, 9):
            await client.send(channel, bytes(MIB))
        await client.send(STDIN, b"heard")
        await client.until(lambda: client.received[STDOUT] == b"heard")


async def test_what_breaks_the_protocol_ends_the_connection_and_the_command() -> None:
    command = Waiting()
    async with exec_server(command) as server, websocket_to(server.port, PATH, OUTPUT) as client:
        await command.started.wait()
        client.writer.write(b"\x82\x01x")
        await client.until_closed()
        async with asyncio.timeout(5):
            await command.cancelled.wait()
        assert client.close is None or client.close.code == 1002


# --- memory -----------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_stops_the_command() -> None:
    written = 0
    stalled = asyncio.Event()

    async def run(_: Sequence[str], io: ExecIO) -> int:
        nonlocal written
        assert io.stdout is not None
        for _chunk in range(100):
            writing = asyncio.ensure_future(io.stdout.write(bytes(MIB)))
            done, _pending = await asyncio.wait([writing], timeout=0.2)
            if not done:
                stalled.set()
            await writing
            written += MIB
        return 0

    async with exec_server(run) as server, websocket_to(server.port, PATH, OUTPUT) as client:
        client.reading.clear()
        async with asyncio.timeout(10):
            await stalled.wait()
        assert written < 32 * MIB
        client.reading.set()
        await client.status()
        assert len(client.received[STDOUT]) == 100 * MIB


async def test_a_command_that_does_not_read_stops_the_client() -> None:
    go_on = asyncio.Event()
    total = 0

    async def run(_: Sequence[str], io: ExecIO) -> int:
        nonlocal total
        assert io.stdin is not None
        await go_on.wait()
        async for data in io.stdin:
            assert len(data) <= 4 * MIB
            total += len(data)
        return 0

    async with exec_server(run) as server, websocket_to(server.port, PATH, INPUT_OUTPUT) as client:

        async def send_all() -> None:
            for _ in range(50):
                await client.send(STDIN, bytes(MIB))
            await client.close_stdin()

        sending = asyncio.create_task(send_all())
        await asyncio.wait([sending], timeout=0.5)
        assert not sending.done()
        go_on.set()
        await sending
        await client.status()
        assert total == 50 * MIB


async def test_a_flood_of_pings_from_a_client_that_does_not_read_is_held_back() -> None:
    async with exec_server(Waiting()) as server, websocket_to(server.port, PATH, OUTPUT) as client:
        client.reading.clear()
        client.connection.ping(bytes(125))
        pings = client.connection.data_to_send() * 10_000
        for _ in range(50):
            client.writer.write(pings)
            try:
                async with asyncio.timeout(0.2):
                    await client.writer.drain()
            except TimeoutError:
                return
        pytest.fail("the server took 60 MB of pings from a client that reads no answers")


# --- signs of life and ends -------------------------------------------------------------------------------


async def test_pings_are_answered() -> None:
    async with exec_server(Waiting()) as server, websocket_to(server.port, PATH, OUTPUT) as client:
        client.connection.ping(b"hello")
        await client.flush()
        await client.until(lambda: PongReceived(b"hello") in client.events)


async def test_the_server_pings_and_that_does_not_keep_an_idle_connection_open() -> None:
    clock, command = ManualClock(), Waiting()
    timeouts = StreamTimeouts(idle_s=100, keep_alive_s=30, linger_s=0.05)
    async with (
        exec_server(command, clock=clock, timeouts=timeouts) as server,
        websocket_to(server.port, PATH, OUTPUT) as client,
    ):
        await command.started.wait()
        for count in (1, 2, 3):
            await clock.advance(30)
            await client.until(lambda count=count: client.events.count(PingReceived()) == count)  # type: ignore[misc]
        await clock.advance(10)
        await client.until_closed()
        assert client.close == Closed(1001, "")
        assert command.cancelled.is_set()


async def test_a_client_whose_pings_wait_behind_its_input_hears_that_we_live() -> None:
    clock, command = ManualClock(), Waiting()
    async with (
        exec_server(command, clock=clock) as server,
        websocket_to(server.port, PATH, INPUT_OUTPUT) as client,
    ):
        await command.started.wait()
        client.connection.send_message(bytes(3 * MIB))
        client.writer.write(client.connection.data_to_send())
        async with asyncio.timeout(5):
            while PongReceived(b"") not in client.events:
                await clock.advance(30)
                await asyncio.sleep(0.01)


async def test_a_client_that_says_goodbye_ends_the_command() -> None:
    command = Waiting()
    async with exec_server(command) as server, websocket_to(server.port, PATH, OUTPUT) as client:
        await command.started.wait()
        client.connection.close()
        await client.flush()
        await client.until_closed()
        assert command.cancelled.is_set()
        assert client.close == Closed(1000, "")
        assert server.streams.open_connections == 0


async def test_a_client_that_vanishes_ends_the_command() -> None:
    command = Waiting()
    async with exec_server(command) as server, websocket_to(server.port, PATH, OUTPUT) as client:
        await command.started.wait()
        client.vanish()
        async with asyncio.timeout(5):
            await command.cancelled.wait()


async def test_a_shutdown_cancels_the_command_and_tells_the_client() -> None:
    command = Waiting()
    async with exec_server(command) as server, websocket_to(server.port, PATH, OUTPUT) as client:
        await command.started.wait()
        server.streams.shutdown()
        await client.until_closed()
        assert command.cancelled.is_set()
        assert client.close == Closed(1001, "")


async def test_the_server_closes_as_soon_as_the_goodbye_is_answered() -> None:
    timeouts = StreamTimeouts(linger_s=60)
    async with (
        exec_server(_succeed, timeouts=timeouts) as server,
        websocket_to(server.port, PATH, OUTPUT) as client,
    ):
        await client.until_closed()
        assert client.close == Closed(1000, "")


async def test_streams_work_over_tls(tmp_path: Path) -> None:
    server_tls, client_tls = tls_contexts(tmp_path)
    async with (
        exec_server(_echo, tls=server_tls) as server,
        websocket_to(server.port, PATH, INPUT_OUTPUT, tls=client_tls) as client,
    ):
        for number in range(8):
            await client.send(STDIN, bytes([number]) * MIB)
        await client.close_stdin()
        assert json.loads(await client.status()) == {"status": "Success"}
        assert client.received[STDOUT] == b"".join(bytes([number]) * MIB for number in range(8))
