"""
What is reported of a pod: the runtime's view and the engine's memory as one `PodObservation`.

Pure. Container states and their reasons are made here; phase, conditions and the merge with what the API
server remembers are `model.status`'s.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator, Mapping

from vkubelet.kuberuntime.actions import ended_with, pod_started_at
from vkubelet.kuberuntime.contract import ContainerInfo, ContainerStatus, RuntimePod
from vkubelet.kuberuntime.history import History, has_ended, history_of
from vkubelet.kuberuntime.plan import Plan
from vkubelet.kuberuntime.pod_memory import PodMemory
from vkubelet.model.observations import (
    ContainerObservation,
    ContainerState,
    PodObservation,
    Running,
    Terminated,
    Waiting,
)
from vkubelet.model.pod import Container, ContainerKind, Pod

__all__ = ["observe", "terminated_state"]

_CREATING = Waiting("ContainerCreating")
_INITIALIZING = Waiting("PodInitializing")
_NO_MESSAGES: Mapping[str, str] = {}


def observe(
    memory: PodMemory,
    status: RuntimePod,
    plan: Plan,
    now: datetime.datetime,
    *,
    host_network_ips: tuple[str, ...] = (),
) -> PodObservation:
    """
    The pod as it is.

    Args:
        memory: what the engine knows beside the runtime; not changed.
        status: what the runtime has.
        plan: what `actions.next_actions` makes of both.
        now: the end of containers that have just been found lost.
        host_network_ips: the node's addresses, for a pod on its network.
    """
    pod = memory.pod
    ready = [s for s in status.sandboxes if s.ready]
    before = memory.observation
    ips = ready[0].ips if ready else (before.pod_ips if before is not None else ())
    if pod is None:
        containers = tuple(_orphaned_containers(memory, status, now))
        start_time = min((s.created_at for s in status.sandboxes), default=memory.start_time)
    else:
        ips = host_network_ips if pod.host_network and ready else ips
        containers = tuple(_containers(memory, pod, status, plan, now))
        start_time = pod_started_at(pod, memory)
    return PodObservation(
        key=memory.key,
        containers=containers,
        pod_ips=ips,
        sandbox_ready=bool(ready),
        failure=memory.failure,
        terminated=plan.over,
        start_time=start_time,
    )


def _orphaned_containers(
    memory: PodMemory, status: RuntimePod, now: datetime.datetime
) -> Iterator[ContainerObservation]:
    """Without the pod's spec: what the runtime's own records say."""
    kinds = {c.name: c.kind for c in status.containers}
    for name, kind in kinds.items():
        history = history_of(name, status, memory.known(name), now)
        yield _observed(name, kind, history, _CREATING, None, memory.messages)


def _containers(
    memory: PodMemory, pod: Pod, status: RuntimePod, plan: Plan, now: datetime.datetime
) -> Iterator[ContainerObservation]:
    stopping = memory.stop_by is not None or plan.over
    default = _INITIALIZING if pod.init_containers else _CREATING
    for container in pod.all_containers():
        known = memory.known(container.name)
        history = history_of(container.name, status, known, now)
        waiting = None if stopping else _waiting(memory, plan, container)
        if history.newest is not None or history.lost is not None:
            seen = _observed(container.name, container.kind, history, default, waiting, memory.messages)
            yield _with_last_state(seen, known)
        elif waiting is not None:
            yield ContainerObservation(container.name, container.kind, waiting, container.image)


def _waiting(memory: PodMemory, plan: Plan, container: Container) -> Waiting | None:
    waiting = plan.waiting.get(container.name)
    if waiting is None and (blocked := memory.blocked.get(container.name)) is not None:
        waiting = blocked.waiting
    return waiting if waiting is not None and waiting.reason else None


def _observed(
    name: str,
    kind: ContainerKind,
    history: History,
    default: Waiting,
    waiting: Waiting | None,
    messages: Mapping[str, str],
) -> ContainerObservation:
    newest = history.newest
    state: ContainerState
    state, last = _states(history, default, messages)
    if waiting is not None and isinstance(state, Terminated):
        last = state
        state = waiting
    elif waiting is not None and isinstance(state, Waiting):
        state = waiting
    running = isinstance(state, Running)
    finished_init = kind is ContainerKind.INIT and isinstance(state, Terminated) and state.exit_code == 0
    present_id = newest.container_id if newest is not None else ""
    return ContainerObservation(
        name=name,
        kind=kind,
        state=state,
        image=newest.image if newest is not None else "",
        last_state=last,
        restart_count=history.next_attempt - 1,
        ready=running or finished_init,
        started=running,
        image_id=newest.image_ref if newest is not None else "",
        container_id=history.lost.container_id if history.lost is not None else present_id,
    )


def _states(
    history: History, default: Waiting, messages: Mapping[str, str]
) -> tuple[ContainerState, Terminated | None]:
    """The state of the latest attempt, and the end of the one before it."""
    newest = history.newest
    if history.lost is not None or newest is None:
        ended = newest is not None and has_ended(newest)
        last = terminated_state(newest, messages) if ended and newest is not None else None
        return history.lost or default, last
    last = terminated_state(history.previous, messages) if history.previous is not None else None
    if has_ended(newest):
        return terminated_state(newest, messages), last
    match newest.status:
        case ContainerStatus.RUNNING:
            return Running(newest.started_at or newest.created_at), last
        case ContainerStatus.UNKNOWN:
            return Waiting("ContainerStatusUnknown"), last
        case _:
            return default, last


def terminated_state(info: ContainerInfo, messages: Mapping[str, str] = _NO_MESSAGES) -> Terminated:
    """
    How an attempt ended, with the reasons that containerd gives.

    Its message is the runtime's error, if any, and what the container left as termination message.
    """
    exit_code = ended_with(info)
    if info.error:
        reason = "StartError"
    elif info.oom_killed:
        reason = "OOMKilled"
    else:
        reason = "Completed" if exit_code == 0 else "Error"
    message = ": ".join(part for part in (info.error, messages.get(info.id, "")) if part)
    return Terminated(
        exit_code=exit_code,
        reason=reason,
        message=message,
        started_at=info.started_at,
        finished_at=info.finished_at,
        container_id=info.container_id,
    )


def _with_last_state(seen: ContainerObservation, known: ContainerObservation | None) -> ContainerObservation:
    """With the end of the attempt before as last reported, where the runtime has forgotten it."""
    if seen.last_state is not None or known is None or not known.container_id:
        return seen
    if known.restart_count != seen.restart_count:
        last = known.state if isinstance(known.state, Terminated) else known.last_state
    elif known.last_state is not None and known.last_state.container_id != seen.container_id:
        last = known.last_state
    else:
        last = None
    return dataclasses.replace(seen, last_state=last) if last is not None else seen
