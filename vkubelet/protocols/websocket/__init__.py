"""
WebSocket (RFC 6455) without input and output.

`Connection` is the whole of it after the handshake: feed what was read to `receive_data`, act on the events,
write what `data_to_send` returns. `handshake` is the HTTP part, `frames` the wire format, `events` what the
peer did. Sections of the RFC are named beside the rules.

aiohttp's own WebSocket was turned down. It hands over whole messages only, so a peer decides how much memory
a message takes; it stops reading, and with that answering pings, behind a queue of its own; and the tunnel of
port-forward needs the bytes of a message as they come. The library `websockets` has a core like this one, but
keeps frames whole as well.
"""

from __future__ import annotations

from vkubelet.protocols.websocket.connection import Connection, Role
from vkubelet.protocols.websocket.events import Closed, DataReceived, Event, PingReceived, PongReceived
from vkubelet.protocols.websocket.frames import CloseCode
from vkubelet.protocols.websocket.handshake import (
    accept_key,
    check_request,
    offered_subprotocols,
)

__all__ = [
    "CloseCode",
    "Closed",
    "Connection",
    "DataReceived",
    "Event",
    "PingReceived",
    "PongReceived",
    "Role",
    "accept_key",
    "check_request",
    "offered_subprotocols",
]
