"""
``/attach``: connect a client to a container's own streams (`kubectl attach`, `kubectl run -it`).

Like `exec` up to the command, of which there is none. The client leaves when it likes and the container goes
on; when the container ends, the client is told success whatever its exit code, as on the kubelet: clients
read the code from the pod's status.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from vkubelet.errors import StreamError
from vkubelet.provider import Attacher
from vkubelet.server.exec import stream_options
from vkubelet.server.remote_session import RemoteCommandServer, RemoteCommandSession
from vkubelet.server.target import FindPod, container_routes, find_target

__all__ = ["AttachHandler"]


class AttachHandler:
    """The endpoint, over one `Attacher`."""

    def __init__(self, attacher: Attacher, find_pod: FindPod, streams: RemoteCommandServer) -> None:
        self._attacher = attacher
        self._find_pod = find_pod
        self._streams = streams

    def routes(self) -> list[web.RouteDef]:
        """GET and POST, with and without the pod's uid in the path."""
        return list(container_routes("attach", self.handle, ("GET", "POST")))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """
        Serve one attach, from the query's ``input``, ``output``, ``error``, ``tty``.

        Raises:
            StreamError: 400 for options that make no sense or an upgrade that is not to be had, 404 for a
                pod that is not here, 500 for a container that does not run.
        """
        options = stream_options(request)
        key, container = find_target(request, self._find_pod)
        if not await self._attacher.is_running(key, container):
            full_name = f"{key.name}_{key.namespace}"
            raise StreamError(f"container {container} not found in pod {full_name}", status=500)

        async def attach(session: RemoteCommandSession) -> int:
            await self._attacher.attach(key, container, session)
            return 0

        with structlog.contextvars.bound_contextvars(
            operation="attach", namespace=key.namespace, pod=key.name, uid=key.uid, container=container
        ):
            return await self._streams.serve(request, options, attach, failure="error attaching to container")
