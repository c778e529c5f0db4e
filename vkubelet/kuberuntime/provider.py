"""
A `Provider` made of a `ContainerRuntime`.

Workers exist on demand: an event of the runtime, a timer or a call queues a pod, and a task makes passes over
it until nothing is queued any more. One pass at a time for a pod, different pods in parallel; a pod to which
nothing happens costs its memory and nothing else. A task for each pod was turned down: 5,000 idle tasks
weigh more than the pods.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import structlog
from structlog.contextvars import bind_contextvars

from vkubelet import tracing
from vkubelet.errors import (
    PodNotFoundError,
    ProviderError,
    ProviderUnavailableError,
    UnsupportedFeatureError,
)
from vkubelet.kuberuntime import actions, delays, streams
from vkubelet.kuberuntime.container_starter import ContainerStarter
from vkubelet.kuberuntime.contract import ContainerRuntime, RuntimePod
from vkubelet.kuberuntime.history import is_live, remembered_containers
from vkubelet.kuberuntime.images import ImageManager
from vkubelet.kuberuntime.observe import observe
from vkubelet.kuberuntime.pod_config import NodeFacts
from vkubelet.kuberuntime.pod_memory import Blocked, PodMemory, VolumeState
from vkubelet.kuberuntime.pod_worker import PodWorker
from vkubelet.kuberuntime.stats import PodFigures
from vkubelet.kuberuntime.volumes import VolumeManager
from vkubelet.model import dns, features
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import NodeObservation, PodObservation, Running, Waiting
from vkubelet.model.pod import Pod
from vkubelet.model.references import References
from vkubelet.model.stats import StatsSummary
from vkubelet.provider import ExecIO, LogOptions, PortConnection, Provider, ProviderContext

__all__ = ["KubeRuntimeProvider"]

log = structlog.get_logger(__name__)

_PARALLEL_STARTS = 64
_RESOLV_CONF = Path("/etc/resolv.conf")


class KubeRuntimeProvider(Provider):
    """
    The pod engine over one runtime. Also a `LogSource`, an `ExecRunner` and a `PortForwarder`.

    Args:
        runtime: performs the steps; its name is the provider's.
        context: what the provider was made with.
        supported_fields: fields of a pod that are served; a pod that uses another is refused.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        context: ProviderContext,
        *,
        supported_fields: features.FieldTree = features.KUBERUNTIME_FIELDS,
    ) -> None:
        self.name = runtime.name
        self._runtime = runtime
        self._clock = context.clock
        self._host = context.host
        self._host_network_ips = context.node_ips
        self._supported_fields = supported_fields
        self._memories: dict[PodKey, PodMemory] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_running = False
        self._node = NodeFacts(
            ips=context.node_ips,
            cluster_dns=context.cluster_dns,
            cluster_domain=context.cluster_domain,
        )
        slots = asyncio.Semaphore(_PARALLEL_STARTS)
        pods_dir = context.root_dir / "pods"
        self._volumes = VolumeManager(pods_dir, lambda: self._node, uses_paths=runtime.uses_host_paths)
        self._figures = PodFigures(pods_dir, context.clock, uses_paths=runtime.uses_host_paths)
        self._images = ImageManager(
            runtime, context.host, context.clock, spawn=self._spawn, pull_ended=self._pull_ended
        )
        starter = ContainerStarter(runtime, context, self._images, self._volumes, lambda: self._node, slots)
        self._worker = PodWorker(
            runtime,
            context,
            starter,
            self._volumes,
            spawn=self._spawn,
            wake=self._wake,
            slots=slots,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connected to the runtime and following its events; on exit all tasks end, and no container."""
        async with self._runtime.running():
            self._is_running = True
            await self.describe_node()
            self._node = dataclasses.replace(self._node, host_dns=self._host_dns())
            events = self._spawn(self._follow_events(), "runtime events")
            for key in self._memories:
                self._wake(key)
            try:
                yield
            finally:
                self._is_running = False
                events.cancel()
                await self._figures.close()
                await self._end_tasks()

    # --- Provider -------------------------------------------------------------------------------------

    async def create_pod(self, pod: Pod, references: References) -> None:
        """Take it on, or adopt what there is of it already."""
        if unsupported := features.unsupported_fields(pod.raw, self._supported_fields):
            raise UnsupportedFeatureError(unsupported, provider=self.name)
        memory = self._memories.get(pod.key)
        if memory is None:
            memory = self._remember(PodMemory(pod.key, start_time=self._clock.now()))
            memory.remembered = remembered_containers(pod)
        self._want(memory, pod, references)

    async def update_pod(self, pod: Pod, references: References) -> None:
        """What is wanted has changed."""
        memory = self._memories.get(pod.key)
        if memory is None or memory.pod is None:
            raise PodNotFoundError(f"pod {pod.key} is not known")
        self._want(memory, pod, references)

    async def terminate_pod(self, key: PodKey, grace_period_s: float) -> None:
        """Stop it; also a pod that only the runtime knows."""
        memory = self._memories.get(key)
        if memory is None:
            status = await self._runtime.pod_status(key)
            if not status.sandboxes and not status.containers:
                raise PodNotFoundError(f"{self.name} has nothing of pod {key}")
            memory = self._memories.get(key) or self._remember(PodMemory(key))
        memory.stop_no_later_than(self._clock.now() + datetime.timedelta(seconds=grace_period_s))
        self._wake(key)

    async def delete_pod(self, key: PodKey) -> None:
        """Remove containers, sandboxes and files; nothing of the pod is touched at the same time."""
        memory = self._memories.get(key) or PodMemory(key)
        memory.is_closed = True
        try:
            await self._quiet(memory)
            await self._remove(key)
        except BaseException:
            memory.is_closed = False
            raise
        self._images.forget(key)
        self._memories.pop(key, None)

    async def list_pods(self) -> Sequence[PodObservation]:
        """What the runtime has, and what was taken on and has not reached it yet."""
        statuses = {status.key: status for status in await self._runtime.list_pods()}
        keys = dict.fromkeys((*statuses, *self._memories))
        return [self._observe(key, statuses.get(key) or RuntimePod(key)) for key in keys]

    async def describe_node(self) -> NodeObservation:
        """The runtime's answer; what pods need to know of it is kept."""
        node = await self._runtime.describe_node()
        self._node = dataclasses.replace(
            self._node,
            allocatable=node.allocatable,
            memory_bytes=NodeFacts.memory_of(node.capacity),
        )
        return node

    # --- LogSource, ExecRunner, Attacher, PortForwarder -----------------------------------------------

    def container_logs(
        self, key: PodKey, container: str, options: LogOptions
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The log of the present attempt, or of the one before it."""
        return streams.container_logs(self._runtime, self._observation, key, container, options)

    async def exec(self, key: PodKey, container: str, command: Sequence[str], io: ExecIO) -> int:
        """Run a command in the running attempt."""
        container_id = await streams.running_container(self._runtime, self._observation, key, container)
        return await self._runtime.exec(container_id, command, io)

    async def attach(self, key: PodKey, container: str, io: ExecIO) -> None:
        """Connect to the streams of the running attempt."""
        container_id = await streams.running_container(self._runtime, self._observation, key, container)
        await self._runtime.attach(container_id, io)

    async def is_running(self, key: PodKey, container: str) -> bool:
        """By the last pass over the pod; a container that was not running then is looked at again."""
        seen = self._observation(key)
        if seen is not None and any(
            c.name == container and isinstance(c.state, Running) for c in seen.containers
        ):
            return True
        return await streams.is_running(self._runtime, key, container)

    async def connect_port(self, key: PodKey, port: int) -> PortConnection:
        """Connect to a port of the pod's present sandbox."""
        sandbox_id = await streams.ready_sandbox(self._runtime, key)
        return await self._runtime.port_forward(sandbox_id, port)

    async def stats_summary(self, *, only_cpu_and_memory: bool = False) -> StatsSummary:
        """What the runtime reads, summed up by pod."""
        read = await self._runtime.list_pod_sandbox_stats(only_cpu_and_memory=only_cpu_and_memory)
        node = await self._runtime.node_stats(only_cpu_and_memory=only_cpu_and_memory)
        pods = {key: memory.pod for key, memory in self._memories.items() if memory.pod is not None}
        return self._figures.summary(read, node, pods, only_cpu_and_memory=only_cpu_and_memory)

    def _observation(self, key: PodKey) -> PodObservation | None:
        memory = self._memories.get(key)
        return memory.observation if memory is not None else None

    # --- what is wanted -------------------------------------------------------------------------------

    def _remember(self, memory: PodMemory) -> PodMemory:
        self._memories[memory.key] = memory
        return memory

    def _want(self, memory: PodMemory, pod: Pod, references: References) -> None:
        if references != memory.references:
            memory.blocked = {n: b for n, b in memory.blocked.items() if not b.needs_references}
        if memory.pod is not None:
            images = {c.name: c.image for c in memory.pod.all_containers()}
            for container in pod.all_containers():
                if images.get(container.name) != container.image:
                    memory.blocked.pop(container.name, None)
        self._block_unsupported(memory, pod)
        memory.pod, memory.references = pod, references
        memory.volumes = VolumeState(ready=not pod.volumes, error=memory.volumes.error)
        self._wake(pod.key)

    def _block_unsupported(self, memory: PodMemory, pod: Pod) -> None:
        """An ephemeral container that asks for what is not served is not started; the pod goes on."""
        unsupported = features.unsupported_ephemeral_fields(pod.raw, self._supported_fields)
        for name, fields in unsupported.items():
            if name not in memory.blocked:
                message = str(UnsupportedFeatureError(fields, provider=self.name))
                memory.blocked[name] = Blocked(Waiting("CreateContainerConfigError", message), retry_at=None)
                self._host.record_event(pod.key, "Warning", "Failed", f"Error: {message}", name)

    def _observe(self, key: PodKey, status: RuntimePod) -> PodObservation:
        now = self._clock.now()
        memory = self._memories.get(key) or PodMemory(key)
        plan = actions.next_actions(memory, status, now)
        return observe(memory, status, plan, now, host_network_ips=self._host_network_ips)

    # --- workers --------------------------------------------------------------------------------------

    def _wake(self, key: PodKey) -> None:
        """Queue a pass; nothing for a pod that is unknown or being deleted."""
        memory = self._memories.get(key)
        if memory is None or memory.is_closed:
            return
        memory.is_dirty = True
        if memory.task is None and self._is_running:
            memory.task = self._spawn(self._work(memory), f"pod {key.namespace}/{key.name}")

    async def _work(self, memory: PodMemory) -> None:
        """Passes over one pod, until nothing has happened since the last one began."""
        key = memory.key
        bind_contextvars(namespace=key.namespace, pod=key.name, uid=key.uid)
        try:
            while memory.is_dirty and not memory.is_closed:
                memory.is_dirty = False
                await self._sync(memory)
        finally:
            memory.task = None

    async def _sync(self, memory: PodMemory) -> None:
        """One pass; the boundary for what goes wrong in it, which is logged and tried again."""
        try:
            with tracing.pod_span("sync containers", memory.key):
                await self._worker.sync(memory)
        except ProviderUnavailableError as error:
            self._retry(memory, error, error.retry_after_s)
        except ProviderError as error:
            self._retry(memory, error, None)
        except Exception as error:  # one pod's surprise must not end the others
            log.exception("pass over a pod failed")
            self._retry(memory, error, None)
        else:
            memory.errors = 0

    def _retry(self, memory: PodMemory, error: Exception, retry_after_s: float | None) -> None:
        memory.errors += 1
        delay_s = delays.unavailable_retry_s(memory.errors, retry_after_s)
        log.warning("pod is tried again", error=str(error), retry_after_s=delay_s, attempt=memory.errors)
        if memory.timer is not None:
            memory.timer.cancel()
        key = memory.key
        memory.timer = self._clock.call_later(delay_s, lambda: self._wake(key))

    def _pull_ended(self, key: PodKey, container: str) -> None:
        memory = self._memories.get(key)
        if memory is not None:
            memory.blocked.pop(container, None)
            self._wake(key)

    async def _follow_events(self) -> None:
        """
        Wake the pods that the runtime names; all of them when it may have missed some.

        The boundary for a runtime whose events end or fail, against its contract: they are asked for anew.
        """
        while True:
            try:
                async for key in self._runtime.events():
                    for changed in tuple(self._memories) if key is None else (key,):
                        self._wake(changed)
            except Exception:
                log.exception("events of the runtime failed")
            await self._clock.sleep(delays.SYNC_RETRY_S)
            for key in self._memories:
                self._wake(key)

    # --- the end of a pod -----------------------------------------------------------------------------

    async def _quiet(self, memory: PodMemory) -> None:
        """Let the pass under way end, and end what it has left behind."""
        if memory.timer is not None:
            memory.timer.cancel()
            memory.timer = None
        if memory.task is not None:
            await asyncio.wait({memory.task})
        for stopping in memory.stopping.values():
            if stopping.task is not None:
                stopping.task.cancel()
        memory.stopping.clear()

    async def _remove(self, key: PodKey) -> None:
        status = await self._runtime.pod_status(key)
        for info in status.containers:
            if is_live(info):
                await self._runtime.stop_container(info.id, 0)
            await self._runtime.remove_container(info.id)
        for sandbox in status.sandboxes:
            await self._runtime.stop_pod_sandbox(sandbox.id)
            await self._runtime.remove_pod_sandbox(sandbox.id)
        await self._volumes.tear_down(key)

    def _host_dns(self) -> dns.DnsSettings | None:
        """This machine's resolver settings, where the runtime runs on it."""
        if not self._runtime.uses_host_paths:
            return None
        try:
            return dns.parse_resolv_conf(_RESOLV_CONF.read_text())
        except OSError as error:
            log.warning("no resolver settings of the host", error=str(error))
            return None

    # --- tasks ----------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task failed", task=task.get_name(), error=repr(error), exc_info=error)

    async def _end_tasks(self) -> None:
        for memory in self._memories.values():
            if memory.timer is not None:
                memory.timer.cancel()
                memory.timer = None
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
