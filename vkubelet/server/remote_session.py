"""
One exec or attach, from the upgrade of its HTTP request to the last byte.

`RemoteCommandServer.serve` takes the request over, waits for the streams that the client asked for, lets a
command use them (a `RemoteCommandSession` is the `provider.ExecIO` it sees) and ends in the order that
clients rely on: all output, then the status on the error stream, then the connection. What the command is,
is the caller's business (`exec.py`).

The time limits are the kubelet's. Its way to end was not taken over: it resets the streams and closes the
socket at once, and a client that is still sending stdin then answers with a TCP reset, which can cost it
the end of the output. Here the output streams end with FLAG_FIN, and the connection is held open, reading
and discarding, until the client has closed it or `linger_s` is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
from aiohttp import web
from multidict import CIMultiDict

from vkubelet.clock import Clock
from vkubelet.errors import ProviderError, StreamError
from vkubelet.protocols.remote_command import (
    SPDY_VERSIONS,
    ExitStatus,
    InternalError,
    RemoteStatus,
    ResizeDecoder,
    StreamOptions,
    StreamType,
    Version,
    encode_status,
    negotiate,
)
from vkubelet.provider import TerminalSize
from vkubelet.server.connection import Link, take_over
from vkubelet.server.streaming import Channel, SpdyStreams

__all__ = ["Command", "RemoteCommandServer", "RemoteCommandSession", "StreamTimeouts"]

_log = structlog.get_logger(__name__)

_PROTOCOL_HEADER = "X-Stream-Protocol-Version"
_ACCEPTED_HEADER = "X-Accepted-Stream-Protocol-Versions"
_SPDY = "SPDY/3.1"
_MAX_STREAMS = 16

Command = Callable[["RemoteCommandSession"], Awaitable[int]]
"""Uses the streams and returns an exit code; raises what the client is to be told."""


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """
    How long streams may take; the defaults are the kubelet's.

    Attributes:
        idle_s: a connection on which nothing moves is closed.
        creation_s: for the client to open the streams it asked for.
        linger_s: for the client to close, once it has everything.
    """

    idle_s: float = 4 * 3600
    creation_s: float = 30
    linger_s: float = 5


class _ConnectionEndedError(Exception):
    """The client has gone, or has been idle for too long; the message says which."""


class RemoteCommandSession:
    """
    The streams of one exec or attach, as the command sees them (`provider.ExecIO`).

    None for what the client did not ask for; usable once `complete` is set.
    """

    def __init__(self, options: StreamOptions, version: Version) -> None:
        self._version = version
        self._tty = options.tty
        self._expected = options.expected_streams(version)
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
        self._connections: set[_Connection] = set()

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
        offered = _offered_versions(request)
        version = negotiate(offered, SPDY_VERSIONS)
        if version is None:
            return _no_common_version(offered)
        link, response = await take_over(request, {"Upgrade": _SPDY, _PROTOCOL_HEADER: version.protocol})
        session = RemoteCommandSession(options, version)
        connection = _Connection(link, session, self._clock, self._timeouts)
        self._connections.add(connection)
        try:
            await connection.run(command, failure)
        finally:
            self._connections.discard(connection)
        return response

    def shutdown(self) -> None:
        """End every connection: the commands are cancelled, the clients are told (GOAWAY)."""
        for connection in self._connections:
            connection.end("the server is shutting down")


class _Connection:
    """The tasks of one served request."""

    def __init__(
        self, link: Link, session: RemoteCommandSession, clock: Clock, timeouts: StreamTimeouts
    ) -> None:
        self._link = link
        self._session = session
        self._clock = clock
        self._timeouts = timeouts
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._streams = SpdyStreams(link, clock, session.accept, max_streams=_MAX_STREAMS)
        link.start(self._streams)

    def end(self, reason: str) -> None:
        """Cancel the command and close, for a reason of ours."""
        if not self._ended.done():
            self._ended.set_result(reason)

    async def run(self, command: Command, failure: str) -> None:
        """Everything between the upgrade and the end of the connection."""
        try:
            async with asyncio.TaskGroup() as tasks:
                guards = [
                    tasks.create_task(self._until_lost(), name="stream until lost"),
                    tasks.create_task(self._until_idle(), name="stream until idle"),
                    tasks.create_task(self._until_ended(), name="stream until ended"),
                ]
                await self._session.finish(await self._perform(command, failure))
                self._streams.goaway()
                await self._link.flush()
                for guard in guards:
                    guard.cancel()
            await self._linger()
        except* (_ConnectionEndedError, ConnectionResetError) as ended:
            _log.info("stream connection ended early", reason=str(ended.exceptions[0]))
        finally:
            self._streams.goaway()
            self._link.close()

    async def _perform(self, command: Command, failure: str) -> RemoteStatus:
        """Run the command once its streams are there; what it raises becomes a status."""
        try:
            async with asyncio.timeout(self._timeouts.creation_s):
                await self._session.complete.wait()
        except TimeoutError:
            return InternalError(f"{failure}: timed out waiting for client to create streams")
        try:
            return ExitStatus(await command(self._session))
        except ProviderError as error:
            return InternalError(f"{failure}: {error}")
        except Exception as error:  # the one boundary of a session: the client must hear of it
            if self._link.lost.is_set():
                raise ConnectionResetError("the client has gone") from error
            _log.exception("remote command failed")
            return InternalError(f"{failure}: {error}")

    async def _linger(self) -> None:
        """Give the client time to close the connection, which has carried all it will."""
        try:
            async with asyncio.timeout(self._timeouts.linger_s):
                await self._link.lost.wait()
        except TimeoutError:
            pass  # it has everything, and may be closed

    # --- guards: each ends the session by raising ---------------------------------------------------------

    async def _until_lost(self) -> None:
        await self._link.lost.wait()
        self._streams.lost()
        raise _ConnectionEndedError("the client has gone")

    async def _until_idle(self) -> None:
        while (left_s := self._idle_left_s()) > 0:
            await self._clock.sleep(left_s)
        raise _ConnectionEndedError(f"nothing moved for {self._timeouts.idle_s:g} s")

    async def _until_ended(self) -> None:
        raise _ConnectionEndedError(await self._ended)

    def _idle_left_s(self) -> float:
        return self._streams.last_activity + self._timeouts.idle_s - self._clock.monotonic()


def _offered_versions(request: web.Request) -> Sequence[str]:
    """
    What the client offers to speak.

    Raises:
        StreamError: 400 for a request that asks for no upgrade, or for none that we know.
    """
    connection = request.headers.get("Connection", "").lower()
    upgrade = request.headers.get("Upgrade", "").lower()
    if "upgrade" not in connection or _SPDY.lower() not in upgrade:
        raise StreamError(f"unable to upgrade: only {_SPDY} is served here", status=400)
    offered = request.headers.getall(_PROTOCOL_HEADER, [])
    if not any(value.strip() for value in offered):
        raise StreamError(
            f"unable to upgrade: header {_PROTOCOL_HEADER} does not exist in request", status=400
        )
    return offered


def _no_common_version(offered: Sequence[str]) -> web.Response:
    accepted = [version.protocol for version in SPDY_VERSIONS]
    return web.Response(
        status=403,
        text="unable to upgrade: unable to negotiate protocol: "
        f"client supports {', '.join(offered)}, server accepts {', '.join(accepted)}\n",
        headers=CIMultiDict((_ACCEPTED_HEADER, protocol) for protocol in accepted),
    )
