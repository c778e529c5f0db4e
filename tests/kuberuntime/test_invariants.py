"""What holds for any pods, whatever happens to them: Hypothesis makes it happen."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from providers.memory import MemoryRuntime, MemorySettings
from tests.builders import container_json, pod_json
from tests.clocks import ManualClock, settle
from tests.kuberuntime.engine import Engine
from vkubelet.errors import ProviderError, ProviderUnavailableError
from vkubelet.kuberuntime.contract import ContainerConfig, ContainerStatus, SandboxConfig
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import PodObservation, Terminated
from vkubelet.model.pod import Json, Pod, parse_pod
from vkubelet.model.references import References
from vkubelet.model.status import pod_status

NAMES = ("a", "b")
METHODS = (
    "pod_status",
    "run_pod_sandbox",
    "image_status",
    "create_container",
    "start_container",
    "stop_container",
    "remove_container",
    "stop_pod_sandbox",
    "remove_pod_sandbox",
)


class AuditedRuntime(MemoryRuntime):
    """Checks each step as it is taken, and keeps the books of attempts and exits."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(MemorySettings(), clock)
        self.clock = clock
        self.newest: dict[tuple[PodKey, str], int] = {}
        self.exits: dict[PodKey, dict[tuple[str, int], int]] = defaultdict(dict)
        self.ended_at: dict[tuple[PodKey, str, int], float] = {}
        self.disturbed: set[PodKey] = set()
        self.read_since_failure: dict[PodKey, bool] = defaultdict(bool)

    async def pod_status(self, key: PodKey) -> Any:
        self.read_since_failure[key] = False
        status = await super().pod_status(key)
        self.read_since_failure[key] = True
        return status

    async def create_container(self, sandbox_id: str, config: ContainerConfig, sandbox: SandboxConfig) -> str:
        key = sandbox.key
        assert self.read_since_failure[key], "created without knowing what there is"
        pod = next(p for p in self.pods() if p.key == key)
        same = [c for c in pod.containers if c.name == config.name]
        assert all(c.status is not ContainerStatus.RUNNING for c in same), "two live attempts"
        if not any(c.attempt == config.attempt for c in same):
            last = self.newest.get((key, config.name), -1)
            never_ran = all(c.started_at is None for c in same if c.attempt == last)
            assert config.attempt == last + 1 or (config.attempt == last and never_ran), "attempts by one"
            if key not in self.disturbed:
                self._check_back_off(key, config)
        self.newest[key, config.name] = config.attempt
        return await super().create_container(sandbox_id, config, sandbox)

    def _check_back_off(self, key: PodKey, config: ContainerConfig) -> None:
        """Two quick failures in a row are never followed by a start within 10 s of the second."""
        pod = next(p for p in self.pods() if p.key == key)
        ended = [c for c in pod.containers if c.name == config.name and c.finished_at is not None]
        if len(ended) < 2 or config.attempt < 2:
            return
        last = max(ended, key=lambda c: c.attempt)
        assert last.finished_at is not None
        ran_s = (last.finished_at - (last.started_at or last.finished_at)).total_seconds()
        waited_s = (self.clock.now() - last.finished_at).total_seconds()
        assert ran_s >= 600 or waited_s >= 10, f"started again after {waited_s} s"

    def _end(self, info: Any, exit_code: int, *, oom_killed: bool = False) -> None:
        super()._end(info, exit_code, oom_killed=oom_killed)
        key = next(p.key for p in self.pods() if any(c.id == info.id for c in p.containers))
        self.exits[key][info.name, info.attempt] = exit_code
        self.ended_at[key, info.name, info.attempt] = self.clock.monotonic()


class Faults:
    """Calls of the runtime that are to fail: "before" they do anything, or "after" they did it."""

    def __init__(self) -> None:
        self.planned: list[tuple[str, str, bool]] = []

    async def __call__(self, method: str, moment: str) -> None:
        for fault in self.planned:
            if fault[:2] == (method, moment):
                self.planned.remove(fault)
                raise ProviderUnavailableError("no answer") if fault[2] else ProviderError("it is broken")


class World:
    """One node with what a pod controller does about it, and the checks."""

    def __init__(self, root_dir: Path) -> None:
        self.engine = Engine(root_dir)
        self.runtime = AuditedRuntime(self.engine.clock)
        self.engine.runtime = self.runtime
        self.engine.provider = self.engine.new_provider()
        self.faults = Faults()
        self.runtime.hook = self.faults
        self.api: dict[PodKey, Json] = {}
        self.terminating: set[PodKey] = set()
        self.told: dict[PodKey, set[tuple[str, int]]] = defaultdict(set)

    def pod(self, key: PodKey) -> Pod:
        return parse_pod(self.api[key])

    async def create(self, policy: str, init: bool, run_s: int | None) -> None:
        name = f"p{len(self.api)}"
        annotations = {} if run_s is None else {"memory.vkubelet.io/run-seconds": str(run_s)}
        raw = pod_json(
            name,
            metadata={"annotations": annotations},
            restartPolicy=policy,
            containers=[container_json(n) for n in NAMES],
            initContainers=[container_json("init")] if init else [],
        )
        pod = parse_pod(raw)
        self.api[pod.key] = raw
        await self.engine.create(pod)

    async def restart(self) -> None:
        self.learn()
        await self.engine.restart()
        self.runtime.hook = self.faults
        for key in self.api:
            await self.engine.provider.create_pod(self.pod(key), References())
            if key in self.terminating:
                await self.engine.provider.terminate_pod(key, 30)
        await settle()

    async def change_image(self, key: PodKey, tag: int) -> None:
        raw = self.api[key]
        for container in raw["spec"]["containers"]:
            container["image"] = f"registry.example/app:{tag}"
        self.runtime.disturbed.add(key)
        await self.engine.provider.update_pod(self.pod(key), References())
        await settle()

    async def terminate(self, key: PodKey, grace_period_s: int) -> None:
        self.terminating.add(key)
        await self.engine.terminate(self.pod(key), grace_period_s)

    def lose(self, key: PodKey, index: int) -> None:
        status = next((p for p in self.runtime.pods() if p.key == key), None)
        if status is not None and status.containers:
            info = status.containers[index % len(status.containers)]
            self.runtime.disturbed.add(key)
            self.runtime.exits[key].pop((info.name, info.attempt), None)
            self.runtime.lose_container(info.id)

    def lose_sandbox(self, key: PodKey) -> None:
        status = next((p for p in self.runtime.pods() if p.key == key), None)
        if status is not None and status.sandboxes:
            self.runtime.disturbed.add(key)
            self.runtime.lose_sandbox(key)

    def end(self, key: PodKey, name: str, exit_code: int) -> None:
        with contextlib.suppress(LookupError):
            self.runtime.end_container(key, name, exit_code)

    # --- checks ---------------------------------------------------------------------------------------

    def learn(self) -> None:
        """The API server takes all reports, in order; exit codes in them are true and restarts only grow."""
        for key, reports in self.engine.host.observations.items():
            for report in reports:
                self._note(key, report)
                status = pod_status(
                    self.pod(key), report, host_ips=("192.0.2.1",), now=self.engine.clock.now()
                )
                self._check_counts(key, status)
                self.api[key]["status"] = status
            reports.clear()

    def _note(self, key: PodKey, report: PodObservation) -> None:
        for container in report.containers:
            for ended in (container.state, container.last_state):
                if isinstance(ended, Terminated):
                    is_present = ended.container_id == container.container_id
                    attempt = container.restart_count - (not is_present)
                    self.told[key].add((container.name, attempt))
                    true = self.runtime.exits[key].get((container.name, attempt))
                    assert true is None or ended.exit_code == true or ended.exit_code == 137

    def _check_counts(self, key: PodKey, status: Json) -> None:
        before = {c["name"]: c for c in self.api[key]["status"].get("containerStatuses") or ()}
        for container in status.get("containerStatuses") or ():
            old = before.get(container["name"])
            assert old is None or container["restartCount"] >= old["restartCount"]

    def check_no_exit_was_lost(self) -> None:
        """Every exit was told, unless the next attempt ended in the same moment."""
        for key, exits in self.runtime.exits.items():
            for name, attempt in set(exits) - self.told[key]:
                next_end = self.runtime.ended_at.get((key, name, attempt + 1))
                assert (
                    key in self.runtime.disturbed or next_end == self.runtime.ended_at[key, name, attempt]
                ), f"{key}: {name}, attempt {attempt}"

    async def finish(self) -> None:
        """All faults over: every pod comes to rest, ends when it is told to, and leaves nothing."""
        self.faults.planned.clear()
        await self.engine.clock.advance(1000)
        self.learn()
        for key in self.api:
            await self.terminate(key, 30)
        await self.engine.clock.advance(100)
        last = {k: r[-1] for k, r in self.engine.host.observations.items() if r}
        self.learn()
        for key in self.api:
            assert key not in last or last[key].terminated
            assert self.api[key]["status"]["phase"] in ("Succeeded", "Failed")
            await self.engine.provider.delete_pod(key)
        self.check_no_exit_was_lost()
        assert self.runtime.pods() == ()
        assert await self.engine.provider.list_pods() == []
        await self.engine.clock.advance(1000)
        assert self.runtime.pods() == ()
        assert self.engine.clock.next_due_s() in (None, 10.0)


@dataclasses.dataclass(frozen=True)
class Step:
    """One thing that happens; what its numbers mean is `perform`'s."""

    kind: str
    pod: int
    number: int
    flag: bool
    seconds: int


STEPS = st.builds(
    Step,
    kind=st.sampled_from(
        ["create", "end", "advance", "fault", "restart", "lose", "sandbox", "image", "terminate"]
    ),
    pod=st.integers(0, 3),
    number=st.integers(0, 200),
    flag=st.booleans(),
    seconds=st.sampled_from([0, 1, 5, 10, 30, 100, 700]),
)


async def perform(world: World, step: Step) -> None:
    if step.kind == "advance":
        await world.engine.clock.advance(step.seconds)
    elif step.kind == "restart":
        await world.restart()
    elif step.kind == "fault":
        moment = "before" if step.flag else "after"
        world.faults.planned.append((METHODS[step.number % len(METHODS)], moment, step.pod % 2 == 0))
    elif step.kind == "create" or not world.api:
        policy = ("Always", "OnFailure", "Never")[step.number % 3]
        run_s = step.seconds if step.pod == 0 else None
        await world.create(policy, step.flag, run_s)
    else:
        await touch(world, step, list(world.api)[step.pod % len(world.api)])
    await settle()


async def touch(world: World, step: Step, key: PodKey) -> None:
    """Something happens to one pod."""
    match step.kind:
        case "end":
            world.end(key, NAMES[step.flag], step.number)
        case "lose":
            world.lose(key, step.number)
        case "sandbox":
            world.lose_sandbox(key)
        case "image":
            await world.change_image(key, step.number)
        case "terminate":
            await world.terminate(key, step.seconds)


async def live(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root))
        async with world.engine.running():
            for step in steps:
                with contextlib.suppress(ProviderUnavailableError):
                    await perform(world, step)
            await world.finish()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=1, max_size=25))
def test_pods_keep_the_rules_whatever_happens(steps: list[Step]) -> None:
    asyncio.run(live(steps))
