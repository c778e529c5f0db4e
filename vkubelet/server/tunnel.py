"""
SPDY inside a WebSocket, as `kubectl port-forward` speaks it since 1.30.

A `TunnelLink` is a `Link` whose bytes travel in binary messages. Where messages begin and end says nothing
(`k8s.io/client-go/tools/portforward`, TunnelingConnection).
"""

from __future__ import annotations

import asyncio
from typing import assert_never

import structlog

from vkubelet.errors import RemoteProtocolError
from vkubelet.protocols import websocket
from vkubelet.server.connection import Link

__all__ = ["TunnelLink"]

_log = structlog.get_logger(__name__)


class TunnelLink(Link):
    """The connection as the one who speaks SPDY sees it; also says goodbye as a WebSocket does."""

    def __init__(self, transport: asyncio.Transport, previous: asyncio.BaseProtocol) -> None:
        super().__init__(transport, previous)
        self._websocket = websocket.Connection(websocket.Role.SERVER)

    def data_received(self, data: bytes) -> None:
        """Pass on what the messages hold; a peer that breaks the protocol loses the connection."""
        try:
            for event in self._websocket.receive_data(data):
                self._dispatch(event)
        except RemoteProtocolError as error:
            _log.warning("stream protocol violated", error=str(error))
            self._flush()
            self.abort()
            return
        self._flush()

    def write(self, data: bytes) -> None:
        """Queue `data` as one message; it goes nowhere when the connection is lost."""
        if data and not self._websocket.close_sent:
            self._websocket.send_message(data)
            self._flush()

    def close(self) -> None:
        """Say goodbye, and close when what was written has gone out."""
        self._websocket.close()
        self._flush()
        super().close()

    def _dispatch(self, event: websocket.Event) -> None:
        match event:
            case websocket.DataReceived():
                if event.is_text:
                    raise RemoteProtocolError("text message in a tunnel of bytes")
                if event.data:
                    super().data_received(event.data)
            case websocket.Closed():
                self._flush()
                self.peer_left()
            case websocket.PingReceived() | websocket.PongReceived():
                pass  # the answer waits in the protocol
            case _:
                assert_never(event)

    def _flush(self) -> None:
        super().write(self._websocket.data_to_send())
