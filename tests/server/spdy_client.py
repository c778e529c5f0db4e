"""A client of the kubelet's SPDY endpoints, over real sockets, as client-go behaves."""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from yarl import URL

from vkubelet.protocols import spdy

V4 = "v4.channel.k8s.io"


@dataclass(frozen=True)
class HttpAnswer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name.lower()]


class SpdyClient:
    """Reads everything in the background unless told to hold still."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = spdy.Connection(spdy.Role.CLIENT)
        self.streams: dict[str, int] = {}
        self.received: dict[str, bytearray] = defaultdict(bytearray)
        self.events: list[spdy.Event] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._news = asyncio.Event()
        self.closed = False

    async def open(self, *stream_types: str) -> None:
        """Open the streams, one after the other, and wait for all replies."""
        for stream_type in stream_types:
            self.streams[stream_type] = self.connection.open_stream({"streamType": stream_type})
        await self.flush()
        wanted = {self.streams[stream_type] for stream_type in stream_types}
        await self.until(lambda: wanted <= self._answered())

    def _answered(self) -> set[int]:
        kinds = (spdy.StreamReplied, spdy.StreamReset)
        return {event.stream_id for event in self.events if isinstance(event, kinds)}

    async def send(self, stream_type: str, data: bytes, *, end: bool = False) -> None:
        self.connection.send_data(self.streams[stream_type], data, end_stream=end)
        await self.flush()

    async def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())
        await self.writer.drain()

    def has(self, event: spdy.Event) -> bool:
        return event in self.events

    def ended(self, stream_type: str) -> bool:
        return self.has(spdy.StreamEnded(self.streams[stream_type]))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def status(self) -> bytes:
        """What the error stream says in the end."""
        await self.until(lambda: self.ended("error"))
        return bytes(self.received["error"])

    async def until_closed(self) -> None:
        await self.until(lambda: self.closed)

    def vanish(self) -> None:
        """Be gone, without a word."""
        transport = self.writer.transport
        transport.abort()

    async def read_on(self) -> None:
        names: dict[int, str] = {}
        while True:
            await self.reading.wait()
            try:
                data = await self.reader.read(1 << 18)
            except ConnectionError:
                data = b""
            if not data:
                break
            names.update({stream_id: name for name, stream_id in self.streams.items()})
            for event in self.connection.receive_data(data):
                if isinstance(event, spdy.DataReceived):
                    self.received[names[event.stream_id]] += event.data
                else:
                    self.events.append(event)
            self._news.set()
        self.closed = True
        self._news.set()


async def request(
    port: int,
    path: str,
    query: Sequence[tuple[str, str]] = (),
    *,
    method: str = "POST",
    headers: Iterable[tuple[str, str]] | None = None,
    tls: ssl.SSLContext | None = None,
) -> tuple[HttpAnswer, asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for an upgrade and return the answer; its body only when it is no 101."""
    if headers is None:
        headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", V4)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    lines = [
        f"{method} {URL.build(path=path, query=list(query))} HTTP/1.1",
        "Host: node",
        "Content-Length: 0",
    ]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    answer_headers = [(name, value) for name, _, value in (line.partition(": ") for line in head[1:-2])]
    status = int(head[0].split()[1])
    length = next((int(value) for name, value in answer_headers if name == "Content-Length"), 0)
    body = b"" if status == 101 else await reader.readexactly(length)
    return HttpAnswer(status, answer_headers, body), reader, writer


@asynccontextmanager
async def upgraded(
    port: int,
    path: str,
    query: Sequence[tuple[str, str]],
    *,
    tls: ssl.SSLContext | None = None,
    version: str = V4,
) -> AsyncIterator[SpdyClient]:
    """A client after the 101."""
    headers = [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1"), ("X-Stream-Protocol-Version", version)]
    answer, reader, writer = await request(port, path, query, headers=headers, tls=tls)
    assert answer.status == 101, answer
    client = SpdyClient(reader, writer)
    background = asyncio.create_task(client.read_on())
    try:
        yield client
    finally:
        background.cancel()
        client.vanish()
        await asyncio.gather(background, return_exceptions=True)
