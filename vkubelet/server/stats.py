"""
``/stats/summary``, ``/metrics/resource`` and ``/metrics/cadvisor``: one reading, three forms.

Several scrapers come at the same moment, metrics-server and two of Prometheus for one node: a reading is
shared by all who ask while it is taken, and for a second afterwards. (The kubelet shows what it collected up
to 15 s ago; here every figure is at most a second old.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import orjson
import structlog
from aiohttp import web

from vkubelet.clock import Clock
from vkubelet.errors import ProviderError
from vkubelet.model.stats import StatsSummary
from vkubelet.provider import StatsSource
from vkubelet.server import exposition
from vkubelet.server.cadvisor_metrics import cadvisor_metrics
from vkubelet.server.endpoint import Endpoint, Handler, not_supported
from vkubelet.server.resource_metrics import resource_metrics
from vkubelet.server.summary import summary_json
from vkubelet.server.usage_rates import UsageRates

__all__ = ["StatsReader", "stats_endpoints"]

log = structlog.get_logger(__name__)

SHARED_FOR_S: Final = 1.0
_TIMEOUT_S: Final = 30.0


class StatsReader:
    """Readings of a source, shared by those who ask at the same time."""

    def __init__(self, source: StatsSource, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._readings: dict[bool, asyncio.Task[StatsSummary]] = {}
        self._taken_at: dict[bool, float] = {}

    async def read(self, *, only_cpu_and_memory: bool) -> StatsSummary:
        """
        What is used now.

        Raises:
            ProviderError: nothing is known.
            TimeoutError: not within 30 s.
        """
        reading = self._fresh(only_cpu_and_memory=False)
        if reading is None and only_cpu_and_memory:
            reading = self._fresh(only_cpu_and_memory=True)
        if reading is None:
            reading = self._begin(only_cpu_and_memory=only_cpu_and_memory)
        return await asyncio.shield(reading)

    def _begin(self, *, only_cpu_and_memory: bool) -> asyncio.Task[StatsSummary]:
        work = self._take(only_cpu_and_memory)
        reading = asyncio.get_running_loop().create_task(work, name="statistics")
        self._readings[only_cpu_and_memory] = reading
        self._taken_at[only_cpu_and_memory] = self._clock.monotonic()
        return reading

    async def _take(self, only_cpu_and_memory: bool) -> StatsSummary:
        async with asyncio.timeout(_TIMEOUT_S):
            return await self._source.stats_summary(only_cpu_and_memory=only_cpu_and_memory)

    def _fresh(self, *, only_cpu_and_memory: bool) -> asyncio.Task[StatsSummary] | None:
        reading = self._readings.get(only_cpu_and_memory)
        if reading is None or not reading.done():
            return reading
        failed = reading.cancelled() or reading.exception() is not None
        is_old = self._clock.monotonic() - self._taken_at[only_cpu_and_memory] >= SHARED_FOR_S
        return None if failed or is_old else reading


def stats_endpoints(source: StatsSource | None, node_name: str, clock: Clock) -> tuple[Endpoint, ...]:
    """The three; 501 without a source."""
    if source is None:
        refuse = not_supported("this node's provider has no statistics")
        return (
            Endpoint("/stats/summary", refuse, ("GET", "POST")),
            Endpoint("/metrics/resource", refuse),
            Endpoint("/metrics/cadvisor", refuse),
        )
    reader = StatsReader(source, clock)
    return (
        Endpoint("/stats/summary", _summary_handler(reader, node_name), ("GET", "POST")),
        Endpoint("/metrics/resource", _text_handler(reader, resource_metrics, only_cpu_and_memory=True)),
        Endpoint("/metrics/cadvisor", _text_handler(reader, cadvisor_metrics, only_cpu_and_memory=False)),
    )


def _summary_handler(reader: StatsReader, node_name: str) -> Handler:
    rates = UsageRates()

    async def get_summary(request: web.Request) -> web.StreamResponse:
        brief = request.query.getall("only_cpu_and_memory", []) == ["true"]
        try:
            summary = await reader.read(only_cpu_and_memory=brief)
        except (ProviderError, TimeoutError) as error:
            return web.Response(status=500, text=f"Internal Error: {error}")
        shown = summary_json(summary, node_name, rates, only_cpu_and_memory=brief)
        return web.Response(
            body=orjson.dumps(shown, option=orjson.OPT_INDENT_2), content_type="application/json"
        )

    return get_summary


def _text_handler(
    reader: StatsReader, form: Callable[[StatsSummary | None], str], *, only_cpu_and_memory: bool
) -> Handler:
    async def get_metrics(request: web.Request) -> web.StreamResponse:
        summary: StatsSummary | None = None
        try:
            summary = await reader.read(only_cpu_and_memory=only_cpu_and_memory)
        except (ProviderError, TimeoutError) as error:
            log.warning("statistics could not be read", path=request.path, error=str(error))
        return await exposition.response(request, form(summary))

    return get_metrics
