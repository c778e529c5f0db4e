"""
The memory provider: pods that are Running without anything running.

A `ContainerRuntime` whose containers are values, under the same pod engine as the docker provider: for trying
vkubelet without an engine, for measuring the node itself at thousands of pods, and as the fake that the
engine's tests trust. README.md says what can be scripted.
"""

from __future__ import annotations

from providers.memory.runtime import MemoryRuntime
from providers.memory.settings import MemorySettings
from vkubelet.kuberuntime.provider import KubeRuntimeProvider
from vkubelet.provider import Provider, ProviderContext

__all__ = ["MemoryRuntime", "MemorySettings", "create"]


def create(context: ProviderContext) -> Provider:
    """
    The provider for one node.

    Raises:
        ConfigurationError: an entry of the provider's configuration is unknown or malformed.
    """
    settings = MemorySettings.from_config(context.config, max_pods=context.max_pods)
    return KubeRuntimeProvider(MemoryRuntime(settings, context.clock), context)
