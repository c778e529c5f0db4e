from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from tests.builders import container_json, make_pod
from tests.clocks import settle
from tests.server.kubelet import Files, Logs, Pods, serving, with_logs
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.model.keys import PodKey
from vkubelet.provider import LogOptions
from vkubelet.server.app import Powers
from vkubelet.server.container_logs import why_no_logs

PATH = "/containerLogs/default/web/main"
MIB = 2**20


def chunks(*parts: bytes) -> Logs:
    async def produce(_: LogOptions) -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    return Logs(produce)


class Refusing:
    """A `LogSource` that has nothing, for a reason."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def container_logs(
        self, key: PodKey, container: str, options: LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        raise self._error


async def test_what_the_container_wrote_is_sent_as_text(files: Files) -> None:
    logs = chunks(b"one\n", b"", b"two\n")
    async with (
        serving(files, with_logs(logs)) as kubelet,
        kubelet.session() as session,
        session.get(PATH, params={"timestamps": "true", "tailLines": "0"}) as response,
    ):
        assert response.status == 200
        assert response.content_type == "text/plain"
        assert response.headers["Transfer-Encoding"] == "chunked"
        assert await response.read() == b"one\ntwo\n"
    (asked,) = logs.asked
    assert asked == (make_pod().key, "main", LogOptions(timestamps=True, tail_lines=0))
    assert logs.closed.is_set()


@pytest.mark.parametrize("limit", [1, 4, 5, 7, 8, 100])
async def test_the_limit_of_bytes_is_exact(files: Files, limit: int) -> None:
    async with serving(files, with_logs(chunks(b"one\n", b"two\n"))) as kubelet:
        status, text = await kubelet.get(f"{PATH}?limitBytes={limit}")
    assert (status, text) == (200, "one\ntwo\n"[:limit])


async def test_a_follower_that_reaches_its_limit_is_done(files: Files) -> None:
    async def produce(_: LogOptions) -> AsyncIterator[bytes]:
        yield b"one\ntwo\n"
        await asyncio.Event().wait()

    async with serving(files, with_logs(Logs(produce))) as kubelet:
        assert await kubelet.get(f"{PATH}?follow=true&limitBytes=4") == (200, "one\n")


async def test_a_follower_sees_headers_before_the_first_line_and_each_line_as_it_comes(files: Files) -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def produce(_: LogOptions) -> AsyncIterator[bytes]:
        while line := await lines.get():
            yield line

    logs = Logs(produce)
    async with (
        serving(files, with_logs(logs)) as kubelet,
        kubelet.session() as session,
        session.get(PATH, params={"follow": "true"}) as response,
    ):
        assert response.status == 200
        for line in (b"one\n", b"two\n"):
            lines.put_nowait(line)
            assert await response.content.readline() == line
        lines.put_nowait(b"")
        assert await response.read() == b""
    assert logs.asked[0][2].follow


@pytest.mark.parametrize("chunk_bytes", [64 * 1024, 25 * MIB], ids=["in chunks", "in two pieces"])
async def test_a_large_log_arrives_whole(files: Files, chunk_bytes: int) -> None:
    pattern = bytes(range(256)) * 256
    chunk = (pattern * (chunk_bytes // len(pattern) + 1))[:chunk_bytes]
    count = 50 * MIB // chunk_bytes
    received = 0
    async with (
        serving(files, with_logs(chunks(*[chunk] * count))) as kubelet,
        kubelet.session() as session,
        session.get(PATH) as response,
    ):
        async for data in response.content.iter_any():
            received += len(data)
    assert received == 50 * MIB


async def test_a_client_that_does_not_read_stops_the_source(files: Files) -> None:
    produced, stalled = 0, asyncio.Event()

    async def produce(_: LogOptions) -> AsyncIterator[bytes]:
        nonlocal produced
        while produced < 100 * MIB:
            produced += 64 * 1024
            asyncio.get_running_loop().call_later(0.2, note_stall, produced)
            yield b"x" * 64 * 1024

    def note_stall(then: int) -> None:
        if produced == then:
            stalled.set()

    async with serving(files, with_logs(Logs(produce))) as kubelet:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", kubelet.server.port, ssl=kubelet.anonymous_client, limit=1024
        )
        request = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer admin-token\r\n\r\n"
        writer.write(request.encode())
        async with asyncio.timeout(10):
            await stalled.wait()
        assert produced < 16 * MIB  # what the kernel's buffers take, and little more
        writer.transport.abort()


async def test_a_client_that_leaves_closes_the_source_even_when_nothing_is_written(files: Files) -> None:
    async def produce(_: LogOptions) -> AsyncIterator[bytes]:
        yield b"one\n"
        await asyncio.Event().wait()

    logs = Logs(produce)
    async with serving(files, with_logs(logs)) as kubelet:
        async with kubelet.session() as session, session.get(PATH, params={"follow": "true"}) as response:
            assert await response.content.readline() == b"one\n"
            assert not logs.closed.is_set()
        async with asyncio.timeout(5):
            await logs.closed.wait()


async def test_a_client_that_leaves_while_the_source_waits_for_it_closes_the_source(files: Files) -> None:
    async def produce(_: LogOptions) -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MIB

    logs = Logs(produce)
    async with serving(files, with_logs(logs)) as kubelet:
        async with kubelet.session() as session, session.get(PATH) as response:
            await response.content.readexactly(MIB)
        async with asyncio.timeout(5):
            await logs.closed.wait()


@pytest.mark.parametrize(
    "error", [StreamError("the engine broke off"), PodNotFoundError("gone"), RuntimeError("a bug")]
)
async def test_a_source_that_breaks_off_is_no_end_of_the_log(files: Files, error: Exception) -> None:
    async def produce(_: LogOptions) -> AsyncIterator[bytes]:
        yield b"one\n"
        await settle()
        raise error

    async with (
        serving(files, with_logs(Logs(produce))) as kubelet,
        kubelet.session() as session,
    ):
        with pytest.raises(aiohttp.ClientError):
            async with session.get(PATH) as response:
                await response.read()
        assert (await kubelet.get("/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/containerLogs/default/other/main", 404, 'pod "other" does not exist\n'),
        ("/containerLogs/other/web/main", 404, 'pod "web" does not exist\n'),
        ("/containerLogs/default/web/other", 404, 'container "other" not found in pod "web"\n'),
        (f"{PATH}?tailLines=x", 400, '{"message": "Unable to decode query."}\n'),
        (f"{PATH}?limitBytes=0", 422, '{"message": "Invalid request."}\n'),
        ("/containerLogs/default/other/main?limitBytes=0", 422, '{"message": "Invalid request."}\n'),
        (
            f"{PATH}?stream=Stderr",
            400,
            'unable to return the given log stream: "Stderr". '
            "Please enable PodLogsQuerySplitStreams feature gate in kubelet\n",
        ),
    ],
)
async def test_what_cannot_be_shown_is_refused_in_the_kubelets_words(
    files: Files, path: str, status: int, text: str
) -> None:
    logs = chunks(b"never")
    async with serving(files, with_logs(logs)) as kubelet:
        assert await kubelet.get(path) == (status, text)
    assert logs.asked == []


@pytest.mark.parametrize("kind", ["initContainers", "containers", "ephemeralContainers"])
async def test_containers_of_every_kind_have_logs(files: Files, kind: str) -> None:
    spec: dict[str, Any] = {kind: [container_json("c")]}
    pod = make_pod("web", **spec)
    async with serving(files, with_logs(chunks(b"hi"), pod)) as kubelet:
        assert await kubelet.get("/containerLogs/default/web/c") == (200, "hi")


async def test_the_providers_refusal_is_passed_on(files: Files) -> None:
    refusal = StreamError('container "main" in pod "web" is waiting to start: Pending', status=400)
    powers = Powers(pods=Pods(make_pod()), logs=Refusing(refusal))
    async with serving(files, powers) as kubelet:
        assert await kubelet.get(PATH) == (400, f"{refusal}\n")


def waiting(reason: str) -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason}}}


def ended(container_id: str) -> dict[str, Any]:
    return {"terminated": {"exitCode": 1, "containerID": container_id}}


WHERE = 'container "main" in pod "web"'
STATES: list[tuple[dict[str, Any] | None, bool, str | None]] = [
    (None, False, f"{WHERE} is not available"),
    (waiting("ContainerCreating"), False, f"{WHERE} is waiting to start: ContainerCreating"),
    (waiting("ErrImagePull"), False, f"{WHERE} is waiting to start: image can't be pulled"),
    (waiting("ImagePullBackOff"), False, f"{WHERE} is waiting to start: trying and failing to pull image"),
    ({**waiting("CrashLoopBackOff"), "lastState": ended("docker://1")}, False, None),
    ({"state": {"running": {}}}, False, None),
    ({"state": ended("docker://1")}, False, None),
    ({"state": ended("")}, False, f"{WHERE} is terminated"),
    ({"state": {"running": {}}}, True, f"previous terminated {WHERE} not found"),
    ({"state": {"running": {}}, "lastState": ended("docker://1")}, True, None),
    ({"state": {"running": {}}, "lastState": ended("")}, True, f"previous terminated {WHERE} not found"),
]


@pytest.mark.parametrize(("state", "previous", "expected"), STATES)
def test_the_status_explains_why_there_is_no_log(
    state: dict[str, Any] | None, previous: bool, expected: str | None
) -> None:
    statuses = [{"name": "main", **state}] if state is not None else []
    pod = make_pod(status={"containerStatuses": [{"name": "other"}, *statuses]})
    assert why_no_logs(pod, "main", previous=previous) == expected


async def test_where_the_provider_has_nothing_the_status_is_asked(files: Files) -> None:
    pod = make_pod(status={"initContainerStatuses": [{"name": "main", **waiting("PodInitializing")}]})
    powers = Powers(pods=Pods(pod), logs=Refusing(PodNotFoundError("no such container")))
    async with serving(files, powers) as kubelet:
        assert await kubelet.get(PATH) == (400, f"{WHERE} is waiting to start: PodInitializing\n")


async def test_where_the_status_knows_no_reason_the_container_is_not_found(files: Files) -> None:
    pod = make_pod(status={"containerStatuses": [{"name": "main", "state": {"running": {}}}]})
    powers = Powers(pods=Pods(pod), logs=Refusing(PodNotFoundError("no such container")))
    async with serving(files, powers) as kubelet:
        assert await kubelet.get(PATH) == (404, "no such container\n")
