"""
How long a container that failed waits before it is tried again.

Functions of counts, not objects with a memory: who counts (the pod engine, from what the runtime still has)
decides what survives a restart of vkubelet.
"""

from __future__ import annotations

__all__ = ["STABLE_AFTER_S", "image_pull_delay_s", "restart_delay_s"]

STABLE_AFTER_S = 600.0
"""A container that ran for that long has recovered: its next failure counts as its first."""

_FIRST_S = 10.0
_LONGEST_S = 300.0


def restart_delay_s(failures: int, ran_for_s: float) -> float:
    """
    Seconds to wait before a crashed container is started again.

    Implements the kubelet's CrashLoopBackOff (Kubernetes docs, "Pod Lifecycle"): none after the
    first exit, then 10 s, doubled up to 300 s; a container that ran for 600 s starts afresh.

    Args:
        failures: exits since the delay was last reset, at least 1.
        ran_for_s: how long the container had been running when it exited.

    Raises:
        ValueError: `failures` is below 1.
    """
    _check(failures)
    if failures == 1 or ran_for_s >= STABLE_AFTER_S:
        return 0.0
    return _doubled(failures - 1)


def image_pull_delay_s(failures: int) -> float:
    """
    Seconds to wait before an image is pulled again: ImagePullBackOff.

    10 s after the first failure, doubled up to 300 s (Kubernetes docs, "Images").

    Args:
        failures: failed pulls in a row, at least 1.

    Raises:
        ValueError: `failures` is below 1.
    """
    _check(failures)
    return _doubled(failures)


def _doubled(step: int) -> float:
    """The `step`-th delay, from 1; the exponent is kept small for containers that crash for years."""
    return min(_FIRST_S * 2.0 ** min(step - 1, 10), _LONGEST_S)


def _check(failures: int) -> None:
    if failures < 1:
        raise ValueError(f"there is nothing to wait for after {failures} failures")
