"""The entry point: by name, with the operator's configuration."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import entry_points

import pytest

from providers import docker
from tests.docker.fake_engine import FakeEngine
from vkubelet.errors import ConfigurationError
from vkubelet.provider import ExecRunner, LogSource, ProviderContext


def test_the_provider_is_found_by_its_name() -> None:
    (found,) = entry_points(group="vkubelet.providers", name="docker")
    assert found.load() is docker.create


async def test_a_provider_with_logs_and_exec_is_made(
    engine: FakeEngine, context: ProviderContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    provider = docker.create(replace(context, config={"host": f"unix://{engine.socket}"}))
    assert provider.name == "docker"
    assert isinstance(provider, LogSource)
    assert isinstance(provider, ExecRunner)
    assert (await provider.describe_node()).conditions[0].status == "False"  # not running yet


def test_a_wrong_configuration_is_refused(context: ProviderContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "ssh://me@there")
    with pytest.raises(ConfigurationError, match="ssh://me@there"):
        docker.create(context)
