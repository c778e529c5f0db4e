"""What a SPDY peer did, as `Connection.receive_data` reports it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "DataReceived",
    "Event",
    "GoAwayReceived",
    "HeadersReceived",
    "PingAcknowledged",
    "StreamEnded",
    "StreamOpened",
    "StreamReplied",
    "StreamReset",
    "WindowOpened",
]


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """
    The peer opened a stream (SYN_STREAM): answer with `reply` or `reset`.

    Attributes:
        headers: names in lower case; Kubernetes' `streamType` is ``streamtype``.
    """

    stream_id: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StreamReplied:
    """The peer accepted a stream of ours (SYN_REPLY)."""

    stream_id: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class HeadersReceived:
    """More headers on an open stream."""

    stream_id: int
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class DataReceived:
    """
    Data, never empty. Say `acknowledge` once it is consumed.

    Where the data is cut says nothing: it follows the chunks that were read as much as the frames.
    """

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer will send no more on this stream (FLAG_FIN); it may still receive."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """
    A stream has ended at once in both directions.

    Attributes:
        status: a `ResetStatus`, or a number unknown to us.
        by_peer: False when we reset it, because the peer broke a rule of this stream alone.
    """

    stream_id: int
    status: int
    by_peer: bool = True


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """`sendable` may have grown, for one stream or with id 0 for all."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class PingAcknowledged:
    """The answer to our `ping`; the peer's own pings are answered without an event."""

    ping_id: int


@dataclass(frozen=True, slots=True)
class GoAwayReceived:
    """The peer will serve no stream after `last_good_stream_id`, and closes when the others have ended."""

    last_good_stream_id: int
    status: int


Event = (
    StreamOpened
    | StreamReplied
    | HeadersReceived
    | DataReceived
    | StreamEnded
    | StreamReset
    | WindowOpened
    | PingAcknowledged
    | GoAwayReceived
)
