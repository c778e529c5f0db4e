"""
What containers use: from their control groups where this machine has them, from the engine where not.

One list call finds the running containers. What does not change while one runs is learnt by one inspection
(`tracked`). The files of all containers are read in one thread; the engine, where it must be asked, is asked
for a few containers at a time. A container that cannot be read, because it has just ended or for whatever
reason, has no figures, and the others have theirs.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from providers.docker import cgroups, engine_stats, labels
from providers.docker.cgroups import Reading
from providers.docker.client import EngineClient
from providers.docker.concurrency import gather
from providers.docker.machine import Machine
from providers.docker.tracked import PROC, Tracked, learn, log_usage, network_usage
from vkubelet.clock import Clock
from vkubelet.errors import ProviderError
from vkubelet.kuberuntime.disk_usage import DiskUsage, file_system
from vkubelet.model.keys import PodKey
from vkubelet.model.stats import ContainerStats, CpuStats, FsStats, NetworkStats, NodeStats, PodStats

__all__ = ["EngineStats"]

log = structlog.get_logger(__name__)

Json = Mapping[str, Any]

_PARALLEL_REQUESTS: Final = 16
_REQUEST_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Found:
    """What was read of a container; nothing of one that could not be read."""

    reading: Reading | None = None
    network: NetworkStats | None = None
    logs: FsStats | None = None


_NOTHING: Final = _Found()


class EngineStats:
    """
    The figures of one engine's containers and of its machine.

    Args:
        client: of the engine.
        clock: for the ages of measurements.
        root_dir: on the file system of pods' volumes.
        proc: where ``/proc`` is mounted.
        cgroup_root: where control groups are.
    """

    def __init__(
        self,
        client: EngineClient,
        clock: Clock,
        root_dir: Path,
        *,
        proc: Path = PROC,
        cgroup_root: Path = cgroups.CGROUP_ROOT,
    ) -> None:
        self._client = client
        self._root_dir = root_dir
        self._proc = proc
        self._cgroup_root = cgroup_root
        self._tracked: dict[str, Tracked] = {}
        self._disk = DiskUsage(clock)
        self._asking = asyncio.Semaphore(_PARALLEL_REQUESTS)
        self._machine: Machine | None = None
        self._knows_machine = False

    async def idle(self) -> None:
        """Return when nothing goes on in the background."""
        await self._disk.idle()

    async def aclose(self) -> None:
        """End what goes on in the background."""
        await self._disk.close()

    # --- pods -----------------------------------------------------------------------------------------------

    async def pods(self, summaries: Sequence[Json], *, brief: bool) -> list[PodStats]:
        """
        The pods with a running sandbox.

        Args:
            summaries: the running containers of this node, entries of ``GET /containers/json``.
            brief: CPU and memory alone.
        """
        await self._track({summary["Id"] for summary in summaries})
        tracked = dict(self._tracked)
        found = await asyncio.to_thread(_read_files, tracked, brief=brief)
        for container_id, each in found.items():
            if each is _NOTHING:  # it has ended, or runs elsewhere by now: look at it afresh
                self._tracked.pop(container_id, None)
        unseen = [container_id for container_id, each in tracked.items() if each.cgroup is None]
        asked = await gather((self._ask(container_id) for container_id in unseen), "ask for statistics")
        found.update(zip(unseen, asked, strict=True))
        storage = _Storage() if brief else await self._storage(tracked)
        return list(_pods(summaries, tracked, found, storage))

    async def _track(self, present: set[str]) -> None:
        """Learn of new containers, forget those that are gone."""
        self._tracked = {each: known for each, known in self._tracked.items() if each in present}
        await gather((self._learn(each) for each in present - self._tracked.keys()), "inspect container")

    async def _learn(self, container_id: str) -> None:
        try:
            async with self._asking:
                inspected = await self._client.get(f"/containers/{container_id}/json")
        except ProviderError as error:
            log.debug("container not inspected", container_id=container_id, error=str(error))
            return
        self._tracked[container_id] = learn(
            inspected, sees_machine=self._may_be_here, proc=self._proc, cgroup_root=self._cgroup_root
        )

    @property
    def _may_be_here(self) -> bool:
        """The engine listens on this machine; whether it runs here, its machine tells."""
        return self._client.endpoint.unix_path is not None

    async def _ask(self, container_id: str) -> _Found:
        tracked = self._tracked.get(container_id)
        if tracked is None:
            return _NOTHING
        query = {"stream": "false", "one-shot": "true"}
        try:
            async with self._asking:
                _, body = await self._client.call(
                    "GET", f"/containers/{container_id}/stats", query, timeout_s=_REQUEST_TIMEOUT_S
                )
            answer = orjson.loads(body)
            reading = engine_stats.reading(answer, tracked.blank.memory_limit_bytes)
            network = engine_stats.network(answer) if tracked.has_network else None
        except (ProviderError, ValueError, KeyError) as error:
            log.debug("container not read", container_id=container_id, error=repr(error))
            return _NOTHING
        return _Found(reading, network)

    async def _storage(self, tracked: Mapping[str, Tracked]) -> _Storage:
        here = await self._here()
        directories = {i: each.upper_dir for i, each in tracked.items() if each.upper_dir is not None}
        known = self._disk.of(directories.values())
        written = {i: known[path] for i, path in directories.items() if path in known}
        image_fs = None if here is None else file_system(here.image_dir, 0)
        return _Storage(image_fs, written)

    # --- the machine ----------------------------------------------------------------------------------------

    async def node(self, *, brief: bool) -> NodeStats | None:
        """The engine's machine, None when that is another one."""
        here = await self._here()
        if here is None:
            return None
        try:
            return await asyncio.to_thread(here.read, brief=brief)
        except (OSError, ValueError, KeyError) as error:
            log.warning("this machine could not be read", error=repr(error))
            return None

    async def _here(self) -> Machine | None:
        if not self._knows_machine:
            try:
                self._machine = self._this_machine(await self._client.get("/info"))
                self._knows_machine = True
            except ProviderError as error:
                log.debug("the engine did not tell of its machine", error=str(error))
        return self._machine if self._may_be_here else None

    def _this_machine(self, info: Json) -> Machine | None:
        """A local socket may lead to an engine in a virtual machine: it has other memory and directories."""
        image_dir = Path(str(info.get("DockerRootDir") or "/var/lib/docker"))
        found = Machine(self._root_dir, image_dir, self._proc, self._cgroup_root)
        is_this = found.memory_bytes == info.get("MemTotal") and image_dir.is_dir()
        return found if is_this else None


def _read_files(tracked: Mapping[str, Tracked], *, brief: bool) -> dict[str, _Found]:
    """Of every container whose control group is here."""
    return {i: _read(each, brief) for i, each in tracked.items() if each.cgroup is not None}


def _read(tracked: Tracked, brief: bool) -> _Found:
    assert tracked.cgroup is not None
    try:
        reading = cgroups.read(tracked.cgroup, tracked.blank.memory_limit_bytes, brief=brief)
        if brief:
            return _Found(reading)
        time_ns = reading.cpu.time_ns
        return _Found(reading, network_usage(tracked, time_ns), log_usage(tracked, time_ns))
    except (OSError, ValueError) as error:
        log.debug("container not read", container_id=tracked.blank.container_id, error=repr(error))
        return _NOTHING


# --- putting together -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Storage:
    """The file system of images and containers, and what containers have written of it."""

    image_fs: FsStats | None = None
    written: Mapping[str, FsStats] = dataclasses.field(default_factory=dict)


def _pods(
    summaries: Sequence[Json],
    tracked: Mapping[str, Tracked],
    found: Mapping[str, _Found],
    storage: _Storage,
) -> Iterator[PodStats]:
    containers: dict[PodKey, list[ContainerStats]] = {}
    sandboxes: dict[PodKey, Json] = {}
    for summary in summaries:
        kept = summary.get("Labels") or {}
        key = labels.pod_key(kept)
        if key is None:
            continue
        if labels.is_sandbox(kept):
            newest = sandboxes.setdefault(key, summary)
            sandboxes[key] = max(newest, summary, key=lambda each: each.get("Created") or 0)
        elif summary["Id"] in tracked:
            figures = _figures(summary["Id"], tracked, found, storage)
            containers.setdefault(key, []).append(figures)
    for key, sandbox in sandboxes.items():
        sandbox_id = sandbox["Id"]
        yield PodStats(
            key=key,
            start_ns=int(sandbox.get("Created") or 0) * 1_000_000_000,
            containers=tuple(sorted(containers.get(key, ()), key=lambda each: each.name)),
            sandbox=_figures(sandbox_id, tracked, found, _Storage()) if sandbox_id in tracked else None,
            network=found.get(sandbox_id, _NOTHING).network,
        )


def _figures(
    container_id: str, tracked: Mapping[str, Tracked], found: Mapping[str, _Found], storage: _Storage
) -> ContainerStats:
    blank, each = tracked[container_id].blank, found.get(container_id, _NOTHING)
    reading = each.reading
    if reading is None:
        return blank
    return dataclasses.replace(
        blank,
        cpu=reading.cpu if blank.cpu_quota_us else _without_quota(reading.cpu),
        memory=reading.memory,
        swap=reading.swap,
        rootfs=_part(storage.image_fs, storage.written.get(container_id)),
        logs=_part(storage.image_fs, each.logs),
        disk_io=reading.disk_io,
        process_count=reading.process_count,
        thread_count=reading.thread_count,
    )


def _without_quota(cpu: CpuStats) -> CpuStats:
    """Without the zeros that the kernel counts where nothing is enforced."""
    return dataclasses.replace(cpu, periods=None, throttled_periods=None, throttled_ns=None)


def _part(whole: FsStats | None, used: FsStats | None) -> FsStats | None:
    """What something takes, with the file system that it is on."""
    if used is None or whole is None:
        return used
    return dataclasses.replace(
        whole, time_ns=used.time_ns, used_bytes=used.used_bytes, inodes_used=used.inodes_used
    )
