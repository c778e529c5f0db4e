"""
Pods that say the same thing share the objects that say it.

Decoded, a pod of a Deployment takes 15 KB, of which most is equal in its siblings: tolerations, labels, the
token volume, conditions that became true in the same second. `SharedValues` puts one object in the place of
equal ones, which leaves 5 KB and takes no time, as less memory is asked for. It works because nobody changes
a raw object.

What is equal is told by its JSON text, as orjson writes it faster than Python could compare anything. Only
known places are looked at, since going through every value of a pod costs far more than it brings.
"""

from __future__ import annotations

from typing import Any

import orjson

from vkubelet.model.pod import Json

__all__ = ["SharedValues"]

_GENERATION = 4096
_RECORDS = {
    "metadata": (),
    "spec": ("containers", "initContainers", "ephemeralContainers", "volumes"),
    "status": ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"),
}
"""Lists of records; their fields are shared one by one, since one of them differs in each pod."""

_ENTRIES = frozenset({"conditions", "env", "volumeMounts"})
"""Lists whose entries are shared one by one."""

_UNIQUE = frozenset(
    {"uid", "name", "resourceVersion", "podIP", "podIPs", "containerID", "annotations", "hostname"}
)
"""Fields that are equal in no two pods; sharing them would only fill the table."""


class SharedValues:
    """
    The values in use.

    At most two generations of 4,096: when one is full the one before it is forgotten, and what is still met
    moves on. Forgetting a value only means that it is shared no more.
    """

    def __init__(self) -> None:
        self._young: dict[str | bytes, Any] = {}
        self._old: dict[str | bytes, Any] = {}

    def share(self, pod: Json) -> Json:
        """Let a raw pod use values of others, in place; returns it."""
        for part, record_lists in _RECORDS.items():
            fields = pod.get(part)
            if isinstance(fields, dict):
                self._share_fields(fields, record_lists)
        return pod

    def _share_fields(self, fields: Json, record_lists: tuple[str, ...] = ()) -> None:
        for name, value in fields.items():
            if name in record_lists:
                for record in value or ():
                    self._share_fields(record)
            elif name in _ENTRIES:
                fields[name] = [self._shared(orjson.dumps(entry), entry) for entry in value or ()]
            elif name not in _UNIQUE:
                kind = type(value)
                if kind is str:
                    fields[name] = self._shared(value, value)
                elif kind is dict or kind is list:
                    fields[name] = self._shared(orjson.dumps(value), value)

    def _shared(self, key: str | bytes, value: Any) -> Any:
        found = self._young.get(key)
        if found is not None:
            return found
        found = self._old.get(key, value)
        if len(self._young) >= _GENERATION:
            self._old, self._young = self._young, {}
        # What orjson returns holds on to a buffer of 4 KB, so a copy is kept.
        self._young[key if isinstance(key, str) else bytes(memoryview(key))] = found
        return found
