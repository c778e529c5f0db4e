"""What one connection may cost, how it ends, and what a peer that breaks the rules gets."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.builders import START
from tests.clocks import ManualClock, settle
from tests.server.exec_server import exec_server
from tests.server.spdy_client import request, upgraded
from vkubelet.protocols import spdy
from vkubelet.protocols.spdy import frames
from vkubelet.provider import ExecIO
from vkubelet.server.self_signed import self_signed
from vkubelet.server.served_connection import StreamTimeouts

PATH = "/exec/default/web/main"
OUTPUT = [("command", "cmd"), ("output", "1")]
INPUT = [("command", "cmd"), ("input", "1")]
MIB = 1 << 20
LIMIT = 4 * MIB


class Waiting:
    """A command that waits until it is cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, _: Sequence[str], __: ExecIO) -> int:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        return 0


# --- memory -----------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_read_stops_the_command_within_4_mib() -> None:
    written = 0
    stalled = asyncio.Event()

    async def run(_: Sequence[str], io: ExecIO) -> int:
        nonlocal written
        assert io.stdout is not None
        for _chunk in range(200):
            writing = asyncio.ensure_future(io.stdout.write(bytes(MIB)))
            done, _pending = await asyncio.wait([writing], timeout=0.2)
            if not done:
                stalled.set()
            await writing
            written += MIB
        return 0

    async with exec_server(run) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        client.reading.clear()
        async with asyncio.timeout(10):
            await stalled.wait()
        # Beyond our 4 MiB there are the kernel's buffers of both ends and those of the test's reader.
        assert written < 32 * MIB
        client.reading.set()
        await client.status()
        assert len(client.received["stdout"]) == 200 * MIB


async def test_a_command_that_does_not_read_stops_the_client() -> None:
    go_on = asyncio.Event()
    total = 0

    async def run(_: Sequence[str], io: ExecIO) -> int:
        nonlocal total
        assert io.stdin is not None
        await go_on.wait()
        async for data in io.stdin:
            assert len(data) <= LIMIT
            total += len(data)
        return 0

    async with exec_server(run) as server, upgraded(server.port, PATH, INPUT) as client:
        await client.open("error", "stdin")

        async def send_all() -> None:
            for _ in range(100):
                await client.send("stdin", bytes(MIB))
            await client.send("stdin", b"", end=True)

        sending = asyncio.create_task(send_all())
        await asyncio.wait([sending], timeout=0.5)
        assert not sending.done()
        go_on.set()
        await sending
        await client.status()
        assert total == 100 * MIB


async def test_a_flood_of_pings_from_a_client_that_does_not_read_is_held_back() -> None:
    command = Waiting()
    async with exec_server(command) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        client.reading.clear()
        pings = frames.serialize(frames.Ping(1)) * 100_000
        for _ in range(50):
            client.writer.write(pings)
            try:
                async with asyncio.timeout(0.2):
                    await client.writer.drain()
            except TimeoutError:
                return
        pytest.fail("the server took 60 MB of pings from a client that reads no answers")


async def test_input_that_nobody_asked_for_is_thrown_away() -> None:
    command = Waiting()
    async with exec_server(command) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout", "stdin")
        for _ in range(20):
            await client.send("stdin", bytes(MIB))
            await client.send("stdout", bytes(MIB))
        await client.send("stdin", b"", end=True)
        client.connection.ping()
        await client.flush()
        await client.until(lambda: client.has(spdy.PingAcknowledged(1)))


# --- ends -------------------------------------------------------------------------------------------------


async def test_a_shutdown_cancels_the_commands_and_tells_the_clients() -> None:
    command = Waiting()
    async with exec_server(command) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        await command.started.wait()
        assert server.streams.open_connections == 1
        server.streams.shutdown()
        await client.until_closed()
        assert command.cancelled.is_set()
        assert client.has(spdy.GoAwayReceived(3, spdy.GoAwayStatus.OK))
        assert server.streams.open_connections == 0


async def test_a_connection_on_which_nothing_moves_is_closed_after_4_hours() -> None:
    clock, command = ManualClock(), Waiting()
    async with exec_server(command, clock=clock) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        await command.started.wait()
        await clock.advance(4 * 3600 - 1)
        client.connection.ping()
        await client.flush()
        await client.until(lambda: client.has(spdy.PingAcknowledged(1)))
        await clock.advance(4 * 3600 - 1)
        assert not command.cancelled.is_set()
        await clock.advance(1)
        await client.until_closed()
        assert command.cancelled.is_set()


async def test_a_client_that_does_not_open_its_streams_is_told_so() -> None:
    timeouts = StreamTimeouts(creation_s=0.05, linger_s=0.05)
    command = Waiting()
    async with (
        exec_server(command, timeouts=timeouts) as server,
        upgraded(server.port, PATH, OUTPUT) as client,
    ):
        await client.open("error")
        assert b"timed out waiting for client to create streams" in await client.status()
        assert not command.started.is_set()


async def test_a_client_that_opens_nothing_at_all_is_closed() -> None:
    timeouts = StreamTimeouts(creation_s=0.05, linger_s=0.05)
    async with (
        exec_server(Waiting(), timeouts=timeouts) as server,
        upgraded(server.port, PATH, OUTPUT) as client,
    ):
        await client.until_closed()


async def test_the_command_starts_when_the_last_stream_is_there() -> None:
    command = Waiting()
    async with exec_server(command) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("stdout")
        await settle()
        assert not command.started.is_set()
        await client.open("error")
        async with asyncio.timeout(5):
            await command.started.wait()


async def test_a_stream_of_unknown_type_or_given_twice_is_refused() -> None:
    async def run(_: Sequence[str], __: ExecIO) -> int:
        return 0

    async with exec_server(run) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("stdout", "nonsense")
        first = client.streams["stdout"]
        await client.open("stdout")
        for name in ("nonsense", "stdout"):
            assert client.has(spdy.StreamReset(client.streams[name], spdy.ResetStatus.REFUSED_STREAM))
        client.streams["stdout"] = first
        await client.open("error")
        assert json.loads(await client.status()) == {"status": "Success"}


async def test_output_for_a_stream_that_the_client_reset_is_dropped() -> None:
    was_reset = asyncio.Event()

    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdout is not None
        await was_reset.wait()
        await io.stdout.write(bytes(MIB))
        return 5

    async with exec_server(run) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        client.connection.reset(client.streams["stdout"])
        client.connection.ping()
        await client.flush()
        await client.until(lambda: client.has(spdy.PingAcknowledged(1)))
        was_reset.set()
        assert json.loads(await client.status())["reason"] == "NonZeroExitCode"


async def test_a_client_that_breaks_the_protocol_loses_the_connection_and_the_command() -> None:
    command = Waiting()
    async with exec_server(command) as server, upgraded(server.port, PATH, OUTPUT) as client:
        await client.open("error", "stdout")
        await command.started.wait()
        client.writer.write(b"\x80\x02" + bytes(100))
        await client.until_closed()
        async with asyncio.timeout(5):
            await command.cancelled.wait()


async def test_a_peer_that_keeps_windows_is_not_overrun() -> None:
    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdout is not None
        assert io.stdin is not None
        await io.stdout.write(b"x")
        await anext(io.stdin)
        await io.stdout.write(bytes(MIB))
        return 0

    query = [("command", "cmd"), ("input", "1"), ("output", "1")]
    async with exec_server(run) as server, upgraded(server.port, PATH, query) as client:
        await client.open("error", "stdin", "stdout")
        await client.until(lambda: len(client.received["stdout"]) == 1)
        stdout = client.streams["stdout"]
        client.writer.write(frames.serialize(frames.WindowUpdate(stdout, 1)))
        client.writer.write(frames.serialize(frames.WindowUpdate(0, 2 * MIB)))
        await client.send("stdin", b"go")
        await client.until(lambda: len(client.received["stdout"]) == 1 + 64 * 1024)
        client.connection.ping()
        await client.flush()
        await client.until(lambda: client.has(spdy.PingAcknowledged(1)))
        assert len(client.received["stdout"]) == 1 + 64 * 1024
        client.writer.write(frames.serialize(frames.WindowUpdate(stdout, MIB)))
        await client.status()
        assert len(client.received["stdout"]) == 1 + MIB


# --- TLS --------------------------------------------------------------------------------------------------


async def test_streams_work_over_tls(tmp_path: Path) -> None:
    server_tls, client_tls = tls_contexts(tmp_path)

    async def run(_: Sequence[str], io: ExecIO) -> int:
        assert io.stdin is not None
        assert io.stdout is not None
        async for data in io.stdin:
            await io.stdout.write(data)
        return 9

    query = [("command", "cat"), ("input", "1"), ("output", "1")]
    async with (
        exec_server(run, tls=server_tls) as server,
        upgraded(server.port, PATH, query, tls=client_tls) as client,
    ):
        await client.open("error", "stdin", "stdout")
        for number in range(16):
            await client.send("stdin", bytes([number]) * MIB)
        await client.send("stdin", b"", end=True)
        assert b'"message":"9"' in await client.status()
        assert client.received["stdout"] == b"".join(bytes([number]) * MIB for number in range(16))


async def test_a_request_after_a_refused_one_uses_the_same_connection() -> None:
    async with exec_server(Waiting()) as server:
        answer, reader, writer = await request(server.port, PATH, [("command", "x")])
        assert answer.status == 400
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: node\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 404")
        writer.close()


def tls_contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's context over a certificate made for this test."""
    certificate, key = directory / "tls.crt", directory / "tls.key"
    for path, content in zip((certificate, key), self_signed(["node"], ["127.0.0.1"], START), strict=True):
        path.write_bytes(content)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    client.check_hostname = False
    return server, client
