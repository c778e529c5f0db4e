"""
The conditions of a pod that the kubelet owns, from the readiness of its network to its own.

They are PodReadyToStartContainers, Initialized, Ready, ContainersReady and PodScheduled. Each keeps its
`lastTransitionTime` as long as its status stays. Conditions of others (readiness gates, DisruptionTarget)
are read, never returned: whoever writes the status leaves them alone.

Rules and wording: the kubelet's ``status/generate.go`` and ``updateLastTransitionTime``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from vkubelet.model.pod import Container, Json, Pod, PodPhase

__all__ = ["OWNED_CONDITION_TYPES", "pod_conditions"]

OWNED_CONDITION_TYPES = frozenset(
    {"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"}
)
"""The types that `pod_conditions` returns; every other one belongs to somebody else."""


class _Verdict(NamedTuple):
    """A condition before it has times."""

    status: str
    reason: str = ""
    message: str = ""


_TRUE = _Verdict("True")
_FALSE = _Verdict("False")


def pod_conditions(
    pod: Pod,
    phase: PodPhase,
    init: Mapping[str, Json],
    app: Mapping[str, Json],
    *,
    sandbox_ready: bool,
    observed_generation: int,
    now: str,
) -> list[Json]:
    """
    The owned conditions, in the kubelet's order.

    Args:
        pod: with the conditions that the API server has.
        phase: the one they are for, also when its report is held back.
        init: statuses of init containers by name; may be empty for a pod that was rejected.
        app: likewise those of app containers.
        sandbox_ready: its network is up, containers can be started.
        observed_generation: for each condition; left out when 0.
        now: RFC 3339, for those that change.
    """
    present = {c["type"]: c for c in pod.status.get("conditions") or ()}
    containers_ready = _containers_ready(pod, phase, init, app)
    verdicts = (
        ("PodReadyToStartContainers", _TRUE if sandbox_ready else _FALSE),
        ("Initialized", _initialized(pod, phase, init, app, present)),
        ("Ready", containers_ready if containers_ready is not _TRUE else _gates(pod, present)),
        ("ContainersReady", containers_ready),
        ("PodScheduled", _TRUE),
    )
    return [_condition(t, v, present.get(t), observed_generation, now) for t, v in verdicts]


def _condition(kind: str, verdict: _Verdict, old: Json | None, observed_generation: int, now: str) -> Json:
    since: str | None = None
    if old is not None and old.get("status") == verdict.status:
        since = old.get("lastTransitionTime")
    condition: Json = {
        "type": kind,
        "status": verdict.status,
        "lastProbeTime": None,
        "lastTransitionTime": since or now,
    }
    if observed_generation:
        condition["observedGeneration"] = observed_generation
    if verdict.reason:
        condition["reason"] = verdict.reason
    if verdict.message:
        condition["message"] = verdict.message
    return condition


def _containers_ready(
    pod: Pod, phase: PodPhase, init: Mapping[str, Json], app: Mapping[str, Json]
) -> _Verdict:
    """Every app container and sidecar is ready; never so for a pod that has ended."""
    if phase is PodPhase.SUCCEEDED:
        return _Verdict("False", "PodCompleted")
    if phase is PodPhase.FAILED:
        return _Verdict("False", "PodFailed")
    unready = [c.name for c in pod.init_containers if c.is_sidecar and not init[c.name]["ready"]]
    unready += [c.name for c in pod.containers if not app[c.name]["ready"]]
    if not unready:
        return _TRUE
    return _Verdict("False", "ContainersNotReady", f"containers with unready status: {_listed(unready)}")


def _gates(pod: Pod, present: Mapping[str, Json]) -> _Verdict:
    """`spec.readinessGates`: conditions that others must set to True before the pod counts as ready."""
    messages = []
    for gate in pod.spec.get("readinessGates") or ():
        kind: str = gate["conditionType"]
        if (found := present.get(kind)) is None:
            messages.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif found.get("status") != "True":
            messages.append(
                f'the status of pod readiness gate "{kind}" is not "True", but {found.get("status")}'
            )
    return _Verdict("False", "ReadinessGatesNotReady", ", ".join(messages)) if messages else _TRUE


def _initialized(
    pod: Pod, phase: PodPhase, init: Mapping[str, Json], app: Mapping[str, Json], present: Mapping[str, Json]
) -> _Verdict:
    """Init containers have succeeded and sidecars have started; once true it stays true."""
    if not pod.init_containers:
        return _Verdict("True", "PodCompleted") if phase is PodPhase.SUCCEEDED else _TRUE
    if phase is PodPhase.SUCCEEDED:
        return _Verdict("True", "PodCompleted")
    incomplete = [c.name for c in pod.init_containers if not _is_initialized(c, init.get(c.name))]
    was_initialized = (present.get("Initialized") or {}).get("status") == "True"
    if not incomplete or was_initialized or any("waiting" not in s["state"] for s in app.values()):
        return _TRUE
    message = f"containers with incomplete status: {_listed(incomplete)}"
    return _Verdict("False", "ContainersNotInitialized", message)


def _is_initialized(container: Container, status: Json | None) -> bool:
    if status is None:
        return False
    return bool(status.get("started") if container.is_sidecar else status["ready"])


def _listed(names: list[str]) -> str:
    """As Go prints a list of strings: ``[a b]``."""
    return f"[{' '.join(names)}]"
