"""
Answers that hold for a while, each fetched once however many ask for it at the same time.

For the reviews of tokens and access: bounded (the least recently used goes first), since keys are made from
what strangers send. The one who asks first fetches in its own task; should it be cancelled, one of those who
wait takes over. (A task of the cache's own would need an owner and an end.)
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from vkubelet.clock import Clock

__all__ = ["ExpiringCache", "Fetched"]

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Fetched(Generic[V]):
    """
    A fresh answer.

    Attributes:
        ttl_s: how long it holds; 0 gives it only to those who wait for it now.
    """

    value: V
    ttl_s: float


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    expires_at: float


class ExpiringCache(Generic[K, V]):
    """At most `max_entries` answers by key."""

    def __init__(self, clock: Clock, max_entries: int) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._entries: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._flights: dict[K, asyncio.Future[Fetched[V] | None]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: K, fetch: Callable[[], Awaitable[Fetched[V]]]) -> V:
        """
        The answer that is held, or else the one that `fetch` gives.

        What `fetch` raises goes to the one whose `fetch` it was; the others who waited try in turn.
        """
        while True:
            if (entry := self._fresh(key)) is not None:
                return entry.value
            flight = self._flights.get(key)
            if flight is None:
                return await self._fly(key, fetch)
            landed = await asyncio.shield(flight)
            if landed is not None:
                return landed.value

    def _fresh(self, key: K) -> _Entry[V] | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires_at <= self._clock.monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry

    async def _fly(self, key: K, fetch: Callable[[], Awaitable[Fetched[V]]]) -> V:
        flight: asyncio.Future[Fetched[V] | None] = asyncio.get_running_loop().create_future()
        self._flights[key] = flight
        fetched: Fetched[V] | None = None
        try:
            fetched = await fetch()
        finally:
            del self._flights[key]
            flight.set_result(fetched)
        self._keep(key, fetched)
        return fetched.value

    def _keep(self, key: K, fetched: Fetched[V]) -> None:
        if fetched.ttl_s <= 0:
            return
        self._entries[key] = _Entry(fetched.value, self._clock.monotonic() + fetched.ttl_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)
