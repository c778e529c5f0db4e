"""How the ports of a pod are reached, and what is said when they are not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from providers.docker.namespaces import NetworkNamespace
from providers.docker.ports import PodNetwork, connect_port, network_of
from providers.docker.runtime import DockerRuntime
from providers.docker.settings import Endpoint
from tests.docker.builders import sandbox
from tests.docker.fake_engine import FakeEngine
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.kuberuntime import tcp

LOCAL = Endpoint("unix:///docker.sock", unix_path="/docker.sock")
REMOTE = Endpoint("tcp://10.0.0.7:2376", host="10.0.0.7", port=2376)
NOWHERE = NetworkNamespace("c" * 64)
ID = "a" * 64
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="entering a network namespace takes root")


def inspected(mode: str = "bridge", **state: object) -> dict[str, Any]:
    return {
        "Id": ID,
        "State": {"Running": True, "Pid": 77, **state},
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {
            "SandboxKey": "/var/run/docker/netns/abc",
            "Networks": {"bridge": {"IPAddress": "172.17.0.2", "GlobalIPv6Address": ""}},
        },
    }


@asynccontextmanager
async def echo_server(host: str = "127.0.0.1") -> AsyncIterator[int]:
    """A server that sends back what it gets, and its port."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


# --- where they are ---------------------------------------------------------------------------------------


def test_a_pods_ports_are_in_its_own_network_and_at_its_address() -> None:
    namespace = NetworkNamespace(ID, "/var/run/docker/netns/abc", 77)
    assert network_of(inspected(), LOCAL) == PodNetwork(namespace, ("172.17.0.2",))


def test_a_pod_on_the_hosts_network_shares_the_hosts_ports() -> None:
    assert network_of(inspected("host"), LOCAL) == PodNetwork(None, ("127.0.0.1", "::1"))
    assert network_of(inspected("host"), REMOTE) == PodNetwork(None, ("10.0.0.7",))


def test_of_an_engine_elsewhere_there_is_only_the_pods_address() -> None:
    network = network_of(inspected(), REMOTE)
    assert network == PodNetwork(None, ("172.17.0.2",), "the engine is on another machine")


def test_a_sandbox_that_does_not_run_has_no_ports() -> None:
    with pytest.raises(StreamError, match="the pod's sandbox is not running"):
        network_of(inspected(Running=False), LOCAL)


# --- connections ------------------------------------------------------------------------------------------


async def test_both_directions_end_by_themselves() -> None:
    async with echo_server() as port:
        connection = await connect_port(PodNetwork(None, ("127.0.0.1",)), port)
        await connection.write(b"hello")
        assert await connection.read(3) == b"hel"
        assert await connection.read(100) == b"lo"
        await connection.write_eof()
        assert await connection.read(100) == b"bye"
        assert await connection.read(100) == b""
        connection.close()
        connection.close()


async def test_the_next_address_is_tried_when_one_refuses() -> None:
    async with echo_server("127.0.0.1") as port:
        connection = await connect_port(PodNetwork(None, ("127.0.0.99", "127.0.0.1")), port)
        connection.close()


async def test_a_refused_port_is_told_by_address() -> None:
    port = unused_port()
    with pytest.raises(StreamError) as caught:
        await connect_port(PodNetwork(None, ("127.0.0.1",)), port)
    assert str(caught.value) == f"failed to connect to 127.0.0.1:{port}: connection refused"


async def test_a_network_that_cannot_be_entered_leaves_the_address_and_is_told_if_that_fails_too() -> None:
    async with echo_server() as port:
        connection = await connect_port(PodNetwork(NOWHERE, ("127.0.0.1",)), port)
        connection.close()
    port = unused_port()
    with pytest.raises(StreamError) as caught:
        await connect_port(PodNetwork(NOWHERE, ("127.0.0.1",)), port)
    assert str(caught.value) == (
        f"failed to connect to 127.0.0.1:{port}: connection refused (the pod's network cannot be entered: "
        "no such file or directory; so a port that listens on 127.0.0.1 alone cannot be reached)"
    )


async def test_a_pod_without_an_address_is_told_so() -> None:
    with pytest.raises(StreamError, match="failed to connect to port 80: the pod has no address"):
        await connect_port(PodNetwork(None, ()), 80)


async def test_who_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        held = [socket.socket() for _ in range(4)]
        for sock in held:  # a full backlog answers nobody
            sock.setblocking(False)
            sock.connect_ex(address)
        with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
            await tcp.connect(socket.socket(), *address, timeout_s=0.05)
        for sock in held:
            sock.close()


# --- network namespaces -----------------------------------------------------------------------------------


@needs_root
async def test_a_port_on_localhost_is_reached_from_within_the_namespace() -> None:
    own = NetworkNamespace(ID, "/proc/self/ns/net")
    async with echo_server() as port:
        connection = await connect_port(PodNetwork(own, ()), port)
        connection.close()
    with pytest.raises(StreamError) as caught:
        await connect_port(PodNetwork(own, ()), port)
    assert str(caught.value).startswith(
        f"failed to connect to localhost:{port} inside the pod's network, IPv4: connection refused, IPv6: "
    )


@needs_root
async def test_ipv6_is_tried_after_ipv4() -> None:
    own = NetworkNamespace(ID, "/proc/self/ns/net")
    try:
        probe = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with probe:
        connection = await connect_port(PodNetwork(own, ()), probe.getsockname()[1])
        connection.close()


async def test_a_process_that_is_not_the_containers_is_not_taken_for_it() -> None:
    with pytest.raises(FileNotFoundError):
        await NetworkNamespace(ID, pid=os.getpid()).tcp_socket(socket.AF_INET)


async def test_what_is_left_of_a_namespace_that_has_gone_is_not_entered(tmp_path: Path) -> None:
    left = tmp_path / "abc"
    left.touch()
    with pytest.raises(FileNotFoundError):
        await NetworkNamespace(ID, path=str(left)).tcp_socket(socket.AF_INET)


async def test_nobody_waiting_any_more_leaves_no_socket_behind() -> None:
    own = NetworkNamespace(ID, "/proc/self/ns/net")
    waiting = [asyncio.create_task(own.tcp_socket(socket.AF_INET)) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(e, asyncio.CancelledError) for e in await asyncio.gather(*waiting, return_exceptions=True)
    )


# --- the runtime ------------------------------------------------------------------------------------------


async def test_the_runtime_looks_the_sandbox_up_anew_for_each_connection(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    sandbox_id = await runtime.run_pod_sandbox(sandbox(host_network=True))
    async with echo_server() as port:
        connection = await runtime.port_forward(sandbox_id, port)
        connection.close()
        engine.finish(engine.containers[sandbox_id])
        with pytest.raises(StreamError, match="is not running"):
            await runtime.port_forward(sandbox_id, port)
    await runtime.remove_pod_sandbox(sandbox_id)
    with pytest.raises(PodNotFoundError):
        await runtime.port_forward(sandbox_id, port)
