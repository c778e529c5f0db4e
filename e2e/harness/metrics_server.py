"""
metrics-server as a process of this machine, behind the API server's aggregation layer.

Built from its Go module (`e2e/metrics_server/go.mod`). It may do what its own manifest lets it do, verifies
the kubelets' certificates, and is verified by the API server. A Service of type ExternalName leads to it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.harness import go_modules, network, paths, processes
from e2e.harness.cluster import Cluster
from e2e.harness.errors import HarnessError
from e2e.harness.waiting import wait_until

__all__ = ["build", "metrics_server"]

_NAME = "metrics-server"
_NAMESPACE = "kube-system"
_USER = "metrics-server"
_API = "v1beta1.metrics.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_RESOLUTION_S = 10


def build() -> Path:
    """
    The program, built if needed.

    Raises:
        HarnessError: Go is not to be had or the build failed.
    """
    return go_modules.build(
        _NAME,
        paths.REPOSITORY / "e2e" / "metrics_server",
        "sigs.k8s.io/metrics-server/cmd/metrics-server",
        "building metrics-server (once: about 3 minutes)",
    )


@contextmanager
def metrics_server(cluster: Cluster) -> Iterator[processes.ManagedProcess]:
    """Serves ``metrics.k8s.io`` inside, with figures that are at most ten seconds old."""
    directory = cluster.control_plane.directory / _NAME
    port = network.free_ports(1)[0]
    process = processes.ManagedProcess(_NAME, directory)
    objects = {"apiVersion": "v1", "kind": "List", "items": [*_permissions(), *_registration(cluster, port)]}
    cluster.kubectl.apply(objects)
    process.start(_command(cluster, directory, port))
    try:
        _wait_available(cluster, process)
        yield process
    finally:
        process.stop()
        cluster.kubectl.run("delete", "apiservice", _API, "--ignore-not-found")


def _command(cluster: Cluster, directory: Path, port: int) -> list[str | Path]:
    control_plane = cluster.control_plane
    kubeconfig = control_plane.issue_kubeconfig(_NAME, _USER, [])
    names = [f"{_NAME}.{_NAMESPACE}.svc", "localhost"]
    certificate, key = control_plane.pki.authority.issue_server(_NAME, names).write(directory, "serving")
    return [
        build(),
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--secure-port={port}",
        f"--tls-cert-file={certificate}",
        f"--tls-private-key-file={key}",
        f"--kubelet-certificate-authority={control_plane.authority_file}",
        "--kubelet-preferred-address-types=InternalIP",
        "--kubelet-use-node-status-port",
        "--kubelet-request-timeout=5s",
        f"--metric-resolution={_RESOLUTION_S}s",
    ]


def _permissions() -> Iterator[dict[str, Any]]:
    """Those of metrics-server's own manifest, for a user instead of a service account."""
    rules = [
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods", "nodes"], "verbs": ["get", "list", "watch"]},
    ]
    role = f"system:{_NAME}"
    yield {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": role},
        "rules": rules,
    }
    yield _binding("ClusterRoleBinding", role, "ClusterRole", role)
    yield _binding("ClusterRoleBinding", f"{_NAME}:delegator", "ClusterRole", "system:auth-delegator")
    yield _binding("RoleBinding", f"{_NAME}-auth-reader", "Role", "extension-apiserver-authentication-reader")


def _binding(kind: str, name: str, role_kind: str, role: str) -> dict[str, Any]:
    namespace = {"namespace": _NAMESPACE} if kind == "RoleBinding" else {}
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": {"name": name, **namespace},
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": role},
        "subjects": [{"apiGroup": _RBAC, "kind": "User", "name": _USER}],
    }


def _registration(cluster: Cluster, port: int) -> Iterator[dict[str, Any]]:
    metadata = {"name": _NAME, "namespace": _NAMESPACE}
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    }
    authority = base64.b64encode(cluster.control_plane.authority_file.read_bytes()).decode()
    yield {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": _API},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "service": {**metadata, "port": port},
            "caBundle": authority,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }


def _wait_available(cluster: Cluster, process: processes.ManagedProcess) -> None:
    def conditions() -> dict[str, str]:
        if not process.running:
            raise HarnessError(f"metrics-server ended:\n{processes.tail(process.log_file)}")
        found = cluster.kubectl.get("apiservice", _API) or {}
        return {each["type"]: each["status"] for each in found.get("status", {}).get("conditions", [])}

    wait_until(
        lambda: conditions().get("Available") == "True",
        timeout_s=60,
        describe=f"{_API} to be available",
        seen=lambda: processes.tail(process.log_file),
    )
