"""Ports and addresses of this machine."""

from __future__ import annotations

import itertools
import random
import socket

from vkubelet.settings import defaults

__all__ = ["DOCKER_BRIDGE_GATEWAY", "free_ports", "host_ip", "is_open"]

DOCKER_BRIDGE_GATEWAY = "172.17.0.1"  # Docker's default; how a container on the default bridge reaches us
_LISTENING_RANGE = range(20000, 30000)  # below node ports (30000) and ephemeral ports (32768)


def free_ports(count: int) -> list[int]:
    """
    Different ports that nothing listened on a moment ago.

    They are outside the range that the kernel takes for outgoing connections: while a server is down for a
    restart, a client's attempt to reach it could otherwise be given the very port as its own, and keep it.
    """
    return list(itertools.islice((port for port in _shuffled_ports() if _is_free(port)), count))


def _shuffled_ports() -> list[int]:
    return random.sample(_LISTENING_RANGE, len(_LISTENING_RANGE))


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def host_ip() -> str:
    """
    The address this machine has towards the outside, 127.0.0.1 when it has none.

    A node's address should not be a loopback one: the API server refuses to proxy to those.
    """
    return defaults.route_ip({})


def is_open(address: str, port: int) -> bool:
    """Whether something accepts TCP connections there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
