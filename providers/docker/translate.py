"""
From sandbox and container configurations to the bodies of ``POST /containers/create``. Pure.

The mapping is cri-dockerd's: the sandbox is a container that holds the network and IPC namespaces, the pod's
containers join it. Names are ``k8s_<container>_<pod>_<namespace>_<uid>_<attempt>``: unique by the pod's uid,
so that a create that is repeated meets the container that it made before.
"""

from __future__ import annotations

from typing import Any

from providers.docker import labels
from providers.docker.labels import Owner
from providers.docker.settings import DockerSettings
from vkubelet.kuberuntime.contract import (
    ContainerConfig,
    ContainerSecurity,
    LinuxResources,
    Mount,
    SandboxConfig,
)

__all__ = [
    "SANDBOX_OOM_SCORE_ADJ",
    "container_body",
    "container_name",
    "sandbox_body",
    "sandbox_name",
]

Body = dict[str, Any]

SANDBOX_OOM_SCORE_ADJ = -998
"""The kubelet's for sandboxes (`qos.PodInfraOOMAdj`): the network shall outlive the containers."""

_SANDBOX_CPU_SHARES = 2
_NO_SECCOMP_PROFILE = "seccomp=unconfined"


def sandbox_name(config: SandboxConfig) -> str:
    """The name of a sandbox's container."""
    key = config.key
    return f"k8s_POD_{key.name}_{key.namespace}_{key.uid}_{config.attempt}"


def container_name(config: ContainerConfig, sandbox: SandboxConfig) -> str:
    """The name of a container."""
    key = sandbox.key
    return f"k8s_{config.name}_{key.name}_{key.namespace}_{key.uid}_{config.attempt}"


def sandbox_body(
    owner: Owner, settings: DockerSettings, config: SandboxConfig, image: str, oom_score_adj: int | None
) -> Body:
    """The body for a sandbox; `oom_score_adj` None leaves the engine's."""
    host_config: Body = {
        "NetworkMode": "host" if config.host_network else settings.network,
        "IpcMode": "host" if config.host_ipc else "shareable",
        "PidMode": "host" if config.host_pid else "",
        "CpuShares": _SANDBOX_CPU_SHARES,
        "SecurityOpt": ["no-new-privileges"],
        "ExtraHosts": [f"{name}:{ip}" for ip, names in config.host_aliases for name in names],
        **_common(settings),
        **_dns(config),
    }
    if oom_score_adj is not None:
        host_config["OomScoreAdj"] = oom_score_adj
    body: Body = {
        "Image": image,
        "Labels": labels.sandbox_labels(owner, config),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": host_config,
    }
    if config.hostname and not config.host_network:
        body["Hostname"] = config.hostname
    return body


def container_body(
    owner: Owner,
    settings: DockerSettings,
    sandbox_id: str,
    config: ContainerConfig,
    sandbox: SandboxConfig,
    *,
    image_ref: str,
    oom_score_adj: int | None,
) -> Body:
    """
    The body for a container in the sandbox `sandbox_id`.

    The image's own health check is switched off: in a pod only the pod's probes count.
    """
    body: Body = {
        "Image": config.image_id,
        "Labels": labels.container_labels(owner, sandbox_id, config, sandbox.key, image_ref),
        "Env": [f"{name}={value}" for name, value in dict(config.env).items()],
        "Tty": config.tty,
        "OpenStdin": config.stdin,
        "StdinOnce": config.stdin_once,
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_namespaces(sandbox_id, config, sandbox),
            **_resources(config.resources),
            **_security(config.security),
            "Mounts": [_mount(mount) for mount in config.mounts],
            **_common(settings),
        },
        **_command(config),
    }
    if oom_score_adj is not None:
        body["HostConfig"]["OomScoreAdj"] = oom_score_adj
    if config.security.user:
        group = config.security.group
        body["User"] = config.security.user if group is None else f"{config.security.user}:{group}"
    if config.working_dir:
        body["WorkingDir"] = config.working_dir
    return body


def _common(settings: DockerSettings) -> Body:
    """What the engine must not do on its own, and how it keeps logs: the kubelet's limits."""
    return {
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {
            "Type": "json-file",
            "Config": {
                "max-size": str(settings.container_log_max_size_bytes),
                "max-file": str(settings.container_log_max_files),
            },
        },
    }


def _dns(config: SandboxConfig) -> Body:
    """For resolv.conf. A search list of "." means none: an empty one would give that of the engine's host."""
    if config.dns is None:
        return {}
    return {
        "Dns": list(config.dns.servers),
        "DnsSearch": list(config.dns.searches) or ["."],
        "DnsOptions": list(config.dns.options),
    }


def _namespaces(sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> Body:
    """
    The sandbox's, which may be the host's; processes of a container that it is to look into (`target_id`).

    A container joins the sandbox's network even where that is the host's: with it come the sandbox's
    resolv.conf, hosts file and host name.
    """
    joined = f"container:{sandbox_id}"
    return {
        "NetworkMode": joined,
        "IpcMode": "host" if sandbox.host_ipc else joined,
        "PidMode": _pid_mode(joined, config, sandbox),
    }


def _pid_mode(joined: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
    if config.target_id is not None:
        return f"container:{config.target_id}"
    if sandbox.host_pid:
        return "host"
    return joined if sandbox.share_process_namespace else ""


def _command(config: ContainerConfig) -> Body:
    """
    Kubernetes' `command` is Docker's entrypoint and `args` its command.

    A `command` alone drops the image's arguments; `args` alone keep the image's entrypoint
    (Kubernetes docs, "Define a Command and Arguments for a Container").
    """
    if config.command:
        return {"Entrypoint": list(config.command), "Cmd": list(config.args)}
    return {"Cmd": list(config.args)} if config.args else {}


def _resources(resources: LinuxResources) -> Body:
    """No swap beyond the memory limit, as in a kubelet without swap."""
    values = {
        "CpuShares": resources.cpu_shares,
        "CpuQuota": resources.cpu_quota_us,
        "CpuPeriod": resources.cpu_period_us,
        "Memory": resources.memory_limit_bytes,
        "MemorySwap": resources.memory_limit_bytes,
    }
    return {name: value for name, value in values.items() if value is not None}


def _security(security: ContainerSecurity) -> Body:
    """A pod without a seccomp profile runs unconfined, as under a kubelet without `seccompDefault`."""
    options = ["no-new-privileges"] if security.no_new_privileges else []
    return {
        "Privileged": security.privileged,
        "ReadonlyRootfs": security.read_only_root_filesystem,
        "GroupAdd": [str(group) for group in security.supplemental_groups],
        "CapAdd": list(security.add_capabilities),
        "CapDrop": list(security.drop_capabilities),
        "SecurityOpt": [*options, _NO_SECCOMP_PROFILE],
    }


def _mount(mount: Mount) -> Body:
    """A bind mount by `Mounts` rather than `Binds`: it takes any path and never creates a missing one."""
    return {
        "Type": "bind",
        "Source": mount.host_path,
        "Target": mount.container_path,
        "ReadOnly": mount.read_only,
        "BindOptions": {"Propagation": "rprivate"},
    }
