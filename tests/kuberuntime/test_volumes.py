"""Volumes on disk, by a runtime that mounts paths of this host."""

# ruff: noqa: ASYNC240  # looking at a few bytes in a temporary directory blocks nobody

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.builders import container_json, make_pod
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.kuberuntime import atomic_writer
from vkubelet.kuberuntime.contract import ContainerConfig, Mount, SandboxConfig
from vkubelet.kuberuntime.pod_config import ContainerConfigError, NodeFacts
from vkubelet.kuberuntime.volumes import MountError, VolumeManager
from vkubelet.model.observations import Running, Terminated
from vkubelet.model.pod import Pod
from vkubelet.model.references import ConfigMapData, References, SecretData

VOLUMES = [
    {"name": "cfg", "configMap": {"name": "app", "defaultMode": 0o444}},
    {"name": "key", "secret": {"secretName": "tls", "defaultMode": 0o400}},
    {"name": "tmp", "emptyDir": {}},
]
MOUNTS = [
    {"name": "cfg", "mountPath": "/etc/app"},
    {"name": "key", "mountPath": "/etc/tls"},
    {"name": "tmp", "mountPath": "/tmp"},
]


def references(mode: str = "fast") -> References:
    return References(
        config_maps={"app": ConfigMapData({"mode": mode})}, secrets={"tls": SecretData({"key": b"k"})}
    )


def pod_with_volumes() -> Pod:
    return make_pod(volumes=VOLUMES, containers=[container_json(volumeMounts=MOUNTS)])


class HostEngine(Engine):
    """The memory runtime, taken to mount host paths: what it is told to mount is written down."""

    def __init__(self, root_dir: Path) -> None:
        super().__init__(root_dir)
        self.configs: list[ContainerConfig] = []
        decide = self.runtime.script

        def script(config: ContainerConfig, sandbox: SandboxConfig):  # type: ignore[no-untyped-def]  # as given
            self.configs.append(config)
            return decide(config, sandbox)

        self.runtime.script = script
        self.runtime.uses_host_paths = True
        self.provider = self.new_provider()

    def mount(self, container_path: str) -> Mount:
        return next(m for m in self.configs[-1].mounts if m.container_path == container_path)


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[HostEngine]:
    engine = HostEngine(tmp_path)
    async with engine.running():
        yield engine


async def until(engine: HostEngine, pod: Pod) -> None:
    """File operations run in threads: wait for their end."""
    while engine.busy(pod):
        await settle(5)


async def test_files_are_there_before_the_container_starts(engine: HostEngine) -> None:
    pod = await engine.create(pod_with_volumes(), references())
    await until(engine, pod)

    assert isinstance(engine.state(pod), Running)
    config = engine.mount("/etc/app")
    assert config.read_only
    assert config.host_path == str(
        engine.root_dir / "pods" / "uid-web" / "volumes" / "kubernetes.io~configmap" / "cfg"
    )
    assert Path(config.host_path, "mode").read_text() == "fast"
    key = Path(engine.mount("/etc/tls").host_path, "key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o400
    tmp = Path(engine.mount("/tmp").host_path)
    assert stat.S_IMODE(tmp.stat().st_mode) == 0o777
    assert not engine.mount("/tmp").read_only


async def test_changed_references_reach_a_running_container(engine: HostEngine) -> None:
    pod = await engine.create(pod_with_volumes(), references())
    await until(engine, pod)
    path = Path(engine.mount("/etc/app").host_path, "mode")

    await engine.provider.update_pod(pod, references("slow"))
    await until(engine, pod)

    assert path.read_text() == "slow"
    assert engine.container(pod).restart_count == 0


async def test_references_that_change_while_files_are_written_are_written_too(
    engine: HostEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, write = asyncio.get_running_loop(), atomic_writer.write
    pod = pod_with_volumes()

    def slow(*args: Any) -> bool:
        monkeypatch.undo()
        update = engine.provider.update_pod(pod, references("slow"))
        asyncio.run_coroutine_threadsafe(update, loop).result()
        return write(*args)

    monkeypatch.setattr(atomic_writer, "write", slow)
    await engine.create(pod, references("fast"))
    await until(engine, pod)

    assert Path(engine.mount("/etc/app").host_path, "mode").read_text() == "slow"


async def test_an_empty_dir_outlives_a_restart_of_the_container(engine: HostEngine) -> None:
    pod = await engine.create(pod_with_volumes(), references())
    await until(engine, pod)
    kept = Path(engine.mount("/tmp").host_path, "kept")
    kept.write_text("here")

    engine.runtime.end_container(pod.key, "main", 1)
    await settle()
    await until(engine, pod)

    assert engine.container(pod).restart_count == 1
    assert kept.read_text() == "here"


async def test_nothing_is_left_on_disk_after_the_deletion(engine: HostEngine) -> None:
    pod = await engine.create(pod_with_volumes(), references())
    await until(engine, pod)

    await engine.terminate(pod)
    await engine.provider.delete_pod(pod.key)

    assert os.listdir(engine.root_dir / "pods") == []


async def test_a_full_disk_is_told_in_the_systems_words_and_tried_again(
    engine: HostEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(target: Path, *rest: object) -> bool:
        del rest
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    with monkeypatch.context() as patched:
        patched.setattr(atomic_writer, "write", full)
        pod = await engine.create(pod_with_volumes(), references())
        await until(engine, pod)
        (event,) = engine.events(pod, "FailedMount")
        assert event.message.startswith(
            'MountVolume.SetUp failed for volume "cfg" : [Errno 28] No space left'
        )

    await engine.clock.advance(10)
    await until(engine, pod)
    assert isinstance(engine.state(pod), Running)


# --- termination messages ---------------------------------------------------------------------------------


async def test_the_last_words_of_a_container_are_reported(engine: HostEngine) -> None:
    pod = await engine.create(restartPolicy="Never")
    path = Path(engine.mount("/dev/termination-log").host_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    path.write_text("x" * 5000 + "end")

    engine.runtime.end_container(pod.key, "main", 3)
    await settle()

    state = engine.state(pod)
    assert isinstance(state, Terminated)
    assert len(state.message) == 4096
    assert state.message.endswith("end")


async def test_each_attempt_has_words_of_its_own(engine: HostEngine) -> None:
    pod = await engine.create()
    Path(engine.mount("/dev/termination-log").host_path).write_text("first")
    engine.runtime.end_container(pod.key, "main", 1)
    await settle()

    last = engine.container(pod).last_state
    assert last is not None
    assert last.message == "first"
    assert Path(engine.mount("/dev/termination-log").host_path).read_text() == ""


@pytest.mark.parametrize(
    ("policy", "exit_code", "message"),
    [("FallbackToLogsOnError", 1, "hello\n"), ("FallbackToLogsOnError", 0, ""), ("File", 1, "")],
)
async def test_the_end_of_the_log_stands_in_for_them(
    engine: HostEngine, policy: str, exit_code: int, message: str
) -> None:
    command = ["sh", "-c", f"echo hello; sleep 1; exit {exit_code}"]
    container = container_json(terminationMessagePolicy=policy, command=command)
    pod = await engine.create(restartPolicy="Never", containers=[container])
    await engine.clock.advance(1)

    state = engine.state(pod)
    assert isinstance(state, Terminated)
    assert (state.exit_code, state.message) == (exit_code, message)


async def test_an_end_is_never_told_without_its_message(engine: HostEngine) -> None:
    command = ["sh", "-c", "echo hello; exit 1"]
    container = container_json(terminationMessagePolicy="FallbackToLogsOnError", command=command)
    pod = await engine.create(restartPolicy="Never", containers=[container])

    states = [seen.state for told in engine.host.observations[pod.key] for seen in told.containers]
    messages = [state.message for state in states if isinstance(state, Terminated)]
    assert messages
    assert set(messages) == {"hello\n"}


# --- the manager alone ------------------------------------------------------------------------------------


@pytest.fixture
def manager(tmp_path: Path) -> VolumeManager:
    return VolumeManager(tmp_path / "pods", NodeFacts, uses_paths=True)


def pod_of(volume: dict[str, object], **mount: object) -> Pod:
    mounts = [{"name": "v", "mountPath": "/v", **mount}]
    return make_pod(volumes=[{"name": "v", **volume}], containers=[container_json(volumeMounts=mounts)])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_fs_group_owns_what_is_in_a_volume(manager: VolumeManager) -> None:
    pod = make_pod(volumes=VOLUMES, securityContext={"fsGroup": 4321})
    await manager.set_up(pod, references())

    base = manager.pods_dir / "uid-web" / "volumes"
    tmp = (base / "kubernetes.io~empty-dir" / "tmp").stat()
    assert (tmp.st_gid, stat.S_IMODE(tmp.st_mode)) == (4321, 0o2777)
    key = (base / "kubernetes.io~secret" / "key" / "key").stat()
    assert (key.st_gid, stat.S_IMODE(key.st_mode)) == (4321, 0o440)


async def test_a_sub_path_is_made_where_it_is_not_there(manager: VolumeManager) -> None:
    pod = pod_of({"emptyDir": {}}, subPath="a/b")
    await manager.set_up(pod, References())

    mount, _ = manager.mounts(pod, pod.containers[0], 0)
    assert mount.host_path.endswith("/v/a/b")
    assert Path(mount.host_path).is_dir()


async def test_a_sub_path_cannot_lead_out_of_its_volume(manager: VolumeManager, tmp_path: Path) -> None:
    pod = pod_of({"emptyDir": {}}, subPath="link/etc")
    await manager.set_up(pod, References())
    (manager.pods_dir / "uid-web/volumes/kubernetes.io~empty-dir/v/link").symlink_to(tmp_path)

    with pytest.raises(ContainerConfigError, match="subPath"):
        manager.mounts(pod, pod.containers[0], 0)


@pytest.mark.parametrize(
    ("kind", "there", "works"),
    [
        ("", None, True),
        ("Directory", None, False),
        ("Directory", "dir", True),
        ("Directory", "file", False),
        ("DirectoryOrCreate", None, True),
        ("File", "file", True),
        ("File", "dir", False),
        ("FileOrCreate", None, True),
        ("Socket", "file", False),
        ("CharDevice", "file", False),
    ],
)
async def test_host_paths_are_what_their_type_says(
    manager: VolumeManager, tmp_path: Path, kind: str, there: str | None, works: bool
) -> None:
    path = tmp_path / "host"
    if there == "dir":
        path.mkdir()
    elif there == "file":
        path.touch()
    pod = pod_of({"hostPath": {"path": str(path), "type": kind}})

    if works:
        await manager.set_up(pod, References())
        assert manager.mounts(pod, pod.containers[0], 0)[0].host_path == str(path)
        assert path.exists() == (kind != "")
    else:
        with pytest.raises(MountError, match="hostPath type check failed"):
            await manager.set_up(pod, References())


async def test_removing_a_pod_never_follows_links(manager: VolumeManager, tmp_path: Path) -> None:
    pod = pod_of({"emptyDir": {}})
    await manager.set_up(pod, References())
    precious = tmp_path / "precious"
    precious.touch()
    (manager.pods_dir / "uid-web/volumes/kubernetes.io~empty-dir/v/link").symlink_to(tmp_path)

    await manager.tear_down(pod.key)

    assert precious.exists()
    assert not (manager.pods_dir / "uid-web").exists()
    await manager.tear_down(pod.key)


def may_mount() -> bool:
    command = ["unshare", "--mount", "true"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="nothing can be mounted here")
async def test_an_empty_dir_in_memory_is_a_tmpfs_of_that_size_and_goes_with_the_pod(
    manager: VolumeManager,
) -> None:
    pod = pod_of({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})
    await manager.set_up(pod, References())
    path = Path(manager.mounts(pod, pod.containers[0], 0)[0].host_path)
    try:
        assert path.is_mount()
        assert stat.S_IMODE(path.stat().st_mode) == 0o777
        assert shutil.disk_usage(path).total == 2**20
        await manager.set_up(pod, References())
    finally:
        await manager.tear_down(pod.key)
    assert not path.exists()
