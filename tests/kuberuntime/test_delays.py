"""Durations as Go prints them, and waits before another try."""

from __future__ import annotations

import pytest

from vkubelet.kuberuntime import delays


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0004, "0s"),
        (0.015, "15ms"),
        (1, "1s"),
        (1.234, "1.234s"),
        (10, "10s"),
        (59.9, "59.9s"),
        (80, "1m20s"),
        (300, "5m0s"),
        (3600, "1h0m0s"),
        (3661.5, "1h1m1.5s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert delays.go_duration(seconds) == text


def test_waits_double_up_to_half_a_minute_unless_told() -> None:
    assert [delays.unavailable_retry_s(n, None) for n in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert delays.unavailable_retry_s(10_000, None) == 30
    assert delays.unavailable_retry_s(3, 0.5) == 0.5


def test_ten_minutes_break_a_row_of_failures() -> None:
    assert delays.failures_after_exit(4, 599) == 5
    assert delays.failures_after_exit(4, 600) == 1
