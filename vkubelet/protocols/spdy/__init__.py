"""
SPDY/3.1, as far as Kubernetes uses it, without input and output.

`Connection` is the whole of it: feed what was read to `receive_data`, act on the events, write what
`data_to_send` returns. The other modules are its parts: `frames` (the wire format), `headers` (the
compressed header blocks), `flow` (the windows), `events` (what the peer did).

The specification is "SPDY Protocol - Draft 3.1" (chromium.org); sections are named beside the rules. The
peer that matters is Go's spdystream, in the API server, kubectl and client-go, and where it is looser than
the specification, so are we.
"""

from __future__ import annotations

from vkubelet.protocols.spdy.connection import Connection, Limits, Role
from vkubelet.protocols.spdy.events import (
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    PingAcknowledged,
    StreamEnded,
    StreamOpened,
    StreamReplied,
    StreamReset,
    WindowOpened,
)
from vkubelet.protocols.spdy.frames import GoAwayStatus, ResetStatus

__all__ = [
    "Connection",
    "DataReceived",
    "Event",
    "GoAwayReceived",
    "GoAwayStatus",
    "HeadersReceived",
    "Limits",
    "PingAcknowledged",
    "ResetStatus",
    "Role",
    "StreamEnded",
    "StreamOpened",
    "StreamReplied",
    "StreamReset",
    "WindowOpened",
]
