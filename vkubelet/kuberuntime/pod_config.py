"""
What the runtime is told: the configuration of a sandbox and of one attempt of a container.

Pure: pod, image, references and node in, `contract` values out. The rules of each part (environment, DNS,
security, resources) are `model`'s; this module puts them together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from vkubelet.errors import VirtualKubeletError
from vkubelet.kuberuntime.actions import spec_hash
from vkubelet.kuberuntime.contract import (
    ContainerConfig,
    ContainerSecurity,
    DnsConfig,
    Image,
    LinuxResources,
    Mount,
    SandboxConfig,
)
from vkubelet.kuberuntime.history import FAILURES_ANNOTATION
from vkubelet.kuberuntime.plan import StartContainer
from vkubelet.model import dns, environment, quantity, resources, security
from vkubelet.model.environment import EnvironmentContext
from vkubelet.model.pod import Container, Pod
from vkubelet.model.references import References

__all__ = [
    "ContainerConfigError",
    "NodeFacts",
    "container_config",
    "pod_dns",
    "sandbox_config",
]

_NO_ANNOTATIONS: Mapping[str, str] = MappingProxyType({})


class ContainerConfigError(VirtualKubeletError):
    """No configuration can be made of the container as it stands: CreateContainerConfigError."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """
    What configurations depend on beside the pod.

    Attributes:
        ips: the node's, primary first.
        allocatable: quantities by resource name, for resource fields without a limit of their own.
        memory_bytes: the node's memory, for OOM scores.
        host_dns: the platform's own resolver settings, None where they are not known.
    """

    ips: tuple[str, ...] = ()
    cluster_dns: tuple[str, ...] = ()
    cluster_domain: str = ""
    allocatable: Mapping[str, str] = field(default_factory=dict)
    memory_bytes: int = 0
    host_dns: dns.DnsSettings | None = None

    @classmethod
    def memory_of(cls, capacity: Mapping[str, str]) -> int:
        """The bytes of memory in a capacity, 0 where it says nothing."""
        return quantity.bytes_(capacity.get("memory", "0"))


def pod_dns(pod: Pod, node: NodeFacts) -> dns.PodDns:
    """The pod's resolver settings on this node."""
    return dns.pod_dns(
        pod, cluster_dns=node.cluster_dns, cluster_domain=node.cluster_domain, host=node.host_dns
    )


def sandbox_config(pod: Pod, attempt: int, resolver: dns.PodDns) -> SandboxConfig:
    """The sandbox of that attempt, with the settings that `pod_dns` gave."""
    settings = resolver.settings
    spec = pod.spec
    return SandboxConfig(
        key=pod.key,
        attempt=attempt,
        hostname=dns.pod_hostname(pod),
        dns=DnsConfig(settings.servers, settings.searches, settings.options) if settings else None,
        host_aliases=dns.host_aliases(pod),
        host_network=pod.host_network,
        host_pid=bool(spec.get("hostPID")),
        host_ipc=bool(spec.get("hostIPC")),
        share_process_namespace=bool(spec.get("shareProcessNamespace")),
        labels=pod.labels,
        annotations=pod.annotations,
    )


def container_config(
    pod: Pod,
    action: StartContainer,
    image: Image,
    references: References,
    node: NodeFacts,
    *,
    pod_ips: tuple[str, ...],
    mounts: tuple[Mount, ...],
    target_id: str | None = None,
) -> ContainerConfig:
    """
    One attempt.

    Args:
        pod: as wanted now.
        action: which container and attempt.
        image: what was found or pulled for it.
        references: the newest snapshot.
        node: where it runs.
        pod_ips: the sandbox's; the node's on the host's network.
        mounts: of its volumes.
        target_id: the container whose processes it shall see (`targetContainerName`).

    Raises:
        PodReferenceError: the environment needs something that cannot be read.
        ContainerConfigError: it must not run as root, and would.
    """
    container = action.container
    effective = security.effective_security(pod, container)
    if violation := security.non_root_violation(effective, image.user, pod, container):
        raise ContainerConfigError(violation)
    context = EnvironmentContext(
        pod_ips=node.ips if pod.host_network else pod_ips,
        host_ips=node.ips,
        node_allocatable=node.allocatable,
    )
    env = environment.container_environment(pod, container, references, context)
    return ContainerConfig(
        name=container.name,
        kind=container.kind,
        attempt=action.attempt,
        image=container.image,
        image_id=image.id,
        command=environment.expand_command(container.command, env),
        args=environment.expand_command(container.args, env),
        working_dir=container.working_dir,
        env=tuple((v.name, v.value) for v in env),
        mounts=mounts,
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        tty=container.tty,
        target_id=target_id,
        resources=_resources(pod, container, node),
        security=_security(effective),
        spec_hash=spec_hash(container),
        annotations=_annotations(action),
    )


def _annotations(action: StartContainer) -> Mapping[str, str]:
    """The failures before it, unless they are what its number says anyway."""
    if action.failures == action.attempt:
        return _NO_ANNOTATIONS
    return {FAILURES_ANNOTATION: str(action.failures)}


def _resources(pod: Pod, container: Container, node: NodeFacts) -> LinuxResources:
    limits = resources.container_limits(pod, container, memory_capacity_bytes=node.memory_bytes)
    return LinuxResources(
        cpu_shares=limits.cpu_shares,
        cpu_quota_us=limits.cpu_quota_us,
        cpu_period_us=limits.cpu_period_us,
        memory_limit_bytes=limits.memory_limit_bytes,
        oom_score_adj=limits.oom_score_adj,
    )


def _security(effective: security.EffectiveSecurity) -> ContainerSecurity:
    return ContainerSecurity(
        user="" if effective.run_as_user is None else str(effective.run_as_user),
        group=effective.run_as_group,
        supplemental_groups=effective.supplemental_groups,
        privileged=effective.privileged,
        read_only_root_filesystem=effective.read_only_root_filesystem,
        no_new_privileges=effective.no_new_privileges,
        add_capabilities=effective.add_capabilities,
        drop_capabilities=effective.drop_capabilities,
    )
