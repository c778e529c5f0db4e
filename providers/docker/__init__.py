"""
Pods in a Docker engine: a sandbox container for each pod, and the pod's containers in its namespaces.

`create` is what the entry point group ``vkubelet.providers`` names. `runtime` performs the steps that the
pod engine (`vkubelet.kuberuntime`) asks for; `translate` and `status` are the two directions of the mapping,
`client` and `hijack` speak to the engine. README.md says which parts of the Pod API are served.
"""

from __future__ import annotations

import os

from vkubelet.provider import Provider, ProviderContext

__all__ = ["create"]


def create(context: ProviderContext) -> Provider:
    """
    The provider.

    Raises:
        ConfigurationError: a setting is wrong or unknown.
    """
    from providers.docker.runtime import DockerRuntime
    from providers.docker.settings import parse_settings
    from vkubelet.kuberuntime.provider import KubeRuntimeProvider

    return KubeRuntimeProvider(DockerRuntime(context, parse_settings(context.config, os.environ)), context)
