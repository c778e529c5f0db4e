"""Several calls at once, as one call."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

__all__ = ["gather"]

T = TypeVar("T")


async def gather(calls: Iterable[Coroutine[Any, Any, T]], name: str) -> list[T]:
    """
    The results in order; the first error ends the others, which `asyncio.gather` would leave running.

    Args:
        calls: what to await.
        name: of their tasks.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call, name=name) for call in calls]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
