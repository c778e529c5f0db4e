"""The container runtime over a real Docker engine: what its contract promises, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

import pytest

from e2e.harness.docker_engine import DockerEngine
from e2e.harness.images import BUSYBOX_IMAGE, PAUSE_IMAGE
from providers.docker.runtime import DockerRuntime
from providers.docker.settings import DockerSettings
from vkubelet.clock import SystemClock
from vkubelet.errors import PodNotFoundError, ProviderError, ProviderUnavailableError, StreamError
from vkubelet.kuberuntime.contract import (
    ContainerConfig,
    ContainerInfo,
    ContainerSecurity,
    ContainerStatus,
    DnsConfig,
    LinuxResources,
    Mount,
    SandboxConfig,
)
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodObservation
from vkubelet.model.pod import ContainerKind
from vkubelet.provider import LogOptions, ProviderContext, TerminalSize


class Host:
    """A `PodHost` that counts."""

    def __init__(self) -> None:
        self.node_changes = 0

    def pod_changed(self, observation: PodObservation) -> None:
        raise AssertionError("a runtime reports no pods")

    def node_changed(self) -> None:
        self.node_changes += 1

    def record_event(
        self,
        key: PodKey,
        event_type: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        container: str | None = None,
    ) -> None:
        raise AssertionError("a runtime records no events")


@dataclass
class Sink:
    """Takes output and counts."""

    data: bytearray = field(default_factory=bytearray)
    keep: bool = True
    size: int = 0
    writes: int = 0

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        self.writes += 1
        if self.keep:
            self.data += data


@dataclass
class IO:
    """An `ExecIO`."""

    stdin: AsyncIterator[bytes] | None = None
    stdout: Sink | None = field(default_factory=Sink)
    stderr: Sink | None = field(default_factory=Sink)
    tty: bool = False
    resizes: AsyncIterator[TerminalSize] | None = None

    @property
    def out(self) -> bytes:
        assert self.stdout is not None
        return bytes(self.stdout.data)

    @property
    def err(self) -> bytes:
        assert self.stderr is not None
        return bytes(self.stderr.data)


@pytest.fixture
def context(tmp_path: Path) -> ProviderContext:
    return ProviderContext(
        host=Host(),
        clock=SystemClock(),
        node_name=f"it-{uuid.uuid4().hex[:12]}",
        cluster_id="integration",
        node_ips=("127.0.0.1",),
        root_dir=tmp_path,
    )


@pytest.fixture
async def runtime(docker_engine: DockerEngine, context: ProviderContext) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(context, DockerSettings(host=docker_engine.host))
    async with runtime.running():
        yield runtime
        await remove_all(runtime)


async def remove_all(runtime: DockerRuntime) -> None:
    for pod in await runtime.list_pods():
        for container in pod.containers:
            await runtime.remove_container(container.id)
        for sandbox in pod.sandboxes:
            await runtime.remove_pod_sandbox(sandbox.id)


def pod_key(name: str = "web") -> PodKey:
    return PodKey("default", name, str(uuid.uuid4()))


T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T | None]], timeout_s: float = 20.0) -> T:
    """What `look` gives once it gives something."""
    async with asyncio.timeout(timeout_s):
        while True:
            if (seen := await look()) is not None:
                return seen
            await asyncio.sleep(0.02)


class PodUnderTest:
    """A sandbox and what a test starts in it."""

    def __init__(
        self, runtime: DockerRuntime, sandbox: SandboxConfig, sandbox_id: str, image_id: str
    ) -> None:
        self.runtime = runtime
        self.sandbox = sandbox
        self.sandbox_id = sandbox_id
        self.image_id = image_id

    def config(self, *command: str, name: str = "app") -> ContainerConfig:
        return ContainerConfig(
            name=name,
            kind=ContainerKind.APP,
            attempt=0,
            image=BUSYBOX_IMAGE,
            image_id=self.image_id,
            command=command or ("sleep", "1000"),
            spec_hash="abc",
        )

    async def create(self, config: ContainerConfig) -> str:
        return await self.runtime.create_container(self.sandbox_id, config, self.sandbox)

    async def start(self, config: ContainerConfig) -> str:
        container_id = await self.create(config)
        await self.runtime.start_container(container_id)
        return container_id

    async def run(self, config: ContainerConfig) -> tuple[ContainerInfo, bytes]:
        """Start it, and give its end and its output."""
        container_id = await self.start(config)
        info = await self.ended(container_id)
        return info, await read_logs(self.runtime, container_id)

    async def info(self, container_id: str) -> ContainerInfo:
        pod = await self.runtime.pod_status(self.sandbox.key)
        return next(c for c in pod.containers if c.id == container_id)

    async def ended(self, container_id: str) -> ContainerInfo:
        async def has_ended() -> ContainerInfo | None:
            info = await self.info(container_id)
            return info if info.status is ContainerStatus.EXITED else None

        return await until(has_ended)


async def new_pod(runtime: DockerRuntime, sandbox: SandboxConfig | None = None) -> PodUnderTest:
    image = await runtime.image_status(BUSYBOX_IMAGE)
    assert image is not None
    sandbox = sandbox or SandboxConfig(key=pod_key(), attempt=0, hostname="web")
    return PodUnderTest(runtime, sandbox, await runtime.run_pod_sandbox(sandbox), image.id)


@pytest.fixture
async def pod(runtime: DockerRuntime) -> PodUnderTest:
    return await new_pod(runtime)


async def has_written(pod: PodUnderTest, container_id: str, text: bytes) -> bool | None:
    return text in await read_logs(pod.runtime, container_id) or None


async def read_logs(runtime: DockerRuntime, container_id: str, **options: object) -> bytes:
    async with runtime.container_logs(container_id, LogOptions(**options)) as chunks:  # type: ignore[arg-type]  # by name
        return b"".join([chunk async for chunk in chunks])


# --- node -------------------------------------------------------------------------------------------------


async def test_the_node_is_what_the_engine_says(runtime: DockerRuntime) -> None:
    node = await runtime.describe_node()
    assert {c.type: c.status for c in node.conditions}["Ready"] == "True"
    assert int(node.capacity["cpu"]) >= 1
    assert node.capacity["pods"] == "110"
    assert node.node_info["containerRuntimeVersion"].startswith("docker://")
    assert node.node_info["architecture"] in {"amd64", "arm64"}
    assert "ephemeral-storage" in node.capacity


async def test_a_dead_engine_is_a_node_that_is_not_ready(context: ProviderContext, tmp_path: Path) -> None:
    runtime = DockerRuntime(context, DockerSettings(host=f"unix://{tmp_path}/none.sock"))
    async with runtime.running():
        node = await runtime.describe_node()
        (ready,) = [c for c in node.conditions if c.type == "Ready"]
        assert ready.status == "False"
        assert "none.sock" in ready.message
        with pytest.raises(ProviderUnavailableError):
            await runtime.list_pods()


async def test_without_a_sandbox_image_the_node_says_what_to_do(
    docker_engine: DockerEngine, context: ProviderContext
) -> None:
    settings = DockerSettings(host=docker_engine.host, sandbox_images=("vkubelet.invalid/none:1",))
    runtime = DockerRuntime(context, settings)
    async with runtime.running():
        with pytest.raises(ProviderError, match="no sandbox image"):
            await runtime.run_pod_sandbox(SandboxConfig(key=pod_key(), attempt=0))
        node = await runtime.describe_node()
        (ready,) = [c for c in node.conditions if c.type == "Ready"]
        assert ready.status == "False"
        assert "vkubelet.invalid/none:1" in ready.message
        assert "sandboxImage" in ready.message


# --- sandboxes --------------------------------------------------------------------------------------------


async def test_a_sandbox_has_an_address_and_is_found_by_its_labels(pod: PodUnderTest) -> None:
    status = await pod.runtime.pod_status(pod.sandbox.key)
    (sandbox,) = status.sandboxes
    assert sandbox.ready
    assert sandbox.id == pod.sandbox_id
    assert sandbox.ips[0].count(".") == 3
    assert [p.key for p in await pod.runtime.list_pods()] == [pod.sandbox.key]


async def test_running_a_sandbox_again_gives_the_same_one(pod: PodUnderTest) -> None:
    assert await pod.runtime.run_pod_sandbox(pod.sandbox) == pod.sandbox_id
    await pod.runtime.stop_pod_sandbox(pod.sandbox_id)
    (stopped,) = (await pod.runtime.pod_status(pod.sandbox.key)).sandboxes
    assert (stopped.ready, stopped.ips) == (False, ())
    assert await pod.runtime.run_pod_sandbox(pod.sandbox) == pod.sandbox_id
    (again,) = (await pod.runtime.pod_status(pod.sandbox.key)).sandboxes
    assert again.ready


async def test_stopping_and_removing_a_sandbox_can_be_repeated(pod: PodUnderTest) -> None:
    for _ in range(2):
        await pod.runtime.stop_pod_sandbox(pod.sandbox_id)
    for _ in range(2):
        await pod.runtime.remove_pod_sandbox(pod.sandbox_id)
    await pod.runtime.stop_pod_sandbox(pod.sandbox_id)
    assert (await pod.runtime.pod_status(pod.sandbox.key)).sandboxes == ()


async def test_a_pod_has_its_host_name_resolver_and_hosts(runtime: DockerRuntime) -> None:
    sandbox = SandboxConfig(
        key=pod_key(),
        attempt=0,
        hostname="web-0",
        dns=DnsConfig(("10.0.0.10",), ("default.svc.cluster.local", "svc.cluster.local"), ("ndots:5",)),
        host_aliases=(("10.9.8.7", ("db", "db.example")),),
        labels={"app": "web"},
    )
    pod = await new_pod(runtime, sandbox)
    info, output = await pod.run(pod.config("sh", "-c", "hostname; cat /etc/resolv.conf /etc/hosts"))
    lines = output.decode().splitlines()
    assert info.exit_code == 0
    assert lines[0] == "web-0"
    assert "nameserver 10.0.0.10" in lines
    assert "search default.svc.cluster.local svc.cluster.local" in lines
    assert "options ndots:5" in lines
    assert any(line.split() == ["10.9.8.7", "db"] for line in lines)


async def test_containers_share_network_ipc_and_when_asked_processes(runtime: DockerRuntime) -> None:
    pod = await new_pod(runtime, SandboxConfig(key=pod_key(), attempt=0, share_process_namespace=True))
    show = "readlink /proc/self/ns/net; readlink /proc/self/ns/ipc; readlink /proc/self/ns/pid"
    _, one = await pod.run(pod.config("sh", "-c", show, name="one"))
    _, two = await pod.run(pod.config("sh", "-c", show, name="two"))
    assert one == two


async def test_a_pod_on_the_hosts_network_has_no_address_of_its_own(runtime: DockerRuntime) -> None:
    sandbox = SandboxConfig(
        key=pod_key(),
        attempt=0,
        host_network=True,
        host_pid=True,
        host_ipc=True,
        dns=DnsConfig(("10.0.0.10",)),
    )
    pod = await new_pod(runtime, sandbox)
    (info,) = (await runtime.pod_status(pod.sandbox.key)).sandboxes
    assert info.ips == ()
    show = "for n in net pid ipc; do readlink /proc/self/ns/$n; done; cat /etc/resolv.conf"
    _, output = await pod.run(pod.config("sh", "-c", show))
    host = [os.readlink(f"/proc/self/ns/{name}") for name in ("net", "pid", "ipc")]
    assert output.decode().splitlines()[:3] == host
    assert b"nameserver 10.0.0.10" in output


async def test_two_nodes_on_one_engine_leave_each_other_alone(
    docker_engine: DockerEngine, context: ProviderContext, pod: PodUnderTest
) -> None:
    other = DockerRuntime(replace(context, node_name="another-node"), DockerSettings(host=docker_engine.host))
    async with other.running():
        assert await other.list_pods() == []
        assert (await other.pod_status(pod.sandbox.key)).sandboxes == ()
        with pytest.raises(ProviderError, match=r"vkubelet\.io/node"):
            await other.run_pod_sandbox(pod.sandbox)


# --- containers -------------------------------------------------------------------------------------------


async def test_a_container_goes_from_created_to_running_to_exited(pod: PodUnderTest) -> None:
    config = replace(pod.config("sh", "-c", "exit 7"), annotations={"a": "b"}, attempt=3)
    container_id = await pod.create(config)
    assert await pod.create(config) == container_id
    created = await pod.info(container_id)
    assert (created.status, created.attempt, created.spec_hash) == (ContainerStatus.CREATED, 3, "abc")
    assert created.annotations == {"a": "b"}
    assert created.image == BUSYBOX_IMAGE
    assert created.container_id == f"docker://{container_id}"
    await pod.runtime.start_container(container_id)
    ended = await pod.ended(container_id)
    assert (ended.exit_code, ended.error, ended.oom_killed) == (7, "", False)
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert ended.started_at <= ended.finished_at
    assert ended.sandbox_id == pod.sandbox_id


async def test_a_container_that_has_run_is_not_run_again(pod: PodUnderTest) -> None:
    container_id = await pod.start(pod.config("true"))
    first = await pod.ended(container_id)
    await pod.runtime.start_container(container_id)
    assert await pod.info(container_id) == first


async def test_a_command_that_does_not_exist_is_a_start_error(pod: PodUnderTest) -> None:
    container_id = await pod.create(pod.config("no-such-command"))
    with pytest.raises(ProviderError, match="executable file not found") as caught:
        await pod.runtime.start_container(container_id)
    assert not isinstance(caught.value, PodNotFoundError)
    info = await pod.info(container_id)
    assert (info.status, info.exit_code) == (ContainerStatus.EXITED, 128)
    assert "executable file not found" in info.error
    assert info.started_at is None


async def test_a_mount_of_what_does_not_exist_is_refused_with_the_path(pod: PodUnderTest) -> None:
    config = replace(pod.config("true"), mounts=(Mount("/no/such/path", "/data"),))
    with pytest.raises(ProviderError, match="/no/such/path"):
        await pod.create(config)


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("hello")
    tmp_path.chmod(0o755)
    return tmp_path


async def test_a_container_gets_its_definition(pod: PodUnderTest, mounted: Path) -> None:
    script = (
        'echo "$A|$B"; pwd; id; cat /data/file; touch /data/x 2>/dev/null || echo read-only;'
        "grep -E 'NoNewPrivs|Seccomp:|CapEff' /proc/self/status; touch /x 2>/dev/null || echo read-only-root"
    )
    config = replace(
        pod.config("sh", "-c", script),
        env=(("A", "1"), ("B", "two words"), ("A", "3")),
        working_dir="/tmp",
        mounts=(Mount(str(mounted), "/data", read_only=True),),
        security=ContainerSecurity(
            user="1000",
            group=3000,
            supplemental_groups=(2000,),
            read_only_root_filesystem=True,
            no_new_privileges=True,
            drop_capabilities=("ALL",),
        ),
    )
    _, output = await pod.run(config)
    assert output.decode().splitlines()[:2] == ["3|two words", "/tmp"]
    assert b"uid=1000 gid=3000 groups=2000" in output
    assert b"helloread-only\n" in output
    assert b"CapEff:\t0000000000000000" in output
    assert b"NoNewPrivs:\t1" in output
    assert b"Seccomp:\t0" in output
    assert output.endswith(b"read-only-root\n")


async def test_limits_are_set_and_exceeding_memory_is_an_oom_kill(pod: PodUnderTest) -> None:
    resources = LinuxResources(
        cpu_shares=512,
        cpu_quota_us=20000,
        cpu_period_us=100000,
        memory_limit_bytes=16 << 20,
        oom_score_adj=-997,
    )
    # The engine hears of the kernel's deed a moment late, and only once it has begun to listen.
    script = "sleep 1; (x=a; while true; do x=$x$x; done); code=$?; sleep 1; exit $code"
    config = replace(pod.config("sh", "-c", script), resources=resources)
    info, _ = await pod.run(config)
    assert info.oom_killed
    assert info.exit_code == 137


async def test_the_kubelets_command_rules_hold(pod: PodUnderTest) -> None:
    _, output = await pod.run(replace(pod.config("echo"), args=("one", "two")))
    assert output == b"one two\n"
    only_args = replace(pod.config(name="args"), command=(), args=("echo", "from the image's entrypoint"))
    _, output = await pod.run(only_args)
    assert output == b"from the image's entrypoint\n"


# --- stopping ---------------------------------------------------------------------------------------------

_STUBBORN = 'trap "echo term" TERM; echo ready; while true; do sleep 0.1; done'


async def started_and_ready(pod: PodUnderTest) -> str:
    container_id = await pod.start(pod.config("sh", "-c", _STUBBORN))
    await until(lambda: has_written(pod, container_id, b"ready\n"))
    return container_id


async def test_a_polite_container_stops_at_its_signal(pod: PodUnderTest) -> None:
    script = 'trap "exit 5" TERM; while true; do sleep 0.1; done'
    container_id = await pod.start(pod.config("sh", "-c", script))
    await asyncio.sleep(0.3)
    begun = time.monotonic()
    await pod.runtime.stop_container(container_id, 30)
    assert time.monotonic() - begun < 5
    assert (await pod.info(container_id)).exit_code == 5
    await pod.runtime.stop_container(container_id, 30)


async def test_a_stubborn_container_is_killed_after_its_grace_period(pod: PodUnderTest) -> None:
    container_id = await started_and_ready(pod)
    begun = time.monotonic()
    await pod.runtime.stop_container(container_id, 1)
    assert 0.9 < time.monotonic() - begun < 5
    assert (await pod.info(container_id)).exit_code == 137


@pytest.mark.parametrize("shorter_s", [0.0, 0.5])
async def test_a_shorter_grace_period_shortens_a_stop_under_way(pod: PodUnderTest, shorter_s: float) -> None:
    container_id = await started_and_ready(pod)
    begun = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(pod.runtime.stop_container(container_id, 60))
        await until(lambda: has_written(pod, container_id, b"term"))
        group.create_task(pod.runtime.stop_container(container_id, shorter_s))
    assert time.monotonic() - begun < 10
    assert (await pod.info(container_id)).exit_code == 137
    assert (await read_logs(pod.runtime, container_id)).count(b"term") == 1


async def test_what_is_gone_counts_as_stopped_and_removed(pod: PodUnderTest) -> None:
    container_id = await pod.start(pod.config())
    await pod.runtime.remove_container(container_id)
    await pod.runtime.remove_container(container_id)
    await pod.runtime.stop_container(container_id, 5)
    await pod.runtime.stop_container(container_id, 0)
    with pytest.raises(PodNotFoundError):
        await pod.runtime.start_container(container_id)


async def test_a_restarted_vkubelet_finds_everything(
    docker_engine: DockerEngine, context: ProviderContext, pod: PodUnderTest
) -> None:
    container_id = await pod.start(pod.config())
    successor = DockerRuntime(context, DockerSettings(host=docker_engine.host))
    async with successor.running():
        assert await successor.list_pods() == await pod.runtime.list_pods()
        assert await successor.run_pod_sandbox(pod.sandbox) == pod.sandbox_id
        assert await successor.create_container(pod.sandbox_id, pod.config(), pod.sandbox) == container_id
        await successor.start_container(container_id)
        negative = replace(pod.config(name="two"), resources=LinuxResources(oom_score_adj=-997))
        second = await successor.create_container(pod.sandbox_id, negative, pod.sandbox)
        await successor.start_container(second)
        assert (await pod.info(second)).status is ContainerStatus.RUNNING


async def test_many_pods_start_at_once(runtime: DockerRuntime) -> None:
    async def one() -> None:
        pod = await new_pod(runtime, SandboxConfig(key=pod_key(), attempt=0))
        await pod.start(pod.config())

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(one())
    pods = await runtime.list_pods()
    assert len(pods) == 5
    assert len({pod.sandboxes[0].ips for pod in pods}) == 5


# --- events -----------------------------------------------------------------------------------------------


async def test_events_name_the_pods_that_changed(runtime: DockerRuntime) -> None:
    events = runtime.events()
    assert await anext(events) is None
    pod = await new_pod(runtime)
    container_id = await pod.start(pod.config("true"))
    await pod.ended(container_id)
    async with asyncio.timeout(10):
        seen = [await anext(events) for _ in range(5)]  # created and started twice, one died
    assert set(seen) == {pod.sandbox.key}
    await events.aclose()  # type: ignore[attr-defined]  # it is a generator


# --- logs -------------------------------------------------------------------------------------------------


async def test_logs_are_both_streams_in_order(pod: PodUnderTest) -> None:
    script = "echo one; sleep 0.05; echo two >&2; sleep 0.05; echo three"
    container_id = await pod.start(pod.config("sh", "-c", script))
    await pod.ended(container_id)
    runtime = pod.runtime
    assert await read_logs(runtime, container_id) == b"one\ntwo\nthree\n"
    assert await read_logs(runtime, container_id, tail_lines=1) == b"three\n"
    assert await read_logs(runtime, container_id, tail_lines=0) == b""
    assert await read_logs(runtime, container_id, limit_bytes=5) == b"one\nt"
    assert await read_logs(runtime, container_id, follow=True) == b"one\ntwo\nthree\n"
    stamped = (await read_logs(runtime, container_id, timestamps=True)).decode().splitlines()
    moments = [line.split(" ")[0] for line in stamped]
    assert [line.split(" ")[1] for line in stamped] == ["one", "two", "three"]
    second = datetime.datetime.fromisoformat(moments[1][:26] + "+00:00")
    assert await read_logs(runtime, container_id, since=second) == b"two\nthree\n"


async def test_following_ends_with_the_container(pod: PodUnderTest) -> None:
    container_id = await pod.start(pod.config("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.2; done"))
    async with asyncio.timeout(10):
        assert await read_logs(pod.runtime, container_id, follow=True) == b"1\n2\n3\n"


async def test_following_ends_when_the_container_is_removed(pod: PodUnderTest) -> None:
    container_id = await pod.start(pod.config("sh", "-c", "echo here; sleep 1000"))
    async with asyncio.timeout(15), asyncio.TaskGroup() as group:
        reading = group.create_task(read_logs(pod.runtime, container_id, follow=True))
        await asyncio.sleep(0.3)
        await pod.runtime.remove_container(container_id)
    assert reading.result() == b"here\n"
    with pytest.raises(PodNotFoundError):
        await read_logs(pod.runtime, container_id)


async def test_a_long_line_has_one_timestamp(pod: PodUnderTest) -> None:
    script = "head -c 50000 /dev/zero | tr '\\0' x; echo; echo end"
    container_id = await pod.start(pod.config("sh", "-c", script))
    await pod.ended(container_id)
    stamped = await read_logs(pod.runtime, container_id, timestamps=True)
    long, end = stamped.splitlines()
    assert long.split(b" ", 1)[1] == b"x" * 50000
    assert end.endswith(b" end")


async def test_logs_of_a_terminal_are_raw(pod: PodUnderTest) -> None:
    container_id = await pod.start(replace(pod.config("sh", "-c", "echo hi"), tty=True))
    await pod.ended(container_id)
    assert await read_logs(pod.runtime, container_id) == b"hi\r\n"


# --- commands ---------------------------------------------------------------------------------------------


async def chunks_of(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


@pytest.fixture
async def sleeper(pod: PodUnderTest) -> str:
    return await pod.start(pod.config())


@pytest.mark.parametrize("code", [0, 1, 7, 137])
async def test_exec_gives_output_and_exit_code(runtime: DockerRuntime, sleeper: str, code: int) -> None:
    io = IO()
    result = await runtime.exec(sleeper, ["sh", "-c", f"echo out; echo err >&2; exit {code}"], io)
    assert (result, io.out, io.err) == (code, b"out\n", b"err\n")


async def test_exec_passes_input_on_and_ends_it(runtime: DockerRuntime, sleeper: str) -> None:
    block = os.urandom(1 << 20)
    io = IO(stdin=chunks_of(*[block] * 50))
    assert await runtime.exec(sleeper, ["cat"], io) == 0
    assert hashlib.sha256(io.out).digest() == hashlib.sha256(block * 50).digest()


async def test_exec_does_not_wait_for_the_end_of_input(runtime: DockerRuntime, sleeper: str) -> None:
    async with asyncio.timeout(10):
        assert await runtime.exec(sleeper, ["true"], IO(stdin=never())) == 0


async def test_output_is_whole_when_the_command_leaves_input_unread(
    runtime: DockerRuntime, sleeper: str
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    io = IO(stdin=endless())
    async with asyncio.timeout(20):
        assert await runtime.exec(sleeper, ["sh", "-c", "head -c 3000000 /dev/zero"], io) == 0
    assert len(io.out) == 3_000_000


async def test_exec_with_a_terminal_merges_output_and_resizes(runtime: DockerRuntime, sleeper: str) -> None:
    async def sizes() -> AsyncIterator[TerminalSize]:
        yield TerminalSize(123, 45)

    io = IO(stderr=None, tty=True, resizes=sizes())
    assert await runtime.exec(sleeper, ["sh", "-c", "sleep 0.5; stty size; echo err >&2"], io) == 0
    assert io.out == b"45 123\r\nerr\r\n"


@pytest.mark.parametrize("tty", [False, True])
async def test_exec_of_what_does_not_exist_is_an_error(
    runtime: DockerRuntime, sleeper: str, tty: bool
) -> None:
    io = IO(tty=tty, stderr=None if tty else Sink())
    with pytest.raises(StreamError, match=r"no-such.*executable file not found"):
        await runtime.exec(sleeper, ["no-such"], io)
    assert io.out == b""


async def test_output_that_looks_like_a_failure_is_output(runtime: DockerRuntime, sleeper: str) -> None:
    io = IO()
    assert await runtime.exec(sleeper, ["sh", "-c", "echo OCI runtime exec failed; exit 126"], io) == 126
    assert io.out == b"OCI runtime exec failed\n"


async def test_exec_in_a_container_that_does_not_run_is_an_error(pod: PodUnderTest) -> None:
    container_id = await pod.create(pod.config())
    with pytest.raises(StreamError, match="is not running"):
        await pod.runtime.exec(container_id, ["true"], IO())
    with pytest.raises(PodNotFoundError):
        await pod.runtime.exec("f" * 64, ["true"], IO())


async def test_a_cancelled_exec_ends_its_command(runtime: DockerRuntime, sleeper: str) -> None:
    running = asyncio.create_task(runtime.exec(sleeper, ["sleep", "98765"], IO()))
    await asyncio.sleep(0.5)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    result = await runtime.exec_sync(sleeper, ["ps"], 10)
    assert b"98765" not in result.stdout


async def test_exec_sync_collects_and_has_a_time_limit(runtime: DockerRuntime, sleeper: str) -> None:
    result = await runtime.exec_sync(sleeper, ["sh", "-c", "echo out; echo err >&2; exit 3"], 10)
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    with pytest.raises(TimeoutError):
        await runtime.exec_sync(sleeper, ["sleep", "87654"], 0.5)
    assert b"87654" not in (await runtime.exec_sync(sleeper, ["ps"], 10)).stdout


async def test_a_slow_reader_slows_the_command(runtime: DockerRuntime, sleeper: str) -> None:
    gate = asyncio.Event()

    class Slow(Sink):
        async def write(self, data: bytes) -> None:
            await gate.wait()
            await super().write(data)

    io = IO(stdout=Slow(keep=False))
    running = asyncio.create_task(
        runtime.exec(sleeper, ["sh", "-c", "dd if=/dev/zero bs=1M count=64 2>/dev/null; touch /tmp/done"], io)
    )
    await asyncio.sleep(1)
    probe = await runtime.exec_sync(sleeper, ["ls", "/tmp"], 10)
    assert b"done" not in probe.stdout
    gate.set()
    assert await running == 0
    assert io.stdout is not None
    assert io.stdout.size == 64 << 20


async def test_exec_moves_output_in_large_chunks(runtime: DockerRuntime, sleeper: str) -> None:
    sink = Sink(keep=False)
    await runtime.exec(sleeper, ["dd", "if=/dev/zero", "bs=1M", "count=200"], IO(stdout=sink))
    assert sink.size == 200 << 20
    assert sink.size / sink.writes > 16 * 1024


# --- images -----------------------------------------------------------------------------------------------


async def test_images_are_found_by_name_and_id(runtime: DockerRuntime) -> None:
    image = await runtime.image_status(PAUSE_IMAGE)
    assert image is not None
    assert image.id.startswith("sha256:")
    assert image.size_bytes > 0
    assert await runtime.image_status(image.id) == image
    assert await runtime.image_status(image.id.removeprefix("sha256:")[:12]) is None
    assert await runtime.image_status("vkubelet.local/nothing:1") is None


async def test_an_image_that_cannot_be_pulled_is_the_registrys_refusal(runtime: DockerRuntime) -> None:
    with pytest.raises(ProviderError, match=r"127\.0\.0\.1:9") as caught:
        await runtime.pull_image("127.0.0.1:9/none:1", ())
    assert not isinstance(caught.value, PodNotFoundError | ProviderUnavailableError)
