"""Patches, against a reference of how the API server applies them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kube import strategic_merge
from vkubelet.kube import patches
from vkubelet.model.pod import Json
from vkubelet.model.status import OWNED_CONDITION_TYPES, OWNED_FIELDS

OWNED = sorted(OWNED_CONDITION_TYPES)
FOREIGN = ["example.com/gate", "DisruptionTarget"]

texts = st.sampled_from(["", "a", "b"])
times = st.sampled_from(["2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"])
ips = st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"])


def conditions(types: list[str]) -> st.SearchStrategy[list[Json]]:
    entry = st.fixed_dictionaries(
        {
            "status": st.sampled_from(["True", "False"]),
            "lastProbeTime": st.none(),
            "lastTransitionTime": times,
        },
        optional={"reason": texts, "message": texts, "observedGeneration": st.integers(1, 3)},
    )
    lists = st.dictionaries(st.sampled_from(types), entry)
    return lists.map(lambda found: [{"type": kind, **fields} for kind, fields in found.items()])


containers = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b"]),
            "restartCount": st.integers(0, 2),
            "ready": st.booleans(),
            "state": st.sampled_from([{"running": {"startedAt": "x"}}, {"waiting": {"reason": "y"}}, {}]),
        },
        optional={"lastState": st.just({}), "started": st.booleans()},
    ),
    max_size=2,
)


def pod_statuses(types: list[str]) -> st.SearchStrategy[Json]:
    fields: dict[str, st.SearchStrategy[Any]] = {
        "phase": st.sampled_from(["Pending", "Running", "Failed"]),
        "reason": texts,
        "message": texts,
        "startTime": times,
        "podIP": ips,
        "podIPs": st.lists(ips.map(lambda ip: {"ip": ip}), unique_by=str, max_size=2),
        "hostIPs": st.lists(ips.map(lambda ip: {"ip": ip}), unique_by=str, max_size=2),
        "observedGeneration": st.integers(1, 3),
        "containerStatuses": containers,
        "conditions": conditions(types),
    }
    return st.fixed_dictionaries({}, optional=fields)


def normal(value: Any) -> Any:
    """Without what the API server takes for absent."""
    if isinstance(value, dict):
        return {k: n for k, v in value.items() if (n := normal(v)) not in (None, "", [], {})}
    return [normal(v) for v in value] if isinstance(value, list) else value


def by_type(status: Json, types: list[str]) -> dict[str, Json]:
    return {c["type"]: normal(c) for c in status.get("conditions") or () if c["type"] in types}


def with_generations(new: Json, old: Json) -> Json:
    """`new`, with the observed generations of `old` where it has none: the API server keeps them."""
    before = by_type(old, OWNED)
    kept = {"observedGeneration": old["observedGeneration"]} if "observedGeneration" in old else {}
    found: Json = {**kept, **new, "conditions": []}
    for condition in new.get("conditions") or ():
        previous = before.get(condition["type"], {})
        kept = {k: previous[k] for k in ("observedGeneration",) if k in previous}
        found["conditions"].append({**kept, **condition})
    return found


@given(old=pod_statuses(OWNED + FOREIGN), new=pod_statuses(OWNED), resize=st.booleans())
def test_a_status_patch_makes_the_owned_fields_what_they_should_be_and_keeps_the_rest(
    old: Json, new: Json, resize: bool
) -> None:
    if resize:
        old["resize"] = "InProgress"
    patch = patches.status_patch("uid-1", old, new, OWNED_CONDITION_TYPES)
    result = (
        old
        if patch is None
        else strategic_merge.apply({"status": old}, {"status": patch["status"]})["status"]
    )
    new = with_generations(new, old)
    for field in OWNED_FIELDS:
        if field != "conditions":
            assert normal(result.get(field) or None) == normal(new.get(field) or None)
    assert by_type(result, OWNED) == by_type(new, OWNED)
    assert by_type(result, FOREIGN) == by_type(old, FOREIGN)
    assert result.get("resize") == old.get("resize")


@given(old=pod_statuses(OWNED + FOREIGN), new=pod_statuses(OWNED))
def test_a_status_that_was_patched_needs_no_second_patch(old: Json, new: Json) -> None:
    patch = patches.status_patch("uid-1", old, new, OWNED_CONDITION_TYPES)
    if patch is not None:
        old = strategic_merge.apply({"status": old}, {"status": patch["status"]})["status"]
    assert patches.status_patch("uid-1", old, new, OWNED_CONDITION_TYPES) is None


def condition(kind: str = "Ready", status: str = "True", **fields: Any) -> Json:
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": "t", **fields}


@pytest.mark.parametrize(
    ("old", "new", "changes"),
    [
        pytest.param({"phase": "Running"}, {"phase": "Running"}, None, id="the-same"),
        pytest.param(
            {"podIPs": [{"ip": "1"}]},
            {"podIPs": [{"ip": "2"}, {"ip": "1"}]},
            {"podIPs": [{"ip": "2"}, {"ip": "1"}, {"$patch": "replace"}]},
            id="addresses-keep-their-order",
        ),
        pytest.param({}, {"podIPs": [{"ip": "1"}]}, {"podIPs": [{"ip": "1"}]}, id="first-address"),
        pytest.param({"podIPs": [{"ip": "1"}]}, {}, {"podIPs": None}, id="addresses-gone"),
        pytest.param({"reason": "Evicted"}, {}, {"reason": None}, id="scalar-removed"),
        pytest.param(
            {"observedGeneration": 2, "qosClass": "Burstable"}, {}, None, id="what-the-server-keeps"
        ),
        pytest.param(
            {"conditions": [condition(), condition("PodScheduled")]},
            {"conditions": [condition(status="False", reason="R"), condition("PodScheduled")]},
            {"conditions": [{"type": "Ready", "status": "False", "reason": "R"}]},
            id="only-what-changed-of-a-condition",
        ),
        pytest.param(
            {"conditions": [condition(reason="R", message="M")]},
            {"conditions": [condition()]},
            {"conditions": [{"type": "Ready", "reason": None, "message": None}]},
            id="fields-of-a-condition-removed",
        ),
        pytest.param(
            {"conditions": [condition(), condition("example.com/x")]},
            {"conditions": []},
            {"conditions": [{"$patch": "delete", "type": "Ready"}]},
            id="condition-removed-anothers-kept",
        ),
        pytest.param(
            {"containerStatuses": [{"name": "a", "ready": False, "lastState": {}}]},
            {"containerStatuses": [{"name": "a", "ready": False}]},
            None,
            id="fields-that-the-server-fills-in",
        ),
        pytest.param(
            {"containerStatuses": [{"name": "a", "ready": False}]},
            {"containerStatuses": [{"name": "a", "ready": False, "started": False}]},
            {"containerStatuses": [{"name": "a", "ready": False, "started": False}]},
            id="false-is-a-value",
        ),
    ],
)
def test_a_status_patch_is_the_smallest(old: Json, new: Json, changes: Json | None) -> None:
    expected = None if changes is None else {"metadata": {"uid": "u"}, "status": changes}
    assert patches.status_patch("u", old, new, OWNED_CONDITION_TYPES) == expected


def test_no_patch_carries_a_resource_version() -> None:
    patch = patches.status_patch("u", {}, {"phase": "Running"}, OWNED_CONDITION_TYPES)
    assert patch is not None
    assert patch["metadata"] == {"uid": "u"}


# --- nodes

NODE = {
    "capacity": {"cpu": "2", "memory": "1Gi", "example.com/dongle": "4"},
    "conditions": [condition("Ready"), condition("KernelDeadlock", "False")],
    "addresses": [{"type": "InternalIP", "address": "1"}, {"type": "InternalIP", "address": "2"}],
    "nodeInfo": {"kubeletVersion": "v1", "swap": {"capacity": 1}},
    "images": [{"names": ["a"]}],
    "config": {"error": "x"},
}


@pytest.mark.parametrize(
    ("new", "last", "changes"),
    [
        pytest.param({"capacity": {"cpu": "2", "memory": "1024Mi"}}, None, None, id="same-quantities"),
        pytest.param(
            {"capacity": {"cpu": "3"}}, None, {"capacity": {"cpu": "3"}}, id="others-resources-stay"
        ),
        pytest.param(
            {"capacity": {"cpu": "2"}},
            {"capacity": {"cpu": "2", "memory": "1Gi"}},
            {"capacity": {"memory": None}},
            id="own-resource-goes",
        ),
        pytest.param(
            {"conditions": [condition("Ready", lastHeartbeatTime="2")]},
            None,
            {"conditions": [{"type": "Ready", "lastHeartbeatTime": "2"}]},
            id="heartbeat",
        ),
        pytest.param(
            {"conditions": []},
            {"conditions": [condition("Ready")]},
            {"conditions": [{"$patch": "delete", "type": "Ready"}]},
            id="own-condition-goes",
        ),
        pytest.param(
            {"addresses": [{"type": "InternalIP", "address": "2"}]},
            None,
            {"addresses": [{"type": "InternalIP", "address": "2"}, {"$patch": "replace"}]},
            id="addresses-of-one-type",
        ),
        pytest.param({"nodeInfo": {"kubeletVersion": "v1"}}, None, None, id="unknown-node-info-stays"),
        pytest.param(
            {"nodeInfo": {"kubeletVersion": "v2"}},
            None,
            {"nodeInfo": {"kubeletVersion": "v2"}},
            id="node-info",
        ),
        pytest.param({}, {"images": [{"names": ["a"]}]}, {"images": None}, id="own-list-goes"),
        pytest.param({}, None, None, id="nothing-of-ours"),
    ],
)
def test_a_node_status_patch_speaks_of_ours_alone(new: Json, last: Json | None, changes: Json | None) -> None:
    assert patches.node_status_patch(NODE, new, last) == (None if changes is None else {"status": changes})


def test_metadata_of_others_is_kept_and_ours_removed() -> None:
    old = {"labels": {"a": "1", "b": "2", "theirs": "3"}, "annotations": {"theirs": "4"}}
    patch = patches.metadata_patch(
        old, labels={"a": "1", "c": "5"}, annotations={"ours": "6"}, last_labels={"a", "b", "never-there"}
    )
    assert patch == {"metadata": {"labels": {"c": "5", "b": None}, "annotations": {"ours": "6"}}}
    assert patches.metadata_patch(old, labels={"a": "1"}) is None


def test_taints_are_added_to_those_of_others_under_a_version() -> None:
    theirs, ours = {"key": "a", "effect": "NoSchedule"}, {"key": "b", "value": "x", "effect": "NoSchedule"}
    node = {"metadata": {"resourceVersion": "7"}, "spec": {"taints": [theirs, {**ours, "value": "old"}]}}
    assert patches.taints_patch(node, [ours]) == {
        "metadata": {"resourceVersion": "7"},
        "spec": {"taints": [theirs, ours]},
    }
    assert patches.taints_patch({**node, "spec": {"taints": [theirs, ours]}}, [ours]) is None
    assert patches.taints_patch({"metadata": {"resourceVersion": "1"}, "spec": {}}, []) is None
