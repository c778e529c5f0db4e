"""
The container runtime contract, in the words of Kubernetes' Container Runtime Interface (CRI).

For platforms that have containers but no pods. The pod engine of this package decides; a runtime performs
single steps and reports what there is. Differences from CRI, with reasons: one call lists a pod's sandboxes
and containers together (`pod_status`), because the engine always wants both; events carry no state, because
a state that is read afresh cannot be out of order; streams are async iterators instead of URLs.

Everything a runtime creates carries the labels it is given, and `list_pods` finds it by them after a
restart: there is no other memory.
"""

from __future__ import annotations

import abc
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum

from vkubelet import metrics
from vkubelet.instrumented import instrument
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import NodeObservation
from vkubelet.model.pod import ContainerKind
from vkubelet.model.stats import NodeStats, PodStats
from vkubelet.provider import ExecIO, LogOptions, PortConnection

__all__ = [
    "ContainerConfig",
    "ContainerInfo",
    "ContainerRuntime",
    "ContainerSecurity",
    "ContainerStatus",
    "DnsConfig",
    "ExecResult",
    "Image",
    "LinuxResources",
    "Mount",
    "RegistryCredentials",
    "RuntimePod",
    "SandboxConfig",
    "SandboxInfo",
]


class ContainerStatus(StrEnum):
    """CRI's ContainerState."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DnsConfig:
    """What goes into resolv.conf."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SandboxConfig:
    """
    A pod's sandbox: what its containers share.

    Attributes:
        attempt: 0 for the first sandbox of the pod, one more for each that replaces a lost one.
        hostname: "" on the host's network.
        dns: None where the platform's own resolv.conf holds.
        host_aliases: (ip, names) for /etc/hosts.
        labels, annotations: the pod's own; the runtime keeps identity under labels of its own as well.
    """

    key: PodKey
    attempt: int
    hostname: str = ""
    dns: DnsConfig | None = None
    host_aliases: tuple[tuple[str, tuple[str, ...]], ...] = ()
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory or file of the host seen in the container."""

    host_path: str
    container_path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class LinuxResources:
    """
    CRI's LinuxContainerResources; None means the platform's default.

    Attributes:
        cpu_shares: relative weight, 1024 for one core.
        cpu_quota_us: CPU time per `cpu_period_us`, in microseconds.
        oom_score_adj: -1000 to 1000; a platform that may not set it goes without and says so once.
    """

    cpu_shares: int | None = None
    cpu_quota_us: int | None = None
    cpu_period_us: int | None = None
    memory_limit_bytes: int | None = None
    oom_score_adj: int | None = None


@dataclass(frozen=True, slots=True)
class ContainerSecurity:
    """
    The container's and the pod's securityContext, merged (the container's wins).

    Attributes:
        user: ``uid``, or "" for the image's.
        group: gid, or None; needs `user`.
    """

    user: str = ""
    group: int | None = None
    supplemental_groups: tuple[int, ...] = ()
    privileged: bool = False
    read_only_root_filesystem: bool = False
    no_new_privileges: bool = False
    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """
    One attempt of one container.

    Attributes:
        attempt: 0 for the first, one more for each restart: becomes `restartCount`.
        image_id: what `image_status` gave: the image that was pulled is the one that runs.
        image: as the pod names it.
        target_id: the container whose process namespace it joins (CRI's TARGET), None for its own.
        env: names and values in order; a later one wins.
        spec_hash: changes when the container's definition does, so that a stale one is replaced.
        annotations: kept by the runtime and returned in `ContainerInfo`.
    """

    name: str
    kind: ContainerKind
    attempt: int
    image: str
    image_id: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str | None = None
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_id: str | None = None
    resources: LinuxResources = field(default_factory=LinuxResources)
    security: ContainerSecurity = field(default_factory=ContainerSecurity)
    spec_hash: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox as it is. `ips` is () on the host's network (the node's hold) and once it is stopped."""

    id: str
    attempt: int
    ready: bool
    created_at: datetime.datetime
    ips: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContainerInfo:
    """
    A container as it is.

    Attributes:
        container_id: with scheme, ``docker://<id>``; `id` is the bare one.
        oom_killed: the kernel killed it for memory.
        error: why it could not be started, "" when it could.
        image_ref: ``name@sha256:…`` where a registry gave one, else the image's id.
    """

    id: str
    container_id: str
    sandbox_id: str
    name: str
    kind: ContainerKind
    attempt: int
    status: ContainerStatus
    image: str
    image_ref: str
    spec_hash: str
    created_at: datetime.datetime
    started_at: datetime.datetime | None = None
    finished_at: datetime.datetime | None = None
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RuntimePod:
    """All sandboxes and containers of one pod, newest attempt first."""

    key: PodKey
    sandboxes: tuple[SandboxInfo, ...] = ()
    containers: tuple[ContainerInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Image:
    """
    An image that is present.

    Attributes:
        id: what `ContainerConfig.image_id` takes.
        ref: with digest where a registry gave one, for `imageID`.
        user: the user it runs as: "", a name, or a uid, with an optional ``:group``.
    """

    id: str
    ref: str
    user: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RegistryCredentials:
    """For one registry."""

    username: str
    password: str = field(repr=False)
    registry: str = ""


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command left behind."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""


_OPERATIONS = {
    "list_pods": "list_podsandbox",
    "pod_status": "podsandbox_status",
    "run_pod_sandbox": "run_podsandbox",
    "stop_pod_sandbox": "stop_podsandbox",
    "remove_pod_sandbox": "remove_podsandbox",
    "create_container": "create_container",
    "start_container": "start_container",
    "stop_container": "stop_container",
    "remove_container": "remove_container",
    "exec_sync": "exec_sync",
    "image_status": "image_status",
    "pull_image": "pull_image",
    "list_pod_sandbox_stats": "list_podsandbox_stats",
}
"""The kubelet's words, for its metrics; streams are left out, which last as long as their client likes."""


class ContainerRuntime(abc.ABC):
    """
    Single steps over a container engine.

    Errors: `PodNotFoundError` for a sandbox, container or image that certainly does not exist;
    `ProviderUnavailableError` when the engine does not answer; `InvalidPodError` when it refuses the
    configuration for good; other `ProviderError` with the engine's own words (an unknown command, a mount
    that fails), which the engine shows in the container's status and retries with back-off.
    """

    name: str
    """The runtime's name, such as "docker": the scheme of container ids."""

    uses_host_paths: bool = True
    """Mounts are paths on this machine. False: no volume files are written."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        instrument(cls, _OPERATIONS, metrics.runtime_operation)

    @abc.abstractmethod
    def running(self) -> AbstractAsyncContextManager[None]:
        """Connected from entry to exit; containers outlive it."""

    @abc.abstractmethod
    def events(self) -> AsyncIterator[PodKey | None]:
        """
        The pods whose sandbox or containers have just changed.

        None when some may have been missed (a reconnection): look at all. Never ends; reconnects by itself.
        """

    @abc.abstractmethod
    async def describe_node(self) -> NodeObservation:
        """See `Provider.describe_node`."""

    @abc.abstractmethod
    async def list_pods(self) -> Sequence[RuntimePod]:
        """Every pod of this node and cluster, also ones with only exited containers; complete or an error."""

    @abc.abstractmethod
    async def pod_status(self, key: PodKey) -> RuntimePod:
        """What there is of one pod; empty tuples when there is nothing."""

    @abc.abstractmethod
    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        """
        Create and start the sandbox with its network; returns its id.

        Where one of that pod and attempt exists already, it is started if need be and returned.
        """

    @abc.abstractmethod
    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Stop it by force and give its network back; its containers are stopped before. Repeatable."""

    @abc.abstractmethod
    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove it; not found is success."""

    @abc.abstractmethod
    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """
        Create it in the sandbox, not started; returns its id.

        The same attempt asked for twice is the same container.
        """

    @abc.abstractmethod
    async def start_container(self, container_id: str) -> None:
        """Start it; started already is success. Raises with the engine's message when it cannot run."""

    @abc.abstractmethod
    async def stop_container(self, container_id: str, grace_period_s: float) -> None:
        """
        Its stop signal, then SIGKILL after `grace_period_s`; returns when it has stopped.

        Stopped already is success. Cancelled, it has sent what it has sent.
        """

    @abc.abstractmethod
    async def remove_container(self, container_id: str) -> None:
        """Remove it, running or not, with its log; not found is success."""

    @abc.abstractmethod
    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Run a command to its end; raises `TimeoutError` after `timeout_s`, having ended it where it can."""

    @abc.abstractmethod
    async def exec(self, container_id: str, command: Sequence[str], io: ExecIO) -> int:
        """See `ExecRunner.exec`."""

    @abc.abstractmethod
    async def attach(self, container_id: str, io: ExecIO) -> None:
        """See `Attacher.attach`."""

    @abc.abstractmethod
    async def port_forward(self, sandbox_id: str, port: int) -> PortConnection:
        """See `PortForwarder.connect_port`; like CRI's PortForward, to localhost of the sandbox's network."""

    @abc.abstractmethod
    def container_logs(
        self, container_id: str, options: LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """See `LogSource.container_logs`; `options.previous` has been resolved to the container already."""

    @abc.abstractmethod
    async def image_status(self, image: str) -> Image | None:
        """The image if it is present here."""

    @abc.abstractmethod
    async def pull_image(self, image: str, credentials: Sequence[RegistryCredentials]) -> Image:
        """Fetch it, trying each credential, then none; raises `ProviderError` with the registry's words."""

    @abc.abstractmethod
    async def list_pod_sandbox_stats(self, *, only_cpu_and_memory: bool) -> Sequence[PodStats]:
        """
        What every pod with a ready sandbox uses: its containers, its sandbox, its network.

        What cannot be read is None, and raises nothing. The pod's own sums, volumes and ephemeral storage
        are the engine's to add.
        """

    @abc.abstractmethod
    async def node_stats(self, *, only_cpu_and_memory: bool) -> NodeStats | None:
        """
        What the machine uses that the containers run on; None when it cannot be seen from here.

        (No part of CRI: there the kubelet looks at its own machine.)
        """
