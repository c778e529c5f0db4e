"""
What this process knows of each pod beside the API server's object: the provider's side of it.

One record a pod, shared by the controllers: the pod controller notes what it has told the provider, the
provider's observations arrive here, the status manager notes what it has told the API server. Nothing of it
needs to survive: after a restart the provider lists what it has, and the API server keeps the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodFailure, PodObservation
from vkubelet.model.pod import Json, Pod
from vkubelet.model.references import References

__all__ = ["PodRecord", "PodRecords", "WrittenStatus"]


@dataclass(frozen=True, slots=True)
class WrittenStatus:
    """A status that the API server has taken but that the watch may not have shown yet."""

    resource_version: int
    status: Json


@dataclass(slots=True)
class PodRecord:
    """
    One pod.

    Attributes:
        observation: the provider's newest, None before the first.
        accepted: the provider has taken the pod on (or had it when this process started).
        failure: it never will: the pod fails with this.
        given_pod, given_references: what the provider was last given.
        grace_period_s: that of the last `terminate_pod`, None before one.
        attempts: failed resolutions in a row of what the pod refers to.
        held_since: when a first, still empty status was put off (monotonic).
        written: our last status write, until the watch has caught up.
        final_written: the API server knows the status of the terminated pod.
        first_given_at: when the provider was first to take it on (monotonic); None once it has been running.
        changed_at: when the first observation came that the API server has not been told (monotonic).
        removed: the API server was told to remove it; finalizers of others may still keep it.
    """

    key: PodKey
    observation: PodObservation | None = None
    accepted: bool = False
    failure: PodFailure | None = None
    given_pod: Pod | None = None
    given_references: References | None = None
    grace_period_s: float | None = None
    attempts: int = 0
    held_since: float | None = None
    written: WrittenStatus | None = None
    final_written: bool = False
    removed: bool = False
    first_given_at: float | None = None
    changed_at: float | None = None

    @property
    def is_terminated(self) -> bool:
        """Nothing of it runs, and nothing of it will be started by the provider."""
        return self.observation is not None and self.observation.terminated

    def effective_observation(self) -> PodObservation | None:
        """The observation, overlaid with a refusal; None when there is nothing to tell yet."""
        if self.failure is None:
            return self.observation
        seen = self.observation or PodObservation(self.key)
        return dataclasses.replace(seen, failure=seen.failure or self.failure)


class PodRecords:
    """All records by key, and who wants to hear of observations."""

    def __init__(self) -> None:
        self._records: dict[PodKey, PodRecord] = {}
        self._listeners: list[Callable[[PodRecord], None]] = []

    def __len__(self) -> int:
        """How many pods this process knows of."""
        return len(self._records)

    def __iter__(self) -> Iterator[PodRecord]:
        """All records, as of now."""
        return iter(tuple(self._records.values()))

    def listen(self, listener: Callable[[PodRecord], None]) -> None:
        """Call `listener` after each observation."""
        self._listeners.append(listener)

    def get(self, key: PodKey) -> PodRecord | None:
        """The record, if there is one."""
        return self._records.get(key)

    def of(self, key: PodKey) -> PodRecord:
        """The record, made now if need be."""
        record = self._records.get(key)
        if record is None:
            record = self._records[key] = PodRecord(key)
        return record

    def observe(self, observation: PodObservation) -> None:
        """Note what the provider saw, and tell the listeners."""
        record = self.of(observation.key)
        record.observation = observation
        for listener in self._listeners:
            listener(record)

    def remove(self, key: PodKey) -> None:
        """Forget a pod that neither side has any more."""
        self._records.pop(key, None)
