"""The engine's decisions, one table for each kind: what there is, and what follows."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from tests.builders import container_json, make_pod, moment
from vkubelet.kuberuntime.actions import next_actions, spec_hash
from vkubelet.kuberuntime.contract import ContainerInfo, ContainerStatus, RuntimePod, SandboxInfo
from vkubelet.kuberuntime.plan import (
    Action,
    CreateSandbox,
    KillContainer,
    Plan,
    RemoveContainer,
    RemoveSandbox,
    StartContainer,
    StopSandbox,
)
from vkubelet.kuberuntime.pod_memory import NOTHING_YET, Blocked, PodMemory, VolumeState
from vkubelet.model.keys import PodKey
from vkubelet.model.observations import Waiting
from vkubelet.model.pod import ContainerKind, Pod

KEY = PodKey("default", "web", "uid-web")
NOW = moment(1000)
IMAGE = "registry.example/app:1.0"
HASH = spec_hash(make_pod().containers[0])


def sandbox(attempt: int = 0, *, ready: bool = True, ips: tuple[str, ...] = ("10.1.0.5",)) -> SandboxInfo:
    return SandboxInfo(f"s{attempt}", attempt, ready, moment(0), ips if ready else ())


def info(
    name: str = "main",
    attempt: int = 0,
    *,
    exit_code: int | None = None,
    started_s: float = 100,
    finished_s: float = 999,
    in_sandbox: int = 0,
    kind: ContainerKind = ContainerKind.APP,
    **fields: Any,
) -> ContainerInfo:
    """A running container, or one that has ended where an exit code is given."""
    ended = exit_code is not None
    defaults: dict[str, Any] = {
        "status": ContainerStatus.EXITED if ended else ContainerStatus.RUNNING,
        "spec_hash": spec_hash(make_pod(containers=[container_json(name)]).containers[0]),
        "started_at": moment(started_s),
        "finished_at": moment(finished_s) if ended else None,
        "exit_code": exit_code or 0,
    }
    return ContainerInfo(
        id=f"{name}-{attempt}",
        container_id=f"memory://{name}-{attempt}",
        sandbox_id=f"s{in_sandbox}",
        name=name,
        kind=kind,
        attempt=attempt,
        image=IMAGE,
        image_ref=IMAGE,
        created_at=moment(started_s),
        **{**defaults, **fields},
    )


def created(name: str = "main", attempt: int = 0, **fields: Any) -> ContainerInfo:
    """Made, never started."""
    return info(name, attempt, status=ContainerStatus.CREATED, started_at=None, **fields)


def plan(pod: Pod | None, *parts: SandboxInfo | ContainerInfo, **memory: Any) -> Plan:
    status = RuntimePod(
        KEY,
        tuple(p for p in parts if isinstance(p, SandboxInfo)),
        tuple(p for p in parts if isinstance(p, ContainerInfo)),
    )
    state = PodMemory(KEY, pod=pod, start_time=moment(0), **{"volumes": VolumeState(ready=True), **memory})
    return next_actions(state, status, NOW)


def short(action: Action) -> str:
    """An action in a few characters, for tables."""
    match action:
        case CreateSandbox(attempt):
            return f"sandbox {attempt}"
        case StopSandbox(some_id):
            return f"stop {some_id}"
        case RemoveSandbox(some_id):
            return f"remove {some_id}"
        case KillContainer(some_id):
            return f"kill {some_id}"
        case RemoveContainer(some_id):
            return f"remove {some_id}"
        case StartContainer(container, attempt, _, _, existing):
            return f"{'start' if existing else 'create'} {container.name}-{attempt}"


def steps(*args: Any, **memory: Any) -> list[str]:
    return [short(a) for a in plan(*args, **memory).actions]


def pod_of(policy: str = "Always", **spec: Any) -> Pod:
    return make_pod(restartPolicy=policy, **spec)


SANDBOX_TABLE = {
    "nothing yet": ([], ["sandbox 0"]),
    "ready": ([sandbox()], ["create main-0"]),
    "not ready": ([sandbox(ready=False)], ["sandbox 1"]),
    "without an address": ([sandbox(ips=())], ["stop s0"]),
    "two ready": ([sandbox(1), sandbox(0)], ["stop s1", "stop s0"]),
    "not ready, containers still run": ([sandbox(ready=False), info()], ["kill main-0"]),
    "an older one is ready": ([sandbox(1, ready=False), sandbox(0)], ["stop s0"]),
    "lost together with the container": (
        [sandbox(ready=False), info(exit_code=137)],
        ["sandbox 1"],
    ),
    "replaced, container of the old one": ([sandbox(1), info(exit_code=137)], ["create main-1"]),
    "container made in the old one": ([sandbox(1), created()], ["remove main-0"]),
}


@pytest.mark.parametrize(("there", "wanted"), SANDBOX_TABLE.values(), ids=SANDBOX_TABLE.keys())
def test_sandboxes(there: list[Any], wanted: list[str]) -> None:
    assert steps(pod_of(), *there) == wanted


CONTAINER_TABLE: dict[str, tuple[str, list[Any], list[str]]] = {
    "running": ("Always", [info()], []),
    "made, not started": ("Always", [created()], ["start main-0"]),
    "made of another image": ("Always", [created(spec_hash="old")], ["remove main-0"]),
    "made, could not start": ("Always", [created(error="no")], ["create main-1"]),
    "could not start, never again": ("Never", [created(error="no")], ["stop s0"]),
    "in an unknown state": ("Always", [info(status=ContainerStatus.UNKNOWN)], ["kill main-0"]),
    "of another image": ("Always", [info(spec_hash="old")], ["kill main-0"]),
    "of another image, run once": ("Never", [info(spec_hash="old")], ["kill main-0"]),
    "ended well, always": ("Always", [info(exit_code=0)], ["create main-1"]),
    "ended well, on failure": ("OnFailure", [info(exit_code=0)], ["stop s0"]),
    "ended well, never": ("Never", [info(exit_code=0)], ["stop s0"]),
    "failed, on failure": ("OnFailure", [info(exit_code=1)], ["create main-1"]),
    "failed, never": ("Never", [info(exit_code=1)], ["stop s0"]),
    "three attempts": (
        "Always",
        [info(attempt=2), info(attempt=1, exit_code=1), info(attempt=0, exit_code=1)],
        ["remove main-0"],
    ),
}


@pytest.mark.parametrize(("policy", "there", "wanted"), CONTAINER_TABLE.values(), ids=CONTAINER_TABLE.keys())
def test_containers(policy: str, there: list[Any], wanted: list[str]) -> None:
    assert steps(pod_of(policy), sandbox(), *there) == wanted


def one(exit_code: int | None = None, **fields: Any) -> ContainerInfo:
    return info("one", exit_code=exit_code, kind=ContainerKind.INIT, **fields)


def two(exit_code: int | None = None, **fields: Any) -> ContainerInfo:
    return info("two", exit_code=exit_code, kind=ContainerKind.INIT, **fields)


INIT_TABLE: dict[str, tuple[str, list[Any], list[str]]] = {
    "none has run": ("Always", [], ["create one-0"]),
    "the first runs": ("Always", [one()], []),
    "the first is done": ("Always", [one(0)], ["create two-0"]),
    "both are done": ("Always", [one(0), two(0)], ["create main-0"]),
    "the first failed": ("Always", [one(3)], ["create one-1"]),
    "the first failed, never": ("Never", [one(3)], ["stop s0"]),
    "the second failed, never": ("Never", [one(0), two(3)], ["stop s0"]),
    "the first was removed after its work": ("Always", [two()], []),
    "both were removed after their work": ("Always", [info()], []),
    "done in an earlier sandbox": ("Always", [one(0, in_sandbox=7)], ["create one-1"]),
    "made, not started": ("Always", [created("one", kind=ContainerKind.INIT)], ["start one-0"]),
}


@pytest.mark.parametrize(("policy", "there", "wanted"), INIT_TABLE.values(), ids=INIT_TABLE.keys())
def test_init_containers(policy: str, there: list[Any], wanted: list[str]) -> None:
    pod = pod_of(policy, initContainers=[container_json("one"), container_json("two")])

    assert steps(pod, sandbox(), *there) == wanted


SIDECAR_TABLE: dict[str, tuple[str, list[Any], list[str]]] = {
    "not there": ("Always", [], ["create one-0"]),
    "runs": ("Always", [one()], ["create two-0"]),
    "ended while the next works": ("Always", [one(1), two()], ["create one-1"]),
    "ended beside the app": ("Never", [one(0), two(0), info()], ["create one-1"]),
    "left alone with the pod over": ("Never", [one(), two(0), info(exit_code=0)], ["kill one-0"]),
}


@pytest.mark.parametrize(("policy", "there", "wanted"), SIDECAR_TABLE.values(), ids=SIDECAR_TABLE.keys())
def test_sidecars(policy: str, there: list[Any], wanted: list[str]) -> None:
    sidecar = container_json("one", restartPolicy="Always")
    pod = pod_of(policy, initContainers=[sidecar, container_json("two")])

    assert steps(pod, sandbox(), *there) == wanted


def test_sidecars_stop_after_the_others_and_in_reverse_order() -> None:
    sidecars = [container_json(n, restartPolicy="Always") for n in ("one", "two")]
    pod = pod_of(initContainers=sidecars)
    stop_by = NOW + datetime.timedelta(seconds=30)

    assert steps(pod, sandbox(), one(), two(), info(), stop_by=stop_by) == ["kill main-0"]
    assert steps(pod, sandbox(), one(), two(), stop_by=stop_by) == ["kill two-0"]
    assert steps(pod, sandbox(), one(), stop_by=stop_by) == ["kill one-0"]
    assert sorted(steps(pod, sandbox(), one(), two(), info(), stop_by=NOW)) == [
        "kill main-0",
        "kill one-0",
        "kill two-0",
    ]


BACK_OFF_TABLE = {
    "first failure": (0, 0, 899, 0),
    "second": (1, 1, 100, 10),
    "third": (2, 2, 100, 20),
    "sixth": (5, 5, 100, 160),
    "twentieth": (19, 19, 100, 300),
    "after ten minutes": (19, 19, 600, 0),
    "the row was broken before": (19, 1, 100, 10),
}


@pytest.mark.parametrize(
    ("attempt", "failures", "ran_s", "delay_s"), BACK_OFF_TABLE.values(), ids=BACK_OFF_TABLE.keys()
)
def test_back_off(attempt: int, failures: int, ran_s: float, delay_s: float) -> None:
    ended = info(
        attempt=attempt,
        exit_code=1,
        started_s=999 - ran_s,
        finished_s=999,
        annotations={"vkubelet.io/failures": str(failures)},
    )

    result = plan(pod_of(), sandbox(), ended)

    if delay_s <= 1:
        assert [short(a) for a in result.actions] == [f"create main-{attempt + 1}"]
        assert not result.waiting
    else:
        assert result.actions == ()
        assert result.waiting["main"].reason == "CrashLoopBackOff"
        assert result.wake_at == moment(999 + delay_s)


HOLD_TABLE: dict[str, tuple[dict[str, Any], float | None]] = {
    "volumes are not ready": ({"volumes": VolumeState(retry_at=moment(1007))}, 1007),
    "its sandbox failed a moment ago": ({"sandbox_retry_at": moment(1003)}, 1003),
}


@pytest.mark.parametrize(("memory", "wake_s"), HOLD_TABLE.values(), ids=HOLD_TABLE.keys())
def test_no_sandbox_is_made_while(memory: dict[str, Any], wake_s: float) -> None:
    result = plan(pod_of(), **memory)

    assert result.actions == ()
    assert result.wake_at == moment(wake_s)


def test_a_blocked_container_waits_and_others_start() -> None:
    pod = pod_of(containers=[container_json("main"), container_json("two")])
    waiting = Waiting("ErrImagePull", "no")

    result = plan(pod, sandbox(), blocked={"main": Blocked(waiting, moment(1005))})

    assert [short(a) for a in result.actions] == ["create two-0"]
    assert result.waiting == {"main": waiting}
    assert result.wake_at == moment(1005)


def test_a_block_without_a_time_waits_until_it_is_taken_away() -> None:
    result = plan(pod_of(), sandbox(), blocked={"main": Blocked(NOTHING_YET, None)})

    assert result.actions == ()
    assert result.wake_at is None


def test_a_past_block_is_tried_again() -> None:
    assert steps(pod_of(), sandbox(), blocked={"main": Blocked(NOTHING_YET, NOW)}) == ["create main-0"]


END_TABLE: dict[str, tuple[list[Any], list[str], bool]] = {
    "running": ([sandbox(), info()], ["kill main-0"], False),
    "stopped": ([sandbox(), info(exit_code=0)], ["stop s0"], False),
    "all over": ([sandbox(ready=False), info(exit_code=0)], [], True),
    "never begun": ([], [], True),
}


@pytest.mark.parametrize("known", [True, False], ids=["known", "orphan"])
@pytest.mark.parametrize(("there", "wanted", "over"), END_TABLE.values(), ids=END_TABLE.keys())
def test_a_pod_that_shall_stop(there: list[Any], wanted: list[str], over: bool, known: bool) -> None:
    result = plan(pod_of() if known else None, *there, stop_by=NOW)

    assert [short(a) for a in result.actions] == wanted
    assert result.over is over


def test_an_orphan_is_left_alone_until_it_is_told_to_stop() -> None:
    assert plan(None, sandbox(), info()) == Plan()


def test_a_pod_marked_as_deleted_starts_nothing() -> None:
    pod = make_pod(metadata={"deletionTimestamp": "2026-01-01T00:20:00Z"})

    assert plan(pod).actions == ()
    assert plan(pod, sandbox(), info(exit_code=1)).actions == ()


def test_on_the_hosts_network_a_sandbox_needs_no_address() -> None:
    assert steps(pod_of(hostNetwork=True), sandbox(ips=())) == ["create main-0"]


def test_ephemeral_containers_start_once() -> None:
    pod = pod_of(ephemeralContainers=[container_json("debug")])
    debug = info("debug", kind=ContainerKind.EPHEMERAL, exit_code=1)

    assert steps(pod, sandbox(), info()) == ["create debug-0"]
    assert steps(pod, sandbox(), info(), debug) == []
