"""
The port-forward protocol: which streams belong together, to which port, and how errors are told.

Each forwarded connection is a pair of streams, ``data`` and ``error``. Follows the kubelet
(`k8s.io/cri-streaming/.../portforward`), which knows three ways for pairs to travel:

=================  ======================================================================================
over               how
=================  ======================================================================================
SPDY/3.1           ``portforward.k8s.io``: the client opens two streams for each connection, with headers
                   ``streamType``, ``port`` and ``requestID``; any number of them
WebSocket, tunnel  ``SPDY/3.1+portforward.k8s.io``: the same, its bytes in binary messages (kubectl 1.30+)
WebSocket          ``v4.channel.k8s.io`` or none, or base64: one connection for each ``port`` of the query,
                   data on channel 2n and errors on 2n+1; the server's first word on both is the port
=================  ======================================================================================

On the error stream there is text; no text means that nothing went wrong. How the streams travel and what is
at the port's other end is not told here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Generic, TypeAlias, TypeVar

from vkubelet.protocols.channel_messages import Subprotocol
from vkubelet.protocols.remote_command import Version

__all__ = [
    "PROTOCOL",
    "TUNNEL_PROTOCOL",
    "WEBSOCKET_SUBPROTOCOLS",
    "ForwardStream",
    "Pair",
    "PairTable",
    "RequestId",
    "StreamKind",
    "data_channel",
    "error_channel",
    "greeting",
    "is_tunnel",
    "negotiate",
    "parse_port",
    "parse_ports",
    "parse_stream",
]

PROTOCOL: Final = "portforward.k8s.io"
"""In ``X-Stream-Protocol-Version``."""

TUNNEL_PROTOCOL: Final = f"SPDY/3.1+{PROTOCOL}"
"""In ``Sec-WebSocket-Protocol``."""

_MAX_PORT = 0xFFFF
_T = TypeVar("_T")

RequestId: TypeAlias = str | int
"""What pairs streams: the client's own words, or a number made of stream ids for a client that has none."""


def negotiate(offered: Sequence[str]) -> bool:
    """Whether a client that offers these values of ``X-Stream-Protocol-Version`` can be served."""
    return any(name.strip() == PROTOCOL for value in offered for name in value.split(","))


def is_tunnel(subprotocol: str) -> bool:
    """Whether a WebSocket subprotocol asks for a tunnel, of whatever protocol."""
    return subprotocol.startswith("SPDY/3.1+") and subprotocol.endswith(".k8s.io")


def parse_port(text: str) -> int:
    """
    A port from 1 to 65535 in decimal digits.

    Raises:
        ValueError: it is none; the message is the kubelet's.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or int(text) > _MAX_PORT:
        raise ValueError(f'unable to parse "{text}" as a port')
    if int(text) < 1:
        raise ValueError(f'port "{text}" must be > 0')
    return int(text)


# --- SPDY: streams with headers ---------------------------------------------------------------------------


class StreamKind(StrEnum):
    """The header ``streamType`` of a stream."""

    DATA = "data"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class ForwardStream:
    """What the headers of a stream say."""

    kind: StreamKind
    port: int
    request_id: RequestId


def parse_stream(stream_id: int, headers: Mapping[str, str]) -> ForwardStream:
    """
    Read the headers (names in lower case) of a stream that the client opens.

    A client that sends no ``requestID`` opens the error stream and right after it the data stream, whose id
    is higher by 2: the pair then goes by the id of the former. As on the kubelet this is a guess, wrong for
    one that opens several pairs at once.

    Raises:
        ValueError: a header is missing or wrong.
    """
    for name in ("port", "streamtype"):
        if not headers.get(name):
            raise ValueError(f'"{name}" header is required')
    port = parse_port(headers["port"])
    try:
        kind = StreamKind(headers["streamtype"])
    except ValueError:
        raise ValueError(f'invalid stream type "{headers["streamtype"]}"') from None
    guessed = stream_id - 2 if kind is StreamKind.DATA else stream_id
    return ForwardStream(kind, port, headers.get("requestid") or guessed)


@dataclass(frozen=True, slots=True)
class Pair(Generic[_T]):
    """Both streams of one forwarded connection; the data stream's port is the one that counts."""

    port: int
    data: _T
    error: _T


class PairTable(Generic[_T]):
    """
    Streams that wait for the other one of their pair.

    `_T` is whatever stands for a stream with the caller. A pair that is complete is not remembered: its id
    may be used again, as on the kubelet.
    """

    def __init__(self) -> None:
        self._waiting: dict[RequestId, tuple[ForwardStream, _T]] = {}

    def add(self, stream: ForwardStream, handle: _T) -> Pair[_T] | None:
        """
        Take a stream; the pair if this completes it.

        Raises:
            ValueError: the request has a stream of this kind already, which goes on waiting.
        """
        waiting = self._waiting.get(stream.request_id)
        if waiting is None:
            self._waiting[stream.request_id] = (stream, handle)
            return None
        other, other_handle = waiting
        if other.kind is stream.kind:
            raise ValueError(f"{stream.kind} stream already assigned")
        del self._waiting[stream.request_id]
        if stream.kind is StreamKind.DATA:
            return Pair(stream.port, handle, other_handle)
        return Pair(other.port, other_handle, handle)

    def give_up(self, request_id: RequestId, handle: _T) -> bool:
        """Forget this stream; whether it was still waiting."""
        waiting = self._waiting.get(request_id)
        if waiting is None or waiting[1] is not handle:
            return False
        del self._waiting[request_id]
        return True

    def __len__(self) -> int:
        """How many streams wait."""
        return len(self._waiting)


# --- WebSocket: channels by number ------------------------------------------------------------------------


WEBSOCKET_SUBPROTOCOLS: Final = (
    Subprotocol("v4.channel.k8s.io", Version.V4),
    Subprotocol("v4.base64.channel.k8s.io", Version.V4, is_base64=True),
)
"""What is spoken besides the tunnel; a client that names none speaks the first."""

_MAX_PORTS = 64


def parse_ports(values: Sequence[str]) -> tuple[int, ...]:
    """
    The ports of a query's ``port`` parameters, each one port or a comma-separated list.

    Raises:
        ValueError: there is none, one is wrong (the messages are the kubelet's), or there are more than 64,
            which no channel's number can tell apart in all forms.
    """
    if not values:
        raise ValueError('query parameter "port" is required')
    if not all(values):
        raise ValueError('query parameter "port" cannot be empty')
    ports = tuple(parse_port(text) for value in values for text in value.split(","))
    if len(ports) > _MAX_PORTS:
        raise ValueError(f"{len(ports)} ports in one request, but {_MAX_PORTS} are the most")
    return ports


def data_channel(index: int) -> int:
    """The channel of the data of the query's port number `index`."""
    return 2 * index


def error_channel(index: int) -> int:
    """The channel of its errors."""
    return 2 * index + 1


def greeting(port: int) -> bytes:
    """What the server says first on both channels of a port: its number, 16 bits, little-endian."""
    return port.to_bytes(2, "little")
