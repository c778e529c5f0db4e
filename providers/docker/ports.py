"""
How a port of a pod is reached.

As on the kubelet, a port is one of localhost in the pod's network, IPv4 first, then IPv6: so also one that
listens on 127.0.0.1 alone. Where the network cannot be entered (the engine is on another machine, or vkubelet
may not), the pod's address is what is left, and what fails then is told together with the reason.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from providers.docker.namespaces import NetworkNamespace
from providers.docker.settings import Endpoint
from providers.docker.status import addresses
from vkubelet.errors import StreamError
from vkubelet.kuberuntime import tcp

__all__ = ["PodNetwork", "connect_port", "network_of"]

_LOCALHOST = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """
    Where a pod's ports are.

    Attributes:
        namespace: its own network on this machine; None on the host's network, and for an engine elsewhere.
        hosts: addresses that reach it from here, in order; the pod's, or those of the host whose network it
            shares.
        why_not_local: why it cannot be entered, when that is known beforehand.
    """

    namespace: NetworkNamespace | None
    hosts: tuple[str, ...]
    why_not_local: str = ""


def network_of(inspected: Mapping[str, Any], engine: Endpoint) -> PodNetwork:
    """
    Where the ports are of the sandbox that the engine describes so.

    Raises:
        StreamError: it does not run.
    """
    state = inspected.get("State") or {}
    if not state.get("Running"):
        raise StreamError("the pod's sandbox is not running", status=500)
    is_local = engine.unix_path is not None
    if (inspected.get("HostConfig") or {}).get("NetworkMode") == "host":
        return PodNetwork(None, _LOCALHOST if is_local else (engine.host,))
    settings = inspected.get("NetworkSettings") or {}
    hosts = tuple(addresses(settings))
    if not is_local:
        return PodNetwork(None, hosts, why_not_local="the engine is on another machine")
    path, pid = str(settings.get("SandboxKey") or ""), int(state.get("Pid") or 0)
    return PodNetwork(NetworkNamespace(str(inspected["Id"]), path, pid), hosts)


async def connect_port(network: PodNetwork, port: int) -> tcp.TcpConnection:
    """
    Connect to a port of the pod.

    Raises:
        StreamError: with what the client is to be told.
    """
    why_not_local = network.why_not_local
    if network.namespace is not None:
        try:
            return await _connect_in(network.namespace, port)
        except OSError as error:
            why_not_local = tcp.reason(error)
    failures = []
    for host in network.hosts:
        try:
            return await tcp.connect(tcp.socket_for(host), host, port)
        except OSError as error:
            failures.append(f"failed to connect to {_endpoint(host, port)}: {tcp.reason(error)}")
    told = ", ".join(failures) or f"failed to connect to port {port}: the pod has no address"
    if why_not_local:
        told += (
            f" (the pod's network cannot be entered: {why_not_local}; so a port that listens on 127.0.0.1 "
            "alone cannot be reached)"
        )
    raise StreamError(told, status=500)


async def _connect_in(namespace: NetworkNamespace, port: int) -> tcp.TcpConnection:
    """
    Connect to localhost as the pod sees it.

    Raises:
        OSError: the network cannot be entered.
        StreamError: it can, and nothing answers there.
    """
    sock = await namespace.tcp_socket(socket.AF_INET)
    try:
        return await tcp.connect(sock, "127.0.0.1", port)
    except OSError as error:
        over_ipv4 = tcp.reason(error)
    try:
        return await tcp.connect(await namespace.tcp_socket(socket.AF_INET6), "::1", port)
    except OSError as error:
        over_ipv6 = tcp.reason(error)
    raise StreamError(
        f"failed to connect to localhost:{port} inside the pod's network, "
        f"IPv4: {over_ipv4}, IPv6: {over_ipv6}",
        status=500,
    )


def _endpoint(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
