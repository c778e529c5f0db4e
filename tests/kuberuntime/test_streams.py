"""Logs and exec: which container is meant, and what is said where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest

from providers.memory.behaviour import PREFIX
from tests.builders import container_json, make_pod
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.model.pod import Pod
from vkubelet.provider import ExecRunner, LogOptions, LogSource, TerminalSize


@dataclass
class Sink:
    data: bytearray = field(default_factory=bytearray)

    async def write(self, data: bytes) -> None:
        self.data += data


class FakeIO:
    """What a client sends and gets."""

    def __init__(self, *stdin: bytes) -> None:
        self.stdin = self._chunks(stdin) if stdin else None
        self.stdout, self.stderr = Sink(), Sink()
        self.tty = False
        self.resizes: AsyncIterator[TerminalSize] | None = None

    async def _chunks(self, chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk


async def log(engine: Engine, pod: Pod, name: str = "main", **options: object) -> bytes:
    async with engine.provider.container_logs(pod.key, name, LogOptions(**options)) as chunks:  # type: ignore[arg-type]  # as the test says
        return b"".join([chunk async for chunk in chunks])


def pod_that_says(text: str, then: str = "sleep 100") -> Pod:
    return make_pod(containers=[container_json(command=["sh", "-c", f"echo {text}; {then}"])])


def test_the_engine_has_both_powers(engine: Engine) -> None:
    assert isinstance(engine.provider, LogSource)
    assert isinstance(engine.provider, ExecRunner)


async def test_the_log_is_shown(engine: Engine) -> None:
    pod = await engine.create(pod_that_says("hello"))

    assert await log(engine, pod) == b"hello\n"
    assert await log(engine, pod, timestamps=True) == b"2026-01-01T00:00:00.000000000Z hello\n"
    assert await log(engine, pod, tail_lines=0) == b""


async def test_previous_is_the_attempt_before(engine: Engine) -> None:
    pod = await engine.create(pod_that_says("hello"))
    with pytest.raises(StreamError, match='previous terminated container "main" in pod "web" not found'):
        await log(engine, pod, previous=True)

    engine.runtime.end_container(pod.key, "main", 1)
    await settle()
    assert await log(engine, pod, previous=True) == b"hello\n"


async def test_while_it_waits_for_its_next_attempt_the_last_log_is_both(engine: Engine) -> None:
    pod = await engine.create(pod_that_says("hello", "exit 1"))

    assert await log(engine, pod) == b"hello\n"
    assert await log(engine, pod, previous=True) == b"hello\n"


async def test_a_container_without_a_log_yet_says_what_it_waits_for(engine: Engine) -> None:
    pod = await engine.create(containers=[container_json("a"), container_json("b", image="does-not-exist:1")])

    with pytest.raises(StreamError, match="waiting to start: image can't be pulled") as raised:
        await log(engine, pod, "b")
    assert raised.value.status == 400
    await engine.clock.advance(1)
    with pytest.raises(StreamError, match="trying and failing to pull image"):
        await log(engine, pod, "b")


async def test_a_container_that_could_never_be_started_has_no_log_to_wait_for(engine: Engine) -> None:
    annotations = {f"{PREFIX}start-error": "no such file"}
    pod = await engine.create(restartPolicy="Never", metadata={"annotations": annotations})

    with pytest.raises(StreamError, match='container "main" in pod "web" is terminated'):
        await log(engine, pod)


async def test_an_unknown_pod_is_not_found(engine: Engine) -> None:
    with pytest.raises(PodNotFoundError):
        await log(engine, make_pod("nobody"))
    with pytest.raises(PodNotFoundError):
        await engine.provider.exec(make_pod("nobody").key, "main", ["true"], FakeIO())


@pytest.mark.parametrize(
    ("command", "exit_code", "output"),
    [
        (["true"], 0, b""),
        (["sh", "-c", "exit 7"], 7, b""),
        (["sh", "-c", "echo a; echo b && false"], 1, b"a\nb\n"),
        (["hostname"], 0, b"web\n"),
        (["/bin/echo", "-n", "x", "y"], 0, b"x y"),
    ],
)
async def test_exec_gives_output_and_exit_code(
    engine: Engine, command: list[str], exit_code: int, output: bytes
) -> None:
    pod = await engine.create()
    io = FakeIO()

    assert await engine.provider.exec(pod.key, "main", command, io) == exit_code
    assert bytes(io.stdout.data) == output


async def test_exec_copies_its_input(engine: Engine) -> None:
    pod = await engine.create()
    io = FakeIO(b"one ", b"two")

    assert await engine.provider.exec(pod.key, "main", ["cat"], io) == 0
    assert bytes(io.stdout.data) == b"one two"


async def test_a_container_that_was_seen_to_run_is_not_looked_up_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = await engine.create(pod_that_says("hello"))
    asked: list[object] = []
    monkeypatch.setattr(engine.runtime, "pod_status", asked.append)

    assert await log(engine, pod) == b"hello\n"
    assert await engine.provider.exec(pod.key, "main", ["true"], FakeIO()) == 0
    assert asked == []


async def test_exec_needs_a_running_container(engine: Engine) -> None:
    pod = await engine.create(restartPolicy="Never", containers=[container_json("a"), container_json("b")])
    engine.runtime.end_container(pod.key, "a", 0)

    with pytest.raises(StreamError, match=r'container not found \("a"\)'):
        await engine.provider.exec(pod.key, "a", ["true"], FakeIO())


async def test_a_followed_log_ends_with_the_container(engine: Engine) -> None:
    pod = await engine.create(pod_that_says("hello", "sleep 5"))
    async with engine.provider.container_logs(pod.key, "main", LogOptions(follow=True)) as chunks:
        assert await anext(chunks) == b"hello\n"
        await engine.clock.advance(5)
        assert [chunk async for chunk in chunks] == []
