from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders import (
    container_json,
    make_pod,
    moment,
    observed,
    observed_pod,
    pod_json,
    running,
    terminated,
)
from vkubelet.model.observations import (
    ContainerObservation,
    PodFailure,
    PodObservation,
    Running,
    Terminated,
    Waiting,
)
from vkubelet.model.pod import ContainerKind, Json, Pod, parse_pod
from vkubelet.model.status import OWNED_CONDITION_TYPES, OWNED_FIELDS, pod_status

HOST_IPS = ("192.168.0.10",)
CREATING = Waiting("ContainerCreating")
CRASHING = Waiting(
    "CrashLoopBackOff", "back-off 10s restarting failed container=main pod=web_default(uid-web)"
)


def status_of(
    pod: Pod,
    observation: PodObservation | None,
    *,
    at: float = 10.0,
    host_ips: tuple[str, ...] = HOST_IPS,
) -> Json:
    return pod_status(pod, observation, host_ips=host_ips, now=moment(at))


def later(pod: Pod, status: Json) -> Pod:
    """The pod as the API server sends it after that status was written."""
    return parse_pod({**pod.raw, "status": {**pod.status, **status}})


def condition(status: Json, kind: str) -> Json:
    found: Json = next(c for c in status["conditions"] if c["type"] == kind)
    return found


def init(name: str, state: Any = None, **overrides: Any) -> ContainerObservation:
    return observed(name, state, kind=ContainerKind.INIT, **overrides)


def sidecar_json(name: str) -> Json:
    return container_json(name, restartPolicy="Always")


def test_a_running_pod_gets_the_whole_status_of_the_kubelet() -> None:
    pod = make_pod(
        containers=[
            container_json(
                resources={"requests": {"cpu": "100m"}},
                volumeMounts=[
                    {"name": "token", "mountPath": "/token", "readOnly": True},
                    {"name": "scratch", "mountPath": "/scratch"},
                ],
            )
        ]
    )

    status = status_of(pod, observed_pod(pod, observed()))

    def true(kind: str, since: str = "2026-01-01T00:00:10Z") -> Json:
        return {
            "type": kind,
            "status": "True",
            "observedGeneration": 1,
            "lastProbeTime": None,
            "lastTransitionTime": since,
        }

    assert status == {
        "observedGeneration": 1,
        "phase": "Running",
        "conditions": [
            true("PodReadyToStartContainers"),
            true("Initialized"),
            true("Ready"),
            true("ContainersReady"),
            true("PodScheduled", since="2026-01-01T00:00:00Z"),
        ],
        "hostIP": "192.168.0.10",
        "hostIPs": [{"ip": "192.168.0.10"}],
        "podIP": "10.1.0.5",
        "podIPs": [{"ip": "10.1.0.5"}],
        "startTime": "2026-01-01T00:00:00Z",
        "qosClass": "BestEffort",
        "containerStatuses": [
            {
                "name": "main",
                "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}},
                "lastState": {},
                "ready": True,
                "started": True,
                "restartCount": 0,
                "image": "registry.example/app:1.0",
                "imageID": "sha256:0123",
                "containerID": "docker://1",
                "resources": {"requests": {"cpu": "100m"}},
                "allocatedResources": {"cpu": "100m"},
                "volumeMounts": [
                    {
                        "name": "token",
                        "mountPath": "/token",
                        "readOnly": True,
                        "recursiveReadOnly": "Disabled",
                    },
                    {"name": "scratch", "mountPath": "/scratch"},
                ],
            }
        ],
    }


def test_the_first_status_of_a_pod_that_nobody_has_reported_yet() -> None:
    status = status_of(make_pod(), None)

    assert status["phase"] == "Pending"
    assert status["startTime"] == "2026-01-01T00:00:10Z"
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert condition(status, "PodReadyToStartContainers")["status"] == "False"
    assert condition(status, "Ready")["message"] == "containers with unready status: [main]"
    assert "podIP" not in status


# --- phase ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "states", "phase"),
    [
        pytest.param("Always", [running()], "Running", id="running"),
        pytest.param("Always", [CREATING], "Pending", id="waits for its first start"),
        pytest.param("Always", [running(), CREATING], "Pending", id="one of two waits for its first start"),
        pytest.param("Always", [terminated(0)], "Running", id="to be restarted after success"),
        pytest.param("Always", [terminated(1)], "Running", id="to be restarted after failure"),
        pytest.param("OnFailure", [terminated(1)], "Running", id="to be restarted on failure"),
        pytest.param("OnFailure", [terminated(0)], "Succeeded", id="done on failure policy"),
        pytest.param(
            "OnFailure", [terminated(0), terminated(1)], "Running", id="one done, one to be restarted"
        ),
        pytest.param("Never", [terminated(0)], "Succeeded", id="done"),
        pytest.param("Never", [terminated(0), terminated(0)], "Succeeded", id="both done"),
        pytest.param("Never", [terminated(0), terminated(3)], "Failed", id="one of two failed"),
        pytest.param("Never", [running(), terminated(3)], "Running", id="one failed, one still runs"),
    ],
)
def test_phase_follows_from_the_containers_and_the_restart_policy(
    policy: str, states: list[Any], phase: str
) -> None:
    names = [f"c{i}" for i in range(len(states))]
    pod = make_pod(restartPolicy=policy, containers=[container_json(n) for n in names])

    observation = observed_pod(pod, *(observed(n, s) for n, s in zip(names, states, strict=True)))

    assert status_of(pod, observation)["phase"] == phase


def test_a_pod_in_crash_loop_back_off_stays_running() -> None:
    pod = make_pod()

    status = status_of(
        pod, observed_pod(pod, observed(state=CRASHING, last_state=terminated(1), restart_count=3))
    )

    assert status["phase"] == "Running"
    assert status["containerStatuses"][0]["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 1
    assert condition(status, "Ready")["reason"] == "ContainersNotReady"


@pytest.mark.parametrize(
    ("rules", "exit_code", "phase"),
    [
        pytest.param({"operator": "In", "values": [42]}, 42, "Running", id="listed"),
        pytest.param({"operator": "In", "values": [42]}, 1, "Failed", id="not listed"),
        pytest.param({"operator": "NotIn", "values": [42]}, 1, "Running", id="not excluded"),
        pytest.param({"operator": "NotIn", "values": [42]}, 42, "Failed", id="excluded"),
    ],
)
def test_restart_policy_rules_of_a_container_decide_before_its_policy(
    rules: Json, exit_code: int, phase: str
) -> None:
    container = container_json(
        restartPolicy="Never", restartPolicyRules=[{"action": "Restart", "exitCodes": rules}]
    )
    pod = make_pod(restartPolicy="Never", containers=[container])

    assert status_of(pod, observed_pod(pod, observed(state=terminated(exit_code))))["phase"] == phase


def test_a_deleted_pod_whose_containers_have_ended_is_terminal_whatever_its_restart_policy() -> None:
    pod = make_pod(metadata={"deletionTimestamp": "2026-01-01T00:00:05Z", "deletionGracePeriodSeconds": 30})
    ended = observed_pod(pod, observed(state=terminated(0)), terminated=True)
    killed = observed_pod(pod, observed(state=terminated(137)), terminated=True)

    assert status_of(pod, ended)["phase"] == "Succeeded"
    assert status_of(pod, killed)["phase"] == "Failed"
    assert condition(status_of(pod, ended), "Ready")["reason"] == "PodCompleted"
    assert condition(status_of(pod, ended), "PodReadyToStartContainers")["status"] == "False"


def test_a_terminal_phase_is_not_reported_while_a_container_runs() -> None:
    pod = make_pod(status={"phase": "Running"})
    failure = PodFailure("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")

    held_back = status_of(pod, observed_pod(pod, observed(), failure=failure))
    over = status_of(
        pod, observed_pod(pod, observed(state=terminated(143)), failure=failure, terminated=True)
    )

    assert held_back["phase"] == "Running"
    assert "reason" not in held_back
    assert condition(held_back, "Ready")["reason"] == "PodFailed"
    assert (over["phase"], over["reason"], over["message"]) == ("Failed", failure.reason, failure.message)


def test_a_rejected_pod_shows_its_reason_and_no_containers() -> None:
    pod = make_pod()
    pod = later(pod, status_of(pod, None))
    failure = PodFailure("UnsupportedPodFeature", "the docker provider does not support spec.volumes[0].nfs")

    status = status_of(pod, observed_pod(pod, failure=failure, terminated=True, pod_ips=()))

    assert (status["phase"], status["reason"]) == ("Failed", "UnsupportedPodFeature")
    assert "containerStatuses" not in status
    assert [c["reason"] for c in status["conditions"] if c["type"] == "Ready"] == ["PodFailed"]
    rewritten = {k: v for k, v in later(pod, status).status.items() if k != "containerStatuses"}
    assert "containerStatuses" not in status_of(parse_pod({**pod.raw, "status": rewritten}), None)


# --- containers that end, vanish or come back -------------------------------------------------------------


def test_a_pod_that_vanished_from_the_platform_fails_with_unknown_exit_codes() -> None:
    pod = make_pod()
    pod = later(pod, status_of(pod, observed_pod(pod, observed())))

    status = status_of(pod, observed_pod(pod, terminated=True, pod_ips=()))

    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"] == {
        "exitCode": 137,
        "reason": "ContainerStatusUnknown",
        "message": "The container could not be located when the pod was terminated",
        "startedAt": None,
        "finishedAt": None,
    }
    assert status["podIP"] == "10.1.0.5"


def test_a_running_container_that_vanished_from_a_living_pod_counts_as_restarted() -> None:
    pod = make_pod()
    pod = later(pod, status_of(pod, observed_pod(pod, observed())))

    container = status_of(pod, observed_pod(pod))["containerStatuses"][0]

    assert container["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert container["lastState"]["terminated"]["reason"] == "ContainerStatusUnknown"
    assert container["restartCount"] == 1
    assert status_of(pod, observed_pod(pod))["phase"] == "Running"


def test_a_run_once_container_that_ended_does_not_run_again_in_the_status() -> None:
    pod = make_pod(restartPolicy="Never", containers=[container_json(), container_json("other")])
    pod = later(pod, status_of(pod, observed_pod(pod, observed(state=terminated(7)), observed("other"))))

    again = observed(state=running(), container_id="docker://2")
    status = status_of(pod, observed_pod(pod, again, observed("other", terminated(0))))

    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7


def test_an_exit_code_that_the_platform_forgot_stays_as_last_state() -> None:
    pod = make_pod()
    pod = later(pod, status_of(pod, observed_pod(pod, observed(state=terminated(7)))))

    restarted = status_of(pod, observed_pod(pod, observed(container_id="docker://2", restart_count=1)))
    container = restarted["containerStatuses"][0]

    assert container["lastState"]["terminated"]["exitCode"] == 7
    assert container["restartCount"] == 1


def test_a_container_that_waited_for_its_restart_when_the_pod_ended_keeps_its_exit_code() -> None:
    pod = make_pod()
    crashing = observed(state=CRASHING, last_state=terminated(9), restart_count=2)

    container = status_of(pod, observed_pod(pod, crashing, terminated=True))["containerStatuses"][0]

    assert container["state"]["terminated"]["exitCode"] == 9
    assert container["lastState"] == {}


def test_a_deleted_pod_that_never_started_fails_with_unknown_containers() -> None:
    pod = make_pod(metadata={"deletionTimestamp": "2026-01-01T00:00:05Z", "deletionGracePeriodSeconds": 30})

    status = status_of(pod, observed_pod(pod, terminated=True, pod_ips=()))

    assert status["phase"] == "Failed"
    assert status["containerStatuses"][0]["state"]["terminated"]["reason"] == "ContainerStatusUnknown"


def test_resources_are_those_the_container_was_made_with() -> None:
    small, big = {"requests": {"cpu": "100m"}}, {"requests": {"cpu": "200m"}}
    pod = make_pod(containers=[container_json(resources=small)])
    written = status_of(pod, observed_pod(pod, observed()))
    resized = make_pod(containers=[container_json(resources=big)], status={**pod.status, **written})

    same = status_of(resized, observed_pod(pod, observed()))["containerStatuses"][0]
    replaced = status_of(resized, observed_pod(pod, observed(container_id="docker://2")))
    assert same["allocatedResources"] == {"cpu": "100m"}
    assert replaced["containerStatuses"][0]["resources"] == big


def test_termination_messages_share_twelve_kibibytes() -> None:
    pod = make_pod(restartPolicy="Never", containers=[container_json("a"), container_json("b")])
    ended = Terminated(1, "Error", message="é" * 10_000, finished_at=moment(3))

    status = status_of(pod, observed_pod(pod, observed("a", ended), observed("b", ended)))

    messages = [c["state"]["terminated"]["message"] for c in status["containerStatuses"]]
    assert [len(m.encode()) for m in messages] == [6144, 6144]


def test_containers_are_listed_by_name_and_init_containers_as_in_the_spec() -> None:
    pod = make_pod(
        containers=[container_json("b"), container_json("a")],
        initContainers=[container_json("z"), container_json("y")],
    )

    status = status_of(pod, observed_pod(pod))

    assert [c["name"] for c in status["containerStatuses"]] == ["a", "b"]
    assert [c["name"] for c in status["initContainerStatuses"]] == ["z", "y"]


# --- init containers and sidecars -------------------------------------------------------------------------


def test_a_pod_with_a_running_init_container_is_pending_and_names_what_is_incomplete() -> None:
    pod = make_pod(initContainers=[container_json("first"), container_json("second")])

    status = status_of(pod, observed_pod(pod, init("first", running())))

    initialized = condition(status, "Initialized")
    assert status["phase"] == "Pending"
    assert (initialized["status"], initialized["reason"]) == ("False", "ContainersNotInitialized")
    assert initialized["message"] == "containers with incomplete status: [first second]"
    assert status["initContainerStatuses"][0]["started"] is True
    assert status["initContainerStatuses"][0]["ready"] is False
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


@pytest.mark.parametrize(
    ("policy", "phase"), [("Never", "Failed"), ("OnFailure", "Pending"), ("Always", "Pending")]
)
def test_a_failed_init_container_fails_the_pod_unless_it_is_to_be_restarted(policy: str, phase: str) -> None:
    pod = make_pod(restartPolicy=policy, initContainers=[container_json("prepare")])

    assert status_of(pod, observed_pod(pod, init("prepare", terminated(1))))["phase"] == phase


def test_init_containers_that_are_done_are_ready_and_the_pod_initialized() -> None:
    pod = make_pod(initContainers=[container_json("prepare")])

    status = status_of(pod, observed_pod(pod, init("prepare", terminated(0)), observed()))

    assert status["initContainerStatuses"][0]["ready"] is True
    assert status["initContainerStatuses"][0]["started"] is False
    assert condition(status, "Initialized")["status"] == "True"
    assert status["phase"] == "Running"


def test_an_init_container_that_was_cleaned_up_counts_as_done_once_an_app_container_exists() -> None:
    pod = make_pod(initContainers=[container_json("prepare")])

    status = status_of(pod, observed_pod(pod, observed()))

    assert status["initContainerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    assert status["phase"] == "Running"


def test_an_initialized_pod_stays_initialized() -> None:
    pod = make_pod(initContainers=[container_json("prepare")])
    pod = later(pod, status_of(pod, observed_pod(pod, init("prepare", terminated(0)), observed())))

    again = status_of(pod, observed_pod(pod, init("prepare", running(20), container_id="docker://9")))

    assert condition(again, "Initialized")["status"] == "True"


def test_an_init_container_that_failed_ends_a_deleted_pod_without_touching_later_ones() -> None:
    pod = make_pod(initContainers=[container_json("first"), container_json("second")])

    status = status_of(pod, observed_pod(pod, init("first", terminated(1)), terminated=True))

    states = [next(iter(c["state"])) for c in status["initContainerStatuses"]]
    assert states == ["terminated", "waiting"]
    assert status["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}
    assert status["phase"] == "Failed"


def test_a_sidecar_holds_the_pod_pending_until_it_has_started() -> None:
    pod = make_pod(initContainers=[sidecar_json("proxy")])

    starting = status_of(pod, observed_pod(pod, init("proxy", running(), started=False)))
    started = status_of(pod, observed_pod(pod, init("proxy", running(), started=True), observed()))

    assert starting["phase"] == "Pending"
    assert condition(starting, "Initialized")["status"] == "False"
    assert started["phase"] == "Running"
    assert condition(started, "Initialized")["status"] == "True"
    assert condition(started, "Ready")["status"] == "True"


def test_a_sidecar_that_is_not_ready_makes_the_pod_unready_but_not_pending() -> None:
    pod = make_pod(initContainers=[sidecar_json("proxy")])
    restarting = init("proxy", CRASHING, last_state=terminated(1), ready=False)

    status = status_of(pod, observed_pod(pod, restarting, observed()))

    assert status["phase"] == "Running"
    assert condition(status, "Ready")["message"] == "containers with unready status: [proxy]"


def test_a_pod_whose_app_containers_are_done_waits_for_its_sidecars() -> None:
    pod = make_pod(restartPolicy="Never", initContainers=[sidecar_json("proxy")])

    working = status_of(pod, observed_pod(pod, init("proxy", running()), observed(state=terminated(0))))
    done = status_of(
        pod,
        observed_pod(pod, init("proxy", terminated(143)), observed(state=terminated(0)), terminated=True),
    )

    assert working["phase"] == "Running"
    assert done["phase"] == "Succeeded"


# --- conditions -------------------------------------------------------------------------------------------


def test_a_condition_keeps_its_transition_time_while_its_status_stays() -> None:
    pod = make_pod()
    pod = later(pod, status_of(pod, observed_pod(pod, observed()), at=10))

    unready = status_of(pod, observed_pod(pod, observed(ready=False)), at=20)

    assert condition(unready, "Ready")["lastTransitionTime"] == "2026-01-01T00:00:20Z"
    assert condition(unready, "Initialized")["lastTransitionTime"] == "2026-01-01T00:00:10Z"


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        pytest.param(
            None,
            'corresponding condition of pod readiness gate "example.com/lb" does not exist.',
            id="missing",
        ),
        pytest.param(
            "False",
            'the status of pod readiness gate "example.com/lb" is not "True", but False',
            id="false",
        ),
        pytest.param("True", None, id="true"),
    ],
)
def test_readiness_gates_hold_back_ready_but_not_containers_ready(
    gate: str | None, message: str | None
) -> None:
    conditions = [{"type": "example.com/lb", "status": gate}] if gate else []
    pod = make_pod(
        readinessGates=[{"conditionType": "example.com/lb"}],
        status={"phase": "Pending", "conditions": conditions},
    )

    status = status_of(pod, observed_pod(pod, observed()))

    ready = condition(status, "Ready")
    assert condition(status, "ContainersReady")["status"] == "True"
    assert (ready["status"], ready.get("message")) == ("False" if message else "True", message)
    assert {c["type"] for c in status["conditions"]} == OWNED_CONDITION_TYPES


def test_a_container_with_a_startup_probe_is_not_ready_before_it_has_started() -> None:
    pod = make_pod(containers=[container_json(startupProbe={"exec": {"command": ["true"]}})])

    container = status_of(pod, observed_pod(pod, observed()))["containerStatuses"][0]

    assert (container["started"], container["ready"]) == (False, False)


# --- addresses and times ----------------------------------------------------------------------------------


def test_pod_ips_follow_the_family_of_the_node() -> None:
    pod = make_pod()
    observation = observed_pod(pod, observed(), pod_ips=("fd00::5", "10.1.0.5", "10.1.0.6"))

    four = status_of(pod, observation)
    six = status_of(pod, observation, host_ips=("fd00::1", "192.168.0.10"))

    assert [e["ip"] for e in four["podIPs"]] == ["10.1.0.5", "fd00::5"]
    assert [e["ip"] for e in six["podIPs"]] == ["fd00::5", "10.1.0.5"]
    assert [e["ip"] for e in six["hostIPs"]] == ["fd00::1", "192.168.0.10"]


def test_a_pod_on_the_hosts_network_has_the_nodes_addresses_at_once() -> None:
    status = status_of(make_pod(hostNetwork=True), None, host_ips=("192.168.0.10", "fd00::1"))

    assert status["podIP"] == "192.168.0.10"
    assert [e["ip"] for e in status["podIPs"]] == ["192.168.0.10", "fd00::1"]


def test_the_start_time_never_changes() -> None:
    pod = make_pod(status={"phase": "Running", "startTime": "2025-12-31T00:00:00Z"})

    assert status_of(pod, observed_pod(pod, observed()))["startTime"] == "2025-12-31T00:00:00Z"


def test_an_ephemeral_container_has_a_status_and_no_part_in_phase_and_readiness() -> None:
    pod = make_pod(ephemeralContainers=[container_json("debug")])
    debug = observed("debug", terminated(1), kind=ContainerKind.EPHEMERAL)

    status = status_of(pod, observed_pod(pod, observed(), debug))

    assert status["phase"] == "Running"
    assert condition(status, "Ready")["status"] == "True"
    assert status["ephemeralContainerStatuses"][0]["ready"] is False
    assert "started" not in status["ephemeralContainerStatuses"][0]


# --- what holds for every history -------------------------------------------------------------------------

exit_codes = st.sampled_from([0, 1, 137])
states = st.one_of(
    st.just(CREATING),
    st.just(CRASHING),
    st.builds(running, st.integers(0, 50)),
    st.builds(terminated, exit_codes),
)


@st.composite
def containers(draw: st.DrawFn, name: str, kind: ContainerKind) -> ContainerObservation:
    return observed(
        name,
        draw(states),
        kind=kind,
        ready=draw(st.booleans()),
        started=draw(st.sampled_from([None, True, False])),
        restart_count=draw(st.integers(0, 3)),
        container_id=draw(st.sampled_from(["", "docker://1", "docker://2"])),
        last_state=draw(st.none() | st.builds(terminated, exit_codes)),
    )


LISTS = {
    "prepare": ContainerKind.INIT,
    "proxy": ContainerKind.INIT,
    "a": ContainerKind.APP,
    "b": ContainerKind.APP,
}


@st.composite
def histories(draw: st.DrawFn) -> tuple[Pod, list[PodObservation | None]]:
    pod = make_pod(
        restartPolicy=draw(st.sampled_from(["Always", "OnFailure", "Never"])),
        initContainers=draw(st.sampled_from([[], [container_json("prepare"), sidecar_json("proxy")]])),
        containers=[container_json("a"), container_json("b")],
    )
    known = [c.name for c in pod.all_containers()]
    steps: list[PodObservation | None] = []
    for _ in range(draw(st.integers(1, 5))):
        names = draw(st.lists(st.sampled_from(known), unique=True))
        over = draw(st.booleans())
        seen = tuple(draw(containers(name, LISTS[name])) for name in names)
        seen = tuple(c for c in seen if not (over and isinstance(c.state, Running)))
        failure = draw(st.sampled_from([None, None, PodFailure("Evicted", "The node was low on memory.")]))
        step = observed_pod(
            pod, *seen, failure=failure, terminated=over, pod_ips=("10.1.0.5",) if seen else ()
        )
        steps.append(draw(st.sampled_from([step, step, step, None])))
    return pod, steps


def by_name(status: Json) -> dict[str, Json]:
    lists = ("initContainerStatuses", "containerStatuses")
    return {c["name"]: c for name in lists for c in status.get(name, ())}


@settings(deadline=None)
@given(histories())
def test_no_history_makes_a_status_go_back(history: tuple[Pod, list[PodObservation | None]]) -> None:
    pod, steps = history
    for at, step in enumerate(steps):
        status = status_of(pod, step, at=float(at))
        before, after = by_name(pod.status), by_name(status)
        assert set(status) <= set(OWNED_FIELDS)
        assert status["startTime"] == pod.status.get("startTime", status["startTime"])
        if pod.is_terminal:
            assert status["phase"] == pod.phase
        if status["phase"] in ("Succeeded", "Failed"):
            assert condition(status, "Ready")["status"] == "False"
        if step is not None and step.terminated:
            assert status["phase"] in ("Succeeded", "Failed")
        for name, container in after.items():
            old = before.get(name)
            assert len(container["state"]) == 1
            assert not (container["ready"] and "waiting" in container["state"])
            if old is not None:
                assert container["restartCount"] >= old["restartCount"]
                if "terminated" in old["state"]:
                    assert "terminated" in container["state"] or "terminated" in container["lastState"]
        pod = parse_pod({**pod.raw, "status": status})


@settings(deadline=None)
@given(histories())
def test_the_same_observation_again_changes_nothing(
    history: tuple[Pod, list[PodObservation | None]],
) -> None:
    pod, steps = history
    for at, step in enumerate(steps):
        status = status_of(pod, step, at=float(at))
        pod = parse_pod({**pod.raw, "status": status})
        assert status_of(pod, step, at=at + 0.5) == status
        over = condition(status, "ContainersReady").get("reason") in ("PodFailed", "PodCompleted")
        if pod.is_terminal or not over:  # else the end is held back, and only the platform knows of it
            assert status_of(pod, None, at=at + 0.5) == status


def test_a_builder_pod_is_what_parse_pod_takes() -> None:
    assert parse_pod(pod_json("x", metadata={"labels": {"a": "b"}})).labels == {"a": "b"}


# --- rarer turns ------------------------------------------------------------------------------------------


def test_a_waiting_container_shows_reason_and_message_or_neither() -> None:
    pod = make_pod(containers=[container_json("a"), container_json("b")])
    pulling = Waiting("ErrImagePull", "no such host")
    observation = observed_pod(
        pod, observed("a", pulling, container_id="", image=""), observed("b", Waiting(""), container_id="")
    )

    first, second = status_of(pod, observation)["containerStatuses"]

    assert first["state"] == {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}
    assert first["image"] == "registry.example/app:1.0"
    assert "containerID" not in first
    assert "resources" not in first
    assert second["state"] == {"waiting": {}}


def test_a_finished_ephemeral_container_never_runs_again() -> None:
    pod = make_pod(ephemeralContainers=[container_json("debug")])
    ended = observed("debug", terminated(3), kind=ContainerKind.EPHEMERAL)
    pod = later(pod, status_of(pod, observed_pod(pod, observed(), ended)))

    again = observed("debug", running(), kind=ContainerKind.EPHEMERAL)
    status = status_of(pod, observed_pod(pod, observed(), again))

    assert status["ephemeralContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


def test_an_ephemeral_container_that_has_not_started_waits() -> None:
    pod = make_pod(ephemeralContainers=[container_json("debug")])

    status = status_of(pod, observed_pod(pod, observed()))["ephemeralContainerStatuses"][0]

    assert status["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert "started" not in status


def test_a_pod_without_a_report_keeps_what_the_api_server_knows() -> None:
    pod = make_pod()
    written = status_of(pod, observed_pod(pod, observed(), pod_ips=()))
    pod = later(pod, written)

    assert status_of(pod, None, at=99) == written


def test_a_sidecar_that_failed_or_waits_for_its_first_start() -> None:
    pod = make_pod(initContainers=[sidecar_json("proxy")])

    waiting = status_of(pod, observed_pod(pod))
    ended = status_of(pod, observed_pod(pod, init("proxy", terminated(1)), observed()))
    deleted = status_of(pod, observed_pod(pod, init("proxy", running(), started=True), terminated=False))

    assert waiting["phase"] == "Pending"
    assert ended["phase"] == "Running"
    assert deleted["containerStatuses"][0]["state"] == {"waiting": {"reason": "PodInitializing"}}


def test_a_started_sidecar_counts_as_initialized_when_the_pod_ends() -> None:
    pod = make_pod(initContainers=[sidecar_json("proxy")])
    pod = later(pod, status_of(pod, observed_pod(pod, init("proxy", running(), started=True))))

    status = status_of(pod, observed_pod(pod, terminated=True))

    assert status["phase"] == "Failed"
    assert status["initContainerStatuses"][0]["state"]["terminated"]["exitCode"] == 137


def test_a_host_network_pod_gains_the_nodes_second_family_and_loses_none() -> None:
    pod = make_pod(hostNetwork=True)
    pod = later(pod, status_of(pod, None))

    dual = later(pod, status_of(pod, None, host_ips=("192.168.0.10", "fd00::1")))
    moved = status_of(dual, None, host_ips=("192.168.0.99",))

    assert [e["ip"] for e in dual.status["podIPs"]] == ["192.168.0.10", "fd00::1"]
    assert moved["podIP"] == "192.168.0.10"


def test_a_node_without_an_address_gives_none() -> None:
    status = status_of(make_pod(), None, host_ips=())

    assert "hostIP" not in status
    assert "podIP" not in status


def test_the_observed_generation_never_falls_and_is_left_out_where_there_is_none() -> None:
    ahead = make_pod(status={"observedGeneration": 5})
    without = make_pod(metadata={"generation": 0})

    assert status_of(ahead, None)["observedGeneration"] == 5
    assert "observedGeneration" not in status_of(without, None)
    assert "observedGeneration" not in condition(status_of(without, None), "Ready")


def test_only_the_first_status_may_come_from_the_providers_start_time() -> None:
    pod = make_pod()
    observation = PodObservation(pod.key)

    assert status_of(pod, observation)["startTime"] == "2026-01-01T00:00:10Z"
    assert status_of(pod, observed_pod(pod))["startTime"] == "2026-01-01T00:00:00Z"
