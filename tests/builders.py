"""
Valid pods and observations with few words, so that a test shows only what matters to it.

`pod_json` gives what the API server would send after defaulting; overrides are merged into it key by key
(lists and scalars replace, objects merge).
"""

from __future__ import annotations

import datetime
from typing import Any

from vkubelet.model.keys import PodKey
from vkubelet.model.observations import (
    ContainerObservation,
    ContainerState,
    PodFailure,
    PodObservation,
    Running,
    Terminated,
)
from vkubelet.model.pod import ContainerKind, Json, Pod, parse_pod

__all__ = [
    "START",
    "container_json",
    "make_pod",
    "moment",
    "observed",
    "observed_pod",
    "pod_json",
    "running",
    "terminated",
]

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
"""The first moment of a `ManualClock`."""


def moment(seconds: float = 0.0) -> datetime.datetime:
    """That many seconds after `START`."""
    return START + datetime.timedelta(seconds=seconds)


def container_json(name: str = "main", **overrides: Any) -> Json:
    """A container as the API server defaults it; `overrides` are merged in."""
    container: Json = {
        "name": name,
        "image": "registry.example/app:1.0",
        "imagePullPolicy": "IfNotPresent",
        "resources": {},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    return _merged(container, overrides)


def pod_json(
    name: str = "web",
    namespace: str = "default",
    uid: str | None = None,
    *,
    metadata: Json | None = None,
    status: Json | None = None,
    **spec: Any,
) -> Json:
    """
    A pod bound to ``node-1`` as the API server sends it; further keywords are fields of its spec.

    `uid` is ``uid-<name>`` unless given.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _merged(
            {
                "name": name,
                "namespace": namespace,
                "uid": uid or f"uid-{name}",
                "resourceVersion": "1",
                "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            metadata or {},
        ),
        "spec": _merged(_spec(), spec),
        "status": status
        if status is not None
        else {
            "phase": "Pending",
            "qosClass": "BestEffort",
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "True",
                    "observedGeneration": 1,
                    "lastProbeTime": None,
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }
            ],
        },
    }


def make_pod(name: str = "web", namespace: str = "default", uid: str | None = None, **overrides: Any) -> Pod:
    """`pod_json`, parsed."""
    return parse_pod(pod_json(name, namespace, uid, **overrides))


def running(started_at_s: float = 1.0) -> Running:
    """Running since that many seconds after `START`."""
    return Running(moment(started_at_s))


def terminated(
    exit_code: int = 0,
    reason: str | None = None,
    *,
    finished_at_s: float = 2.0,
    container_id: str = "docker://1",
) -> Terminated:
    """Ended with `exit_code`; the reason follows from it unless given."""
    return Terminated(
        exit_code=exit_code,
        reason=reason or ("Completed" if exit_code == 0 else "Error"),
        started_at=moment(1.0),
        finished_at=moment(finished_at_s),
        container_id=container_id,
    )


def observed(
    name: str = "main",
    state: ContainerState | None = None,
    *,
    kind: ContainerKind = ContainerKind.APP,
    ready: bool | None = None,
    **overrides: Any,
) -> ContainerObservation:
    """One container, running and ready unless said otherwise."""
    state = state if state is not None else running()
    fields: dict[str, Any] = {
        "image": "registry.example/app:1.0",
        "image_id": "sha256:0123",
        "container_id": "docker://1",
        "ready": isinstance(state, Running) if ready is None else ready,
    }
    return ContainerObservation(name=name, kind=kind, state=state, **{**fields, **overrides})


def observed_pod(
    pod: Pod | PodKey,
    *containers: ContainerObservation,
    pod_ips: tuple[str, ...] = ("10.1.0.5",),
    sandbox_ready: bool = True,
    failure: PodFailure | None = None,
    terminated: bool = False,
) -> PodObservation:
    """The pod as a platform reports it: with an address, its sandbox up unless it has terminated."""
    return PodObservation(
        key=pod if isinstance(pod, PodKey) else pod.key,
        containers=containers,
        pod_ips=pod_ips,
        sandbox_ready=sandbox_ready and not terminated,
        failure=failure,
        terminated=terminated,
        start_time=START,
    )


def _spec() -> Json:
    return {
        "containers": [container_json()],
        "nodeName": "node-1",
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
        "priority": 0,
        "tolerations": [
            {"key": "virtual-kubelet.io/provider", "operator": "Exists", "effect": "NoSchedule"},
        ],
    }


def _merged(base: Json, overrides: Json) -> Json:
    merged = dict(base)
    for key, value in overrides.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
