"""
``/run``: run a command and answer with what it wrote, without streams or upgrade.

As on the kubelet: POST only, the command in ``cmd`` with words parted by single spaces, stdout then stderr in
the body, and, oddly, ``application/json`` for a type. A command that fails is an error of the server.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiohttp import web

from vkubelet.errors import StreamError
from vkubelet.provider import ExecRunner, TerminalSize
from vkubelet.server.target import FindPod, container_routes, find_target

__all__ = ["RunHandler"]

_MAX_OUTPUT_BYTES = 16 << 20
"""Of each stream; the rest is thrown away, as CRI runtimes do for `ExecSync`."""


class RunHandler:
    """The endpoint, over one `ExecRunner`."""

    def __init__(self, runner: ExecRunner, find_pod: FindPod) -> None:
        self._runner = runner
        self._find_pod = find_pod

    def routes(self) -> list[web.RouteDef]:
        """POST, with and without the pod's uid in the path."""
        return list(container_routes("run", self.handle, ("POST",)))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """
        Run the query's ``cmd``.

        Raises:
            StreamError: 404 for a pod that is not here, 500 for a container that does not run and a command
                that fails.
        """
        key, container = find_target(request, self._find_pod)
        command = request.query.get("cmd", "").split(" ")
        if not await self._runner.is_running(key, container):
            raise StreamError(f'container not found ("{container}")', status=500)
        io = _Collected()
        exit_code = await self._runner.exec(key, container, command, io)
        if exit_code:
            told = io.stderr.data.decode(errors="replace")
            raise StreamError(f"command '{' '.join(command)}' exited with {exit_code}: {told}", status=500)
        body = bytes(io.stdout.data + io.stderr.data)
        return web.Response(body=body, content_type="application/json") if body else web.Response()


class _Buffer:
    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, data: bytes) -> None:
        self.data += data[: _MAX_OUTPUT_BYTES - len(self.data)]


class _Collected:
    """An `ExecIO` that keeps the output and gives no input."""

    def __init__(self) -> None:
        self.stdin: AsyncIterator[bytes] | None = None
        self.stdout = _Buffer()
        self.stderr = _Buffer()
        self.tty = False
        self.resizes: AsyncIterator[TerminalSize] | None = None
