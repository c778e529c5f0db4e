"""A control plane with its administrator's kubectl and the vkubelets that were started for it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.harness.audit import AuditLog
from e2e.harness.controlplane import ControlPlane
from e2e.harness.kubectl import Kubectl
from e2e.harness.vkubelet import Identity, Vkubelet, grant_vkubelet_user, issue_credentials

__all__ = ["Cluster"]


@dataclass(frozen=True, slots=True)
class Cluster:
    """
    A control plane and its administrator's kubectl.

    Attributes:
        uid: differs between clusters: the uid of the namespace `kube-system`.
        vkubelets: those that were started for it, for the report of a failure.
        audit: what was asked of its API server.
    """

    control_plane: ControlPlane
    kubectl: Kubectl
    uid: str
    vkubelets: list[Vkubelet]
    audit: AuditLog

    @classmethod
    def start(cls, directory: Path, *, one_process: bool, api_server_flags: Sequence[str] = ()) -> Cluster:
        """Start a control plane in `directory`, in one process or in four."""
        audit = AuditLog(directory.resolve())
        control_plane = ControlPlane(
            directory, one_process=one_process, flags={"kube-apiserver": [*audit.flags(), *api_server_flags]}
        )
        kubectl = Kubectl(control_plane.programs.kubectl(), control_plane.admin_kubeconfig)
        try:
            control_plane.start()
            grant_vkubelet_user(kubectl)
        except BaseException:
            control_plane.stop()
            raise
        uid = kubectl.get("namespace", "kube-system")["metadata"]["uid"]
        return cls(control_plane, kubectl, uid, [], audit)

    def stop(self) -> None:
        """Stop its vkubelets and the control plane. Logs stay."""
        for vkubelet in self.vkubelets:
            vkubelet.stop()
        self.control_plane.stop()
        shutil.rmtree(self.control_plane.directory / "etcd", ignore_errors=True)

    def vkubelet(
        self,
        provider: str,
        node_name: str,
        *,
        identity: Identity = "vkubelet",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        serving_files: bool = True,
    ) -> Vkubelet:
        """One that is not started yet; without `serving_files` it asks the cluster for a certificate."""
        vkubelet = Vkubelet(
            issue_credentials(self.control_plane, node_name, identity, serving_files=serving_files),
            self.kubectl,
            self.control_plane.directory / node_name,
            provider=provider,
            node_name=node_name,
            port=port,
            arguments=arguments,
            environment=environment,
        )
        self.vkubelets.append(vkubelet)
        return vkubelet

    def retire(self, vkubelet: Vkubelet) -> None:
        """Stop a vkubelet and delete its node and pods; containers it leaves are not looked after."""
        vkubelet.stop()
        self.vkubelets.remove(vkubelet)
        # Without their node they would stay for a minute, and with them the namespaces they are in.
        placed = self.kubectl.items(
            "pods", "--all-namespaces", f"--field-selector=spec.nodeName={vkubelet.node_name}"
        )
        for pod in placed:
            self.kubectl.within(pod["metadata"]["namespace"]).run(
                "delete", "pod", pod["metadata"]["name"], "--ignore-not-found", "--force", "--grace-period=0"
            )
        self.kubectl.run("delete", "node", vkubelet.node_name, "--ignore-not-found")
