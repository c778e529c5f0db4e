"""
Volumes on disk: made before the pod's first container, updated while it runs, gone when it is deleted.

Under the node's root directory as the kubelet lays it out::

    pods/<uid>/volumes/kubernetes.io~configmap/<volume>
    pods/<uid>/containers/<container>/<attempt>            the termination message

Which files a volume holds is `model.volumes`'s, how they are replaced at once is `atomic_writer`'s. Unlike
the kubelet's, Secret and token volumes are on the disk of the root directory and not in a tmpfs of their own:
a mount for each would have to be undone after every crash; whoever minds puts the root directory on a tmpfs.
File operations run in threads. For a runtime that has no use for paths of this host nothing is written, but
what a volume refers to must be there all the same.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from vkubelet.errors import PodReferenceError, VirtualKubeletError
from vkubelet.kuberuntime import atomic_writer, termination_message
from vkubelet.kuberuntime.contract import Mount
from vkubelet.kuberuntime.pod_config import ContainerConfigError, NodeFacts
from vkubelet.model import quantity
from vkubelet.model.downward_api import EnvironmentContext
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Container, Json, Pod, Volume
from vkubelet.model.references import References
from vkubelet.model.volumes import FILE_VOLUME_TYPES, VolumeFiles, volume_files

__all__ = ["MountError", "VolumeManager"]

_PLUGINS = {
    "configMap": "configmap",
    "downwardAPI": "downward-api",
    "emptyDir": "empty-dir",
    "projected": "projected",
    "secret": "secret",
}


class MountError(VirtualKubeletError):
    """A volume cannot be had; the message is the one of the kubelet's FailedMount event."""

    def __init__(self, volume: str, cause: object) -> None:
        super().__init__(f'MountVolume.SetUp failed for volume "{volume}" : {cause}')


class VolumeManager:
    """
    The volumes of a node's pods.

    Args:
        pods_dir: where each pod has its directory.
        node: for resource fields of downward API volumes.
        uses_paths: False where the runtime does not mount paths of this host.
    """

    def __init__(self, pods_dir: Path, node: Callable[[], NodeFacts], *, uses_paths: bool) -> None:
        self.pods_dir = pods_dir
        self._node = node
        self._uses_paths = uses_paths

    async def set_up(self, pod: Pod, references: References) -> None:
        """
        Make or update every volume of the pod; repeatable.

        Raises:
            MountError: the first that cannot be had.
        """
        if not pod.volumes:
            return
        context = EnvironmentContext(host_ips=self._node().ips, node_allocatable=self._node().allocatable)
        work: list[tuple[Volume, VolumeFiles]] = []
        for volume in pod.volumes:
            files: VolumeFiles = {}
            if volume.source_type in FILE_VOLUME_TYPES:
                try:
                    files = volume_files(pod, volume, references, context)
                except PodReferenceError as error:
                    raise MountError(volume.name, error) from error
            work.append((volume, files))
        if self._uses_paths:
            await asyncio.to_thread(self._write_all, pod, work)

    def mounts(self, pod: Pod, container: Container, attempt: int) -> tuple[Mount, ...]:
        """
        What one attempt of a container gets to see, with a fresh file for its termination message.

        Raises:
            ContainerConfigError: a subPath leads out of its volume.
            OSError: the disk is full, for example.
        """
        if not self._uses_paths:
            return ()
        volumes = {v.name: v for v in pod.volumes}
        mounts = [self._mount(pod, volumes[m["name"]], m) for m in container.volume_mounts]
        message = termination_message.message_path(self.pods_dir, pod.uid, container.name, attempt)
        termination_message.create_file(message)
        return (*mounts, Mount(str(message), container.termination_message_path))

    async def tear_down(self, key: PodKey) -> None:
        """Remove the pod's directory, with all that is in it; raises `OSError`."""
        directory = self.pods_dir / key.uid
        if self._uses_paths and directory.exists():
            await asyncio.to_thread(_remove_tree, directory)

    # --- making ---------------------------------------------------------------------------------------

    def _path(self, pod: Pod, volume: Volume) -> Path:
        if volume.source_type == "hostPath":
            return Path(volume.source["path"])
        plugin = _PLUGINS[volume.source_type]
        return self.pods_dir / pod.uid / "volumes" / f"kubernetes.io~{plugin}" / volume.name

    def _write_all(self, pod: Pod, work: list[tuple[Volume, VolumeFiles]]) -> None:
        for volume, files in work:
            try:
                self._write(pod, volume, files)
            except OSError as error:
                raise MountError(volume.name, error) from error

    def _write(self, pod: Pod, volume: Volume, files: VolumeFiles) -> None:
        path = self._path(pod, volume)
        match volume.source_type:
            case "hostPath":
                _check_host_path(path, volume.source.get("type") or "")
            case "emptyDir":
                _make_empty_dir(path, volume.source, pod.security_context.get("fsGroup"))
            case _:
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o777)
                group: int | None = pod.security_context.get("fsGroup")
                atomic_writer.write(path, files, lambda new: _give_to_group(new, group, writable=False))

    # --- mounting -------------------------------------------------------------------------------------

    def _mount(self, pod: Pod, volume: Volume, mount: Json) -> Mount:
        path = self._path(pod, volume)
        if sub_path := mount.get("subPath"):
            path = _sub_path(path, sub_path, volume.name)
        target: str = mount["mountPath"]
        return Mount(
            str(path),
            target if target.startswith("/") else f"/{target}",
            read_only=bool(mount.get("readOnly")) or volume.source_type in FILE_VOLUME_TYPES,
        )


def _sub_path(volume: Path, sub_path: str, name: str) -> Path:
    """The path in the volume, made as a directory where there is nothing."""
    root = volume.resolve()
    path = (root / sub_path).resolve()
    if not path.is_relative_to(root):
        raise ContainerConfigError(f'failed to prepare subPath for volumeMount "{name}" of container')
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(volume.stat().st_mode & 0o777)
    return path


def _check_host_path(path: Path, kind: str) -> None:
    """As its type demands (Kubernetes docs, "hostPath"); raises `OSError`."""
    match kind:
        case "DirectoryOrCreate" if not path.exists():
            path.mkdir(parents=True, mode=0o755)
        case "FileOrCreate" if not path.exists():
            path.touch(mode=0o644)
    checks = {
        "Directory": path.is_dir,
        "DirectoryOrCreate": path.is_dir,
        "File": path.is_file,
        "FileOrCreate": path.is_file,
        "Socket": path.is_socket,
        "CharDevice": path.is_char_device,
        "BlockDevice": path.is_block_device,
    }
    check = checks.get(kind)
    if check is not None and not check():
        words = {"Directory": "a directory", "File": "a file", "Socket": "a socket file"}
        words |= {"CharDevice": "a character device", "BlockDevice": "a block device"}
        raise OSError(f"hostPath type check failed: {path} is not {words[kind.removesuffix('OrCreate')]}")


def _make_empty_dir(path: Path, source: Json, fs_group: int | None) -> None:
    """An empty directory that everybody may write to; once made, it is left alone."""
    is_memory = source.get("medium") == "Memory"
    if path.is_dir() and (not is_memory or path.is_mount()):
        return
    path.mkdir(parents=True, exist_ok=True)
    if is_memory:
        _mount_tmpfs(path, source.get("sizeLimit"))
    path.chmod(0o777)
    _give_to_group(path, fs_group, writable=True)


def _mount_tmpfs(path: Path, size_limit: str | None) -> None:
    options = ["-o", f"size={quantity.bytes_(size_limit)}"] if size_limit else []
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise OSError(f"mount failed: {result.stderr.strip() or result.returncode}")


def _give_to_group(path: Path, group: int | None, *, writable: bool) -> None:
    """`fsGroup`: everything below belongs to the group, and new files will (kubelet: SetVolumeOwnership)."""
    if group is None or os.geteuid() != 0:
        return
    for parent, _, names in os.walk(path, topdown=False):
        for name in names:
            _give(Path(parent, name), group, 0o660 if writable else 0o440)
        _give(Path(parent), group, 0o2770 if writable else 0o2550)


def _give(path: Path, group: int, mode: int) -> None:
    os.lchown(path, -1, group)
    if not path.is_symlink():
        path.chmod(path.stat().st_mode & 0o7777 | mode)


def _remove_tree(directory: Path) -> None:
    """Unmount what is mounted below, then remove; nothing of a mounted volume is ever deleted."""
    for path in sorted((directory / "volumes").glob("*/*")):
        if path.is_mount():
            subprocess.run(["umount", str(path)], capture_output=True, check=True)
    shutil.rmtree(directory)
