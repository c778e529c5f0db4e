from __future__ import annotations

import asyncio

import aiohttp
import pytest

from tests.clocks import ManualClock
from vkubelet.errors import ApiError, ApiUnavailableError, ForbiddenError
from vkubelet.server.review_retry import retried


class Review:
    """Raises the given errors one after the other, then answers; notes when it was asked."""

    def __init__(self, clock: ManualClock, *errors: ApiError) -> None:
        self._clock = clock
        self._errors = list(errors)
        self.asked_at: list[float] = []

    async def __call__(self) -> str:
        self.asked_at.append(self._clock.monotonic())
        if self._errors:
            raise self._errors.pop(0)
        return "yes"


def broken(cause: Exception) -> ApiUnavailableError:
    error = ApiUnavailableError("no answer")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        ApiUnavailableError("internal error", code=500),
        ApiUnavailableError("too many requests", code=429),
        ApiUnavailableError("time-out", code=504),
        ApiUnavailableError("wait", code=503, retry_after_s=1.0),
        broken(aiohttp.ServerDisconnectedError()),
        broken(ConnectionResetError()),
    ],
    ids=["500", "429", "504", "503 with a delay", "idle connection closed", "reset"],
)
async def test_what_passes_is_tried_again(error: ApiUnavailableError) -> None:
    clock = ManualClock()
    review = Review(clock, error)
    asking = asyncio.create_task(retried(review, clock))
    await clock.advance(0.61)
    assert await asking == "yes"
    assert len(review.asked_at) == 2


@pytest.mark.parametrize(
    "error",
    [ForbiddenError("no", code=403), ApiUnavailableError("refused"), ApiUnavailableError("bad", code=502)],
    ids=["403", "nobody there", "502"],
)
async def test_what_does_not_pass_is_told_at_once(error: ApiError) -> None:
    clock = ManualClock()
    review = Review(clock, error)
    with pytest.raises(type(error)):
        await retried(review, clock)
    assert review.asked_at == [0]


async def test_the_fifth_try_is_the_last_and_each_waits_longer() -> None:
    clock = ManualClock()
    review = Review(clock, *(ApiUnavailableError(f"try {n}", code=500) for n in range(1, 7)))
    asking = asyncio.create_task(retried(review, clock))
    await clock.advance(10)
    with pytest.raises(ApiUnavailableError, match="try 5"):
        await asking
    delays = [after - before for before, after in zip(review.asked_at, review.asked_at[1:], strict=False)]
    assert len(delays) == 4
    for delay, least in zip(delays, (0.5, 0.75, 1.125, 1.6875), strict=True):
        assert least <= delay <= least * 1.2
