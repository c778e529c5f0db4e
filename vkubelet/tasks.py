"""
Groups of tasks with one parent: what `app` starts, it also ends.

Built on `asyncio.TaskGroup`: a loop that fails unexpectedly ends its siblings and their parent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["running", "unless"]


@asynccontextmanager
async def running(
    *loops: Coroutine[Any, Any, object], drain: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[None]:
    """Run these loops inside; on a good exit `drain` is awaited first, then they are cancelled."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(loop, name=getattr(loop, "__qualname__", None)) for loop in loops]
        try:
            yield
            if drain is not None:
                await drain()
        finally:
            for task in tasks:
                task.cancel()


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Await `work`, but not longer than until `stop`; whether it was finished."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        stopping = group.create_task(stop.wait())
        done, _ = await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (working, stopping):
            task.cancel()
    return working in done
