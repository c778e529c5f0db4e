"""
Tries a review again when the API server could not answer just now.

As the kubelet's webhooks do (``DefaultAuthWebhookRetryBackoff``, ``DefaultShouldRetry``): five tries, half a
second apart and then half as long again each time. An API server that cannot be reached at all is not asked
again: the client waits for our answer, and will ask again itself.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import aiohttp

from vkubelet.clock import Clock
from vkubelet.errors import ApiUnavailableError

__all__ = ["retried"]

T = TypeVar("T")

_TRIES = 5
_FIRST_DELAY_S = 0.5
_FACTOR = 1.5
_JITTER = 0.2
_TRANSIENT_CODES = (429, 500, 504)


async def retried(review: Callable[[], Awaitable[T]], clock: Clock) -> T:
    """
    What `review` gives, at the latest on its fifth try.

    Raises:
        ApiError: the last try's.
    """
    delay_s = _FIRST_DELAY_S
    for _ in range(_TRIES - 1):
        try:
            return await review()
        except ApiUnavailableError as error:
            if not _is_transient(error):
                raise
        await clock.sleep(delay_s * random.uniform(1, 1 + _JITTER))
        delay_s *= _FACTOR
    return await review()


def _is_transient(error: ApiUnavailableError) -> bool:
    if error.code:
        return error.code in _TRANSIENT_CODES or error.retry_after_s is not None
    # A connection that broke under us, such as an idle one of an API server that was restarted.
    return isinstance(error.__cause__, (ConnectionResetError, aiohttp.ServerDisconnectedError))
