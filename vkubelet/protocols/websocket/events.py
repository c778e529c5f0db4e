"""What a WebSocket peer did, as `Connection.receive_data` reports it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Closed", "DataReceived", "Event", "PingReceived", "PongReceived"]


@dataclass(frozen=True, slots=True)
class DataReceived:
    """
    A piece of a message, as it arrived; where it is cut says nothing but for the two flags.

    Attributes:
        data: may be empty, in an empty message or at the end of one.
        is_text: a text message; whether it is UTF-8 has been checked.
        begins: the first piece of its message.
        ends: the last one.
    """

    data: bytes
    is_text: bool
    begins: bool
    ends: bool


@dataclass(frozen=True, slots=True)
class PingReceived:
    """The peer asked for a sign of life; the answer is in `data_to_send` already."""


@dataclass(frozen=True, slots=True)
class PongReceived:
    """An answer to our ping, or an unasked sign of life (section 5.5.3)."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """
    The peer sends no more and listens no more; our own Close frame is in `data_to_send` or went out before.

    Attributes:
        code: a `CloseCode` or another number; 1005 when the peer gave none.
    """

    code: int
    reason: str


Event = DataReceived | PingReceived | PongReceived | Closed
