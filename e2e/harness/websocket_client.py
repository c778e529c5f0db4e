"""
A WebSocket client of exec and attach, straight at a kubelet's port, in a few lines over the protocol core.

kubectl never goes there without the API server, and offers v5 alone; browsers and older clients do the rest.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import ssl
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlencode

from vkubelet.protocols import websocket
from vkubelet.protocols.channel_messages import (
    REMOTE_COMMAND_SUBPROTOCOLS,
    ChannelData,
    ChannelDecoder,
)

__all__ = ["ERROR", "RESIZE", "STDERR", "STDIN", "STDOUT", "HandshakeRefusedError", "WebSocketStream"]

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)


@dataclass
class HandshakeRefusedError(Exception):
    """The server answered with something else than 101."""

    status: int
    body: str


class WebSocketStream:
    """
    One connection; also a context manager that closes it without a word.

    Args:
        address: host and port.
        context: trusts the server, may hold a client certificate.
        path: such as ``/exec/default/web/main``.
        query: repeated names are allowed.
        subprotocols: offered, the favourite first.
        token: sent in the header; to send it as browsers do, offer it as a subprotocol.

    Raises:
        HandshakeRefusedError: it was not to be.
    """

    def __init__(
        self,
        address: tuple[str, int],
        context: ssl.SSLContext,
        path: str,
        query: Sequence[tuple[str, str]],
        *subprotocols: str,
        token: str = "",
    ) -> None:
        raw = socket.create_connection(address, timeout=30)
        self._socket = context.wrap_socket(raw, server_hostname=address[0])
        self._connection = websocket.Connection(websocket.Role.CLIENT)
        lines = [
            f"GET {path}?{urlencode(query)} HTTP/1.1",
            f"Host: {address[0]}:{address[1]}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        ]
        if subprotocols:
            lines.append(f"Sec-WebSocket-Protocol: {', '.join(subprotocols)}")
        if token:
            lines.append(f"Authorization: Bearer {token}")
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode())
        try:
            with self._socket.makefile("rb", buffering=0) as reader:
                self.subprotocol = _read_answer(reader)
        except BaseException:
            self._socket.close()
            raise
        self._spoken = next(
            each
            for each in REMOTE_COMMAND_SUBPROTOCOLS
            if each.name == (self.subprotocol or "channel.k8s.io")
        )
        self._decoder = ChannelDecoder(self._spoken)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, channel: int, data: bytes) -> None:
        """A message."""
        prefix, payload = self._spoken.encode(channel, data)
        self._connection.send_message(payload, prefix=prefix, is_text=self._spoken.is_base64)
        self._flush()

    def close_channel(self, channel: int) -> None:
        """v5's CLOSE signal."""
        self._connection.send_message(bytes((255, channel)))
        self._flush()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """(channel, data) as they come, until the server says goodbye."""
        while data := self._socket.recv(1 << 16):
            for event in self._connection.receive_data(data):
                if isinstance(event, websocket.DataReceived) and (heard := self._decoder.feed(event)):
                    assert isinstance(heard, ChannelData)
                    yield heard.channel, heard.data
            self._flush()

    def read_all(self) -> dict[int, bytes]:
        """Everything by channel, to the end."""
        received: dict[int, bytes] = {}
        for channel, data in self:
            received[channel] = received.get(channel, b"") + data
        return received

    def expect(self, channel: int, wanted: bytes) -> bytes:
        """Read until `wanted` has come on `channel`; what came there."""
        seen = b""
        for number, data in self:
            if number == channel:
                seen += data
            if wanted in seen:
                return seen
        raise AssertionError(f"waited for {wanted!r} on channel {channel}; it said {seen!r}")

    def _flush(self) -> None:
        self._socket.sendall(self._connection.data_to_send())


def _read_answer(reader: io.RawIOBase) -> str:
    """The subprotocol of a 101, byte by byte, since what comes after the head is not HTTP."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = reader.read(1)
        if not byte:
            raise HandshakeRefusedError(0, "the connection was closed")
        head += byte
    status, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in fields)}
    if status.split()[1] == "101":
        return headers.get("sec-websocket-protocol", "")
    body = b""
    length = int(headers.get("content-length", "0"))
    while len(body) < length and (more := reader.read(length - len(body))):
        body += more
    raise HandshakeRefusedError(int(status.split()[1]), body.decode())
