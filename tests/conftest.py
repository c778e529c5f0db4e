"""Fixtures for tests of every package."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import fake_api_server
from tests.fake_api_server import FakeApiServer
from vkubelet.kube.client import KubeClient

# How fast examples are made depends on what else the machine does: no reason to fail.
settings.register_profile("vkubelet", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vkubelet")


@pytest.fixture
async def api_server() -> AsyncIterator[FakeApiServer]:
    """An API server with behaviour, in this process."""
    async with fake_api_server.serve() as server:
        yield server


@pytest.fixture
async def kube_client(api_server: FakeApiServer, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """A client of `api_server`."""
    async with KubeClient.connect(api_server.kubeconfig(tmp_path)) as client:
        yield client
