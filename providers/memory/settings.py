"""What the memory provider's node offers, from ``--provider-config``."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from vkubelet.errors import ConfigurationError
from vkubelet.model import quantity

__all__ = ["MemorySettings"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_KEYS = ("cpu", "memory", "pods", "podCIDR")


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """
    The node as it presents itself.

    Attributes:
        cpu: a quantity, capacity of the node.
        memory: a quantity.
        pods: how many it takes.
        pod_cidr: where pod addresses come from.
    """

    cpu: str = "20"
    memory: str = "100Gi"
    pods: int = 5000
    pod_cidr: Network = field(default_factory=lambda: ipaddress.ip_network("10.244.0.0/16"))

    @classmethod
    def from_config(cls, config: Mapping[str, object], *, max_pods: int | None = None) -> MemorySettings:
        """
        From the provider's configuration; `max_pods` from the command line wins over its ``pods``.

        Raises:
            ConfigurationError: an entry is unknown or malformed.
        """
        if unknown := sorted(set(config) - set(_KEYS)):
            raise ConfigurationError(
                f"--provider-config: the memory provider has no entry {unknown[0]!r}, only {', '.join(_KEYS)}"
            )
        default = cls()
        return cls(
            cpu=_quantity(config, "cpu", default.cpu),
            memory=_quantity(config, "memory", default.memory),
            pods=max_pods or _pods(config.get("pods", default.pods)),
            pod_cidr=_network(config.get("podCIDR", default.pod_cidr)),
        )


def _quantity(config: Mapping[str, object], name: str, default: str) -> str:
    text = str(config.get(name, default))
    try:
        quantity.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"--provider-config: {name} must be a quantity: {error}") from error
    return text


def _pods(value: object) -> int:
    text = str(value)
    if not text.isdecimal() or int(text) < 1:
        raise ConfigurationError(f"--provider-config: pods must be a positive number, not {text!r}")
    return int(text)


def _network(value: object) -> Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError as error:
        raise ConfigurationError(
            f"--provider-config: podCIDR must be a network such as 10.244.0.0/16: {error}"
        ) from error
