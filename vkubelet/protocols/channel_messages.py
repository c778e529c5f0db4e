"""
Kubernetes' channels over WebSocket: streams told apart by the first byte of each message.

Follows the kubelet (`k8s.io/streaming/pkg/httpstream/wsstream`). In the binary forms the first byte is the
channel's number; in the base64 forms messages are text, the first character is the number as a digit and
the rest is the data in base64. v5 adds a message of two bytes, 255 and a channel, which ends that channel.

Messages may be of any length; their data is handed on as it arrives. The kubelet holds up to 32 MB of a
message, and passes over one that is not base64; here that ends the connection, since input that is silently
lost is worse.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vkubelet.protocols.remote_command import CLOSE_CHANNEL, Version
from vkubelet.protocols.websocket.events import DataReceived
from vkubelet.protocols.websocket.frames import CloseCode, WebSocketError

__all__ = [
    "REMOTE_COMMAND_SUBPROTOCOLS",
    "ChannelData",
    "ChannelDecoder",
    "ChannelEnd",
    "ChannelEvent",
    "Subprotocol",
    "negotiate_subprotocol",
]

_BEARER_PREFIX = "base64url.bearer.authorization.k8s.io."
_DIGIT_ZERO = ord("0")
_BASE64_GROUP = 4


@dataclass(frozen=True, slots=True)
class Subprotocol:
    """
    A value of ``Sec-WebSocket-Protocol``.

    Attributes:
        name: "" for a client that names none, which then speaks v1.
    """

    name: str
    version: Version
    is_base64: bool = False

    @property
    def has_close(self) -> bool:
        """A message on channel 255 ends another channel."""
        return self.version >= Version.V5

    def encode(self, channel: int, data: bytes) -> tuple[bytes, bytes]:
        """The two parts of a message that carries `data`; text in the base64 forms."""
        if self.is_base64:
            return bytes((_DIGIT_ZERO + channel,)), base64.b64encode(data)
        return bytes((channel,)), data


REMOTE_COMMAND_SUBPROTOCOLS: Final = (
    *(Subprotocol(version.protocol, version) for version in reversed(Version)),
    Subprotocol("v4.base64.channel.k8s.io", Version.V4, is_base64=True),
    Subprotocol("base64.channel.k8s.io", Version.V1, is_base64=True),
)
"""What exec and attach speak. (The kubelet knows no v2 and v3 here; no client is worse off for them.)"""

_UNNAMED = Subprotocol("", Version.V1)


def negotiate_subprotocol(
    offered: Sequence[str], accepted: Sequence[Subprotocol] = REMOTE_COMMAND_SUBPROTOCOLS
) -> Subprotocol | None:
    """
    The subprotocol to speak, None when there is none in common.

    One that can close channels is taken wherever it stands, as on the kubelet; else the client's order
    decides. What carries a token is no offer (`server.authentication`).
    """
    names = [name for name in offered if not name.startswith(_BEARER_PREFIX)]
    if not names:
        return _UNNAMED
    by_name = {subprotocol.name: subprotocol for subprotocol in accepted}
    known = [by_name[name] for name in names if name in by_name]
    return next((each for each in known if each.has_close), next(iter(known), None))


# --- from the client --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChannelData:
    """Data, never empty, on a channel that may be none of ours."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ChannelEnd:
    """The client will send no more on this channel."""

    channel: int


ChannelEvent = ChannelData | ChannelEnd


class ChannelDecoder:
    """Messages to what they say, piece by piece."""

    def __init__(self, subprotocol: Subprotocol) -> None:
        self._subprotocol = subprotocol
        self._channel: int | None = None  # None until the first byte of a message has come
        self._rest = b""  # base64: an incomplete group
        self._is_padded = False  # base64: the end of the data has come
        self._signal = b""  # v5: the channels named in a close signal

    def feed(self, piece: DataReceived) -> ChannelEvent | None:
        """
        What this piece of a message adds.

        Raises:
            RemoteProtocolError: base64 that is none, or a close signal that names no channel.
        """
        data = piece.data
        if piece.begins:
            self._channel, self._rest, self._signal, self._is_padded = None, b"", b"", False
        if self._channel is None:
            if not data:
                return None
            self._channel = data[0] - (_DIGIT_ZERO if self._subprotocol.is_base64 else 0)
            data = data[1:]
        if self._subprotocol.has_close and self._channel == CLOSE_CHANNEL:
            return self._close_signal(data, ends=piece.ends)
        if self._subprotocol.is_base64:
            data = self._decode(data, ends=piece.ends)
        return ChannelData(self._channel, data) if data else None

    def _close_signal(self, data: bytes, *, ends: bool) -> ChannelEnd | None:
        self._signal += data[:2]
        if not ends:
            return None
        if len(self._signal) != 1:
            raise WebSocketError("close signal that does not name one channel")
        return ChannelEnd(self._signal[0])

    def _decode(self, data: bytes, *, ends: bool) -> bytes:
        text = self._rest + data.translate(None, b"\r\n")
        whole = len(text) if ends else len(text) // _BASE64_GROUP * _BASE64_GROUP
        self._rest = text[whole:]
        if self._is_padded and text:
            raise _not_base64()
        self._is_padded = text[:whole].endswith(b"=")
        try:
            return base64.b64decode(text[:whole], validate=True)
        except (binascii.Error, ValueError) as error:
            raise _not_base64() from error


def _not_base64() -> WebSocketError:
    return WebSocketError("message that is not base64", CloseCode.INVALID_PAYLOAD)
