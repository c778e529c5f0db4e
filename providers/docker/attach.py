"""
A client at a container's own streams (`kubectl attach`), over a hijacked connection.

The engine knows the rules: at the end of a client's input it ends the container's, if that has `stdinOnce`
and no terminal, and detaches the client otherwise. A client that goes is detached by closing the connection.

One rule it does not have: attached a moment after a container has ended, it says nothing for ever. So the end
is watched, and an attachment that came too late is told to the client, as CRI runtimes tell it; kubectl then
shows the log instead.

What a container wrote before is the log's business. Like a kubelet over a CRI runtime, the engine lets a
slow reader hold the container up.
"""

from __future__ import annotations

import asyncio
from urllib.parse import urlencode

from providers.docker import status
from providers.docker.attached_streams import AttachedStreams
from providers.docker.client import EngineClient
from vkubelet.clock import Clock
from vkubelet.errors import PodNotFoundError, ProviderError, RemoteProtocolError, StreamError
from vkubelet.provider import ExecIO

__all__ = ["attach"]

_DETACH_KEYS = b",".join([b"\xff", b"\xfe"] * 4)
"""
Bytes that no terminal sends, as they are not UTF-8.

Without this the engine takes ctrl-p,ctrl-q for a wish to detach, and holds each ctrl-p until the next key.
"""


_LAST_OUTPUT_S = 1.0
"""The engine hands on the last output, and closes, in milliseconds after the end of the container."""


async def attach(client: EngineClient, clock: Clock, container_id: str, io: ExecIO) -> None:
    """
    See `Attacher.attach`.

    Raises:
        PodNotFoundError: there is no such container.
        StreamError: it has ended, the engine refuses, or the streams broke.
    """
    target = f"/containers/{container_id}"
    try:
        inspected = await client.get(f"{target}/json")
        connection = await client.hijack(f"{target}/attach?{_query(io)}")
        try:
            has_terminal = status.has_terminal(inspected)
            streams = AttachedStreams(client, clock, target, connection, io, has_terminal=has_terminal)
            await _run_until_over(client, clock, target, streams)
        finally:
            connection.close()
    except (PodNotFoundError, StreamError):
        raise
    except (ProviderError, RemoteProtocolError) as error:
        raise StreamError(str(error), status=500) from error


async def _run_until_over(client: EngineClient, clock: Clock, target: str, streams: AttachedStreams) -> None:
    running = asyncio.create_task(streams.run(), name="attached streams")
    watching = asyncio.create_task(_silent_end(client, clock, target, streams), name="watch for the end")
    try:
        await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
            return
        watching.result()
    finally:
        for task in (running, watching):
            task.cancel()
        await asyncio.gather(running, watching, return_exceptions=True)
    if not streams.received:
        raise StreamError("container is not running: it has ended before it could be attached to", status=500)


async def _silent_end(client: EngineClient, clock: Clock, target: str, streams: AttachedStreams) -> None:
    """Return when the container has ended and the engine has been silent for a while after that."""
    try:
        async with client.stream("POST", f"{target}/wait", {"condition": "not-running"}) as answer:
            async for _ in answer:
                pass
    except PodNotFoundError:
        pass  # it is even gone
    ended_at = clock.monotonic()
    while True:
        await clock.sleep(_LAST_OUTPUT_S)
        since = streams.waiting_since
        if since is not None and clock.monotonic() - max(since, ended_at) >= _LAST_OUTPUT_S:
            return


def _query(io: ExecIO) -> str:
    wanted = {"stdin": io.stdin, "stdout": io.stdout, "stderr": io.stderr}
    streams = {name: "1" for name, stream in wanted.items() if stream is not None}
    return urlencode({"stream": "1", "logs": "0", "detachKeys": _DETACH_KEYS, **streams})
