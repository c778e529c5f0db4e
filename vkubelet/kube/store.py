"""
What a reflector has seen, by key.

One reflector writes; any number of readers look and wait. Everything happens on the event loop, so there are
no locks and a read is a dictionary's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Added", "Deleted", "Handler", "Modified", "Store", "StoreEvent"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Added(Generic[T]):
    """It was not known before."""

    new: T


@dataclass(frozen=True, slots=True)
class Modified(Generic[T]):
    """It differs from what was known."""

    old: T
    new: T


@dataclass(frozen=True, slots=True)
class Deleted(Generic[T]):
    """It is gone; `old` is its last known state, which after a lost watch may not be the last there was."""

    old: T


StoreEvent = Added[T] | Modified[T] | Deleted[T]

Handler = Callable[[StoreEvent[T]], None]
"""Told of each change, in order, after the store has it; returns at once and does not raise."""


class Store(Generic[K, T]):
    """The present objects of one collection."""

    def __init__(self) -> None:
        self._objects: dict[K, T] = {}
        self._synced = asyncio.Event()

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, key: K) -> bool:
        return key in self._objects

    def get(self, key: K) -> T | None:
        """The object, None when it is not there (or not yet: see `has_synced`)."""
        return self._objects.get(key)

    def values(self) -> tuple[T, ...]:
        """Every object, as it is now."""
        return tuple(self._objects.values())

    @property
    def has_synced(self) -> bool:
        """The whole collection has been listed once, and its handlers told."""
        return self._synced.is_set()

    async def wait_for_sync(self) -> None:
        """Return once it `has_synced`."""
        await self._synced.wait()

    # --- for the reflector

    def put(self, key: K, value: T) -> StoreEvent[T] | None:
        """Take `value`; returns what has changed, None when nothing has."""
        old = self._objects.get(key)
        self._objects[key] = value
        if old is None:
            return Added(value)
        return None if old == value else Modified(old, value)

    def remove(self, key: K) -> Deleted[T] | None:
        """Forget the object; returns what has changed, None when it was not known."""
        old = self._objects.pop(key, None)
        return None if old is None else Deleted(old)

    def replace(self, objects: Iterable[tuple[K, T]]) -> list[StoreEvent[T]]:
        """Take a new state of the whole collection; returns what has changed, the deletions first."""
        present = dict(objects)
        gone = [key for key in self._objects if key not in present]
        changes: list[StoreEvent[T]] = [Deleted(self._objects.pop(key)) for key in gone]
        changes.extend(e for key, value in present.items() if (e := self.put(key, value)) is not None)
        return changes

    def mark_synced(self) -> None:
        """The first list is complete and told."""
        self._synced.set()
