"""A whole-pod provider with a platform behind it that outlives it, and that a test can steer."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.builders import observed, observed_pod, terminated
from vkubelet.errors import PodNotFoundError
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import ContainerObservation, NodeCondition, NodeObservation, PodObservation
from vkubelet.model.pod import Pod
from vkubelet.model.references import References
from vkubelet.provider import PodHost, Provider

__all__ = ["READY", "Call", "FakeProvider", "Platform"]

READY = NodeCondition("Ready", "True", "KubeletReady", "all is well")


class Call(NamedTuple):
    """A call that a provider has got."""

    method: str
    key: PodKey
    references: References | None = None
    grace_period_s: float | None = None


@dataclass
class Platform:
    """
    What survives vkubelet: its pods, and what a test wants to happen.

    Attributes:
        pods: those it has, as last observed.
        calls: everything that any provider was asked, in order.
        errors: what a method raises, the next calls in turn.
        gates: a method waits for its event before it does anything.
        starts: a created pod runs at once; else it stays ContainerCreating until `run`.
        stops: a pod that is told to terminate has at once; else only by `end`.
        exit_code: of containers that were told to terminate.
    """

    pods: dict[PodKey, PodObservation] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    errors: dict[str, list[Exception]] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    starts: bool = True
    stops: bool = True
    exit_code: int = 0
    node: NodeObservation = field(
        default_factory=lambda: NodeObservation(
            capacity={"cpu": "4", "memory": "8Gi", "pods": "110"},
            allocatable={"cpu": "4", "memory": "8Gi", "pods": "110"},
            conditions=(READY,),
            node_info={"operatingSystem": "linux", "architecture": "amd64"},
        )
    )

    def fail(self, method: str, *errors: Exception) -> None:
        """The next calls of `method` raise these, in turn."""
        self.errors.setdefault(method, []).extend(errors)

    def hold(self, method: str) -> asyncio.Event:
        """Calls of `method` wait until the returned event is set."""
        return self.gates.setdefault(method, asyncio.Event())

    def methods(self, key: PodKey | None = None) -> list[str]:
        """The names of the calls, of one pod or of all."""
        return [c.method for c in self.calls if key is None or c.key == key]

    def calls_of(self, method: str) -> list[Call]:
        """The calls of one method."""
        return [c for c in self.calls if c.method == method]


class FakeProvider(Provider):
    """One process's provider over the `Platform`."""

    name = "fake"

    def __init__(self, platform: Platform, host: PodHost) -> None:
        self.platform = platform
        self._host = host

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        yield

    async def create_pod(self, pod: Pod, references: References) -> None:
        await self._called(Call("create_pod", pod.key, references))
        if pod.key in self.platform.pods:
            self.report(self.platform.pods[pod.key])
        elif self.platform.starts:
            self.run(pod)
        else:
            self.report(observed_pod(pod, sandbox_ready=False, pod_ips=()))

    async def update_pod(self, pod: Pod, references: References) -> None:
        await self._called(Call("update_pod", pod.key, references))
        if pod.key not in self.platform.pods:
            raise PodNotFoundError(f"no pod {pod.key}")

    async def terminate_pod(self, key: PodKey, grace_period_s: float) -> None:
        await self._called(Call("terminate_pod", key, grace_period_s=grace_period_s))
        if key not in self.platform.pods:
            raise PodNotFoundError(f"no pod {key}")
        if self.platform.pods[key].terminated:
            self.report(self.platform.pods[key])
        elif self.platform.stops:
            self.end(key, self.platform.exit_code)

    async def delete_pod(self, key: PodKey) -> None:
        await self._called(Call("delete_pod", key))
        self.platform.pods.pop(key, None)

    async def list_pods(self) -> Sequence[PodObservation]:
        seen = tuple(self.platform.pods.values())
        await self._called(Call("list_pods", PodKey("", "", "")))
        return seen

    async def describe_node(self) -> NodeObservation:
        return self.platform.node

    # --- what the platform does by itself

    def run(self, pod: Pod, *containers: ContainerObservation) -> None:
        """Its containers run, or are as given."""
        seen = containers or tuple(observed(c.name, kind=c.kind) for c in pod.all_containers())
        self.report(observed_pod(pod, *seen))

    def end(self, key: PodKey, exit_code: int = 0) -> None:
        """All its containers end, and nothing of it will run again."""
        before = self.platform.pods[key]
        ended = tuple(
            dataclasses.replace(c, state=terminated(exit_code), ready=False, started=False)
            for c in before.containers
        )
        self.report(dataclasses.replace(before, containers=ended, sandbox_ready=False, terminated=True))

    def report(self, observation: PodObservation) -> None:
        """The pod is so from now on, and the host is told."""
        self.platform.pods[observation.key] = observation
        self._host.pod_changed(observation)

    async def _called(self, call: Call) -> None:
        self.platform.calls.append(call)
        if (gate := self.platform.gates.get(call.method)) is not None:
            await gate.wait()
        if errors := self.platform.errors.get(call.method):
            raise errors.pop(0)
