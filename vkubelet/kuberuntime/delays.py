"""
How long the engine waits before it tries something again, and how the kubelet writes such times.

CrashLoopBackOff itself is `model.backoff`'s; here is what surrounds it.
"""

from __future__ import annotations

from vkubelet.model import backoff

__all__ = ["SYNC_RETRY_S", "failures_after_exit", "go_duration", "unavailable_retry_s"]

SYNC_RETRY_S = 10.0
"""Before a start that failed is tried again (kubelet: backOffPeriod)."""

_LAST_RETRY_S = 30.0


def failures_after_exit(failures_before: int, ran_for_s: float) -> int:
    """Exits in a row, this one included: one that came after `STABLE_AFTER_S` starts a new row."""
    return 1 if ran_for_s >= backoff.STABLE_AFTER_S else failures_before + 1


def unavailable_retry_s(errors: int, retry_after_s: float | None) -> float:
    """The wait after the `errors`-th failed pass in a row: 1 s, doubled up to 30 s, or what was asked for."""
    return retry_after_s if retry_after_s is not None else min(2.0 ** min(errors - 1, 10), _LAST_RETRY_S)


def go_duration(seconds: float) -> str:
    """
    A duration as Go prints it, to the millisecond: ``1m20s``, ``1.234s``, ``15ms``, ``0s``.

    Kubernetes' messages contain such, and people's scripts look for them.
    """
    millis = int(seconds * 1000)
    if millis == 0:
        return "0s"
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
