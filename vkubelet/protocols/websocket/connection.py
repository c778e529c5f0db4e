"""
One WebSocket after its handshake, for either side.

A peer that breaks a rule gets a Close frame with the reason and `receive_data` raises (section 7.1.7); after
that, as after a Close frame of the peer, nothing more is read. After a Close frame of ours nothing more is
sent; what the peer still sends is read, since it may be an end that crossed ours.
"""

from __future__ import annotations

import os
from enum import StrEnum

from vkubelet.errors import LocalProtocolError
from vkubelet.protocols.websocket import frames
from vkubelet.protocols.websocket.events import Closed, DataReceived, Event, PingReceived, PongReceived
from vkubelet.protocols.websocket.frames import CloseCode, Opcode, WebSocketError

__all__ = ["Connection", "Role"]

_APPLICATION_CODES = range(3000, 5000)
_CODES = frozenset({1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014})


class Role(StrEnum):
    """Which side we are: a client masks what it sends, a server does not (section 5.1)."""

    CLIENT = "client"
    SERVER = "server"


class Connection:
    """
    A WebSocket without input and output.

    Everything to be written collects in `data_to_send`, answers to pings included: call it after each
    `receive_data`, also after one that raised.

    Attributes:
        close_sent: our Close frame is out or waits in `data_to_send`; sending has ended.
        close_received: the peer's has come; reading has ended.
    """

    def __init__(self, role: Role) -> None:
        self._is_client = role is Role.CLIENT
        self._decoder = frames.FrameDecoder(expect_masked=not self._is_client)
        self._outgoing: list[bytes] = []
        self._failed = False
        self.close_sent = False
        self.close_received = False

    # --- from the peer ------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Event]:
        """
        What the bytes that were read mean, in order.

        Raises:
            RemoteProtocolError: the peer broke a rule; write what `data_to_send` has and close.
        """
        happened: list[Event] = []
        if self._failed or self.close_received:
            return happened
        try:
            for frame in self._decoder.feed(data):
                event = self._receive(frame)
                happened.append(event)
                if isinstance(event, Closed):
                    break
        except WebSocketError as error:
            self._failed = True
            self.close(error.code, str(error))
            raise
        return happened

    def _receive(self, frame: frames.Frame) -> Event:
        if isinstance(frame, frames.Data):
            return DataReceived(frame.payload, frame.is_text, frame.begins, frame.ends)
        if frame.opcode is Opcode.PING:
            self._send_control(Opcode.PONG, frame.payload)
            return PingReceived()
        if frame.opcode is Opcode.PONG:
            return PongReceived(frame.payload)
        return self._receive_close(frame.payload)

    def _receive_close(self, payload: bytes) -> Closed:
        """Section 5.5.1: answered with the same code, unless we closed first."""
        code, reason = _parse_close(payload)
        self.close_received = True
        if not self.close_sent:
            self._send_control(Opcode.CLOSE, payload[:2])
            self.close_sent = True
        return Closed(code, reason)

    # --- to the peer --------------------------------------------------------------------------------------

    def data_to_send(self) -> bytes:
        """What is to be written now; each byte is returned once."""
        outgoing, self._outgoing = self._outgoing, []
        return outgoing[0] if len(outgoing) == 1 else b"".join(outgoing)

    def send_message(self, payload: bytes, *, prefix: bytes = b"", is_text: bool = False) -> None:
        """
        Send one message of one frame: `prefix` and `payload`, which need not be joined for that.

        Raises:
            LocalProtocolError: the connection is closed for sending.
        """
        self._send(Opcode.TEXT if is_text else Opcode.BINARY, prefix, payload, fin=True)

    def send_fragment(self, payload: bytes, *, begins: bool, ends: bool, is_text: bool = False) -> None:
        """
        Send a part of a message; between its parts nothing else but control frames may be sent.

        Raises:
            LocalProtocolError: the connection is closed for sending.
        """
        opcode = Opcode.CONTINUATION if not begins else Opcode.TEXT if is_text else Opcode.BINARY
        self._send(opcode, b"", payload, fin=ends)

    def ping(self, payload: bytes = b"") -> None:
        """Ask for a sign of life: it comes back as `PongReceived`."""
        self._send_control(Opcode.PING, payload)

    def pong(self) -> None:
        """Give a sign of life that nobody asked for (section 5.5.3)."""
        self._send_control(Opcode.PONG, b"")

    def close(self, code: CloseCode = CloseCode.NORMAL, reason: str = "") -> None:
        """Say why this ends; sent once."""
        if not self.close_sent:
            text = reason.encode()[: frames.MAX_CONTROL_LENGTH - 2].decode(errors="ignore").encode()
            self._send_control(Opcode.CLOSE, code.to_bytes(2, "big") + text)
            self.close_sent = True

    def _send(self, opcode: Opcode, prefix: bytes, payload: bytes, *, fin: bool) -> None:
        if self.close_sent:
            raise LocalProtocolError("the WebSocket is closed for sending")
        key = os.urandom(4) if self._is_client else b""
        self._outgoing.append(frames.frame_header(opcode, len(prefix) + len(payload), fin=fin, key=key))
        if key:
            self._outgoing.append(frames.mask(prefix + payload, key))
            return
        self._outgoing += (part for part in (prefix, payload) if part)

    def _send_control(self, opcode: Opcode, payload: bytes) -> None:
        """Control frames after our Close are left out: nobody listens."""
        if len(payload) > frames.MAX_CONTROL_LENGTH:
            raise LocalProtocolError(f"a WebSocket control frame cannot hold {len(payload)} bytes")
        if not self.close_sent:
            self._send(opcode, b"", payload, fin=True)


def _parse_close(payload: bytes) -> tuple[int, str]:
    """Section 7.4: a code that may be sent, and a reason in UTF-8."""
    if not payload:
        return CloseCode.NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or (code not in _CODES and code not in _APPLICATION_CODES):
        raise WebSocketError(f"WebSocket Close frame with the code {code}")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError as error:
        raise WebSocketError(
            "WebSocket Close frame with a reason that is not UTF-8", CloseCode.INVALID_PAYLOAD
        ) from error
