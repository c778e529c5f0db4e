"""
Makes the provider run what the API server wants.

`sync_pod` looks up what is true now on both sides and makes the provider calls that follow; it is called
for every change that matters and again after errors, and finds its own earlier work done. In short::

    wanted and not yet taken on        create_pod
    wanted, changed                    update_pod
    deleted, or its phase is terminal  terminate_pod, wait for `terminated`
    terminated, final status written   delete_pod, then DELETE with grace period 0 and the uid
    not in the API server any more     terminate_pod, delete_pod

Whether a create is a create is the provider's to know (it adopts what it has): nothing here concludes from
an error that a pod is absent.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Awaitable, Callable

from structlog.contextvars import bound_contextvars

from vkubelet import metrics, tracing
from vkubelet.clock import Clock
from vkubelet.controllers.pod_records import PodRecord, PodRecords
from vkubelet.controllers.reference_resolver import ReferenceResolver, with_known
from vkubelet.controllers.status_manager import PodReader
from vkubelet.controllers.work_queue import WorkQueue
from vkubelet.errors import (
    ConflictError,
    InvalidPodError,
    NotFoundError,
    PodNotFoundError,
    ProviderError,
)
from vkubelet.logs import get_logger
from vkubelet.model import lifecycle
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodFailure, PodObservation
from vkubelet.model.pod import Pod
from vkubelet.model.references import References
from vkubelet.provider import PodHost, Provider

__all__ = ["PodController"]

log = get_logger("pod_controller")

FIRST_REFERENCE_RETRY_S = 1.0
LAST_REFERENCE_RETRY_S = 60.0
DEFAULT_GRACE_PERIOD_S = 30.0


class PodController:
    """
    The loop from the API server to the provider.

    Args:
        pods: the API server's pods.
        delete: deletes a pod for good (grace period 0, uid as precondition); raises `ApiError`.
        host: where Events go.
    """

    def __init__(
        self,
        provider: Provider,
        pods: PodReader,
        records: PodRecords,
        references: ReferenceResolver,
        delete: Callable[[PodKey], Awaitable[None]],
        host: PodHost,
        *,
        clock: Clock,
        workers: int = 64,
    ) -> None:
        self._provider = provider
        self._pods = pods
        self._records = records
        self._references = references
        self._delete = delete
        self._host = host
        self._clock = clock
        self.queue: WorkQueue[PodKey] = WorkQueue("pod-sync", self.sync_pod, workers=workers, clock=clock)
        records.listen(self._observed)

    async def run(self) -> None:
        """Sync until cancelled."""
        await self.queue.run()

    def pod_seen(self, old: Pod | None, new: Pod | None) -> None:
        """
        The watch showed a change: queue the pod when it asks something of us.

        `old` of a deletion (`new` is None) is the object's last version, which carries its grace period.
        """
        if old is not None and (new is None or new.key != old.key):
            if (record := self._records.get(old.key)) is not None:
                record.given_pod = old
            self.queue.add(old.key)
        if new is not None and (old is None or new.key != old.key or _asks_something(old, new)):
            self.queue.add(new.key)

    async def run_resync(self, period_s: float) -> None:
        """
        Look again, now and then, at what running pods refer to, until cancelled.

        So a changed ConfigMap or Secret reaches their volumes within about `period_s`, as the kubelet's
        `syncFrequency` promises; the pods take their turns over the whole period.
        """
        while True:
            await self._clock.sleep(period_s)
            self._references.purge()
            for record in self._records:
                given = record.given_references
                if given is not None and (given.config_maps or given.secrets):
                    self.queue.add_after(record.key, random.uniform(0.0, period_s * 0.9))

    async def sync_pod(self, key: PodKey) -> None:
        """One pass over one pod; raises what shall be retried."""
        pod = self._pods.get(key)
        with (
            bound_contextvars(namespace=key.namespace, pod=key.name, uid=key.uid),
            tracing.pod_span("sync pod", key),
            metrics.POD_WORKER.labels(self._operation(pod)).time(),
        ):
            if pod is None:
                await self._sync_removed(key)
            elif _is_wanted(pod):
                await self._sync_wanted(pod)
            else:
                await self._sync_terminating(pod)

    def _operation(self, pod: Pod | None) -> str:
        """The kubelet's word for what a pass does."""
        if pod is None or not _is_wanted(pod):
            return "terminated"
        record = self._records.get(pod.key)
        return "sync" if record is not None and record.accepted else "create"

    def _observed(self, record: PodRecord) -> None:
        if record.is_terminated and self._pods.get(record.key) is None:
            self.queue.add(record.key)

    # --- wanted ---------------------------------------------------------------------------------------

    async def _sync_wanted(self, pod: Pod) -> None:
        record = self._records.of(pod.key)
        if record.failure is not None:
            await self._end_refused(pod, record)
            return
        references = await self._references.resolve(pod)
        if not _is_wanted(self._pods.get(pod.key)):
            return  # deleted meanwhile, which has queued it again
        try:
            await self._give(pod, with_known(references, record.given_references), record)
        except InvalidPodError as error:
            self._refuse(record, error)
            await self._end_refused(pod, record)
            return
        except ProviderError as error:
            self._host.record_event(
                pod.key, "Warning", "FailedSync", f"error syncing pod, will be retried: {error}"
            )
            raise
        self._plan_next_resolution(pod, references, record)

    async def _give(self, pod: Pod, references: References, record: PodRecord) -> None:
        if not record.accepted:
            record.first_given_at = record.first_given_at or self._clock.monotonic()
            await self._provider.create_pod(pod, references)
            record.accepted = True
        elif (
            references != record.given_references
            or record.given_pod is None
            or _is_another(record.given_pod, pod)
        ):
            try:
                await self._provider.update_pod(pod, references)
            except PodNotFoundError:
                record.accepted = False
                self.queue.add(pod.key)
                return
        record.given_pod, record.given_references = pod, references

    def _refuse(self, record: PodRecord, error: InvalidPodError) -> None:
        log.warning("pod refused", reason=error.reason, error=str(error))
        record.failure = PodFailure(error.reason, str(error))
        self._host.record_event(record.key, "Warning", error.reason, str(error))

    async def _end_refused(self, pod: Pod, record: PodRecord) -> None:
        """Whatever the platform may have of it; usually nothing."""
        if not record.is_terminated:
            await self._terminate(record, lifecycle.effective_grace_period_s(pod))

    def _plan_next_resolution(self, pod: Pod, references: References, record: PodRecord) -> None:
        """Ask again, with growing delays, for what could not be had; for tokens when they want renewal."""
        renewal = self._references.refresh_at(pod.key)
        due_s = (renewal - self._clock.now()).total_seconds() if renewal is not None else None
        if references.unavailable() or (due_s is not None and due_s <= 0):
            record.attempts += 1
            delay_s = FIRST_REFERENCE_RETRY_S * 2 ** min(record.attempts - 1, 10)
            self.queue.add_after(pod.key, min(delay_s, LAST_REFERENCE_RETRY_S))
        else:
            record.attempts = 0
        if due_s is not None and due_s > 0:
            self.queue.add_after(pod.key, due_s)

    # --- unwanted -------------------------------------------------------------------------------------

    async def _sync_terminating(self, pod: Pod) -> None:
        record = self._records.of(pod.key)
        if not record.is_terminated:
            await self._terminate(record, lifecycle.effective_grace_period_s(pod))
        elif not pod.is_deleted or record.removed:
            return
        elif not record.final_written:
            self._records.observe(record.effective_observation() or PodObservation(pod.key))
        else:
            await self._provider.delete_pod(pod.key)
            await self._delete_from_api(pod.key)
            record.removed = True

    async def _sync_removed(self, key: PodKey) -> None:
        record = self._records.get(key)
        if record is None or record.removed:
            self._forget(key)
        elif record.is_terminated or not await self._terminate(record, _last_grace_period_s(record)):
            await self._provider.delete_pod(key)
            self._forget(key)

    async def _terminate(self, record: PodRecord, grace_period_s: float) -> bool:
        """Ask for termination, once for each grace period; False when the provider has nothing of it."""
        if record.grace_period_s is not None and record.grace_period_s <= grace_period_s:
            return True
        try:
            await self._provider.terminate_pod(record.key, grace_period_s)
        except PodNotFoundError:
            seen = record.observation or PodObservation(record.key)
            self._records.observe(dataclasses.replace(seen, terminated=True))
            return False
        record.grace_period_s = grace_period_s
        return True

    async def _delete_from_api(self, key: PodKey) -> None:
        try:
            await self._delete(key)
        except (NotFoundError, ConflictError) as error:
            log.debug("pod was deleted already", error=str(error))

    def _forget(self, key: PodKey) -> None:
        self._records.remove(key)
        self._references.forget(key)
        self.queue.forget(key)


def _is_wanted(pod: Pod | None) -> bool:
    return pod is not None and not pod.is_deleted and not pod.is_terminal


def _asks_something(old: Pod, new: Pod) -> bool:
    """There may be something to do: anything but status and bookkeeping, and the end by anybody's word."""
    return (
        old.deletion_timestamp != new.deletion_timestamp
        or old.deletion_grace_period_s != new.deletion_grace_period_s
        or old.is_terminal != new.is_terminal
        or _is_another(old, new)
    )


def _is_another(old: Pod, new: Pod) -> bool:
    """What the provider acts on has changed; our own status writes are no change."""
    return old.labels != new.labels or old.annotations != new.annotations or old.spec != new.spec


def _last_grace_period_s(record: PodRecord) -> float:
    """For a pod whose object is gone: what its deletion or its spec gave, else the API's default."""
    if record.given_pod is None:
        return DEFAULT_GRACE_PERIOD_S
    return lifecycle.effective_grace_period_s(record.given_pod)
