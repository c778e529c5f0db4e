"""The memory provider as it is found by name: its node, its settings, its annotations."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import pytest

from providers import memory
from tests.builders import container_json, make_pod
from tests.clocks import ManualClock
from tests.kuberuntime.engine import Engine, RecordingHost
from vkubelet.errors import ConfigurationError
from vkubelet.model.observations import Running, Terminated
from vkubelet.provider import ProviderContext


def context(root_dir: Path, **fields: Any) -> ProviderContext:
    return ProviderContext(
        host=RecordingHost(),
        clock=ManualClock(),
        node_name="node-1",
        cluster_id="cluster-1",
        node_ips=("192.0.2.1",),
        root_dir=root_dir,
        **fields,
    )


def test_it_is_found_by_name() -> None:
    (entry,) = importlib.metadata.entry_points(group="vkubelet.providers", name="memory")

    assert entry.load() is memory.create


async def test_the_node_shows_what_is_configured(tmp_path: Path) -> None:
    provider = memory.create(context(tmp_path, config={"cpu": 4, "memory": "8Gi", "pods": 7}))

    node = await provider.describe_node()

    assert provider.name == "memory"
    assert node.capacity == node.allocatable == {"cpu": "4", "memory": "8Gi", "pods": "7"}
    assert {c.type: c.status for c in node.conditions} == {
        "Ready": "True",
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
    }


async def test_the_operators_limit_of_pods_wins(tmp_path: Path) -> None:
    provider = memory.create(context(tmp_path, config={"pods": 7}, max_pods=3))

    assert (await provider.describe_node()).capacity["pods"] == "3"


@pytest.mark.parametrize(
    "config",
    [{"cpus": 4}, {"pods": 0}, {"pods": "many"}, {"podCIDR": "10.0.0.0/99"}, {"memory": "much"}, {"cpu": ""}],
    ids=str,
)
def test_bad_settings_are_refused(tmp_path: Path, config: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="--provider-config"):
        memory.create(context(tmp_path, config=config))


async def test_annotations_say_what_containers_do(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    prefix = "memory.vkubelet.io/"
    async with engine.running():
        pod = await engine.create(
            metadata={"annotations": {f"{prefix}run-seconds.a": "3", f"{prefix}exit-code.a": "7"}},
            containers=[container_json("a"), container_json("b")],
            restartPolicy="Never",
        )
        await engine.clock.advance(3)

        state = engine.state(pod, "a")
        assert isinstance(state, Terminated)
        assert state.exit_code == 7
        assert isinstance(engine.state(pod, "b"), Running)


async def test_addresses_differ_and_come_from_the_pod_network(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    async with engine.running():
        for index in range(300):
            await engine.provider.create_pod(make_pod(f"p{index}"), engine.no_references)
        await engine.clock.advance(0)
        ips = [p.sandboxes[0].ips[0] for p in engine.runtime.pods()]

    assert len(set(ips)) == 300
    assert all(ip.startswith("10.244.") for ip in ips)
