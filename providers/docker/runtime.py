"""
`ContainerRuntime` over the Docker Engine API.

Each method is a few calls: what is asked for comes from `translate`, what is reported from `status`. Nothing
is remembered that a restart would miss: names make a repeated create meet the container that is there,
labels say whose it is. What is kept in memory only saves calls (states that are final, images' names).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import orjson
import structlog

from providers.docker import (
    attach,
    events,
    exec_command,
    images,
    labels,
    logs,
    node,
    ports,
    status,
    translate,
)
from providers.docker.client import EngineClient, EngineError
from providers.docker.concurrency import gather
from providers.docker.labels import Owner
from providers.docker.oom import OomScores
from providers.docker.settings import DockerSettings, endpoint
from providers.docker.stats import EngineStats
from vkubelet.errors import PodNotFoundError, ProviderError, ProviderUnavailableError
from vkubelet.kuberuntime.contract import (
    ContainerConfig,
    ContainerInfo,
    ContainerRuntime,
    ExecResult,
    Image,
    RegistryCredentials,
    RuntimePod,
    SandboxConfig,
)
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import NodeObservation
from vkubelet.model.stats import NodeStats, PodStats
from vkubelet.provider import ExecIO, LogOptions, PortConnection, ProviderContext

__all__ = ["DockerRuntime"]

log = structlog.get_logger(__name__)

_PARALLEL_INSPECTS = 8
_ADOPT_ATTEMPTS = 6
_FIRST_WAIT_S = 0.05
_KEPT_IMAGE_REFS = 256


class DockerRuntime(ContainerRuntime):
    """One engine, for one node."""

    name = "docker"

    def __init__(self, context: ProviderContext, settings: DockerSettings) -> None:
        self._clock = context.clock
        self._host = context.host
        self._max_pods = context.max_pods
        self._settings = settings
        self._owner = Owner(context.node_name, context.cluster_id)
        self._client = EngineClient(endpoint(settings), request_timeout_s=settings.request_timeout_s)
        self._sandbox_image = images.SandboxImage(
            self._client, self._clock, settings.sandbox_images, context.host.node_changed
        )
        self._stats = EngineStats(self._client, self._clock, context.root_dir)
        self._oom = OomScores()
        self._inspecting = asyncio.Semaphore(_PARALLEL_INSPECTS)
        self._final: dict[str, ContainerInfo] = {}
        self._log_places: dict[str, logs.LogPlace] = {}
        self._just_changed: set[str] = set()
        self._image_refs: dict[str, str] = {}
        self._signalled: set[str] = set()
        self._last_node: NodeObservation | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected from entry to exit; the engine need not answer yet."""
        async with self._client.running(), aclosing(self._stats):
            yield

    # --- observing -----------------------------------------------------------------------------------------

    def events(self) -> AsyncIterator[PodKey | None]:
        """The pods that have just changed; None first and after each reconnection."""
        return events.watch_events(self._client, self._clock, self._owner, self._changed)

    def _changed(self, container_id: str) -> None:
        if container_id:
            self._final.pop(container_id, None)
            self._just_changed.add(container_id)
        else:
            self._final.clear()
            self._host.node_changed()

    async def describe_node(self) -> NodeObservation:
        """The engine's machine; Ready is False while the engine does not answer or cannot make sandboxes."""
        try:
            info = await self._client.get("/info")
            problem = await self._sandbox_image.check()
        except ProviderError as error:
            return node.unreachable(self._last_node, str(error))
        local = self._client.endpoint.unix_path is not None
        host = node.host_facts(str(info.get("DockerRootDir") or "/")) if local else node.HostFacts()
        self._last_node = node.describe(info, host, self._settings, self._max_pods, problem)
        return self._last_node

    async def list_pods(self) -> Sequence[RuntimePod]:
        """One list call, and inspections of the containers whose state is not final."""
        summaries = await self._list(None)
        present = {summary["Id"] for summary in summaries}
        self._final = {key: info for key, info in self._final.items() if key in present}
        self._log_places = {key: place for key, place in self._log_places.items() if key in present}
        self._just_changed &= present
        return list((await self._observed(summaries)).values())

    async def pod_status(self, key: PodKey) -> RuntimePod:
        """What there is of one pod."""
        found = await self._observed(await self._list(key))
        return found.get(key) or RuntimePod(key)

    async def _list(
        self, key: PodKey | None, more: Mapping[str, list[str]] | None = None
    ) -> list[dict[str, Any]]:
        filters = orjson.dumps({**labels.pod_filters(self._owner, key), **(more or {})}).decode()
        summaries: list[dict[str, Any]] = await self._client.get(
            "/containers/json", {"all": "1", "filters": filters}
        )
        return summaries

    async def _observed(self, summaries: Sequence[Mapping[str, Any]]) -> dict[PodKey, RuntimePod]:
        wanted = [s for s in summaries if not labels.is_sandbox(s.get("Labels") or {})]
        infos = await gather((self._info(summary) for summary in wanted), "inspect container")
        known = {info.id: info for info in infos if info is not None}
        return status.runtime_pods([await self._up_to_date(summary) for summary in summaries], known)

    async def _up_to_date(self, summary: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        A sandbox's entry of the list, with its state as it is now.

        The engine tells of a container's end before its list shows it, and there is no second event.
        """
        sandbox_id = summary["Id"]
        if sandbox_id not in self._just_changed or not labels.is_sandbox(summary.get("Labels") or {}):
            return summary
        self._just_changed.discard(sandbox_id)  # an event that comes from now on counts anew
        try:
            state = (await self._inspect(sandbox_id)).get("State") or {}
        except PodNotFoundError:
            state = {"Status": "removing"}
        if state.get("Status") != summary.get("State"):
            self._just_changed.add(sandbox_id)
        return {**summary, "State": state.get("Status")}

    async def _info(self, summary: Mapping[str, Any]) -> ContainerInfo | None:
        container_id = summary["Id"]
        if summary.get("State") == "exited" and (known := self._final.get(container_id)) is not None:
            return known
        try:
            async with self._inspecting:
                inspected = await self._inspect(container_id)
        except PodNotFoundError:
            return None
        info = status.container_info(inspected)
        self._log_places[container_id] = logs.log_place(inspected)
        if status.is_final(info):
            self._final[container_id] = info
        return info

    async def _inspect(self, container: str) -> dict[str, Any]:
        inspected: dict[str, Any] = await self._client.get(f"/containers/{container}/json")
        return inspected

    # --- sandboxes -----------------------------------------------------------------------------------------

    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        """Create and start the sandbox of this pod and attempt, or start the one that exists."""
        try:
            return await self._run_sandbox(config, self._oom.allowed(translate.SANDBOX_OOM_SCORE_ADJ))
        except EngineError as error:
            if not self._oom.explains(str(error)):
                raise
        # The engine may not lower the score here. Without it, if that is the reason.
        await self._remove(translate.sandbox_name(config))
        sandbox_id = await self._run_sandbox(config, None)
        self._oom.refuse(translate.SANDBOX_OOM_SCORE_ADJ)
        return sandbox_id

    async def _run_sandbox(self, config: SandboxConfig, oom_score_adj: int | None) -> str:
        try:
            sandbox_id = await self._create_sandbox(config, oom_score_adj)
        except PodNotFoundError:  # the image was there once
            self._sandbox_image.forget()
            sandbox_id = await self._create_sandbox(config, oom_score_adj)
        await self._client.call("POST", f"/containers/{sandbox_id}/start")
        return sandbox_id

    async def _create_sandbox(self, config: SandboxConfig, oom_score_adj: int | None) -> str:
        image = await self._sandbox_image.resolve()
        body = translate.sandbox_body(self._owner, self._settings, config, image, oom_score_adj)
        return await self._create(translate.sandbox_name(config), body)

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """Kill it; the engine gives its network back."""
        await self._kill(sandbox_id)

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """Remove it; not found is success."""
        await self._remove(sandbox_id)

    # --- containers ----------------------------------------------------------------------------------------

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """Create it, or find the one of this attempt."""
        body = translate.container_body(
            self._owner,
            self._settings,
            sandbox_id,
            config,
            sandbox,
            image_ref=await self._image_ref(config.image_id),
            oom_score_adj=await self._oom_score_adj(sandbox_id, config.resources.oom_score_adj),
        )
        return await self._create(translate.container_name(config, sandbox), body)

    async def _oom_score_adj(self, sandbox_id: str, wanted: int | None) -> int | None:
        """What this machine allows; where that is not known, the pod's sandbox shows it."""
        if wanted is not None and wanted < 0 and not self._oom.is_known:
            inspected = await self._inspect(sandbox_id)
            if (inspected.get("HostConfig") or {}).get("OomScoreAdj"):
                self._oom.accept(translate.SANDBOX_OOM_SCORE_ADJ)
            else:
                self._oom.refuse(translate.SANDBOX_OOM_SCORE_ADJ)
        return self._oom.allowed(wanted)

    async def _image_ref(self, image_id: str) -> str:
        if image_id not in self._image_refs:
            image = await images.image_status(self._client, image_id)
            if image is None:
                raise PodNotFoundError(f"no such image: {image_id}")
            self._remember_ref(image)
        return self._image_refs.get(image_id, image_id)

    def _remember_ref(self, image: Image) -> None:
        self._image_refs[image.id] = image.ref
        while len(self._image_refs) > _KEPT_IMAGE_REFS:
            del self._image_refs[next(iter(self._image_refs))]

    async def start_container(self, container_id: str) -> None:
        """Start it unless it runs or has run: a start that is repeated must not run a command twice."""
        inspected = await self._inspect(container_id)
        if status.was_started(inspected.get("State") or {}):
            return
        try:
            await self._client.call("POST", f"/containers/{container_id}/start")
        except EngineError as error:
            score = int((inspected.get("HostConfig") or {}).get("OomScoreAdj") or 0)
            if score < 0 and self._oom.explains(str(error)):
                self._oom.refuse(score)  # the next attempt goes without
            raise

    async def stop_container(self, container_id: str, grace_period_s: float) -> None:
        """
        Stop it; returns when it has stopped.

        Whoever was asked politely is not asked again: a call while another one waits, or after one that was
        cancelled, waits for its own grace period and then kills. The engine itself keeps the time of the
        first, should this process end.
        """
        try:
            if grace_period_s <= 0:
                await self._kill(container_id)
            elif container_id in self._signalled:
                await self._kill_later(container_id, grace_period_s)
            else:
                self._signalled.add(container_id)
                await self._stop(container_id, math.ceil(grace_period_s))
        except ProviderError:
            self._signalled.discard(container_id)
            raise
        self._signalled.discard(container_id)

    async def _stop(self, container_id: str, grace_period_s: int) -> None:
        timeout_s = grace_period_s + self._settings.request_timeout_s
        path, params = f"/containers/{container_id}/stop", {"t": str(grace_period_s)}
        try:
            await self._client.call("POST", path, params, timeout_s=timeout_s)
        except PodNotFoundError:
            return

    async def _kill_later(self, container_id: str, grace_period_s: float) -> None:
        waiting = asyncio.create_task(self._wait_stopped(container_id, grace_period_s), name="wait for stop")
        sleeping = asyncio.create_task(self._clock.sleep(grace_period_s), name="grace period")
        try:
            await asyncio.wait((waiting, sleeping), return_when=asyncio.FIRST_COMPLETED)
            stopped = waiting.done()
            if stopped:
                waiting.result()
        finally:
            waiting.cancel()
            sleeping.cancel()
        if not stopped:
            await self._kill(container_id)

    async def _kill(self, container_id: str) -> None:
        try:
            await self._client.call("POST", f"/containers/{container_id}/kill", {"signal": "SIGKILL"})
        except PodNotFoundError:
            return
        except EngineError as error:
            if error.status != 409 and "is not running" not in str(error):
                raise
            return
        await self._wait_stopped(container_id)

    async def _wait_stopped(self, container_id: str, longest_s: float = 0.0) -> None:
        """Return when it does not run; the engine answers at that moment."""
        timeout_s = longest_s + self._settings.request_timeout_s
        path, params = f"/containers/{container_id}/wait", {"condition": "not-running"}
        try:
            await self._client.call("POST", path, params, timeout_s=timeout_s)
        except PodNotFoundError:
            return

    async def remove_container(self, container_id: str) -> None:
        """Remove it, running or not, with its log and anonymous volumes; not found is success."""
        await self._remove(container_id)
        self._final.pop(container_id, None)
        self._signalled.discard(container_id)

    # --- commands, logs, images ----------------------------------------------------------------------------

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """Run a command to its end."""
        return await exec_command.run_command_sync(
            self._client, self._clock, container_id, command, timeout_s
        )

    async def exec(self, container_id: str, command: Sequence[str], io: ExecIO) -> int:
        """Run a command with the client's streams."""
        return await exec_command.run_command(self._client, self._clock, container_id, command, io)

    async def port_forward(self, sandbox_id: str, port: int) -> PortConnection:
        """Connect to a port in the sandbox's network."""
        network = ports.network_of(await self._inspect(sandbox_id), self._client.endpoint)
        return await ports.connect_port(network, port)

    async def attach(self, container_id: str, io: ExecIO) -> None:
        """Connect a client to the container's own streams."""
        await attach.attach(self._client, self._clock, container_id, io)

    def container_logs(
        self, container_id: str, options: LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """What the container wrote."""
        place = self._log_places.get(container_id)
        return logs.container_logs(self._client, container_id, options, place)

    async def image_status(self, image: str) -> Image | None:
        """The image if it is present."""
        found = await images.image_status(self._client, image)
        if found is not None:
            self._remember_ref(found)
        return found

    async def pull_image(self, image: str, credentials: Sequence[RegistryCredentials]) -> Image:
        """Fetch it."""
        pulled = await images.pull_image(self._client, image, credentials)
        self._remember_ref(pulled)
        return pulled

    # --- statistics ----------------------------------------------------------------------------------------

    async def list_pod_sandbox_stats(self, *, only_cpu_and_memory: bool) -> Sequence[PodStats]:
        """The running ones, without waiting for a second reading."""
        running = await self._list(None, {"status": ["running"]})
        return await self._stats.pods(running, brief=only_cpu_and_memory)

    async def node_stats(self, *, only_cpu_and_memory: bool) -> NodeStats | None:
        """This machine, where the engine runs on it."""
        return await self._stats.node(brief=only_cpu_and_memory)

    # --- single steps --------------------------------------------------------------------------------------

    async def _create(self, name: str, body: Mapping[str, Any]) -> str:
        """
        Create a container, or find the one that has the name already and is ours.

        Raises:
            ProviderError: the name belongs to a container that is not ours.
            ProviderUnavailableError: the name is taken by one that is just coming or going.
        """
        delay_s = _FIRST_WAIT_S
        for _ in range(_ADOPT_ATTEMPTS):
            try:
                return str((await self._client.post("/containers/create", {"name": name}, body=body))["Id"])
            except EngineError as error:
                if error.status != 409:
                    raise
            if (existing := await self._adopted(name, body["Labels"])) is not None:
                return existing
            await self._clock.sleep(delay_s)
            delay_s *= 2
        raise ProviderUnavailableError(f"the container name {name} is in use by one that is being removed")

    async def _adopted(self, name: str, wanted: Mapping[str, str]) -> str | None:
        try:
            inspected = await self._inspect(name)
        except PodNotFoundError:
            return None
        if (inspected.get("State") or {}).get("Status") == "removing":
            return None
        kept = (inspected.get("Config") or {}).get("Labels") or {}
        foreign = [key for key in labels.IDENTITY if kept.get(key) != wanted.get(key)]
        if foreign:
            raise ProviderError(
                f"the container name {name} is in use by a container that is not of this node and pod "
                f"(labels {', '.join(foreign)} differ): remove or rename it"
            )
        return str(inspected["Id"])

    async def _remove(self, container: str) -> None:
        """Remove by name or id; returns when it is gone, also where somebody else is removing it."""
        delay_s = _FIRST_WAIT_S
        for _ in range(_ADOPT_ATTEMPTS):
            try:
                await self._client.call("DELETE", f"/containers/{container}", {"force": "1", "v": "1"})
                return
            except PodNotFoundError:
                return
            except EngineError as error:
                if error.status != 409:
                    raise
            await self._clock.sleep(delay_s)
            delay_s *= 2
        raise ProviderUnavailableError(f"the container {container} is still being removed")
