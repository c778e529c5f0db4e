"""The harness itself: what the other tests stand on."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable

from e2e.harness import images, manifests
from e2e.harness.cluster import Cluster
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.kubectl import Kubectl
from e2e.harness.processes import ManagedProcess


def test_the_scheduler_places_a_pod_on_a_node(cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl.run("create", "--filename", "-", stdin=json.dumps(manifests.fake_node("fake")))
    try:
        kubectl.apply(manifests.pod("placed", "fake"))
        kubectl.wait_until(
            "pod",
            "placed",
            lambda pod: pod["spec"].get("nodeName") == "fake",
            describe="the pod to be placed",
        )
    finally:
        cluster.kubectl.run("delete", "node", "fake")
        kubectl.run("delete", "pod", "placed", "--force", "--grace-period=0")


def test_a_killed_api_server_comes_back_with_its_objects(make_cluster: Callable[[], Cluster]) -> None:
    cluster = make_cluster()
    cluster.kubectl.run("create", "configmap", "kept", "--from-literal=key=value")
    cluster.control_plane.kill("kube-apiserver")
    assert not cluster.control_plane.is_ready()
    cluster.control_plane.start_component("kube-apiserver")
    assert cluster.kubectl.get("configmap", "kept")["data"] == {"key": "value"}


def test_an_expired_client_certificate_is_refused(cluster: Cluster) -> None:
    kubeconfig = cluster.control_plane.issue_kubeconfig(
        "expired", "late", ["system:masters"], validity=datetime.timedelta(minutes=-5)
    )
    done = Kubectl(cluster.kubectl.program, kubeconfig).try_run("get", "nodes")
    assert done.returncode != 0
    assert "must be logged in" in done.stderr or "Unauthorized" in done.stderr


def test_kubectl_on_a_terminal_is_typed_to(cluster: Cluster, kubectl: Kubectl) -> None:
    kubectl.run("create", "configmap", "asked-for", "--from-literal=key=value")
    with kubectl.terminal("delete", "configmap", "asked-for", "--interactive") as terminal:
        terminal.expect(r"\(y/N\)|\[y/n\]|y/n|continue")
        terminal.send("y\r")
        terminal.expect("deleted")
        assert terminal.wait() == 0


def test_the_images_hold_a_shell_and_a_pause_program(docker_engine: DockerEngine) -> None:
    connection = docker_engine.connect()
    try:
        for image in (images.PAUSE_IMAGE, images.BUSYBOX_IMAGE):
            connection.request("GET", f"/images/{image}/json")
            answer = connection.getresponse()
            assert answer.status == 200, image
            assert json.loads(answer.read())["Size"] < 5_000_000, image
    finally:
        connection.close()


def test_a_process_is_found_and_ended_by_its_record(cluster: Cluster) -> None:
    directory = cluster.control_plane.directory / "record"
    started = ManagedProcess("sleeper", directory)
    started.start(["sleep", "60"])
    found = ManagedProcess("sleeper", directory)
    assert found.pid == started.pid
    begun = time.monotonic()
    found.stop()
    assert time.monotonic() - begun < 5
    assert not started.running
