"""The keyed queue: one worker a key, nothing twice, nothing lost."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clocks import ManualClock, settle
from vkubelet.controllers.work_queue import LAST_RETRY_S, WorkQueue
from vkubelet.errors import ApiUnavailableError, ProviderUnavailableError


@asynccontextmanager
async def running(
    handler: Callable[[str], Awaitable[None]], *, workers: int = 2
) -> AsyncIterator[tuple[WorkQueue[str], ManualClock]]:
    clock = ManualClock()
    queue: WorkQueue[str] = WorkQueue("test", handler, workers=workers, clock=clock)
    task = asyncio.create_task(queue.run())
    try:
        await settle()
        yield queue, clock
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_key_added_twice_before_its_turn_is_handled_once() -> None:
    seen: list[str] = []

    async def handler(key: str) -> None:
        seen.append(key)

    async with running(handler) as (queue, _):
        queue.add("a")
        queue.add("a")
        queue.add("b")
        await settle()
        assert seen == ["a", "b"]
        assert queue.is_idle


async def test_a_key_added_while_it_is_handled_is_handled_again_afterwards() -> None:
    gate = asyncio.Event()
    active = Counter[str]()
    seen: list[str] = []

    async def handler(key: str) -> None:
        active[key] += 1
        assert active[key] == 1, "two workers hold one key"
        seen.append(key)
        await gate.wait()
        active[key] -= 1

    async with running(handler) as (queue, _):
        queue.add("a")
        await settle()
        queue.add("a")
        queue.add("a")
        await settle()
        assert seen == ["a"]
        gate.set()
        await settle()
        assert seen == ["a", "a"]


async def test_different_keys_are_handled_in_parallel_up_to_the_number_of_workers() -> None:
    gate = asyncio.Event()
    active: set[str] = set()
    most = 0

    async def handler(key: str) -> None:
        nonlocal most
        active.add(key)
        most = max(most, len(active))
        await gate.wait()
        active.discard(key)

    async with running(handler, workers=3) as (queue, _):
        for key in "abcdef":
            queue.add(key)
        await settle()
        assert most == 3
        gate.set()
        await settle()
        assert queue.is_idle


async def test_the_earliest_of_several_delays_holds() -> None:
    seen: list[str] = []

    async def handler(key: str) -> None:
        seen.append(key)

    async with running(handler) as (queue, clock):
        queue.add_after("a", 10)
        queue.add_after("a", 5)
        queue.add_after("a", 20)
        await clock.advance(4.9)
        assert seen == []
        await clock.advance(0.2)
        assert seen == ["a"]
        await clock.advance(60)
        assert seen == ["a"]


async def test_a_failing_key_is_retried_with_growing_delays_and_others_go_on() -> None:
    times: list[float] = []
    others: list[str] = []

    async def handler(key: str) -> None:
        if key == "bad":
            times.append(clock.monotonic())
            raise ValueError("no")
        others.append(key)

    async with running(handler) as (queue, clock):
        queue.add("bad")
        queue.add("good")
        for _ in range(400):
            await clock.advance(1)
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert len(times) > 9
        assert all(later >= earlier * 0.99 for earlier, later in itertools.pairwise(gaps[:8]))
        assert max(gaps) <= LAST_RETRY_S * 1.25 + 1
        assert others == ["good"]


async def test_a_success_resets_the_back_off() -> None:
    times: list[float] = []
    failing = True

    async def handler(key: str) -> None:
        times.append(clock.monotonic())
        if failing:
            raise ValueError("no")

    async with running(handler) as (queue, clock):
        queue.add("a")
        await clock.advance(20)
        failing = False
        await clock.advance(60)
        failing = True
        times.clear()
        queue.add("a")
        await clock.advance(0.5)
        assert len(times) == 2


async def test_an_unavailable_provider_says_when_to_come_back() -> None:
    times: list[float] = []

    async def handler(key: str) -> None:
        times.append(clock.monotonic())
        if len(times) == 1:
            raise ProviderUnavailableError("busy", retry_after_s=42)

    async with running(handler) as (queue, clock):
        queue.add("a")
        await clock.advance(41)
        assert len(times) == 1
        await clock.advance(2)
        assert times == [0, 42]


async def test_forget_drops_what_was_planned() -> None:
    seen: list[str] = []

    async def handler(key: str) -> None:
        seen.append(key)

    async with running(handler) as (queue, clock):
        queue.add_after("a", 5)
        queue.forget("a")
        await clock.advance(60)
        assert seen == []


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=30), st.integers(1, 4))
def test_whatever_is_added_every_key_is_handled_after_its_last_add(keys: list[str], workers: int) -> None:
    async def scenario() -> None:
        added: dict[str, int] = {}
        handled: dict[str, int] = {}
        active: set[str] = set()

        async def handler(key: str) -> None:
            assert key not in active
            active.add(key)
            started_with = added[key]
            await asyncio.sleep(0)
            active.discard(key)
            handled[key] = started_with

        async with running(handler, workers=workers) as (queue, _):
            for number, key in enumerate(keys):
                added[key] = number
                queue.add(key)
                if number % 3 == 0:
                    await asyncio.sleep(0)
            await settle(200)
            assert handled == added

    asyncio.run(scenario())


async def test_a_key_that_fails_for_days_is_still_retried() -> None:
    times: list[float] = []

    async def handler(key: str) -> None:
        times.append(clock.monotonic())
        raise ApiUnavailableError("no answer")

    async with running(handler) as (queue, clock):
        queue.add("a")
        await clock.advance(30 * 3600)
        assert len(times) > 30 * 3600 / (LAST_RETRY_S * 1.25)
