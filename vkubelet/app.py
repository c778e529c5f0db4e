"""
The composition root: makes the parts, starts them in order, and ends them in the reverse order.

Start: settings are tried (certificates, the port, the credentials), then the provider connects, the pods are
listed, and the Node is registered; once the provider answers, what already runs is adopted and the Node is
Ready. End: the Node says that it is NotReady, no new work is taken, status writes and Events under way are
finished within a time limit, streams are closed; pods go on running, and the next process adopts them.

Every task belongs to one of the `running` groups here; a loop that fails unexpectedly ends the process,
which is started anew by whoever watches over it and loses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from contextlib import AsyncExitStack
from typing import Literal

from vkubelet import identity, tracing
from vkubelet.clock import Clock, SystemClock
from vkubelet.controllers.lease_controller import LeaseController
from vkubelet.controllers.listers import PodLister, ServiceLister
from vkubelet.controllers.node_controller import NodeController
from vkubelet.controllers.pod_cleanup import PodCleanup
from vkubelet.controllers.pod_controller import PodController
from vkubelet.controllers.pod_counts import publish_pod_counts
from vkubelet.controllers.pod_records import PodRecords
from vkubelet.controllers.reference_resolver import ReferenceResolver
from vkubelet.controllers.status_manager import StatusManager
from vkubelet.errors import (
    ApiUnavailableError,
    ConfigurationError,
    ForbiddenError,
    ProviderError,
    VirtualKubeletError,
)
from vkubelet.kube.client import KubeClient
from vkubelet.kube.events import EventRecorder, ObjectReference, pod_reference
from vkubelet.kube.pods import PodParser, pod_key
from vkubelet.kube.references import parse_service
from vkubelet.kube.reflector import Reflector
from vkubelet.kube.store import Added, Deleted, Modified, Store, StoreEvent
from vkubelet.logs import get_logger
from vkubelet.model.keys import PodKey
from vkubelet.model.node import NodeIdentity, declared_features
from vkubelet.model.observations import NodeObservation, PodObservation
from vkubelet.model.pod import Json, Pod
from vkubelet.model.references import ServiceData
from vkubelet.observability import observed
from vkubelet.provider import (
    Attacher,
    ExecRunner,
    LogSource,
    PortForwarder,
    Provider,
    ProviderContext,
    StatsSource,
)
from vkubelet.server.app import Powers
from vkubelet.server.health_port import health_port
from vkubelet.server.listener import bind
from vkubelet.server.process_info import process_info
from vkubelet.serving import KubeletApi
from vkubelet.settings import Settings, installed_providers, installed_version, load_provider_config
from vkubelet.tasks import running, unless

__all__ = ["run"]

log = get_logger("app")

STARTUP_RETRY_S = 2.0
DRAIN_S = 5.0
STUCK_S = 600.0
SHUTDOWN_MESSAGE = "vkubelet is shutting down; pods go on running"


async def run(settings: Settings) -> None:
    """
    Run a node until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: a setting turned out to be wrong; nothing was changed in the cluster.
        VirtualKubeletError: it cannot start, or a part failed for good.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    clock = SystemClock()
    _allow_many_files()
    if not await unless(stop, identity.bootstrap(settings, clock)):
        return
    async with observed(settings), KubeClient.connect(settings.kubeconfig, clock=clock) as client:
        await _VirtualNode(settings, client, clock).run(stop)


class _VirtualNode:
    """All parts of one node, wired."""

    def __init__(self, settings: Settings, client: KubeClient, clock: Clock) -> None:
        self._settings = settings
        self._client = client
        self._clock = clock
        self._started_at = clock.now()
        self._records = PodRecords()
        self._node_changed = asyncio.Event()
        self._has_adopted = asyncio.Event()
        self._declared_features: tuple[str, ...] = ()
        self._pods: Store[PodKey, Pod] = Store()
        self._pod_lister = PodLister(self._pods)
        self._services: Store[tuple[str, str], ServiceData] = Store()
        self._service_lister = ServiceLister(self._services)
        self._recorder = EventRecorder(
            client,
            node_name=settings.node_name,
            clock=clock,
            qps=settings.event_qps,
            burst=settings.event_burst,
            busy=lambda: len(self._status_manager.queue) > 0,
        )
        self._status_manager = StatusManager(
            self._pods,
            self._records,
            client.pods.patch_status,
            lambda key: self._pod_controller.queue.add(key),
            host_ips=(settings.node_ip,),
            clock=clock,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything, wait for `stop`, end everything."""
        settings = self._settings
        with bind(settings.address, settings.port) as listener:
            api = KubeletApi(settings, self._client, self._recorder, listener, self._clock)
            await self._run(api, stop)

    async def _run(self, api: KubeletApi, stop: asyncio.Event) -> None:
        cluster_id = await self._meet_api_server(stop)
        if stop.is_set():
            return
        provider = self._make_provider(cluster_id)
        publish_pod_counts(self._records, self._pods)
        powers = self._powers(provider)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(health_port(self._settings.healthz_port, powers.health_checks))
            await stack.enter_async_context(api.running(powers))
            await stack.enter_async_context(provider.running())
            keep_identity = identity.keep_certificate(self._settings, self._client, self._clock)
            await stack.enter_async_context(running(self._recorder.run(), keep_identity))
            stack.push_async_callback(self._recorder.flush)
            await self._serve(provider, api.port, stack, stop)

    async def _serve(self, provider: Provider, port: int, stack: AsyncExitStack, stop: asyncio.Event) -> None:
        references = ReferenceResolver(
            self._client.references, self._service_lister.services, clock=self._clock
        )
        self._pod_controller = PodController(
            provider,
            self._pods,
            self._records,
            references,
            self._client.pods.delete,
            self,
            clock=self._clock,
            workers=self._settings.pod_sync_workers,
        )
        cleanup = PodCleanup(
            provider,
            self._pods,
            self._records,
            self._client.pods.get,
            self._pod_controller.queue.add,
            node_name=self._settings.node_name,
            clock=self._clock,
        )
        node = self._node_controller(provider, port)
        self._check_os(provider, await provider.describe_node())
        await stack.enter_async_context(
            running(self._status_manager.run(), self._work_on_pods(), drain=self._drain)
        )
        await stack.enter_async_context(running(*(r.run() for r in self._reflectors(node))))
        if not await unless(stop, self._synced()):
            return
        lease = LeaseController(
            self._client.leases,
            self._settings.node_name,
            lambda: node.uid,
            clock=self._clock,
            duration_s=self._settings.node_lease_duration_s,
        )
        # The Node is there while the platform is not: that it is not Ready, and why, is what it has to say.
        async with running(node.run(), lease.run()):
            if await unless(stop, self._adopted(cleanup)):
                self._has_adopted.set()
                log.info("vkubelet is running", node=self._settings.node_name, provider=provider.name)
                resync = self._pod_controller.run_resync(self._settings.sync_frequency_s)
                async with running(cleanup.run(), resync):
                    await stop.wait()
            log.info("stopping; pods go on running", pods=len(self._records))
        await node.say_goodbye(SHUTDOWN_MESSAGE)

    # --- what a provider may call (`PodHost`) ------------------------------------------------------------

    def pod_changed(self, observation: PodObservation) -> None:
        """A pod is now so."""
        self._records.observe(observation)

    def node_changed(self) -> None:
        """Ask `describe_node` now."""
        self._node_changed.set()

    def record_event(
        self,
        key: PodKey,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        container: str | None = None,
    ) -> None:
        """Tell the pod's owner."""
        pod = self._pods.get(key)
        if pod is None:
            about = ObjectReference("Pod", key.namespace, key.name, key.uid)
        else:
            about = pod_reference(pod, pod.container(container) if container else None)
        self._recorder.record(about, event_type, reason, message)

    # --- start -------------------------------------------------------------------------------------------

    async def _meet_api_server(self, stop: asyncio.Event) -> str:
        """
        Wait until the API server answers and knows us; the cluster's id.

        Raises:
            ConfigurationError: it does not accept us.
            ApiUnavailableError: it did not answer within `startup_timeout_s`.
        """
        limit_s = self._settings.startup_timeout_s
        started = self._clock.monotonic()
        while not stop.is_set():
            try:
                await self._client.check_credentials()
                self._declared_features = declared_features(await self._client.server_version())
                return self._settings.cluster_id or await self._cluster_id()
            except ApiUnavailableError as error:
                if limit_s and self._clock.monotonic() - started >= limit_s:
                    raise
                log.warning("the API server does not answer, will be tried again", error=str(error))
            await unless(stop, self._clock.sleep(STARTUP_RETRY_S))
        return ""

    async def _cluster_id(self) -> str:
        """
        What tells this cluster from others: the uid of the namespace kube-system.

        A node's own identity may not read that; then it is the uid of the Service ``default/kubernetes``,
        which every kubelet may read.
        """
        try:
            return await self._client.cluster_id()
        except ForbiddenError:
            service = await self._client.get("/api/v1/namespaces/default/services/kubernetes")
            uid: str = service["metadata"]["uid"]
            return uid

    def _make_provider(self, cluster_id: str) -> Provider:
        settings = self._settings
        root_dir = settings.root_dir
        try:
            root_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"--root-dir: cannot make {root_dir}: {error.strerror}") from error
        context = ProviderContext(
            host=self,
            clock=self._clock,
            node_name=settings.node_name,
            cluster_id=cluster_id,
            node_ips=(settings.node_ip,),
            root_dir=root_dir,
            cluster_dns=settings.cluster_dns,
            cluster_domain=settings.cluster_domain,
            max_pods=settings.max_pods,
            config=load_provider_config(settings.provider_config),
        )
        provider: Provider = installed_providers()[settings.provider].load()(context)
        return provider

    def _powers(self, provider: Provider) -> Powers:
        return Powers(
            pods=self._pod_lister,
            list_running=provider.list_pods,
            logs=provider if isinstance(provider, LogSource) else None,
            exec=provider if isinstance(provider, ExecRunner) else None,
            attach=provider if isinstance(provider, Attacher) else None,
            port_forward=provider if isinstance(provider, PortForwarder) else None,
            stats=provider if isinstance(provider, StatsSource) else None,
            process=process_info(self._settings, started_at=self._started_at),
            health_checks={"syncloop": self._sync_problem},
            readiness_checks={
                "pods": lambda: None if self._pods.has_synced else "the pods of this node are not yet known"
            },
        )

    def _sync_problem(self) -> str | None:
        """A sync of a pod, or a status write, that does not come to an end."""
        if not self._has_adopted.is_set():
            return None
        for queue in (self._pod_controller.queue, self._status_manager.queue):
            if (longest_s := queue.longest_s) > STUCK_S:
                return f"{queue.name} has been at one pod for {longest_s:.0f} s"
        return None

    def _check_os(self, provider: Provider, observation: NodeObservation) -> None:
        """The containers' operating system is the platform's to say; an option that differs is a mistake."""
        offered = observation.node_info.get("operatingSystem", "")
        if offered and offered.lower() != self._settings.os.lower():
            raise ConfigurationError(
                f"--os: the {provider.name} provider runs {offered} containers, not {self._settings.os}: "
                "leave it out"
            )

    def _node_controller(self, provider: Provider, port: int) -> NodeController:
        settings = self._settings
        identity = NodeIdentity(
            node_name=settings.node_name,
            provider=provider.name,
            version=installed_version(),
            addresses=(settings.node_ip,),
            port=port,
            labels=settings.node_labels,
            taints=settings.taints,
            declared_features=self._declared_features,
        )
        return NodeController(
            self._client.nodes,
            provider.describe_node,
            identity,
            self._node_changed,
            clock=self._clock,
            report_s=settings.node_status_update_frequency_s,
        )

    # --- watches -----------------------------------------------------------------------------------------

    def _reflectors(
        self, node: NodeController
    ) -> tuple[Reflector[PodKey, Pod], Reflector[tuple[str, str], ServiceData], Reflector[str, Json]]:
        client, clock, name = self._client, self._clock, self._settings.node_name
        return (
            Reflector(
                client,
                client.pods.collection,
                key=pod_key,
                parse=PodParser(),
                params=client.pods.on_node(name),
                handler=self._pod_event,
                store=self._pods,
                clock=clock,
            ),
            Reflector(
                client,
                client.references.services,
                key=lambda raw: (raw["metadata"]["namespace"], raw["metadata"]["name"]),
                parse=parse_service,
                handler=self._service_lister.note,
                store=self._services,
                clock=clock,
            ),
            Reflector(
                client,
                client.nodes.collection,
                key=lambda raw: str(raw["metadata"]["uid"]),
                parse=lambda raw: raw,
                params={"fieldSelector": f"metadata.name={name}"},
                handler=lambda event: _tell_node(node, event),
                clock=clock,
            ),
        )

    def _pod_event(self, event: StoreEvent[Pod]) -> None:
        seen = event.old if isinstance(event, Deleted) else event.new
        with tracing.pod_span("watch event", seen, kind=type(event).__name__):
            self._pod_changed(event)

    def _pod_changed(self, event: StoreEvent[Pod]) -> None:
        self._pod_lister.note(event)
        match event:
            case Added(new):
                self._pod_controller.pod_seen(None, new)
            case Modified(old, new):
                self._pod_controller.pod_seen(old, new)
                self._status_manager.pod_seen(new)
            case Deleted(old):
                self._pod_controller.pod_seen(old, None)

    async def _synced(self) -> None:
        """Return once the API server's side is known."""
        await self._pods.wait_for_sync()
        await self._services.wait_for_sync()

    async def _adopted(self, cleanup: PodCleanup) -> None:
        """Return once the provider's side is known: what it has of the pods."""
        while True:
            try:
                await cleanup.adopt()
            except (ProviderError, VirtualKubeletError) as error:
                log.warning("what runs could not be listed, will be tried again", error=str(error))
                await self._clock.sleep(STARTUP_RETRY_S)
            else:
                return

    async def _work_on_pods(self) -> None:
        """Sync pods, from when it is known what the provider has: nothing is created before."""
        await self._has_adopted.wait()
        await self._pod_controller.run()

    async def _drain(self) -> None:
        """Let work that was begun end, for a few seconds: pods first, what is to be told of them then."""
        if not self._has_adopted.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._pod_controller.queue.wait_idle()
                await self._status_manager.queue.wait_idle()


def _allow_many_files() -> None:
    """Each stream takes two or three descriptors; as Go's runtime does, take as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tell_node(node: NodeController, event: StoreEvent[Json]) -> None:
    match event:
        case Added(new) | Modified(_, new):
            node.node_seen(new)
        case Deleted(old):
            if old["metadata"]["uid"] == node.uid:
                node.node_seen(None)
