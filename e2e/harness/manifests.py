"""Valid objects for tests, so that each test shows only what matters to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from e2e.harness.images import BUSYBOX_IMAGE

__all__ = ["container", "deployment", "fake_node", "pod"]

SLEEP: tuple[str, ...] = ("sh", "-c", "trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done")
_TOLERATIONS = [{"key": "virtual-kubelet.io/provider", "operator": "Exists"}]


def container(name: str = "main", command: Sequence[str] = SLEEP, **fields: Any) -> dict[str, Any]:
    """A busybox container; `fields` are added to it."""
    return {
        "name": name,
        "image": BUSYBOX_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        **fields,
    }


def pod(
    name: str,
    node: str,
    command: Sequence[str] = SLEEP,
    *,
    containers: Sequence[Mapping[str, Any]] | None = None,
    labels: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """
    A pod for the scheduler to place on `node`.

    Args:
        name: the pod's.
        node: the name of a node, matched by its hostname label.
        command: of the one container.
        containers: instead of the one.
        labels: the pod's.
        spec: further fields of its spec.
    """
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": dict(labels or {"app": name})},
        "spec": _pod_spec(node, containers or [container(command=command)], spec),
    }


def deployment(name: str, node: str, replicas: int = 1, **spec: Any) -> dict[str, Any]:
    """A Deployment of such pods; `spec` are further fields of the pods' spec."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": _pod_spec(node, spec.pop("containers", [container()]), spec),
            },
        },
    }


def _pod_spec(
    node: str, containers: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "tolerations": _TOLERATIONS,
        "terminationGracePeriodSeconds": 5,
        "containers": list(containers),
        **fields,
    }


def fake_node(name: str) -> dict[str, Any]:
    """A Node that no kubelet keeps up: the scheduler places pods on it until its controller notices."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "capacity": {"cpu": "4", "memory": "8Gi", "pods": "20"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "for a test"}],
        },
    }
