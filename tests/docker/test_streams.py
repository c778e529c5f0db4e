"""Commands and logs over an engine in this process."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator

import pytest

from providers.docker.runtime import DockerRuntime
from tests.clocks import ManualClock
from tests.docker.builders import IO, Sink, container, sandbox
from tests.docker.fake_engine import FakeContainer, FakeEngine, frame
from tests.docker.test_runtime import until
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.provider import LogOptions, TerminalSize


@pytest.fixture
async def running(runtime: DockerRuntime, engine: FakeEngine) -> FakeContainer:
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    container_id = await runtime.create_container(sandbox_id, container(), sandbox())
    await runtime.start_container(container_id)
    return engine.containers[container_id]


async def chunks(*data: bytes) -> AsyncIterator[bytes]:
    for chunk in data:
        yield chunk


async def never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


# --- exec -------------------------------------------------------------------------------------------------


async def test_output_and_exit_code_arrive(runtime: DockerRuntime, running: FakeContainer) -> None:
    io = IO()
    assert await runtime.exec(running.id, ["echo", "hello"], io) == 0
    assert io.out == b"hello"
    assert await runtime.exec(running.id, ["fail", "7"], io) == 7
    assert io.err == b"bad"


async def test_input_goes_in_and_ends(runtime: DockerRuntime, running: FakeContainer) -> None:
    blocks = [bytes([n]) * 100_000 for n in range(20)]
    io = IO(stdin=chunks(*blocks))
    assert await runtime.exec(running.id, ["cat"], io) == 0
    assert io.out == b"".join(blocks)


async def test_open_input_does_not_hold_an_ended_command(
    runtime: DockerRuntime, running: FakeContainer
) -> None:
    async with asyncio.timeout(5):
        assert await runtime.exec(running.id, ["echo"], IO(stdin=never())) == 0


async def test_a_terminal_is_raw_and_its_size_is_repeated_until_it_is_taken(
    runtime: DockerRuntime, engine: FakeEngine, running: FakeContainer, clock: ManualClock
) -> None:
    async def sizes() -> AsyncIterator[TerminalSize]:
        yield TerminalSize(80, 24)

    gate = asyncio.Event()

    async def input_after_gate() -> AsyncIterator[bytes]:
        await gate.wait()
        yield b"typed"

    engine.refuse_resizes(2)
    io = IO(stdin=input_after_gate(), stderr=None, tty=True, resizes=sizes())
    command = asyncio.create_task(runtime.exec(running.id, ["cat"], io))
    await until(lambda: engine.execs)
    (started,) = engine.execs.values()
    while not started.sizes:
        await until(lambda: started.sizes or clock.next_due_s() is not None)
        await clock.advance(1)
    gate.set()
    assert await command == 0
    assert started.sizes == [("80", "24")]
    assert io.out == b"typed"


@pytest.mark.parametrize("tty", [False, True])
async def test_a_command_that_cannot_start_is_an_error(
    runtime: DockerRuntime, running: FakeContainer, tty: bool
) -> None:
    io = IO(tty=tty, stderr=None if tty else Sink())
    with pytest.raises(StreamError, match="executable file not found"):
        await runtime.exec(running.id, ["no-such"], io)
    assert io.out == b""


async def test_a_program_may_say_the_same_words(runtime: DockerRuntime, running: FakeContainer) -> None:
    io = IO()
    assert await runtime.exec(running.id, ["oci"], io) == 126
    assert io.out == b"OCI runtime exec failed, says the program"


async def test_an_error_of_the_engine_within_the_stream_is_an_error(
    runtime: DockerRuntime, running: FakeContainer
) -> None:
    with pytest.raises(StreamError, match="the disk is full"):
        await runtime.exec(running.id, ["broken"], IO())


async def test_commands_need_a_running_container(
    runtime: DockerRuntime, engine: FakeEngine, running: FakeContainer
) -> None:
    engine.finish(running)
    with pytest.raises(StreamError, match="is not running"):
        await runtime.exec(running.id, ["echo"], IO())
    with pytest.raises(PodNotFoundError):
        await runtime.exec("gone", ["echo"], IO())


async def test_cancelled_the_connection_is_closed(
    runtime: DockerRuntime, engine: FakeEngine, running: FakeContainer
) -> None:
    command = asyncio.create_task(runtime.exec(running.id, ["sleep"], IO(stdin=never())))
    await until(lambda: any(e.running for e in engine.execs.values()))
    command.cancel()
    with pytest.raises(asyncio.CancelledError):
        await command
    (started,) = engine.execs.values()
    await until(lambda: not started.running)


async def test_a_failing_reader_ends_the_command(
    runtime: DockerRuntime, engine: FakeEngine, running: FakeContainer
) -> None:
    class Broken(Sink):
        async def write(self, data: bytes) -> None:
            raise ConnectionResetError("the client has gone")

    with pytest.raises(ConnectionResetError):
        await runtime.exec(running.id, ["cat"], IO(stdin=chunks(b"x"), stdout=Broken()))


async def test_a_failing_client_input_is_reported_as_it_is(
    runtime: DockerRuntime, running: FakeContainer
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionResetError("the client has gone")

    with pytest.raises(ConnectionResetError):
        await runtime.exec(running.id, ["cat"], IO(stdin=broken()))


async def test_exec_sync_collects(runtime: DockerRuntime, running: FakeContainer) -> None:
    result = await runtime.exec_sync(running.id, ["fail", "3"], 5)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"", b"bad")


async def test_exec_sync_has_a_time_limit(runtime: DockerRuntime, running: FakeContainer) -> None:
    with pytest.raises(TimeoutError):
        await runtime.exec_sync(running.id, ["sleep"], 0.01)


# --- logs -------------------------------------------------------------------------------------------------


async def read(runtime: DockerRuntime, container_id: str, options: LogOptions) -> bytes:
    async with runtime.container_logs(container_id, options) as output:
        return b"".join([chunk async for chunk in output])


async def test_logs_are_merged_in_order(runtime: DockerRuntime, running: FakeContainer) -> None:
    running.log = [frame(1, b"one\n") + frame(2, b"two\n")[:5], frame(2, b"two\n")[5:] + frame(1, b"three\n")]
    assert await read(runtime, running.id, LogOptions()) == b"one\ntwo\nthree\n"
    assert await read(runtime, running.id, LogOptions(limit_bytes=6)) == b"one\ntw"
    assert await read(runtime, running.id, LogOptions(limit_bytes=0)) == b""


async def test_a_container_that_was_inspected_is_not_inspected_for_its_log(
    runtime: DockerRuntime, engine: FakeEngine, running: FakeContainer
) -> None:
    await runtime.list_pods()
    engine.requests.clear()
    await read(runtime, running.id, LogOptions())
    assert [path.rpartition("/")[2] for _, path, *_ in engine.requests] == ["logs"]


async def test_log_options_are_the_engines(
    runtime: DockerRuntime, engine: FakeEngine, running: FakeContainer
) -> None:
    since = datetime.datetime(2026, 1, 2, 3, 4, 5, 600700, tzinfo=datetime.UTC)
    await read(runtime, running.id, LogOptions(tail_lines=0, since=since, timestamps=True))
    assert engine.requests[-1][2] == {
        "stdout": "1",
        "stderr": "1",
        "timestamps": "1",
        "tail": "0",
        "since": "1767323045.600700000",
    }


async def test_following_ends_with_the_container(
    runtime: DockerRuntime, engine: FakeEngine, running: FakeContainer
) -> None:
    running.log = [frame(1, b"line\n")]
    async with runtime.container_logs(running.id, LogOptions(follow=True)) as output:
        assert await anext(output) == b"line\n"
        engine.finish(running)
        async with asyncio.timeout(5):
            assert [chunk async for chunk in output] == []


async def test_the_rest_of_a_long_line_has_no_time_of_its_own(
    runtime: DockerRuntime, running: FakeContainer
) -> None:
    stream = b"".join(
        [
            frame(1, b"T1 long"),
            frame(2, b"T2 other\n"),
            frame(1, b"T3 er line\n"),
            frame(1, b"T4 next\n"),
        ]
    )
    expected = b"T1 longT2 other\ner line\nT4 next\n"
    for size in range(1, len(stream)):
        running.log = [stream[n : n + size] for n in range(0, len(stream), size)]
        assert await read(runtime, running.id, LogOptions(timestamps=True)) == expected


async def test_logs_of_a_terminal_are_raw(runtime: DockerRuntime, running: FakeContainer) -> None:
    running.body["Tty"] = True
    running.log = [b"raw\r\n"]
    assert await read(runtime, running.id, LogOptions()) == b"raw\r\n"


async def test_logs_that_cannot_be_had_are_errors(
    runtime: DockerRuntime, engine: FakeEngine, running: FakeContainer
) -> None:
    with pytest.raises(PodNotFoundError):
        await read(runtime, "gone", LogOptions())
    running.log = [frame(3, b"error from daemon in stream")]
    with pytest.raises(StreamError, match="error from daemon"):
        await read(runtime, running.id, LogOptions())
    running.log = [b"no frames at all"]
    with pytest.raises(StreamError, match="not a header"):
        await read(runtime, running.id, LogOptions())
