"""
How many requests a second: a bucket that fills at a steady rate and holds a burst.

One for the whole server and before anybody is asked who the client is, since that question is what a flood of
made-up tokens would put to the API server.
"""

from __future__ import annotations

import math

from vkubelet.clock import Clock

__all__ = ["TokenBucket"]


class TokenBucket:
    """
    Full at first; `per_s` of 0 sets no limit.

    Args:
        per_s: tokens that come back each second.
        burst: tokens that it holds.
    """

    def __init__(self, per_s: float, burst: int, clock: Clock) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._filled_at = clock.monotonic()

    def take(self) -> int:
        """0 if a token was there and is taken, else the whole seconds after which to ask again."""
        if not self._per_s:
            return 0
        now = self._clock.monotonic()
        self._tokens = min(self._tokens + (now - self._filled_at) * self._per_s, self._burst)
        self._filled_at = now
        if self._tokens < 1:
            return math.ceil((1 - self._tokens) / self._per_s)
        self._tokens -= 1
        return 0
