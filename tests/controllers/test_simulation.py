"""
The pod controllers, the pod engine and the memory runtime under whatever may happen, in any order.

Pods are created, deleted, forced away and made anew under the same name; containers end; vkubelet is killed
at any moment and started again; the API server goes away; its watch lags; the runtime fails. Afterwards
everything is let be, and then nothing may be left over, missing, doubled, forgotten or wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from tests.builders import container_json, pod_json
from tests.clocks import settle
from tests.controllers.engine_node import EngineNode
from vkubelet.errors import ProviderUnavailableError
from vkubelet.kube.pods import pod_key
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Json

NAMES = ("a", "b")
REST_S = 1500.0
"""Longer than every back-off and every period."""

_MEMORY = "memory.vkubelet.io/"
KINDS: dict[str, dict[str, Any]] = {
    "server": {},
    "stubborn": {"metadata": {"annotations": {f"{_MEMORY}ignores-term": "true"}}},
    "run-once": {"restartPolicy": "Never"},
    "failing": {
        "restartPolicy": "Never",
        "metadata": {"annotations": {f"{_MEMORY}run-seconds": "7", f"{_MEMORY}exit-code": "3"}},
    },
    "job": {
        "restartPolicy": "OnFailure",
        "metadata": {"annotations": {f"{_MEMORY}run-seconds": "3"}},
    },
    "with-init": {"initContainers": [container_json("init")]},
}


MEDDLING: list[Json] = [
    {"phase": "Pending"},
    {"conditions": [{"type": "Ready", "status": "False"}]},
    {"conditions": [{"type": "example.com/gate", "status": "True"}]},
    {"podIP": None, "podIPs": [{"$patch": "replace"}]},
    {"containerStatuses": None},
]


class Simulation:
    """A node, and what a test does to it; a step that makes no sense just now does nothing."""

    def __init__(self) -> None:
        self.node = EngineNode()
        self.is_running = False
        self.created: set[PodKey] = set()
        self.deleted: set[PodKey] = set()
        self.forced: set[PodKey] = set()
        self.meddled: set[PodKey] = set()
        self.failures = 0
        self.node.runtime.hook = self._hook

    async def _hook(self, method: str, moment: str) -> None:
        if self.failures > 0 and method != "list_pods":
            self.failures -= 1
            raise ProviderUnavailableError(f"{method}: no answer ({moment})")

    # --- steps

    async def create(self, name: str, kind: str) -> None:
        if self.node.server.objects.find("pods", name) is None:
            self.created.add(pod_key(self.node.server.objects.create("pods", pod_json(name, **KINDS[kind]))))

    async def delete(self, name: str, grace_period_s: int | None) -> None:
        if (raw := self.node.server.objects.find("pods", name)) is not None:
            self.deleted.add(pod_key(raw))
            if grace_period_s == 0:
                self.forced.add(pod_key(raw))
            self.node.begin_deletion(pod_key(raw), grace_period_s)

    async def meddle(self, name: str, status: Json) -> None:
        """Somebody else writes our status."""
        if (raw := self.node.server.objects.find("pods", name)) is not None:
            self.meddled.add(pod_key(raw))
            self.node.server.objects.patch("pods", name, {"status": status}, subresource="status")

    async def finalizers(self, name: str, finalizers: list[str] | None) -> None:
        if self.node.server.objects.find("pods", name) is not None:
            self.node.server.objects.patch("pods", name, {"metadata": {"finalizers": finalizers}})

    async def exit(self, name: str, exit_code: int) -> None:
        for pod in self.node.runtime.pods():
            if pod.key.name == name and self.node.runtime.live(pod.key):
                self.node.runtime.end_container(pod.key, "main", exit_code)

    async def kill(self) -> None:
        await self.node.kill()
        self.is_running = False

    async def start(self) -> None:
        if not self.is_running:
            self.is_running = True
            await self.node.start()

    async def go_down(self) -> None:
        self.node.server.go_down()

    async def come_up(self) -> None:
        self.node.server.come_up()

    async def lag(self) -> None:
        self.node.server.lags = True

    async def show(self) -> None:
        self.node.server.show()

    async def lose_history(self) -> None:
        self.node.server.objects.compact()
        self.node.server.cut_watches()

    async def fail(self, times: int) -> None:
        self.failures = times

    async def turn(self, rounds: int) -> None:
        await settle(rounds)

    async def wait(self, seconds: float) -> None:
        await self.node.clock.advance(seconds)

    # --- what holds

    def check_at_any_time(self) -> None:
        """No container runs twice, and no attempt is made twice."""
        for pod in self.node.runtime.pods():
            names = [c.name for c in self.node.runtime.live(pod.key)]
            assert len(names) == len(set(names)), pod
            assert sum(s.ready for s in pod.sandboxes) <= 1, pod
        for attempts in self.node.runtime.created.values():
            assert attempts == sorted(set(attempts)), self.node.runtime.created
        for entry in self.node.server.objects.history:
            if entry.resource == "pods":
                self._check_entry(entry.new)

    def _check_entry(self, pod: Json) -> None:
        """Nobody was ever told of another pod's containers."""
        for container in pod["status"].get("containerStatuses") or ():
            if shown := container.get("containerID"):
                assert self.node.runtime.owners[shown] == pod_key(pod)

    async def come_to_rest(self) -> None:
        self.failures = 0
        for name in NAMES:
            await self.finalizers(name, None)
        await self.come_up()
        await self.show()
        await self.start()
        await self.node.advance(REST_S)

    async def check_at_rest(self) -> None:
        node = self.node
        present = {pod_key(raw) for raw in node.server.objects.list("pods")}
        in_runtime = {pod.key for pod in node.runtime.pods()}
        assert in_runtime <= present, "orphans"
        assert self.created - self.deleted <= present, "pods that nobody deleted"
        assert {record.key for record in node.records} == present, "records"
        for key in present:
            self._check_present(key)
        self._check_gone(present)

        written, events = len(node.patches()), len(node.events)
        await node.advance(REST_S)
        assert len(node.patches()) == written, "writes without a reason"
        assert len(node.events) == events, "events without a reason"

    def _check_present(self, key: PodKey) -> None:
        pod = self.node.pod(key)
        assert pod is not None
        assert not pod.is_deleted, "a deletion that does not end"
        container, live = self.node.container(key), self.node.runtime.live(key)
        ready = {c["type"]: c["status"] for c in pod.status["conditions"]}["Ready"]
        assert container["restartCount"] == self.node.runtime.created[key, "main"][-1]
        if pod.is_terminal:
            assert live == []
            assert "terminated" in container["state"]
            assert ready == "False"
            self._check_exit_code(key, container["state"])
        else:
            (running,) = live
            assert pod.phase == "Running"
            assert container["containerID"] == running.container_id
            assert container["state"]["running"]
            assert ready == "True"
            (sandbox,) = [s for p in self.node.runtime.pods() if p.key == key for s in p.sandboxes if s.ready]
            assert pod.status["podIP"] == sandbox.ips[0]
            if container["restartCount"]:
                self._check_exit_code(key, container["lastState"], back=1)

    def _check_gone(self, present: set[PodKey]) -> None:
        """Whoever was not forced away has left its exit code (unless somebody else wiped it out)."""
        last: dict[PodKey, Json] = {}
        for entry in self.node.server.objects.history:
            if entry.resource == "pods":
                last[pod_key(entry.new)] = entry.new["status"]
        for key, status in last.items():
            if key in present | self.forced | self.meddled or not self.node.runtime.created[key, "main"]:
                continue
            (container,) = status["containerStatuses"]
            assert status["phase"] in ("Succeeded", "Failed")
            self._check_exit_code(key, container["state"])

    def _check_exit_code(self, key: PodKey, state: Json, *, back: int = 0) -> None:
        self.node.runtime.note_exits()
        attempt = self.node.runtime.created[key, "main"][-1] - back
        expected = self.node.runtime.exit_codes.get((key, "main", attempt))
        if expected is not None:
            assert state["terminated"]["exitCode"] == expected


@dataclass(frozen=True)
class Step:
    """One method of a simulation with its arguments."""

    method: Callable[..., Awaitable[None]]
    arguments: tuple[Any, ...]

    def __repr__(self) -> str:
        return f"{self.method.__name__}{self.arguments}"


def _step(
    weight: int, method: Callable[..., Awaitable[None]], *arguments: st.SearchStrategy[Any]
) -> list[st.SearchStrategy[Step]]:
    return [st.builds(Step, st.just(method), st.tuples(*arguments)) for _ in range(weight)]


_names = st.sampled_from(NAMES)
STEPS = st.one_of(
    *_step(6, Simulation.create, _names, st.sampled_from(sorted(KINDS))),
    *_step(3, Simulation.delete, _names, st.sampled_from([None, None, 5, 0])),
    *_step(2, Simulation.exit, _names, st.sampled_from([0, 1, 137])),
    *_step(8, Simulation.turn, st.integers(1, 60)),
    *_step(3, Simulation.wait, st.sampled_from([0.5, 1.0, 6.0, 31.0, 125.0])),
    *_step(1, Simulation.meddle, _names, st.sampled_from(MEDDLING)),
    *_step(1, Simulation.finalizers, _names, st.sampled_from([["example.com/hold"], None])),
    *_step(2, Simulation.kill),
    *_step(4, Simulation.start),
    *_step(1, Simulation.go_down),
    *_step(3, Simulation.come_up),
    *_step(1, Simulation.lag),
    *_step(3, Simulation.show),
    *_step(1, Simulation.lose_history),
    *_step(1, Simulation.fail, st.integers(1, 4)),
)


async def simulate(steps: list[Step]) -> None:
    simulation = Simulation()
    try:
        await simulation.start()
        for step in steps:
            await step.method(simulation, *step.arguments)
            simulation.check_at_any_time()
        await simulation.come_to_rest()
        simulation.check_at_any_time()
        await simulation.check_at_rest()
    finally:
        await simulation.kill()


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(STEPS, min_size=20, max_size=60))
def test_whatever_happens_everything_comes_to_rest_as_it_should_be(steps: list[Step]) -> None:
    with capture_logs():
        asyncio.run(simulate(steps))
