"""
``/pods`` and ``/runningpods/``: what this node is to run, and what it runs.

The first comes from the API server's pods, the second from the provider alone, with just the fields that a
container runtime can know (as the kubelet's does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

import orjson
from aiohttp import web

from vkubelet.errors import StreamError
from vkubelet.model.observations import PodObservation, Running
from vkubelet.model.pod import Container, Json, Pod
from vkubelet.server.endpoint import Endpoint, Handler, not_supported

__all__ = ["ListRunning", "PodLookup", "find_container", "find_pod", "pod_endpoints"]

ListRunning: TypeAlias = Callable[[], Awaitable[Sequence[PodObservation]]]
"""`Provider.list_pods`."""

_BATCH = 50
"""Pods encoded at a time: about 300 KB, a millisecond or two of the event loop."""


class PodLookup(Protocol):
    """The pods of this node."""

    def pod(self, namespace: str, name: str, uid: str | None = None) -> Pod | None:
        """The pod of that name, None if there is none or its uid is another than the one asked for."""

    def pods(self) -> Iterable[Pod]:
        """All of them, with their status as it is known here."""


def find_pod(pods: PodLookup, namespace: str, name: str, uid: str | None = None) -> Pod:
    """
    The pod that a path names.

    Raises:
        StreamError: 404, with the kubelet's message.
    """
    pod = pods.pod(namespace, name, uid)
    if pod is None:
        raise StreamError(f'pod "{name}" does not exist', status=404)
    return pod


def find_container(pod: Pod, name: str) -> Container:
    """
    The container that a path names, of whichever kind.

    Raises:
        StreamError: 404, with the kubelet's message.
    """
    container = pod.container(name)
    if container is None:
        raise StreamError(f'container "{name}" not found in pod "{pod.name}"', status=404)
    return container


def pod_endpoints(pods: PodLookup, list_running: ListRunning | None) -> tuple[Endpoint, ...]:
    """``/pods`` and ``/runningpods/``; the latter is 501 without `list_running`."""

    async def get_pods(request: web.Request) -> web.StreamResponse:
        return await _send_list(request, (pod.raw for pod in tuple(pods.pods())))

    running = _running_pods_handler(list_running)
    return (Endpoint("/pods", get_pods), Endpoint("/runningpods", running))


def _running_pods_handler(list_running: ListRunning | None) -> Handler:
    if list_running is None:
        return not_supported("this node's provider cannot list what it runs")

    async def get_running_pods(request: web.Request) -> web.StreamResponse:
        return await _send_list(request, _running(await list_running()))

    return get_running_pods


def _running(observations: Iterable[PodObservation]) -> Iterator[Json]:
    for observation in observations:
        containers = [
            {"name": container.name, "image": container.image, "resources": {}}
            for container in observation.containers
            if isinstance(container.state, Running)
        ]
        if containers or observation.sandbox_ready:
            key = observation.key
            metadata = {"name": key.name, "namespace": key.namespace, "uid": key.uid}
            yield {"metadata": metadata, "spec": {"containers": containers}, "status": {}}


async def _send_list(request: web.Request, items: Iterator[Json]) -> web.StreamResponse:
    """A `v1.PodList`, sent while it is encoded: 5,000 pods never stand in memory as text."""
    response = web.StreamResponse()
    response.content_type = "application/json"
    await response.prepare(request)
    await response.write(b'{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[')
    separator = b""
    while batch := list(islice(items, _BATCH)):
        await response.write(separator + orjson.dumps(batch)[1:-1])
        separator = b","
        await asyncio.sleep(0)  # a write that need not wait lets nobody else run
    await response.write_eof(b"]}\n")
    return response
