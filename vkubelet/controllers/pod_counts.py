"""The kubelet's gauges of pods and containers, counted when they are scraped and at no other time."""

from __future__ import annotations

import functools
from collections.abc import Sized
from typing import assert_never

from vkubelet import metrics
from vkubelet.controllers.pod_records import PodRecord, PodRecords
from vkubelet.model.observations import ContainerObservation, Running, Terminated, Waiting

__all__ = ["publish_pod_counts"]


def publish_pod_counts(records: PodRecords, wanted: Sized) -> None:
    """
    Let the gauges show what is in `records`, from now on.

    Args:
        records: what the provider has.
        wanted: the API server's pods.
    """
    metrics.RUNNING_PODS.set_function(lambda: sum(_has_sandbox(record) for record in records))
    metrics.DESIRED_PODS.labels("").set_function(lambda: len(wanted))
    for state in ("created", "exited", "running"):
        gauge = metrics.RUNNING_CONTAINERS.labels(state)
        gauge.set_function(functools.partial(_count, records, state))


def _has_sandbox(record: PodRecord) -> bool:
    return record.observation is not None and record.observation.sandbox_ready


def _count(records: PodRecords, state: str) -> int:
    return sum(
        _state(container) == state
        for record in records
        if record.observation is not None
        for container in record.observation.containers
        if container.container_id
    )


def _state(container: ContainerObservation) -> str:
    """CRI's word for it."""
    match container.state:
        case Running():
            return "running"
        case Terminated():
            return "exited"
        case Waiting():
            return "created"
        case _:
            assert_never(container.state)
