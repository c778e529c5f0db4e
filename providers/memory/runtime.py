"""
A container runtime without containers.

State is one immutable `RuntimePod` for each pod, replaced at each change, so reading it costs nothing and a
reader never sees half a change. It lives in the process; tests hand the same runtime to a second engine to
restart the first. Events are only sent for what containers do by themselves: whoever calls a method knows
what it did, and the contract lets a runtime leave out what its caller has just been told.

Streams are `streams`'s, what containers do is `behaviour`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager

from providers.memory import node, ports, stats, streams
from providers.memory.behaviour import ENDLESS, Behaviour, behaviour_of
from providers.memory.script import FOREVER, parse_script
from providers.memory.settings import MemorySettings
from vkubelet.clock import Clock, Timer
from vkubelet.errors import PodNotFoundError, ProviderError, StreamError
from vkubelet.kuberuntime.contract import (
    ContainerConfig,
    ContainerInfo,
    ContainerRuntime,
    ContainerStatus,
    ExecResult,
    Image,
    RegistryCredentials,
    RuntimePod,
    SandboxConfig,
    SandboxInfo,
)
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import NodeObservation
from vkubelet.model.stats import NodeStats, PodStats
from vkubelet.provider import ExecIO, LogOptions, PortConnection

__all__ = ["MemoryRuntime"]

Hook = Callable[[str, str], Awaitable[None]]
"""Awaited with a method's name and "before" or "after"; may raise what the runtime should raise."""

Connect = Callable[[str, int], Awaitable[PortConnection]]
"""(sandbox id, port) to what is behind the port."""

_ABSENT = "does-not-exist"
_SIGTERM_EXIT_CODE = 0
_SIGKILL_EXIT_CODE = 137


class MemoryRuntime(ContainerRuntime):
    """
    Attributes for tests, beside the contract's.

    Attributes:
        hook: called around each change, to inject errors, delays and crashes.
        script: decides what a container does, by default `behaviour.behaviour_of`.
        connect: what answers on the pods' ports; an echo on all of them.
        absent_images: must be pulled before they are there.
        broken_images: image names whose pull fails, with the registry's words.
    """

    name = "memory"
    uses_host_paths = False

    def __init__(self, settings: MemorySettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._started_at = clock.now()
        self._pods: dict[PodKey, RuntimePod] = {}
        self._owners: dict[str, PodKey] = {}
        self._behaviours: dict[str, Behaviour] = {}
        self._timers: dict[str, Timer] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._ids = itertools.count(1)
        self._addresses = node.addresses(settings)
        self._changed: dict[PodKey | None, None] = {}
        self._wake = asyncio.Event()
        self.hook: Hook | None = None
        self.script: Callable[[ContainerConfig, SandboxConfig], Behaviour] = behaviour_of
        self.connect: Connect = ports.echo
        self.absent_images: set[str] = set()
        self.broken_images: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Nothing to connect to."""
        yield

    async def events(self) -> AsyncIterator[PodKey | None]:
        """Pods whose containers ended by themselves, or that a test changed."""
        while True:
            while self._changed:
                key = next(iter(self._changed))
                del self._changed[key]
                yield key
            self._wake.clear()
            await self._wake.wait()

    async def describe_node(self) -> NodeObservation:
        """The configured capacity, always healthy."""
        return node.describe(self._settings)

    async def node_stats(self, *, only_cpu_and_memory: bool) -> NodeStats:
        """The configured capacity; it uses what its pods use."""
        return stats.node_stats(self._started_at, cpu=self._settings.cpu, memory=self._settings.memory)

    async def list_pod_sandbox_stats(self, *, only_cpu_and_memory: bool) -> Sequence[PodStats]:
        """What each container's behaviour says that it uses."""
        await self._pass("list_pod_sandbox_stats", "before")
        return stats.pod_stats(
            self._pods.values(),
            lambda container_id: self._behaviours.get(container_id, ENDLESS),
            self._clock.now(),
            only_cpu_and_memory=only_cpu_and_memory,
        )

    # --- pods -----------------------------------------------------------------------------------------

    async def list_pods(self) -> Sequence[RuntimePod]:
        """All of them."""
        await self._pass("list_pods", "before")
        return tuple(self._pods.values())

    async def pod_status(self, key: PodKey) -> RuntimePod:
        """What there is of it."""
        if self.hook is not None:
            await self.hook("pod_status", "before")
        return self._pods.get(key) or RuntimePod(key)

    async def run_pod_sandbox(self, config: SandboxConfig) -> str:
        """A sandbox with an address, at once."""
        await self._pass("run_pod_sandbox", "before")
        pod = self._pods.get(config.key) or RuntimePod(config.key)
        sandbox = next((s for s in pod.sandboxes if s.attempt == config.attempt), None)
        if sandbox is None or not sandbox.ready:
            ips = () if config.host_network else (next(self._addresses),)
            sandbox_id = sandbox.id if sandbox is not None else self._new_id(config.key)
            others = tuple(s for s in pod.sandboxes if s.id != sandbox_id)
            sandbox = SandboxInfo(sandbox_id, config.attempt, True, self._clock.now(), ips)
            self._pods[config.key] = RuntimePod(config.key, (sandbox, *others), pod.containers)
        await self._pass("run_pod_sandbox", "after")
        return sandbox.id

    async def stop_pod_sandbox(self, sandbox_id: str) -> None:
        """It gives its address back."""
        await self._pass("stop_pod_sandbox", "before")
        self._stop_sandbox(sandbox_id)
        await self._pass("stop_pod_sandbox", "after")

    async def remove_pod_sandbox(self, sandbox_id: str) -> None:
        """It is gone."""
        await self._pass("remove_pod_sandbox", "before")
        key = self._owners.pop(sandbox_id, None)
        pod = self._pods.get(key) if key is not None else None
        if key is not None and pod is not None:
            self._keep(key, tuple(s for s in pod.sandboxes if s.id != sandbox_id), pod.containers)
        await self._pass("remove_pod_sandbox", "after")

    # --- containers -----------------------------------------------------------------------------------

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        """A container that waits to be started."""
        await self._pass("create_container", "before")
        key = self._owner(sandbox_id)
        pod = self._pods[key]
        for info in pod.containers:
            if info.name == config.name and info.attempt == config.attempt:
                return info.id
        container_id = self._new_id(key)
        behaviour = self.script(config, sandbox)
        if behaviour is not ENDLESS:
            self._behaviours[container_id] = behaviour
        info = ContainerInfo(
            id=container_id,
            container_id=f"memory://{container_id}",
            sandbox_id=sandbox_id,
            name=config.name,
            kind=config.kind,
            attempt=config.attempt,
            status=ContainerStatus.CREATED,
            image=config.image,
            image_ref=config.image_id,
            spec_hash=config.spec_hash,
            created_at=self._clock.now(),
            annotations=config.annotations,
        )
        self._pods[key] = RuntimePod(key, pod.sandboxes, (info, *pod.containers))
        await self._pass("create_container", "after")
        return container_id

    async def start_container(self, container_id: str) -> None:
        """It runs, or has run already, by its behaviour."""
        await self._pass("start_container", "before")
        info = self._container(container_id)
        if info.status is ContainerStatus.CREATED:
            self._start(info, self._behaviours.get(container_id, ENDLESS))
        await self._pass("start_container", "after")

    async def stop_container(self, container_id: str, grace_period_s: float) -> None:
        """At once, or at the end of the grace period where it ignores SIGTERM."""
        await self._pass("stop_container", "before")
        info = self._container(container_id)
        if info.status is ContainerStatus.RUNNING:
            if self._behaviours.get(container_id, ENDLESS).ignores_term:
                await self._until_killed(info, grace_period_s)
            else:
                self._end(info, _SIGTERM_EXIT_CODE)
        await self._pass("stop_container", "after")

    async def remove_container(self, container_id: str) -> None:
        """It is gone."""
        await self._pass("remove_container", "before")
        self._remove(container_id)
        await self._pass("remove_container", "after")

    # --- streams --------------------------------------------------------------------------------------

    async def exec_sync(self, container_id: str, command: Sequence[str], timeout_s: float) -> ExecResult:
        """The outcome that `script.parse_script` foresees."""
        self._container(container_id)
        script = parse_script(command, hostname=self._owner(container_id).name)
        if not script.is_known:
            return ExecResult(127, stderr=streams.not_found(command))
        if script.run_s > timeout_s:
            await self._clock.sleep(timeout_s)
            raise TimeoutError(f"{' '.join(command)} did not end within {timeout_s} s")
        await self._clock.sleep(script.run_s)
        return ExecResult(script.exit_code, script.output)

    async def exec(self, container_id: str, command: Sequence[str], io: ExecIO) -> int:
        """The outcome that `script.parse_script` foresees, written to `io`."""
        info = self._container(container_id)
        if info.status is not ContainerStatus.RUNNING:
            raise StreamError(f'container not found ("{info.name}")', status=500)
        script = parse_script(command, hostname=self._owner(container_id).name)
        return await streams.run(script, command, io, self._clock)

    async def port_forward(self, sandbox_id: str, port: int) -> PortConnection:
        """An echo, unless a test has put something else behind the port."""
        self._owner(sandbox_id)
        return await self.connect(sandbox_id, port)

    async def attach(self, container_id: str, io: ExecIO) -> None:
        """Echo for a container that does, silence for the others, until it ends."""
        info = self._container(container_id)
        if info.status is not ContainerStatus.RUNNING:
            raise StreamError(f"container {info.name} is not running", status=500)
        behaviour = self._behaviours.get(container_id, ENDLESS)
        try:
            await streams.attach(io, self._end_of(container_id), behaviour)
        finally:
            if behaviour.ends_with_stdin and io.stdin is not None and container_id in self._owners:
                self._end_by_itself(container_id, behaviour)

    def container_logs(
        self, container_id: str, options: LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """What it wrote when it started, or a line that says that nothing runs here."""
        info = self._container(container_id)
        output = self._behaviours.get(container_id, ENDLESS).output
        if not output:
            output = f"{info.name}: no process runs in the memory provider\n".encode()
        if info.started_at is None:
            output = b""
        ended = None if info.status is not ContainerStatus.RUNNING else self._end_of(container_id)
        return streams.log(output, info.started_at or info.created_at, options, ended)

    # --- images ---------------------------------------------------------------------------------------

    async def image_status(self, image: str) -> Image | None:
        """Every image is present, except the broken and the absent ones."""
        if self.hook is not None:
            await self.hook("image_status", "before")
        if image in self.absent_images or image in self.broken_images or _ABSENT in image:
            return None
        return Image(image, image)

    async def pull_image(self, image: str, credentials: Sequence[RegistryCredentials]) -> Image:
        """Present from now on, unless it is broken."""
        await self._pass("pull_image", "before")
        if image in self.broken_images or _ABSENT in image:
            reason = self.broken_images.get(image, "not found")
            raise ProviderError(f'failed to resolve reference "{image}": {reason}')
        self.absent_images.discard(image)
        await self._pass("pull_image", "after")
        return Image(image, image)

    # --- for tests and demos --------------------------------------------------------------------------

    def pods(self) -> tuple[RuntimePod, ...]:
        """Everything there is."""
        return tuple(self._pods.values())

    def live_container(self, key: PodKey, name: str) -> ContainerInfo:
        """The running attempt of a container; raises `LookupError` when there is none."""
        for info in self._pods[key].containers:
            if info.name == name and info.status is ContainerStatus.RUNNING:
                return info
        raise LookupError(f"{key}: container {name} is not running")

    def end_container(self, key: PodKey, name: str, exit_code: int = 0, *, oom_killed: bool = False) -> None:
        """A running container ends by itself."""
        self._end(self.live_container(key, name), exit_code, oom_killed=oom_killed)

    def lose_container(self, container_id: str) -> None:
        """A container vanishes, as by ``docker rm -f``."""
        key = self._owners.get(container_id)
        self._remove(container_id)
        self._notify(key)

    def lose_sandbox(self, key: PodKey, *, remove: bool = False) -> None:
        """The newest sandbox stops by itself, and with it all containers; or it vanishes altogether."""
        pod = self._pods[key]
        for info in pod.containers:
            if info.status is ContainerStatus.RUNNING:
                self._end(info, _SIGKILL_EXIT_CODE)
        sandbox = pod.sandboxes[0]
        self._stop_sandbox(sandbox.id)
        if remove:
            self._keep(key, pod.sandboxes[1:], self._pods[key].containers)
        self._notify(key)

    # --- changes --------------------------------------------------------------------------------------

    async def _pass(self, method: str, moment: str) -> None:
        if self.hook is not None:
            await self.hook(method, moment)

    def _new_id(self, key: PodKey) -> str:
        new_id = f"{next(self._ids):012x}"
        self._owners[new_id] = key
        return new_id

    def _owner(self, some_id: str) -> PodKey:
        key = self._owners.get(some_id)
        if key is None:
            raise PodNotFoundError(f"no such container or sandbox: {some_id}")
        return key

    def _container(self, container_id: str) -> ContainerInfo:
        pod = self._pods[self._owner(container_id)]
        for info in pod.containers:
            if info.id == container_id:
                return info
        raise PodNotFoundError(f"no such container: {container_id}")

    def _start(self, info: ContainerInfo, behaviour: Behaviour) -> None:
        if behaviour.start_error:
            now = self._clock.now()
            self._replace(
                info,
                status=ContainerStatus.EXITED,
                error=behaviour.start_error,
                exit_code=127,
                finished_at=now,
            )
            raise ProviderError(behaviour.start_error)
        started = self._replace(info, status=ContainerStatus.RUNNING, started_at=self._clock.now())
        if behaviour.run_s <= 0:
            self._end(started, behaviour.exit_code, oom_killed=behaviour.oom_killed)
        elif behaviour.run_s != FOREVER:
            self._timers[info.id] = self._clock.call_later(
                behaviour.run_s, lambda: self._end_by_itself(info.id, behaviour)
            )

    def _end_by_itself(self, container_id: str, behaviour: Behaviour) -> None:
        info = self._container(container_id)
        if info.status is ContainerStatus.RUNNING:
            self._end(info, behaviour.exit_code, oom_killed=behaviour.oom_killed)

    def _end(self, info: ContainerInfo, exit_code: int, *, oom_killed: bool = False) -> None:
        self._cancel_timer(info.id)
        self._replace(
            info,
            status=ContainerStatus.EXITED,
            exit_code=exit_code,
            oom_killed=oom_killed,
            finished_at=self._clock.now(),
        )
        if (ended := self._ended.pop(info.id, None)) is not None:
            ended.set()
        self._notify(self._owners[info.id])

    async def _until_killed(self, info: ContainerInfo, grace_period_s: float) -> None:
        ended = self._end_of(info.id)
        kill = self._clock.call_later(grace_period_s, lambda: self._kill(info.id))
        try:
            await ended.wait()
        finally:
            kill.cancel()

    def _kill(self, container_id: str) -> None:
        info = self._container(container_id)
        if info.status is ContainerStatus.RUNNING:
            self._end(info, _SIGKILL_EXIT_CODE)

    def _end_of(self, container_id: str) -> asyncio.Event:
        return self._ended.setdefault(container_id, asyncio.Event())

    def _remove(self, container_id: str) -> None:
        key = self._owners.pop(container_id, None)
        if key is None:
            return
        self._cancel_timer(container_id)
        self._behaviours.pop(container_id, None)
        if (ended := self._ended.pop(container_id, None)) is not None:
            ended.set()
        pod = self._pods[key]
        self._keep(key, pod.sandboxes, tuple(c for c in pod.containers if c.id != container_id))

    def _stop_sandbox(self, sandbox_id: str) -> None:
        key = self._owners.get(sandbox_id)
        if key is None:
            return
        pod = self._pods[key]
        stopped = tuple(
            dataclasses.replace(s, ready=False, ips=()) if s.id == sandbox_id else s for s in pod.sandboxes
        )
        self._pods[key] = RuntimePod(key, stopped, pod.containers)

    def _replace(self, info: ContainerInfo, **changes: object) -> ContainerInfo:
        key = self._owners[info.id]
        pod = self._pods[key]
        changed: ContainerInfo = dataclasses.replace(info, **changes)  # type: ignore[arg-type]  # our own fields
        containers = tuple(changed if c.id == info.id else c for c in pod.containers)
        self._pods[key] = RuntimePod(key, pod.sandboxes, containers)
        return changed

    def _keep(
        self, key: PodKey, sandboxes: tuple[SandboxInfo, ...], containers: tuple[ContainerInfo, ...]
    ) -> None:
        if sandboxes or containers:
            self._pods[key] = RuntimePod(key, sandboxes, containers)
        else:
            self._pods.pop(key, None)

    def _cancel_timer(self, container_id: str) -> None:
        if (timer := self._timers.pop(container_id, None)) is not None:
            timer.cancel()

    def _notify(self, key: PodKey | None) -> None:
        self._changed[key] = None
        self._wake.set()
