from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.model import backoff


def test_a_crashing_container_waits_longer_each_time_up_to_five_minutes() -> None:
    assert [backoff.restart_delay_s(n, 1.0) for n in range(1, 9)] == [0, 10, 20, 40, 80, 160, 300, 300]


def test_a_container_that_ran_for_ten_minutes_starts_afresh() -> None:
    assert backoff.restart_delay_s(5, 599.9) == 80
    assert backoff.restart_delay_s(5, 600.0) == 0


def test_an_image_that_cannot_be_pulled_waits_from_its_first_failure_on() -> None:
    assert [backoff.image_pull_delay_s(n) for n in range(1, 8)] == [10, 20, 40, 80, 160, 300, 300]


@given(st.integers(1, 10**9))
def test_delays_grow_and_end(failures: int) -> None:
    assert backoff.restart_delay_s(failures, 0) <= backoff.restart_delay_s(failures + 1, 0) <= 300
    assert backoff.restart_delay_s(failures, 0) < backoff.image_pull_delay_s(failures) or failures > 5


@pytest.mark.parametrize("failures", [0, -1])
def test_no_failure_has_no_delay(failures: int) -> None:
    with pytest.raises(ValueError, match="nothing to wait for"):
        backoff.restart_delay_s(failures, 0)
    with pytest.raises(ValueError, match="nothing to wait for"):
        backoff.image_pull_delay_s(failures)
