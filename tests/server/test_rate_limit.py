from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.clocks import ManualClock
from vkubelet.server.rate_limit import TokenBucket


async def test_a_burst_is_let_through_and_then_one_by_one() -> None:
    clock = ManualClock()
    bucket = TokenBucket(2, 3, clock)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1]
    await clock.advance(0.5)
    assert [bucket.take() for _ in range(2)] == [0, 1]
    await clock.advance(100)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, 1]


def test_zero_is_no_limit() -> None:
    bucket = TokenBucket(0, 1, ManualClock())
    assert not any(bucket.take() for _ in range(100))


@given(
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20)), max_size=20),
    st.integers(1, 50),
    st.integers(1, 50),
)
async def test_never_more_than_burst_and_rate_allow(
    waves: list[tuple[float, int]], per_s: int, burst: int
) -> None:
    clock = ManualClock()
    bucket, taken = TokenBucket(per_s, burst, clock), 0
    for wait_s, asks in waves:
        clock._elapsed += wait_s
        taken += sum(bucket.take() == 0 for _ in range(asks))
        assert taken <= burst + per_s * clock.monotonic() + 1e-6
