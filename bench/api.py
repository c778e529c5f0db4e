"""The API server seen by a measurement: a plain client, and its own counts of requests."""

from __future__ import annotations

import re
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from e2e.harness.controlplane import ControlPlane

__all__ = ["Api", "Json", "connect"]

Json = dict[str, Any]

_METRIC = re.compile(r"^apiserver_request_total\{(.*?)\} (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="(.*?)"')


@dataclass(frozen=True, slots=True)
class Api:
    """Requests as an administrator."""

    session: aiohttp.ClientSession
    server: str

    async def request(self, method: str, path: str, body: Json | None = None, **headers: str) -> Json:
        """One request; raises `aiohttp.ClientResponseError` with the API server's words."""
        data = None if body is None else orjson.dumps(body)
        headers = {"Content-Type": "application/json", **headers}
        async with self.session.request(method, self.server + path, data=data, headers=headers) as answer:
            content = await answer.read()
            if answer.status >= 400:
                raise aiohttp.ClientResponseError(
                    answer.request_info, (), status=answer.status, message=content.decode()[:500]
                )
            result: Json = orjson.loads(content)
            return result

    async def request_counts(self) -> Counter[str]:
        """How many requests the API server has served, as "VERB resource/subresource"."""
        async with self.session.get(f"{self.server}/metrics") as answer:
            text = await answer.text()
        counts: Counter[str] = Counter()
        for labels_text, value in _METRIC.findall(text):
            labels = dict(_LABEL.findall(labels_text))
            resource = "/".join(filter(None, (labels["resource"], labels["subresource"])))
            counts[f"{labels['verb']} {resource}"] += int(float(value))
        return counts


@asynccontextmanager
async def connect(control_plane: ControlPlane) -> AsyncIterator[Api]:
    """A client with the administrator's certificate and no limit on connections."""
    context = ssl.create_default_context(cafile=str(control_plane.authority_file))
    certificate, key = control_plane.pki.authority.issue_client("bench", ["system:masters"]).write(
        control_plane.directory / "bench", "client"
    )
    context.load_cert_chain(certificate, key)
    connector = aiohttp.TCPConnector(ssl=context, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield Api(session, control_plane.server)
