"""Port-forward as clients meet it: three ways to carry connections, and how each of them ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from providers.memory.ports import EchoConnection
from tests.builders import make_pod
from tests.clocks import ManualClock
from tests.server.forward_client import (
    PATH,
    PROTOCOL,
    TUNNEL,
    ForwardClient,
    Way,
    forward_server,
    forwarding,
    spdy_headers,
)
from tests.server.spdy_client import request
from tests.server.websocket_client import handshake_headers, websocket_request, websocket_to
from vkubelet.errors import PodNotFoundError
from vkubelet.protocols import spdy
from vkubelet.provider import PortConnection
from vkubelet.server.served_connection import StreamTimeouts

MIB = 1 << 20
UID = make_pod().uid
V4 = "v4.channel.k8s.io"
V4_BASE64 = "v4.base64.channel.k8s.io"
both_ways = pytest.mark.parametrize("way", ["spdy", "tunnel"])

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A process in the pod, and its port; at the end its connections are cut."""
    writers: list[asyncio.StreamWriter] = []

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)

    server = await asyncio.start_server(noted, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def digest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers at the end of its input, with what it was."""
    seen = hashlib.sha256()
    while data := await reader.read(1 << 18):
        seen.update(data)
    writer.write(seen.hexdigest().encode())
    writer.close()


async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello")
    writer.close()


async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(1)


async def settled(condition: Callable[[], bool]) -> None:
    """Let the event loop run until `condition` holds."""
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to be")


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# --- before the upgrade -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status", "text"),
    [
        (PATH, [], 400, "unable to upgrade"),
        (PATH, spdy_headers("v4.channel.k8s.io"), 403, "client supports v4.channel.k8s.io, server accepts"),
        ("/portForward/default/other", spdy_headers(), 404, "pod does not exist"),
        (f"{PATH}/another-uid", spdy_headers(), 404, "pod does not exist"),
        (PATH, handshake_headers(V4), 400, 'query parameter "port" is required'),
        (f"{PATH}?port=0", handshake_headers(V4), 400, 'port "0" must be > 0'),
        (f"{PATH}?port=80", handshake_headers("v5.channel.k8s.io"), 403, "accepted: v4.channel.k8s.io"),
        (PATH, handshake_headers("SPDY/3.1+other.k8s.io"), 403, f"accepted: {TUNNEL}"),
    ],
    ids=[
        "no-upgrade",
        "another-protocol",
        "another-pod",
        "another-uid",
        "no-port",
        "no-good-port",
        "another-subprotocol",
        "another-tunnel",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_cannot_be_served_is_refused_before_the_upgrade(
    method: str, path: str, headers: list[tuple[str, str]], status: int, text: str
) -> None:
    async with forward_server() as server:
        target, _, query = path.partition("?")
        pairs = [tuple(pair.split("=")) for pair in query.split("&") if pair]
        answer, _, writer = await request(
            server.port, target, [(a, b) for a, b in pairs], method=method, headers=headers
        )
        writer.close()
        assert (answer.status, text in answer.body.decode()) == (status, True), answer
        assert server.forwarder.calls == []


async def test_the_answer_names_the_protocol_and_a_refusal_the_accepted_one() -> None:
    async with forward_server() as server:
        answer, _, writer = await request(server.port, PATH, headers=spdy_headers())
        writer.close()
        assert (answer.status, answer.all("X-Stream-Protocol-Version")) == (101, [PROTOCOL])
        answer, _, writer = await request(server.port, PATH, headers=spdy_headers("x"))
        writer.close()
        assert answer.all("X-Accepted-Stream-Protocol-Versions") == [PROTOCOL]
        answer, writer = await websocket_request(server.port, PATH, [], TUNNEL)
        writer.close()
        assert (answer.status, answer.all("Sec-WebSocket-Protocol")) == (101, [TUNNEL])


# --- SPDY, and SPDY in a tunnel ---------------------------------------------------------------------------


@both_ways
async def test_a_connection_carries_bytes_both_ways(way: Way) -> None:
    async with listening(echo) as port, forward_server() as server, forwarding(server.port, way) as client:
        forward = await client.open(port)
        await forward.send(b"ping")
        assert await forward.until_received(4) == b"ping"
        await forward.send(b" and pong", end=True)
        assert await forward.rest() == b"ping and pong"
        assert await forward.error() == ""
        (call,) = server.forwarder.calls
        assert (call[0].namespace, call[0].name, call[1]) == ("default", "web", port)


async def test_the_uid_may_be_in_the_path() -> None:
    async with (
        listening(greet) as port,
        forward_server() as server,
        forwarding(server.port, path=f"{PATH}/{UID}") as client,
    ):
        assert await (await client.open(port)).rest() == b"hello"


@both_ways
async def test_a_client_without_request_ids_is_served(way: Way) -> None:
    async with listening(greet) as port, forward_server() as server, forwarding(server.port, way) as client:
        for _ in range(3):
            forward = await client.open(port, request_id=False)
            assert await forward.rest() == b"hello"


@both_ways
async def test_many_connections_go_side_by_side(way: Way) -> None:
    async def one(client: ForwardClient, port: int, number: int) -> bool:
        forward = await client.open(port)
        sent = os.urandom(20_000 + number)
        await forward.send(sent, end=True)
        return await forward.rest() == sent

    async with listening(echo) as port, forward_server() as server, forwarding(server.port, way) as client:
        assert all(await asyncio.gather(*(one(client, port, number) for number in range(100))))


@both_ways
async def test_a_port_that_refuses_is_told_on_its_own_error_stream_alone(way: Way) -> None:
    refused = unused_port()
    async with listening(echo) as port, forward_server() as server, forwarding(server.port, way) as client:
        good, bad = await client.open(port), await client.open(refused)
        assert await bad.error() == (
            f"error forwarding port {refused} to pod web, uid {UID}: "
            f"failed to connect to localhost:{refused}: connection refused"
        )
        assert await bad.rest() == b""
        assert bad.is_reset
        await good.send(b"still here", end=True)
        assert await good.rest() == b"still here"
        assert await good.error() == ""


async def test_a_pod_that_has_gone_is_told_and_an_unforeseen_error_costs_one_connection() -> None:
    errors: dict[int, Exception] = {1: PodNotFoundError('pod "web" not found'), 2: KeyError("a bug")}

    async def connect(port: int) -> PortConnection:
        if port in errors:
            raise errors[port]
        return EchoConnection()

    async with forward_server(connect) as server, forwarding(server.port) as client:
        gone, bug, good = [await client.open(port) for port in (1, 2, 3)]
        assert (await gone.error()).endswith('pod "web" not found')
        assert (await bug.error()).endswith("internal error: the log of vkubelet has the details")
        await good.send(b"x", end=True)
        assert await good.rest() == b"x"


@pytest.mark.parametrize("port", ["0", "65536", "http", ""])
async def test_a_stream_for_no_port_is_refused(port: str) -> None:
    async with forward_server() as server, forwarding(server.port) as client:
        forward = await client.open(port or "x")
        await client.until(lambda: forward.is_reset and forward.is_error_over)
        assert client.has(spdy.StreamReset(forward.data_id, spdy.ResetStatus.REFUSED_STREAM))
        assert server.forwarder.calls == []


async def test_the_pod_may_answer_after_the_clients_half_has_ended() -> None:
    async with listening(digest) as port, forward_server() as server, forwarding(server.port) as client:
        forward = await client.open(port)
        await forward.send(b"question", end=True)
        assert await forward.rest() == hashlib.sha256(b"question").hexdigest().encode()


async def test_the_client_may_go_on_after_the_pods_half_has_ended() -> None:
    heard = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"go on")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    async with listening(serve) as port, forward_server() as server, forwarding(server.port) as client:
        forward = await client.open(port)
        assert await forward.rest() == b"go on"
        assert await forward.error() == ""  # which older clients wait for before they close
        assert not forward.is_reset
        await forward.send(b"one ")
        await forward.send(b"two", end=True)
        assert await heard == b"one two"


async def test_what_the_pod_resets_is_reset_and_nothing_is_told() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with listening(serve) as port, forward_server() as server, forwarding(server.port) as client:
        forward = await client.open(port)
        await forward.send(b"x")
        assert await forward.rest() == b""
        assert forward.is_reset
        assert await forward.error() == ""


async def test_a_pod_that_listens_no_more_may_still_talk() -> None:
    talk = asyncio.Event()

    class Half(EchoConnection):
        async def write(self, data: bytes) -> None:
            raise BrokenPipeError("closed for reading")

        async def read(self, limit: int) -> bytes:
            if talk.is_set():
                return b""
            await talk.wait()
            return b"the answer"

    async def connect(_: int) -> PortConnection:
        return Half()

    async with forward_server(connect) as server, forwarding(server.port) as client:
        forward = await client.open(80)
        for _ in range(8):
            await forward.send(bytes(MIB))
        talk.set()
        assert await forward.rest() == b"the answer"


@both_ways
async def test_a_stream_that_the_client_resets_ends_the_connection_to_the_pod(way: Way) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"!")
        await reader.read()
        ended.set()
        writer.close()

    async with listening(serve) as port, forward_server() as server, forwarding(server.port, way) as client:
        forward = await client.open(port)
        assert await forward.until_received(1) == b"!"
        await forward.reset()
        async with asyncio.timeout(5):
            await ended.wait()
        assert await forward.error() == ""


async def test_a_stream_that_is_opened_and_reset_in_one_breath_does_no_harm() -> None:
    async with listening(greet) as port, forward_server() as server, forwarding(server.port) as client:
        headers = {"port": str(port), "streamType": "data", "requestID": "a"}
        client.connection.reset(client.connection.open_stream(headers))
        forward = await client.open(port)
        assert await forward.rest() == b"hello"


async def test_a_reset_ends_a_connection_of_which_the_pod_has_ended_its_half_and_takes_nothing() -> None:
    closed = asyncio.Event()

    class Ended(Stuck):
        async def read(self, limit: int) -> bytes:
            return b""

        def close(self) -> None:
            closed.set()

    async def connect(_: int) -> PortConnection:
        return Ended()

    async with forward_server(connect) as server, forwarding(server.port) as client:
        forward = await client.open(80)
        await forward.send(b"nobody takes this")
        assert await forward.rest() == b""
        await forward.reset()
        async with asyncio.timeout(5):
            await closed.wait()


async def test_a_reset_while_connecting_gives_up() -> None:
    connecting, cancelled = asyncio.Event(), asyncio.Event()

    async def connect(_: int) -> PortConnection:
        connecting.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    async with forward_server(connect) as server, forwarding(server.port) as client:
        forward = await client.open(80)
        await connecting.wait()
        await forward.reset()
        async with asyncio.timeout(5):
            await cancelled.wait()


@both_ways
async def test_a_client_that_vanishes_ends_every_connection(way: Way) -> None:
    opened, ended = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.release()
        await reader.read()
        ended.release()
        writer.close()

    async with listening(serve) as port, forward_server() as server:
        async with forwarding(server.port, way) as client, asyncio.timeout(5):
            for _ in range(5):
                await client.open(port)
            for _ in range(5):
                await opened.acquire()
        async with asyncio.timeout(5):
            for _ in range(5):
                await ended.acquire()
            await settled(lambda: not server.forwards.open_connections)


# --- time -------------------------------------------------------------------------------------------------


async def test_half_a_pair_is_given_up_after_30_s() -> None:
    clock = ManualClock()
    async with forward_server(clock=clock) as server, forwarding(server.port) as client:
        lonely_error = client.connection.open_stream(
            {"port": "80", "streamType": "error", "requestID": "a"}, end_stream=True
        )
        lonely_data = client.connection.open_stream({"port": "80", "streamType": "data", "requestID": "b"})
        told = client.streams[lonely_error] = await client.open(unused_port())
        told_error = await told.error()  # both streams before it have been seen
        assert "connection refused" in told_error
        await clock.advance(29.9)
        assert not client.has(spdy.StreamEnded(lonely_error))
        await clock.advance(0.2)
        await client.until(lambda: client.has(spdy.StreamEnded(lonely_error)))
        await client.until(lambda: client.has(spdy.StreamReset(lonely_data, spdy.ResetStatus.CANCEL)))
        assert "timed out waiting for the data stream" in told.received.decode() + told.told.decode()


async def test_nothing_moving_for_4_h_ends_the_connection() -> None:
    clock = ManualClock()
    async with (
        listening(silent) as port,
        forward_server(clock=clock) as server,
        forwarding(server.port) as client,
    ):
        forward = await client.open(port)
        await client.until(lambda: client.has(spdy.StreamReplied(forward.data_id, {})))
        await clock.advance(4 * 3600 - 1)
        assert not client.closed
        await clock.advance(2)
        await client.until_closed()


# --- shutdown ---------------------------------------------------------------------------------------------


@both_ways
async def test_drained_a_client_with_nothing_open_is_let_go_and_others_keep_what_they_have(way: Way) -> None:
    async with (
        listening(echo) as port,
        forward_server() as server,
        forwarding(server.port, way) as idle,
        forwarding(server.port, way) as busy,
    ):
        forward = await busy.open(port)
        await forward.send(b"x")
        await forward.until_received(1)
        server.forwards.drain()
        await idle.until_closed()
        assert any(isinstance(event, spdy.GoAwayReceived) for event in idle.events)
        await forward.send(b"y", end=True)
        assert await forward.rest() == b"xy"
        await busy.until_closed()


@both_ways
async def test_shutdown_ends_what_is_open(way: Way) -> None:
    async with listening(silent) as port, forward_server() as server, forwarding(server.port, way) as client:
        forward = await client.open(port)
        await client.until(lambda: client.has(spdy.StreamReplied(forward.data_id, {})))
        server.forwards.shutdown()
        await client.until_closed()
        assert any(isinstance(event, spdy.GoAwayReceived) for event in client.events)
        assert (client.goodbye is not None) == (way == "tunnel")


# --- memory -----------------------------------------------------------------------------------------------


class Stuck:
    """A pod whose process takes nothing and gives without end; counts both."""

    def __init__(self) -> None:
        self.given = 0
        self.taken = 0
        self.go_on = asyncio.Event()

    async def read(self, limit: int) -> bytes:
        await asyncio.sleep(0)
        self.given += limit
        return bytes(limit)

    async def write(self, data: bytes) -> None:
        await self.go_on.wait()
        self.taken += len(data)

    async def write_eof(self) -> None:
        pass

    def close(self) -> None:
        pass


async def _until_still(count: Callable[[], int]) -> int:
    """Wait until a number has stopped growing."""
    last = -1
    while (now := count()) != last:
        last = now
        await asyncio.sleep(0.2)
    return last


async def test_a_client_that_does_not_read_stops_all_pods_within_4_mib() -> None:
    pods: list[Stuck] = []

    async def connect(_: int) -> PortConnection:
        pods.append(Stuck())
        return pods[-1]

    async with forward_server(connect) as server, forwarding(server.port) as client:
        client.reading.clear()
        for _ in range(50):
            await client.open(80)
        given = await _until_still(lambda: sum(pod.given for pod in pods))
        assert len(pods) == 50
        # Ours are less than 4 MiB; the kernel's buffers and the test's reader hold the rest.
        assert given < 32 * MIB


async def test_pods_that_take_nothing_stop_the_client_however_many_they_are() -> None:
    pods: list[Stuck] = []

    async def connect(_: int) -> PortConnection:
        pods.append(Stuck())
        return pods[-1]

    sent = 0

    async def send(client: ForwardClient) -> None:
        nonlocal sent
        forwards = [await client.open(80) for _ in range(20)]
        for forward in forwards * 5:
            await forward.send(bytes(MIB))
            sent += MIB

    async with forward_server(connect) as server, forwarding(server.port) as client:
        sending = asyncio.create_task(send(client))
        await _until_still(lambda: sent)
        assert sent < 24 * MIB  # with the kernel's buffers
        for pod in pods:
            pod.go_on.set()
        await sending
        await client.until(lambda: sum(pod.taken for pod in pods) == 100 * MIB)


async def test_50_mb_go_through_and_come_back_unchanged() -> None:
    payload = os.urandom(MIB) * 50
    async with listening(echo) as port, forward_server() as server, forwarding(server.port) as client:
        forward = await client.open(port)
        for start in range(0, len(payload), 32 * 1024):
            await forward.send(payload[start : start + 32 * 1024])
        await forward.send(b"", end=True)
        assert hashlib.sha256(await forward.rest()).digest() == hashlib.sha256(payload).digest()


# --- channels of a WebSocket ------------------------------------------------------------------------------


@pytest.mark.parametrize("subprotocol", [V4, V4_BASE64, ""])
async def test_each_port_has_two_channels_that_begin_with_its_number(subprotocol: str) -> None:
    async with listening(greet) as first, listening(digest) as second, forward_server() as server:
        query = [("port", f"{first},{second}")]
        async with websocket_to(server.port, PATH, query, subprotocol=subprotocol) as client:
            await client.until(lambda: len(client.received[0]) >= 7)
            assert bytes(client.received[0]) == first.to_bytes(2, "little") + b"hello"
            await client.until(lambda: len(client.received[3]) >= 2)
            assert bytes(client.received[1]) == first.to_bytes(2, "little")
            assert bytes(client.received[2]) == second.to_bytes(2, "little")
            assert bytes(client.received[3]) == second.to_bytes(2, "little")


@pytest.mark.parametrize("subprotocol", [V4, V4_BASE64])
async def test_channels_carry_bytes_both_ways_until_the_pods_have_ended(subprotocol: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(8))
        writer.close()

    async with listening(serve) as first, listening(serve) as second, forward_server() as server:
        query = [("port", str(first)), ("port", str(second))]
        async with websocket_to(server.port, PATH, query, subprotocol=subprotocol) as client:
            await client.send(0, b"question")
            await client.until(lambda: client.received[0].endswith(b"question"))
            await client.until(lambda: len(client.received[2]) == 2)
            await client.send(2, b"another!")
            await client.until(lambda: client.close is not None)
            assert client.received[2].endswith(b"another!")
            assert client.close is not None
            assert client.close.code == 1000


async def test_a_refused_port_is_told_on_its_error_channel_and_the_others_go_on() -> None:
    async with listening(echo) as port, forward_server() as server:
        refused = unused_port()
        query = [("port", f"{refused},{port}")]
        async with websocket_to(server.port, PATH, query, subprotocol=V4) as client:
            await client.until(lambda: client.received[1].endswith(b"connection refused"))
            await client.send(2, b"still here")
            await client.until(lambda: client.received[2].endswith(b"still here"))


async def test_a_websocket_client_that_says_goodbye_ends_its_connections() -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"!")
        await reader.read()
        ended.set()
        writer.close()

    async with (
        listening(serve) as port,
        forward_server() as server,
        websocket_to(server.port, PATH, [("port", str(port))], subprotocol=V4) as client,
    ):
        await client.until(lambda: client.received[0].endswith(b"!"))
        client.connection.close()
        await client.flush()
        async with asyncio.timeout(5):
            await ended.wait()
        await client.until_closed()


# --- rules that a client breaks ---------------------------------------------------------------------------


async def test_text_in_a_tunnel_ends_the_connection() -> None:
    async with forward_server() as server, forwarding(server.port, "tunnel") as client:
        assert client.websocket is not None
        client.websocket.send_message(b"text", is_text=True)
        client.writer.write(client.websocket.data_to_send())
        await client.until_closed()


async def test_streams_beyond_the_limit_are_refused_one_by_one() -> None:
    async def connect(_: int) -> PortConnection:
        return EchoConnection()

    async with forward_server(connect) as server, forwarding(server.port) as client:
        opened = [await client.open(80) for _ in range(1100)]
        await client.until(lambda: opened[-1].is_reset)
        assert client.has(spdy.StreamReset(opened[-1].data_id, spdy.ResetStatus.REFUSED_STREAM))
        await opened[0].send(b"x", end=True)
        assert await opened[0].rest() == b"x"


async def test_a_stream_twice_in_a_request_is_refused_and_the_first_goes_on() -> None:
    async with listening(greet) as port, forward_server() as server, forwarding(server.port) as client:
        headers = {"port": str(port), "streamType": "error", "requestID": "a"}
        client.connection.open_stream(headers, end_stream=True)
        second = client.connection.open_stream(headers, end_stream=True)
        await client.flush()
        await client.until(lambda: client.has(spdy.StreamReset(second, spdy.ResetStatus.REFUSED_STREAM)))
        forward = await client.open(port)
        assert await forward.rest() == b"hello"


def test_time_limits_are_the_kubelets() -> None:
    timeouts = StreamTimeouts()
    assert (timeouts.idle_s, timeouts.creation_s) == (4 * 3600, 30)


@pytest.mark.parametrize("path", [PATH, f"{PATH}/{UID}"])
async def test_a_provider_that_cannot_reach_ports_is_said(path: str) -> None:
    async with forward_server(None) as server:
        answer, _, writer = await request(server.port, path, headers=spdy_headers())
        writer.close()
        assert (answer.status, answer.body.decode()) == (
            501,
            "this node's provider cannot forward ports of pods",
        )
