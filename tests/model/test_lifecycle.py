from __future__ import annotations

from typing import Any

import pytest

from tests.builders import container_json, make_pod
from vkubelet.model import lifecycle
from vkubelet.model.pod import PodPhase, RestartPolicy


@pytest.mark.parametrize(
    ("of_pod", "of_container", "exit_code", "restarts"),
    [
        ("Always", None, 0, True),
        ("Always", None, 1, True),
        ("OnFailure", None, 0, False),
        ("OnFailure", None, 1, True),
        ("Never", None, 1, False),
        ("Never", "Always", 0, True),
        ("Never", "OnFailure", 1, True),
        ("Always", "Never", 1, False),
        ("Always", "OnFailure", 0, False),
    ],
)
def test_a_containers_own_restart_policy_goes_before_the_pods(
    of_pod: RestartPolicy, of_container: str | None, exit_code: int, restarts: bool
) -> None:
    overrides: dict[str, Any] = {"restartPolicy": of_container} if of_container else {}
    container = make_pod(containers=[container_json(**overrides)]).containers[0]

    assert lifecycle.should_restart(container, exit_code, RestartPolicy(of_pod)) is restarts


def test_rules_without_a_policy_of_their_own_container_do_not_count() -> None:
    rules = [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]
    container = make_pod(containers=[container_json(restartPolicyRules=rules)]).containers[0]

    assert lifecycle.should_restart(container, 1, RestartPolicy.NEVER) is False


@pytest.mark.parametrize(
    ("of_spec", "of_deletion", "override", "expected"),
    [
        pytest.param(30, None, None, 30, id="spec"),
        pytest.param(30, 5, None, 5, id="deletion"),
        pytest.param(30, 60, None, 60, id="deletion may be longer than the spec"),
        pytest.param(30, 0, None, 1, id="forced"),
        pytest.param(0, None, None, 1, id="spec of zero"),
        pytest.param(30, 20, 10, 10, id="shortened"),
        pytest.param(30, 20, 40, 20, id="never lengthened"),
    ],
)
def test_the_grace_period(of_spec: int, of_deletion: int | None, override: int | None, expected: int) -> None:
    pod = make_pod(
        terminationGracePeriodSeconds=of_spec,
        metadata={"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": of_deletion},
    )

    assert lifecycle.effective_grace_period_s(pod, override_s=override) == expected


def test_terminal_phases() -> None:
    terminal = {phase for phase in PodPhase if lifecycle.is_phase_terminal(phase)}
    assert terminal == {PodPhase.SUCCEEDED, PodPhase.FAILED}
