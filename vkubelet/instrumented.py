"""
Counts and traces the methods that classes of a contract implement.

A contract's `__init_subclass__` calls `instrument`, so that every implementation is observed, third parties'
as well, and none has to think of it. Turned down: a wrapper around the object, which has to repeat each
method, hides the powers that the object has beside the contract, and forgets the next method.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from vkubelet import tracing

__all__ = ["instrument"]


def instrument(
    implementation: type, methods: Mapping[str, str], observe: Callable[[str], AbstractContextManager[None]]
) -> None:
    """
    Let the methods that a class defines itself be observed whenever they are called.

    Args:
        implementation: the class, just made; what it inherits is observed already.
        methods: coroutine functions by name, and the word that each is observed under.
        observe: is entered for a call, with that word.
    """
    for name, word in methods.items():
        function = implementation.__dict__.get(name)
        if inspect.iscoroutinefunction(function):
            setattr(implementation, name, _observed(function, word, observe))


def _observed(
    function: Callable[..., Awaitable[Any]], word: str, observe: Callable[[str], AbstractContextManager[None]]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(function)
    async def observed(*args: object, **kwargs: object) -> Any:
        with observe(word), tracing.span(word):
            return await function(*args, **kwargs)

    return observed
