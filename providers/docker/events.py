"""
The engine's events about our containers, for ever.

The engine filters by our labels, so that other users of it cost nothing. Only that something has changed is
passed on: what it is now is read afresh. A lost connection is made again with jittered back-off, and what
happened meanwhile is announced as None ("look at all"), also after the first connection: whoever listed
before may have missed something.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable

import orjson
import structlog

from providers.docker import labels, status
from providers.docker.client import EngineClient
from providers.docker.jsonlines import JsonLines
from providers.docker.labels import Owner
from vkubelet.clock import Clock
from vkubelet.errors import ProviderError, ProviderUnavailableError, RemoteProtocolError
from vkubelet.model.keys import PodKey

__all__ = ["watch_events"]

log = structlog.get_logger(__name__)

_STATE_CHANGES = ["create", "start", "die", "oom", "pause", "unpause", "destroy"]
_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 15.0


async def watch_events(
    client: EngineClient, clock: Clock, owner: Owner, changed: Callable[[str], None]
) -> AsyncIterator[PodKey | None]:
    """
    See `ContainerRuntime.events`.

    Args:
        client: the engine.
        clock: for the back-off.
        owner: whose containers.
        changed: called with the id of a container before its pod is yielded, with "" when the connection
            to the engine was lost or is back.
    """
    filters = {**labels.pod_filters(owner), "type": ["container"], "event": _STATE_CHANGES}
    params = {"filters": orjson.dumps(filters).decode()}
    failures = 0
    while True:
        try:
            async with client.stream("GET", "/events", params) as chunks:
                failures = 0
                changed("")
                yield None
                lines = JsonLines()
                async for chunk in chunks:
                    for event in lines.receive_data(chunk):
                        changed(str(event.get("id") or (event.get("Actor") or {}).get("ID") or ""))
                        if (key := status.event_pod(event)) is not None:
                            yield key
            raise ProviderUnavailableError("the Docker engine ended the stream of events")
        except (ProviderError, RemoteProtocolError) as error:
            if failures == 0:
                log.warning("docker events lost", error=str(error))
                changed("")
            failures += 1
            await clock.sleep(_delay_s(failures))


def _delay_s(failures: int) -> float:
    """Doubled from `_FIRST_DELAY_S` up to `_LONGEST_DELAY_S`, then between half and all of it."""
    longest = min(_FIRST_DELAY_S * 2.0 ** min(failures - 1, 16), _LONGEST_DELAY_S)
    return longest * random.uniform(0.5, 1.0)
