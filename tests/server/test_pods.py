from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from tests.builders import make_pod, observed, observed_pod, terminated
from tests.server.kubelet import Files, Pods, serving
from vkubelet.errors import StreamError
from vkubelet.model.observations import PodObservation
from vkubelet.server.app import Powers
from vkubelet.server.pods import find_container, find_pod


@pytest.mark.parametrize("count", [0, 1, 50, 51, 120])
@pytest.mark.parametrize("path", ["/pods", "/pods/"])
async def test_pods_is_a_list_of_all_pods_with_their_status(files: Files, path: str, count: int) -> None:
    pods = [make_pod(f"web-{number}") for number in range(count)]
    async with (
        serving(files, Powers(pods=Pods(*pods))) as kubelet,
        kubelet.session() as session,
        session.get(path) as response,
    ):
        assert response.content_type == "application/json"
        listed = await response.json()
    assert (listed["kind"], listed["apiVersion"]) == ("PodList", "v1")
    assert listed["items"] == [pod.raw for pod in pods]


async def test_running_pods_are_what_the_provider_runs_whoever_asked_for_it(files: Files) -> None:
    async def list_running() -> Sequence[PodObservation]:
        return [
            observed_pod(make_pod("web"), observed("main"), observed("done", terminated())),
            observed_pod(make_pod("starting")),
            observed_pod(make_pod("over"), observed("main", terminated()), terminated=True),
        ]

    async with serving(files, Powers(pods=Pods(), list_running=list_running)) as kubelet:
        status, text = await kubelet.get("/runningpods/")
    assert status == 200
    main = {"name": "main", "image": "registry.example/app:1.0", "resources": {}}
    assert json.loads(text)["items"] == [
        {
            "metadata": {"name": "web", "namespace": "default", "uid": "uid-web"},
            "spec": {"containers": [main]},
            "status": {},
        },
        {
            "metadata": {"name": "starting", "namespace": "default", "uid": "uid-starting"},
            "spec": {"containers": []},
            "status": {},
        },
    ]


def test_a_pod_is_found_by_its_name_and_where_given_its_uid() -> None:
    pods = Pods(make_pod())
    assert find_pod(pods, "default", "web").name == "web"
    assert find_pod(pods, "default", "web", "uid-web").name == "web"
    with pytest.raises(StreamError, match='pod "web" does not exist') as caught:
        find_pod(pods, "default", "web", "another")
    assert caught.value.status == 404


def test_a_container_that_the_pod_has_not_is_404() -> None:
    assert find_container(make_pod(), "main").name == "main"
    with pytest.raises(StreamError, match='container "x" not found in pod "web"') as caught:
        find_container(make_pod(), "x")
    assert caught.value.status == 404
