"""
What a container leaves as its last words (Kubernetes docs, "Determine the Reason for Pod Failure").

Each attempt gets a file of its own under the pod's directory, mounted at its `terminationMessagePath`. With
the policy FallbackToLogsOnError, a failed container that wrote nothing there speaks by the end of its log.
"""

from __future__ import annotations

import os
from pathlib import Path

from vkubelet.errors import PodNotFoundError, ProviderError, ProviderUnavailableError
from vkubelet.kuberuntime.actions import ended_with
from vkubelet.kuberuntime.contract import ContainerInfo, ContainerRuntime, RuntimePod
from vkubelet.kuberuntime.history import has_ended
from vkubelet.kuberuntime.pod_memory import PodMemory
from vkubelet.model.pod import Pod
from vkubelet.provider import LogOptions

__all__ = ["create_file", "message_path", "read_all"]

MAX_MESSAGE_BYTES = 4096
MAX_LOG_LINES = 80
MAX_LOG_BYTES = 2048


def message_path(pods_dir: Path, uid: str, name: str, attempt: int) -> Path:
    """Where the attempt's file is on the host."""
    return pods_dir / uid / "containers" / name / str(attempt)


def create_file(path: Path) -> None:
    """An empty file that every user of the container may write to; raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    path.chmod(0o666)


async def read_all(memory: PodMemory, status: RuntimePod, runtime: ContainerRuntime, pods_dir: Path) -> None:
    """Read the message of every attempt that is over and has not been read yet, into `memory.messages`."""
    for info in status.containers:
        if has_ended(info) and info.id not in memory.messages:
            memory.messages[info.id] = await _message(memory.pod, info, runtime, pods_dir, memory.key.uid)


async def _message(
    pod: Pod | None, info: ContainerInfo, runtime: ContainerRuntime, pods_dir: Path, uid: str
) -> str:
    text = b""
    if runtime.uses_host_paths:
        text = _read_file(message_path(pods_dir, uid, info.name, info.attempt))
    container = pod.container(info.name) if pod is not None else None
    falls_back = container is not None and container.termination_message_policy == "FallbackToLogsOnError"
    if not text and falls_back and ended_with(info) != 0 and not info.error:
        text = await _end_of_log(info, runtime)
    return text.decode("utf-8", "replace")


def _read_file(path: Path) -> bytes:
    """The last part of the file; what cannot be read is told in its place, as by the kubelet."""
    try:
        with path.open("rb") as file:
            file.seek(max(os.fstat(file.fileno()).st_size - MAX_MESSAGE_BYTES, 0))
            return file.read(MAX_MESSAGE_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        return f"Error on reading termination log {path}: {error}".encode()


async def _end_of_log(info: ContainerInfo, runtime: ContainerRuntime) -> bytes:
    text = b""
    try:
        async with runtime.container_logs(info.id, LogOptions(tail_lines=MAX_LOG_LINES)) as chunks:
            async for chunk in chunks:
                text = (text + chunk)[-MAX_LOG_BYTES:]
    except (PodNotFoundError, ProviderUnavailableError):
        raise
    except ProviderError as error:
        return f"Error on reading termination message from logs: {error}".encode()
    return text
