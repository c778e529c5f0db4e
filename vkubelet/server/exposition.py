"""
Prometheus' text format, as Go's handler serves it: escaping, headers of families, content type, compression.

Figures of pods are written here straight into text: a thousand pods are tens of thousands of lines, and a
client library's objects for each would cost a scrape a second. vkubelet's own are prometheus_client's.

The kubelet's handlers offer the text format alone (and protobuf, which nobody must ask for): a client that
prefers OpenMetrics is given text, as there. A client that accepts gzip gets it, compressed in a thread.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Iterable
from typing import Final, Literal

from aiohttp import hdrs, web

__all__ = ["CONTENT_TYPE", "MetricType", "escaped", "family", "response"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"

MetricType = Literal["counter", "gauge", "histogram"]

_SMALLEST_COMPRESSED = 1024
_GZIP_LEVEL = 1
"""Repetitive text: a higher level takes three times as long for a tenth less."""
_SPECIAL = re.compile(r'[\\"\n]')
_ESCAPES = {"\\": r"\\", '"': r"\"", "\n": r"\n"}


def escaped(label_value: str) -> str:
    """A label's value as it stands between quotes."""
    if _SPECIAL.search(label_value) is None:
        return label_value
    return _SPECIAL.sub(lambda found: _ESCAPES[found[0]], label_value)


def family(name: str, metric_type: MetricType, help_text: str, samples: Iterable[str]) -> str:
    """
    One metric with all its samples; "" when it has none.

    Args:
        name: the metric's.
        metric_type: counter, gauge or histogram.
        help_text: one line.
        samples: what stands after the name: labels, value and, where it has one, the time in milliseconds.
    """
    lines = "\n".join([name + sample for sample in samples])
    return f"# HELP {name} {help_text}\n# TYPE {name} {metric_type}\n{lines}\n" if lines else ""


async def response(request: web.Request, text: str) -> web.Response:
    """The answer to a scrape."""
    body = text.encode()
    headers = {hdrs.CONTENT_TYPE: CONTENT_TYPE}
    if len(body) >= _SMALLEST_COMPRESSED and _accepts_gzip(request):
        body = await asyncio.to_thread(gzip.compress, body, _GZIP_LEVEL, mtime=0)
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(body=body, headers=headers)


def _accepts_gzip(request: web.Request) -> bool:
    for offer in request.headers.get(hdrs.ACCEPT_ENCODING, "").split(","):
        coding, _, parameters = offer.partition(";")
        if coding.strip().lower() == "gzip":
            return parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
