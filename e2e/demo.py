"""
`make demo`: a virtual node that runs real pods, from nothing; `make demo-down` takes it all away again.

A control plane is started (or the one of KUBECONFIG used, with DEMO_USE_CLUSTER=1), a Docker engine found
or started, and `vkubelet run` started as a node. Then kubectl shows a Deployment's way through it. All of
it keeps running, so that one can go on by hand; state is in `.cache/demo`. A second run uses what runs.

Where no Docker engine is to be had, the memory provider shows the same without containers.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from e2e.harness import diagnosis, docker_engine, images, network, paths
from e2e.harness.controlplane import ControlPlane, Programs
from e2e.harness.docker_engine import DockerEngine, EngineUnavailableError
from e2e.harness.errors import HarnessError
from e2e.harness.kubectl import Kubectl, KubectlError
from e2e.harness.progress import Progress
from e2e.harness.vkubelet import Credentials, Vkubelet, grant_vkubelet_user, issue_credentials

STATE = paths.CACHE / "demo"
KUBECONFIG = STATE / "kubeconfig"
NAMESPACE = "vkubelet-demo"
EXAMPLE = paths.EXAMPLES / "hello.yaml"
_EXIT_CODE = 7


@dataclass(frozen=True, slots=True)
class Remembered:
    """
    What a demo that runs is made of, kept in `.cache/demo/state.json`.

    Attributes:
        provider: of its vkubelet.
        port: of its vkubelet.
        own_cluster: whether the control plane was started for it.
        cluster_uid: by which its containers are found.
    """

    provider: str
    port: int
    own_cluster: bool
    cluster_uid: str

    @classmethod
    def read(cls) -> Remembered | None:
        try:
            return cls(**json.loads((STATE / "state.json").read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self) -> None:
        (STATE / "state.json").write_text(json.dumps(dataclasses.asdict(self)))

    @property
    def node_name(self) -> str:
        return f"vkubelet-{self.provider}"


def up(progress: Progress) -> None:
    """Set up what is missing and show the main job; all keeps running."""
    STATE.mkdir(parents=True, exist_ok=True)
    progress.heading("Setting up")
    use_cluster = os.environ.get("DEMO_USE_CLUSTER") == "1"
    kubectl = _connect_users_cluster() if use_cluster else _start_cluster(progress)
    provider = _choose_provider(progress)
    vkubelet = _start_vkubelet(progress, kubectl, provider, own_cluster=not use_cluster)
    try:
        _show(progress, kubectl.within(NAMESPACE), vkubelet.node_name)
    except (AssertionError, KubectlError) as error:
        raise HarnessError(
            f"{error}\n\n{diagnosis.explain(kubectl.within(NAMESPACE), [vkubelet.log_file])}"
        ) from error
    _tell_how_to_go_on(progress, kubectl, vkubelet)


def down(progress: Progress) -> None:
    """Take away what `up` set up, and nothing else."""
    remembered = Remembered.read()
    if remembered and KUBECONFIG.exists():
        _delete_objects(progress, remembered)
    if remembered:
        with progress.step("stopping vkubelet"):
            _vkubelet(remembered, Kubectl(Path("kubectl"), KUBECONFIG)).stop()
            _remove_containers(remembered)
    if (STATE / "cluster").exists():
        with progress.step("stopping the control plane"):
            _control_plane().delete()
    daemon = docker_engine.daemon_process(detached=True)
    if daemon.running:
        with progress.step("stopping the Docker engine that was started for the demo"):
            daemon.stop(timeout_s=30)
    shutil.rmtree(STATE, ignore_errors=True)


# --- setting up -------------------------------------------------------------------------------------------


def _control_plane() -> ControlPlane:
    return ControlPlane(STATE / "cluster", detached=True)


def _start_cluster(progress: Progress) -> Kubectl:
    program = _kubectl_program(own_cluster=True)  # built here if need be, outside of the steps below
    control_plane = _control_plane()
    if not (control_plane.running and control_plane.is_ready()):
        with progress.step("starting a control plane"):
            control_plane.start()
    else:
        progress.note("  the control plane is running")
    return _prepare(Kubectl(program, control_plane.admin_kubeconfig))


def _connect_users_cluster() -> Kubectl:
    kubeconfig = os.environ.get("KUBECONFIG")
    if not kubeconfig or os.pathsep in kubeconfig:
        raise HarnessError("DEMO_USE_CLUSTER=1 needs KUBECONFIG with the path of one kubeconfig")
    kubectl = Kubectl(_kubectl_program(own_cluster=False), Path(kubeconfig))
    try:
        return _prepare(kubectl)
    except KubectlError as error:
        raise HarnessError(f"the cluster of KUBECONFIG={kubeconfig} cannot be used: {error}") from error


def _kubectl_program(*, own_cluster: bool) -> Path:
    """The user's kubectl for the user's cluster, if there is one; ours is of our control plane's version."""
    found = None if own_cluster else shutil.which("kubectl")
    return Path(found) if found else Programs().kubectl()


def _prepare(kubectl: Kubectl) -> Kubectl:
    """Make the demo's namespace, and its kubeconfig, in which that namespace is the current one."""
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    kubectl.within(NAMESPACE).wait_until("serviceaccount", "default", lambda found: found is not None)
    KUBECONFIG.touch(mode=0o600)
    KUBECONFIG.write_text(kubectl.run("config", "view", "--raw", "--minify", "--flatten"))
    own = Kubectl(kubectl.program, KUBECONFIG)
    own.run("config", "set-context", "--current", f"--namespace={NAMESPACE}")
    return own


def _choose_provider(progress: Progress) -> str:
    try:
        with progress.step("finding a Docker engine, or starting one"):
            engine = DockerEngine.find_or_start(detached=True)
        with progress.step("making the images"):
            images.ensure_images(engine)
    except EngineUnavailableError as error:
        progress.note(f"\nThere is no Docker engine: {error}")
        progress.note("So this demo uses the memory provider: everything but the containers is real.")
        return "memory"
    return "docker"


def _start_vkubelet(progress: Progress, kubectl: Kubectl, provider: str, *, own_cluster: bool) -> Vkubelet:
    remembered = Remembered.read()
    if remembered and (remembered.provider, remembered.own_cluster) == (provider, own_cluster):
        vkubelet = _vkubelet(remembered, kubectl)
        if vkubelet.process.running:
            progress.note("  vkubelet is running")
            vkubelet.wait_ready()
            return vkubelet
    elif remembered:
        _vkubelet(remembered, kubectl).stop()
    uid = kubectl.get("namespace", "kube-system")["metadata"]["uid"]
    remembered = Remembered(provider, network.free_ports(1)[0], own_cluster, uid)
    remembered.write()
    credentials = _issue_credentials(kubectl, remembered)
    vkubelet = _vkubelet(remembered, kubectl, credentials)
    with progress.step(f"starting vkubelet run --provider {provider}"):
        vkubelet.start()
        vkubelet.wait_ready()
    return vkubelet


def _issue_credentials(kubectl: Kubectl, remembered: Remembered) -> Credentials:
    if remembered.own_cluster:
        grant_vkubelet_user(kubectl)
        return issue_credentials(_control_plane(), remembered.node_name)
    # The API server publishes there who signs its clients, itself as the kubelets' client among them.
    authentication = kubectl.within("kube-system").get("configmap", "extension-apiserver-authentication")
    client_ca_file = STATE / "client-ca.crt"
    client_ca_file.write_text(authentication["data"]["client-ca-file"])
    return Credentials(KUBECONFIG, client_ca_file)


def _vkubelet(remembered: Remembered, kubectl: Kubectl, credentials: Credentials | None = None) -> Vkubelet:
    return Vkubelet(
        credentials or Credentials(KUBECONFIG, KUBECONFIG),  # only starting it needs them
        kubectl,
        STATE,
        provider=remembered.provider,
        node_name=remembered.node_name,
        port=remembered.port,
        # A foreign cluster's administrator may not want to approve a certificate for a demonstration.
        arguments=[] if remembered.own_cluster else ["--tls-self-signed"],
        detached=True,
    )


# --- showing ----------------------------------------------------------------------------------------------


def _show(progress: Progress, kubectl: Kubectl, node_name: str) -> None:
    progress.heading("The node")
    _run(progress, kubectl, "get", "nodes", "--output=wide")

    progress.heading("A Deployment, placed on it by its nodeSelector and toleration")
    _run(progress, kubectl, "apply", f"--filename={EXAMPLE.relative_to(paths.REPOSITORY)}")
    _wait_for_pods(progress, kubectl, 1)
    _check_pods(kubectl, node_name)

    progress.heading("What it writes, and a command in it, with its exit code")
    _run(progress, kubectl, "logs", "deployment/hello")
    _show_exec(progress, kubectl)

    progress.heading("Three of it, and back")
    _run(progress, kubectl, "scale", "deployment/hello", "--replicas=3")
    _wait_for_pods(progress, kubectl, 3)
    _run(progress, kubectl, "scale", "deployment/hello", "--replicas=1")
    _wait_for_pods(progress, kubectl, 1)

    progress.heading("Deletion")
    _run(progress, kubectl, "delete", "deployment", "hello")
    _wait_until_gone(progress, kubectl)
    _run(progress, kubectl, "get", "pods")


def _run(progress: Progress, kubectl: Kubectl, *arguments: str) -> None:
    progress.command(f"kubectl {' '.join(arguments)}")
    done = kubectl.try_run(*arguments)
    progress.note((done.stdout + done.stderr).rstrip())
    if done.returncode != 0:
        raise KubectlError(["kubectl", *arguments], done)


def _show_exec(progress: Progress, kubectl: Kubectl) -> None:
    command = ["exec", "deployment/hello", "--", "sh", "-c", f"hostname; exit {_EXIT_CODE}"]
    progress.command(f"kubectl {' '.join(command[:-1])} '{command[-1]}'; echo $?")
    done = kubectl.try_run(*command)
    progress.note(f"{(done.stdout + done.stderr).rstrip()}\n{done.returncode}")
    if done.returncode != _EXIT_CODE:
        raise KubectlError(["kubectl", *command], done)


def _wait_for_pods(progress: Progress, kubectl: Kubectl, count: int) -> None:
    def running(_: object) -> bool:
        pods = kubectl.items("pods", "--selector=app=hello")
        return len(pods) == count and all(_is_ready(pod) for pod in pods)

    with progress.step(f"waiting for {count} running pod{'s' if count != 1 else ''}"):
        kubectl.wait_until(
            "deployment", "hello", running, timeout_s=90, describe=f"{count} ready pods of the Deployment"
        )
    _run(progress, kubectl, "get", "pods", "--output=wide")


def _wait_until_gone(progress: Progress, kubectl: Kubectl) -> None:
    with progress.step("waiting for its pods to be stopped"):
        kubectl.run("wait", "pods", "--selector=app=hello", "--for=delete", "--timeout=60s")


def _check_pods(kubectl: Kubectl, node_name: str) -> None:
    for pod in kubectl.items("pods", "--selector=app=hello"):
        if pod["spec"]["nodeName"] != node_name or not pod["status"].get("podIP"):
            raise AssertionError(f"pod {pod['metadata']['name']} should be on {node_name} and have an IP")


def _is_ready(pod: dict[str, dict[str, list[dict[str, str]]]]) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _tell_how_to_go_on(progress: Progress, kubectl: Kubectl, vkubelet: Vkubelet) -> None:
    program = kubectl.program
    if program.is_relative_to(paths.REPOSITORY):
        program = program.relative_to(paths.REPOSITORY)
    progress.heading("It keeps running. To go on by hand:")
    progress.note(f"  export KUBECONFIG={KUBECONFIG}")
    progress.note(f"  {program} apply -f {EXAMPLE.relative_to(paths.REPOSITORY)}")
    progress.note(f"  {program} get pods -o wide")
    progress.note(f"  tail -f {vkubelet.log_file.relative_to(paths.REPOSITORY)}")
    progress.note("  make demo-down     # stops all of it and removes what it wrote")


# --- taking away ------------------------------------------------------------------------------------------


def _delete_objects(progress: Progress, remembered: Remembered) -> None:
    """Delete the demo's pods and node, while its vkubelet can still stop the containers."""
    if remembered.own_cluster and not _control_plane().running:
        return
    kubectl = Kubectl(_kubectl_program(own_cluster=remembered.own_cluster), KUBECONFIG)
    with progress.step("deleting the demo's pods and node"):
        for what in (["namespace", NAMESPACE], ["node", remembered.node_name]):
            done = kubectl.try_run("delete", *what, "--ignore-not-found", "--timeout=60s", timeout_s=90)
            if done.returncode != 0:
                progress.note(f"  {done.stderr.strip()}")


def _remove_containers(remembered: Remembered) -> None:
    """Remove what is left when the control plane or vkubelet was gone before the pods were."""
    if remembered.provider != "docker":
        return
    engine = DockerEngine.find()
    if engine is not None:
        engine.remove_containers(
            f"vkubelet.io/cluster={remembered.cluster_uid}", f"vkubelet.io/node={remembered.node_name}"
        )


def main() -> int:
    """Run `up`, or `down` when that is the argument; the exit code says whether it worked."""
    progress = Progress()
    try:
        if sys.argv[1:] == ["down"]:
            down(progress)
        else:
            up(progress)
    except HarnessError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
