"""
A whole provider as an example: the containers of a pod are processes of this machine. No isolation at all.

All it knows is on disk, in a directory for each container: `group` (its process group), `log` and `exit`. So
a vkubelet that is started again finds its pods, and a call that is repeated finds its earlier work done.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from vkubelet.errors import PodNotFoundError, UnsupportedFeatureError
from vkubelet.model import features
from vkubelet.model import observations as seen
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Container, ContainerKind, Pod
from vkubelet.model.references import References
from vkubelet.provider import Provider, ProviderContext

# What a pod may say; anything else is refused by its name.
_POD = """
nodeName nodeSelector affinity tolerations schedulerName priority preemptionPolicy dnsPolicy serviceAccount
serviceAccountName automountServiceAccountToken enableServiceLinks terminationGracePeriodSeconds
"""
_CONTAINER = "name image imagePullPolicy command args terminationMessagePath terminationMessagePolicy"
FIELDS: features.FieldTree = {
    **dict.fromkeys(_POD.split(), features.served),
    "restartPolicy": features.only("Never"),
    "containers": {
        **dict.fromkeys(_CONTAINER.split(), features.served),
        "env": dict.fromkeys(("name", "value"), features.served),
    },
}
# The group file is a claim: with `set -C`, of two that try, one fails. The outer shell's id names the group.
_CLAIM = "trap : TERM; set -C; { echo $$ > group; } 2> /dev/null || exit 0"
_START = f'cd "$0" && ({_CLAIM}; "$@" > log 2>&1; echo $? > exit) &'


class Processes(Provider):
    """Runs pods as processes. `create` in the entry point is this class."""

    name = "processes"

    def __init__(self, context: ProviderContext) -> None:
        self._host, self._clock = context.host, context.clock
        self._root = context.root_dir / "processes"
        self._root.mkdir(exist_ok=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Report while vkubelet runs; the processes outlive it."""
        watching = asyncio.create_task(self._watch(), name="processes")
        try:
            yield
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        while True:
            for pod in await self.list_pods():
                self._host.pod_changed(pod)
            await self._clock.sleep(0.2)

    async def create_pod(self, pod: Pod, references: References) -> None:
        """Start its containers, those that were not started before."""
        if unsupported := features.unsupported_fields(pod.raw, FIELDS):
            raise UnsupportedFeatureError(unsupported, provider=self.name)
        directories = [self._directory(pod.key) / container.name for container in pod.containers]
        for directory in directories:
            directory.mkdir(parents=True, exist_ok=True)
        for directory, container in zip(directories, pod.containers, strict=True):
            await _start(directory, container)

    async def update_pod(self, pod: Pod, references: References) -> None:
        """New labels and annotations mean nothing to a process."""

    async def terminate_pod(self, key: PodKey, grace_period_s: float) -> None:
        """SIGTERM now, SIGKILL later; `_watch` sees the end."""
        if not self._directory(key).exists():
            raise PodNotFoundError(f"there is nothing of pod {key}")
        self._signal(key, signal.SIGTERM)
        self._clock.call_later(grace_period_s, lambda: self._signal(key, signal.SIGKILL))

    async def delete_pod(self, key: PodKey) -> None:
        """Forget it."""
        self._signal(key, signal.SIGKILL)
        shutil.rmtree(self._directory(key), ignore_errors=True)

    async def list_pods(self) -> Sequence[seen.PodObservation]:
        """All that is on disk."""
        keys = (PodKey(*path.name.split("_")) for path in self._root.iterdir())
        return [self._observe(key) for key in keys]

    async def describe_node(self) -> seen.NodeObservation:
        """This machine, with room for twenty pods."""
        memory_kib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1024
        capacity = {"cpu": str(os.cpu_count()), "memory": f"{memory_kib}Ki", "pods": "20"}
        ready = seen.NodeCondition("Ready", "True", "KubeletReady", "processes can be started")
        return seen.NodeObservation(capacity, capacity, (ready,), {"operatingSystem": "linux"})

    def _directory(self, key: PodKey) -> Path:
        return self._root / "_".join((key.namespace, key.name, key.uid))  # no name has a "_" in it

    def _signal(self, key: PodKey, number: signal.Signals) -> None:
        for directory in self._directory(key).glob("*"):
            _send(directory, number)

    def _observe(self, key: PodKey) -> seen.PodObservation:
        containers = tuple(_container(each) for each in sorted(self._directory(key).iterdir()))
        ended = all(isinstance(each.state, seen.Terminated) for each in containers)
        return seen.PodObservation(key, containers, sandbox_ready=not ended, terminated=ended)


async def _start(directory: Path, container: Container) -> None:
    env = {**os.environ, **{each["name"]: each.get("value", "") for each in container.env}}
    command = ("sh", "-c", _START, str(directory), *container.command, *container.args)
    starter = await asyncio.create_subprocess_exec(*command, env=env, start_new_session=True)
    await starter.wait()


def _container(directory: Path) -> seen.ContainerObservation:
    state = _state(directory)
    return seen.ContainerObservation(
        directory.name, ContainerKind.APP, state, "", ready=isinstance(state, seen.Running)
    )


def _state(directory: Path) -> seen.ContainerState:
    if not (directory / "group").exists():
        return seen.Waiting("ContainerCreating")
    modified = (directory / "group").stat().st_mtime
    started_at = datetime.datetime.fromtimestamp(modified, datetime.UTC)
    if not (written := _read(directory / "exit")) and _send(directory, 0):
        return seen.Running(started_at)
    exit_code = int(written or _read(directory / "exit") or 137)  # one that left no word was killed
    reason = "Error" if exit_code else "Completed"
    return seen.Terminated(exit_code, reason, started_at=started_at)


def _send(directory: Path, number: int) -> bool:
    """Send a signal to all processes of a container; False when there are none. 0 only asks."""
    try:
        os.killpg(int(_read(directory / "group")), number)
    except (ProcessLookupError, ValueError):  # ended, or not started
        return False
    return True


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""
