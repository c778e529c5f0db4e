"""What a pod needs next, as data: the steps that `actions` decides on and `pod_worker` performs."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vkubelet.model.observations import PodFailure, Waiting
from vkubelet.model.pod import Container

__all__ = [
    "Action",
    "CreateSandbox",
    "KillContainer",
    "Plan",
    "RemoveContainer",
    "RemoveSandbox",
    "StartContainer",
    "StopSandbox",
]


@dataclass(frozen=True, slots=True)
class CreateSandbox:
    """Make the sandbox of that attempt; `replaces` an earlier one that was lost."""

    attempt: int
    replaces: bool


@dataclass(frozen=True, slots=True)
class StopSandbox:
    """Stop a sandbox whose containers have stopped."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Remove a stopped sandbox that no kept container stood in."""

    sandbox_id: str


@dataclass(frozen=True, slots=True)
class StartContainer:
    """
    Start an attempt.

    Attributes:
        failures: exits in a row before it, noted on it.
        existing_id: it has been created already and only needs to be started.
    """

    container: Container
    attempt: int
    failures: int
    sandbox_id: str
    existing_id: str | None = None


@dataclass(frozen=True, slots=True)
class KillContainer:
    """
    Stop it within its grace period.

    Attributes:
        message: of the Killing event.
        deadline: by when, None for the pod's own grace period from now.
        restart: it is to be started anew, whatever the restart policy.
    """

    container_id: str
    name: str
    message: str
    deadline: datetime.datetime | None = None
    restart: bool = False


@dataclass(frozen=True, slots=True)
class RemoveContainer:
    """Remove an attempt that is over and that nobody asks for any more."""

    container_id: str


Action = CreateSandbox | StopSandbox | RemoveSandbox | StartContainer | KillContainer | RemoveContainer


_NOBODY: Mapping[str, Waiting] = MappingProxyType({})
_NOTHING: Mapping[str, int] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Attributes of what comes next.

    Attributes:
        actions: to be performed now, in order; starts and kills may overlap.
        waiting: why containers wait, by name, beyond what `PodMemory.blocked` says.
        backing_off: the attempt after whose end a container waits in CrashLoopBackOff, by name.
        wake_at: look again then even if nothing happens.
        over: nothing runs and nothing will be started again.
        has_losses: an attempt has vanished from the runtime: report its end before it is replaced.
        failure: end the whole pod with this.
    """

    actions: tuple[Action, ...] = ()
    waiting: Mapping[str, Waiting] = field(default_factory=lambda: _NOBODY)
    backing_off: Mapping[str, int] = field(default_factory=lambda: _NOTHING)
    wake_at: datetime.datetime | None = None
    over: bool = False
    has_losses: bool = False
    failure: PodFailure | None = None
