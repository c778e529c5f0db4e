"""
From an HTTP request to the protocol that carries its streams: SPDY/3.1 or WebSocket, and which version.

The rules and answers are the kubelet's (`k8s.io/cri-streaming`, `k8s.io/streaming`): who asks for a WebSocket
gets one, everybody else has to ask for SPDY; the client's favourite version counts; one without a version in
common gets 403 with the list of ours. Any client may use either; none has to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import hdrs, web
from multidict import CIMultiDict

from vkubelet.errors import RemoteProtocolError, StreamError
from vkubelet.protocols import websocket
from vkubelet.protocols.channel_messages import (
    REMOTE_COMMAND_SUBPROTOCOLS,
    Subprotocol,
    negotiate_subprotocol,
)
from vkubelet.protocols.remote_command import (
    SPDY_VERSIONS,
    StreamOptions,
    StreamType,
    Version,
    negotiate,
)

__all__ = [
    "SpdyUpgrade",
    "WebSocketUpgrade",
    "is_websocket",
    "no_common_protocol",
    "no_common_subprotocol",
    "offered_protocols",
    "remote_command_upgrade",
    "spdy_headers",
    "websocket_headers",
]

_SPDY = "SPDY/3.1"
_PROTOCOL_HEADER = "X-Stream-Protocol-Version"
_ACCEPTED_HEADER = "X-Accepted-Stream-Protocol-Versions"


@dataclass(frozen=True, slots=True)
class SpdyUpgrade:
    """
    Remote command over SPDY.

    Attributes:
        headers: of the 101.
    """

    version: Version
    headers: Mapping[str, str]

    def expected_streams(self, options: StreamOptions) -> frozenset[StreamType]:
        """What the client is to open."""
        return options.expected_streams(self.version)


@dataclass(frozen=True, slots=True)
class WebSocketUpgrade:
    """
    Remote command over WebSocket.

    Attributes:
        headers: of the 101.
    """

    subprotocol: Subprotocol
    headers: Mapping[str, str]

    @property
    def version(self) -> Version:
        """Of the remote command protocol."""
        return self.subprotocol.version

    def expected_streams(self, options: StreamOptions) -> frozenset[StreamType]:
        """What there is. The kubelet takes terminal sizes in every version here."""
        resize = {StreamType.RESIZE} if options.tty else set()
        return options.expected_streams(self.version) | resize


def remote_command_upgrade(request: web.Request) -> SpdyUpgrade | WebSocketUpgrade | web.Response:
    """
    How exec and attach are carried, or the 403 for a client that speaks no version of ours.

    Raises:
        StreamError: 400 for a request that asks for no upgrade, or for none that we know.
    """
    if is_websocket(request):
        return _websocket_upgrade(request)
    offered = offered_protocols(request)
    version = negotiate(offered, SPDY_VERSIONS)
    if version is None:
        return no_common_protocol(offered, [version.protocol for version in SPDY_VERSIONS])
    return SpdyUpgrade(version, spdy_headers(version.protocol))


def is_websocket(request: web.Request) -> bool:
    """Whether the client wants a WebSocket."""
    return _wants_upgrade(request) and request.headers.get(hdrs.UPGRADE, "").lower() == "websocket"


def spdy_headers(protocol: str) -> dict[str, str]:
    """The headers of the 101 for SPDY, on which `protocol` is spoken."""
    return {"Upgrade": _SPDY, _PROTOCOL_HEADER: protocol}


def websocket_headers(request: web.Request, subprotocol: str) -> dict[str, str]:
    """
    The headers of the 101 for a WebSocket; `subprotocol` is "" when the client named none.

    Raises:
        StreamError: 400, the request is no valid handshake.
    """
    lower = {name.lower(): value for name, value in request.headers.items()}
    try:
        key = websocket.check_request(lower)
    except RemoteProtocolError as error:
        raise StreamError(f"unable to upgrade: {error}", status=400) from error
    headers = {"Upgrade": "websocket", hdrs.SEC_WEBSOCKET_ACCEPT: websocket.accept_key(key)}
    if subprotocol:
        headers[hdrs.SEC_WEBSOCKET_PROTOCOL] = subprotocol
    return headers


def _websocket_upgrade(request: web.Request) -> WebSocketUpgrade | web.Response:
    offered = websocket.offered_subprotocols(request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, []))
    subprotocol = negotiate_subprotocol(offered)
    if subprotocol is None:
        return no_common_subprotocol([each.name for each in REMOTE_COMMAND_SUBPROTOCOLS])
    return WebSocketUpgrade(subprotocol, websocket_headers(request, subprotocol.name))


def _wants_upgrade(request: web.Request) -> bool:
    return "upgrade" in request.headers.get(hdrs.CONNECTION, "").lower()


def offered_protocols(request: web.Request) -> Sequence[str]:
    """
    What a client that asks for SPDY offers to speak on it.

    Raises:
        StreamError: 400 for a request that asks for no upgrade, or for none that we know.
    """
    if not _wants_upgrade(request) or _SPDY.lower() not in request.headers.get(hdrs.UPGRADE, "").lower():
        raise StreamError(f"unable to upgrade: only {_SPDY} and WebSocket are served here", status=400)
    offered = request.headers.getall(_PROTOCOL_HEADER, [])
    if not any(value.strip() for value in offered):
        raise StreamError(
            f"unable to upgrade: header {_PROTOCOL_HEADER} does not exist in request", status=400
        )
    return offered


def no_common_subprotocol(accepted: Sequence[str]) -> web.Response:
    """The answer to a client whose WebSocket subprotocols we do not speak."""
    return web.Response(
        status=403,
        text=f"unable to upgrade: no WebSocket subprotocol in common, accepted: {', '.join(accepted)}\n",
    )


def no_common_protocol(offered: Sequence[str], accepted: Sequence[str]) -> web.Response:
    """The answer to a client whose protocols over SPDY we do not speak."""
    return web.Response(
        status=403,
        text="unable to upgrade: unable to negotiate protocol: "
        f"client supports {', '.join(offered)}, server accepts {', '.join(accepted)}\n",
        headers=CIMultiDict((_ACCEPTED_HEADER, protocol) for protocol in accepted),
    )
