"""The identity of a pod."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PodKey"]


@dataclass(frozen=True, slots=True, order=True)
class PodKey:
    """
    Which pod: the uid tells a pod from its successor of the same name (StatefulSets make such).

    `str` gives the ``namespace/name(uid)`` that the kubelet's logs use.
    """

    namespace: str
    name: str
    uid: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}({self.uid})"
