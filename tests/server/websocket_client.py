"""A client of the kubelet's WebSocket endpoints, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from tests.server.spdy_client import HttpAnswer, request
from vkubelet.protocols import websocket
from vkubelet.protocols.channel_messages import (
    REMOTE_COMMAND_SUBPROTOCOLS,
    ChannelData,
    ChannelDecoder,
    Subprotocol,
)

V5 = "v5.channel.k8s.io"
STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)


class WebSocketClient:
    """Reads everything in the background unless told to hold still."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, subprotocol: Subprotocol
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.subprotocol = subprotocol
        self.connection = websocket.Connection(websocket.Role.CLIENT)
        self.received: dict[int, bytearray] = defaultdict(bytearray)
        self.order: list[int] = []
        self.events: list[websocket.Event] = []
        self.messages: list[bytes] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.answers_close = True
        self.closed = False
        self._decoder = ChannelDecoder(subprotocol)
        self._message = b""
        self._news = asyncio.Event()

    async def send(self, channel: int, data: bytes) -> None:
        prefix, payload = self.subprotocol.encode(channel, data)
        self.connection.send_message(payload, prefix=prefix, is_text=self.subprotocol.is_base64)
        await self.flush()

    async def close_stdin(self) -> None:
        """v5's CLOSE signal."""
        self.connection.send_message(bytes((255, STDIN)))
        await self.flush()

    async def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())
        await self.writer.drain()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self._news.clear()
                await self._news.wait()

    @property
    def close(self) -> websocket.Closed | None:
        """What the server's goodbye said."""
        return next((event for event in self.events if isinstance(event, websocket.Closed)), None)

    async def status(self) -> bytes:
        """What the error channel said, once the server has said goodbye."""
        await self.until(lambda: self.close is not None)
        return bytes(self.received[ERROR])

    async def until_closed(self) -> None:
        await self.until(lambda: self.closed)

    def vanish(self) -> None:
        """Be gone, without a word."""
        self.writer.transport.abort()

    async def read_on(self) -> None:
        while True:
            await self.reading.wait()
            try:
                data = await self.reader.read(1 << 18)
            except ConnectionError:
                data = b""
            if not data:
                break
            for event in self.connection.receive_data(data):
                self._handle(event)
            if self.answers_close:
                self.writer.write(self.connection.data_to_send())
            self._news.set()
        self.closed = True
        self._news.set()

    def _handle(self, event: websocket.Event) -> None:
        if not isinstance(event, websocket.DataReceived):
            self.events.append(event)
            return
        self._message += event.data
        if event.ends:
            self.messages.append(self._message)
            self._message = b""
        match self._decoder.feed(event):
            case ChannelData(channel, data):
                self.received[channel] += data
                self.order.append(channel)


def handshake_headers(*subprotocols: str) -> list[tuple[str, str]]:
    headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", base64.b64encode(os.urandom(16)).decode()),
    ]
    return headers + [("Sec-WebSocket-Protocol", ", ".join(subprotocols))] * bool(subprotocols)


async def websocket_request(
    port: int, path: str, query: Sequence[tuple[str, str]], *subprotocols: str
) -> tuple[HttpAnswer, asyncio.StreamWriter]:
    headers = handshake_headers(*subprotocols)
    answer, _, writer = await request(port, path, query, method="GET", headers=headers)
    return answer, writer


@asynccontextmanager
async def websocket_to(
    port: int,
    path: str,
    query: Sequence[tuple[str, str]],
    *,
    subprotocol: str = V5,
    tls: ssl.SSLContext | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> AsyncIterator[WebSocketClient]:
    """A client after the 101."""
    names = (subprotocol,) if subprotocol else ()
    asked = [*handshake_headers(*names), *headers]
    answer, reader, writer = await request(port, path, query, method="GET", headers=asked, tls=tls)
    assert answer.status == 101, answer
    assert answer.all("Sec-WebSocket-Protocol") == list(names)
    spoken = next(
        (each for each in REMOTE_COMMAND_SUBPROTOCOLS if each.name == subprotocol),
        REMOTE_COMMAND_SUBPROTOCOLS[4],
    )
    client = WebSocketClient(reader, writer, spoken)
    background = asyncio.create_task(client.read_on())
    try:
        yield client
    finally:
        background.cancel()
        client.vanish()
        await asyncio.gather(background, return_exceptions=True)
