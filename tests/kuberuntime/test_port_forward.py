"""Which sandbox a port is one of, and what is said where there is none."""

from __future__ import annotations

import pytest

from providers.memory.ports import EchoConnection
from tests.builders import make_pod
from tests.clocks import settle
from tests.kuberuntime.engine import Engine
from vkubelet.errors import PodNotFoundError, StreamError
from vkubelet.provider import PortConnection, PortForwarder


def test_the_engine_has_the_power(engine: Engine) -> None:
    assert isinstance(engine.provider, PortForwarder)


async def test_a_port_is_one_of_the_pods_present_sandbox(engine: Engine) -> None:
    asked: list[tuple[str, int]] = []

    async def connect(sandbox_id: str, port: int) -> PortConnection:
        asked.append((sandbox_id, port))
        return EchoConnection()

    engine.runtime.connect = connect
    pod = await engine.create(make_pod())
    first = engine.runtime.pods()[0].sandboxes[0].id
    await engine.provider.connect_port(pod.key, 80)
    engine.runtime.lose_sandbox(pod.key)
    await settle()
    second = next(each.id for each in engine.runtime.pods()[0].sandboxes if each.ready)
    await engine.provider.connect_port(pod.key, 81)
    assert asked == [(first, 80), (second, 81)]
    assert first != second


async def test_a_pod_that_is_not_there_has_no_ports(engine: Engine) -> None:
    with pytest.raises(PodNotFoundError, match='pod "web" not found'):
        await engine.provider.connect_port(make_pod().key, 80)


async def test_a_pod_that_has_ended_has_no_ports(engine: Engine) -> None:
    pod = await engine.create(make_pod(restartPolicy="Never"))
    engine.runtime.end_container(pod.key, "main")
    await settle()
    with pytest.raises(StreamError, match='pod "web" is not running'):
        await engine.provider.connect_port(pod.key, 80)
