"""The pod engine over the memory runtime, with a clock that a test moves and a host that writes down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from providers.memory import MemoryRuntime, MemorySettings
from tests.builders import make_pod
from tests.clocks import ManualClock, settle
from vkubelet.kuberuntime.provider import KubeRuntimeProvider
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import ContainerObservation, ContainerState, PodObservation
from vkubelet.model.pod import Pod
from vkubelet.model.references import References
from vkubelet.provider import ProviderContext

NODE_IP = "192.0.2.1"


class Event(NamedTuple):
    """An Event as it was recorded."""

    type: str
    reason: str
    message: str
    container: str | None = None


@dataclass
class RecordingHost:
    """A `PodHost` that keeps everything."""

    observations: dict[PodKey, list[PodObservation]] = field(default_factory=dict)
    events: dict[PodKey, list[Event]] = field(default_factory=dict)

    def pod_changed(self, observation: PodObservation) -> None:
        self.observations.setdefault(observation.key, []).append(observation)

    def node_changed(self) -> None:
        pass

    def record_event(
        self,
        key: PodKey,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        container: str | None = None,
    ) -> None:
        self.events.setdefault(key, []).append(Event(event_type, reason, message, container))


class Engine:
    """One node: its clock and runtime outlive the provider, which can be killed and started anew."""

    no_references = References()

    def __init__(self, root_dir: Path) -> None:
        self.root_dir = root_dir
        self.clock = ManualClock()
        self.runtime = MemoryRuntime(MemorySettings(), self.clock)
        self.host = RecordingHost()
        self.provider = self.new_provider()
        self._life = contextlib.AsyncExitStack()

    def new_provider(self, **context: Any) -> KubeRuntimeProvider:
        """Another vkubelet on the same node."""
        given: dict[str, Any] = {
            "host": self.host,
            "clock": self.clock,
            "node_name": "node-1",
            "cluster_id": "cluster-1",
            "node_ips": (NODE_IP,),
            "root_dir": self.root_dir,
            "cluster_dns": ("10.0.0.10",),
        }
        return KubeRuntimeProvider(self.runtime, ProviderContext(**{**given, **context}))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """The node runs; whichever vkubelet is the last is ended."""
        await self._life.enter_async_context(self.provider.running())
        try:
            yield self
        finally:
            await self._life.aclose()

    async def restart(self, **context: Any) -> None:
        """As after a kill: a new vkubelet that knows nothing, while the old one does no more."""
        await self._life.aclose()
        self.runtime.hook = None
        self.provider = self.new_provider(**context)
        await self._life.enter_async_context(self.provider.running())

    @contextlib.asynccontextmanager
    async def restarted(self, **context: Any) -> AsyncIterator[None]:
        """What follows happens to the next vkubelet."""
        await self.restart(**context)
        yield

    @contextlib.asynccontextmanager
    async def dies_in(self, method: str, moment: str) -> AsyncIterator[None]:
        """vkubelet stops for ever at that moment of that call of the runtime."""

        async def hook(called: str, now: str) -> None:
            if (called, now) == (method, moment):
                await asyncio.Event().wait()

        self.runtime.hook = hook
        yield

    async def create(self, pod: Pod | None = None, references: References | None = None, **spec: Any) -> Pod:
        """Take a pod on and let everything happen that can."""
        pod = pod or make_pod(**spec)
        await self.provider.create_pod(pod, references or References())
        await settle()
        return pod

    async def terminate(self, pod: Pod, grace_period_s: float = 30.0) -> None:
        await self.provider.terminate_pod(pod.key, grace_period_s)
        await settle()

    def busy(self, pod: Pod) -> bool:
        """The engine is at work on the pod."""
        return any(t.get_name() == f"pod {pod.namespace}/{pod.name}" for t in asyncio.all_tasks())

    def seen(self, pod: Pod) -> PodObservation:
        """The last observation of the pod."""
        return self.host.observations[pod.key][-1]

    def container(self, pod: Pod, name: str = "main") -> ContainerObservation:
        """The last observation of one container."""
        return next(c for c in self.seen(pod).containers if c.name == name)

    def state(self, pod: Pod, name: str = "main") -> ContainerState:
        """Its state."""
        return self.container(pod, name).state

    def events(self, pod: Pod, reason: str | None = None) -> list[Event]:
        """The pod's Events, in order."""
        return [e for e in self.host.events.get(pod.key, []) if reason is None or e.reason == reason]

    def reasons(self, pod: Pod) -> list[str]:
        """The reasons of its Events, in order."""
        return [e.reason for e in self.events(pod)]
