"""
Sockets in a container's network, for ports that only listen on the container's own 127.0.0.1.

A socket belongs to the network namespace it was made in, for good, and who uses it may be elsewhere. So one
thread per socket enters the namespace (setns(2) moves a single thread), makes the socket, and ends; no thread
comes back from a namespace, and the event loop's never goes. It costs a few tenths of a millisecond.

It needs CAP_SYS_ADMIN, and the engine on this machine. Turned down: a helper process in the namespace
(nsenter and socat, as dockershim had it), which costs a process and more copies for each connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NetworkNamespace"]

_CLONE_NEWNET = 0x4000_0000


@dataclass(frozen=True, slots=True)
class NetworkNamespace:
    """
    A container's network, and where it may be found on this machine.

    Attributes:
        container_id: whose it is.
        path: where the engine has bound it, "" for nowhere.
        pid: of the container's first process as the engine counts, 0 for none.
    """

    container_id: str
    path: str = ""
    pid: int = 0

    async def tcp_socket(self, family: socket.AddressFamily) -> socket.socket:
        """
        A TCP socket in it.

        Raises:
            OSError: it is not to be found here, or may not be entered.
        """
        return await _in_own_thread(lambda: self._make_socket(family))

    def _make_socket(self, family: socket.AddressFamily) -> socket.socket:
        """In a thread that has no other use."""
        namespace = self._open()
        try:
            _enter(namespace)
        finally:
            os.close(namespace)
        return socket.socket(family, socket.SOCK_STREAM)

    def _open(self) -> int:
        """By the engine's name for it, which is no other's; else by the process."""
        if self.path:
            with contextlib.suppress(OSError):
                return _open_namespace(self.path)
        if not self.pid:
            raise FileNotFoundError(errno.ENOENT, "it is not on this machine")
        namespace = _open_namespace(f"/proc/{self.pid}/ns/net")
        # The engine may count processes otherwise than we do, and numbers are used again: so the process must
        # have this container's files mounted, now that its namespace is held open.
        if self.container_id not in Path(f"/proc/{self.pid}/mountinfo").read_text(errors="replace"):
            os.close(namespace)
            raise FileNotFoundError(errno.ENOENT, "it is not on this machine")
        return namespace


def _open_namespace(path: str) -> int:
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    # What is left of a namespace that has gone is an empty file on the disk's file system.
    if os.fstat(namespace).st_dev != os.stat("/proc/self/ns/net").st_dev:
        os.close(namespace)
        raise FileNotFoundError(errno.ENOENT, "it is not on this machine")
    return namespace


def _enter(namespace: int) -> None:
    """setns(2) for the calling thread; Python has it from 3.12 on."""
    setns = getattr(os, "setns", None)
    if setns is not None:
        setns(namespace, _CLONE_NEWNET)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


async def _in_own_thread(make: Callable[[], socket.socket]) -> socket.socket:
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[socket.socket] = loop.create_future()

    def deliver(made: socket.socket | OSError) -> None:
        if isinstance(made, OSError):
            if not outcome.done():
                outcome.set_exception(made)
        elif outcome.done():  # nobody waits any more
            made.close()
        else:
            outcome.set_result(made)

    def run() -> None:
        made: socket.socket | OSError
        try:
            made = make()
        except OSError as error:
            made = error
        try:
            loop.call_soon_threadsafe(deliver, made)
        except RuntimeError:  # the loop has ended meanwhile
            if isinstance(made, socket.socket):
                made.close()

    threading.Thread(target=run, name="socket in network namespace", daemon=True).start()
    try:
        return await outcome
    except asyncio.CancelledError:
        if outcome.done() and not outcome.cancelled() and outcome.exception() is None:
            outcome.result().close()
        raise
