"""Reading the files of the json-file driver: the format, rotation, and what is not whole."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.docker import log_files
from providers.docker.runtime import DockerRuntime
from tests.docker.builders import container, sandbox
from tests.docker.fake_engine import FakeContainer, FakeEngine
from vkubelet.provider import LogOptions


def message(text: str) -> bytes:
    return orjson.dumps({"log": text, "stream": "stdout", "time": "2026-01-01T00:00:00Z"}) + b"\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c1-json.log"


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def read(path: Path) -> bytes | None:
    async def text(files: Sequence[FileIO]) -> bytes:
        return b"".join([chunk async for chunk in log_files.read_log(files)])

    with ExitStack() as closing:
        files = log_files.open_log(path, closing)
        return None if files is None else asyncio.run(text(files))


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(message("one\n") + message("two\n"), b"one\ntwo\n", id="lines"),
        pytest.param(message("begun, ") + message("ended\n"), b"begun, ended\n", id="a line in two messages"),
        pytest.param(message("ü€\u0000\n"), "ü€\0\n".encode(), id="any character"),
        pytest.param(message("}{,\n"), b"}{,\n", id="what looks like JSON"),
        pytest.param(b'{"stream":"stdout"}\n' + message("a\n"), b"a\n", id="an empty message has no text"),
        pytest.param(b"\0\0\0\n" + message("a\n"), b"a\n", id="what a crash left"),
        pytest.param(b'[1]\n{"log":2}\n' + message("a\n"), b"a\n", id="JSON that is no message"),
    ],
)
def test_messages_become_their_text(messages: bytes, text: bytes) -> None:
    assert log_files.decode(messages.removesuffix(b"\n")) == text


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.integers(1, 50))
def test_blocks_of_any_size_give_the_same(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], size: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "x"
    path.write_bytes(b"".join(map(message, texts)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_files, "_BLOCK_BYTES", size)
        assert read(path) == "".join(texts).encode()


def test_rotated_files_come_first_the_oldest_before_all(path: Path) -> None:
    path.write_bytes(message("three\n"))
    Path(f"{path}.1").write_bytes(message("two\n"))
    Path(f"{path}.2").write_bytes(message("one\n"))
    assert read(path) == b"one\ntwo\nthree\n"


def test_a_message_that_is_being_written_is_left_out(path: Path) -> None:
    path.write_bytes(message("whole\n") + message("half")[:-5])
    assert read(path) == b"whole\n"


def test_a_log_that_is_not_here_is_left_to_the_engine(path: Path) -> None:
    assert read(path) is None


def test_a_rotation_while_the_files_are_opened_is_noticed(path: Path, closing: ExitStack) -> None:
    path.write_bytes(message("one\n"))
    Path(f"{path}.1").hardlink_to(path)  # as if the present file had been moved on between two steps
    assert log_files.open_log(path, closing) is None


# --- through the runtime ----------------------------------------------------------------------------------


@pytest.fixture
async def kept(runtime: DockerRuntime, engine: FakeEngine, path: Path) -> FakeContainer:
    container_id = await runtime.create_container("a", container(), sandbox())
    kept = engine.containers[container_id]
    kept.details["LogPath"] = str(path)
    return kept


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        pytest.param(LogOptions(), False, id="all of it"),
        pytest.param(LogOptions(limit_bytes=100), False, id="some bytes"),
        pytest.param(LogOptions(tail_lines=5), True, id="tail"),
        pytest.param(LogOptions(timestamps=True), True, id="timestamps"),
    ],
)
async def test_only_a_log_as_it_stands_is_read_from_its_files(
    runtime: DockerRuntime,
    engine: FakeEngine,
    kept: FakeContainer,
    path: Path,
    options: LogOptions,
    asked: bool,
) -> None:
    await asyncio.to_thread(path.write_bytes, message("from the file\n"))
    async with runtime.container_logs(kept.id, options) as chunks:
        text = b"".join([chunk async for chunk in chunks])
    assert text == (b"" if asked else b"from the file\n")
    assert any(asked_for.endswith("/logs") for _, asked_for, *_ in engine.requests) == asked
