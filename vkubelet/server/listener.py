"""
The server's port: bound at the start, listened on when there is a certificate, and never more than it bears.

Binding early tells a wrong ``--port`` before anything is done in the cluster, and fixes the number that the
Node carries; until `Acceptor.listen` clients are refused by the system, as by a kubelet that is not up yet.

Connections are accepted here rather than by asyncio's own server, which knows no limits: above
`max_connections` a client is closed at once instead of after a handshake, a handshake has ten seconds, and
the first request's head thirty (later ones fall under the keep-alive time). So clients that connect and say
nothing cost little, and not for long.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Final, NoReturn

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from vkubelet.errors import ConfigurationError

__all__ = ["MAX_CONNECTIONS", "Acceptor", "bind"]

log = structlog.get_logger(__name__)

MAX_CONNECTIONS: Final = 5000
_BACKLOG: Final = 1024
_HANDSHAKE_S: Final = 10.0
_FIRST_HEAD_S: Final = 30.0
_LAST_HANDSHAKES_S: Final = 1.0
_AT_ONCE: Final = 64
"""Connections accepted before the event loop turns to something else."""
_OUT_OF_RESOURCES_S: Final = 1.0
"""How long nothing is accepted while the system has no descriptor or memory left."""


def bind(address: str, port: int) -> socket.socket:
    """
    A socket for `address` and `port` (0 takes a free one) that does not listen yet; the caller closes it.

    Raises:
        ConfigurationError: it cannot be had; the sentence names ``--port`` or ``--address``.
    """
    is_ipv6 = ":" in address
    made = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_ipv6 and socket.has_dualstack_ipv6():
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
        made.setblocking(False)
        made.bind((address, port))
    except OSError as error:
        made.close()
        _refuse(error, address, port)
    return made


def _refuse(error: OSError, address: str, port: int) -> NoReturn:
    match error.errno:
        case errno.EADDRINUSE:
            problem = f"--port {port} is taken on {address}: stop what listens there or choose another port"
        case errno.EACCES:
            problem = f"--port {port} may not be used: choose one above 1023"
        case _:
            problem = f"--address {address} with --port {port} cannot be served on: {error.strerror}"
    raise ConfigurationError(problem) from error


class Acceptor:
    """
    Hands the connections of `listener` to `server`.

    Args:
        context: for TLS; asked anew for each connection, see `tls`.
        max_connections: open at once, those in their handshake included.
    """

    def __init__(
        self, listener: socket.socket, server: web.Server, context: ssl.SSLContext, max_connections: int
    ) -> None:
        self._listener = listener
        self._server = server
        self._context = context
        self._max_connections = max_connections
        self._handshakes: set[asyncio.Task[None]] = set()
        self._is_listening = False
        self._is_full = False
        self._silent: dict[asyncio.BaseProtocol, asyncio.TimerHandle | None] = {}

    def listen(self) -> None:
        """
        Let clients connect.

        Raises:
            ConfigurationError: somebody else began to listen on the port since it was bound.
        """
        try:
            self._listener.listen(_BACKLOG)
        except OSError as error:
            _refuse(error, *self._listener.getsockname()[:2])
        self._is_listening = True
        self._go_on()

    def head_came(self, protocol: asyncio.BaseProtocol) -> None:
        """A request's head has come on this connection: it is not one of those that say nothing."""
        if timer := self._silent.pop(protocol, None):
            timer.cancel()

    async def close(self) -> None:
        """Take no more connections; handshakes under way get a second."""
        if self._is_listening:
            self._is_listening = False
            asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        if self._handshakes:
            await asyncio.wait(tuple(self._handshakes), timeout=_LAST_HANDSHAKES_S)
        for handshake in self._handshakes:
            handshake.cancel()
        for timer in filter(None, self._silent.values()):
            timer.cancel()
        self._silent.clear()

    def _accept(self) -> None:
        """Called while clients wait; a task around `sock_accept` would lose a connection when cancelled."""
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionError:
                continue  # the client left while it waited
            except OSError as error:
                log.error("connection cannot be accepted", error=str(error))
                self._pause()
                return
            connection.setblocking(False)
            if self._has_room():
                handshake = asyncio.create_task(self._shake_hands(connection), name="TLS handshake")
                self._handshakes.add(handshake)
                handshake.add_done_callback(self._handshakes.discard)
            else:
                connection.close()

    def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        loop.call_later(_OUT_OF_RESOURCES_S, self._go_on)

    def _go_on(self) -> None:
        if self._is_listening:
            asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _has_room(self) -> bool:
        was_full = self._is_full
        self._is_full = len(self._handshakes) + len(self._server.connections) >= self._max_connections
        if self._is_full and not was_full:
            log.warning(
                "too many connections, further ones are closed", max_connections=self._max_connections
            )
        return not self._is_full

    async def _shake_hands(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        # Noted before the handshake, whose end may bring the first request with it. (What the loop returns in
        # the end is the protocol with asyncio, and something of its own with uvloop.)
        protocol = self._server()
        self._silent[protocol] = None
        try:
            await loop.connect_accepted_socket(
                lambda: protocol, connection, ssl=self._context, ssl_handshake_timeout=_HANDSHAKE_S
            )
        except (OSError, ssl.CertificateError, TimeoutError) as error:
            log.debug("TLS handshake failed", error=str(error) or type(error).__name__)
            self._silent.pop(protocol, None)
            connection.close()
        else:
            if protocol in self._silent:
                self._silent[protocol] = loop.call_later(_FIRST_HEAD_S, self._cut_off, protocol)

    def _cut_off(self, protocol: RequestHandler) -> None:
        self._silent.pop(protocol, None)
        if protocol.transport is not None:
            protocol.transport.abort()
