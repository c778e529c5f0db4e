"""
``/exec``: run a command in a container, with the client's streams (`kubectl exec`).

Decides who is meant and what is asked, and hands the rest to `remote_session` (streams) and the provider's
`ExecRunner` (the command). What can be known before the upgrade is answered with an HTTP status and a line
of text, in the kubelet's order and words; whatever happens after it is told on the error stream.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from vkubelet.errors import StreamError
from vkubelet.protocols.remote_command import StreamOptions
from vkubelet.provider import ExecRunner
from vkubelet.server.remote_session import RemoteCommandServer, RemoteCommandSession
from vkubelet.server.target import FindPod, container_routes, find_target

__all__ = ["ExecHandler", "stream_options"]


class ExecHandler:
    """The endpoint, over one `ExecRunner`."""

    def __init__(self, runner: ExecRunner, find_pod: FindPod, streams: RemoteCommandServer) -> None:
        self._runner = runner
        self._find_pod = find_pod
        self._streams = streams

    def routes(self) -> list[web.RouteDef]:
        """GET and POST, with and without the pod's uid in the path."""
        return list(container_routes("exec", self.handle, ("GET", "POST")))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """
        Serve one exec, from the query's ``command`` (repeated), ``input``, ``output``, ``error``, ``tty``.

        Raises:
            StreamError: 400 for options that make no sense or an upgrade that is not to be had, 404 for a
                pod that is not here, 500 for a container that does not run.
        """
        options = stream_options(request)
        key, container = find_target(request, self._find_pod)
        command = tuple(request.query.getall("command", ()))
        if not command:
            raise StreamError("you must specify at least one command for the container", status=400)
        if not await self._runner.is_running(key, container):
            raise StreamError(f'container not found ("{container}")', status=500)

        async def run(session: RemoteCommandSession) -> int:
            return await self._runner.exec(key, container, command, session)

        with structlog.contextvars.bound_contextvars(
            operation="exec", namespace=key.namespace, pod=key.name, uid=key.uid, container=container
        ):
            return await self._streams.serve(
                request, options, run, failure="error executing command in container"
            )


def stream_options(request: web.Request) -> StreamOptions:
    """
    The streams that the query asks for.

    Raises:
        StreamError: 400, it asks for none.
    """
    try:
        return StreamOptions.from_query(request.query)
    except ValueError as error:
        raise StreamError(str(error), status=400) from error
