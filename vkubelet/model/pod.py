"""
A typed view of `v1.Pod`, parsed once where a pod arrives.

Only what some rule reads is typed. The raw object (``managedFields`` removed) stays beside it, for two
reasons: `features` must see every field to refuse the ones that nobody serves, and a pod written by a newer
API server must not lose what this version does not know. Typed fields share their strings with the raw
object, so the view costs a few hundred bytes. The generated client models were turned down: they drop
unknown fields and cost fifty times as much time to build.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from vkubelet.model.keys import PodKey

__all__ = [
    "Container",
    "ContainerKind",
    "Json",
    "Pod",
    "PodPhase",
    "RestartPolicy",
    "Volume",
    "parse_pod",
]

Json = dict[str, Any]
"""A JSON object as it came from, or goes to, the API server."""

ImagePullPolicy = Literal["Always", "IfNotPresent", "Never"]


class RestartPolicy(StrEnum):
    """`spec.restartPolicy`."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class PodPhase(StrEnum):
    """`status.phase`."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


class ContainerKind(StrEnum):
    """Which list of the pod's spec a container stands in."""

    INIT = "init"
    APP = "app"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class Container:
    """
    One container of a pod.

    Attributes:
        kind: init, app or ephemeral.
        index: its place in its list.
        restart_policy: its own, None where the pod's holds; ``Always`` makes an init container a sidecar.
        resources: ``{"requests": {...}, "limits": {...}}`` as written; quantities are `model.quantity`'s.
        raw: the container's object; rules read from it what is not typed here.
    """

    name: str
    kind: ContainerKind
    index: int
    image: str
    image_pull_policy: ImagePullPolicy
    command: tuple[str, ...]
    args: tuple[str, ...]
    working_dir: str | None
    env: tuple[Json, ...]
    env_from: tuple[Json, ...]
    volume_mounts: tuple[Json, ...]
    resources: Json
    restart_policy: RestartPolicy | None
    termination_message_path: str
    termination_message_policy: Literal["File", "FallbackToLogsOnError"]
    stdin: bool
    stdin_once: bool
    tty: bool
    raw: Json

    @property
    def is_sidecar(self) -> bool:
        """An init container that is started, then keeps running beside the app containers."""
        return self.kind is ContainerKind.INIT and self.restart_policy is RestartPolicy.ALWAYS

    @property
    def field_path(self) -> str:
        """Where it stands, as Events name it: ``spec.containers{web}``."""
        return f"{_LISTS[self.kind]}{{{self.name}}}"


@dataclass(frozen=True, slots=True)
class Volume:
    """
    One entry of `spec.volumes`.

    Attributes:
        source_type: the key of its source, such as ``configMap`` or ``emptyDir``.
        source: that source's object.
    """

    name: str
    source_type: str
    source: Json


@dataclass(frozen=True, slots=True)
class Pod:
    """
    One pod as the API server knows it.

    Attributes:
        generation: `metadata.generation`, goes to `status.observedGeneration`; 0 where the server has none.
        deletion_timestamp: when it must be gone (RFC 3339), None while it lives.
        deletion_grace_period_s: the grace period the deletion gave, None while it lives.
        status: the API server's present status, {} for a new pod.
        raw: the whole object, read only.
    """

    key: PodKey
    resource_version: str
    generation: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    creation_timestamp: str
    deletion_timestamp: str | None
    deletion_grace_period_s: int | None
    node_name: str
    restart_policy: RestartPolicy
    termination_grace_period_s: int
    active_deadline_s: int | None
    service_account_name: str
    host_network: bool
    enable_service_links: bool
    init_containers: tuple[Container, ...]
    containers: tuple[Container, ...]
    ephemeral_containers: tuple[Container, ...]
    volumes: tuple[Volume, ...]
    image_pull_secrets: tuple[str, ...]
    spec: Json
    status: Json
    raw: Json

    @property
    def namespace(self) -> str:
        """`metadata.namespace`."""
        return self.key.namespace

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.key.name

    @property
    def uid(self) -> str:
        """`metadata.uid`."""
        return self.key.uid

    @property
    def is_deleted(self) -> bool:
        """Somebody asked for its deletion; it must be stopped within its grace period."""
        return self.deletion_timestamp is not None

    @property
    def phase(self) -> PodPhase:
        """`status.phase` as the API server has it; Pending where there is none yet."""
        return PodPhase(self.status.get("phase") or PodPhase.PENDING)

    @property
    def is_terminal(self) -> bool:
        """Its phase is Succeeded or Failed: nothing of it may run again."""
        return self.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def security_context(self) -> Json:
        """`spec.securityContext`, {} where there is none."""
        context: Json | None = self.spec.get("securityContext")
        return context or {}

    def all_containers(self) -> Iterator[Container]:
        """Init containers, then app containers, then ephemeral ones."""
        yield from self.init_containers
        yield from self.containers
        yield from self.ephemeral_containers

    def container(self, name: str) -> Container | None:
        """The container of that name, of whichever kind."""
        return next((c for c in self.all_containers() if c.name == name), None)


def parse_pod(raw: Json) -> Pod:
    """
    The typed view of a pod that came from the API server (so: defaulted and validated there).

    `raw` is kept, not copied; ``managedFields`` is removed from it.

    Raises:
        KeyError: no name, uid or containers: not a pod.
    """
    metadata: Json = raw["metadata"]
    metadata.pop("managedFields", None)
    spec: Json = raw["spec"]
    return Pod(
        key=PodKey(metadata.get("namespace", "default"), metadata["name"], metadata["uid"]),
        resource_version=metadata.get("resourceVersion", ""),
        generation=metadata.get("generation", 0),
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        creation_timestamp=metadata.get("creationTimestamp") or "",
        deletion_timestamp=metadata.get("deletionTimestamp"),
        deletion_grace_period_s=metadata.get("deletionGracePeriodSeconds"),
        node_name=spec.get("nodeName", ""),
        restart_policy=RestartPolicy(spec.get("restartPolicy", "Always")),
        termination_grace_period_s=_or(spec.get("terminationGracePeriodSeconds"), 30),
        active_deadline_s=spec.get("activeDeadlineSeconds"),
        service_account_name=spec.get("serviceAccountName") or "default",
        host_network=bool(spec.get("hostNetwork")),
        enable_service_links=spec.get("enableServiceLinks", True) is not False,
        init_containers=_containers(spec.get("initContainers"), ContainerKind.INIT),
        containers=_containers(spec["containers"], ContainerKind.APP),
        ephemeral_containers=_containers(spec.get("ephemeralContainers"), ContainerKind.EPHEMERAL),
        volumes=tuple(_volume(v) for v in spec.get("volumes") or ()),
        image_pull_secrets=tuple(s["name"] for s in spec.get("imagePullSecrets") or () if s.get("name")),
        spec=spec,
        status=raw.get("status") or {},
        raw=raw,
    )


_LISTS = {
    ContainerKind.INIT: "spec.initContainers",
    ContainerKind.APP: "spec.containers",
    ContainerKind.EPHEMERAL: "spec.ephemeralContainers",
}


def _containers(raw: list[Json] | None, kind: ContainerKind) -> tuple[Container, ...]:
    return tuple(_container(c, kind, i) for i, c in enumerate(raw or ()))


def _container(raw: Json, kind: ContainerKind, index: int) -> Container:
    policy = raw.get("restartPolicy")
    return Container(
        name=raw["name"],
        kind=kind,
        index=index,
        image=raw.get("image", ""),
        image_pull_policy=raw.get("imagePullPolicy", "IfNotPresent"),
        command=tuple(raw.get("command") or ()),
        args=tuple(raw.get("args") or ()),
        working_dir=raw.get("workingDir") or None,
        env=tuple(raw.get("env") or ()),
        env_from=tuple(raw.get("envFrom") or ()),
        volume_mounts=tuple(raw.get("volumeMounts") or ()),
        resources=raw.get("resources") or {},
        restart_policy=RestartPolicy(policy) if policy else None,
        termination_message_path=raw.get("terminationMessagePath") or "/dev/termination-log",
        termination_message_policy=raw.get("terminationMessagePolicy") or "File",
        stdin=bool(raw.get("stdin")),
        stdin_once=bool(raw.get("stdinOnce")),
        tty=bool(raw.get("tty")),
        raw=raw,
    )


def _volume(raw: Json) -> Volume:
    source_type = next((k for k in raw if k != "name"), "emptyDir")
    return Volume(raw["name"], source_type, raw.get(source_type) or {})


def _or(value: int | None, default: int) -> int:
    return default if value is None else value
