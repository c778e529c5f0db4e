"""Configurations that are valid, so that a test shows only what matters to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

from vkubelet.kuberuntime.contract import ContainerConfig, SandboxConfig
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodObservation
from vkubelet.model.pod import ContainerKind
from vkubelet.provider import TerminalSize

KEY = PodKey("default", "web", "11111111-2222-3333-4444-555555555555")
APP_IMAGE_ID = f"sha256:{2:064x}"


def sandbox(**values: Any) -> SandboxConfig:
    return SandboxConfig(**{"key": KEY, "attempt": 0, "hostname": "web", **values})


def container(**values: Any) -> ContainerConfig:
    return ContainerConfig(
        **{
            "name": "app",
            "kind": ContainerKind.APP,
            "attempt": 0,
            "image": "app:1",
            "image_id": APP_IMAGE_ID,
            "spec_hash": "abc",
            **values,
        }
    )


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
    """Keeps output."""

    data: bytearray = field(default_factory=bytearray)

    async def write(self, data: bytes) -> None:
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
