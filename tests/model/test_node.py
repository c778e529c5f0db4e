from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.builders import moment
from vkubelet.model import node
from vkubelet.model.node import NodeIdentity
from vkubelet.model.observations import NodeCondition, NodeObservation
from vkubelet.model.pod import Json


@dataclass(frozen=True)
class Taint:
    key: str
    value: str
    effect: str


IDENTITY = NodeIdentity(
    node_name="vk-1",
    provider="docker",
    version="0.1.0",
    addresses=("192.168.0.10", "fd00::1"),
    port=10250,
    labels={"team": "a"},
    taints=(Taint("virtual-kubelet.io/provider", "docker", "NoSchedule"), Taint("gpu", "", "NoExecute")),
)


def observation(**overrides: Any) -> NodeObservation:
    fields: dict[str, Any] = {
        "capacity": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "allocatable": {"cpu": "3500m", "memory": "7Gi", "pods": "110"},
        "conditions": (
            NodeCondition("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
            NodeCondition(
                "DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"
            ),
        ),
        "node_info": {
            "operatingSystem": "linux",
            "architecture": "amd64",
            "containerRuntimeVersion": "docker://20.10.24",
        },
    }
    return NodeObservation(**{**fields, **overrides})


def test_a_node_is_registered_with_all_that_schedulers_and_clients_look_at() -> None:
    created = node.node_object(
        IDENTITY,
        observation(labels={"topology.kubernetes.io/zone": "z1"}, provider_id="docker://x"),
        now=moment(),
    )

    assert created["metadata"] == {
        "name": "vk-1",
        "labels": {
            "type": "virtual-kubelet",
            "kubernetes.io/role": "agent",
            "kubernetes.io/hostname": "vk-1",
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "node.kubernetes.io/exclude-from-external-load-balancers": "true",
            "topology.kubernetes.io/zone": "z1",
            "team": "a",
        },
        "annotations": {},
    }
    assert created["spec"] == {
        "taints": [
            {"key": "virtual-kubelet.io/provider", "value": "docker", "effect": "NoSchedule"},
            {"key": "gpu", "effect": "NoExecute"},
        ],
        "providerID": "docker://x",
    }
    status = created["status"]
    assert status["capacity"] == {"cpu": "4", "memory": "8Gi", "pods": "110"}
    assert status["allocatable"]["cpu"] == "3500m"
    assert status["addresses"] == [
        {"type": "InternalIP", "address": "192.168.0.10"},
        {"type": "InternalIP", "address": "fd00::1"},
        {"type": "Hostname", "address": "vk-1"},
    ]
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert status["nodeInfo"]["kubeletVersion"] == "v1.36.0-vk-docker-0.1.0"
    assert status["nodeInfo"]["machineID"] == ""
    assert status["conditions"][0] == {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "kubelet is posting ready status",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def test_a_node_without_taints_or_provider_id_has_neither() -> None:
    bare = NodeIdentity("vk-1", "memory", "0.1.0", ("127.0.0.1",), 10250)

    created = node.node_object(bare, observation(node_info={}), now=moment())

    assert created["spec"] == {}
    assert "kubernetes.io/os" not in created["metadata"]["labels"]


def test_a_condition_keeps_its_transition_time_and_renews_its_heartbeat() -> None:
    first = node.node_status(IDENTITY, observation(), current=None, now=moment(0))
    failing = NodeCondition("Ready", "False", "KubeletNotReady", "Docker does not answer")
    pressure = observation().conditions[1]

    second = node.node_status(
        IDENTITY, observation(conditions=(failing, pressure)), current=first, now=moment(60)
    )

    ready, disk = second["conditions"]
    assert ready["lastTransitionTime"] == "2026-01-01T00:01:00Z"
    assert disk["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert disk["lastHeartbeatTime"] == "2026-01-01T00:01:00Z"


def test_conditions_of_others_are_not_spoken_for() -> None:
    current = {"conditions": [{"type": "NetworkUnavailable", "status": "False"}]}

    status = node.node_status(IDENTITY, observation(), current=current, now=moment())

    assert [c["type"] for c in status["conditions"]] == ["Ready", "DiskPressure"]


def test_a_leaving_node_says_that_it_is_not_ready() -> None:
    current = node.node_status(IDENTITY, observation(), current=None, now=moment(0))

    assert node.not_ready_conditions("vkubelet is shutting down", now=moment(60), current=current) == [
        {
            "type": "Ready",
            "status": "False",
            "reason": "KubeletNotReady",
            "message": "vkubelet is shutting down",
            "lastHeartbeatTime": "2026-01-01T00:01:00Z",
            "lastTransitionTime": "2026-01-01T00:01:00Z",
        }
    ]


def change(*path: Any, to: Any) -> Callable[[Json], None]:
    def apply(status: Json) -> None:
        target: Any = status
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("differ", "changed"),
    [
        pytest.param(change("conditions", 0, "lastHeartbeatTime", to="2025"), False, id="heartbeat"),
        pytest.param(change("capacity", "memory", to="8192Mi"), False, id="another way to write it"),
        pytest.param(change("phase", to="Running"), False, id="a field of others"),
        pytest.param(change("nodeInfo", "swap", to={}), False, id="info of others"),
        pytest.param(change("capacity", "cpu", to="2"), True, id="capacity"),
        pytest.param(change("allocatable", to={}), True, id="allocatable"),
        pytest.param(change("conditions", 0, "status", to="False"), True, id="a condition's status"),
        pytest.param(change("conditions", 1, "message", to="x"), True, id="a condition's message"),
        pytest.param(change("conditions", to=[]), True, id="no conditions"),
        pytest.param(change("addresses", to=[]), True, id="addresses"),
        pytest.param(change("nodeInfo", "osImage", to="x"), True, id="node info"),
        pytest.param(change("daemonEndpoints", to={}), True, id="port"),
    ],
)
def test_only_what_matters_is_a_change(differ: Callable[[Json], None], changed: bool) -> None:
    new = node.node_status(IDENTITY, observation(), current=None, now=moment())
    old = copy.deepcopy(new)
    differ(old)

    assert node.status_changed(old, new) is changed


def test_an_empty_status_is_a_change() -> None:
    assert node.status_changed({}, node.node_status(IDENTITY, observation(), current=None, now=moment()))


def test_the_lease_is_the_nodes_and_is_renewed_without_losing_what_others_put_in() -> None:
    lease = node.lease_object("vk-1", "node-uid", now=moment(0.25))

    assert lease["metadata"] == {
        "name": "vk-1",
        "namespace": "kube-node-lease",
        "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "vk-1", "uid": "node-uid"}],
    }
    assert lease["spec"] == {
        "holderIdentity": "vk-1",
        "leaseDurationSeconds": 40,
        "renewTime": "2026-01-01T00:00:00.250000Z",
    }
    present = {**lease, "spec": {"leaseTransitions": 1, "holderIdentity": "other"}}
    renewed = node.renewed_lease(present, "vk-1", now=moment(10))
    assert renewed["spec"] == {
        "leaseTransitions": 1,
        "holderIdentity": "vk-1",
        "leaseDurationSeconds": 40,
        "renewTime": "2026-01-01T00:00:10.000000Z",
    }


@pytest.mark.parametrize(
    ("version", "declared"),
    [
        ((1, 36), ("ExtendWebSocketsToKubelet",)),
        ((1, 37), ("ExtendWebSocketsToKubelet",)),
        ((2, 0), ("ExtendWebSocketsToKubelet",)),
        ((1, 35), ()),
        ((0, 0), ()),
    ],
)
def test_a_feature_is_declared_where_the_api_server_knows_it(
    version: tuple[int, int], declared: tuple[str, ...]
) -> None:
    assert node.declared_features(version) == declared


def test_declared_features_are_told_and_taken_back() -> None:
    declaring = dataclasses.replace(IDENTITY, declared_features=("F",))
    told = node.node_status(declaring, observation(), current=None, now=moment())
    assert told["declaredFeatures"] == ["F"]
    silent = node.node_status(IDENTITY, observation(), current=None, now=moment())
    assert "declaredFeatures" not in silent
    taken_back = node.node_status(IDENTITY, observation(), current=told, now=moment())
    assert taken_back["declaredFeatures"] == []
    assert node.status_changed(told, taken_back)


def test_a_feature_that_the_api_server_drops_is_not_written_again_and_again() -> None:
    declaring = dataclasses.replace(IDENTITY, declared_features=("F",))
    told = node.node_status(declaring, observation(), current=None, now=moment())
    kept = {name: value for name, value in told.items() if name != "declaredFeatures"}
    assert not node.status_changed(kept, told)
