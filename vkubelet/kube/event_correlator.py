"""
Which Events reach the API server, and which are counted instead. Pure but for its memory.

The rules are client-go's (``tools/record``), so that a pod in trouble looks as it does elsewhere: the same
event again raises `count` on the first one; from the tenth message of one kind within ten minutes on, they
share one event, "(combined from similar events)"; and an object that has sent 25 gets one more every 5
minutes.

Memory is bounded by the number of kinds of events remembered. Keys are hashes, 32 bytes instead of several
hundred; two of 4,096 that are equal by accident (one in 10^12) would merge two counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

__all__ = ["EventCorrelator", "EventType", "ObjectReference", "Observation", "Occurrence"]

EventType = Literal["Normal", "Warning"]
T = TypeVar("T")

_REMEMBERED = 4096
_COMBINE_AFTER = 10
_COMBINE_WITHIN_S = 600.0
_BURST = 25
_REFILL_S = 300.0
_COMBINED = "(combined from similar events): "


@dataclass(frozen=True, slots=True)
class ObjectReference:
    """
    What an Event is about (`v1.ObjectReference`).

    Attributes:
        namespace: "" for a Node; its Events are in ``default``.
        field_path: the part of the object, such as ``spec.containers{web}``.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str = ""
    field_path: str = ""
    api_version: str = "v1"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """
    Something happened.

    Attributes:
        at_s: monotonic time, for the intervals.
        timestamp: RFC 3339, for people.
        name: of the Event object, if it becomes one.
    """

    about: ObjectReference
    type: EventType
    reason: str
    message: str
    at_s: float
    timestamp: str
    name: str


@dataclass(frozen=True, slots=True)
class Observation:
    """
    What to tell the API server: create the Event `name`, or raise its count when `count` is above 1.

    Attributes:
        message: may be a combined one.
    """

    name: str
    message: str
    count: int
    first_timestamp: str


class EventCorrelator:
    """Remembers what was told."""

    def __init__(self) -> None:
        self._told: _Recent[tuple[str, int, str]] = _Recent(_REMEMBERED)
        self._similar: _Recent[tuple[float, frozenset[int]]] = _Recent(_REMEMBERED)
        self._allowances: _Recent[tuple[float, float]] = _Recent(_REMEMBERED)

    def observe(self, occurrence: Occurrence) -> Observation | None:
        """What to tell, None when the object has had its share."""
        message, key = self._combined(occurrence)
        name, count, first = self._told.get(key) or (occurrence.name, 0, occurrence.timestamp)
        self._told.put(key, (name, count + 1, first))
        if not self._has_allowance(occurrence):
            return None
        return Observation(name, message, count + 1, first)

    def _combined(self, occurrence: Occurrence) -> tuple[str, int]:
        """The message, and the key under which it is counted."""
        kind = (occurrence.about.uid, _who(occurrence.about), occurrence.type, occurrence.reason)
        group, own = hash(kind), hash((kind, occurrence.about.field_path, occurrence.message))
        last_s, messages = self._similar.get(group) or (occurrence.at_s, frozenset[int]())
        if occurrence.at_s - last_s > _COMBINE_WITHIN_S:
            messages = frozenset()
        message = hash(occurrence.message)
        if len(messages | {message}) < _COMBINE_AFTER:
            self._similar.put(group, (occurrence.at_s, messages | {message}))
            return occurrence.message, own
        self._similar.put(group, (occurrence.at_s, messages))
        return _COMBINED + occurrence.message, group

    def _has_allowance(self, occurrence: Occurrence) -> bool:
        """A token bucket for each object and type."""
        key = hash((occurrence.about.uid, _who(occurrence.about), occurrence.type))
        tokens, since_s = self._allowances.get(key) or (float(_BURST), occurrence.at_s)
        tokens = min(tokens + (occurrence.at_s - since_s) / _REFILL_S, float(_BURST))
        allowed = tokens >= 1.0
        self._allowances.put(key, (tokens - 1.0 if allowed else tokens, occurrence.at_s))
        return allowed


def _who(about: ObjectReference) -> tuple[str, str, str]:
    return about.kind, about.namespace, about.name


class _Recent(Generic[T]):
    """A map that forgets what was not used for longest."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._values: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, key: int) -> T | None:
        return self._values.get(key)

    def put(self, key: int, value: T) -> None:
        self._values[key] = value
        self._values.move_to_end(key)
        if len(self._values) > self._limit:
            self._values.popitem(last=False)
