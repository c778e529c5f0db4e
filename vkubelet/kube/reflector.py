"""
Keeps a store equal to a collection of the API server: list once, watch from there, for ever.

The rules are client-go's Reflector (Kubernetes API concepts, "Efficient detection of changes"): a list is
read in pages and consistently, never with ``resourceVersion=0``, because what is missing from it counts as
deleted; a watch goes on from the last version seen, kept fresh by bookmarks; 410 Gone means to list again;
everything else is retried from where it was, after 0.8 s doubled up to 30 s with jitter, so that a restarted
API server is not met by every node at once. A watch that the server ends in its time is renewed at once.

Handlers are told in order. After a lost watch they see what a list can show: a pod that was replaced by
another of its name is deleted first and added after, since keys carry the uid.

The streaming list (``sendInitialEvents``) was turned down: it saves the API server memory at thousands of
objects per watcher, and a node has hundreds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Hashable, Mapping
from typing import Generic, Never, TypeVar

import orjson
import structlog

from vkubelet import metrics
from vkubelet.clock import Clock
from vkubelet.errors import ApiError, ApiUnavailableError, GoneError
from vkubelet.kube.api_errors import error_from_status
from vkubelet.kube.rest import RestClient
from vkubelet.kube.store import Handler, Store, StoreEvent
from vkubelet.model.pod import Json

__all__ = ["Reflector"]

log = structlog.get_logger(__name__)

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

_PAGE = 250
_BATCH = 50
"""Changes handled before others get a turn on the event loop."""

_SHORTEST_WATCH_S = 1.0
"""A watch that ends earlier and without an event is a failure: the server does not mean it."""

_NOT_UNDERSTOOD = (KeyError, TypeError, ValueError, AttributeError)

_FIRST_DELAY_S = 0.8
_LONGEST_DELAY_S = 30.0
_WATCH_S = (300, 600)


class Reflector(Generic[K, T]):
    """
    One collection, and the store that mirrors it.

    Attributes:
        store: the mirror; readers wait for its `has_synced`.
    """

    def __init__(
        self,
        client: RestClient,
        path: str,
        *,
        key: Callable[[Json], K],
        parse: Callable[[Json], T | None],
        clock: Clock,
        params: Mapping[str, str] | None = None,
        handler: Handler[T] | None = None,
        store: Store[K, T] | None = None,
    ) -> None:
        """
        Name the collection; `run` does the work.

        Args:
            client: where to ask.
            path: of the collection, such as ``/api/v1/pods``.
            key: the identity of a raw object.
            parse: its value, None for an object that is of no interest. It may keep the raw object.
            clock: for the delays between failures.
            params: such as a ``fieldSelector``.
            handler: told of each change.
            store: to mirror into; a new one by default.
        """
        self.store: Store[K, T] = Store() if store is None else store
        self._client = client
        self._path = path
        self._params = dict(params or {})
        self._key = key
        self._parse = parse
        self._handler = handler
        self._clock = clock
        self._version = ""
        self._failures = 0

    async def run(self) -> Never:
        """Mirror until cancelled; no answer of the API server ends it."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                metrics.watch_restarted(self._path)
            except GoneError as error:
                log.info("watch starts over", path=self._path, reason=str(error))
                self._version = ""
                await self._back_off(error)
            except ApiError as error:
                log.warning("watch failed", path=self._path, error=str(error), failures=self._failures)
                await self._back_off(error)

    # --- list

    async def _list(self) -> None:
        """Replace the store by what there is now."""
        try:
            objects, version = await self._pages(_PAGE)
        except GoneError:  # the pages took longer than the API server remembers: all at once, then
            objects, version = await self._pages(0)
        await self._tell(self.store.replace(objects.items()))
        self.store.mark_synced()
        self._version = version
        log.debug("listed", path=self._path, objects=len(objects), resource_version=version)

    async def _pages(self, limit: int) -> tuple[dict[K, T], str]:
        objects: dict[K, T] = {}
        version = ""
        async for page in self._client.list_pages(self._path, self._params, limit=limit):
            version = page.get("metadata", {}).get("resourceVersion") or ""
            for number, raw in enumerate(page.get("items") or ()):
                if (parsed := self._parsed(raw)) is not None:
                    objects[parsed[0]] = parsed[1]
                if number % _BATCH == _BATCH - 1:
                    await asyncio.sleep(0)
        if not version:
            raise ApiUnavailableError(f"GET {self._path}: the answer is no list")
        return objects, version

    async def _tell(self, changes: list[StoreEvent[T]]) -> None:
        for number, change in enumerate(changes, 1):
            self._handle(change)
            if number % _BATCH == 0:
                await asyncio.sleep(0)

    # --- watch

    async def _watch(self) -> None:
        """
        Follow one watch to its end.

        Raises:
            ApiError: it failed or was refused; the version reached so far is kept.
        """
        started, seen = self._clock.monotonic(), 0
        params = {**self._params, "resourceVersion": self._version, "allowWatchBookmarks": "true"}
        async with self._client.watch(self._path, params, timeout_s=random.randint(*_WATCH_S)) as batches:
            async for lines in batches:
                for number, line in enumerate(lines, 1):
                    self._receive(line)
                    if number % _BATCH == 0:
                        await asyncio.sleep(0)
                seen += len(lines)
                self._failures = 0
                await asyncio.sleep(0)
        if not seen and self._clock.monotonic() - started < _SHORTEST_WATCH_S:
            raise ApiUnavailableError(f"WATCH {self._path}: it ended at once and without an event")

    def _receive(self, line: bytes) -> None:
        """
        Take one watch event.

        Raises:
            GoneError: list again.
            ApiUnavailableError: it is no event, or reports another failure.
        """
        try:
            event: Json = orjson.loads(line)
            kind, raw = event["type"], event["object"]
            if kind == "ERROR":
                raise error_from_status(raw)
            version: str = raw["metadata"]["resourceVersion"]
        except (ValueError, KeyError, TypeError) as error:
            raise ApiUnavailableError(f"WATCH {self._path}: not an event: {line[:100]!r}") from error
        match kind:
            case "ADDED" | "MODIFIED":
                self._put(raw)
            case "DELETED":
                self._remove(raw)
            case _:
                pass  # BOOKMARK, and what may come in later versions
        self._version = version

    def _put(self, raw: Json) -> None:
        parsed = self._parsed(raw)
        if parsed is None:
            self._remove(raw)
        elif (change := self.store.put(*parsed)) is not None:
            self._handle(change)

    def _remove(self, raw: Json) -> None:
        try:
            key = self._key(raw)
        except _NOT_UNDERSTOOD:
            log.exception("object not understood", path=self._path, metadata=raw.get("metadata"))
            return
        if (change := self.store.remove(key)) is not None:
            self._handle(change)

    # --- parts

    def _parsed(self, raw: Json) -> tuple[K, T] | None:
        """
        Key and value; None when it is of no interest or makes no sense.

        One strange object must not keep the node from seeing the others.
        """
        try:
            value = self._parse(raw)
            return None if value is None else (self._key(raw), value)
        except _NOT_UNDERSTOOD:
            log.exception("object not understood", path=self._path, metadata=raw.get("metadata"))
            return None

    def _handle(self, change: StoreEvent[T]) -> None:
        """Tell the handler; the boundary for its bugs, which must not end the mirror."""
        if self._handler is None:
            return
        try:
            self._handler(change)
        except Exception:
            log.exception("change was not handled", path=self._path)

    async def _back_off(self, error: ApiError) -> None:
        """Wait: client-go's delays, or longer where the API server asks for it."""
        metrics.watch_restarted(self._path)
        delay_s = min(_FIRST_DELAY_S * 2.0**self._failures, _LONGEST_DELAY_S)
        self._failures = min(self._failures + 1, 10)
        asked_s = error.retry_after_s if isinstance(error, ApiUnavailableError) else None
        await self._clock.sleep(max(delay_s * random.uniform(0.5, 1.5), asked_s or 0.0))
