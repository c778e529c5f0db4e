"""
One exec or attach, from the upgrade of its HTTP request to the last byte.

`RemoteCommandServer.serve` takes the request over, waits for the streams that the client asked for, lets a
command use them (a `RemoteCommandSession` is the `provider.ExecIO` it sees) and ends in the order that
clients rely on: all output, then the status on the error stream, then the connection. What the command is,
is the caller's business (`exec.py`, `attach.py`); what carries the streams is `upgrade`'s choice.

The connection's life is `served_connection.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import assert_never

import structlog
from aiohttp import web

from vkubelet.clock import Clock
from vkubelet.errors import ProviderError
from vkubelet.protocols.remote_command import (
    WEBSOCKET_CHANNELS,
    ExitStatus,
    InternalError,
    RemoteStatus,
    ResizeDecoder,
    StreamOptions,
    StreamType,
    Version,
    encode_status,
)
from vkubelet.provider import TerminalSize
from vkubelet.server.connection import Link, take_over
from vkubelet.server.served_connection import ServedConnection, StreamTimeouts
from vkubelet.server.spdy_streams import SpdyStreams
from vkubelet.server.streaming import Channel, Streams
from vkubelet.server.upgrade import SpdyUpgrade, WebSocketUpgrade, remote_command_upgrade
from vkubelet.server.websocket_streams import WebSocketStreams

__all__ = ["Command", "RemoteCommandServer", "RemoteCommandSession"]

_log = structlog.get_logger(__name__)

_MAX_STREAMS = 16

Command = Callable[["RemoteCommandSession"], Awaitable[int]]
"""Uses the streams and returns an exit code; raises what the client is to be told."""


class RemoteCommandSession:
    """
    The streams of one exec or attach, as the command sees them (`provider.ExecIO`).

    None for what the client did not ask for; usable once `complete` is set.
    """

    def __init__(self, version: Version, expected: frozenset[StreamType], *, tty: bool) -> None:
        self._version = version
        self._tty = tty
        self._expected = expected
        self._channels: dict[StreamType, Channel] = {}
        self._resizes: AsyncIterator[TerminalSize] | None = None
        self.complete = asyncio.Event()

    @property
    def stdin(self) -> AsyncIterator[bytes] | None:
        """Input in large chunks; ends at the client's half-close."""
        return self._asked_for(StreamType.STDIN)

    @property
    def stdout(self) -> Channel | None:
        """Where standard output goes."""
        return self._asked_for(StreamType.STDOUT)

    @property
    def stderr(self) -> Channel | None:
        """Where standard error goes; None with a terminal."""
        return self._asked_for(StreamType.STDERR)

    @property
    def tty(self) -> bool:
        """The command gets a terminal."""
        return self._tty

    @property
    def resizes(self) -> AsyncIterator[TerminalSize] | None:
        """Sizes of the client's terminal; None without one, and before v3 of the protocol."""
        return self._resizes

    def accept(self, channel: Channel) -> bool:
        """Take a stream that the client opens; False for an unknown type or one that is there already."""
        try:
            stream = StreamType(channel.headers.get("streamtype", ""))
        except ValueError:
            return False
        if stream in self._channels:
            return False
        self._channels[stream] = channel
        if stream is StreamType.RESIZE and stream in self._expected:
            self._resizes = _terminal_sizes(channel)
        elif stream is not StreamType.STDIN or stream not in self._expected:
            channel.discard()
        if self._expected <= self._channels.keys():
            self.complete.set()
        return True

    async def finish(self, status: RemoteStatus) -> None:
        """End the output, then tell the status, then end what else is open."""
        error = self._channels.pop(StreamType.ERROR, None)
        for stream in (StreamType.STDOUT, StreamType.STDERR):
            if (channel := self._channels.pop(stream, None)) is not None:
                channel.end()
        if error is not None:
            await error.write(encode_status(status, self._version))
            error.end()
        for channel in self._channels.values():
            channel.reset()
        self._channels.clear()

    def _asked_for(self, stream: StreamType) -> Channel | None:
        return self._channels.get(stream) if stream in self._expected else None


async def _terminal_sizes(channel: Channel) -> AsyncIterator[TerminalSize]:
    decoder = ResizeDecoder()
    async for data in channel:
        for width, height in decoder.feed(data):
            yield TerminalSize(width, height)


class RemoteCommandServer:
    """Serves exec and attach; knows every connection that it serves, so that it can end them."""

    def __init__(self, clock: Clock, timeouts: StreamTimeouts | None = None) -> None:
        self._clock = clock
        self._timeouts = timeouts or StreamTimeouts()
        self._connections: set[ServedConnection] = set()

    @property
    def open_connections(self) -> int:
        """How many clients are being served."""
        return len(self._connections)

    async def serve(
        self, request: web.Request, options: StreamOptions, command: Command, *, failure: str
    ) -> web.StreamResponse:
        """
        Upgrade `request`, run `command` on its streams, and return when all is over.

        `failure` is what the client is told before the message of an error that `command` raises, such as
        "error executing command in container". Cancelled, it ends the command and closes. A client that
        speaks no version of ours is answered with 403 and the list of them.

        Raises:
            StreamError: 400, the request cannot be upgraded.
        """
        upgrade = remote_command_upgrade(request)
        if isinstance(upgrade, web.Response):
            return upgrade
        link, response = await take_over(request, upgrade.headers)
        session = RemoteCommandSession(upgrade.version, upgrade.expected_streams(options), tty=options.tty)
        streams = _open_streams(link, session, upgrade, options, self._clock)
        connection = ServedConnection(link, streams, self._clock, self._timeouts)
        self._connections.add(connection)
        try:
            async with connection.life():
                await session.finish(await self._perform(session, link, command, failure))
        finally:
            self._connections.discard(connection)
        return response

    async def _perform(
        self, session: RemoteCommandSession, link: Link, command: Command, failure: str
    ) -> RemoteStatus:
        """Run the command once its streams are there; what it raises becomes a status."""
        try:
            async with asyncio.timeout(self._timeouts.creation_s):
                await session.complete.wait()
        except TimeoutError:
            return InternalError(f"{failure}: timed out waiting for client to create streams")
        try:
            return ExitStatus(await command(session))
        except ProviderError as error:
            return InternalError(f"{failure}: {error}")
        except Exception as error:  # the one boundary of a session: the client must hear of it
            if link.lost.is_set():
                raise ConnectionResetError("the client has gone") from error
            _log.exception("remote command failed")
            return InternalError(f"{failure}: {error}")

    def shutdown(self) -> None:
        """End every connection: the commands are cancelled, the clients are told (GOAWAY, Close)."""
        for connection in self._connections:
            connection.end("the server is shutting down")


def _open_streams(
    link: Link,
    session: RemoteCommandSession,
    upgrade: SpdyUpgrade | WebSocketUpgrade,
    options: StreamOptions,
    clock: Clock,
) -> Streams:
    """Start the link. Over SPDY the client opens the streams, over WebSocket they are all there at once."""
    match upgrade:
        case SpdyUpgrade():
            spdy = SpdyStreams(link, clock, session.accept, max_streams=_MAX_STREAMS)
            link.start(spdy)
            return spdy
        case WebSocketUpgrade():
            websocket = WebSocketStreams(link, clock, upgrade.subprotocol)
            link.start(websocket)
            for stream in upgrade.expected_streams(options):
                session.accept(websocket.open(WEBSOCKET_CHANNELS[stream], stream))
            websocket.greet(WEBSOCKET_CHANNELS[_first_output(options)])
            return websocket
    assert_never(upgrade)


def _first_output(options: StreamOptions) -> StreamType:
    if options.stdout:
        return StreamType.STDOUT
    return StreamType.STDERR if options.stderr else StreamType.ERROR
