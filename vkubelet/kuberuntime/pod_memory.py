"""
What the engine keeps in mind of one pod between two looks at the runtime.

Only what the runtime cannot tell: what is wanted, why a container could not be started, and what is under
way. Everything that decides about starts (attempt numbers, exit codes, back-off) is read from the runtime
each time, so a restarted vkubelet decides as the last one would have. A task per pod that remembers by its
program counter was turned down: it costs memory for each idle pod, and a restart forgets where it stood.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vkubelet.clock import Timer
from vkubelet.kuberuntime.contract import SandboxConfig
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import ContainerObservation, PodFailure, PodObservation, Waiting
from vkubelet.model.pod import Pod
from vkubelet.model.references import References

__all__ = ["NOTHING_REMEMBERED", "NOTHING_YET", "Blocked", "PodMemory", "Stopping", "VolumeState"]

NOTHING_YET = Waiting("")
"""A container waits for something that is under way: shown as ContainerCreating or PodInitializing."""


@dataclass(frozen=True, slots=True)
class Blocked:
    """
    Why a start did not happen.

    Attributes:
        waiting: how its status shows it.
        retry_at: when it is tried again; None when somebody will take the block away.
        needs_references: a newer snapshot of what the pod refers to may help, so try again when one comes.
    """

    waiting: Waiting
    retry_at: datetime.datetime | None
    needs_references: bool = False


@dataclass(slots=True)
class Stopping:
    """A container that was told to stop: by when it must have, and the task that sees to it."""

    deadline: datetime.datetime
    task: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class VolumeState:
    """
    How far the pod's volumes are.

    Attributes:
        ready: every volume is there.
        retry_at: after a failure, when it is tried again.
        error: the last failure, so that the same one is not told twice in a row.
    """

    ready: bool = False
    retry_at: datetime.datetime | None = None
    error: str = ""


_NO_REFERENCES = References()
_NO_VOLUMES_YET = VolumeState()
NOTHING_REMEMBERED: Mapping[str, ContainerObservation] = MappingProxyType({})


@dataclass(slots=True, eq=False)
class PodMemory:
    """
    One pod.

    Attributes:
        pod: what is wanted; None for a pod that is known from the runtime alone.
        start_time: when it was taken on.
        observation: what was last reported.
        remembered: containers as the API server knew them when the pod was taken on.
        blocked: by container name.
        messages: termination messages that have been read, by container id.
        restarting: containers that were killed to be started anew, whatever the restart policy.
        stopping: by container id.
        stop_by: everything must have stopped by then; None while the pod shall live.
        failure: it was ended as a whole.
        sandbox_retry_at: after a sandbox that could not be made.
        backing_off: the attempt of each container whose back-off has been told.
        is_dirty: something happened since the worker last looked.
        is_closed: it is being deleted; nothing may touch it.
        errors: failed passes in a row.
        sandbox: the configuration of its sandbox, during a pass.
    """

    key: PodKey
    pod: Pod | None = None
    references: References = field(default_factory=lambda: _NO_REFERENCES)
    start_time: datetime.datetime | None = None
    observation: PodObservation | None = None
    remembered: Mapping[str, ContainerObservation] = field(default_factory=lambda: NOTHING_REMEMBERED)
    blocked: dict[str, Blocked] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    restarting: frozenset[str] = frozenset()
    stopping: dict[str, Stopping] = field(default_factory=dict)
    stop_by: datetime.datetime | None = None
    failure: PodFailure | None = None
    volumes: VolumeState = _NO_VOLUMES_YET
    sandbox_retry_at: datetime.datetime | None = None
    backing_off: dict[str, int] = field(default_factory=dict)
    timer: Timer | None = None
    task: asyncio.Task[None] | None = None
    is_dirty: bool = False
    is_closed: bool = False
    errors: int = 0
    sandbox: SandboxConfig | None = None

    def known(self, name: str) -> ContainerObservation | None:
        """The container as last reported, else as the API server knew it."""
        if self.observation is not None:
            for container in self.observation.containers:
                if container.name == name:
                    return container
        return self.remembered.get(name)

    def stop_no_later_than(self, deadline: datetime.datetime) -> bool:
        """The whole pod shall stop; an earlier deadline wins. True when that changes anything."""
        if self.stop_by is not None and self.stop_by <= deadline:
            return False
        self.stop_by = deadline
        return True
