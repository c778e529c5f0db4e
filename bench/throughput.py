"""
How fast a node gets its pods Ready, and rid of them.

N pods are created bound to the node, `PARALLEL` requests at a time, so no scheduler is measured. A watch
tells when each was seen Ready, and when each was seen gone after all were deleted. The same observer serves
every row, the limit included: there `own_status` does a node's part in the client itself, as soon as each of
its requests is answered (running status; final status and final DELETE), and nothing else serves the node.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp
import orjson
import psutil

from bench.api import Api, Json

__all__ = ["Result", "measure"]

PARALLEL = 50
_PODS = "/api/v1/namespaces/default/pods"
_SELECTOR = "labelSelector=vkubelet-bench"
_TIMEOUT_S = 600.0


@dataclass(slots=True)
class Result:
    """
    One row.

    Attributes:
        ready_s, gone_s: until all pods were seen Ready, and gone after the first deletion.
        latencies_s: create to Ready for each pod, sorted.
        writes_up, writes_down: API requests on pods and events in each half, by kind.
        idle_mb, loaded_mb: resident memory of the node's process without pods and with all.
        cpu_up_s, cpu_down_s: its CPU time in each half.
    """

    name: str
    pods: int
    ready: int = 0
    gone: int = 0
    ready_s: float = 0.0
    gone_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    writes_up: Counter[str] = field(default_factory=Counter)
    writes_down: Counter[str] = field(default_factory=Counter)
    idle_mb: float = 0.0
    loaded_mb: float = 0.0
    cpu_up_s: float = 0.0
    cpu_down_s: float = 0.0

    @property
    def pods_per_s(self) -> float:
        """Pods that became Ready, by the time until the last one did."""
        return self.ready / self.ready_s

    @property
    def deletes_per_s(self) -> float:
        """Pods gone, by the time until the last one was."""
        return self.gone / self.gone_s

    def percentile_s(self, share: float) -> float:
        """Create to Ready within this for `share` of the pods."""
        if not self.latencies_s:
            return float("nan")
        return self.latencies_s[min(len(self.latencies_s) - 1, int(share * len(self.latencies_s)))]


async def measure(
    api: Api, name: str, node: str, pods: int, *, process: psutil.Process | None, own_status: bool = False
) -> Result:
    """
    Create, wait for Ready, delete, wait for gone.

    Args:
        api: where.
        name: the row's.
        pods: how many.
        node: what the pods are bound to.
        process: the node's, for its memory and CPU.
        own_status: nobody serves the node; write the statuses here.
    """
    result = Result(name, pods)
    run = _Run(api, node, own_status)
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(run.watch(await run.resource_version()))
        counts, cpu = await api.request_counts(), _cpu_s(process)
        result.idle_mb = _resident_mb(process)
        started = time.perf_counter()
        await run.create_all(pods)
        await _within_limit(run.all_ready)
        result.ready_s = max(run.ready.values(), default=time.perf_counter()) - started
        result.ready = len(run.ready)
        result.latencies_s = sorted(at - run.created[pod] for pod, at in run.ready.items())
        result.loaded_mb = _resident_mb(process)
        result.cpu_up_s = _cpu_s(process) - cpu
        counts, result.writes_up = await _count_writes(api, counts)
        cpu, started = _cpu_s(process), time.perf_counter()
        await run.delete_all()
        await _within_limit(run.all_gone)
        result.gone_s = max(run.gone.values(), default=time.perf_counter()) - started
        result.gone = len(run.gone)
        result.cpu_down_s = _cpu_s(process) - cpu
        _, result.writes_down = await _count_writes(api, counts)
        watch.cancel()
    return result


async def _within_limit(event: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_TIMEOUT_S):
            await event.wait()


async def _count_writes(api: Api, before: Counter[str]) -> tuple[Counter[str], Counter[str]]:
    now = await api.request_counts()
    writes = {
        kind: count
        for kind, count in (now - before).items()
        if kind.split()[0] not in ("GET", "LIST", "WATCH") and "leases" not in kind
    }
    return now, Counter(writes)


def _cpu_s(process: psutil.Process | None) -> float:
    if process is None:
        return 0.0
    times = process.cpu_times()
    return float(times.user + times.system)


def _resident_mb(process: psutil.Process | None) -> float:
    return process.memory_info().rss / 1e6 if process is not None else 0.0


class _Run:
    """The pods of one measurement and when what happened to them."""

    def __init__(self, api: Api, node: str, own_status: bool) -> None:
        self._api = api
        self._node = node
        self._own_status = own_status
        self._parallel = asyncio.Semaphore(PARALLEL)
        self._wanted = 0
        self.created: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        self.all_ready = asyncio.Event()
        self.all_gone = asyncio.Event()

    async def resource_version(self) -> str:
        listed = await self._api.request("GET", f"{_PODS}?{_SELECTOR}&limit=1")
        return str(listed["metadata"]["resourceVersion"])

    async def create_all(self, pods: int) -> None:
        self._wanted = pods
        await asyncio.gather(*(self._create(f"bench-{number}") for number in range(pods)))

    async def delete_all(self) -> None:
        await asyncio.gather(*(self._delete(name) for name in self.created))

    async def watch(self, resource_version: str) -> None:
        while True:
            url = f"{self._api.server}{_PODS}?{_SELECTOR}&watch=1&resourceVersion={resource_version}"
            timeout = aiohttp.ClientTimeout(total=None, sock_read=None)
            async with self._api.session.get(url, timeout=timeout) as answer:
                rest = b""
                async for chunk in answer.content.iter_any():
                    now = time.perf_counter()
                    *lines, rest = (rest + chunk).split(b"\n")
                    for event in map(orjson.loads, lines):
                        resource_version = self._seen(event, now)

    def _seen(self, event: Json, now: float) -> str:
        pod = event["object"]
        name = pod["metadata"].get("name")
        if event["type"] == "ERROR":
            raise RuntimeError(f"the watch failed: {pod}")
        if event["type"] == "DELETED":
            self.gone[name] = now
            if len(self.gone) >= self._wanted:
                self.all_gone.set()
        elif name not in self.ready and _is_ready(pod):
            self.ready[name] = now
            if len(self.ready) >= self._wanted:
                self.all_ready.set()
        return str(pod["metadata"]["resourceVersion"])

    async def _create(self, name: str) -> None:
        async with self._parallel:
            self.created[name] = time.perf_counter()
            pod = await self._api.request("POST", _PODS, _pod(name, self._node))
            if self._own_status:
                await self._write_status(pod, _running_status(pod))

    async def _write_status(self, pod: Json, status: Json) -> None:
        path = f"{_PODS}/{pod['metadata']['name']}/status"
        content_type = {"Content-Type": "application/strategic-merge-patch+json"}
        await self._api.request("PATCH", path, {"status": status}, **content_type)

    async def _delete(self, name: str) -> None:
        async with self._parallel:
            pod = await self._api.request("DELETE", f"{_PODS}/{name}", {})
            if self._own_status:
                await self._write_status(pod, _ended_status(pod))
                await self._api.request("DELETE", f"{_PODS}/{name}", {"gracePeriodSeconds": 0})


def _is_ready(pod: Json) -> bool:
    conditions: Iterable[Json] = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _pod(name: str, node: str) -> Json:
    resources = {"requests": {"cpu": "1m", "memory": "1Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"vkubelet-bench": "pods"}},
        "spec": {
            "nodeName": node,
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "vkubelet.local/pause:1", "resources": resources}],
        },
    }


def _running_status(pod: Json) -> Json:
    """What a node writes once a pod of one container runs: the same fields, so the same work to store."""
    now = pod["metadata"]["creationTimestamp"]
    types = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "startTime": now,
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "podIP": "10.1.2.3",
        "podIPs": [{"ip": "10.1.2.3"}],
        "conditions": [{"type": t, "status": "True", "lastTransitionTime": now} for t in types],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": container["image"],
                "containerID": f"limit://{pod['metadata']['uid']}",
                "ready": True,
                "started": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ],
    }


def _ended_status(pod: Json) -> Json:
    """What a node writes once the pod's container has ended, before it lets the pod go."""
    now = pod["metadata"]["creationTimestamp"]
    ended = {"exitCode": 137, "reason": "Error", "startedAt": now, "finishedAt": now}
    containers = [
        {**container, "ready": False, "started": False, "state": {"terminated": ended}}
        for container in pod["status"]["containerStatuses"]
    ]
    return {
        "phase": "Failed",
        "conditions": [
            {"type": t, "status": "False", "reason": "PodFailed", "lastTransitionTime": now}
            for t in ("PodReadyToStartContainers", "Ready", "ContainersReady")
        ],
        "containerStatuses": containers,
    }
