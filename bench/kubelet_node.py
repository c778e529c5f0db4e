"""
The real kubelet as a peer: built from its Go module (`bench/kubelet/go.mod`), over a containerd of its own.

containerd is Debian's, which docker.io brings along; it runs here with directories and a socket of its own
below `.cache/bench`, so that neither Docker's nor the machine's containers are seen or touched. The pods of
this node use the host's network: what is measured goes through no pod's network, and so nothing has to be
installed for it, nor removed from the machine's interfaces and firewall.

A kubelet and a containerd leave what they started, on purpose: containers, their shims and their mounts. They
are looked for by this directory, and ended, before and after each run.
"""

from __future__ import annotations

import http
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import psutil
import yaml

from e2e.harness import docker_engine, go_modules, network, paths, processes
from e2e.harness.controlplane import ControlPlane
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.errors import HarnessError
from e2e.harness.images import BUSYBOX_IMAGE, PAUSE_IMAGE

__all__ = ["NODE", "KubeletNode", "build"]

NODE = "kubelet"
_SOURCE = paths.REPOSITORY / "bench" / "kubelet"
_NAMESPACE = "k8s.io"  # where containerd's CRI keeps what is the kubelet's
_LONGEST_SOCKET_PATH = 100
_DEVICE_PLUGINS = Path("/var/lib/kubelet/device-plugins")  # a kubelet makes it, whatever its --root-dir is
_START_TIMEOUT_S = 60.0


def build() -> Path:
    """
    The kubelet, built once into `.cache/bin`.

    Raises:
        HarnessError: the build failed.
    """
    return go_modules.build(
        "kubelet",
        _SOURCE,
        "k8s.io/kubernetes/cmd/kubelet",
        "building the kubelet (once: 10 seconds after the control plane, else 4 minutes)",
        link_flags=go_modules.kubernetes_link_flags(_SOURCE),
    )


class KubeletNode:
    """
    containerd and kubelet of the node `NODE`; a context manager that starts and removes them.

    Args:
        control_plane: the node's cluster.
        engine: who has the images.
        directory: for everything that either of them writes; replaced when there is one.
    """

    def __init__(self, control_plane: ControlPlane, engine: DockerEngine, directory: Path) -> None:
        self._control_plane = control_plane
        self._engine = engine
        self._directory = directory
        self._socket = directory / "containerd.sock"
        self._is_only_kubelet = not _DEVICE_PLUGINS.parent.exists()
        self.containerd = processes.ManagedProcess("containerd", directory)
        self.kubelet = processes.ManagedProcess("kubelet", directory)
        self.node_ip = network.host_ip()
        self.port, self._health_port = network.free_ports(2)

    def __enter__(self) -> KubeletNode:
        try:
            self._remove()
            self._start_containerd()
            self._import_images()
            self._start_kubelet()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    # --- containerd ---------------------------------------------------------------------------------------

    def _start_containerd(self) -> None:
        if os.geteuid() != 0:
            raise HarnessError("the kubelet's row needs root: leave it out with --nodes vkubelet")
        if len(str(self._socket)) > _LONGEST_SOCKET_PATH:
            raise HarnessError(f"{self._socket} is too long a path for a socket: use a checkout nearer to /")
        if shutil.which("containerd") is None:
            docker_engine.apt_install("containerd")
        self._directory.mkdir(parents=True, exist_ok=True)
        config = self._directory / "containerd.toml"
        config.write_text(self._containerd_config())
        self.containerd.start(["containerd", "--config", config])
        self._wait(self.containerd, lambda: self._ctr("version").returncode == 0)

    def _containerd_config(self) -> str:
        quoted = {name: json.dumps(str(self._directory / name)) for name in ("data", "state", "cni")}
        return f"""\
version = 2
root = {quoted["data"]}
state = {quoted["state"]}

[grpc]
address = {json.dumps(str(self._socket))}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {quoted["cni"]}
conf_dir = {quoted["cni"]}
"""

    def _ctr(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["ctr", "--address", str(self._socket), "--namespace", _NAMESPACE, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def _import_images(self) -> None:
        archive = self._directory / "images.tar"
        connection = self._engine.connect()
        try:
            connection.request("GET", f"/images/get?names={PAUSE_IMAGE}&names={BUSYBOX_IMAGE}")
            answer = connection.getresponse()
            if answer.status != http.HTTPStatus.OK:
                raise HarnessError(f"the Docker engine gives no images: {answer.read().decode()}")
            with archive.open("wb") as file:
                shutil.copyfileobj(answer, file)
        finally:
            connection.close()
        done = self._ctr("images", "import", str(archive))
        archive.unlink()
        if done.returncode != 0:
            raise HarnessError(f"containerd does not take the images: {done.stderr}")

    # --- kubelet ------------------------------------------------------------------------------------------

    def _start_kubelet(self) -> None:
        kubeconfig = self._control_plane.issue_kubeconfig(NODE, f"system:node:{NODE}", ["system:nodes"])
        config = self._directory / "kubelet.yaml"
        config.write_text(yaml.safe_dump(self._kubelet_config()))
        self.kubelet.start(
            [
                build(),
                f"--config={config}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={NODE}",
                f"--node-ip={self.node_ip}",
                f"--root-dir={self._directory / 'root'}",
                f"--cert-dir={self._directory / 'pki'}",
            ]
        )
        self._wait(self.kubelet, lambda: network.is_open(self.node_ip, self.port))

    def _kubelet_config(self) -> dict[str, object]:
        names = [NODE, self.node_ip, "127.0.0.1", "localhost"]
        serving = self._control_plane.pki.authority.issue_server(f"system:node:{NODE}", names)
        certificate, key = serving.write(self._directory, "serving")
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "port": self.port,
            "readOnlyPort": 0,
            "healthzPort": self._health_port,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._control_plane.authority_file)},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(certificate),
            "tlsPrivateKeyFile": str(key),
            "containerRuntimeEndpoint": f"unix://{self._socket}",
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,  # else it makes cgroups for the machine's pods, and leaves them
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "makeIPTablesUtilChains": False,
            "podLogsDir": str(self._directory / "logs"),
            "volumePluginDir": str(self._directory / "volume-plugins"),
            "containerLogMaxSize": "1Gi",  # the log that is read must not have been rotated
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
        }

    def _wait(self, process: processes.ManagedProcess, ready: object) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        assert callable(ready)
        while not ready():
            if not process.running or time.monotonic() > deadline:
                log = processes.tail(process.log_file, 15)
                raise HarnessError(f"{process.name} did not start; the end of {process.log_file}:\n{log}")
            time.sleep(0.2)

    # --- the end ------------------------------------------------------------------------------------------

    def _remove(self) -> None:
        """Leave nothing, also of a run that was killed."""
        self.kubelet.stop()
        self._end_shims()
        self.containerd.stop()
        self._end_shims()  # one that was being started
        self._unmount()
        shutil.rmtree(self._directory, ignore_errors=True)
        if self._is_only_kubelet:
            shutil.rmtree(_DEVICE_PLUGINS, ignore_errors=True)
            _remove_if_empty(_DEVICE_PLUGINS.parent)
        for group in sorted(Path("/sys/fs/cgroup").glob(f"*/{_NAMESPACE}/**/"), reverse=True):
            _remove_if_empty(group)

    def _end_shims(self) -> None:
        """Kill every shim of our containerd, and what runs in its containers."""
        doomed: list[psutil.Process] = []
        for shim in psutil.process_iter(["name", "cmdline"]):
            if shim.info["name"].startswith("containerd-shim") and str(self._socket) in (
                shim.info["cmdline"] or ()
            ):
                doomed += [*shim.children(recursive=True), shim]
        for process in doomed:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass  # it went with its parent
        psutil.wait_procs(doomed, timeout=10)

    def _unmount(self) -> None:
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted(mounts, reverse=True):
            if Path(mount).is_relative_to(self._directory):
                subprocess.run(["umount", "--lazy", mount], capture_output=True, check=False)


def _remove_if_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        pass  # it is not there, or somebody uses it
