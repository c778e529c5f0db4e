"""Values that several pods have in common."""

from __future__ import annotations

import copy

import orjson

from tests.builders import container_json, pod_json
from vkubelet.kube import sharing
from vkubelet.kube.pods import PodParser
from vkubelet.kube.sharing import SharedValues


def fresh(name: str) -> dict[str, object]:
    raw = pod_json(name, containers=[container_json(env=[{"name": "A", "value": "b"}])])
    decoded: dict[str, object] = orjson.loads(orjson.dumps(raw))
    return decoded


def test_pods_stay_equal_to_what_they_were() -> None:
    values = SharedValues()
    for name in ("a", "b", "a"):
        raw = fresh(name)
        assert values.share(copy.deepcopy(raw)) == raw


def test_equal_parts_of_two_pods_are_one_object() -> None:
    parse = PodParser()
    one, two = parse(fresh("a")), parse(fresh("b"))
    assert one.spec["tolerations"] is two.spec["tolerations"]
    assert one.spec["nodeName"] is two.spec["nodeName"]
    assert one.status["conditions"][0] is two.status["conditions"][0]
    assert one.containers[0].env[0] is two.containers[0].env[0]
    assert one.name != two.name


def test_the_memory_for_it_is_bounded() -> None:
    values = SharedValues()
    for number in range(3 * sharing._GENERATION):
        values.share({"spec": {"nodeSelector": {"n": number}}})
    assert len(values._young) + len(values._old) <= 2 * sharing._GENERATION


def test_a_value_that_is_met_again_outlives_its_generation() -> None:
    values = SharedValues()
    first = values.share({"spec": {"schedulerName": "".join(["def", "ault"])}})["spec"]["schedulerName"]
    for number in range(sharing._GENERATION + 10):
        values.share({"spec": {"nodeSelector": {"n": number}}})
    again = values.share({"spec": {"schedulerName": "".join(["defa", "ult"])}})["spec"]["schedulerName"]
    assert again is first
