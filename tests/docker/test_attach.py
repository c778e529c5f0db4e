"""Attaching to a container, over an engine in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers.docker.runtime import DockerRuntime
from tests.clocks import ManualClock
from tests.docker.builders import IO, container, sandbox
from tests.docker.fake_engine import FakeContainer, FakeEngine, Request
from tests.docker.test_runtime import until
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.provider import TerminalSize


async def start(runtime: DockerRuntime, engine: FakeEngine, **config: Any) -> FakeContainer:
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    container_id = await runtime.create_container(sandbox_id, container(**config), sandbox())
    await runtime.start_container(container_id)
    return engine.containers[container_id]


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for chunk in data:
        yield chunk


async def never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


def query_of(engine: FakeEngine) -> dict[str, str]:
    return next(query for _, path, query in engine.requests if path.endswith("/attach"))


async def test_both_streams_come_until_the_container_ends(runtime: DockerRuntime, engine: FakeEngine) -> None:
    running = await start(runtime, engine)
    io = IO()
    attached = asyncio.create_task(runtime.attach(running.id, io))
    await until(lambda: io.err == b"err;")
    assert not attached.done()
    engine.finish(running, 7)
    await attached
    assert (io.out, io.err) == (b"out;", b"err;")


async def test_only_what_was_asked_for_is_asked_for_and_no_old_output(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    running = await start(runtime, engine)
    attached = asyncio.create_task(runtime.attach(running.id, IO(stderr=None)))
    await until(lambda: any(path.endswith("/attach") for _, path, _ in engine.requests))
    engine.finish(running, 0)
    await attached
    query = query_of(engine)
    assert {name: query.get(name) for name in ("stream", "logs", "stdin", "stdout", "stderr")} == {
        "stream": "1",
        "logs": "0",
        "stdin": None,
        "stdout": "1",
        "stderr": None,
    }


async def test_the_engines_own_detach_keys_are_replaced_by_what_nobody_types(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    running = await start(runtime, engine, stdin=True, tty=True)
    await runtime.attach(running.id, IO(stdin=chunks(b"\x10"), tty=True))
    keys = query_of(engine)["detachKeys"]
    assert keys
    assert "ctrl-p" not in keys


async def test_a_terminals_output_is_raw_whatever_the_client_asked_for(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    running = await start(runtime, engine, stdin=True, tty=True)
    io = IO(stdin=chunks(b"typed"))
    await runtime.attach(running.id, io)
    assert (io.out, io.err) == (b"out;err;typed", b"")


async def test_a_terminal_is_resized(runtime: DockerRuntime, engine: FakeEngine) -> None:
    async def sizes() -> AsyncIterator[TerminalSize]:
        yield TerminalSize(80, 24)
        yield TerminalSize(132, 50)

    running = await start(runtime, engine, stdin=True, tty=True)
    attached = asyncio.create_task(runtime.attach(running.id, IO(stdin=never(), tty=True, resizes=sizes())))
    await until(lambda: running.sizes == [("80", "24"), ("132", "50")])
    engine.finish(running, 0)
    await attached


async def test_the_end_of_input_detaches(runtime: DockerRuntime, engine: FakeEngine) -> None:
    running = await start(runtime, engine, stdin=True)
    io = IO(stdin=chunks(b"heard"))
    await runtime.attach(running.id, io)
    assert io.out == b"out;heard"
    assert running.running


async def test_with_stdin_once_the_end_of_input_is_the_containers(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    running = await start(runtime, engine, stdin=True, stdin_once=True)
    await runtime.attach(running.id, IO(stdin=chunks(b"heard")))
    assert not running.running


async def test_a_client_that_leaves_is_detached_and_nothing_is_stopped(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    running = await start(runtime, engine)
    io = IO()
    attached = asyncio.create_task(runtime.attach(running.id, io))
    await until(lambda: io.err == b"err;")
    attached.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attached
    assert running.running
    assert running.signals == []


async def test_what_the_engine_refuses_is_told(runtime: DockerRuntime, engine: FakeEngine) -> None:
    running = await start(runtime, engine)
    await engine.stop()
    with pytest.raises(StreamError):
        await runtime.attach(running.id, IO())


async def test_a_container_that_is_gone_is_not_found(runtime: DockerRuntime, engine: FakeEngine) -> None:
    assert engine.containers == {}
    with pytest.raises(PodNotFoundError):
        await runtime.attach("gone", IO())


async def test_a_container_that_looks_into_another_joins_its_processes(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    running = await start(runtime, engine, target_id="f" * 64)
    host_config = running.body["HostConfig"]
    assert host_config["PidMode"] == "container:" + "f" * 64
    assert host_config["NetworkMode"] != host_config["PidMode"]


async def test_a_container_that_has_just_ended_is_not_waited_for(
    runtime: DockerRuntime, engine: FakeEngine, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(request: Request, _: FakeContainer) -> None:
        """As the engine is to a client that comes a moment after the end."""
        request.writer.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        await asyncio.Event().wait()

    monkeypatch.setattr(engine, "_attach", silent)
    ended = await start(runtime, engine)
    engine.finish(ended, 0)
    attached = asyncio.create_task(runtime.attach(ended.id, IO()))
    await until(lambda: any(path.endswith("/wait") for _, path, _ in engine.requests))
    while not attached.done():
        await clock.advance(1)
    with pytest.raises(StreamError, match="container is not running"):
        await attached
