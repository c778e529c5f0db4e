"""``/configz``, ``/flagz`` and ``/statusz``."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from tests.builders import make_pod
from tests.clocks import ManualClock
from tests.server.kubelet import ApiServer, Files, Kubelet, Pods, serving
from tests.settings.cases import load
from vkubelet.model.access import UserInfo
from vkubelet.server.app import Powers
from vkubelet.server.process_info import process_info
from vkubelet.server.zpages import ProcessInfo
from vkubelet.settings import Settings

STARTED = datetime.datetime.fromisoformat("2025-12-31T22:58:57+00:00")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.kubeconfig").write_text(_KUBECONFIG)
    flags = {"node_name": "worker-1", "max_pods": "20", "cluster_dns": "10.0.0.10"}
    return load({**flags})


_KUBECONFIG = """
current-context: here
contexts: [{name: here, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443"}}]
users: [{name: u, user: {token: abc}}]
"""


def powers(info: ProcessInfo) -> Powers:
    return Powers(pods=Pods(make_pod()), process=info)


async def get(kubelet: Kubelet, path: str, accept: str = "") -> tuple[int, str, str]:
    async with kubelet.session() as session, session.get(path, headers={"Accept": accept}) as response:
        return response.status, response.content_type, await response.text()


async def test_configz_shows_the_kubelets_configuration(files: Files, settings: Settings) -> None:
    info = process_info(settings, started_at=STARTED)
    async with serving(files, powers(info)) as kubelet:
        _, _, text = await get(kubelet, "/configz")

    shown = orjson.loads(text)["kubeletconfig"]
    assert shown["kind"] == "KubeletConfiguration"
    assert shown["authentication"]["anonymous"] == {"enabled": False}
    assert shown["authorization"]["mode"] == "Webhook"
    assert shown["syncFrequency"] == "1m0s"
    assert shown["nodeStatusReportFrequency"] == "5m0s"
    assert shown["clusterDNS"] == ["10.0.0.10"]
    assert shown["maxPods"] == 20
    assert "tlsCertFile" not in shown


async def test_flagz_lists_every_option(files: Files, settings: Settings) -> None:
    info = process_info(settings, started_at=STARTED)
    async with serving(files, powers(info)) as kubelet:
        _, content_type, text = await get(kubelet, "/flagz")

    assert content_type == "text/plain"
    assert text.startswith("\nkubelet flagz\nWarning: This endpoint is not meant to be machine parseable")
    assert "\nnode-name=worker-1\n" in text
    assert "\nanonymous-auth=false\n" in text
    assert "\nstartup-timeout=0s\n" in text
    assert "\ntaint=virtual-kubelet.io/provider=memory:NoSchedule\n" in text


async def test_statusz_says_who_this_is_and_how_long_it_has_run(files: Files) -> None:
    info = ProcessInfo("0.1.0", "1.36", STARTED)
    async with serving(files, powers(info), clock=ManualClock()) as kubelet:
        _, _, text = await get(kubelet, "/statusz")

    assert "Started: Wed Dec 31 22:58:57 UTC 2025\n" in text
    assert "Up: 1 hr 01 min 03 sec\n" in text
    assert "Binary version: 0.1.0\nEmulation version: 1.36\n" in text
    paths = text.partition("Paths: ")[2].split()
    assert {"/configz", "/exec", "/healthz", "/metrics", "/pods", "/stats", "/statusz"} <= set(paths)
    assert paths == sorted(paths)


@pytest.mark.parametrize(
    ("media_type", "decode"), [("application/json", orjson.loads), ("application/yaml", yaml.safe_load)]
)
@pytest.mark.parametrize(("path", "kind"), [("/statusz", "Statusz"), ("/flagz", "Flagz")])
async def test_the_versioned_object_is_given_to_those_who_ask_for_it(
    files: Files, path: str, kind: str, media_type: str, decode: Callable[[str], Any]
) -> None:
    info = ProcessInfo("0.1.0", "1.36", STARTED, flags={"port": "10250"})
    accept = f"{media_type};as={kind};v=v1beta1;g=config.k8s.io"
    async with serving(files, powers(info), clock=ManualClock()) as kubelet:
        status, content_type, text = await get(kubelet, path, accept)

    shown = decode(text)
    assert (status, content_type) == (200, media_type)
    assert (shown["kind"], shown["apiVersion"]) == (kind, "config.k8s.io/v1beta1")
    assert shown["metadata"] == {"name": "kubelet"}
    assert shown.get("uptimeSeconds", 3663) == 3663
    assert shown.get("flags", {"port": "10250"}) == {"port": "10250"}


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 200),
        ("*/*", 200),
        ("text/plain", 200),
        ("application/json", 406),
        ("application/json;as=Flagz;v=v1beta1;g=config.k8s.io", 406),
        ("application/json;as=Statusz;v=v9;g=config.k8s.io", 406),
        ("application/vnd.kubernetes.protobuf", 406),
        ("application/json, text/plain;q=0.5", 200),
    ],
)
async def test_nothing_else_is_acceptable(files: Files, accept: str, status: int) -> None:
    async with serving(files, powers(ProcessInfo("0", "1.36", STARTED)), clock=ManualClock()) as kubelet:
        assert (await get(kubelet, "/statusz", accept))[0] == status


async def test_an_old_version_comes_with_a_warning(files: Files) -> None:
    accept = "application/json;as=Statusz;v=v1alpha1;g=config.k8s.io"
    async with (
        serving(files, powers(ProcessInfo("0", "1.36", STARTED)), clock=ManualClock()) as kubelet,
        kubelet.session() as session,
        session.get("/statusz", headers={"Accept": accept}) as response,
    ):
        assert "deprecated" in response.headers["Warning"]


@pytest.mark.parametrize(
    ("path", "subresource"),
    [
        ("/configz", "configz"),
        ("/flagz", "configz"),
        ("/statusz", "statusz"),
        ("/stats/summary", "stats"),
        ("/metrics", "metrics"),
        ("/metrics/probes", "metrics"),
        ("/logs/", "log"),
    ],
)
async def test_each_is_opened_by_its_own_subresource_alone(files: Files, path: str, subresource: str) -> None:
    tokens = {"reader": UserInfo("reader"), "nobody": UserInfo("nobody")}
    api = ApiServer(tokens=tokens, allowed={("reader", "get", subresource)})
    info = ProcessInfo("0", "1.36", STARTED)
    async with serving(files, powers(info), api=api) as kubelet:
        assert (await kubelet.get(path, "nobody"))[0] == 403
        assert (await kubelet.get(path, "reader"))[0] not in (401, 403)
