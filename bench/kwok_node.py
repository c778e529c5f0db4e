"""kwok as a peer: built from its Go module (`bench/kwok/go.mod`), with its own fast stages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from e2e.harness import go, network, paths, processes
from e2e.harness.controlplane import ControlPlane
from e2e.harness.errors import HarnessError
from e2e.harness.progress import Progress

__all__ = ["NODE", "build", "node_object", "process"]

NODE = "kwok"
_SOURCE = paths.REPOSITORY / "bench" / "kwok"


def build() -> Path:
    """
    The program, built once into `.cache/bin`.

    Raises:
        HarnessError: the build failed.
    """
    binary = paths.CACHE / "bin" / "kwok"
    if binary.exists() and binary.stat().st_mtime > (_SOURCE / "go.mod").stat().st_mtime:
        return binary
    command = ["go", "build", "-ldflags", "-s -w", "-o", str(binary), "sigs.k8s.io/kwok/cmd/kwok"]
    with Progress(sys.stderr).step("building kwok (once: about a minute)"):
        done = subprocess.run(
            command, cwd=_SOURCE, env=go.go_environment(), capture_output=True, text=True, check=False
        )
    if done.returncode != 0:
        raise HarnessError(f"`{' '.join(command)}` failed:\n{done.stderr[-2000:]}")
    return binary


def _fast_stages() -> list[Path]:
    """The stages "fast" that kwok's module brings: a pod is Ready at once, and gone at once when deleted."""
    done = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok"],
        cwd=_SOURCE,
        env=go.go_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    stages = Path(done.stdout.strip()) / "kustomize" / "stage"
    return [
        stages / "node" / "fast" / "node-initialize.yaml",
        *(stages / "pod" / "fast" / f"pod-{name}.yaml" for name in ("ready", "complete", "delete")),
    ]


def node_object(name: str) -> dict[str, object]:
    """A Node for kwok to keep alive, or for nobody at all."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "type": name}},
        "status": {
            "capacity": {"cpu": "1000", "memory": "1Ti", "pods": "20000"},
            "allocatable": {"cpu": "1000", "memory": "1Ti", "pods": "20000"},
        },
    }


def process(control_plane: ControlPlane, directory: Path) -> processes.ManagedProcess:
    """Start kwok for the one node `NODE`."""
    managed = processes.ManagedProcess("kwok", directory)
    kubeconfig = control_plane.issue_kubeconfig("kwok", "kwok", ["system:masters"])
    port = network.free_ports(1)[0]
    managed.start(
        [
            build(),
            f"--kubeconfig={kubeconfig}",
            f"--manage-single-node={NODE}",
            f"--server-address=127.0.0.1:{port}",
            "--node-ip=127.0.0.1",
            "--cidr=10.64.0.0/16",
            "--node-lease-duration-seconds=40",
            *(f"--config={file}" for file in _fast_stages()),
        ]
    )
    return managed
