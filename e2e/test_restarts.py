"""
What survives: a vkubelet that is killed at any moment, an API server that goes away.

In each test the containers themselves count: what was started twice would be seen in the engine or in a log.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from e2e.harness import manifests, pods
from e2e.harness.cluster import Cluster
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.kubectl import Kubectl
from e2e.harness.manifests import container
from e2e.harness.vkubelet import Vkubelet, node_condition
from e2e.harness.waiting import wait_until

MakeVkubelet = Callable[..., Vkubelet]
MANY = 14
ONCE = ["sh", "-c", "echo started; trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done"]
"""Tells of each start; a container that was started twice would say so twice."""


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def apply_all(kubectl: Kubectl, items: list[dict[str, Any]]) -> None:
    kubectl.apply({"apiVersion": "v1", "kind": "List", "items": items})


def of_node(engine: DockerEngine, cluster: Cluster, vkubelet: Vkubelet) -> list[Any]:
    """The containers that the engine has for a node."""
    return engine.containers(f"vkubelet.io/node={vkubelet.node_name}", f"vkubelet.io/cluster={cluster.uid}")


def statuses(found: list[Any]) -> dict[str, Any]:
    """Container statuses by the pod's name."""
    return {pod["metadata"]["name"]: pod["status"]["containerStatuses"] for pod in found}


def wait_all_ready(kubectl: Kubectl, count: int, timeout_s: float = 120) -> list[Any]:
    def ready() -> list[Any] | None:
        found = kubectl.items("pods")
        return found if pods.all_ready(found, count) else None

    return wait_until(
        ready, timeout_s=timeout_s, describe=f"{count} Ready pods", seen=lambda: kubectl.run("get", "pods")
    )


def wait_for_containers(engine: DockerEngine, cluster: Cluster, vkubelet: Vkubelet, count: int) -> None:
    wait_until(
        lambda: len(of_node(engine, cluster, vkubelet)) >= count,
        timeout_s=60,
        describe=f"{count} containers of the node",
    )


def wait_exited(engine: DockerEngine, container_id: str) -> None:
    wait_until(
        lambda: engine.state(container_id) == "exited", timeout_s=20, describe=f"the end of {container_id}"
    )


def wait_no_containers(engine: DockerEngine, cluster: Cluster, vkubelet: Vkubelet) -> None:
    wait_until(
        lambda: not of_node(engine, cluster, vkubelet),
        timeout_s=60,
        describe="all containers of the node to be gone",
        seen=lambda: [each["Names"] for each in of_node(engine, cluster, vkubelet)],
    )


# --- vkubelet is killed -----------------------------------------------------------------------------------


def test_killed_during_creation_it_starts_everything_once(
    make_vkubelet: MakeVkubelet, cluster: Cluster, kubectl: Kubectl, docker_engine: DockerEngine
) -> None:
    vkubelet = make_vkubelet("docker")
    with vkubelet:
        names = [f"once-{number}" for number in range(MANY)]
        apply_all(kubectl, [manifests.pod(name, vkubelet.node_name, ONCE) for name in names])
        for made in (1, MANY, MANY + MANY // 2):
            wait_for_containers(docker_engine, cluster, vkubelet, made)
            vkubelet.kill()
            vkubelet.start()
        found = wait_all_ready(kubectl, MANY)
        assert {each[0]["restartCount"] for each in statuses(found).values()} == {0}
        containers = of_node(docker_engine, cluster, vkubelet)
        assert len(containers) == 2 * MANY, sorted(each["Names"] for each in containers)
        assert {each["State"] for each in containers} == {"running"}
        for name in names:
            assert kubectl.run("logs", name) == "started\n"

        vkubelet.kill()
        vkubelet.start()
        vkubelet.wait_ready()
        # A pod that comes after the restart shows that the others have been looked at.
        kubectl.apply(manifests.pod("afterwards", vkubelet.node_name, ONCE))
        after = wait_all_ready(kubectl, MANY + 1)
        assert {name: statuses(after)[name] for name in names} == statuses(found)
        kubectl.run("delete", "pods", "--all", "--timeout=60s", timeout_s=90)
        wait_no_containers(docker_engine, cluster, vkubelet)


def test_killed_during_deletion_it_finishes_the_job(
    make_vkubelet: MakeVkubelet, cluster: Cluster, kubectl: Kubectl, docker_engine: DockerEngine
) -> None:
    vkubelet = make_vkubelet("docker")
    farewell = shell("trap 'sleep 1; exit 42' TERM; while true; do sleep 1 & wait $!; done")
    items = [
        manifests.pod(f"goes-{number}", vkubelet.node_name, farewell, terminationGracePeriodSeconds=20)
        for number in range(MANY // 2)
    ]
    items[0]["metadata"]["finalizers"] = ["example.com/hold"]
    with vkubelet:
        apply_all(kubectl, items)
        wait_all_ready(kubectl, len(items))
        kubectl.run("delete", "pods", "--all", "--wait=false")
        for _ in range(2):
            pods.wait_for_event(kubectl, "goes-0", "Killing")
            vkubelet.kill()
            vkubelet.start()
        last = kubectl.wait_until(
            "pod",
            "goes-0",
            lambda pod: pod if pods.terminated(pod) else None,
            describe="the exit code of a container that ended while nobody looked",
        )
        assert pods.terminated(last)["exitCode"] == 42
        assert pods.container_status(last)["restartCount"] == 0
        kubectl.run("patch", "pod", "goes-0", "--type=merge", '--patch={"metadata":{"finalizers":null}}')
        wait_until(lambda: not kubectl.items("pods"), timeout_s=60, describe="all pods to be gone")
        wait_no_containers(docker_engine, cluster, vkubelet)


def test_what_happened_while_it_was_away_is_made_up_for(
    make_vkubelet: MakeVkubelet, cluster: Cluster, kubectl: Kubectl, docker_engine: DockerEngine
) -> None:
    vkubelet = make_vkubelet("docker")
    node = vkubelet.node_name
    until_told = shell("echo started; until [ -e /tmp/end ]; do sleep 0.2; done; exit 3")
    ends_later = container(command=until_told)
    with vkubelet:
        apply_all(
            kubectl,
            [
                manifests.pod("deleted", node),
                manifests.pod("deleted-by-force", node),
                manifests.pod("ends", node, containers=[ends_later], restartPolicy="Never"),
                manifests.pod("ends-and-returns", node, containers=[ends_later]),
                manifests.pod("loses-its-container", node, ONCE),
                manifests.pod("stays", node, ONCE),
            ],
        )
        before = statuses(wait_all_ready(kubectl, 6))
        vkubelet.kill()

        kubectl.run("delete", "pod", "deleted", "--wait=false")
        kubectl.run("delete", "pod", "deleted-by-force", "--force", "--grace-period=0")
        lost = before["loses-its-container"][0]["containerID"].removeprefix("docker://")
        docker_engine.request("DELETE", f"/containers/{lost}?force=1")
        for name in ("ends", "ends-and-returns"):
            identifier = before[name][0]["containerID"].removeprefix("docker://")
            docker_engine.put_file(identifier, "/tmp", "end")
            wait_exited(docker_engine, identifier)
        kubectl.apply(manifests.pod("new", node, ONCE))
        vkubelet.start()

        kubectl.wait_gone("pod", "deleted")
        ended = kubectl.wait_until("pod", "ends", lambda pod: pod if pods.has_ended(pod) else None)
        assert pods.terminated(ended)["exitCode"] == 3
        assert pods.container_status(ended)["restartCount"] == 0
        returned = kubectl.wait_until(
            "pod",
            "ends-and-returns",
            lambda pod: pod if pods.container_status(pod)["restartCount"] == 1 else None,
        )
        assert pods.last_terminated(returned)["exitCode"] == 3
        replaced = kubectl.wait_until(
            "pod",
            "loses-its-container",
            lambda pod: (
                pod if pods.is_ready(pod) and pods.container_status(pod)["restartCount"] == 1 else None
            ),
        )
        assert pods.last_terminated(replaced)["reason"] == "ContainerStatusUnknown"
        pods.wait_ready(kubectl, "new", "stays")
        assert kubectl.get("pod", "stays")["status"]["containerStatuses"] == before["stays"]

        def containers_left() -> set[str]:
            return {
                each["Labels"]["io.kubernetes.pod.name"] for each in of_node(docker_engine, cluster, vkubelet)
            }

        wait_until(
            lambda: not containers_left() & {"deleted", "deleted-by-force"},
            timeout_s=30,
            describe="the containers of deleted pods to be gone",
            seen=containers_left,
        )


def test_a_sandbox_that_dies_takes_its_pod_along_and_a_new_one_comes(
    make_vkubelet: MakeVkubelet, cluster: Cluster, kubectl: Kubectl, docker_engine: DockerEngine
) -> None:
    with make_vkubelet("docker") as vkubelet:
        kubectl.apply(manifests.pod("loses-its-sandbox", vkubelet.node_name))
        pods.wait_ready(kubectl, "loses-its-sandbox")
        [sandbox] = [
            each["Id"]
            for each in of_node(docker_engine, cluster, vkubelet)
            if each["Labels"]["io.kubernetes.docker.type"] == "podsandbox"
        ]
        docker_engine.request("POST", f"/containers/{sandbox}/kill")
        pods.wait_for_event(kubectl, "loses-its-sandbox", "SandboxChanged")
        pod = kubectl.wait_until(
            "pod",
            "loses-its-sandbox",
            lambda pod: (
                pod if pods.is_ready(pod) and pods.container_status(pod)["restartCount"] == 1 else None
            ),
        )
        assert (
            kubectl.run("exec", "loses-its-sandbox", "--", "hostname", "-i").strip() == pod["status"]["podIP"]
        )


# --- the API server goes away -----------------------------------------------------------------------------


@pytest.mark.usefixtures("docker_engine")
def test_the_api_server_restarts_under_load(make_cluster: Callable[[], Cluster]) -> None:
    cluster = make_cluster()
    kubectl = cluster.kubectl.within("default")
    kubectl.wait_until("serviceaccount", "default", lambda found: found is not None)
    in_memory = cluster.vkubelet("memory", "memory-node", arguments=["--max-pods=500"])
    in_docker = cluster.vkubelet("docker", "docker-node")
    with in_memory, in_docker:
        apply_all(kubectl, [manifests.pod(f"kept-{number}", "docker-node", ONCE) for number in range(3)])
        kept = statuses(wait_all_ready(kubectl, 3))
        kubectl.apply(manifests.deployment("light", "memory-node", 120))
        kubectl.apply(manifests.deployment("heavy", "docker-node", 6, containers=[container(command=ONCE)]))
        for how in (cluster.control_plane.kill, cluster.control_plane.stop_component):
            wait_some_running(kubectl)
            how("kube-apiserver")
            cluster.control_plane.start_component("kube-apiserver")
        kubectl.run("scale", "deployment/light", "--replicas=60")
        after = wait_all_ready(kubectl, 3 + 6 + 60)
        assert {name: statuses(after)[name] for name in kept} == kept
        restarts = {each["restartCount"] for found in statuses(after).values() for each in found}
        assert restarts == {0}
        for vkubelet in (in_memory, in_docker):
            assert vkubelet.process.running
            assert node_condition(vkubelet.node(), "Ready") == "True"
        for name in statuses(after):
            if not name.startswith("light"):
                assert kubectl.run("logs", name) == "started\n"
        kubectl.run("delete", "deployment", "light", "heavy")
        kubectl.run("delete", "pods", "--all", "--timeout=90s", timeout_s=120)


def wait_some_running(kubectl: Kubectl) -> None:
    """Until a good part of the pods run: the rest is on its way."""

    def some() -> bool:
        phases = json.loads(kubectl.run("get", "pods", "--output=json"))["items"]
        return sum(pods.phase(pod) == "Running" for pod in phases) >= 30

    wait_until(some, timeout_s=90, describe="30 running pods")
