"""The runtime's steps over an engine in this process: idempotence, refusals, restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from providers.docker.runtime import DockerRuntime
from providers.docker.settings import DockerSettings
from tests.clocks import ManualClock
from tests.docker.builders import KEY, Host, container, sandbox
from tests.docker.fake_engine import FakeContainer, FakeEngine, RefusedError
from vkubelet.errors import PodNotFoundError, ProviderError, ProviderUnavailableError
from vkubelet.kuberuntime.contract import ContainerStatus, LinuxResources, RegistryCredentials
from vkubelet.provider import ProviderContext


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop run until `condition` holds."""
    async with asyncio.timeout(5):
        while True:
            if condition():
                return
            await asyncio.sleep(0)


async def running_container(runtime: DockerRuntime, engine: FakeEngine) -> FakeContainer:
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    container_id = await runtime.create_container(sandbox_id, container(), sandbox())
    await runtime.start_container(container_id)
    return engine.containers[container_id]


# --- sandboxes --------------------------------------------------------------------------------------------


async def test_a_sandbox_is_made_once(runtime: DockerRuntime, engine: FakeEngine) -> None:
    first = await runtime.run_pod_sandbox(sandbox())
    assert await runtime.run_pod_sandbox(sandbox()) == first
    assert len(engine.containers) == 1
    engine.finish(engine.containers[first])
    assert await runtime.run_pod_sandbox(sandbox()) == first
    assert engine.containers[first].running


async def test_a_sandbox_that_was_created_but_not_started_is_started(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    engine.refuse_next["/start"] = RefusedError(500, "out of luck")
    with pytest.raises(ProviderError, match="out of luck"):
        await runtime.run_pod_sandbox(sandbox())
    await runtime.run_pod_sandbox(sandbox())
    assert engine.named("k8s_POD_").running
    assert len(engine.containers) == 1


async def test_a_sandbox_that_has_just_died_is_not_ready_though_the_list_says_so(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    events = runtime.events()
    assert await anext(events) is None
    died = engine.containers[await runtime.run_pod_sandbox(sandbox())]
    died.listed_as = "running"
    engine.finish(died, 137)
    for _ in ("create", "start", "die"):
        assert await anext(events) == KEY
    for _ in range(2):
        assert [each.ready for each in (await runtime.pod_status(KEY)).sandboxes] == [False]
    died.listed_as = ""
    await runtime.pod_status(KEY)
    inspections = engine.count("GET", f"/{died.id}/json")
    assert [each.ready for each in (await runtime.pod_status(KEY)).sandboxes] == [False]
    assert engine.count("GET", f"/{died.id}/json") == inspections


async def test_a_name_that_belongs_to_somebody_else_is_said(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    engine.containers[sandbox_id].body["Labels"]["vkubelet.io/cluster"] = "another"
    with pytest.raises(ProviderError, match=r"vkubelet\.io/cluster differ"):
        await runtime.run_pod_sandbox(sandbox())


async def test_a_name_whose_container_is_just_going_is_waited_for(
    runtime: DockerRuntime, engine: FakeEngine, clock: ManualClock
) -> None:
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    engine.containers[sandbox_id].status = "removing"
    running = asyncio.create_task(runtime.run_pod_sandbox(sandbox()))
    await until(lambda: clock.next_due_s() is not None)
    del engine.containers[sandbox_id]
    await clock.advance(1)
    assert await running != sandbox_id


async def test_without_negative_oom_scores_sandboxes_run_without(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    engine.oom_scores_work = False
    for attempt in range(2):
        await runtime.run_pod_sandbox(sandbox(attempt=attempt))
    assert [c.starts for c in engine.containers.values()] == [1, 1]
    assert engine.count("DELETE", "") == 1
    sandbox_id = engine.named("_0$").id
    resources = LinuxResources(oom_score_adj=-997)
    container_id = await runtime.create_container(sandbox_id, container(resources=resources), sandbox())
    assert "OomScoreAdj" not in engine.containers[container_id].body["HostConfig"]
    positive = container(name="b", resources=LinuxResources(oom_score_adj=999))
    container_id = await runtime.create_container(sandbox_id, positive, sandbox())
    assert engine.containers[container_id].body["HostConfig"]["OomScoreAdj"] == 999


@pytest.mark.parametrize("works", [True, False])
async def test_after_a_restart_the_sandbox_shows_whether_oom_scores_work(
    runtime: DockerRuntime,
    engine: FakeEngine,
    context: ProviderContext,
    settings: DockerSettings,
    works: bool,
) -> None:
    engine.oom_scores_work = works
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    successor = DockerRuntime(context, settings)
    async with successor.running():
        config = container(resources=LinuxResources(oom_score_adj=-997))
        container_id = await successor.create_container(sandbox_id, config, sandbox())
        await successor.start_container(container_id)
    assert engine.containers[container_id].running
    assert ("OomScoreAdj" in engine.containers[container_id].body["HostConfig"]) == works


# --- containers -------------------------------------------------------------------------------------------


async def test_a_container_is_made_and_started_once(runtime: DockerRuntime, engine: FakeEngine) -> None:
    made = await running_container(runtime, engine)
    again = await runtime.create_container(engine.named("k8s_POD_").id, container(), sandbox())
    assert again == made.id
    await runtime.start_container(made.id)
    engine.finish(made, 3)
    await runtime.start_container(made.id)
    assert made.starts == 1


async def test_a_failed_start_has_the_engines_words_and_is_seen_later(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    container_id = await runtime.create_container(sandbox_id, container(command=("no-such",)), sandbox())
    with pytest.raises(ProviderError, match="executable file not found") as caught:
        await runtime.start_container(container_id)
    assert not isinstance(caught.value, PodNotFoundError)
    (info,) = (await runtime.pod_status(KEY)).containers
    assert (info.status, info.exit_code) == (ContainerStatus.EXITED, 128)


async def test_a_404_that_is_not_about_the_container_is_no_absence(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    container_id = await runtime.create_container(sandbox_id, container(), sandbox())
    engine.refuse_next["/start"] = RefusedError(404, 'exec: "x": executable file not found in $PATH')
    with pytest.raises(ProviderError) as caught:
        await runtime.start_container(container_id)
    assert not isinstance(caught.value, PodNotFoundError)


async def test_an_image_that_has_gone_is_not_found(runtime: DockerRuntime, engine: FakeEngine) -> None:
    sandbox_id = await runtime.run_pod_sandbox(sandbox())
    with pytest.raises(PodNotFoundError):
        await runtime.create_container(sandbox_id, container(image_id="sha256:gone"), sandbox())


async def test_a_sandbox_image_that_was_replaced_is_looked_up_again(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    await runtime.run_pod_sandbox(sandbox())
    engine.images.pop(f"sha256:{1:064x}")
    engine.add_image("vkubelet.local/pause:1", 9)
    await runtime.run_pod_sandbox(sandbox(attempt=1))
    assert engine.named("_1$").body["Image"] == f"sha256:{9:064x}"


async def test_removing_and_stopping_what_is_gone_is_success(runtime: DockerRuntime) -> None:
    for step in (runtime.remove_container, runtime.remove_pod_sandbox, runtime.stop_pod_sandbox):
        await step("gone")
    await runtime.stop_container("gone", 0)
    await runtime.stop_container("gone", 30)


async def test_a_removal_under_way_is_waited_for(
    runtime: DockerRuntime, engine: FakeEngine, clock: ManualClock
) -> None:
    made = await running_container(runtime, engine)
    engine.refuse_next[made.id] = RefusedError(409, f"removal of container {made.id} is already in progress")
    removing = asyncio.create_task(runtime.remove_container(made.id))
    await until(lambda: clock.next_due_s() is not None)
    del engine.containers[made.id]
    await clock.advance(1)
    await removing


# --- stopping ---------------------------------------------------------------------------------------------


async def test_stopping_is_polite_once(runtime: DockerRuntime, engine: FakeEngine) -> None:
    made = await running_container(runtime, engine)
    await runtime.stop_container(made.id, 29.2)
    await runtime.stop_container(made.id, 29.2)
    assert made.signals == ["SIGTERM"]
    assert next(query for _, path, query in engine.requests if path.endswith("/stop")) == {"t": "30"}


async def test_no_grace_is_a_kill(runtime: DockerRuntime, engine: FakeEngine) -> None:
    made = await running_container(runtime, engine)
    await runtime.stop_container(made.id, 0)
    await runtime.stop_container(made.id, 0)
    assert made.signals == ["SIGKILL"]


async def test_a_second_stop_shortens_the_first(
    runtime: DockerRuntime, engine: FakeEngine, clock: ManualClock
) -> None:
    made = await running_container(runtime, engine)
    made.stubborn = True
    first = asyncio.create_task(runtime.stop_container(made.id, 600))
    await until(lambda: made.signals)
    second = asyncio.create_task(runtime.stop_container(made.id, 2))
    await until(lambda: clock.next_due_s() is not None)
    await clock.advance(1.9)
    assert made.signals == ["SIGTERM"]
    await clock.advance(0.2)
    await asyncio.gather(first, second)
    assert made.signals == ["SIGTERM", "SIGKILL"]


async def test_a_stop_after_a_cancelled_one_does_not_ask_again(
    runtime: DockerRuntime, engine: FakeEngine, clock: ManualClock
) -> None:
    made = await running_container(runtime, engine)
    made.stubborn = True
    first = asyncio.create_task(runtime.stop_container(made.id, 600))
    await until(lambda: made.signals)
    first.cancel()
    await asyncio.wait({first})
    second = asyncio.create_task(runtime.stop_container(made.id, 2))
    await until(lambda: clock.next_due_s() is not None)
    await clock.advance(3)
    await second
    assert made.signals == ["SIGTERM", "SIGKILL"]


async def test_a_stop_that_failed_is_tried_politely_again(runtime: DockerRuntime, engine: FakeEngine) -> None:
    made = await running_container(runtime, engine)
    engine.refuse_next["/stop"] = RefusedError(500, "try again")
    with pytest.raises(ProviderError, match="try again"):
        await runtime.stop_container(made.id, 10)
    await runtime.stop_container(made.id, 10)
    assert made.signals == ["SIGTERM"]


async def test_a_second_stop_returns_when_the_first_succeeds(
    runtime: DockerRuntime, engine: FakeEngine, clock: ManualClock
) -> None:
    made = await running_container(runtime, engine)
    made.stubborn = True
    first = asyncio.create_task(runtime.stop_container(made.id, 600))
    await until(lambda: made.signals)
    second = asyncio.create_task(runtime.stop_container(made.id, 20))
    await until(lambda: engine.count("POST", "/wait"))
    engine.finish(made, 0)
    await asyncio.gather(first, second)
    assert made.signals == ["SIGTERM"]


# --- observing --------------------------------------------------------------------------------------------


async def test_what_has_ended_is_inspected_once(runtime: DockerRuntime, engine: FakeEngine) -> None:
    made = await running_container(runtime, engine)
    engine.finish(made, 7)
    first = await runtime.list_pods()
    before = engine.count("GET", f"{made.id}/json")
    assert await runtime.list_pods() == first
    assert await runtime.pod_status(KEY) == first[0]
    assert engine.count("GET", f"{made.id}/json") == before
    assert first[0].containers[0].exit_code == 7


async def test_other_nodes_pods_are_not_listed(
    runtime: DockerRuntime, engine: FakeEngine, context: ProviderContext, settings: DockerSettings
) -> None:
    await running_container(runtime, engine)
    for other in (replace(context, node_name="node-2"), replace(context, cluster_id="cluster-2")):
        stranger = DockerRuntime(other, settings)
        async with stranger.running():
            assert await stranger.list_pods() == []


async def test_a_successor_sees_what_its_predecessor_made(
    runtime: DockerRuntime, engine: FakeEngine, context: ProviderContext, settings: DockerSettings
) -> None:
    made = await running_container(runtime, engine)
    successor = DockerRuntime(context, settings)
    async with successor.running():
        (pod,) = await successor.list_pods()
        assert pod == (await runtime.list_pods())[0]
        assert await successor.run_pod_sandbox(sandbox()) == pod.sandboxes[0].id
        assert await successor.create_container(pod.sandboxes[0].id, container(), sandbox()) == made.id
    assert len(engine.containers) == 2


async def test_listing_fails_as_a_whole(runtime: DockerRuntime, engine: FakeEngine) -> None:
    made = await running_container(runtime, engine)
    engine.refuse_next[f"{made.id}/json"] = RefusedError(500, "database is locked")
    with pytest.raises(ProviderError, match="database is locked"):
        await runtime.list_pods()


async def test_a_container_that_goes_during_the_listing_is_left_out(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    made = await running_container(runtime, engine)
    engine.refuse_next[f"{made.id}/json"] = RefusedError(404, f"No such container: {made.id}")
    (pod,) = await runtime.list_pods()
    assert pod.containers == ()
    assert len(pod.sandboxes) == 1


# --- the engine comes and goes ----------------------------------------------------------------------------


async def test_an_engine_that_does_not_answer_is_unavailable(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    assert (await runtime.describe_node()).conditions[0].status == "True"
    await engine.stop()
    with pytest.raises(ProviderUnavailableError, match=r"docker\.sock"):
        await runtime.list_pods()
    node = await runtime.describe_node()
    assert node.conditions[0].status == "False"
    assert node.capacity["cpu"] == "4"
    await engine.start()
    assert (await runtime.describe_node()).conditions[0].status == "True"


@pytest.mark.parametrize(("theirs", "used"), [("1.41", "1.41"), ("1.44", "1.44")])
async def test_the_version_is_negotiated(
    runtime: DockerRuntime, engine: FakeEngine, theirs: str, used: str
) -> None:
    engine.api_version = theirs
    await runtime.list_pods()
    assert engine.count("GET", f"/v{used}/containers/json") == 1


async def test_an_old_engine_is_refused_by_name(runtime: DockerRuntime, engine: FakeEngine) -> None:
    engine.api_version = "1.40"
    with pytest.raises(ProviderUnavailableError, match=r"1\.40.*20\.10"):
        await runtime.list_pods()


async def test_events_name_pods_and_a_gap_is_announced(
    runtime: DockerRuntime, engine: FakeEngine, clock: ManualClock, host: Host
) -> None:
    events = runtime.events()
    assert await anext(events) is None
    await runtime.run_pod_sandbox(sandbox())
    assert [await anext(events), await anext(events)] == [KEY, KEY]
    changes = host.node_changes
    await engine.stop()
    waiting = asyncio.ensure_future(anext(events))
    await until(lambda: clock.next_due_s() is not None)
    assert host.node_changes == changes + 1
    await clock.advance(5)
    assert not waiting.done()
    await engine.start()
    await clock.advance(60)
    async with asyncio.timeout(5):
        assert await waiting is None
    await events.aclose()  # type: ignore[attr-defined]  # it is a generator


# --- images -----------------------------------------------------------------------------------------------


async def test_an_image_has_its_digest_and_user(runtime: DockerRuntime) -> None:
    image = await runtime.image_status("app:1")
    assert image is not None
    assert (image.ref, image.user) == ("registry.example/app@sha256:abc", "1000")
    assert await runtime.image_status("nothing:1") is None


async def test_the_reference_of_the_image_stays_with_the_container(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    await running_container(runtime, engine)
    (info,) = (await runtime.pod_status(KEY)).containers
    assert info.image_ref == "registry.example/app@sha256:abc"


async def test_pulling_tries_each_credential_and_then_none(
    runtime: DockerRuntime, engine: FakeEngine
) -> None:
    engine.pull_refusal = RefusedError(404, "pull access denied for new, repository does not exist")
    credentials = [RegistryCredentials("a", "1"), RegistryCredentials("b", "2")]
    with pytest.raises(ProviderError, match="pull access denied") as caught:
        await runtime.pull_image("new", credentials)
    assert not isinstance(caught.value, PodNotFoundError)
    assert [bool(auth) for auth in engine.pull_auths] == [True, True, False]
    pulls = [query for _, path, query in engine.requests if path.endswith("/images/create")]
    assert pulls[0] == {"fromImage": "new", "tag": "latest"}


async def test_a_pull_that_fails_midway_fails(runtime: DockerRuntime, engine: FakeEngine) -> None:
    engine.pull_answer = [{"status": "Pulling"}, {"error": "no space left on device", "errorDetail": {}}]
    with pytest.raises(ProviderError, match="no space left"):
        await runtime.pull_image("new:1", ())


async def test_a_pulled_image_is_given(runtime: DockerRuntime, engine: FakeEngine) -> None:
    engine.pull_answer = [{"status": "Pulling"}]
    engine.pulled = {"Id": "sha256:new", "RepoTags": ["new:1"], "Config": {}}
    assert (await runtime.pull_image("new:1", ())).id == "sha256:new"


async def test_a_missing_sandbox_image_is_pulled_once_a_minute_and_told(
    runtime: DockerRuntime, engine: FakeEngine, clock: ManualClock, host: Host
) -> None:
    engine.images.clear()
    engine.pull_refusal = RefusedError(500, "no such host")
    for _ in range(3):
        with pytest.raises(ProviderError, match=r"registry\.k8s\.io/pause.*no such host.*sandboxImage"):
            await runtime.run_pod_sandbox(sandbox())
    assert engine.count("POST", "/images/create") == 1
    assert host.node_changes == 1
    ready = (await runtime.describe_node()).conditions[0]
    assert (ready.status, "sandboxImage" in ready.message) == ("False", True)
    await clock.advance(61)
    engine.pull_refusal = None
    engine.pulled = {"Id": "sha256:p", "RepoTags": ["registry.k8s.io/pause:3.10.2"], "Config": {}}
    await runtime.run_pod_sandbox(sandbox())
    assert (await runtime.describe_node()).conditions[0].status == "True"
