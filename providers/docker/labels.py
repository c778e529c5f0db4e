"""
Labels: all that is known about a container after a restart.

The names under ``io.kubernetes.`` are those of the kubelet (`k8s.io/kubernetes/pkg/kubelet/types`) and of
cri-dockerd, so that tools which read them find our pods. Those under ``vkubelet.io`` are our own: the node
and cluster keep two vkubelets on one engine apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from vkubelet.kuberuntime.contract import ContainerConfig, SandboxConfig
from vkubelet.model.keys import PodKey

__all__ = [
    "Owner",
    "container_labels",
    "is_sandbox",
    "kept_annotations",
    "kept_attempt",
    "pod_filters",
    "pod_key",
    "sandbox_labels",
]

POD_NAMESPACE = "io.kubernetes.pod.namespace"
POD_NAME = "io.kubernetes.pod.name"
POD_UID = "io.kubernetes.pod.uid"
CONTAINER_NAME = "io.kubernetes.container.name"
CONTAINER_KIND = "io.kubernetes.container.kind"
CONTAINER_HASH = "io.kubernetes.container.hash"
DOCKER_TYPE = "io.kubernetes.docker.type"
SANDBOX_ID = "io.kubernetes.sandbox.id"
ATTEMPT = "io.kubernetes.attempt"
NODE = "vkubelet.io/node"
CLUSTER = "vkubelet.io/cluster"
IMAGE = "vkubelet.io/image"
IMAGE_REF = "vkubelet.io/image-ref"
ANNOTATIONS = "vkubelet.io/annotations"

TYPE_SANDBOX = "podsandbox"
TYPE_CONTAINER = "container"

IDENTITY = (POD_NAMESPACE, POD_NAME, POD_UID, CONTAINER_NAME, ATTEMPT, DOCKER_TYPE, NODE, CLUSTER)
"""What must be equal for a container of the same name to be the same."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Which vkubelet."""

    node_name: str
    cluster_id: str

    def labels(self) -> dict[str, str]:
        """On everything it makes."""
        return {NODE: self.node_name, CLUSTER: self.cluster_id}


def sandbox_labels(owner: Owner, config: SandboxConfig) -> dict[str, str]:
    """A sandbox's: the pod's own labels, which cannot replace ours, and its identity."""
    return {
        **config.labels,
        ANNOTATIONS: _json(config.annotations),
        **_identity(owner, config.key, config.attempt, TYPE_SANDBOX),
        CONTAINER_NAME: "POD",
    }


def container_labels(
    owner: Owner, sandbox_id: str, config: ContainerConfig, key: PodKey, image_ref: str
) -> dict[str, str]:
    """A container's; `image_ref` is kept because an image may lose its names while it runs."""
    return {
        **_identity(owner, key, config.attempt, TYPE_CONTAINER),
        CONTAINER_NAME: config.name,
        CONTAINER_KIND: config.kind.value,
        CONTAINER_HASH: config.spec_hash,
        SANDBOX_ID: sandbox_id,
        IMAGE: config.image,
        IMAGE_REF: image_ref,
        ANNOTATIONS: _json(config.annotations),
    }


def pod_filters(owner: Owner, key: PodKey | None = None) -> dict[str, list[str]]:
    """The engine's `filters` for everything of ours, or of ours for one pod."""
    wanted = [f"{name}={value}" for name, value in owner.labels().items()]
    if key is not None:
        wanted += [f"{POD_UID}={key.uid}", f"{POD_NAMESPACE}={key.namespace}", f"{POD_NAME}={key.name}"]
    return {"label": wanted}


def pod_key(labels: Mapping[str, str]) -> PodKey | None:
    """Whose container this is; None when it carries no identity."""
    try:
        return PodKey(labels[POD_NAMESPACE], labels[POD_NAME], labels[POD_UID])
    except KeyError:
        return None


def is_sandbox(labels: Mapping[str, str]) -> bool:
    """Whether a container of ours is a sandbox."""
    return labels.get(DOCKER_TYPE) == TYPE_SANDBOX


def kept_attempt(labels: Mapping[str, str]) -> int:
    """Which attempt; 0 when the label is damaged."""
    written = labels.get(ATTEMPT, "")
    return int(written) if written.isdecimal() else 0


def kept_annotations(labels: Mapping[str, str]) -> dict[str, str]:
    """What was kept of the annotations; {} when the label is damaged."""
    try:
        kept = orjson.loads(labels.get(ANNOTATIONS, "{}"))
    except orjson.JSONDecodeError:
        return {}
    return {str(name): str(value) for name, value in kept.items()} if isinstance(kept, dict) else {}


def _identity(owner: Owner, key: PodKey, number: int, docker_type: str) -> dict[str, str]:
    return {
        POD_NAMESPACE: key.namespace,
        POD_NAME: key.name,
        POD_UID: key.uid,
        ATTEMPT: str(number),
        DOCKER_TYPE: docker_type,
        **owner.labels(),
    }


def _json(values: Mapping[str, str]) -> str:
    return orjson.dumps(dict(values), option=orjson.OPT_SORT_KEYS).decode()
