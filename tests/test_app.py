"""A whole node in this process, over HTTP: how its parts start together, and how they stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.builders import pod_json
from tests.controllers.fake_provider import FakeProvider, Platform
from tests.fake_api_server import FakeApiServer
from vkubelet import app
from vkubelet.errors import ApiUnavailableError, ConfigurationError, ProviderUnavailableError
from vkubelet.kube.pods import pod_key
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodObservation
from vkubelet.model.pod import Json
from vkubelet.provider import Provider, ProviderContext
from vkubelet.settings import load_settings

NAME = "node-1"


class _Installed:
    """An entry point whose provider stands over the test's platform."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform

    def load(self) -> Callable[[ProviderContext], Provider]:
        return lambda context: FakeProvider(self._platform, context.host)


class Node:
    """What a test starts, stops and looks at."""

    def __init__(self, server: FakeApiServer, platform: Platform, directory: Path) -> None:
        self.server = server
        self.platform = platform
        self._directory = directory
        self._kubeconfig = server.kubeconfig(directory)
        server.objects.create("services", {"metadata": {"name": "kubernetes"}, "spec": {}})

    async def run(self, **flags: str) -> None:
        """``vkubelet run``."""
        given = {
            "kubeconfig": str(self._kubeconfig),
            "provider": "memory",
            "node_name": NAME,
            "node_ip": "127.0.0.1",
            "address": "127.0.0.1",
            "port": "0",
            "root_dir": str(self._directory / "root"),
            **flags,
        }
        await app.run(load_settings(given, {}))

    @asynccontextmanager
    async def running(self, **flags: str) -> AsyncIterator[asyncio.Task[None]]:
        """Run it, until it is Ready; at the end it gets SIGTERM and has to leave."""
        task = asyncio.create_task(self.run(**flags))
        await self.until(lambda: task.done() or self.ready() == "True")
        if task.done():
            await task
        try:
            yield task
        finally:
            if not task.done():
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.wait_for(task, 10)

    async def until(self, condition: Callable[[], bool]) -> None:
        await self.server.wait_for(condition, timeout_s=10)

    def ready(self) -> str:
        """The status of the node's Ready condition, "" before there is one."""
        node = self.server.objects.find("nodes", NAME) or {"status": {}}
        conditions: list[Json] = node["status"].get("conditions") or []
        return next((c["status"] for c in conditions if c["type"] == "Ready"), "")

    def create(self, name: str = "web") -> PodKey:
        return pod_key(self.server.objects.create("pods", pod_json(name)))

    def phase(self, name: str = "web") -> str:
        found = self.server.objects.find("pods", name) or {"status": {}}
        return str(found["status"].get("phase", ""))


@pytest.fixture(autouse=True)
def _quick_and_quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(app, "STARTUP_RETRY_S", 0.02)
    with capture_logs():
        yield


@pytest.fixture
def node(api_server: FakeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    platform = Platform()
    monkeypatch.setattr(app, "installed_providers", lambda: {"memory": _Installed(platform)})
    return Node(api_server, platform, tmp_path)


async def test_a_node_takes_pods_and_lets_them_go(node: Node) -> None:
    async with node.running():
        key = node.create()
        await node.until(lambda: node.phase() == "Running")
        assert node.server.objects.get("pods", "web")["status"]["hostIP"] == "127.0.0.1"
        await node.until(lambda: node.server.objects.find("leases", NAME, "kube-node-lease") is not None)
        lease = node.server.objects.get("leases", NAME, "kube-node-lease")
        uid = node.server.objects.get("nodes", NAME)["metadata"]["uid"]
        assert lease["metadata"]["ownerReferences"][0]["uid"] == uid

        node.server.objects.delete("pods", "web")
        await node.until(lambda: node.server.objects.find("pods", "web") is None)
        assert key not in node.platform.pods
        assert len(node.server.requests_to("PATCH", "/pods/web/status")) == 2


async def test_the_memory_provider_is_found_and_runs_pods(api_server: FakeApiServer, tmp_path: Path) -> None:
    node = Node(api_server, Platform(), tmp_path)
    async with node.running():
        node.create()
        await node.until(lambda: node.phase() == "Running")
        await node.until(lambda: bool(api_server.objects.list("events")))


async def test_before_the_node_takes_pods_its_parts_are_there(node: Node) -> None:
    async with node.running(tls_self_signed="true"):
        order = [f"{r.verb} {r.path}" for r in node.server.requests]
        registered = order.index("POST /api/v1/nodes")
        assert order.index("GET /api/v1/pods") < registered
        assert order.index("GET /api/v1/services") < registered
        endpoint = node.server.objects.get("nodes", NAME)["status"]["daemonEndpoints"]["kubeletEndpoint"]
        with socket.create_connection(("127.0.0.1", endpoint["Port"]), timeout=2):
            pass


async def test_on_sigterm_the_node_says_so_and_its_pods_go_on_running(node: Node) -> None:
    async with node.running():
        node.create()
        await node.until(lambda: node.phase() == "Running")
    ready = node.server.objects.get("nodes", NAME)["status"]["conditions"][0]

    assert (ready["type"], ready["status"], ready["message"]) == ("Ready", "False", app.SHUTDOWN_MESSAGE)
    assert node.phase() == "Running"
    assert node.platform.methods()[-1] == "create_pod"
    assert node.server.requests_to("DELETE") == []
    assert node.server.objects.find("nodes", NAME) is not None


async def test_what_was_begun_before_sigterm_is_finished(node: Node) -> None:
    gate = node.server.hold("PATCH", "/pods/web/status")
    async with node.running() as task:
        node.create()
        await node.until(lambda: bool(node.server.requests_to("PATCH", "/pods/web/status")))
        os.kill(os.getpid(), signal.SIGTERM)
        await node.until(lambda: node.ready() == "False")
        assert not task.done()
        gate.set()
        await asyncio.wait_for(asyncio.shield(task), 5)

    assert node.phase() == "Running"


async def test_what_does_not_end_does_not_keep_it_from_leaving(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "DRAIN_S", 0.1)
    node.platform.hold("create_pod")
    async with node.running():
        node.create()
        await node.until(lambda: "create_pod" in node.platform.methods())

    assert node.ready() == "False"


async def test_the_next_one_adopts_what_runs_and_removes_what_is_not_wanted_any_more(node: Node) -> None:
    async with node.running():
        kept, unwanted = node.create("kept"), node.create("unwanted")
        await node.until(lambda: node.phase("kept") == node.phase("unwanted") == "Running")
    node.server.objects.delete("pods", "unwanted", grace_period_s=0)
    before = node.server.objects.get("pods", "kept")

    async with node.running():
        await node.until(lambda: unwanted not in node.platform.pods)
        await node.until(lambda: node.platform.methods(kept).count("create_pod") == 2)
        assert node.server.objects.get("pods", "kept")["status"] == before["status"]
        assert list(node.platform.pods) == [kept]


async def test_a_platform_that_cannot_list_is_asked_until_it_can(node: Node) -> None:
    orphan = PodKey("default", "orphan", "uid")
    async with node.running():
        node.create("known")
        await node.until(lambda: node.phase("known") == "Running")
    (known,) = node.platform.pods
    node.platform.pods[orphan] = PodObservation(orphan)
    node.platform.fail("list_pods", *[ProviderUnavailableError("away")] * 3)
    async with node.running():
        await node.until(lambda: orphan not in node.platform.pods)
    assert known in node.platform.pods


async def test_an_api_server_that_is_not_up_yet_is_waited_for(node: Node) -> None:
    node.server.fail(503, times=5)
    async with node.running():
        assert node.ready() == "True"


async def test_it_does_not_wait_longer_than_it_was_told_to(node: Node) -> None:
    node.server.fail(503, times=10_000)
    with pytest.raises(ApiUnavailableError):
        await asyncio.wait_for(node.run(startup_timeout_s="100ms"), 5)


async def test_it_can_be_stopped_while_it_waits(node: Node) -> None:
    node.server.fail(503, times=10_000)
    task = asyncio.create_task(node.run())
    await node.until(lambda: len(node.server.requests) > 2)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, 5)

    assert node.server.requests_to("POST", "/nodes") == []


async def test_credentials_that_are_not_accepted_end_it_at_once(node: Node) -> None:
    node.server.accepted_token = "another"
    with pytest.raises(ConfigurationError, match="kubeconfig"):
        await node.run()


async def test_containers_of_another_operating_system_are_not_promised(node: Node) -> None:
    mistake = pytest.RaisesExc(
        ConfigurationError, match="--os: the fake provider runs linux containers, not Windows"
    )
    with pytest.RaisesGroup(mistake, flatten_subgroups=True):
        await node.run(os="Windows")
    assert node.server.objects.list("nodes") == []


async def test_a_taken_port_ends_it_before_anything_is_changed_in_the_cluster(node: Node) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match="--port"),
    ):
        await node.run(port=str(taken.getsockname()[1]))

    assert node.server.objects.list("nodes") == []


async def test_an_api_server_that_restarts_is_met_again(node: Node) -> None:
    async with node.running():
        node.create("first")
        await node.until(lambda: node.phase("first") == "Running")
        node.server.fail(500, times=2)
        node.server.cut_watches()
        node.create("second")
        await node.until(lambda: node.phase("second") == "Running")
