"""
A Kubernetes control plane on this machine: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

It runs as one process, which is lighter and quicker, or as four, for tests that kill one of them. The
programs are built from pinned Go modules (`go.py`); where `KUBEBUILDER_ASSETS` names a directory, as for
envtest, those it has are used instead, and the control plane then always runs as separate processes.

All state is below one directory: a `ControlPlane` made for the directory of one that runs finds it again.

The controller manager runs as a member of system:masters without per-controller credentials: with those
the first pods come four seconds later, and what they protect against is not what is tested here.
"""

from __future__ import annotations

import datetime
import http.client
import json
import os
import shutil
import ssl
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, assert_never

from e2e.harness import go, network, pki, processes
from e2e.harness.errors import HarnessError

__all__ = ["Component", "ControlPlane", "Programs"]

Component = Literal["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"]
COMPONENTS: tuple[Component, ...] = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
SERVICE_RANGE = "10.0.0.0/16"
_READY_TIMEOUT_S = 90.0


class Programs:
    """Where the control plane's programs are; built on first use if need be."""

    def __init__(self) -> None:
        assets = os.environ.get("KUBEBUILDER_ASSETS")
        self._assets = Path(assets) if assets else None

    @property
    def can_share_a_process(self) -> bool:
        """Whether all programs are of our own binary."""
        return self._assets is None

    def command(self, program: str) -> list[str | Path]:
        """How to call a program: its path, or our binary and its name."""
        if self._assets and (self._assets / program).exists():
            return [self._assets / program]
        return [go.build_controlplane(), program]

    def kubectl(self) -> Path:
        """The path of kubectl."""
        if self._assets and (self._assets / "kubectl").exists():
            return self._assets / "kubectl"
        return go.build_controlplane().with_name("kubectl")


class ControlPlane:
    """
    A control plane; also a context manager that starts and stops it.

    Args:
        directory: for its keys, data, logs and kubeconfigs.
        one_process: all in one process; ignored where the programs are not of our own binary.
        bind_address: where the API server listens; 0.0.0.0 lets containers reach it.
        detached: it may outlive this process.
        flags: further ones by component; they win over ours.

    Attributes:
        admin_kubeconfig: for a member of system:masters.
        server: the API server's URL on this machine.
    """

    def __init__(
        self,
        directory: Path,
        *,
        one_process: bool = True,
        bind_address: str = "0.0.0.0",
        detached: bool = False,
        flags: Mapping[Component, Sequence[str]] | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.programs = Programs()
        self.admin_kubeconfig = self.directory / "admin.kubeconfig"
        self._bind_address = bind_address
        self._further_flags = flags or {}
        self._ports = self._read_or_choose_ports()
        self.server = f"https://127.0.0.1:{self._ports['kube-apiserver']}"
        self.pki = pki.Pki(self.directory / "pki", _api_server_names())
        names: Sequence[str] = COMPONENTS
        if one_process and self.programs.can_share_a_process:
            names = ("all",)
        self._processes = {
            name: processes.ManagedProcess(name, self.directory, detached=detached) for name in names
        }

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether all its processes run."""
        return all(process.running for process in self._processes.values())

    @property
    def log_files(self) -> list[Path]:
        """What its processes wrote."""
        return [process.log_file for process in self._processes.values()]

    @property
    def authority_file(self) -> Path:
        """The certificate of the authority that signed the cluster's servers and clients."""
        return self.pki.file("ca.crt")

    def start(self) -> None:
        """
        Start what does not run and wait until the API server is ready.

        Raises:
            HarnessError: it did not become ready; the message has the end of its log.
        """
        self.issue_kubeconfig("admin", "kubernetes-admin", ["system:masters"])
        for name, process in self._processes.items():
            if not process.running:
                process.start(self._command(name))
            if name in ("all", "kube-apiserver"):
                self._wait_ready(process)

    def stop(self) -> None:
        """Stop its processes, those that use the API server first. Its data stays."""
        for process in reversed(self._processes.values()):
            process.stop(timeout_s=8)

    def delete(self) -> None:
        """Stop it and remove all it kept."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def kill(self, component: Component) -> None:
        """SIGKILL one component; only where it has a process of its own."""
        self._process(component).kill()

    def stop_component(self, component: Component) -> None:
        """Stop one component with SIGTERM; only where it has a process of its own."""
        self._process(component).stop()

    def start_component(self, component: Component) -> None:
        """Start one component again; returns when the API server is ready if it is that."""
        process = self._process(component)
        process.start(self._command(component))
        if component == "kube-apiserver":
            self._wait_ready(process)

    def restart(self, component: Component) -> None:
        """Stop one component with SIGTERM and start it again."""
        self.stop_component(component)
        self.start_component(component)

    def issue_kubeconfig(
        self,
        name: str,
        user: str,
        groups: Sequence[str] = (),
        *,
        validity: datetime.timedelta = datetime.timedelta(days=365),
    ) -> Path:
        """
        Write `<name>.kubeconfig` for a user with a client certificate, and return its path.

        Args:
            name: of the file; one that exists is replaced.
            user: such as ``system:node:worker``.
            groups: such as ``system:nodes``.
            validity: of the certificate from now on; negative for one that has expired.
        """
        return pki.write_kubeconfig(
            self.directory / f"{name}.kubeconfig",
            server=self.server,
            authority=self.pki.authority.key_pair.certificate,
            client=self.pki.authority.issue_client(user, groups, validity=validity),
            user=user,
        )

    def _process(self, component: Component) -> processes.ManagedProcess:
        if component not in self._processes:
            raise HarnessError(f"{component} has no process of its own: use one_process=False")
        return self._processes[component]

    def _read_or_choose_ports(self) -> dict[str, int]:
        file = self.directory / "ports.json"
        if file.exists():
            ports: dict[str, int] = json.loads(file.read_text())
            return ports
        names = ("etcd", "etcd-peer", "kube-apiserver")
        ports = dict(zip(names, network.free_ports(len(names)), strict=True))
        self.directory.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(ports))
        return ports

    def _command(self, name: str) -> list[str | Path]:
        components = [component for component in COMPONENTS if name in ("all", component)]
        command = self.programs.command(name)
        for component in components:
            if name == "all":
                command.append(component)
            command += [*self._flags(component), *self._further_flags.get(component, ())]
        return command

    def _flags(self, component: Component) -> list[str]:
        match component:
            case "etcd":
                return self._etcd_flags()
            case "kube-apiserver":
                return self._api_server_flags()
            case "kube-controller-manager":
                return self._controller_manager_flags()
            case "kube-scheduler":
                return self._scheduler_flags()
            case _:
                assert_never(component)

    def _etcd_flags(self) -> list[str]:
        client = f"http://127.0.0.1:{self._ports['etcd']}"
        peer = f"http://127.0.0.1:{self._ports['etcd-peer']}"
        return [
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_server_flags(self) -> list[str]:
        file = self.pki.file
        return [
            f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}",
            f"--secure-port={self._ports['kube-apiserver']}",
            f"--bind-address={self._bind_address}",
            f"--tls-cert-file={file('apiserver.crt')}",
            f"--tls-private-key-file={file('apiserver.key')}",
            f"--client-ca-file={file('ca.crt')}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={file('service-account.pub')}",
            f"--service-account-signing-key-file={file('service-account.key')}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--kubelet-certificate-authority={file('ca.crt')}",
            f"--kubelet-client-certificate={file('apiserver-kubelet-client.crt')}",
            f"--kubelet-client-key={file('apiserver-kubelet-client.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged=true",
            f"--requestheader-client-ca-file={file('front-proxy-ca.crt')}",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={file('front-proxy-client.crt')}",
            f"--proxy-client-key-file={file('front-proxy-client.key')}",
            "--shutdown-delay-duration=0s",
            "--profiling=false",
        ]

    def _controller_manager_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.admin_kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
            "--use-service-account-credentials=false",
            f"--service-account-private-key-file={self.pki.file('service-account.key')}",
            f"--root-ca-file={self.pki.file('ca.crt')}",
            f"--cluster-signing-cert-file={self.pki.file('ca.crt')}",
            f"--cluster-signing-key-file={self.pki.file('ca.key')}",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
            "--controller-shutdown-timeout=2s",
            "--horizontal-pod-autoscaler-sync-period=3s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=5s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=1s",
        ]

    def _scheduler_flags(self) -> list[str]:
        return [
            f"--kubeconfig={self.admin_kubeconfig}",
            "--secure-port=0",
            "--leader-elect=false",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        ]

    def _wait_ready(self, process: processes.ManagedProcess) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not self.is_ready():
            if not process.running or time.monotonic() > deadline:
                how = f"exit code {process.exit_code}" if not process.running else "still not ready"
                raise HarnessError(
                    f"the API server at {self.server} did not become ready ({process.name}: {how}); "
                    f"the end of {process.log_file}:\n{processes.tail(process.log_file, 15)}"
                )
            time.sleep(0.1)

    def is_ready(self) -> bool:
        """Whether the API server answers /readyz with 200."""
        context = ssl.create_default_context(cafile=str(self.authority_file))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self._ports["kube-apiserver"], timeout=5, context=context
        )
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _api_server_names() -> list[str]:
    service_name = "kubernetes.default.svc"
    return [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        service_name,
        f"{service_name}.cluster.local",
        "127.0.0.1",
        "10.0.0.1",  # the first address of SERVICE_RANGE, which the Service "kubernetes" gets
        network.DOCKER_BRIDGE_GATEWAY,
        network.host_ip(),
    ]
