from __future__ import annotations

from typing import Any

import pytest

from tests.builders import container_json, make_pod
from vkubelet.model import resources
from vkubelet.model.pod import Json
from vkubelet.model.resources import ContainerLimits

GIB = 2**30


def amounts(cpu: str | None = None, memory: str | None = None) -> Json:
    return {name: value for name, value in (("cpu", cpu), ("memory", memory)) if value}


def of(requests: Json, limits: Json) -> Json:
    return {"requests": requests, "limits": limits}


@pytest.mark.parametrize(
    ("containers", "expected"),
    [
        pytest.param([{}], "BestEffort", id="nothing"),
        pytest.param([of(amounts("0"), {})], "BestEffort", id="zero counts as nothing"),
        pytest.param([of({}, {"nvidia.com/gpu": "1"})], "BestEffort", id="other resources do not count"),
        pytest.param([of(amounts("1"), {})], "Burstable", id="request only"),
        pytest.param([of(amounts("1", "1Gi"), amounts("1", "1Gi"))], "Guaranteed", id="all equal"),
        pytest.param(
            [of(amounts("1", "1Gi"), amounts("1000m", "1024Mi"))], "Guaranteed", id="written otherwise"
        ),
        pytest.param([of(amounts("1", "1Gi"), amounts("2", "1Gi"))], "Burstable", id="limit above request"),
        pytest.param([of(amounts("1"), amounts("1"))], "Burstable", id="only cpu"),
        pytest.param(
            [of(amounts("1", "1Gi"), amounts("1", "1Gi")), {}],
            "Burstable",
            id="one of two containers without",
        ),
    ],
)
def test_the_qos_class_follows_from_requests_and_limits(containers: list[Json], expected: str) -> None:
    pod = make_pod(containers=[container_json(f"c{i}", resources=r) for i, r in enumerate(containers)])

    assert resources.qos_class(pod) == expected


def test_init_containers_count_for_the_qos_class_and_pod_level_resources_override_all() -> None:
    guaranteed = of(amounts("1", "1Gi"), amounts("1", "1Gi"))
    with_init = make_pod(
        containers=[container_json(resources=guaranteed)], initContainers=[container_json("prepare")]
    )
    pod_level = make_pod(resources=guaranteed)

    assert resources.qos_class(with_init) == "Burstable"
    assert resources.qos_class(pod_level) == "Guaranteed"


def limits_of(resource_list: Json, **overrides: Any) -> ContainerLimits:
    pod = make_pod(containers=[container_json(resources=resource_list)], status={}, **overrides)
    return resources.container_limits(pod, pod.containers[0], memory_capacity_bytes=4 * GIB)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({}, ContainerLimits(2, None, None, None, 1000), id="nothing"),
        pytest.param(
            of(amounts("500m", "1Gi"), amounts("1", "2Gi")),
            ContainerLimits(512, 100_000, 100_000, 2 * GIB, 750),
            id="burstable",
        ),
        pytest.param(
            of(amounts("2", "1Gi"), amounts("2", "1Gi")),
            ContainerLimits(2048, 200_000, 100_000, GIB, -997),
            id="guaranteed",
        ),
        pytest.param(
            {"limits": amounts("250m")},
            ContainerLimits(256, 25_000, 100_000, None, 999),
            id="shares from the limit where there is no request",
        ),
        pytest.param(
            of(amounts("1m"), amounts("1m")),
            ContainerLimits(2, 1_000, 100_000, None, 999),
            id="smallest shares and quota",
        ),
        pytest.param(
            of(amounts("0", "4Gi"), amounts("0", "8Gi")),
            ContainerLimits(2, None, None, 8 * GIB, 3),
            id="a request of all memory still comes after Guaranteed",
        ),
        pytest.param(
            of(amounts("1000"), {}), ContainerLimits(262_144, None, None, None, 999), id="largest shares"
        ),
    ],
)
def test_limits_are_what_the_kubelet_computes(given: Json, expected: ContainerLimits) -> None:
    assert limits_of(given) == expected


def test_a_node_critical_pod_is_the_last_to_be_killed() -> None:
    assert limits_of({}, priorityClassName="system-node-critical").oom_score_adj == -997


def test_a_sidecar_is_no_likelier_to_be_killed_than_the_container_it_serves() -> None:
    pod = make_pod(
        status={},
        containers=[container_json(resources={"requests": amounts(memory="2Gi")})],
        initContainers=[container_json("proxy", restartPolicy="Always")],
    )

    score = resources.oom_score_adj(pod, pod.init_containers[0], memory_capacity_bytes=4 * GIB)

    assert score == 500
