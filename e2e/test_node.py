"""The node as the control plane sees it, from its registration to the end of its vkubelet."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Callable
from typing import Any

import pytest

from e2e.harness import manifests, pods
from e2e.harness.cluster import Cluster
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.kubectl import Kubectl
from e2e.harness.vkubelet import Vkubelet, node_condition
from e2e.harness.waiting import wait_until

MakeVkubelet = Callable[..., Vkubelet]


def condition_of(node: Any, condition_type: str) -> Any:
    return next(each for each in node["status"]["conditions"] if each["type"] == condition_type)


def lease_of(cluster: Cluster, name: str) -> Any:
    return cluster.kubectl.within("kube-node-lease").get("lease", name)


# --- what it says -----------------------------------------------------------------------------------------


def test_labels_and_taint_mark_a_virtual_node(vkubelet_docker: Vkubelet) -> None:
    node = vkubelet_docker.node()
    labels = node["metadata"]["labels"]
    assert labels["type"] == "virtual-kubelet"
    assert labels["kubernetes.io/role"] == "agent"
    assert labels["kubernetes.io/hostname"] == vkubelet_docker.node_name
    assert labels["kubernetes.io/os"] == "linux"
    assert labels["kubernetes.io/arch"] == {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    assert {"key": "virtual-kubelet.io/provider", "value": "docker", "effect": "NoSchedule"} in node["spec"][
        "taints"
    ]


def test_capacity_is_what_the_engine_has(vkubelet_docker: Vkubelet, docker_engine: DockerEngine) -> None:
    _, info = docker_engine.request("GET", "/info")
    status = vkubelet_docker.node()["status"]
    assert status["capacity"]["cpu"] == str(info["NCPU"])
    assert status["capacity"]["memory"] == f"{info['MemTotal'] // 1024}Ki"
    assert int(status["capacity"]["pods"]) > 0
    assert set(status["allocatable"]) == set(status["capacity"])


def test_status_says_where_and_what_it_is(vkubelet_docker: Vkubelet) -> None:
    status = vkubelet_docker.node()["status"]
    addresses = {each["type"]: each["address"] for each in status["addresses"]}
    assert addresses == {"InternalIP": vkubelet_docker.node_ip, "Hostname": vkubelet_docker.node_name}
    assert status["daemonEndpoints"]["kubeletEndpoint"]["Port"] == vkubelet_docker.port
    assert status["nodeInfo"]["kubeletVersion"].startswith("v1.36.")
    assert "docker" in status["nodeInfo"]["kubeletVersion"]
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith("docker://")
    assert status["nodeInfo"]["operatingSystem"] == "linux"


def test_conditions_are_those_of_a_kubelet(vkubelet_docker: Vkubelet) -> None:
    node = vkubelet_docker.node()
    ready = condition_of(node, "Ready")
    assert (ready["status"], ready["reason"]) == ("True", "KubeletReady")
    for pressure in ("MemoryPressure", "DiskPressure", "PIDPressure"):
        assert node_condition(node, pressure) == "False", pressure


def test_its_lease_is_renewed(cluster: Cluster, vkubelet_docker: Vkubelet) -> None:
    first = wait_until(
        lambda: lease_of(cluster, vkubelet_docker.node_name), timeout_s=20, describe="the first lease"
    )
    assert first["spec"]["holderIdentity"] == vkubelet_docker.node_name
    assert first["spec"]["leaseDurationSeconds"] == 40
    owner = first["metadata"]["ownerReferences"][0]
    assert owner["uid"] == vkubelet_docker.node()["metadata"]["uid"]

    def renewed() -> bool:
        now = lease_of(cluster, vkubelet_docker.node_name)
        return bool(now["spec"]["renewTime"] > first["spec"]["renewTime"])

    wait_until(renewed, timeout_s=15, describe="the lease to be renewed")


def test_its_status_is_not_written_while_nothing_changes(cluster: Cluster, vkubelet_docker: Vkubelet) -> None:
    """The lease is the heartbeat: with it, the status follows every 5 min."""
    created = datetime.datetime.fromisoformat(vkubelet_docker.node()["metadata"]["creationTimestamp"])
    age_s = (datetime.datetime.now(datetime.UTC) - created).total_seconds()
    requests = cluster.audit.requests("nodes", vkubelet_docker.node_name)
    writes = [each for each in requests if each.user == "vkubelet" and each.subresource == "status"]
    # The first, and room for one or two real changes such as an image that has come to the engine.
    assert len(writes) <= 4 + age_s / 300


# --- what the operator says -------------------------------------------------------------------------------


def test_labels_taints_and_room_are_the_operators(make_vkubelet: MakeVkubelet) -> None:
    arguments = ["--node-labels", "team=storage,tier=gold", "--max-pods", "7"]
    arguments += ["--taint", "dedicated=storage:NoExecute"]
    with make_vkubelet("memory", arguments=arguments) as vkubelet:
        node = vkubelet.node()
        assert (node["metadata"]["labels"]["team"], node["metadata"]["labels"]["tier"]) == ("storage", "gold")
        assert node["status"]["capacity"]["pods"] == "7"
        assert {(each["key"], each["effect"]) for each in node["spec"]["taints"]} == {
            ("dedicated", "NoExecute")
        }


def test_without_a_taint_any_pod_may_come(make_vkubelet: MakeVkubelet, kubectl: Kubectl) -> None:
    with make_vkubelet("memory", arguments=["--disable-taint"]) as vkubelet:
        assert not vkubelet.node()["spec"].get("taints")
        kubectl.apply(manifests.pod("untolerating", vkubelet.node_name, tolerations=[]))
        pods.wait_ready(kubectl, "untolerating")


def test_a_nodes_own_identity_is_enough(make_vkubelet: MakeVkubelet, kubectl: Kubectl) -> None:
    """As a kubelet has it: judged by the Node authorizer and NodeRestriction instead of RBAC."""
    with make_vkubelet("memory", identity="node") as vkubelet:
        labels = vkubelet.node()["metadata"]["labels"]
        assert labels["type"] == "virtual-kubelet"
        kubectl.run("create", "configmap", "settings", "--from-literal=key=value")
        source = [{"configMapRef": {"name": "settings"}}]
        containers = [manifests.container(envFrom=source)]
        kubectl.apply(manifests.pod("on-it", vkubelet.node_name, containers=containers))
        pods.wait_ready(kubectl, "on-it")
        kubectl.run("delete", "pod", "on-it", "--timeout=30s")


def test_a_pod_costs_one_write_up_to_ready(
    cluster: Cluster, vkubelet_memory: Vkubelet, kubectl: Kubectl, namespace: str
) -> None:
    """Where containers start at once; no reads at all, since the watch shows everything."""
    kubectl.apply(manifests.deployment("light", vkubelet_memory.node_name, 5))
    kubectl.run("rollout", "status", "deployment/light", "--timeout=60s", timeout_s=90)
    for pod in kubectl.items("pods"):
        requests = cluster.audit.requests("pods", pod["metadata"]["name"], namespace)
        ours = [(each.verb, each.subresource) for each in requests if each.user == "vkubelet"]
        assert ours == [("patch", "status")]


# --- what others do to it ---------------------------------------------------------------------------------


def test_what_others_wrote_is_kept_over_a_restart(
    make_vkubelet: MakeVkubelet, cluster: Cluster, kubectl: Kubectl
) -> None:
    with make_vkubelet("memory") as vkubelet:
        name = vkubelet.node_name
        before = vkubelet.node()
        kubectl.run("label", "node", name, "owner=somebody-else")
        kubectl.run("annotate", "node", name, "example.com/note=keep me")
        kubectl.run("taint", "node", name, "example.com/mine=true:PreferNoSchedule")
        kubectl.run("cordon", name)
        foreign = {"type": "example.com/DiskHealthy", "status": "True", "reason": "Test", "message": "fine"}
        patch = {"status": {"conditions": [foreign]}}
        kubectl.run("patch", "node", name, "--subresource=status", "--patch", json.dumps(patch))
        vkubelet.stop()
        assert node_condition(vkubelet.node(), "Ready") == "False"
        vkubelet.start()
        vkubelet.wait_ready()
        node = vkubelet.node()
        assert node["metadata"]["uid"] == before["metadata"]["uid"]
        assert node["metadata"]["labels"]["owner"] == "somebody-else"
        assert node["metadata"]["annotations"]["example.com/note"] == "keep me"
        assert node["spec"]["unschedulable"] is True
        keys = {each["key"] for each in node["spec"]["taints"]}
        assert {"example.com/mine", "virtual-kubelet.io/provider"} <= keys
        assert condition_of(node, "example.com/DiskHealthy")["message"] == "fine"


def test_a_label_that_somebody_removed_comes_back(make_vkubelet: MakeVkubelet, kubectl: Kubectl) -> None:
    with make_vkubelet("memory") as vkubelet:
        kubectl.run("label", "node", vkubelet.node_name, "type-")
        vkubelet.restart()
        vkubelet.wait_ready()
        assert vkubelet.node()["metadata"]["labels"]["type"] == "virtual-kubelet"


@pytest.mark.usefixtures("docker_engine")
def test_a_deleted_node_comes_back_and_its_pods_run_on(
    make_vkubelet: MakeVkubelet, cluster: Cluster, kubectl: Kubectl
) -> None:
    with make_vkubelet("docker") as vkubelet:
        kubectl.apply(manifests.pod("survivor", vkubelet.node_name))
        [before] = pods.wait_ready(kubectl, "survivor")
        uid = vkubelet.node()["metadata"]["uid"]
        kubectl.run("delete", "node", vkubelet.node_name)

        def is_back() -> Any:
            node = vkubelet.node()
            fresh = node and node["metadata"]["uid"] != uid and node_condition(node, "Ready") == "True"
            return node if fresh else None

        node = wait_until(is_back, timeout_s=40, describe="the node to be made again")
        assert node["metadata"]["labels"]["type"] == "virtual-kubelet"
        assert node["spec"]["taints"]

        def has_a_lease() -> bool:
            lease = lease_of(cluster, vkubelet.node_name)
            owners = lease["metadata"].get("ownerReferences", []) if lease else []
            return [each["uid"] for each in owners] == [node["metadata"]["uid"]]

        wait_until(has_a_lease, timeout_s=40, describe="a lease that belongs to the new node")
        after = kubectl.get("pod", "survivor")
        assert pods.is_ready(after)
        assert pods.container_status(after) == pods.container_status(before)


# --- its end ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("docker_engine")
def test_before_it_leaves_it_says_so(make_vkubelet: MakeVkubelet, kubectl: Kubectl) -> None:
    vkubelet = make_vkubelet("docker")
    with vkubelet:
        kubectl.apply(manifests.pod("stays", vkubelet.node_name))
        [before] = pods.wait_ready(kubectl, "stays")
        vkubelet.stop(timeout_s=20)
        assert vkubelet.process.exit_code == 0
        ready = condition_of(vkubelet.node(), "Ready")
        assert (ready["status"], ready["reason"]) == ("False", "KubeletNotReady")
        vkubelet.start()
        vkubelet.wait_ready()
        after = kubectl.get("pod", "stays")
        assert pods.container_status(after) == pods.container_status(before)


def test_an_engine_that_does_not_answer_makes_the_node_not_ready(make_vkubelet: MakeVkubelet) -> None:
    vkubelet = make_vkubelet("docker", environment={"DOCKER_HOST": "unix:///nonexistent/docker.sock"})
    vkubelet.start()

    def reported() -> Any:
        node = vkubelet.node()
        return condition_of(node, "Ready") if node_condition(node, "Ready") == "False" else None

    ready = wait_until(reported, timeout_s=40, describe="a node that is not Ready", seen=vkubelet.node)
    assert "/nonexistent/docker.sock" in ready["message"]
    assert vkubelet.process.running
