"""``/metrics`` and ``/metrics/probes``: what this process has counted of itself (`vkubelet.metrics`)."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from vkubelet import metrics
from vkubelet.server import exposition
from vkubelet.server.endpoint import Endpoint, Handler

__all__ = ["is_long_running", "metrics_endpoints", "path_bucket"]

_BUCKETS: Final = frozenset(
    {
        *("attach", "configz", "containerLogs", "exec", "flagz", "healthz", "logs", "pods", "portForward"),
        *("metrics", "metrics/cadvisor", "metrics/probes", "metrics/resource", "run", "runningpods"),
        *("stats", "statusz"),
    }
)
_LONG_RUNNING: Final = frozenset({"attach", "debug", "exec", "portForward"})


def path_bucket(path: str) -> str:
    """The label that stands for a request's path: its first part where we serve that, "other" elsewhere."""
    first, _, rest = path.removeprefix("/").partition("/")
    if first == "metrics" and rest:
        first = f"metrics/{rest.partition('/')[0]}"
    return first if first in _BUCKETS else "other"


def is_long_running(bucket: str) -> bool:
    """Whether such requests last as long as their client likes."""
    return bucket in _LONG_RUNNING


def metrics_endpoints() -> tuple[Endpoint, ...]:
    """Both."""
    return (
        Endpoint("/metrics", _handler(metrics.REGISTRY)),
        Endpoint("/metrics/probes", _handler(metrics.PROBES)),
    )


def _handler(registry: CollectorRegistry) -> Handler:
    async def get_metrics(request: web.Request) -> web.StreamResponse:
        return await exposition.response(request, metrics.exposition(registry))

    return get_metrics
