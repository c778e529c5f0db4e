"""
``/portForward``: connections from the client's machine to ports of a pod (`kubectl port-forward`).

Three ways to carry them (`protocols.port_forward`): SPDY, SPDY tunnelled through a WebSocket, and channels of
a WebSocket. Over the first two the client opens a pair of streams whenever it wants a connection, and the
request lasts until the client leaves; over the last one the query names the ports, there is one connection to
each, and the request ends with them.

Memory is bounded for each client, not by what it carries: input that no pod has taken yet is limited for all
streams together (`streaming`), and the more connections there are, the smaller are the chunks in which output
is read. The price is that a client whose one connection is stuck waits with all others, as with the kubelet:
the peers ignore SPDY's windows, so that nothing but TCP can hold them back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from aiohttp import hdrs, web

from vkubelet.clock import Clock
from vkubelet.errors import StreamError
from vkubelet.model.keys import PodKey
from vkubelet.protocols import port_forward, websocket
from vkubelet.protocols.channel_messages import negotiate_subprotocol
from vkubelet.protocols.port_forward import Pair
from vkubelet.provider import PortForwarder
from vkubelet.server.connection import Link, take_over
from vkubelet.server.endpoint import not_supported
from vkubelet.server.forward_session import ForwardSession
from vkubelet.server.pods import PodLookup
from vkubelet.server.served_connection import ServedConnection, StreamTimeouts
from vkubelet.server.spdy_streams import SpdyStreams
from vkubelet.server.streaming import Channel, Streams
from vkubelet.server.tunnel import TunnelLink
from vkubelet.server.upgrade import (
    is_websocket,
    no_common_protocol,
    no_common_subprotocol,
    offered_protocols,
    spdy_headers,
    websocket_headers,
)
from vkubelet.server.websocket_streams import WebSocketStreams

__all__ = ["PortForwardServer", "port_forward_routes"]

_PATHS = ("/portForward/{namespace}/{pod}", "/portForward/{namespace}/{pod}/{uid}")
_MAX_STREAMS = 2048


def port_forward_routes(
    pods: PodLookup, forwarder: PortForwarder | None, server: PortForwardServer
) -> list[web.RouteDef]:
    """GET and POST, with and without the pod's uid in the path; 501 if the provider cannot reach ports."""
    handle = not_supported("this node's provider cannot forward ports of pods")
    if forwarder is not None:
        handle = _Handler(pods, forwarder, server).handle
    return [web.route(method, path, handle) for path in _PATHS for method in ("GET", "POST")]


class _Handler:
    """The endpoint, over one `PortForwarder`."""

    def __init__(self, pods: PodLookup, forwarder: PortForwarder, server: PortForwardServer) -> None:
        self._pods = pods
        self._forwarder = forwarder
        self._server = server

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """
        Serve one client. One that speaks no protocol of ours is answered with 403 and the list of them.

        Raises:
            StreamError: 400 for ports that are none or an upgrade that is not to be had, 404 for a pod that
                is not here.
        """
        subprotocols = websocket.offered_subprotocols(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, []))
        tunnels = any(map(port_forward.is_tunnel, subprotocols))
        ports = _ports(request) if is_websocket(request) and not tunnels else ()
        path = request.match_info
        pod = self._pods.pod(path["namespace"], path["pod"], path.get("uid"))
        if pod is None:
            raise StreamError("pod does not exist", status=404)
        key = pod.key
        with structlog.contextvars.bound_contextvars(
            operation="portForward", namespace=key.namespace, pod=key.name, uid=key.uid
        ):
            if not is_websocket(request):
                return await self._server.serve_spdy(request, self._forwarder, key)
            if tunnels:
                return await self._server.serve_tunnel(request, self._forwarder, key, subprotocols)
            return await self._server.serve_websocket(request, self._forwarder, key, subprotocols, ports)


def _ports(request: web.Request) -> tuple[int, ...]:
    try:
        return port_forward.parse_ports(request.query.getall("port", []))
    except ValueError as error:
        raise StreamError(str(error), status=400) from error


class PortForwardServer:
    """Serves clients; knows every connection that it serves, so that it can end them."""

    def __init__(self, clock: Clock, timeouts: StreamTimeouts | None = None) -> None:
        self._clock = clock
        self._timeouts = timeouts or StreamTimeouts()
        self._connections: dict[ServedConnection, ForwardSession] = {}

    @property
    def open_connections(self) -> int:
        """How many clients are being served."""
        return len(self._connections)

    def drain(self) -> None:
        """Forward nothing new, and let clients go that have nothing open; the others keep what they have."""
        for session in self._connections.values():
            session.drain()

    def shutdown(self) -> None:
        """End every connection."""
        for connection in self._connections:
            connection.end("the server is shutting down")

    # --- the three ways -----------------------------------------------------------------------------------

    async def serve_spdy(
        self, request: web.Request, forwarder: PortForwarder, key: PodKey
    ) -> web.StreamResponse:
        """Until the client leaves."""
        offered = offered_protocols(request)
        if not port_forward.negotiate(offered):
            return no_common_protocol(offered, [port_forward.PROTOCOL])
        link, response = await take_over(request, spdy_headers(port_forward.PROTOCOL))
        await self._serve_streams(link, forwarder, key)
        return response

    async def serve_tunnel(
        self, request: web.Request, forwarder: PortForwarder, key: PodKey, offered: Sequence[str]
    ) -> web.StreamResponse:
        """Until the client leaves."""
        if port_forward.TUNNEL_PROTOCOL not in offered:
            return no_common_subprotocol([port_forward.TUNNEL_PROTOCOL])
        headers = websocket_headers(request, port_forward.TUNNEL_PROTOCOL)
        link, response = await take_over(request, headers, link_type=TunnelLink)
        await self._serve_streams(link, forwarder, key)
        return response

    async def _serve_streams(self, link: Link, forwarder: PortForwarder, key: PodKey) -> None:
        session = self._session(forwarder, key)
        streams = SpdyStreams(link, self._clock, session.accept, max_streams=_MAX_STREAMS)
        async with self._serving(link, streams, session) as connection:
            link.start(streams)
            await session.drained.wait()
            connection.end("the server is shutting down")
            await link.lost.wait()

    async def serve_websocket(
        self,
        request: web.Request,
        forwarder: PortForwarder,
        key: PodKey,
        offered: Sequence[str],
        ports: Sequence[int],
    ) -> web.StreamResponse:
        """One connection to each port, until the pod has ended the last of them or the client leaves."""
        accepted = port_forward.WEBSOCKET_SUBPROTOCOLS
        subprotocol = negotiate_subprotocol(offered, accepted)
        if subprotocol is None:
            return no_common_subprotocol([each.name for each in accepted])
        link, response = await take_over(request, websocket_headers(request, subprotocol.name))
        session = self._session(forwarder, key)
        streams = WebSocketStreams(link, self._clock, subprotocol)
        async with self._serving(link, streams, session):
            link.start(streams)
            pairs = [_open_pair(streams, index, port) for index, port in enumerate(ports)]
            for pair in pairs:
                await _greet(pair)
                session.forward(pair, half_closes=False)
            session.drain()
            await session.drained.wait()
        return response

    # --- inside -------------------------------------------------------------------------------------------

    def _session(self, forwarder: PortForwarder, key: PodKey) -> ForwardSession:
        return ForwardSession(forwarder, key, self._clock, self._timeouts.creation_s)

    @asynccontextmanager
    async def _serving(
        self, link: Link, streams: Streams, session: ForwardSession
    ) -> AsyncIterator[ServedConnection]:
        connection = ServedConnection(link, streams, self._clock, self._timeouts)
        self._connections[connection] = session
        try:
            async with connection.life() as session.tasks:
                yield connection
        finally:
            session.close()
            del self._connections[connection]


def _open_pair(streams: WebSocketStreams, index: int, port: int) -> Pair[Channel]:
    return Pair(
        port,
        streams.open(port_forward.data_channel(index), "data"),
        streams.open(port_forward.error_channel(index), "error"),
    )


async def _greet(pair: Pair[Channel]) -> None:
    for channel in (pair.data, pair.error):
        await channel.write(port_forward.greeting(pair.port))
