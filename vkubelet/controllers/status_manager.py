"""
The one writer of pod status.

Whenever a pod's observation changes, its status is computed anew (`model.status`, pure) and compared with
what the API server has; the difference goes out as one PATCH with the uid as fence, so a successor of the
same name is never written to. Between our write and its echo on the watch, what we wrote counts as the API
server's state; nothing is written twice and no resource version is needed, hence nothing can conflict.

Two rules save writes. A status that the next one makes worthless is held back for a second: a pod's very
first, when it says no more than "creating", and those of a pod on its way out before it is terminated. A
container that starts or stops faster needs one write instead of the kubelet's three. And a status that equals
what is there is not sent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Protocol

from vkubelet import metrics, tracing
from vkubelet.clock import Clock
from vkubelet.controllers.pod_records import PodRecord, PodRecords, WrittenStatus
from vkubelet.controllers.work_queue import WorkQueue
from vkubelet.errors import ConflictError, NotFoundError
from vkubelet.kube import patches
from vkubelet.logs import get_logger
from vkubelet.model import status as pod_status_rules
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Json, Pod

__all__ = ["StatusManager"]

log = get_logger("status_manager")

HOLD_S = 1.0
LAST_RETRY_S = 10.0
"""As the kubelet's: when the API server is back, others wait for statuses."""

_LOST_RACE = 409
_PROVISIONAL_REASONS = frozenset({"ContainerCreating", "PodInitializing"})


class PodReader(Protocol):
    """The pods of this node as the watch shows them."""

    def get(self, key: PodKey) -> Pod | None:
        """The pod with exactly this uid."""


class StatusManager:
    """
    Keeps `status` of every pod of this node true.

    Args:
        pods: the API server's pods.
        records: the provider's side.
        write: sends a status patch, returns the pod as it is then; raises `ApiError`.
        on_final: called when the final status of a terminated pod is known to the API server.
        host_ips: the node's addresses, for `hostIP` and `hostIPs`.
    """

    def __init__(
        self,
        pods: PodReader,
        records: PodRecords,
        write: Callable[[PodKey, Json], Awaitable[Json]],
        on_final: Callable[[PodKey], None],
        *,
        host_ips: tuple[str, ...],
        clock: Clock,
        workers: int = 32,
    ) -> None:
        self._pods = pods
        self._records = records
        self._write = write
        self._on_final = on_final
        self._host_ips = host_ips
        self._clock = clock
        self.queue: WorkQueue[PodKey] = WorkQueue(
            "pod-status", self.sync_status, workers=workers, clock=clock, last_retry_s=LAST_RETRY_S
        )
        records.listen(self._observed)

    async def run(self) -> None:
        """Write until cancelled."""
        await self.queue.run()

    def _observed(self, record: PodRecord) -> None:
        record.changed_at = record.changed_at or self._clock.monotonic()
        self.queue.add(record.key)

    def pod_seen(self, pod: Pod) -> None:
        """The watch showed this version: unless it is our own write, compare it with what should be."""
        record = self._records.get(pod.key)
        if record is None:
            return
        if (written := record.written) is not None:
            seen = _version(pod.resource_version)
            if seen < written.resource_version:
                return
            record.written = None
            if seen == written.resource_version:
                return
        record.final_written = False
        if record.effective_observation() is not None:
            self.queue.add(pod.key)

    async def sync_status(self, key: PodKey) -> None:
        """Bring the API server's status of one pod up to date: no write, or exactly one."""
        record = self._records.get(key)
        pod = self._pods.get(key)
        if record is None or pod is None:
            return
        observation = record.effective_observation()
        if observation is None:
            return
        known = self._with_own_writes(pod, record)
        status = pod_status_rules.pod_status(
            known, observation, host_ips=self._host_ips, now=self._clock.now()
        )
        patch = patches.status_patch(key.uid, known.status, status, pod_status_rules.OWNED_CONDITION_TYPES)
        if patch is not None:
            if not observation.terminated and (wait_s := self._hold_s(record, known, status)) > 0:
                self.queue.add_after(key, wait_s)
                return
            if not await self._send(record, patch, status):
                return
        record.changed_at = None
        if observation.terminated:
            record.final_written = True
            self._on_final(key)

    def _with_own_writes(self, pod: Pod, record: PodRecord) -> Pod:
        """The pod with our last write in it, where the watch has not shown that yet."""
        if record.written is None:
            return pod
        if _version(pod.resource_version) >= record.written.resource_version:
            record.written = None
            return pod
        return dataclasses.replace(pod, status=record.written.status)

    def _hold_s(self, record: PodRecord, known: Pod, status: Json) -> float:
        """Seconds to wait for a status worth its write; 0 when this one is."""
        if not known.is_deleted and ("startTime" in known.status or not _is_provisional(status)):
            return 0.0
        now = self._clock.monotonic()
        if record.held_since is None:
            record.held_since = now
        return record.held_since + HOLD_S - now

    async def _send(self, record: PodRecord, patch: Json, status: Json) -> bool:
        """
        Write; False for a pod that is gone, as the watch will show too.

        A plain 409 is a race that the API server has lost inside, worth another try: without a resource
        version a patch can be wrong about nothing but the uid.
        """
        try:
            with tracing.pod_span("write pod status", record.key):
                written = await self._write(record.key, patch)
        except (NotFoundError, ConflictError) as error:
            if error.code == _LOST_RACE:
                raise
            log.debug("pod is gone, its status was not written", pod=str(record.key), error=str(error))
            return False
        self._count(record, patch)
        record.held_since = None
        record.written = WrittenStatus(
            _version(written["metadata"]["resourceVersion"]), written.get("status") or status
        )
        return True

    def _count(self, record: PodRecord, patch: Json) -> None:
        now = self._clock.monotonic()
        if record.changed_at is not None:
            metrics.POD_STATUS_SYNC.observe(now - record.changed_at)
        if record.first_given_at is not None and patch["status"].get("phase") == "Running":
            metrics.POD_START.observe(now - record.first_given_at)
            record.first_given_at = None


def _is_provisional(status: Json) -> bool:
    """It says no more than that the pod's containers are being created."""
    if status.get("phase") != "Pending":
        return False
    states = (
        container["state"].get("waiting") or {"reason": "", "message": ""}
        for field in ("initContainerStatuses", "containerStatuses")
        for container in status.get(field) or ()
    )
    return all(s.get("reason") in _PROVISIONAL_REASONS and not s.get("message") for s in states)


def _version(resource_version: str) -> int:
    """
    A resource version as a number, 0 where it is none.

    Kubernetes has declared them comparable as integers (KEP-5504); every API server's always were.
    """
    return int(resource_version) if resource_version.isdigit() else 0
