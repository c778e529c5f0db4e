from __future__ import annotations

import asyncio

import pytest

from tests.clocks import ManualClock, settle
from vkubelet.server.expiring_cache import ExpiringCache, Fetched


class Source:
    """Counts what is fetched; waits at `gate` when that is closed."""

    def __init__(self, ttl_s: float = 10.0) -> None:
        self.ttl_s = ttl_s
        self.fetches = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self) -> Fetched[int]:
        self.fetches += 1
        number = self.fetches
        await self.gate.wait()
        return Fetched(number, self.ttl_s)


async def test_an_answer_holds_until_its_time_is_over() -> None:
    clock, source = ManualClock(), Source()
    cache: ExpiringCache[str, int] = ExpiringCache(clock, 10)
    assert await cache.get("a", source.fetch) == 1
    await clock.advance(9.9)
    assert await cache.get("a", source.fetch) == 1
    await clock.advance(0.1)
    assert await cache.get("a", source.fetch) == 2


async def test_an_answer_without_a_lifetime_is_not_kept() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(ManualClock(), 10)
    source = Source(ttl_s=0)
    assert [await cache.get("a", source.fetch), await cache.get("a", source.fetch)] == [1, 2]
    assert len(cache) == 0


async def test_the_least_recently_used_answer_goes_first() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(ManualClock(), 2)
    source = Source()
    for key in ("a", "b", "a", "c"):
        await cache.get(key, source.fetch)
    assert len(cache) == 2
    assert await cache.get("a", source.fetch) == 1
    assert await cache.get("b", source.fetch) == 4


@pytest.mark.parametrize("ttl_s", [10.0, 0.0], ids=["kept", "not kept"])
async def test_many_who_ask_at_the_same_time_share_one_fetch(ttl_s: float) -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(ManualClock(), 10)
    source = Source(ttl_s)
    source.gate.clear()
    askers = [asyncio.create_task(cache.get("a", source.fetch)) for _ in range(20)]
    await settle()
    source.gate.set()
    assert await asyncio.gather(*askers) == [1] * 20


async def test_when_the_one_who_fetches_is_cancelled_another_takes_over() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(ManualClock(), 10)
    source = Source()
    source.gate.clear()
    first, second, third = (asyncio.create_task(cache.get("a", source.fetch)) for _ in range(3))
    await settle()
    first.cancel()
    await settle()
    source.gate.set()
    assert set(await asyncio.gather(second, third)) == {2}
    assert first.cancelled()


async def test_one_who_waits_may_be_cancelled_alone() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(ManualClock(), 10)
    source = Source()
    source.gate.clear()
    first, second = (asyncio.create_task(cache.get("a", source.fetch)) for _ in range(2))
    await settle()
    second.cancel()
    await settle()
    source.gate.set()
    assert await first == 1
    assert second.cancelled()


async def test_an_error_goes_to_the_one_who_fetched_and_the_others_try_again() -> None:
    cache: ExpiringCache[str, int] = ExpiringCache(ManualClock(), 10)
    source = Source()
    failing = asyncio.Event()

    async def fail() -> Fetched[int]:
        await failing.wait()
        raise ValueError("broken")

    first = asyncio.create_task(cache.get("a", fail))
    await settle()
    second = asyncio.create_task(cache.get("a", source.fetch))
    await settle()
    failing.set()
    with pytest.raises(ValueError, match="broken"):
        await first
    assert await second == 1
