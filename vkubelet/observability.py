"""What `app` switches on for those who watch the process: who it is, in metrics, and traces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vkubelet import metrics, tracing
from vkubelet.logs import get_logger
from vkubelet.model import node
from vkubelet.settings import Settings, installed_version

__all__ = ["observed"]

log = get_logger("observability")

_LAST_SPANS_S = 5.0


@asynccontextmanager
async def observed(settings: Settings) -> AsyncIterator[None]:
    """
    From entry to exit spans are sent, where there is an endpoint for them.

    Raises:
        ConfigurationError: what tracing needs is not installed.
    """
    version = installed_version()
    kubelet_version = node.kubelet_version(settings.provider, version)
    metrics.set_build_info(version, settings.provider, settings.node_name, kubelet_version)
    if settings.tracing_endpoint is None:
        yield
        return
    exporter = tracing.otlp_exporter(settings.tracing_endpoint)
    end = tracing.configure(exporter, node_name=settings.node_name, version=version)
    log.info("traces are sent", endpoint=settings.tracing_endpoint)
    try:
        yield
    finally:
        try:
            async with asyncio.timeout(_LAST_SPANS_S):
                await asyncio.to_thread(end)
        except TimeoutError:
            log.warning("the last spans were not sent in time")
