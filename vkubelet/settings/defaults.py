"""
Defaults that depend on the machine: the name, the address, the directory for state.

Each takes the environment's variables and gives text, which is parsed like any other value.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

__all__ = ["host_name", "host_root_dir", "route_ip"]

# Nothing is sent: connecting a datagram socket only asks the routing table. The addresses are those that
# RFC 5737 and RFC 3849 set aside for documents, so they can only match the default route.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_ANY_PORT = 9
_LOOPBACK = "127.0.0.1"
_SYSTEM_STATE = Path("/var/lib")


def host_name(environ: Mapping[str, str]) -> str:
    """The host's name, trimmed and in lower case, as the kubelet names its node."""
    del environ
    return socket.gethostname().strip().lower()


def route_ip(environ: Mapping[str, str]) -> str:
    """The address of the interface that holds the default route, IPv4 first; loopback when there is none."""
    del environ
    for family, elsewhere in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((elsewhere, _ANY_PORT))
                return str(probe.getsockname()[0])
        except OSError:
            continue  # no route in this family, or no such family
    return _LOOPBACK


def host_root_dir(environ: Mapping[str, str]) -> str:
    """
    Where state is kept: ``/var/lib/vkubelet`` for root, else below the user's state directory.

    The latter follows the XDG base directory specification, which has relative paths ignored. Root without
    a writable ``/var/lib`` (a container with a read-only root) counts as a user.
    """
    if os.geteuid() == 0 and os.access(_SYSTEM_STATE, os.W_OK):
        return str(_SYSTEM_STATE / "vkubelet")
    state_home = Path(environ.get("XDG_STATE_HOME", ""))
    if not state_home.is_absolute():
        state_home = Path(environ.get("HOME") or "~") / ".local" / "state"
    return str(state_home / "vkubelet")
