"""
The provider contract: what a platform must do to run a node's pods.

A provider handles whole pods. It is told what the API server wants (`create_pod`, `update_pod`,
`terminate_pod`, `delete_pod`), and tells what it sees (`PodHost.pod_changed`). It never talks to the API
server: pods arrive with their references resolved, and phase, conditions and Events are made of what it
reports. A platform that has containers but no pods implements `kuberuntime.contract.ContainerRuntime`
instead and gets its `Provider` from `kuberuntime.provider`.

The way of a pod::

    create_pod ──▶ pod_changed … pod_changed ──▶ terminate_pod ──▶ pod_changed(terminated=True) ──▶ delete_pod

`terminate_pod` and `delete_pod` are two calls because the final status, exit codes included, must be with
the API server before the platform forgets the pod. (One call `DeletePod`, as elsewhere, loses them.)

Streams and statistics are powers of their own (`LogSource`, `ExecRunner`, `Attacher`, `StatsSource`): a
provider has them or has not, and each endpoint of the kubelet API takes just the one it needs.

Third parties register under the entry point group ``vkubelet.providers`` a function
``create(context: ProviderContext) -> Provider`` that raises `ConfigurationError` for a bad configuration.
"""

from __future__ import annotations

import abc
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from vkubelet import metrics
from vkubelet.clock import Clock
from vkubelet.instrumented import instrument
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import NodeObservation, PodObservation
from vkubelet.model.pod import Pod
from vkubelet.model.references import References
from vkubelet.model.stats import StatsSummary

__all__ = [
    "Attacher",
    "ByteSink",
    "ExecIO",
    "ExecRunner",
    "LogOptions",
    "LogSource",
    "PodHost",
    "PortConnection",
    "PortForwarder",
    "Provider",
    "ProviderContext",
    "StatsSource",
    "TerminalSize",
]


class PodHost(Protocol):
    """What a provider may call; every method returns at once and may be called from any task."""

    def pod_changed(self, observation: PodObservation) -> None:
        """A pod is now so. Report every change, in order; reporting the same twice is harmless."""

    def node_changed(self) -> None:
        """`Provider.describe_node` would answer differently: ask it now rather than in 10 s."""

    def record_event(
        self,
        key: PodKey,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        container: str | None = None,
    ) -> None:
        """Tell the pod's owner, by a Kubernetes Event; `container` is named in its `fieldPath`."""


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """
    What a provider is made with.

    Attributes:
        cluster_id: differs between clusters, so that two of them can share one platform account.
        root_dir: a directory of its own for state; exists.
        config: the contents of ``--provider-config``, {} when there is none.
        max_pods: what the operator allows, None for the provider's own limit.
    """

    host: PodHost
    clock: Clock
    node_name: str
    cluster_id: str
    node_ips: tuple[str, ...]
    root_dir: Path
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = "cluster.local"
    max_pods: int | None = None
    config: Mapping[str, object] = field(default_factory=dict)


_COUNTED_CALLS = {
    call: call
    for call in ("create_pod", "update_pod", "terminate_pod", "delete_pod", "list_pods", "describe_node")
}


class Provider(abc.ABC):
    """
    A platform that runs pods.

    Calls for one pod come one at a time; calls for different pods come in parallel. Every method may be
    called again after an error or a restart and then must find its earlier work done, not do it twice.

    Errors: `InvalidPodError` (never retried, the pod fails), `ProviderUnavailableError` (retried),
    `PodNotFoundError` where documented; anything else is retried with back-off and reported.
    """

    name: str
    """Short and stable: the taint's value and part of `kubeletVersion`."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        instrument(cls, _COUNTED_CALLS, metrics.provider_call)

    @abc.abstractmethod
    def running(self) -> AbstractAsyncContextManager[None]:
        """
        The provider's life: connects on entry, owns every task it starts, and ends them on exit.

        Leaving it stops no pod: the next vkubelet adopts what runs.
        """

    @abc.abstractmethod
    async def create_pod(self, pod: Pod, references: References) -> None:
        """
        Take the pod on; returns as soon as the platform has accepted the work.

        Called too for a pod that was taken on before a restart: it is adopted, not made twice.
        `references` may hold `Unavailable` answers; a newer snapshot follows by `update_pod`.
        """

    @abc.abstractmethod
    async def update_pod(self, pod: Pod, references: References) -> None:
        """The pod or something it refers to has changed. Raises `PodNotFoundError` when it is not known."""

    @abc.abstractmethod
    async def terminate_pod(self, key: PodKey, grace_period_s: float) -> None:
        """
        Stop it: at once the polite signal, after `grace_period_s` by force.

        Returns promptly; done when `pod_changed` reports ``terminated``. Called again with a shorter grace
        period, it shortens. Raises `PodNotFoundError` when the platform certainly has nothing of it.
        """

    @abc.abstractmethod
    async def delete_pod(self, key: PodKey) -> None:
        """
        Remove all that is left of a terminated pod; returns when it is gone.

        A pod that is not there is success.
        """

    @abc.abstractmethod
    async def list_pods(self) -> Sequence[PodObservation]:
        """
        Every pod of this node that the platform has, also those nobody asked this process for.

        Complete or an error, never a part: what is not in it counts as gone.
        """

    @abc.abstractmethod
    async def describe_node(self) -> NodeObservation:
        """
        Capacity, conditions and so on, from the platform as it is now.

        Does not raise: a failing platform is a Ready condition that is False.
        """


# --- streams ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LogOptions:
    """
    `v1.PodLogOptions`, parsed and checked.

    Attributes:
        tail_lines: None for all; 0 for none of what is there.
        since: only what was written at or after it.
        limit_bytes: None for no limit; enforced by the caller, a source may use it to read less.
    """

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail_lines: int | None = None
    since: datetime.datetime | None = None
    limit_bytes: int | None = None


@runtime_checkable
class LogSource(Protocol):
    """Can show what a container wrote."""

    def container_logs(
        self, key: PodKey, container: str, options: LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """
        The log, stdout and stderr merged in order of writing, in chunks as large as come.

        With `timestamps` each line starts with its RFC 3339 time (nanoseconds) and a space. With `follow`
        the iterator ends when the container ends. Entering raises `PodNotFoundError` (404) or
        `StreamError` (for example 400 while it waits to start).
        """


class TerminalSize(NamedTuple):
    """Columns and rows."""

    width: int
    height: int


class ByteSink(Protocol):
    """Where output goes."""

    async def write(self, data: bytes) -> None:
        """Returns when the reader keeps up: waiting here is the back-pressure."""


class ExecIO(Protocol):
    """What a running command reads from and writes to; None for what the client did not ask for."""

    @property
    def stdin(self) -> AsyncIterator[bytes] | None:
        """Input in chunks; ends at the client's half-close."""

    @property
    def stdout(self) -> ByteSink | None:
        """Standard output; with a terminal, all output."""

    @property
    def stderr(self) -> ByteSink | None:
        """Standard error; None with a terminal."""

    @property
    def tty(self) -> bool:
        """The command gets a terminal."""

    @property
    def resizes(self) -> AsyncIterator[TerminalSize] | None:
        """Sizes of the client's terminal, the first one soon after the start."""


@runtime_checkable
class ExecRunner(Protocol):
    """Can run a command in a container."""

    async def is_running(self, key: PodKey, container: str) -> bool:
        """
        Whether the container runs just now: asked while the client can still be refused by an HTTP status.

        A guess is good enough; `exec` finds out.
        """

    async def exec(self, key: PodKey, container: str, command: Sequence[str], io: ExecIO) -> int:
        """
        Run it to its end and return its exit code; cancelled, it ends the command.

        Everything it wrote has been handed to `io` before this returns; it does not wait for the end of
        stdin. Raises `PodNotFoundError` (404) or `StreamError`.
        """


@runtime_checkable
class Attacher(Protocol):
    """Can connect a client to a container's own streams."""

    async def is_running(self, key: PodKey, container: str) -> bool:
        """As `ExecRunner.is_running`."""

    async def attach(self, key: PodKey, container: str, io: ExecIO) -> None:
        """
        Hand on what the container writes from now on, and what the client types, until the container ends.

        Cancelled, or when stdin ends (so `kubectl attach` detaches), this ends and the container goes on.
        Only with `stdinOnce` and no terminal the end of stdin is that of the container's input, and output
        goes on. Whether there is a terminal is the container's matter: where there is, all output is
        `stdout`. Raises `PodNotFoundError` (404) or `StreamError`.
        """


class PortConnection(Protocol):
    """
    One connection to a port of a pod: bytes both ways, each direction with an end of its own.

    One task at a time reads, another one writes. Both raise `OSError` when the other side is gone.
    """

    async def read(self, limit: int) -> bytes:
        """What has come, at most `limit` bytes, without waiting for more; b"" at the end."""

    async def write(self, data: bytes) -> None:
        """Returns when the other side keeps up: waiting here is the back-pressure."""

    async def write_eof(self) -> None:
        """Nothing more will be written; reading goes on."""

    def close(self) -> None:
        """End both directions; no other call may be waiting. Repeatable."""


@runtime_checkable
class PortForwarder(Protocol):
    """Can reach the ports of a pod, as seen from within it."""

    async def connect_port(self, key: PodKey, port: int) -> PortConnection:
        """
        Connect to a TCP port from 1 to 65535; the caller closes the connection.

        A port that only listens on the pod's own 127.0.0.1 counts, where the platform can reach it. Called
        for many connections in parallel. Raises `PodNotFoundError`, or `StreamError` with what the client
        is to be told, such as a refused connection; both concern this connection alone.
        """


# --- statistics -------------------------------------------------------------------------------------------


@runtime_checkable
class StatsSource(Protocol):
    """Can say what the node and its pods use."""

    async def stats_summary(self, *, only_cpu_and_memory: bool = False) -> StatsSummary:
        """
        What is used now, read afresh, in well under a second for all pods of a node.

        What cannot be read is left out: a container costs its own figures and no others. With
        `only_cpu_and_memory` the source may leave out the rest. Raises `ProviderUnavailableError` when
        nothing is known at all.
        """
