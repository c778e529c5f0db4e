"""The node as the memory provider presents it: the configured capacity, always healthy."""

from __future__ import annotations

import ipaddress
import itertools
import platform
from collections.abc import Iterator

from providers.memory.settings import MemorySettings
from vkubelet.model.observations import NodeCondition, NodeObservation

__all__ = ["addresses", "describe"]

_CONDITIONS = (
    NodeCondition("Ready", "True", "KubeletReady", "vkubelet is posting ready status"),
    NodeCondition(
        "MemoryPressure", "False", "KubeletHasSufficientMemory", "there is no memory to run out of"
    ),
    NodeCondition("DiskPressure", "False", "KubeletHasNoDiskPressure", "there is no disk to fill"),
    NodeCondition("PIDPressure", "False", "KubeletHasSufficientPID", "there are no processes"),
)


def describe(settings: MemorySettings) -> NodeObservation:
    """The node."""
    amounts = {"cpu": settings.cpu, "memory": settings.memory, "pods": str(settings.pods)}
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return NodeObservation(
        capacity=amounts,
        allocatable=amounts,
        conditions=_CONDITIONS,
        node_info={
            "operatingSystem": "linux",
            "architecture": machine,
            "containerRuntimeVersion": "memory://1",
            "osImage": "vkubelet memory provider",
            "kernelVersion": platform.release(),
        },
    )


def addresses(settings: MemorySettings) -> Iterator[str]:
    """Addresses of the pod network, over and over; the first one is left to a gateway."""
    network = settings.pod_cidr
    usable = max(network.num_addresses - 3, 1)
    first = int(network.network_address) + 2
    kind = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    return (str(kind(first + i % usable)) for i in itertools.count())
