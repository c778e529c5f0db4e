"""A runtime over an engine in this process."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from providers.docker.runtime import DockerRuntime
from providers.docker.settings import DockerSettings
from tests.clocks import ManualClock
from tests.docker import fake_engine
from tests.docker.builders import Host
from tests.docker.fake_engine import FakeEngine
from vkubelet.provider import ProviderContext


@pytest.fixture
def socket() -> Iterator[Path]:
    # pytest's own directories are too long for the name of a Unix socket on some machines
    with tempfile.TemporaryDirectory(prefix="vk") as directory:
        yield Path(directory) / "docker.sock"


@pytest.fixture
async def engine(socket: Path) -> AsyncIterator[FakeEngine]:
    async with fake_engine.serve(socket) as engine:
        yield engine


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def context(clock: ManualClock, host: Host, tmp_path: Path) -> ProviderContext:
    return ProviderContext(
        host=host,
        clock=clock,
        node_name="node-1",
        cluster_id="cluster-1",
        node_ips=("127.0.0.1",),
        root_dir=tmp_path,
    )


@pytest.fixture
def settings(socket: Path) -> DockerSettings:
    return DockerSettings(host=f"unix://{socket}")


@pytest.fixture
async def runtime(
    engine: FakeEngine, context: ProviderContext, settings: DockerSettings
) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(context, settings)
    async with runtime.running():
        yield runtime
