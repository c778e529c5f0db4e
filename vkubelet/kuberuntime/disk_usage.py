"""
How much of a file system directories take, measured in the background.

Walking a tree is slow and cold caches make it slower, so a reader gets what was last measured, and a tree is
walked again only when somebody asks for a figure that is older than a minute (as the kubelet's
`volumeStatsAggPeriod` has it). One walk at a time, in a thread, whatever is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

import structlog

from vkubelet.clock import Clock
from vkubelet.model.stats import FsStats

__all__ = ["DiskUsage", "file_system", "measure"]

log = structlog.get_logger(__name__)

PERIOD_S = 60.0
_BLOCK_BYTES = 512
"""The unit of `st_blocks`, whatever the file system's own is."""


def measure(directory: Path, time_ns: int) -> FsStats:
    """
    What a directory takes, itself included; hard links count once, and other file systems not at all.

    Entries that vanish meanwhile or may not be read are passed over.

    Raises:
        OSError: the directory itself cannot be read.
    """
    top = os.lstat(directory)
    seen = {top.st_ino}
    blocks = top.st_blocks
    stack = [os.fspath(directory)]
    while stack:
        with contextlib.suppress(OSError), os.scandir(stack.pop()) as entries:
            for entry in entries:
                found = _stat(entry)
                if found is None or found.st_dev != top.st_dev or found.st_ino in seen:
                    continue
                seen.add(found.st_ino)
                blocks += found.st_blocks
                if stat.S_ISDIR(found.st_mode):
                    stack.append(entry.path)
    return FsStats(time_ns, used_bytes=blocks * _BLOCK_BYTES, inodes_used=len(seen))


def _stat(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except OSError:
        return None


def file_system(path: str | Path, time_ns: int) -> FsStats | None:
    """The file system that a path is on, with all that is used of it; None when there is no such path."""
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return FsStats(
        time_ns,
        available_bytes=found.f_bavail * found.f_frsize,
        capacity_bytes=found.f_blocks * found.f_frsize,
        used_bytes=(found.f_blocks - found.f_bfree) * found.f_frsize,
        inodes_free=found.f_favail,
        inodes=found.f_files,
        inodes_used=found.f_files - found.f_ffree,
    )


class DiskUsage:
    """The last measurement of each directory that is asked for."""

    def __init__(self, clock: Clock, *, period_s: float = PERIOD_S) -> None:
        self._clock = clock
        self._period_s = period_s
        self._known: dict[Path, FsStats] = {}
        self._measured_at: dict[Path, float] = {}
        self._task: asyncio.Task[None] | None = None

    def of(self, directories: Iterable[Path]) -> dict[Path, FsStats]:
        """
        What is known of these; older or missing figures are renewed in the background.

        Directories that are not asked for any more are forgotten.
        """
        wanted = dict.fromkeys(directories)
        self._known = {path: usage for path, usage in self._known.items() if path in wanted}
        self._measured_at = {path: at for path, at in self._measured_at.items() if path in wanted}
        due = self._clock.monotonic() - self._period_s
        stale = [path for path in wanted if self._measured_at.get(path, due) <= due]
        if stale and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._renew(stale), name="disk usage")
        return self._known

    async def idle(self) -> None:
        """Return when nothing is being measured."""
        while self._task is not None:
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """End what is being measured; a walk under way ends with its directory."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _renew(self, directories: list[Path]) -> None:
        try:
            for path in directories:
                self._measured_at[path] = self._clock.monotonic()
                time_ns = int(self._clock.now().timestamp() * 1e9)
                try:
                    self._known[path] = await asyncio.to_thread(measure, path, time_ns)
                except OSError as error:
                    log.debug("directory was not measured", path=str(path), error=str(error))
        finally:
            self._task = None
