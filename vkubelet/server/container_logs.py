"""
``/containerLogs/{namespace}/{pod}/{container}``: what a container wrote, as it stands or as it comes.

The source gives chunks of whatever size, already cut to the options; here they are only counted
(``limitBytes``) and passed on. Writing waits for the client, so a slow one slows the source down and never
fills the memory; a client that leaves cancels the handler, which closes the source.

Which attempt of the container is meant, and that there is none yet, the provider says. Where it has nothing,
the pod's status explains why, in the kubelet's words.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import structlog
from aiohttp import web

from vkubelet.clock import Clock
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.model.pod import Json, Pod
from vkubelet.provider import LogOptions, LogSource
from vkubelet.server.endpoint import Endpoint, not_supported
from vkubelet.server.log_options import check_stream, parse_log_options
from vkubelet.server.pods import PodLookup, find_container, find_pod

__all__ = ["container_log_endpoints", "why_no_logs"]

log = structlog.get_logger(__name__)

_PATH = "/containerLogs/{namespace}/{pod}/{container}"
_MAX_WRITE_BYTES = 256 * 1024
"""The most that is handed to the transport at once: what a client that stands still costs."""

_WAITING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def container_log_endpoints(pods: PodLookup, source: LogSource | None, clock: Clock) -> tuple[Endpoint, ...]:
    """The one endpoint; 501 without a `source`."""
    if source is None:
        return (Endpoint(_PATH, not_supported("this node's provider cannot show container logs")),)

    async def get_container_logs(request: web.Request) -> web.StreamResponse:
        options = parse_log_options(request.query, clock.now())
        pod = find_pod(pods, request.match_info["namespace"], request.match_info["pod"])
        container = find_container(pod, request.match_info["container"]).name
        check_stream(request.query)
        return await _send_logs(request, source, pod, container, options)

    return (Endpoint(_PATH, get_container_logs),)


async def _send_logs(
    request: web.Request, source: LogSource, pod: Pod, container: str, options: LogOptions
) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = "text/plain"
    try:
        async with source.container_logs(pod.key, container, options) as chunks:
            await response.prepare(request)  # sends the headers: a client that follows knows that it does
            await _copy(chunks, response, options.limit_bytes)
    except PodNotFoundError as error:
        if response.prepared:
            raise
        reason = why_no_logs(pod, container, previous=options.previous)
        raise StreamError(reason or str(error), status=400 if reason else 404) from error
    await response.write_eof()
    return response


async def _copy(chunks: AsyncIterator[bytes], response: web.StreamResponse, limit_bytes: int | None) -> None:
    left = limit_bytes
    async for chunk in chunks:
        wanted = memoryview(chunk)[:left]
        for start in range(0, len(wanted), _MAX_WRITE_BYTES):
            await response.write(wanted[start : start + _MAX_WRITE_BYTES])
            # A write that need not wait does not let anybody else run: neither other requests nor, before
            # Python 3.12, the news that the client of this TLS connection has gone.
            await asyncio.sleep(0)
        if left is not None:
            left -= len(wanted)
            if left <= 0:
                return


def why_no_logs(pod: Pod, container: str, *, previous: bool) -> str | None:
    """
    Why there is no log of a container, from the pod's status and in the kubelet's words.

    None where the status says that there should be one.
    """
    where = f'container "{container}" in pod "{pod.name}"'
    status = _container_status(pod.status, container)
    if status is None:
        return f"{where} is not available"
    state: Json = status.get("state") or {}
    last: Json = (status.get("lastState") or {}).get("terminated") or {}
    if previous:
        return None if last.get("containerID") else f"previous terminated {where} not found"
    if "running" in state or last.get("containerID"):
        return None
    if "terminated" in state:
        return None if state["terminated"].get("containerID") else f"{where} is terminated"
    reason = (state.get("waiting") or {}).get("reason", "")
    return f"{where} is waiting to start: {_WAITING.get(reason, reason)}"


def _container_status(status: Json, container: str) -> Json | None:
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for entry in status.get(kind) or ():
            if entry["name"] == container:
                found: Json = entry
                return found
    return None
