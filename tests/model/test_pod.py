from __future__ import annotations

import pytest

from tests.builders import container_json, make_pod, pod_json
from vkubelet.model.pod import ContainerKind, PodPhase, RestartPolicy, parse_pod


def test_a_bare_pod_gets_the_api_servers_defaults() -> None:
    pod = parse_pod(
        {"metadata": {"name": "a", "uid": "u"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    )

    assert (pod.namespace, pod.name, pod.uid) == ("default", "a", "u")
    assert pod.restart_policy is RestartPolicy.ALWAYS
    assert pod.termination_grace_period_s == 30
    assert pod.service_account_name == "default"
    assert pod.enable_service_links
    assert pod.phase is PodPhase.PENDING
    assert pod.status == {}
    assert pod.containers[0].image_pull_policy == "IfNotPresent"


def test_zero_seconds_of_grace_are_not_taken_for_the_default() -> None:
    assert make_pod(terminationGracePeriodSeconds=0).termination_grace_period_s == 0


def test_managed_fields_are_dropped_and_the_rest_is_kept() -> None:
    raw = pod_json(metadata={"managedFields": [{"manager": "kubectl"}]}, fieldOfTheFuture=1)

    pod = parse_pod(raw)

    assert "managedFields" not in pod.raw["metadata"]
    assert pod.spec["fieldOfTheFuture"] == 1


def test_containers_know_their_kind_and_where_they_stand() -> None:
    pod = make_pod(
        initContainers=[container_json("prepare"), container_json("proxy", restartPolicy="Always")],
        containers=[container_json("app", command=["a"], args=["b"], stdin=True)],
        ephemeralContainers=[container_json("debug")],
    )

    assert [(c.name, c.kind, c.index, c.is_sidecar, c.field_path) for c in pod.all_containers()] == [
        ("prepare", ContainerKind.INIT, 0, False, "spec.initContainers{prepare}"),
        ("proxy", ContainerKind.INIT, 1, True, "spec.initContainers{proxy}"),
        ("app", ContainerKind.APP, 0, False, "spec.containers{app}"),
        ("debug", ContainerKind.EPHEMERAL, 0, False, "spec.ephemeralContainers{debug}"),
    ]
    assert pod.container("app") is pod.containers[0]
    assert pod.container("missing") is None


def test_an_app_container_with_a_restart_policy_is_no_sidecar() -> None:
    container = make_pod(containers=[container_json(restartPolicy="Always")]).containers[0]

    assert container.restart_policy is RestartPolicy.ALWAYS
    assert not container.is_sidecar


def test_a_volume_is_known_by_its_source_also_when_that_is_empty() -> None:
    pod = make_pod(
        volumes=[
            {"name": "a", "emptyDir": {}},
            {"name": "b"},
            {"configMap": {"name": "x"}, "name": "c"},
        ]
    )

    assert [(v.name, v.source_type, v.source) for v in pod.volumes] == [
        ("a", "emptyDir", {}),
        ("b", "emptyDir", {}),
        ("c", "configMap", {"name": "x"}),
    ]


@pytest.mark.parametrize(
    ("phase", "terminal"),
    [("Pending", False), ("Running", False), ("Unknown", False), ("Succeeded", True), ("Failed", True)],
)
def test_a_pod_is_terminal_by_its_phase(phase: str, terminal: bool) -> None:
    assert make_pod(status={"phase": phase}).is_terminal is terminal


def test_a_deleted_pod_carries_its_grace_period() -> None:
    pod = make_pod(metadata={"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 0})

    assert pod.is_deleted
    assert pod.deletion_grace_period_s == 0


def test_pull_secrets_without_a_name_are_skipped_as_the_kubelet_does() -> None:
    assert make_pod(imagePullSecrets=[{"name": "r"}, {}, {"name": ""}]).image_pull_secrets == ("r",)


@pytest.mark.parametrize("missing", ["metadata", "spec"])
def test_what_is_not_a_pod_is_refused(missing: str) -> None:
    raw = pod_json()
    del raw[missing]

    with pytest.raises(KeyError):
        parse_pod(raw)


def test_the_security_context_may_be_absent() -> None:
    raw = pod_json()
    del raw["spec"]["securityContext"]

    assert parse_pod(raw).security_context == {}
