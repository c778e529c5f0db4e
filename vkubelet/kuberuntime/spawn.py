"""How parts of the engine start tasks: through the provider, which owns and ends them all."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

__all__ = ["Spawn"]


class Spawn(Protocol):
    """Starts a task that its owner ends with itself."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """The task, named."""
