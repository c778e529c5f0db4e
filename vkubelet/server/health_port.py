"""
A port on this machine that says whether vkubelet is well: plain HTTP, ``/healthz`` and its checks, no more.

For whoever watches over the process and has no credentials for the kubelet server. The kubelet's own is
10248; here it is off until asked for, because several vkubelets, and a kubelet, may share a machine, and a
default that one of them alone can have would keep the others from starting.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog
from aiohttp import web

from vkubelet.errors import ConfigurationError
from vkubelet.server.health import HealthCheck, health_endpoints

__all__ = ["health_port"]

log = structlog.get_logger(__name__)

_ADDRESS: Final = "127.0.0.1"


@asynccontextmanager
async def health_port(port: int, checks: Mapping[str, HealthCheck]) -> AsyncIterator[None]:
    """
    Serves from entry to exit; a port of 0 serves nothing.

    Raises:
        ConfigurationError: the port cannot be had.
    """
    if not port:
        yield
        return
    application = web.Application()
    for endpoint in health_endpoints(checks, {}):
        if endpoint.path.startswith("/healthz"):
            application.router.add_routes(endpoint.routes())
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _listen(runner, port)
        log.info("health port listening", address=_ADDRESS, port=port)
        yield
    finally:
        await runner.cleanup()


async def _listen(runner: web.AppRunner, port: int) -> None:
    try:
        await web.TCPSite(runner, _ADDRESS, port).start()
    except OSError as error:
        raise ConfigurationError(
            f"--healthz-port {port} cannot be served on at {_ADDRESS}: {error.strerror}; "
            "choose another port, or 0 for none"
        ) from error
