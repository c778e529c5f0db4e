"""
`vkubelet run` as a process, with what it needs of a cluster: an identity and a serving certificate.

Two identities are of use. A node's own (`system:node:<name>`, judged by the Node authorizer and
NodeRestriction) may touch its own node and pods only, and may not set `kubernetes.io/role`. The user
`vkubelet` has what `deploy/kubernetes/rbac.yaml` grants, as a service account in a cluster would.
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from e2e.harness import network, paths, processes
from e2e.harness.controlplane import ControlPlane
from e2e.harness.errors import HarnessError
from e2e.harness.kubectl import Kubectl
from e2e.harness.waiting import wait_until

__all__ = [
    "Credentials",
    "Identity",
    "Vkubelet",
    "grant_vkubelet_user",
    "issue_credentials",
    "node_condition",
]

Identity = Literal["node", "vkubelet"]
_USER = "vkubelet"


@dataclass(frozen=True, slots=True)
class Credentials:
    """
    What a vkubelet shows and trusts.

    Attributes:
        kubeconfig: for the API server.
        client_ca_file: who signs the clients of the kubelet API.
        serving: certificate and key of the kubelet API; None leaves it to vkubelet, which asks the cluster.
    """

    kubeconfig: Path
    client_ca_file: Path
    serving: tuple[Path, Path] | None = None


def issue_credentials(
    control_plane: ControlPlane,
    node_name: str,
    identity: Identity = "vkubelet",
    *,
    validity: datetime.timedelta = datetime.timedelta(days=365),
    serving_files: bool = True,
) -> Credentials:
    """
    Credentials from the cluster's authority.

    Args:
        control_plane: the cluster.
        node_name: the node's.
        identity: whose.
        validity: of the client certificate from now on; negative for one that has expired.
        serving_files: with a serving certificate; without, vkubelet has to ask for one.
    """
    user, groups = (f"system:node:{node_name}", ["system:nodes"]) if identity == "node" else (_USER, [])
    names = [node_name, network.host_ip(), "127.0.0.1", "localhost"]
    serving = control_plane.pki.authority.issue_server(f"system:node:{node_name}", names)
    return Credentials(
        kubeconfig=control_plane.issue_kubeconfig(f"{node_name}-{identity}", user, groups, validity=validity),
        client_ca_file=control_plane.authority_file,
        serving=serving.write(control_plane.directory / "kubelets", node_name) if serving_files else None,
    )


def grant_vkubelet_user(kubectl: Kubectl) -> None:
    """Apply `deploy/kubernetes/rbac.yaml` and let the user `vkubelet` have what its service account has."""
    kubectl.apply(paths.RBAC_MANIFEST)
    bindings = (("ClusterRoleBinding", "ClusterRole", None), ("RoleBinding", "Role", "kube-node-lease"))
    kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "List",
            "items": [_binding(kind, role, namespace) for kind, role, namespace in bindings],
        }
    )


def _binding(kind: str, role: str, namespace: str | None) -> dict[str, object]:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": kind,
        "metadata": {"name": "vkubelet-user", **({"namespace": namespace} if namespace else {})},
        "roleRef": {"apiGroup": group, "kind": role, "name": "vkubelet"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": _USER}],
    }


class Vkubelet:
    """
    One vkubelet; also a context manager that starts it, waits for its node, and stops it.

    Args:
        credentials: what it shows and trusts.
        kubectl: an administrator's, to look at its node.
        directory: for its log, state and volumes.
        provider: such as ``docker`` or ``memory``.
        node_name: its node's.
        port: of the kubelet API; a free one by default.
        arguments: further ones for ``vkubelet run``.
        environment: added to ours.
        detached: it may outlive this process.
    """

    def __init__(
        self,
        credentials: Credentials,
        kubectl: Kubectl,
        directory: Path,
        *,
        provider: str,
        node_name: str,
        port: int | None = None,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        detached: bool = False,
    ) -> None:
        self.node_name = node_name
        self.provider = provider
        self.port = port or network.free_ports(1)[0]
        self.node_ip = network.host_ip()
        self.root_dir = directory / "root"
        self.process = processes.ManagedProcess("vkubelet", directory, detached=detached)
        self._credentials = credentials
        self._kubectl = kubectl
        self._arguments = arguments
        self._environment = environment

    def __enter__(self) -> Vkubelet:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log_file(self) -> Path:
        """What it wrote to stdout and stderr, all runs."""
        return self.process.log_file

    def command(self) -> list[str | Path]:
        """The command line."""
        credentials = self._credentials
        serving: list[str | Path] = []
        if credentials.serving:
            certificate_file, key_file = credentials.serving
            serving = ["--tls-cert-file", certificate_file, "--tls-private-key-file", key_file]
        return [
            *(sys.executable, "-m", "vkubelet", "run"),
            *("--kubeconfig", credentials.kubeconfig),
            *("--provider", self.provider),
            *("--node-name", self.node_name),
            *("--node-ip", self.node_ip),
            *("--port", str(self.port)),
            *("--client-ca-file", credentials.client_ca_file),
            *("--root-dir", self.root_dir),
            *serving,
            *self._arguments,
        ]

    def start(self) -> None:
        """Start it."""
        self.root_dir.mkdir(parents=True, exist_ok=True)
        self.process.start(self.command(), environment=self._environment)

    def stop(self, timeout_s: float = 30.0) -> None:
        """SIGTERM, which lets it say goodbye. Its pods stay."""
        self.process.stop(timeout_s)

    def kill(self) -> None:
        """SIGKILL: it has no time for anything."""
        self.process.kill()

    def restart(self) -> None:
        """Stop it politely and start it again."""
        self.stop()
        self.start()

    def node(self) -> Any:
        """Its Node object, None when there is none."""
        return self._kubectl.get("node", self.node_name)

    def wait_ready(self, timeout_s: float = 45.0, *, serving: bool = True) -> None:
        """
        Wait until its node is Ready and its port open, which says that it is this process's doing.

        Args:
            timeout_s: at the longest.
            serving: also for its port; not while it has no serving certificate.

        Raises:
            HarnessError: it ended; the message has the end of its log.
            AssertionError: the time is up.
        """

        def ready() -> bool:
            if not self.process.running:
                raise HarnessError(
                    f"vkubelet {self.node_name} ended with {self.process.exit_code}:\n"
                    + processes.tail(self.log_file)
                )
            is_open = not serving or network.is_open(self.node_ip, self.port)
            return is_open and node_condition(self.node(), "Ready") == "True"

        wait_until(
            ready,
            timeout_s=timeout_s,
            describe=f"node {self.node_name} to be Ready",
            seen=lambda: f"{json.dumps((self.node() or {}).get('status'))}\n{processes.tail(self.log_file)}",
        )


def node_condition(node: Any, condition_type: str) -> str | None:
    """The status of a node's condition: ``True``, ``False``, ``Unknown``, or None where it has none."""
    conditions = (node or {}).get("status", {}).get("conditions") or []
    return next((each["status"] for each in conditions if each["type"] == condition_type), None)
