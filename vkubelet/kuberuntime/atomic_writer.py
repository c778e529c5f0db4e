"""
Writes the files of a volume so that no reader ever sees half of an update.

The layout is the kubelet's AtomicWriter's, which programs have come to rely on: the files are in a directory
named by time, ``..data`` is a symbolic link to it, and what users see are links through ``..data``. Renaming
a new link over ``..data`` replaces all files in one step; watching ``..data`` tells of it::

    <volume>/..2026_01_02_03_04_05.123456789/app.conf
    <volume>/..data     -> ..2026_01_02_03_04_05.123456789
    <volume>/app.conf   -> ..data/app.conf

Blocking; callers run it in a thread.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from vkubelet.model.volumes import VolumeFile

__all__ = ["write"]

_DATA = "..data"
_NEW_DATA = "..data_tmp"


def write(target: Path, files: Mapping[str, VolumeFile], set_ownership: Callable[[Path], None]) -> bool:
    """
    Make `target` show exactly `files`; nothing is touched when it does already.

    Args:
        target: the volume's directory; exists.
        files: by relative path.
        set_ownership: called with the new data directory before anybody sees it.

    Returns:
        Whether something was written.

    Raises:
        OSError: in the words of the operating system; what was visible before stays so.
    """
    current = _current(target)
    changed = current is None or _stored(current) != _wanted(files)
    if changed:
        _publish(target, files, set_ownership)
    _link_names(target, files)
    if changed and current is not None:
        shutil.rmtree(current, ignore_errors=True)
    return changed


def _current(target: Path) -> Path | None:
    try:
        return target / os.readlink(target / _DATA)
    except FileNotFoundError:
        return None


def _wanted(files: Mapping[str, VolumeFile]) -> dict[str, bytes]:
    return {path: file.content for path, file in files.items()}


def _stored(directory: Path) -> dict[str, bytes]:
    """The contents under a data directory; modes belong to the spec and cannot change."""
    stored: dict[str, bytes] = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            stored[str(path.relative_to(directory))] = path.read_bytes()
    return stored


def _publish(target: Path, files: Mapping[str, VolumeFile], set_ownership: Callable[[Path], None]) -> None:
    stamp = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    directory = Path(tempfile.mkdtemp(prefix=stamp, dir=target))
    try:
        directory.chmod(0o755)
        for path, file in files.items():
            _write_file(directory / path, file)
        set_ownership(directory)
        new_link = target / _NEW_DATA
        new_link.unlink(missing_ok=True)
        new_link.symlink_to(directory.name)
        new_link.rename(target / _DATA)
    except OSError:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def _write_file(path: Path, file: VolumeFile) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.content)
    path.chmod(stat.S_IMODE(file.mode))


def _link_names(target: Path, files: Mapping[str, VolumeFile]) -> None:
    """One link for each first part of a path; links to what is no longer there are removed."""
    wanted = {path.partition("/")[0] for path in files}
    for name in wanted:
        link = target / name
        if not link.is_symlink():
            link.symlink_to(f"{_DATA}/{name}")
    for entry in os.scandir(target):
        if entry.is_symlink() and not entry.name.startswith("..") and entry.name not in wanted:
            os.unlink(entry.path)
