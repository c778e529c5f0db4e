"""
Starting one attempt of one container: image, configuration, create, start; and what is said when it fails.

The steps, reasons and Events are the kubelet's (`startContainer`). A failure is noted in the pod's memory as
a reason to wait, and tried again later; it never concerns the other containers of the pod.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable

from vkubelet import metrics
from vkubelet.errors import (
    InvalidPodError,
    PodNotFoundError,
    PodReferenceError,
    ProviderError,
    ProviderUnavailableError,
)
from vkubelet.kuberuntime import delays, pod_config
from vkubelet.kuberuntime.contract import (
    ContainerConfig,
    ContainerRuntime,
    Image,
    RuntimePod,
    SandboxConfig,
)
from vkubelet.kuberuntime.history import has_ended
from vkubelet.kuberuntime.images import ImageManager
from vkubelet.kuberuntime.plan import StartContainer
from vkubelet.kuberuntime.pod_memory import Blocked, PodMemory
from vkubelet.kuberuntime.volumes import VolumeManager
from vkubelet.model.observations import Waiting
from vkubelet.model.pod import ContainerKind, Pod
from vkubelet.provider import ProviderContext

__all__ = ["ContainerStarter"]


_METRIC_LABELS = {
    ContainerKind.APP: "container",
    ContainerKind.INIT: "init_container",
    ContainerKind.EPHEMERAL: "ephemeral_container",
}


class ContainerStarter:
    """
    Starts containers of all pods.

    Args:
        node: what a configuration needs to know of the node.
        slots: bounds how many are being made at the same time.
    """

    def __init__(
        self,
        runtime: ContainerRuntime,
        context: ProviderContext,
        images: ImageManager,
        volumes: VolumeManager,
        node: Callable[[], pod_config.NodeFacts],
        slots: asyncio.Semaphore,
    ) -> None:
        self._runtime = runtime
        self._host = context.host
        self._clock = context.clock
        self._images = images
        self._volumes = volumes
        self._slots = slots
        self._node = node

    def sandbox_config(self, pod: Pod, attempt: int) -> SandboxConfig:
        """The sandbox of that attempt; the pod's owner is told what of its DNS settings cannot be had."""
        dns = pod_config.pod_dns(pod, self._node())
        for warning in dns.warnings:
            self._host.record_event(pod.key, "Warning", warning.reason, warning.message)
        return pod_config.sandbox_config(pod, attempt, dns)

    async def start(self, memory: PodMemory, status: RuntimePod, action: StartContainer) -> None:
        """
        Bring the attempt to run, or note in `memory.blocked` why it does not.

        Raises:
            ProviderUnavailableError: the engine does not answer.
            InvalidPodError: it refuses the configuration for good.
        """
        pod, name = memory.pod, action.container.name
        assert pod is not None
        container_id = action.existing_id
        if container_id is None:
            image = await self._images.ensure(pod, action.container, memory.references)
            if not isinstance(image, Image):
                memory.blocked[name] = image
                self._count_failure(action, image.waiting.reason)
                return
            container_id = await self._create(memory, pod, status, action, image)
            if container_id is None:
                return
        await self._run(memory, pod, action, container_id)

    async def _create(
        self, memory: PodMemory, pod: Pod, status: RuntimePod, action: StartContainer, image: Image
    ) -> str | None:
        sandbox = self._sandbox(memory, pod, status, action)
        try:
            config = self._config(memory, pod, status, action, image)
        except (PodReferenceError, pod_config.ContainerConfigError, OSError) as error:
            self._block(memory, action, "CreateContainerConfigError", str(error), needs_references=True)
            return None
        try:
            async with self._slots:
                container_id = await self._runtime.create_container(action.sandbox_id, config, sandbox)
        except (ProviderUnavailableError, InvalidPodError, PodNotFoundError):
            raise
        except ProviderError as error:
            self._block(memory, action, "CreateContainerError", str(error))
            return None
        self._tell(pod, action, "Created", "Container created")
        return container_id

    def _sandbox(
        self, memory: PodMemory, pod: Pod, status: RuntimePod, action: StartContainer
    ) -> SandboxConfig:
        """The configuration that the present sandbox was made with, or would be."""
        attempt = next((s.attempt for s in status.sandboxes if s.id == action.sandbox_id), 0)
        if memory.sandbox is None or memory.sandbox.attempt != attempt:
            dns = pod_config.pod_dns(pod, self._node())
            memory.sandbox = pod_config.sandbox_config(pod, attempt, dns)
        return memory.sandbox

    def _config(
        self, memory: PodMemory, pod: Pod, status: RuntimePod, action: StartContainer, image: Image
    ) -> ContainerConfig:
        ips = next((s.ips for s in status.sandboxes if s.id == action.sandbox_id), ())
        mounts = self._volumes.mounts(pod, action.container, action.attempt)
        return pod_config.container_config(
            pod,
            action,
            image,
            memory.references,
            self._node(),
            pod_ips=ips,
            mounts=mounts,
            target_id=_target_id(action, status),
        )

    async def _run(self, memory: PodMemory, pod: Pod, action: StartContainer, container_id: str) -> None:
        name = action.container.name
        try:
            async with self._slots:
                await self._runtime.start_container(container_id)
        except (ProviderUnavailableError, InvalidPodError, PodNotFoundError):
            raise
        except ProviderError as error:
            over = await self._is_over(memory, container_id)
            self._block(memory, action, "RunContainerError", str(error), retry_s=0.0 if over else None)
            memory.restarting -= {name}
            return
        memory.blocked.pop(name, None)
        memory.restarting -= {name}
        metrics.STARTED_CONTAINERS.labels(_METRIC_LABELS[action.container.kind]).inc()
        self._tell(pod, action, "Started", "Container started")

    async def _is_over(self, memory: PodMemory, container_id: str) -> bool:
        """The runtime counts the failed start as an attempt, so back-off is decided by that."""
        status = await self._runtime.pod_status(memory.key)
        return any(c.id == container_id and has_ended(c) for c in status.containers)

    def _block(
        self,
        memory: PodMemory,
        action: StartContainer,
        reason: str,
        message: str,
        *,
        retry_s: float | None = None,
        needs_references: bool = False,
    ) -> None:
        assert memory.pod is not None
        retry_s = delays.SYNC_RETRY_S if retry_s is None else retry_s
        retry_at = self._clock.now() + datetime.timedelta(seconds=retry_s)
        memory.blocked[action.container.name] = Blocked(Waiting(reason, message), retry_at, needs_references)
        self._count_failure(action, reason)
        self._tell(memory.pod, action, "Failed", f"Error: {message}", warning=True)

    def _count_failure(self, action: StartContainer, reason: str) -> None:
        """Under the reason that its status shows; one that is still being pulled has none."""
        if reason:
            metrics.STARTED_CONTAINER_ERRORS.labels(_METRIC_LABELS[action.container.kind], reason).inc()

    def _tell(
        self, pod: Pod, action: StartContainer, reason: str, message: str, *, warning: bool = False
    ) -> None:
        self._host.record_event(
            pod.key, "Warning" if warning else "Normal", reason, message, action.container.name
        )


def _target_id(action: StartContainer, status: RuntimePod) -> str | None:
    """
    The newest attempt of an ephemeral container's `targetContainerName`.

    Raises:
        ContainerConfigError: there is none.
    """
    target = action.container.raw.get("targetContainerName")
    if not target:
        return None
    attempts = [c for c in status.containers if c.name == target]
    if not attempts:
        raise pod_config.ContainerConfigError(f"unable to find target container {target}")
    return max(attempts, key=lambda c: c.attempt).id
