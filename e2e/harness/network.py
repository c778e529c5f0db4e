"""Ports and addresses of this machine."""

from __future__ import annotations

import socket

__all__ = ["DOCKER_BRIDGE_GATEWAY", "free_ports", "host_ip"]

DOCKER_BRIDGE_GATEWAY = "172.17.0.1"  # Docker's default; how a container on the default bridge reaches us


def free_ports(count: int) -> list[int]:
    """Different ports that nothing listened on a moment ago; all are held until all are known."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind(("0.0.0.0", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def host_ip() -> str:
    """
    The address this machine has towards the outside, 127.0.0.1 when it has none.

    A node's address must not be a loopback one: the API server refuses to proxy to those.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing; makes the kernel choose a route
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"
