"""
What a provider reports: the state of pods, containers and the node, in the API's terms but without its JSON.

A provider says what it sees and nothing more. Phase and conditions follow from these values by
`model.status`, so that they mean the same on every provider.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field

from vkubelet.model.keys import PodKey
from vkubelet.model.pod import ContainerKind

__all__ = [
    "ContainerObservation",
    "ContainerState",
    "NodeCondition",
    "NodeObservation",
    "PodFailure",
    "PodObservation",
    "Running",
    "Terminated",
    "Waiting",
]


@dataclass(frozen=True, slots=True)
class Waiting:
    """Not running, but shall be; `reason` is the kubelet's, such as ContainerCreating or CrashLoopBackOff."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Running:
    """Running since `started_at`."""

    started_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Terminated:
    """
    Ran and ended.

    Attributes:
        exit_code: the process's; 128 + signal where a signal ended it.
        reason: Completed, Error, OOMKilled, ContainerCannotRun, StartError, ContainerStatusUnknown.
        message: what the container left as termination message.
    """

    exit_code: int
    reason: str
    message: str = ""
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    container_id: str = ""


ContainerState = Waiting | Running | Terminated


@dataclass(frozen=True, slots=True)
class ContainerObservation:
    """
    One container as the platform has it, under the names of `v1.ContainerStatus`.

    Attributes:
        last_state: how the attempt before the present one ended.
        started: startup is over (its startup probe, if any, has succeeded); None where unknown.
        ready: passes its readiness probe, or is running and has none; a finished init container is ready.
        image_id: with digest where the platform knows it.
        container_id: ``<runtime>://<id>``, "" before it was created.
    """

    name: str
    kind: ContainerKind
    state: ContainerState
    image: str
    last_state: Terminated | None = None
    restart_count: int = 0
    ready: bool = False
    started: bool | None = None
    image_id: str = ""
    container_id: str = ""


@dataclass(frozen=True, slots=True)
class PodFailure:
    """The pod was ended as a whole: phase Failed, with this in `status.reason` and `status.message`."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class PodObservation:
    """
    One pod as the platform has it.

    Attributes:
        containers: those the platform knows of, in any order; missing ones count as not yet created.
        pod_ips: primary first; () before there is one.
        sandbox_ready: its network and, where there is one, its sandbox are up.
        failure: set when the provider has ended the pod as a whole (rejection, eviction, deadline).
        terminated: nothing of it runs and the provider will start nothing of it again.
        start_time: when the provider first took it on; None where it cannot say.
    """

    key: PodKey
    containers: tuple[ContainerObservation, ...] = ()
    pod_ips: tuple[str, ...] = ()
    sandbox_ready: bool = False
    failure: PodFailure | None = None
    terminated: bool = False
    start_time: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class NodeCondition:
    """One of the node's conditions: `status` is "True", "False" or "Unknown"."""

    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class NodeObservation:
    """
    What the platform offers just now.

    Attributes:
        capacity: quantities by resource name, at least cpu, memory and pods.
        allocatable: the part of it that pods may use.
        conditions: Ready, MemoryPressure, DiskPressure and PIDPressure; Ready False while the platform fails.
        node_info: the fields of `v1.NodeSystemInfo` that it knows (operatingSystem, architecture,
            containerRuntimeVersion, osImage, kernelVersion, machineID, systemUUID, bootID).
        labels, annotations: of its own, such as a zone.
    """

    capacity: Mapping[str, str]
    allocatable: Mapping[str, str]
    conditions: tuple[NodeCondition, ...]
    node_info: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    provider_id: str = ""
