"""
What is wrong is said in the kubelet's words, where its owner looks, and nothing else stops.

Pods are declared beside their tests; all are made at once before the first test.
"""

from __future__ import annotations

import datetime
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e.harness import manifests, pods, processes
from e2e.harness.cluster import Cluster
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.vkubelet import Credentials, Vkubelet, issue_credentials
from e2e.harness.waiting import wait_until

MakeVkubelet = Callable[..., Vkubelet]
NODE = "docker-node"
UNREACHABLE_IMAGE = "registry.invalid/nobody/nothing:1"
_prepared: list[dict[str, Any]] = []


def prepare(name: str, *containers: dict[str, Any], **spec: Any) -> str:
    """Have a pod made before the first test; its name."""
    _prepared.append(manifests.pod(name, NODE, containers=containers or [container()], **spec))
    return name


HEALTHY = prepare("healthy")


@pytest.fixture(scope="module")
def kubectl(module_kubectl: Kubectl, vkubelet_docker: Vkubelet) -> Iterator[Kubectl]:
    """After the last test, a healthy pod on the same node has seen nothing of all this."""
    assert vkubelet_docker.node_name == NODE
    module_kubectl.apply({"apiVersion": "v1", "kind": "List", "items": _prepared})
    [before] = pods.wait_ready(module_kubectl, HEALTHY)
    yield module_kubectl
    after = module_kubectl.get("pod", HEALTHY)
    assert pods.is_ready(after)
    assert pods.container_status(after) == pods.container_status(before)
    assert module_kubectl.run("exec", HEALTHY, "--", "echo", "fine") == "fine\n"


def wait_for_waiting(kubectl: Kubectl, name: str, reason: str, text: str = "") -> Any:
    """`state.waiting` of the pod's container, once it has that reason."""

    def found(pod: Any) -> Any:
        waiting = pods.waiting(pod, reason)
        return waiting if waiting and text in waiting.get("message", "") else None

    return kubectl.wait_until("pod", name, found, describe=f"{name} to wait with {reason}: {text}")


def wait_failed(kubectl: Kubectl, name: str) -> Any:
    """`status` of the pod, once it has failed."""
    return kubectl.wait_until(
        "pod",
        name,
        lambda pod: pod["status"] if pods.phase(pod) == "Failed" else None,
        describe=f"{name} to fail",
    )


# --- references -------------------------------------------------------------------------------------------

NEEDS_CONFIG_MAP = prepare("needs-config-map", container(envFrom=[{"configMapRef": {"name": "later-map"}}]))
NEEDS_SECRET = prepare("needs-secret", container(envFrom=[{"secretRef": {"name": "later-secret"}}]))
NEEDS_KEY = prepare(
    "needs-key",
    container(
        env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "none"}}}]
    ),
)


def test_a_missing_object_for_the_environment(kubectl: Kubectl) -> None:
    for name, message, manifest in (
        (NEEDS_CONFIG_MAP, 'configmap "later-map" not found', ("configmap", "later-map")),
        (NEEDS_SECRET, 'secret "later-secret" not found', ("secret", "generic", "later-secret")),
    ):
        assert wait_for_waiting(kubectl, name, "CreateContainerConfigError")["message"] == message
        event = pods.wait_for_event(kubectl, name, "Failed", f"Error: {message}")
        assert event["type"] == "Warning"
        assert pods.phase(kubectl.get("pod", name)) == "Pending"
        kubectl.run("create", *manifest, "--from-literal=A=1")
    pods.wait_ready(kubectl, NEEDS_CONFIG_MAP, NEEDS_SECRET)


def test_a_missing_key_for_the_environment(kubectl: Kubectl) -> None:
    message = f"couldn't find key none in ConfigMap {kubectl.namespace}/kube-root-ca.crt"
    assert wait_for_waiting(kubectl, NEEDS_KEY, "CreateContainerConfigError")["message"] == message


MOUNTS_CONFIG_MAP = prepare(
    "mounts-config-map",
    container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
    volumes=[{"name": "v", "configMap": {"name": "later-file"}}],
)
MOUNTS_SECRET = prepare(
    "mounts-secret",
    container(volumeMounts=[{"name": "v", "mountPath": "/v"}]),
    volumes=[{"name": "v", "secret": {"secretName": "later-secret-file"}}],
)


def test_a_missing_object_for_a_volume(kubectl: Kubectl) -> None:
    for name, message, manifest in (
        (MOUNTS_CONFIG_MAP, 'configmap "later-file" not found', ("configmap", "later-file")),
        (MOUNTS_SECRET, 'secret "later-secret-file" not found', ("secret", "generic", "later-secret-file")),
    ):
        event = pods.wait_for_event(kubectl, name, "FailedMount")
        assert event["type"] == "Warning"
        assert event["message"] == f'MountVolume.SetUp failed for volume "v" : {message}'
        pod = kubectl.get("pod", name)
        assert pods.phase(pod) == "Pending"
        assert pods.waiting(pod, "ContainerCreating")
        kubectl.run("create", *manifest, "--from-literal=A=1")
    pods.wait_ready(kubectl, MOUNTS_CONFIG_MAP, MOUNTS_SECRET)
    assert kubectl.run("exec", MOUNTS_CONFIG_MAP, "--", "cat", "/v/A") == "1"


# --- images and commands ----------------------------------------------------------------------------------

CANNOT_PULL = prepare("cannot-pull", container(image=UNREACHABLE_IMAGE, imagePullPolicy="Always"))
NEVER_PULLED = prepare("never-pulled", container(image="vkubelet.local/none:1", imagePullPolicy="Never"))
NO_NAME = prepare("no-name", container(image="Not:A:Name"))


def test_an_image_that_cannot_be_pulled(kubectl: Kubectl) -> None:
    event = pods.wait_for_event(kubectl, CANNOT_PULL, "Failed", f'Failed to pull image "{UNREACHABLE_IMAGE}"')
    assert event["type"] == "Warning"
    pods.wait_for_event(kubectl, CANNOT_PULL, "Pulling", f'Pulling image "{UNREACHABLE_IMAGE}"')
    pods.wait_for_event(kubectl, CANNOT_PULL, "Failed", "Error: ErrImagePull")
    wait_for_waiting(
        kubectl, CANNOT_PULL, "ImagePullBackOff", f'Back-off pulling image "{UNREACHABLE_IMAGE}"'
    )
    pods.wait_for_event(kubectl, CANNOT_PULL, "BackOff", f'Back-off pulling image "{UNREACHABLE_IMAGE}"')
    assert pods.phase(kubectl.get("pod", CANNOT_PULL)) == "Pending"


def test_an_image_that_may_not_be_pulled(kubectl: Kubectl) -> None:
    waiting = wait_for_waiting(kubectl, NEVER_PULLED, "ErrImageNeverPull")
    assert waiting["message"] == (
        'Container image "vkubelet.local/none:1" is not present with pull policy of Never'
    )
    pods.wait_for_event(kubectl, NEVER_PULLED, "ErrImageNeverPull")


def test_an_image_name_that_is_none(kubectl: Kubectl) -> None:
    waiting = wait_for_waiting(kubectl, NO_NAME, "InvalidImageName")
    assert "invalid reference format" in waiting["message"]
    pods.wait_for_event(kubectl, NO_NAME, "InspectFailed", "Not:A:Name")


def test_a_pod_waiting_for_its_image_can_be_deleted(kubectl: Kubectl) -> None:
    kubectl.run("delete", "pod", CANNOT_PULL, NO_NAME, "--timeout=30s")


NO_COMMAND = prepare("no-command", container(command=["/no/such/command"]))
NO_COMMAND_ONCE = prepare("no-command-once", container(command=["/no/such/command"]), restartPolicy="Never")


def test_a_command_that_does_not_exist(kubectl: Kubectl) -> None:
    kubectl.wait_until(
        "pod",
        NO_COMMAND,
        lambda pod: pods.container_status(pod).get("restartCount", 0) >= 1,
        describe="another attempt",
    )
    pod = kubectl.wait_until(
        "pod", NO_COMMAND, lambda pod: pod if pods.waiting(pod, "CrashLoopBackOff") else None
    )
    end = pods.last_terminated(pod)
    assert (end["exitCode"], end["reason"]) == (128, "StartError")
    assert "/no/such/command" in end["message"]
    pods.wait_for_event(kubectl, NO_COMMAND, "Failed", "/no/such/command")
    pods.wait_for_event(kubectl, NO_COMMAND, "BackOff")


def test_a_command_that_does_not_exist_is_tried_once_with_never(kubectl: Kubectl) -> None:
    wait_failed(kubectl, NO_COMMAND_ONCE)
    end = pods.terminated(kubectl.get("pod", NO_COMMAND_ONCE))
    assert (end["exitCode"], end["reason"]) == (128, "StartError")
    assert "/no/such/command" in end["message"]


ROOT_WHERE_NONE_MAY_BE = prepare("root-where-none-may-be", securityContext={"runAsNonRoot": True})


def test_root_where_none_may_be(kubectl: Kubectl) -> None:
    waiting = wait_for_waiting(kubectl, ROOT_WHERE_NONE_MAY_BE, "CreateContainerConfigError")
    assert "container has runAsNonRoot and image will run as root" in waiting["message"]


# --- what is not served -----------------------------------------------------------------------------------

NFS = prepare(
    "nfs",
    container(volumeMounts=[{"name": "share", "mountPath": "/share"}]),
    volumes=[{"name": "share", "nfs": {"server": "nowhere.invalid", "path": "/"}}],
)
HOOKED = prepare("hooked", container(lifecycle={"preStop": {"exec": {"command": ["true"]}}}))


@pytest.mark.parametrize(
    ("name", "field"),
    [(NFS, "spec.volumes[0].nfs"), (HOOKED, "spec.containers[0].lifecycle")],
    ids=["volume", "hook"],
)
def test_what_is_not_served_is_refused_by_its_name(kubectl: Kubectl, name: str, field: str) -> None:
    status = wait_failed(kubectl, name)
    assert status["reason"] == "UnsupportedPodFeature"
    assert field in status["message"]
    assert "docker" in status["message"]
    event = pods.wait_for_event(kubectl, name, "UnsupportedPodFeature", field)
    assert event["type"] == "Warning"
    assert kubectl.run("get", "pod", name, "--no-headers").split()[2] == "UnsupportedPodFeature"
    kubectl.run("delete", "pod", name, "--timeout=30s")


# --- a full disk ------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(run_directory: Path) -> Iterator[Path]:
    """A file system of its own with room for little."""
    directory = run_directory / "small-disk"
    directory.mkdir()
    options = "size=1m,nr_inodes=200,mode=755"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "vkubelet-test", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def fill(directory: Path) -> list[Path]:
    """Use up all room for files; what was made for it."""
    made: list[Path] = []
    try:
        while True:
            made.append(directory / f"fill-{len(made)}")
            made[-1].mkdir()
    except OSError:
        return made[:-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system")
@pytest.mark.usefixtures("docker_engine")
def test_a_full_disk_stops_new_pods_with_volumes_and_no_others(
    make_vkubelet: MakeVkubelet, kubectl: Kubectl, small_disk: Path
) -> None:
    def with_volume(name: str) -> dict[str, Any]:
        containers = [container(volumeMounts=[{"name": "v", "mountPath": "/v"}])]
        return manifests.pod(
            name, vkubelet.node_name, containers=containers, volumes=[{"name": "v", "emptyDir": {}}]
        )

    vkubelet = make_vkubelet("docker", arguments=["--root-dir", str(small_disk)])
    with vkubelet:
        kubectl.apply(with_volume("was-there-before"))
        pods.wait_ready(kubectl, "was-there-before")
        fills = fill(small_disk)
        kubectl.apply(with_volume("comes-too-late"))
        event = pods.wait_for_event(kubectl, "comes-too-late", "FailedMount", "No space left on device")
        assert 'MountVolume.SetUp failed for volume "' in event["message"]
        assert pods.phase(kubectl.get("pod", "comes-too-late")) == "Pending"
        assert pods.is_ready(kubectl.get("pod", "was-there-before"))
        answer = kubectl.try_run("exec", "was-there-before", "--", "mkdir", "/v/more")
        assert "No space left on device" in answer.stderr

        for each in fills:
            each.rmdir()
        pods.wait_ready(kubectl, "comes-too-late")
        kubectl.run("delete", "pod", "was-there-before", "comes-too-late", "--timeout=30s")


# --- vkubelet's own settings ------------------------------------------------------------------------------


def ends_with(vkubelet: Vkubelet, timeout_s: float = 40) -> tuple[int | None, str]:
    """Start it and wait for its end: the exit code and what it wrote."""
    vkubelet.start()
    try:
        wait_until(
            lambda: vkubelet.process.exit_code is not None,
            timeout_s=timeout_s,
            describe="vkubelet to end",
            seen=lambda: processes.tail(vkubelet.log_file),
        )
        return vkubelet.process.exit_code, vkubelet.log_file.read_text()
    finally:
        vkubelet.stop()


def sentences(log: str) -> list[str]:
    """What was said to a person, not to a log collector."""
    return [line for line in log.splitlines() if line.startswith("vkubelet: ")]


def made_with(
    cluster: Cluster, name: str, credentials: Credentials, arguments: Sequence[str] = ()
) -> Vkubelet:
    """A vkubelet with these credentials; nobody needs to tidy up after it."""
    return Vkubelet(
        credentials,
        cluster.kubectl,
        cluster.control_plane.directory / name,
        provider="memory",
        node_name=name,
        arguments=arguments,
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file|does not exist|cannot read"),
        ("{not yaml", "YAML|yaml"),
        ("apiVersion: v1\nkind: Config\n", "kubeconfig"),
    ],
    ids=["missing", "no YAML", "without a cluster"],
)
def test_a_wrong_kubeconfig(cluster: Cluster, tmp_path: Path, content: str | None, words: str) -> None:
    kubeconfig = tmp_path / "the.kubeconfig"
    if content is not None:
        kubeconfig.write_text(content)
    credentials = Credentials(kubeconfig, cluster.control_plane.authority_file)
    code, log = ends_with(
        made_with(cluster, f"wrong-{tmp_path.name}".lower().replace("_", "-")[:40], credentials)
    )
    assert code == 2
    [sentence] = sentences(log)
    assert "--kubeconfig" in sentence
    assert str(kubeconfig) in sentence
    assert re.search(words, sentence), sentence
    assert "Traceback" not in log


def test_a_taken_port(make_vkubelet: MakeVkubelet) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        vkubelet = make_vkubelet("memory", port=port)
        code, log = ends_with(vkubelet)
    assert code == 2
    [sentence] = sentences(log)
    assert "--port" in sentence
    assert str(port) in sentence
    assert vkubelet.node() is None


def test_an_expired_client_certificate(cluster: Cluster) -> None:
    validity = datetime.timedelta(minutes=-5)
    credentials = issue_credentials(cluster.control_plane, "expired-node", validity=validity)
    code, log = ends_with(made_with(cluster, "expired-node", credentials))
    assert code == 2
    [sentence] = sentences(log)
    assert "expired" in sentence
    assert str(credentials.kubeconfig) in sentence


def test_a_user_without_rights_is_told_which(cluster: Cluster) -> None:
    name = "powerless"
    credentials = issue_credentials(cluster.control_plane, name)
    powerless = Credentials(
        cluster.control_plane.issue_kubeconfig("powerless-user", "nobody-in-particular"),
        credentials.client_ca_file,
        credentials.serving,
    )
    vkubelet = made_with(cluster, name, powerless)
    vkubelet.start()
    try:
        wait_until(
            lambda: re.search(
                r"cannot (list|create|get)[^\n]*nobody-in-particular|nobody-in-particular[^\n]*cannot",
                vkubelet.log_file.read_text(),
            ),
            timeout_s=40,
            describe="the missing right to be named",
            seen=lambda: processes.tail(vkubelet.log_file),
        )
        assert vkubelet.node() is None
    finally:
        vkubelet.stop()


def test_nobody_is_served_without_a_way_to_know_them(cluster: Cluster) -> None:
    credentials = issue_credentials(cluster.control_plane, "open")
    vkubelet = made_with(cluster, "open", credentials, ["--authentication-token-webhook=false"])
    command = [str(each) for each in vkubelet.command()]
    without_ca = command.index("--client-ca-file")
    del command[without_ca : without_ca + 2]
    vkubelet.root_dir.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    [sentence] = sentences(done.stderr)
    assert "--client-ca-file" in sentence
    assert "--authentication-token-webhook" in sentence


def test_the_wrong_image_of_one_container_does_not_stop_the_other(kubectl: Kubectl) -> None:
    broken = container("broken", image="vkubelet.local/none:1", imagePullPolicy="Never")
    kubectl.apply(manifests.pod("half", NODE, containers=[container(), broken]))

    def half_runs(pod: Any) -> bool:
        waits = bool(pods.waiting(pod, "ErrImageNeverPull", "broken"))
        return waits and "running" in pods.container_status(pod)["state"]

    kubectl.wait_until("pod", "half", half_runs, describe="one container to run and one to wait")
    pod = kubectl.get("pod", "half")
    assert pods.condition(pod, "Ready") == "False"
