"""The pod controllers of one node, wired as by `vkubelet.app`, over a fake API server and a provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal, NamedTuple

from tests.builders import pod_json
from tests.clocks import settle
from tests.controllers.direct import DirectClient, DirectServer
from tests.controllers.fake_provider import FakeProvider, Platform
from tests.fake_api_server import RecordedRequest
from vkubelet.controllers.listers import PodLister, ServiceLister
from vkubelet.controllers.pod_cleanup import PodCleanup
from vkubelet.controllers.pod_controller import PodController
from vkubelet.controllers.pod_records import PodRecords
from vkubelet.controllers.reference_resolver import ReferenceResolver
from vkubelet.controllers.status_manager import StatusManager
from vkubelet.errors import VirtualKubeletError
from vkubelet.kube.pods import pod_key
from vkubelet.kube.references import parse_service
from vkubelet.kube.reflector import Reflector
from vkubelet.kube.store import Added, Deleted, Modified, Store, StoreEvent
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodObservation
from vkubelet.model.pod import Json, Pod, parse_pod
from vkubelet.model.references import ServiceData
from vkubelet.provider import PodHost, Provider

__all__ = ["NODE_IP", "NODE_NAME", "Event", "FakeNode", "PodNode"]

NODE_NAME = "node-1"
NODE_IP = "192.0.2.1"
_ROUNDS = 150


class Event(NamedTuple):
    """An Event as it was recorded."""

    key: PodKey
    type: str
    reason: str
    message: str


class PodNode:
    """
    One node: its clock, API server and platform stay, the process over them can be killed and started anew.

    Attributes:
        make_provider: makes a process's provider, given its host.
        events: all Events recorded by any process.
    """

    def __init__(
        self,
        make_provider: Callable[[PodHost], Provider],
        *,
        server: DirectServer | None = None,
    ) -> None:
        self.server = server or DirectServer()
        self.clock = self.server.clock
        self.events: list[Event] = []
        self.make_provider = make_provider
        self._process: asyncio.Task[None] | None = None
        self.provider: Provider
        self.pods: Store[PodKey, Pod]
        self.records: PodRecords
        self.controller: PodController
        self.status_manager: StatusManager
        self.cleanup: PodCleanup

    # --- the process

    async def start(self) -> None:
        """A new process, let run until it has nothing to do."""
        assert self._process is None
        client = DirectClient(self.server)
        self.pods, self.records = Store(), PodRecords()
        self.lister = PodLister(self.pods)
        services: Store[tuple[str, str], ServiceData] = Store()
        service_lister = ServiceLister(services)
        self.provider = self.make_provider(_Process(self, self.records))
        self.status_manager = StatusManager(
            self.pods,
            self.records,
            client.pods.patch_status,
            lambda key: self.controller.queue.add(key),
            host_ips=(NODE_IP,),
            clock=self.clock,
        )
        self.controller = PodController(
            self.provider,
            self.pods,
            self.records,
            ReferenceResolver(client.references, service_lister.services, clock=self.clock),
            client.pods.delete,
            _Process(self, self.records),
            clock=self.clock,
        )
        self.cleanup = PodCleanup(
            self.provider,
            self.pods,
            self.records,
            client.pods.get,
            self.controller.queue.add,
            node_name=NODE_NAME,
            clock=self.clock,
        )
        pods = Reflector(
            client,
            client.pods.collection,
            key=pod_key,
            parse=parse_pod,
            params=client.pods.on_node(NODE_NAME),
            handler=self._pod_event,
            store=self.pods,
            clock=self.clock,
        )
        watched_services = Reflector(
            client,
            client.references.services,
            key=lambda raw: (raw["metadata"]["namespace"], raw["metadata"]["name"]),
            parse=parse_service,
            handler=service_lister.note,
            store=services,
            clock=self.clock,
        )
        self._process = asyncio.create_task(
            self._run(
                self.status_manager.run(),
                self.controller.run(),
                pods.run(),
                watched_services.run(),
                self._adopt_then_clean_up(),
                self.controller.run_resync(60.0),
            )
        )
        await self.settle()

    async def kill(self) -> None:
        """The process ends where it stands: nothing is finished, nothing is said."""
        process, self._process = self._process, None
        if process is not None:
            process.cancel()
            await asyncio.wait({process})
            assert process.cancelled(), process.exception()

    async def restart(self) -> None:
        """`kill` and `start`."""
        await self.kill()
        await self.start()

    async def settle(self) -> None:
        """Let everything happen that needs no time."""
        await settle(_ROUNDS)
        assert self._process is None or not self._process.done(), "the process has ended by itself"

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything happen that falls due."""
        await self.clock.advance(seconds)
        await self.settle()

    async def _run(self, *loops: Coroutine[Any, Any, object]) -> None:
        async with self.provider.running(), asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(loop)

    async def _adopt_then_clean_up(self) -> None:
        await self.pods.wait_for_sync()
        while True:
            try:
                await self.cleanup.adopt()
            except VirtualKubeletError:
                await self.clock.sleep(2.0)
            else:
                break
        await self.cleanup.run()

    def _pod_event(self, event: StoreEvent[Pod]) -> None:
        self.lister.note(event)
        match event:
            case Added(new):
                self.controller.pod_seen(None, new)
            case Modified(old, new):
                self.controller.pod_seen(old, new)
                self.status_manager.pod_seen(new)
            case Deleted(old):
                self.controller.pod_seen(old, None)

    # --- the cluster, as others act on it

    async def create(self, pod: Json | None = None, **overrides: Any) -> PodKey:
        """Somebody creates a pod bound to this node."""
        key = pod_key(self.server.objects.create("pods", pod or pod_json(**overrides)))
        await self.settle()
        return key

    async def delete(self, key: PodKey, grace_period_s: int | None = None) -> None:
        """Somebody deletes it; 0 is ``kubectl delete --force``."""
        self.begin_deletion(key, grace_period_s)
        await self.settle()

    def begin_deletion(self, key: PodKey, grace_period_s: int | None = None) -> None:
        """The API server's part of `delete` alone."""
        self.server.objects.delete("pods", key.name, key.namespace, grace_period_s=grace_period_s)

    def pod(self, key: PodKey) -> Pod | None:
        """The pod as the API server has it; None when it is gone or has been replaced."""
        raw = self.server.objects.find("pods", key.name, key.namespace)
        return parse_pod(raw) if raw is not None and raw["metadata"]["uid"] == key.uid else None

    def status(self, key: PodKey) -> Json:
        """Its status."""
        pod = self.pod(key)
        assert pod is not None, f"{key} is gone"
        return pod.status

    def container(self, key: PodKey, name: str = "main") -> Json:
        """The status of one of its containers."""
        found: Json = next(c for c in self.status(key)["containerStatuses"] if c["name"] == name)
        return found

    def patches(self, key: PodKey | None = None) -> list[RecordedRequest]:
        """The status patches sent so far."""
        sent = self.server.requests_to("PATCH", "/pods/")
        return [r for r in sent if key is None or r.body["metadata"]["uid"] == key.uid]

    def deletes(self, key: PodKey | None = None) -> list[RecordedRequest]:
        """The deletions of pods sent so far."""
        sent = self.server.requests_to("DELETE", "/pods/")
        return [r for r in sent if key is None or r.body["preconditions"]["uid"] == key.uid]

    def reasons(self, key: PodKey) -> list[str]:
        """Of the Events about the pod."""
        return [e.reason for e in self.events if e.key == key]


class FakeNode(PodNode):
    """A node over the whole-pod provider of these tests."""

    def __init__(self) -> None:
        self.platform = Platform()
        super().__init__(lambda host: FakeProvider(self.platform, host))

    @property
    def fake(self) -> FakeProvider:
        """The present process's provider."""
        assert isinstance(self.provider, FakeProvider)
        return self.provider


class _Process:
    """The `PodHost` of one process; what a dead one still says is not heard."""

    def __init__(self, node: PodNode, records: PodRecords) -> None:
        self._node = node
        self._records = records

    def pod_changed(self, observation: PodObservation) -> None:
        self._records.observe(observation)

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
        del container
        self._node.events.append(Event(key, event_type, reason, message))
