"""The engine's machine as a node."""

from __future__ import annotations

import pytest

from providers.docker import node
from providers.docker.node import HostFacts
from providers.docker.settings import DockerSettings
from tests.docker.fake_engine import INFO

GIB = 1 << 30
FACTS = HostFacts(100 * GIB, 50 * GIB, 4 * GIB, {"machineID": "m"})


def test_capacity_and_what_is_left_for_pods() -> None:
    settings = DockerSettings(system_reserved_cpu_millicores=500, system_reserved_memory_mib=1024)
    observation = node.describe(INFO, FACTS, settings, 5, "")
    assert observation.capacity == {
        "cpu": "4",
        "memory": f"{8 << 20}Ki",
        "pods": "5",
        "ephemeral-storage": f"{100 << 20}Ki",
    }
    assert observation.allocatable == {
        "cpu": "3500m",
        "memory": f"{7 << 20}Ki",
        "pods": "5",
        "ephemeral-storage": str(90 * GIB),
    }


def test_what_the_node_runs_on() -> None:
    observation = node.describe(INFO, FACTS, DockerSettings(), None, "")
    assert observation.node_info == {
        "operatingSystem": "linux",
        "architecture": "arm64",
        "kernelVersion": "6.1.0",
        "osImage": "Debian",
        "containerRuntimeVersion": "docker://20.10.24",
        "machineID": "m",
    }
    assert observation.capacity["pods"] == "110"
    assert observation.allocatable["cpu"] == "4"


@pytest.mark.parametrize(
    ("facts", "pressed"),
    [
        pytest.param(FACTS, set(), id="plenty"),
        pytest.param(HostFacts(), set(), id="unknown"),
        pytest.param(HostFacts(100, 9, GIB), {("DiskPressure", "KubeletHasDiskPressure")}, id="disk"),
        pytest.param(
            HostFacts(100, 50, 99 << 20), {("MemoryPressure", "KubeletHasInsufficientMemory")}, id="memory"
        ),
    ],
)
def test_pressure_has_the_kubelets_reasons(facts: HostFacts, pressed: set[tuple[str, str]]) -> None:
    conditions = node.describe(INFO, facts, DockerSettings(), None, "").conditions
    assert [c.type for c in conditions] == ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"]
    assert {(c.type, c.reason) for c in conditions[1:] if c.status == "True"} == pressed


def test_a_problem_makes_the_node_not_ready() -> None:
    ready = node.describe(INFO, FACTS, DockerSettings(), None, "no sandbox image").conditions[0]
    assert (ready.status, ready.reason, ready.message) == ("False", "KubeletNotReady", "no sandbox image")


def test_an_engine_that_never_answered_has_nothing() -> None:
    observation = node.unreachable(None, "connection refused")
    assert observation.capacity == {"cpu": "0", "memory": "0", "pods": "0"}
    assert observation.conditions[0].message == "container runtime is down: connection refused"


def test_facts_of_a_machine_that_is_not_this_one_are_unknown() -> None:
    assert node.host_facts("/no/such/directory") == HostFacts()
    assert (node.host_facts("/").disk_total_bytes or 0) > 0
