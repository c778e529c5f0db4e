"""
The opening handshake of WebSocket (RFC 6455, section 4), for the HTTP server that is there anyway.

Header names are looked up in lower case; the values come from the caller, several ones of a name joined by
commas as HTTP allows.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence

from vkubelet.errors import RemoteProtocolError

__all__ = ["accept_key", "check_request", "offered_subprotocols"]

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
_KEY_BYTES = 16


def accept_key(key: str) -> str:
    """`Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2)."""
    digest = hashlib.sha1((key.strip() + _GUID).encode(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def check_request(headers: Mapping[str, str]) -> str:
    """
    The `Sec-WebSocket-Key` of a request that asks for a WebSocket (section 4.2.1).

    Raises:
        RemoteProtocolError: another version, or no usable key; the message is for the client.
    """
    version = headers.get("sec-websocket-version", "").strip()
    if version != _VERSION:
        raise RemoteProtocolError(f"WebSocket version {version or 'missing'}, only {_VERSION} is served")
    key = headers.get("sec-websocket-key", "").strip()
    try:
        decoded = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != _KEY_BYTES:
        raise RemoteProtocolError("header Sec-WebSocket-Key does not hold 16 bytes in base64")
    return key


def offered_subprotocols(values: Sequence[str]) -> list[str]:
    """The names in all `Sec-WebSocket-Protocol` headers, the client's favourite first."""
    return [name for value in values for name in map(str.strip, value.split(",")) if name]
