"""
A client at a container's own streams (`kubectl attach`), over a hijacked connection.

The engine knows the rules: at the end of a client's input it ends the container's, if that has `stdinOnce`
and no terminal, and detaches the client otherwise. A client that goes is detached by closing the connection.

What a container wrote before is the log's business. Like a kubelet over a CRI runtime, the engine lets a
slow reader hold the container up.
"""

from __future__ import annotations

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


async def attach(client: EngineClient, clock: Clock, container_id: str, io: ExecIO) -> None:
    """
    See `Attacher.attach`.

    Raises:
        PodNotFoundError: there is no such container.
        StreamError: the engine refuses, or the streams broke.
    """
    target = f"/containers/{container_id}"
    try:
        inspected = await client.get(f"{target}/json")
        connection = await client.hijack(f"{target}/attach?{_query(io)}")
        try:
            has_terminal = status.has_terminal(inspected)
            streams = AttachedStreams(client, clock, target, connection, io, has_terminal=has_terminal)
            await streams.run()
        finally:
            connection.close()
    except (PodNotFoundError, StreamError):
        raise
    except (ProviderError, RemoteProtocolError) as error:
        raise StreamError(str(error), status=500) from error


def _query(io: ExecIO) -> str:
    wanted = {"stdin": io.stdin, "stdout": io.stdout, "stderr": io.stderr}
    streams = {name: "1" for name, stream in wanted.items() if stream is not None}
    return urlencode({"stream": "1", "logs": "0", "detachKeys": _DETACH_KEYS, **streams})
