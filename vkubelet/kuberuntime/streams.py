"""
Which container or sandbox a stream is meant for, and the kubelet's answers where there is none.

A container that was seen to run is taken at that word, as by the kubelet: it costs no question, of which
500 followers of a log, or somebody who waits for `true`, would wait for several. All else is looked up in
the runtime, so that streams work for pods that this process has not seen before.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.kuberuntime.contract import ContainerInfo, ContainerRuntime, ContainerStatus
from vkubelet.kuberuntime.history import has_ended
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodObservation, Running, Terminated, Waiting
from vkubelet.provider import LogOptions

__all__ = ["Observed", "container_logs", "is_running", "ready_sandbox", "running_container"]

Observed: TypeAlias = Callable[[PodKey], PodObservation | None]
"""What the last pass over a pod has seen."""

_WAITS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


@contextlib.asynccontextmanager
async def container_logs(
    runtime: ContainerRuntime,
    observation: Observed,
    key: PodKey,
    container: str,
    options: LogOptions,
) -> AsyncIterator[AsyncIterator[bytes]]:
    """
    The log of a container: of its present attempt if it runs or ran, else of the last one that did.

    Raises:
        PodNotFoundError: there is no such pod.
        StreamError: 400, it has written nothing yet, with the kubelet's reason.
    """
    seen = observation(key)
    chosen = None if options.previous else _seen_running(seen, container)
    if chosen is None:
        chosen = await _with_log(runtime, seen, key, container, previous=options.previous)
    resolved = dataclasses.replace(options, previous=False)
    async with runtime.container_logs(chosen, resolved) as chunks:
        yield chunks


async def _with_log(
    runtime: ContainerRuntime, seen: PodObservation | None, key: PodKey, container: str, *, previous: bool
) -> str:
    """The id of the attempt whose log is meant, as the runtime has it."""
    attempts = await _attempts(runtime, key, container)
    if previous:
        chosen = _previous(attempts, seen, container)
        if chosen is None:
            raise StreamError(
                f'previous terminated container "{container}" in pod "{key.name}" not found', status=400
            )
        return chosen.id
    chosen = next((i for i in attempts if i.started_at is not None), None)
    if chosen is None:
        raise _nothing_yet(key, container, seen, known=bool(attempts))
    return chosen.id


def _seen_running(seen: PodObservation | None, container: str) -> str | None:
    """The id, without its scheme, of an attempt that was last seen to run."""
    for each in seen.containers if seen is not None else ():
        if each.name == container and isinstance(each.state, Running) and each.container_id:
            return each.container_id.rpartition("//")[2]
    return None


async def running_container(
    runtime: ContainerRuntime, observation: Observed, key: PodKey, container: str
) -> str:
    """
    The id of the running attempt.

    Raises:
        PodNotFoundError: there is no such pod.
        StreamError: the container does not run.
    """
    if (seen := _seen_running(observation(key), container)) is not None:
        return seen
    for info in await _attempts(runtime, key, container):
        if info.status is ContainerStatus.RUNNING:
            return info.id
    raise StreamError(f'container not found ("{container}")', status=500)


async def ready_sandbox(runtime: ContainerRuntime, key: PodKey) -> str:
    """
    The id of the sandbox whose network the pod has now.

    Raises:
        PodNotFoundError: there is no such pod.
        StreamError: it has no sandbox that runs.
    """
    status = await runtime.pod_status(key)
    if not status.sandboxes and not status.containers:
        raise PodNotFoundError(f'pod "{key.name}" not found')
    for sandbox in status.sandboxes:
        if sandbox.ready:
            return sandbox.id
    raise StreamError(f'pod "{key.name}" is not running', status=500)


async def is_running(runtime: ContainerRuntime, key: PodKey, container: str) -> bool:
    """Whether an attempt of that container runs."""
    status = await runtime.pod_status(key)
    return any(c.name == container and c.status is ContainerStatus.RUNNING for c in status.containers)


async def _attempts(runtime: ContainerRuntime, key: PodKey, container: str) -> list[ContainerInfo]:
    """Newest first."""
    status = await runtime.pod_status(key)
    if not status.sandboxes and not status.containers:
        raise PodNotFoundError(f'pod "{key.name}" not found')
    attempts = [c for c in status.containers if c.name == container]
    return sorted(attempts, key=lambda c: c.attempt, reverse=True)


def _previous(
    attempts: list[ContainerInfo], seen: PodObservation | None, container: str
) -> ContainerInfo | None:
    """
    What `lastState` shows: the attempt before the present one.

    While the container waits for its next attempt, the present one is already the last.
    """
    ended = [i for i in attempts if has_ended(i) and i.started_at is not None]
    observed = [c for c in seen.containers if c.name == container] if seen is not None else []
    if observed and isinstance(observed[0].state, Waiting):
        return next(iter(ended), None)
    return next((i for i in ended if i is not attempts[0]), None)


def _nothing_yet(key: PodKey, container: str, seen: PodObservation | None, *, known: bool) -> StreamError:
    where = f'container "{container}" in pod "{key.name}"'
    observed = [c for c in seen.containers if c.name == container] if seen is not None else []
    state = observed[0].state if observed else None
    if isinstance(state, Waiting) and state.reason:
        return StreamError(
            f"{where} is waiting to start: {_WAITS.get(state.reason, state.reason)}", status=400
        )
    if isinstance(state, Terminated):  # it never started, so it wrote nothing
        return StreamError(f"{where} is terminated", status=400)
    if known or seen is None or not seen.terminated:
        return StreamError(f"{where} is waiting to start: ContainerCreating", status=400)
    return StreamError(f"{where} is not available", status=400)
