"""
The status of a pod: what a provider reports, in the words of `v1.PodStatus`.

`pod_status` is the kubelet's status manager without its state: everything that must be remembered (start
time, restart counts, exit codes, transition times, a terminal phase) is read from the status that the API
server has, so a restarted vkubelet continues where the last one stopped. Keeping a copy of the last status
beside it was turned down: two memories can disagree, and one of them dies with the process.

It holds for every result, whatever is observed: a terminal phase is never left, restart counts do not fall,
the start time does not change, a reported exit code is not lost, and no pod becomes terminal while one of
its containers is seen running.

Containers are `model.container_status`'s, conditions `model.conditions`'s. What is left to the writer: the
smallest patch, keeping the conditions of others, and removing owned fields that are no longer there.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from vkubelet import clock
from vkubelet.model import conditions, lifecycle, resources
from vkubelet.model.conditions import OWNED_CONDITION_TYPES
from vkubelet.model.container_status import ContainerStatuses, container_statuses, mark_terminated
from vkubelet.model.observations import ContainerObservation, PodObservation, Running, Waiting
from vkubelet.model.pod import Container, ContainerKind, Json, Pod, PodPhase

__all__ = ["OWNED_CONDITION_TYPES", "OWNED_FIELDS", "pod_status"]

OWNED_FIELDS = (
    "observedGeneration",
    "phase",
    "conditions",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "qosClass",
)
"""The fields that `pod_status` speaks for: one that is absent from its result is to be absent."""


def pod_status(
    pod: Pod, observation: PodObservation | None, *, host_ips: tuple[str, ...], now: datetime.datetime
) -> Json:
    """
    The status that the API server should have.

    Args:
        pod: as the API server has it, with its present status.
        observation: what the provider last reported, None when it has not: the pod keeps the status it
            has, or gets its first one.
        host_ips: the node's addresses, primary first, at most two families.
        now: for what changes with this status.

    Returns:
        `OWNED_FIELDS` only, conditions of `OWNED_CONDITION_TYPES` only. Parts are shared with the pod:
        read only.
    """
    seen = {c.name: c for c in observation.containers} if observation else {}
    terminated = observation is not None and observation.terminated
    reported, settled = observation is not None, terminated or pod.is_terminal
    init, app, ephemeral = (
        container_statuses(pod, containers, seen, before, reported=reported, settled=settled)
        for containers, before in _lists(pod)
    )
    if terminated:
        mark_terminated(pod, init, app)
    outcome = _outcome(pod, observation, seen, init, app)
    if outcome.is_rejection:
        init, app = {}, {}
    moment = clock.rfc3339(now)
    generation = max(pod.generation, pod.status.get("observedGeneration") or 0)
    status: Json = {
        "phase": str(_reported_phase(pod, outcome.phase, seen, terminated=terminated)),
        "conditions": conditions.pod_conditions(
            pod,
            outcome.phase,
            init,
            app,
            sandbox_ready=_sandbox_ready(pod, observation),
            observed_generation=generation,
            now=moment,
        ),
        "startTime": _start_time(pod, observation, moment),
        "qosClass": pod.status.get("qosClass") or str(resources.qos_class(pod)),
    }
    _add_words(status, pod, outcome)
    _add_addresses(status, pod, observation, host_ips)
    if generation:
        status["observedGeneration"] = generation
    _add_containers(status, init, app, ephemeral)
    return status


def _lists(pod: Pod) -> tuple[tuple[tuple[Container, ...], list[Json]], ...]:
    """Init, app and ephemeral containers, each with the statuses that the API server has."""
    before = pod.status
    return (
        (pod.init_containers, before.get("initContainerStatuses") or []),
        (pod.containers, before.get("containerStatuses") or []),
        (pod.ephemeral_containers, before.get("ephemeralContainerStatuses") or []),
    )


def _add_containers(
    status: Json, init: ContainerStatuses, app: ContainerStatuses, ephemeral: ContainerStatuses
) -> None:
    if init:
        status["initContainerStatuses"] = list(init.values())
    if app:
        status["containerStatuses"] = list(app.values())
    if ephemeral:
        status["ephemeralContainerStatuses"] = list(ephemeral.values())


# --- phase ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Outcome:
    """
    Where the pod stands.

    Attributes:
        phase: also while its report is held back because containers still run.
        is_rejection: it failed as a whole before any container of it had been made; it has no container
            statuses then, so that `kubectl get` shows the reason of the rejection.
    """

    phase: PodPhase
    reason: str = ""
    message: str = ""
    is_rejection: bool = False


def _outcome(
    pod: Pod,
    observation: PodObservation | None,
    seen: Mapping[str, ContainerObservation],
    init: ContainerStatuses,
    app: ContainerStatuses,
) -> _Outcome:
    before = _Outcome(pod.phase, pod.status.get("reason") or "", pod.status.get("message") or "")
    failure = observation.failure if observation else None
    if pod.is_terminal:
        without = not pod.status.get("containerStatuses") and not _has_begun(pod, seen)
        return _Outcome(before.phase, before.reason, before.message, is_rejection=without)
    if failure is not None:
        rejected = not _has_begun(pod, seen)
        return _Outcome(PodPhase.FAILED, failure.reason, failure.message, is_rejection=rejected)
    if observation is None:
        return before
    phase = _phase(pod, init, app, terminated=observation.terminated, has_started=_app_made(seen))
    if observation.terminated and not lifecycle.is_phase_terminal(phase):
        phase = PodPhase.FAILED
    return _Outcome(phase, before.reason, before.message) if phase is before.phase else _Outcome(phase)


def _has_begun(pod: Pod, seen: Mapping[str, ContainerObservation]) -> bool:
    """Whether any container was ever made, as far as the platform or the API server know."""
    if any(c.container_id or not isinstance(c.state, Waiting) for c in seen.values()):
        return True
    lists = ("initContainerStatuses", "containerStatuses")
    return any(
        s.get("containerID") or "waiting" not in s["state"] or "terminated" in (s.get("lastState") or {})
        for name in lists
        for s in pod.status.get(name) or ()
    )


def _app_made(seen: Mapping[str, ContainerObservation]) -> bool:
    return any(c.kind is ContainerKind.APP and c.container_id for c in seen.values())


def _reported_phase(
    pod: Pod, phase: PodPhase, seen: Mapping[str, ContainerObservation], *, terminated: bool
) -> PodPhase:
    """
    The phase, a terminal one only when nothing runs (kubelet: mergePodStatus).

    Others take a terminal phase as the sign that what the pod used is free.
    """
    if pod.is_terminal or terminated or not lifecycle.is_phase_terminal(phase):
        return phase
    return pod.phase if any(isinstance(c.state, Running) for c in seen.values()) else phase


def _add_words(status: Json, pod: Pod, outcome: _Outcome) -> None:
    """`reason` and `message`, those of the phase that is reported."""
    held_back = status["phase"] != outcome.phase
    reason = pod.status.get("reason") if held_back else outcome.reason
    message = pod.status.get("message") if held_back else outcome.message
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message


def _phase(
    pod: Pod, init: ContainerStatuses, app: ContainerStatuses, *, terminated: bool, has_started: bool
) -> PodPhase:
    """
    The phase that follows from the containers (kubelet: getPhase).

    `has_started`: an app container has been made, so that a sidecar which restarts does not make the pod
    Pending again.
    """
    failed, pending = _init_progress(pod, init)
    if failed:
        return PodPhase.FAILED
    sidecars_pending, waiting, running = _sidecars(pod, init)
    stopped: list[tuple[Container, int]] = []
    for container in pod.containers:
        status = app[container.name]
        if "running" in status["state"]:
            running += 1
        elif (exit_code := _exit_code(status)) is not None:
            stopped.append((container, exit_code))
        else:
            waiting += 1
    if pending or waiting or (sidecars_pending and not has_started):
        return PodPhase.PENDING
    if running:
        return PodPhase.RUNNING
    return _phase_of_stopped(pod, stopped, terminated=terminated)


def _phase_of_stopped(pod: Pod, stopped: list[tuple[Container, int]], *, terminated: bool) -> PodPhase:
    """Of a pod whose app containers have all ended: Running if one of them is to be restarted."""
    if not terminated and any(lifecycle.should_restart(c, code, pod.restart_policy) for c, code in stopped):
        return PodPhase.RUNNING
    return PodPhase.FAILED if any(code != 0 for _, code in stopped) else PodPhase.SUCCEEDED


def _init_progress(pod: Pod, init: ContainerStatuses) -> tuple[bool, bool]:
    """Whether an init container has failed for good, and whether one has not ended yet."""
    failed = pending = False
    for container in pod.init_containers:
        if container.is_sidecar:
            continue
        status = init[container.name]
        exit_code = None if "running" in status["state"] else _exit_code(status)
        if exit_code is None:
            pending = True
        elif exit_code != 0 and not lifecycle.should_restart(container, exit_code, pod.restart_policy):
            failed = True
    return failed, pending


def _sidecars(pod: Pod, init: ContainerStatuses) -> tuple[int, int, int]:
    """How many sidecars have not started, wait for their first start, and run."""
    pending = waiting = running = 0
    for container in pod.init_containers:
        if not container.is_sidecar:
            continue
        status = init[container.name]
        if "running" in status["state"]:
            running += 1
            pending += not status.get("started")
        elif _exit_code(status) is None:
            pending += 1
            waiting += 1
    return pending, waiting, running


def _exit_code(status: Json) -> int | None:
    """Of the present or, while it waits, the last attempt; None where there was none."""
    ended: Json | None = status["state"].get("terminated") or (status.get("lastState") or {}).get(
        "terminated"
    )
    return None if ended is None else ended["exitCode"]


# --- the rest ---------------------------------------------------------------------------------------------


def _sandbox_ready(pod: Pod, observation: PodObservation | None) -> bool:
    if observation is not None:
        return observation.sandbox_ready
    present = pod.status.get("conditions") or ()
    return any(c["type"] == "PodReadyToStartContainers" and c["status"] == "True" for c in present)


def _start_time(pod: Pod, observation: PodObservation | None, now: str) -> str:
    """When the kubelet first took the pod on; set once."""
    if known := pod.status.get("startTime"):
        return str(known)
    if observation is not None and observation.start_time is not None:
        return clock.rfc3339(observation.start_time)
    return now


def _add_addresses(
    status: Json, pod: Pod, observation: PodObservation | None, host_ips: tuple[str, ...]
) -> None:
    """
    The node's addresses and the pod's, one of each family, the node's primary family first.

    A pod on the host's network has the node's addresses, from its first status on. A pod that has lost its
    network keeps the addresses it had.
    """
    if host_ips:
        status["hostIP"] = host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in host_ips[:2]]
    known = tuple(entry["ip"] for entry in pod.status.get("podIPs") or ())
    if pod.host_network:
        pod_ips = _host_network_ips(known, host_ips)
    else:
        pod_ips = _by_family(observation.pod_ips, host_ips) if observation and observation.pod_ips else known
    if pod_ips:
        status["podIP"] = pod_ips[0]
        status["podIPs"] = [{"ip": ip} for ip in pod_ips]


def _host_network_ips(known: tuple[str, ...], host_ips: tuple[str, ...]) -> tuple[str, ...]:
    if not known:
        return host_ips[:2]
    if len(known) == 1 and len(host_ips) > 1 and _is_ipv6(host_ips[1]) != _is_ipv6(known[0]):
        return (known[0], host_ips[1])
    return known


def _by_family(ips: tuple[str, ...], host_ips: tuple[str, ...]) -> tuple[str, ...]:
    if len(ips) == 1:
        return ips
    primary = bool(host_ips) and _is_ipv6(host_ips[0])
    first = [ip for ip in ips if _is_ipv6(ip) == primary][:1]
    second = [ip for ip in ips if _is_ipv6(ip) != primary][:1]
    return tuple(first + second)


def _is_ipv6(ip: str) -> bool:
    return ":" in ip
