"""A node whose provider is the pod engine over the memory runtime, which writes down what happens in it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from providers.memory import MemoryRuntime, MemorySettings
from tests.controllers.direct import DirectServer
from tests.controllers.pod_node import NODE_IP, NODE_NAME, PodNode
from vkubelet.kuberuntime.contract import ContainerConfig, ContainerInfo, ContainerStatus, SandboxConfig
from vkubelet.kuberuntime.provider import KubeRuntimeProvider
from vkubelet.model.keys import PodKey
from vkubelet.provider import PodHost, Provider, ProviderContext

__all__ = ["EngineNode", "RecordingRuntime"]


class RecordingRuntime(MemoryRuntime):
    """
    A memory runtime with a memory.

    Attributes:
        created: the attempts of each container that were ever made, in order.
        owners: whose each container is or was, by its id in statuses.
        exit_codes: those of the attempts that have ended.
    """

    def __init__(self, server: DirectServer) -> None:
        super().__init__(MemorySettings(), server.clock)
        self.created: defaultdict[tuple[PodKey, str], list[int]] = defaultdict(list)
        self.exit_codes: dict[tuple[PodKey, str, int], int] = {}
        self.owners: dict[str, PodKey] = {}

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        container_id = await super().create_container(sandbox_id, config, sandbox)
        shown = f"memory://{container_id}"
        if shown not in self.owners:
            self.owners[shown] = sandbox.key
            self.created[sandbox.key, config.name].append(config.attempt)
        return container_id

    async def remove_container(self, container_id: str) -> None:
        self.note_exits()
        await super().remove_container(container_id)

    def note_exits(self) -> None:
        """Keep what containers have ended with."""
        for pod in self.pods():
            for info in pod.containers:
                if info.status is ContainerStatus.EXITED:
                    self.exit_codes[pod.key, info.name, info.attempt] = info.exit_code

    def live(self, key: PodKey) -> list[ContainerInfo]:
        """The running containers of a pod."""
        found = [pod for pod in self.pods() if pod.key == key]
        return [c for pod in found for c in pod.containers if c.status is ContainerStatus.RUNNING]


class EngineNode(PodNode):
    """The pod controllers over the pod engine."""

    def __init__(self) -> None:
        server = DirectServer()
        self.runtime = RecordingRuntime(server)
        super().__init__(self._new_provider, server=server)

    def _new_provider(self, host: PodHost) -> Provider:
        context = ProviderContext(
            host=host,
            clock=self.clock,
            node_name=NODE_NAME,
            cluster_id="cluster-1",
            node_ips=(NODE_IP,),
            root_dir=Path("/nowhere"),
        )
        return KubeRuntimeProvider(self.runtime, context)
