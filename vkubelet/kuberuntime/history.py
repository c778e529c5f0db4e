"""
What has become of a container so far: its attempts in the runtime, and one that the runtime has lost.

A container may vanish (removed by hand, an engine that lost its state). Its attempt number and exit code
are then taken from what was last reported, so numbers grow by one, no exit code is lost, and a container of
a run-once pod does not run twice. The kubelet calls such an end ContainerStatusUnknown, exit code 137.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from vkubelet.kuberuntime.contract import ContainerInfo, ContainerStatus, RuntimePod
from vkubelet.model.observations import ContainerObservation, Running, Terminated, Waiting
from vkubelet.model.pod import Container, ContainerKind, Json, Pod

__all__ = [
    "FAILURES_ANNOTATION",
    "START_ERROR_EXIT_CODE",
    "History",
    "failures_before",
    "has_ended",
    "history_of",
    "is_live",
    "remembered_containers",
]

FAILURES_ANNOTATION = "vkubelet.io/failures"
"""On each attempt: how many exits in a row came before it, from which its back-off follows."""

START_ERROR_EXIT_CODE = 128
LOST_EXIT_CODE = 137
LOST_REASON = "ContainerStatusUnknown"
_LOST = "The container could not be located when the pod was deleted.  The container used to be Running"


@dataclass(frozen=True, slots=True)
class History:
    """
    Attributes of one container's past.

    Attributes:
        newest: the latest attempt that the runtime has.
        previous: the attempt before it that ended, None where there is none.
        lost: how an attempt later than `newest` ended, which the runtime does not have any more.
        next_attempt: the number of the attempt that comes next.
    """

    newest: ContainerInfo | None
    previous: ContainerInfo | None
    lost: Terminated | None
    next_attempt: int


def is_live(info: ContainerInfo) -> bool:
    """It runs, or may be running."""
    return info.status is ContainerStatus.RUNNING or info.status is ContainerStatus.UNKNOWN


def has_ended(info: ContainerInfo) -> bool:
    """It ran and ended, or could not be started: that attempt is over."""
    return info.status is ContainerStatus.EXITED or bool(
        info.status is ContainerStatus.CREATED and info.error
    )


def history_of(
    name: str, status: RuntimePod, known: ContainerObservation | None, now: datetime.datetime
) -> History:
    """
    The past of the container `name`.

    Args:
        name: of the container.
        status: what the runtime has of its pod.
        known: what was last reported of it.
        now: taken as the end of a container that was running and is gone.
    """
    attempts = [c for c in status.containers if c.name == name]
    if len(attempts) > 1:
        attempts.sort(key=lambda c: c.attempt, reverse=True)
    newest = attempts[0] if attempts else None
    previous = next((c for c in attempts[1:] if has_ended(c)), None)
    last = newest.attempt if newest is not None else -1
    if known is None or not known.container_id or known.restart_count <= last:
        return History(newest, previous, None, last + 1)
    lost = _lost(known, now)
    return History(newest, previous, lost, known.restart_count + (lost is not None))


def _lost(known: ContainerObservation, now: datetime.datetime) -> Terminated | None:
    """How the attempt that was last reported ended; None for one that was made but never started."""
    match known.state:
        case Terminated() as ended:
            return ended
        case Running(started_at=started_at):
            return Terminated(LOST_EXIT_CODE, LOST_REASON, _LOST, started_at, now, known.container_id)
        case Waiting():
            last = known.last_state
            return last if last is not None and last.container_id == known.container_id else None


def failures_before(info: ContainerInfo) -> int:
    """Exits in a row before this attempt; where the runtime keeps no annotations, all attempts count."""
    noted = info.annotations.get(FAILURES_ANNOTATION, "")
    return int(noted) if noted.isdecimal() else info.attempt


def remembered_containers(pod: Pod) -> Mapping[str, ContainerObservation]:
    """The containers as the API server knows them, for what the runtime may have lost meanwhile."""
    remembered: dict[str, ContainerObservation] = {}
    for field_name in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for status in pod.status.get(field_name) or ():
            container = pod.container(status["name"])
            if container is not None and status.get("containerID"):
                remembered[container.name] = _remembered(container, status)
    return remembered


def _remembered(container: Container, status: Json) -> ContainerObservation:
    state: Json = status.get("state") or {}
    last: Json = (status.get("lastState") or {}).get("terminated") or {}
    if ended := state.get("terminated"):
        seen: Running | Terminated | Waiting = _terminated(ended)
    elif running := state.get("running"):
        seen = Running(_time(running.get("startedAt")) or datetime.datetime.min.replace(tzinfo=datetime.UTC))
    else:
        seen = Waiting("")
    return ContainerObservation(
        name=container.name,
        kind=ContainerKind(container.kind),
        state=seen,
        image=status.get("image", ""),
        last_state=_terminated(last) if last else None,
        restart_count=status.get("restartCount", 0),
        image_id=status.get("imageID", ""),
        container_id=status["containerID"],
    )


def _terminated(raw: Json) -> Terminated:
    return Terminated(
        exit_code=raw.get("exitCode", LOST_EXIT_CODE),
        reason=raw.get("reason") or "",
        message=raw.get("message") or "",
        started_at=_time(raw.get("startedAt")),
        finished_at=_time(raw.get("finishedAt")),
        container_id=raw.get("containerID") or "",
    )


def _time(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
