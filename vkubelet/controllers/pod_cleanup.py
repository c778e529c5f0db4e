"""
Finds pods that the provider has and nobody wants, and pods that it had before this process started.

At start the provider's list is taken into the records, so that every wanted pod is adopted and every other
one is an orphan. Afterwards the same comparison runs now and then, against leaks that no event told of.

An orphan is removed only on proof: the provider's list was taken first, the watch has been synced, the pod
is not in it, and the API server, asked for that very pod, says that it is not there, has another uid, or is
bound to another node. A comparison against an older list would remove pods that were created in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from vkubelet import metrics
from vkubelet.clock import Clock
from vkubelet.controllers.pod_records import PodRecords
from vkubelet.controllers.status_manager import PodReader
from vkubelet.errors import ApiError, NotFoundError, ProviderError
from vkubelet.logs import get_logger
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodObservation
from vkubelet.model.pod import Json
from vkubelet.provider import Provider

__all__ = ["PodCleanup"]

log = get_logger("pod_cleanup")


class PodCleanup:
    """
    Compares the provider's pods with the API server's.

    Args:
        read: reads a pod by namespace and name from the API server; raises `ApiError`.
        enqueue: hands a pod to the pod controller.
    """

    def __init__(
        self,
        provider: Provider,
        pods: PodReader,
        records: PodRecords,
        read: Callable[[str, str], Awaitable[Json]],
        enqueue: Callable[[PodKey], None],
        *,
        node_name: str,
        clock: Clock,
        period_s: float = 120.0,
    ) -> None:
        self._provider = provider
        self._pods = pods
        self._records = records
        self._read = read
        self._enqueue = enqueue
        self._node_name = node_name
        self._clock = clock
        self._period_s = period_s

    async def adopt(self) -> None:
        """
        Take what the provider has into the records; call once, after the pods have been synced.

        Raises:
            ProviderError: the provider cannot list; nothing may be created before it can.
            ApiError: the API server could not be asked about an orphan.
        """
        observations = await self._provider.list_pods()
        for observation in observations:
            if self._pods.get(observation.key) is not None or await self._is_unwanted(observation.key):
                self._take(observation)
        if observations:
            log.info("pods found running", pods=len(observations))

    async def run(self) -> None:
        """Look for orphans now and then, until cancelled."""
        while True:
            await self._clock.sleep(self._period_s)
            try:
                await self.remove_orphans()
            except (ProviderError, ApiError) as error:
                log.warning("could not look for orphans, will look again", error=str(error))

    async def remove_orphans(self) -> None:
        """One comparison."""
        for observation in await self._provider.list_pods():
            key = observation.key
            if self._pods.get(key) is not None or not await self._is_unwanted(key):
                continue
            metrics.ORPHANS_REMOVED.inc()
            log.info("removing a pod that is not in the API server", pod=str(key))
            self._take(observation)

    def _take(self, observation: PodObservation) -> None:
        """Note it, unless the provider has reported since it made its list, and see to the pod."""
        record = self._records.get(observation.key)
        if record is None or record.observation is None or observation.terminated:
            self._records.observe(observation)
        self._enqueue(observation.key)

    async def _is_unwanted(self, key: PodKey) -> bool:
        try:
            found = await self._read(key.namespace, key.name)
        except NotFoundError:
            return True
        return bool(found["metadata"]["uid"] != key.uid or found["spec"].get("nodeName") != self._node_name)
