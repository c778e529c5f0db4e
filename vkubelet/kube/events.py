"""
Kubernetes Events: telling a pod's owner what happens to it.

`EventRecorder.record` only puts an entry into a queue; one task turns entries into requests, as slowly as
needed. Events are the kubelet's (core/v1, source ``kubelet``), not ``events.k8s.io``, since kubectl and the
conformance tests look for its source and its `fieldPath`.

They are best effort, and must not be in the way of what a cluster depends on: one request at a time, at most
50 a second with bursts of 100 (the kubelet's ``eventRecordQPS`` and ``eventBurst``), and none while `busy`,
for a few seconds. Where 1,000 wait already, further ones are counted and dropped.
"""

from __future__ import annotations

import asyncio
import datetime
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Never

import structlog

from vkubelet.clock import Clock, rfc3339
from vkubelet.errors import ApiError, ApiUnavailableError, NotFoundError, UnauthorizedError
from vkubelet.kube.event_correlator import (
    EventCorrelator,
    EventType,
    ObjectReference,
    Observation,
    Occurrence,
)
from vkubelet.kube.rest import RestClient, segment
from vkubelet.model.pod import Container, Json, Pod

__all__ = ["EventRecorder", "EventType", "ObjectReference", "node_reference", "pod_reference"]

log = structlog.get_logger(__name__)

_QUEUE = 1000
_TRIES = 12
_RETRY_S = 10.0
_LONGEST_YIELD_S = 10.0
_YIELD_S = 0.1
_LONGEST_MESSAGE = 4096
_LONGEST_NAME = 253


def pod_reference(pod: Pod, container: Container | None = None) -> ObjectReference:
    """The pod, or one container of it."""
    field_path = container.field_path if container is not None else ""
    return ObjectReference("Pod", pod.namespace, pod.name, pod.uid, pod.resource_version, field_path)


def node_reference(name: str, uid: str = "") -> ObjectReference:
    """The node; like the kubelet's, by its name where the uid is not known."""
    return ObjectReference("Node", "", name, uid or name)


def _never() -> bool:
    return False


class _Recorded(NamedTuple):
    """What `record` was told, and when; everything else is left to the task that tells it."""

    about: ObjectReference
    type: EventType
    reason: str
    message: str
    now: datetime.datetime
    at_s: float


class EventRecorder:
    """
    The one writer of Events.

    Attributes:
        dropped: how many were lost because too many waited, or the API server was away for too long.
    """

    def __init__(
        self,
        client: RestClient,
        *,
        node_name: str,
        clock: Clock,
        component: str = "kubelet",
        qps: float = 50.0,
        burst: int = 100,
        busy: Callable[[], bool] = _never,
    ) -> None:
        """
        Say who tells, and how much; `run` does the work.

        Args:
            client: where to tell.
            node_name: goes to `source.host` and `reportingInstance`.
            clock: for times and delays.
            component: goes to `source.component` and `reportingComponent`.
            qps: requests per second in the long run; 0 for no limit.
            burst: requests that may be made at once.
            busy: whether requests that matter more are waiting just now.
        """
        self.dropped = 0
        self._client = client
        self._node_name = node_name
        self._component = component
        self._clock = clock
        self._busy = busy
        self._limit = _Limit(qps, burst, clock)
        self._correlator = EventCorrelator()
        self._queue: deque[_Recorded] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._flushing = False
        self._last_name_ns = 0

    def record(self, about: ObjectReference, event_type: EventType, reason: str, message: str) -> None:
        """Tell it, some time soon; returns at once."""
        if len(self._queue) >= _QUEUE:
            self.dropped += 1
            log.debug("event dropped, too many wait", reason=reason, dropped=self.dropped)
            return
        now, at_s = self._clock.now(), self._clock.monotonic()
        self._queue.append(_Recorded(about, event_type, reason, message[:_LONGEST_MESSAGE], now, at_s))
        self._idle.clear()
        self._arrived.set()

    async def run(self) -> Never:
        """Tell what is recorded, until cancelled; no answer of the API server ends it."""
        while True:
            while not self._queue:
                self._idle.set()
                self._arrived.clear()
                await self._arrived.wait()
            recorded = self._queue[0]
            await self._give_way(recorded)
            occurrence = self._occurrence(recorded)
            try:
                await self._tell(occurrence)
            except Exception:
                log.exception("event was not recorded", reason=occurrence.reason)
            self._queue.popleft()

    async def flush(self, limit_s: float = 2.0) -> None:
        """Tell what waits, without giving way any more, for at most `limit_s`; `run` must be running."""
        self._flushing = True
        try:
            async with asyncio.timeout(limit_s):
                await self._idle.wait()
        except TimeoutError:
            self.dropped += len(self._queue)
            log.info("events left untold", events=len(self._queue))
        finally:
            self._flushing = False

    # --- telling

    async def _give_way(self, recorded: _Recorded) -> None:
        """Wait for more important requests, but not until an event is stale."""
        until_s = recorded.at_s + _LONGEST_YIELD_S
        while not self._flushing and self._busy() and self._clock.monotonic() < until_s:
            await self._clock.sleep(_YIELD_S)

    async def _tell(self, occurrence: Occurrence) -> None:
        observation = self._correlator.observe(occurrence)
        if observation is None:
            return
        for attempt in range(_TRIES):
            if not self._flushing:
                await self._limit.wait()
            try:
                await self._send(occurrence, observation)
                return
            except (ApiUnavailableError, UnauthorizedError) as error:
                log.debug("event not recorded yet", reason=occurrence.reason, error=str(error))
                asked_s = getattr(error, "retry_after_s", None) or 0.0
                await self._pause(max(asked_s, _RETRY_S * (random.random() if attempt == 0 else 1.0)))
            except ApiError as error:
                self._log_refusal(occurrence, error)
                return
        self.dropped += 1
        log.warning("event given up", reason=occurrence.reason, tries=_TRIES)

    async def _send(self, occurrence: Occurrence, observation: Observation) -> None:
        path = f"/api/v1/namespaces/{segment(occurrence.about.namespace or 'default')}/events"
        if observation.count > 1:
            try:
                await self._client.patch(
                    f"{path}/{segment(observation.name)}",
                    {
                        "count": observation.count,
                        "lastTimestamp": occurrence.timestamp,
                        "message": observation.message,
                    },
                )
                return
            except NotFoundError:
                pass  # Events live for an hour: this one starts again, with the count it has
        await self._client.create(path, self._body(occurrence, observation))

    def _body(self, occurrence: Occurrence, observation: Observation) -> Json:
        about = occurrence.about
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": observation.name, "namespace": about.namespace or "default"},
            "involvedObject": {
                "apiVersion": about.api_version,
                "kind": about.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
                "resourceVersion": about.resource_version,
                "fieldPath": about.field_path,
            },
            "type": occurrence.type,
            "reason": occurrence.reason,
            "message": observation.message,
            "source": {"component": self._component, "host": self._node_name},
            "reportingComponent": self._component,
            "reportingInstance": self._node_name,
            "firstTimestamp": observation.first_timestamp,
            "lastTimestamp": occurrence.timestamp,
            "count": observation.count,
        }

    def _log_refusal(self, occurrence: Occurrence, error: ApiError) -> None:
        """A pod's namespace that is going away takes no Events: that is no fault."""
        expected = error.code in (404, 409) or "because it is being terminated" in str(error)
        level = log.debug if expected else log.warning
        level("event refused", reason=occurrence.reason, about=occurrence.about.name, error=str(error))

    async def _pause(self, seconds: float) -> None:
        """Sleep, or give the last chance at once when flushing."""
        await self._clock.sleep(0.1 if self._flushing else seconds)

    def _occurrence(self, recorded: _Recorded) -> Occurrence:
        """With a name as the kubelet's: the object and the time, which never is the same twice."""
        about, event_type, reason, message, now, at_s = recorded
        self._last_name_ns = max(self._last_name_ns + 1, int(now.timestamp() * 1e9))
        suffix = f".{self._last_name_ns:x}"
        name = about.name[: _LONGEST_NAME - len(suffix)].rstrip(".-") + suffix
        return Occurrence(about, event_type, reason, message, at_s, rfc3339(now), name)


class _Limit:
    """A token bucket."""

    def __init__(self, per_s: float, burst: int, clock: Clock) -> None:
        self._per_s = per_s
        self._burst = float(max(burst, 1))
        self._clock = clock
        self._tokens = self._burst
        self._since_s = clock.monotonic()

    async def wait(self) -> None:
        """Return when one more is allowed, and count it."""
        if self._per_s <= 0:
            return
        now_s = self._clock.monotonic()
        self._tokens = min(self._tokens + (now_s - self._since_s) * self._per_s, self._burst)
        self._since_s = now_s
        self._tokens -= 1.0
        if self._tokens < 0:
            await self._clock.sleep(-self._tokens / self._per_s)
