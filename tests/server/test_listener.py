from __future__ import annotations

import asyncio
import socket
import ssl

import pytest

from tests.server.kubelet import Files, Kubelet, serving
from vkubelet.errors import ConfigurationError
from vkubelet.server import listener
from vkubelet.server.app import Limits
from vkubelet.server.listener import bind


async def connect(kubelet: Kubelet) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = kubelet.anonymous_client
    return await asyncio.open_connection("127.0.0.1", kubelet.server.port, ssl=context)


async def connect_when_there_is_room(
    kubelet: Kubelet,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    while True:
        try:
            return await connect(kubelet)
        except (ConnectionError, ssl.SSLError):
            await asyncio.sleep(0.01)


async def is_closed(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


# --- the port ---------------------------------------------------------------------------------------------


def test_a_taken_port_is_a_configuration_error_that_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"--port {port} is taken"):
            bind("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"--address 192\.0\.2\.1"):
        bind("192.0.2.1", 0)


async def test_a_port_that_somebody_else_listens_on_meanwhile_is_told_when_it_is_needed(files: Files) -> None:
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with bind("127.0.0.1", port) as second:
            second.listen()
            with pytest.raises(ConfigurationError, match=f"--port {port} is taken"):
                async with serving(files, listener=first):
                    pass


def test_before_it_listens_clients_are_refused() -> None:
    with bind("127.0.0.1", 0) as bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname(), timeout=5)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
@pytest.mark.parametrize(("address", "answers"), [("::", True), ("::1", False)], ids=["every", "one"])
def test_every_ipv6_address_is_every_ipv4_address_too(address: str, answers: bool) -> None:
    with bind(address, 0) as bound:
        bound.listen()
        port = bound.getsockname()[1]
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except ConnectionRefusedError:
            assert not answers
        else:
            assert answers


# --- connections ------------------------------------------------------------------------------------------


async def test_above_the_limit_connections_are_closed_and_below_it_taken_again(files: Files) -> None:
    async with serving(files, limits=Limits(max_connections=2)) as kubelet, asyncio.timeout(5):
        connections = [await connect_when_there_is_room(kubelet) for _ in range(2)]
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await connect(kubelet)
        connections[0][1].close()
        await connections[0][1].wait_closed()
        connections[0] = await connect_when_there_is_room(kubelet)
        for _, writer in connections:
            writer.close()
            await writer.wait_closed()


async def test_who_does_not_shake_hands_is_cut_off(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "_HANDSHAKE_S", 0.05)
    async with serving(files) as kubelet, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.server.port)
        assert await is_closed(reader)
        writer.close()
        assert await kubelet.get("/healthz") == (200, "ok")


async def test_who_speaks_no_tls_is_cut_off(files: Files) -> None:
    async with serving(files) as kubelet, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.server.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        while not await is_closed(reader):
            pass
        writer.close()
        assert await kubelet.get("/healthz") == (200, "ok")


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTT"], ids=["nothing", "half a head"])
async def test_whose_first_request_does_not_come_is_cut_off(
    sent: bytes, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_FIRST_HEAD_S", 0.1)
    async with serving(files) as kubelet, asyncio.timeout(5):
        reader, writer = await connect(kubelet)
        writer.write(sent)
        assert await is_closed(reader)
        writer.close()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_who_has_asked_once_may_be_silent_for_longer(
    loop: str, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_FIRST_HEAD_S", 0.1)
    problems: list[dict[str, object]] = []
    with asyncio.Runner(loop_factory=pytest.importorskip(loop).new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: problems.append(context))
        runner.run(_ask_twice(files))
    assert problems == []


async def _ask_twice(files: Files) -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin-token\r\n\r\n"
    async with serving(files) as kubelet, asyncio.timeout(5):
        reader, writer = await connect(kubelet)
        for _ in range(2):
            writer.write(request)
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
            await reader.readuntil(b"\r\n\r\nok")
            await asyncio.sleep(0.2)
        writer.close()


def test_uvloop_keeps_the_same_times(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    uvloop = pytest.importorskip("uvloop")
    monkeypatch.setattr(listener, "_FIRST_HEAD_S", 0.1)
    complaints: list[object] = []

    async def say_nothing() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        async with serving(files) as kubelet, asyncio.timeout(5):
            assert await kubelet.get("/healthz") == (200, "ok")
            reader, writer = await connect(kubelet)
            assert await is_closed(reader)
            writer.close()
            await asyncio.sleep(0.2)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(say_nothing())
    assert complaints == []


async def test_a_handshake_under_way_does_not_hold_up_the_end(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "_LAST_HANDSHAKES_S", 0.01)
    async with asyncio.timeout(5):
        async with serving(files) as kubelet:
            reader, writer = await asyncio.open_connection("127.0.0.1", kubelet.server.port)
            await asyncio.sleep(0)
        assert await is_closed(reader)
        writer.close()


# --- requests ---------------------------------------------------------------------------------------------


async def test_more_requests_than_allowed_are_answered_429_with_a_delay(files: Files) -> None:
    limits = Limits(request_qps=1, request_burst=3)
    async with serving(files, limits=limits) as kubelet, kubelet.session() as session:
        answers = []
        for _ in range(5):
            async with session.get("/healthz") as response:
                answers.append((response.status, response.headers.get("Retry-After")))
    assert answers == [(200, None)] * 3 + [(429, "1")] * 2


async def test_a_flood_asks_the_api_server_about_no_tokens(files: Files) -> None:
    async with serving(files, limits=Limits(request_qps=1, request_burst=1)) as kubelet:
        assert (await kubelet.get("/healthz", "first"))[0] == 401
        assert (await kubelet.get("/healthz", "second"))[0] == 429
        assert kubelet.api.reviewed_tokens == ["first"]


async def test_without_a_limit_there_is_none(files: Files) -> None:
    limits = Limits(request_qps=0, request_burst=1)
    async with serving(files, limits=limits) as kubelet, kubelet.session() as session:
        for _ in range(5):
            async with session.get("/healthz") as response:
                assert response.status == 200
