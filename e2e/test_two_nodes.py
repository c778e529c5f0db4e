"""Several vkubelets on one Docker engine leave each other's containers alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from e2e.harness import manifests, pods
from e2e.harness.cluster import Cluster
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.kubectl import Kubectl
from e2e.harness.vkubelet import Vkubelet
from e2e.harness.waiting import wait_until

MakeVkubelet = Callable[..., Vkubelet]


def containers_of(engine: DockerEngine, cluster: Cluster, node: str) -> dict[str, str]:
    """Containers of a node: their state by id."""
    found = engine.containers(f"vkubelet.io/node={node}", f"vkubelet.io/cluster={cluster.uid}")
    return {each["Id"]: each["State"] for each in found}


def pods_on(node: str, count: int) -> dict[str, Any]:
    items = [manifests.pod(f"on-{node}-{number}", node) for number in range(count)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def names(found: dict[str, Any]) -> list[str]:
    return [each["metadata"]["name"] for each in found["items"]]


def test_nodes_with_different_names_share_an_engine(
    make_vkubelet: MakeVkubelet, cluster: Cluster, kubectl: Kubectl, docker_engine: DockerEngine
) -> None:
    with make_vkubelet("docker", "left") as left, make_vkubelet("docker", "right"):
        on_left, on_right = pods_on("left", 3), pods_on("right", 3)
        kubectl.apply(on_left)
        kubectl.apply(on_right)
        pods.wait_ready(kubectl, *names(on_left), *names(on_right))
        of_right = containers_of(docker_engine, cluster, "right")
        assert len(containers_of(docker_engine, cluster, "left")) == len(of_right) == 6

        left.kill()
        left.start()
        left.wait_ready()
        kubectl.run("delete", "pod", *names(on_left), "--timeout=60s", timeout_s=90)
        wait_until(
            lambda: not containers_of(docker_engine, cluster, "left"),
            timeout_s=30,
            describe="the containers of the one node to go",
        )
        assert containers_of(docker_engine, cluster, "right") == of_right
        assert set(of_right.values()) == {"running"}
        for pod in pods.wait_ready(kubectl, *names(on_right)):
            assert pods.container_status(pod)["restartCount"] == 0


def test_nodes_of_the_same_name_in_two_clusters_share_an_engine(
    make_cluster: Callable[[], Cluster],
    make_vkubelet: MakeVkubelet,
    cluster: Cluster,
    kubectl: Kubectl,
    docker_engine: DockerEngine,
) -> None:
    other = make_cluster()
    elsewhere = other.kubectl.within("default")
    elsewhere.wait_until("serviceaccount", "default", lambda found: found is not None)
    with make_vkubelet("docker", "twin") as here, other.vkubelet("docker", "twin") as there:
        kubectl.apply(pods_on("twin", 1))
        elsewhere.apply(pods_on("twin", 1))
        [mine] = pods.wait_ready(kubectl, "on-twin-0")
        [theirs] = pods.wait_ready(elsewhere, "on-twin-0")
        assert mine["status"]["podIP"] != theirs["status"]["podIP"]
        for vkubelet in (here, there):
            vkubelet.restart()
            vkubelet.wait_ready()
        kubectl.run("delete", "pod", "on-twin-0", "--timeout=30s")
        assert not containers_of(docker_engine, cluster, "twin")
        assert set(containers_of(docker_engine, other, "twin").values()) == {"running"}
        after = elsewhere.get("pod", "on-twin-0")
        assert pods.container_status(after) == pods.container_status(theirs)
        elsewhere.run("delete", "pod", "on-twin-0", "--timeout=30s")
