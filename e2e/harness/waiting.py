"""Waits for a condition, and says what was last seen when it does not come."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_until"]

_T = TypeVar("_T")
_FIRST_INTERVAL_S = 0.05
_LONGEST_INTERVAL_S = 1.0


def wait_until(
    condition: Callable[[], _T | None],
    *,
    timeout_s: float,
    describe: str,
    seen: Callable[[], object] | None = None,
) -> _T:
    """
    Call `condition` until its answer is true, and return that.

    Args:
        condition: called again after 50 ms, then more rarely, at least once a second.
        timeout_s: how long to go on.
        describe: what is waited for, as the end of "waited 30 s for ...".
        seen: called when the time is up, for the message.

    Raises:
        AssertionError: the time is up.
    """
    deadline = time.monotonic() + timeout_s
    interval_s = _FIRST_INTERVAL_S
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            last = seen() if seen is not None else answer
            raise AssertionError(f"waited {timeout_s:.0f} s for {describe}; last seen: {last}")
        time.sleep(min(interval_s, max(0.0, deadline - time.monotonic())))
        interval_s = min(interval_s * 1.5, _LONGEST_INTERVAL_S)
