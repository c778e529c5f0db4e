"""
TCP connections to pods, as `PortConnection`s.

Sockets are read and written by hand. What that buys over asyncio's transports: nothing is read ahead of the
reader, so back-pressure reaches the pod's process through the kernel's buffers; each direction has an end of
its own; and a socket may come from elsewhere, such as from within another network namespace.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

__all__ = ["TcpConnection", "connect", "reason", "socket_for"]

CONNECT_TIMEOUT_S = 10.0


class TcpConnection:
    """A `PortConnection` over a connected socket, which it owns."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def read(self, limit: int) -> bytes:
        """What has come, b"" at the end."""
        return await self._loop.sock_recv(self._sock, limit)

    async def write(self, data: bytes) -> None:
        """Returns when the kernel has taken it."""
        await self._loop.sock_sendall(self._sock, data)

    async def write_eof(self) -> None:
        """Half-close."""
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """End both directions."""
        self._sock.close()


async def connect(
    sock: socket.socket, host: str, port: int, *, timeout_s: float = CONNECT_TIMEOUT_S
) -> TcpConnection:
    """
    Connect `sock`, which is owned from here on, to an IP address.

    Raises:
        OSError: that failed; `reason` words it.
    """
    try:
        sock.setblocking(False)
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except TimeoutError as error:
        sock.close()
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout_s:g} s") from error
    except BaseException:
        sock.close()
        raise
    return TcpConnection(sock)


def socket_for(host: str) -> socket.socket:
    """A TCP socket for an IP address."""
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def reason(error: OSError) -> str:
    """What went wrong, in the system's words, such as "connection refused"; asyncio adds the address."""
    if isinstance(error, TimeoutError) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno).lower()
