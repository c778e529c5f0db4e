"""
One `v1.ContainerStatus` for each container of a pod: what is seen, merged with what was said before.

The merge matters more than the mapping. A platform forgets (a container removed by hand, an engine that was
reinstalled), the API server does not: an exit code that was once reported stays readable as `state` or
`lastState`, `restartCount` never falls, and a container that was running and is nowhere to be found has
ended, with the kubelet's ContainerStatusUnknown. Without that a run-once pod would run twice.

Rules: `convertToAPIContainerStatuses`, `checkContainerStateTransition` and `TerminatePod` of the kubelet.
The lists are in the kubelet's order: init containers as in the spec, the others by name. Phase and
conditions are `model.status`'s.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping

from vkubelet import clock
from vkubelet.model import lifecycle
from vkubelet.model.observations import ContainerObservation, Running, Terminated, Waiting
from vkubelet.model.pod import Container, ContainerKind, Json, Pod, RestartPolicy

__all__ = ["ContainerStatuses", "container_statuses", "mark_terminated"]

ContainerStatuses = dict[str, Json]
"""`v1.ContainerStatus` objects by container name, in the order of their list."""

_MESSAGE_BYTES = 12 * 1024
"""All termination messages of a pod together (kubelet: MaxPodTerminationMessageLogLength)."""

_LOST_EXIT_CODE = 137

_rfc3339 = functools.lru_cache(maxsize=4096)(clock.rfc3339)


def container_statuses(
    pod: Pod,
    containers: tuple[Container, ...],
    observations: Mapping[str, ContainerObservation],
    previous: Iterable[Json],
    *,
    reported: bool,
    settled: bool,
) -> ContainerStatuses:
    """
    The statuses of one of the pod's lists.

    Args:
        pod: the pod; its `status` is not read.
        containers: that list of its spec.
        observations: all containers that the platform knows of, by name.
        previous: what the API server has for this list.
        reported: the platform has been asked: what is not in `observations` is not there. Else it is
            taken to be as it was.
        settled: nothing of the pod will run again: what has ended stays so.

    Returns:
        Fresh objects, which may share parts with `previous` and the pod's spec: read only.
    """
    before = {status["name"]: status for status in previous}
    statuses: ContainerStatuses = {}
    for container in _in_order(containers):
        old = before.get(container.name)
        seen = observations.get(container.name)
        if seen is not None:
            statuses[container.name] = _seen(pod, container, seen, old, settled=settled)
        elif not reported and old is not None:
            statuses[container.name] = old
        else:
            statuses[container.name] = _unseen(pod, container, old, observations)
    return statuses


def _in_order(containers: tuple[Container, ...]) -> Iterable[Container]:
    if len(containers) < 2 or containers[0].kind is ContainerKind.INIT:
        return containers
    return sorted(containers, key=lambda c: c.name)


# --- containers that the platform knows -------------------------------------------------------------------


def _seen(
    pod: Pod, container: Container, seen: ContainerObservation, old: Json | None, *, settled: bool
) -> Json:
    state = _state_json(seen, _message_limit(pod))
    if old is not None and not _may_become(pod, container, old, state, settled=settled):
        return old
    status: Json = {
        "name": container.name,
        "state": state,
        "lastState": _last_state(pod, seen, state, old),
        "ready": _is_ready(container, seen),
        "restartCount": max(seen.restart_count, old.get("restartCount", 0)) if old else seen.restart_count,
        "image": seen.image or container.image,
        "imageID": seen.image_id,
    }
    if container.kind is not ContainerKind.EPHEMERAL:
        status["started"] = _is_started(container, seen)
    if seen.container_id:
        status["containerID"] = seen.container_id
    _add_definition(status, container, old)
    if seen.container_id:
        _add_resources(status, container, old)
    return status


def _state_json(seen: ContainerObservation, message_limit: int) -> Json:
    match seen.state:
        case Running(started_at=started_at):
            return {"running": {"startedAt": _rfc3339(started_at)}}
        case Terminated() as ended:
            return {"terminated": _terminated_json(ended, seen.container_id, message_limit)}
        case Waiting(reason=reason, message=message):
            waiting: Json = {}
            if reason:
                waiting["reason"] = reason
            if message:
                waiting["message"] = message
            return {"waiting": waiting}


def _terminated_json(ended: Terminated, container_id: str, message_limit: int) -> Json:
    state: Json = {
        "exitCode": ended.exit_code,
        "reason": ended.reason,
        "startedAt": _rfc3339(ended.started_at) if ended.started_at else None,
        "finishedAt": _rfc3339(ended.finished_at) if ended.finished_at else None,
    }
    if ended.message:
        state["message"] = _shortened(ended.message, message_limit)
    if ended.container_id or container_id:
        state["containerID"] = ended.container_id or container_id
    return state


def _message_limit(pod: Pod) -> int:
    return _MESSAGE_BYTES // (
        len(pod.containers) + len(pod.init_containers) + len(pod.ephemeral_containers) or 1
    )


def _shortened(message: str, limit: int) -> str:
    if len(message) <= limit // 4:
        return message
    return message.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")


def _may_become(pod: Pod, container: Container, old: Json, state: Json, *, settled: bool) -> bool:
    """
    Whether the API server may be told `state` after `old` (kubelet: checkContainerStateTransition).

    What has ended stays ended, unless it is to be restarted.
    """
    ended: Json | None = old["state"].get("terminated")
    if ended is None or "terminated" in state:
        return True
    if settled or container.kind is ContainerKind.EPHEMERAL:
        return False
    return (
        container.is_sidecar
        or pod.restart_policy is RestartPolicy.ALWAYS
        or lifecycle.should_restart(container, ended["exitCode"], pod.restart_policy)
    )


def _last_state(pod: Pod, seen: ContainerObservation, state: Json, old: Json | None) -> Json:
    """How the attempt before this one ended: the platform's word, else what the API server remembers."""
    if seen.last_state is not None:
        return {"terminated": _terminated_json(seen.last_state, "", _message_limit(pod))}
    if old is None:
        return {}
    before: Json = old["state"]
    is_newer = "terminated" not in state or old.get("containerID", "") != seen.container_id
    if "terminated" in before and is_newer and before != state:
        return before
    remembered: Json = old.get("lastState") or {}
    return remembered


def _is_started(container: Container, seen: ContainerObservation) -> bool:
    """Running, and past its startup probe; where the platform does not say, a probe counts as not passed."""
    if not isinstance(seen.state, Running):
        return False
    return seen.started if seen.started is not None else "startupProbe" not in container.raw


def _is_ready(container: Container, seen: ContainerObservation) -> bool:
    if container.kind is ContainerKind.INIT and not container.is_sidecar:
        return isinstance(seen.state, Terminated) and seen.state.exit_code == 0
    return seen.ready and container.kind is not ContainerKind.EPHEMERAL and _is_started(container, seen)


# --- containers that it does not know ---------------------------------------------------------------------


def _unseen(
    pod: Pod, container: Container, old: Json | None, observations: Mapping[str, ContainerObservation]
) -> Json:
    """The status of a container that the platform has not made yet, or has no more."""
    if old is not None and "terminated" in old["state"]:
        return old
    if _was_initialized(container, observations):
        return _without_container(pod, container, {"terminated": dict(_TAKEN_AS_COMPLETED)}, old, ready=True)
    reason = "PodInitializing" if pod.init_containers else "ContainerCreating"
    status = _without_container(pod, container, {"waiting": {"reason": reason}}, old)
    if old is not None and "running" in old["state"] and "terminated" not in status["lastState"]:
        status["lastState"] = {"terminated": _lost(_LOST_WHILE_RUNNING)}
        status["restartCount"] += 0 if pod.is_deleted else 1
    return status


def _was_initialized(container: Container, observations: Mapping[str, ContainerObservation]) -> bool:
    """An init container that is gone has done its work if an app container was made after it."""
    return (
        container.kind is ContainerKind.INIT
        and not container.is_sidecar
        and any(o.kind is ContainerKind.APP and o.container_id for o in observations.values())
    )


def _without_container(
    pod: Pod, container: Container, state: Json, old: Json | None, *, ready: bool = False
) -> Json:
    status: Json = {
        "name": container.name,
        "state": state,
        "lastState": (old.get("lastState") or {}) if old else {},
        "ready": ready,
        "restartCount": old.get("restartCount", 0) if old else 0,
        "image": container.image,
        "imageID": "",
    }
    if container.kind is not ContainerKind.EPHEMERAL:
        status["started"] = False
    _add_definition(status, container, old)
    return status


_TAKEN_AS_COMPLETED: Json = {
    "exitCode": 0,
    "reason": "Completed",
    "message": "Unable to get init container status from container runtime and pod has been initialized, "
    "treat it as exited normally",
    "startedAt": None,
    "finishedAt": None,
}

_LOST_WHILE_RUNNING = (
    "The container could not be located when the pod was deleted.  The container used to be Running"
)
_LOST_AT_THE_END = "The container could not be located when the pod was terminated"


def _lost(message: str) -> Json:
    return {
        "exitCode": _LOST_EXIT_CODE,
        "reason": "ContainerStatusUnknown",
        "message": message,
        "startedAt": None,
        "finishedAt": None,
    }


# --- from the spec ----------------------------------------------------------------------------------------


def _add_definition(status: Json, container: Container, old: Json | None) -> None:
    """`volumeMounts`: never changes, so what is there is kept."""
    if old is not None and "volumeMounts" in old:
        status["volumeMounts"] = old["volumeMounts"]
    elif container.volume_mounts:
        status["volumeMounts"] = [_volume_mount(m) for m in container.volume_mounts]


def _volume_mount(mount: Json) -> Json:
    status: Json = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        status["readOnly"] = True
        status["recursiveReadOnly"] = "Disabled"
    return status


def _add_resources(status: Json, container: Container, old: Json | None) -> None:
    """
    `resources` and `allocatedResources`: what this very container was made with.

    A pod whose resources are changed in place keeps showing the old ones until its container is replaced,
    since nobody has applied the new ones.
    """
    if old is not None and old.get("containerID") == status["containerID"] and "resources" in old:
        status["resources"] = old["resources"]
        if "allocatedResources" in old:
            status["allocatedResources"] = old["allocatedResources"]
        return
    status["resources"] = container.resources
    if requests := container.resources.get("requests"):
        status["allocatedResources"] = requests


# --- the end ----------------------------------------------------------------------------------------------


def mark_terminated(pod: Pod, init: ContainerStatuses, app: ContainerStatuses) -> None:
    """
    Give every container that may have run a terminated state, in place: nothing of the pod runs any more.

    A container that waited for its next attempt ends as its last one did. Any other without an exit code
    counts as failed (kubelet: TerminatePod): the app containers if the pod had been initialized, and the
    init containers up to the last that had shown a sign of life, at least the first.
    """
    if _has_initialized(pod, init, app):
        _terminate(app, list(app))
    _terminate(init, _begun(init))


def _terminate(statuses: ContainerStatuses, names: list[str]) -> None:
    for name in names:
        status = statuses[name]
        if "terminated" in status["state"]:
            continue
        final = dict(status)
        ended = status["lastState"].get("terminated") if "waiting" in status["state"] else None
        if ended is not None and ended["reason"] != "ContainerStatusUnknown":
            final["state"], final["lastState"] = status["lastState"], {}
        else:
            final["state"] = {"terminated": _lost(_LOST_AT_THE_END)}
        final["ready"] = False
        if "started" in final:
            final["started"] = False
        statuses[name] = final


def _has_initialized(pod: Pod, init: ContainerStatuses, app: ContainerStatuses) -> bool:
    if not pod.init_containers or any(_shows_life(status) for status in app.values()):
        return True
    last, status = pod.init_containers[-1], init[pod.init_containers[-1].name]
    if last.is_sidecar:
        return bool(status.get("started"))
    ends = (status["state"].get("terminated"), status["lastState"].get("terminated"))
    return any(ended is not None and ended["exitCode"] == 0 for ended in ends)


def _begun(init: ContainerStatuses) -> list[str]:
    names = list(init)
    alive = [i for i, name in enumerate(names) if _shows_life(init[name])]
    return names[: max(alive, default=0) + 1]


def _shows_life(status: Json) -> bool:
    return "waiting" not in status["state"] or "terminated" in status["lastState"]
