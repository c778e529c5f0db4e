"""
``/stats/summary`` and ``/metrics/resource`` of a node with many pods, asked for at the node itself.

The real kubelet cannot have as many pods on one machine, so what stands beside these figures is a limit.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import time
from pathlib import Path
from statistics import median

from bench.api import Api, connect
from e2e.harness import manifests
from e2e.harness.controlplane import ControlPlane
from e2e.harness.errors import HarnessError
from e2e.harness.vkubelet import Vkubelet

__all__ = ["LIMIT_MS", "PAGES", "scrape_ms", "start_pods"]

PAGES = ("/stats/summary", "/metrics/resource")
LIMIT_MS = 100.0
_TIMES = 9
_SHARED_FOR_S = 1.1  # longer than a node may answer from the reading before
_PARALLEL = 50
_TIMEOUT_S = 300.0
_PODS = "/api/v1/namespaces/default/pods"


def start_pods(control_plane: ControlPlane, node: str, count: int) -> None:
    """
    Bind `count` pods to a node and wait until all run.

    Raises:
        HarnessError: they do not in time.
    """
    asyncio.run(_start_pods(control_plane, node, count))


async def _start_pods(control_plane: ControlPlane, node: str, count: int) -> None:
    parallel = asyncio.Semaphore(_PARALLEL)
    async with connect(control_plane) as api:

        async def create(number: int) -> None:
            async with parallel:
                await api.request("POST", _PODS, _pod(f"scraped-{number}", node))

        await asyncio.gather(*map(create, range(count)))
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                while await _running(api, node) < count:  # noqa: ASYNC110 - no event comes from there
                    await asyncio.sleep(1)
        except TimeoutError as error:
            raise HarnessError(f"{node} does not run its {count} pods after {_TIMEOUT_S:g} s") from error


async def _running(api: Api, node: str) -> int:
    selector = f"fieldSelector=spec.nodeName={node},status.phase=Running"
    return len((await api.request("GET", f"{_PODS}?{selector}"))["items"])


def _pod(name: str, node: str) -> dict[str, object]:
    made = manifests.pod(name, node, automountServiceAccountToken=False)
    made["spec"] |= {"nodeName": node, "tolerations": [{"operator": "Exists"}]}
    del made["spec"]["nodeSelector"]
    return made


def scrape_ms(control_plane: ControlPlane, vkubelet: Vkubelet, page: str) -> float:
    """Milliseconds of a GET on a connection that is open, each with a reading of its own; the median."""
    context = ssl.create_default_context(cafile=str(control_plane.authority_file))
    directory: Path = control_plane.directory
    context.load_cert_chain(directory / "admin.crt", directory / "admin.key")
    connection = http.client.HTTPSConnection(vkubelet.node_ip, vkubelet.port, timeout=60, context=context)
    taken: list[float] = []
    try:
        for _ in range(_TIMES + 1):
            started = time.perf_counter()
            connection.request("GET", page)
            answer = connection.getresponse()
            answer.read()
            taken.append((time.perf_counter() - started) * 1000)
            if answer.status != http.HTTPStatus.OK:
                raise HarnessError(f"{page} was answered with {answer.status}")
            time.sleep(_SHARED_FOR_S)
    finally:
        connection.close()
    return median(taken[1:])  # the first one shook hands
