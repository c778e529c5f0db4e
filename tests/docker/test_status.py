"""What the engine says to what is reported."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.docker import labels, status
from providers.docker.labels import Owner
from tests.docker.builders import KEY, container, sandbox
from vkubelet.kuberuntime.contract import ContainerStatus
from vkubelet.model.pod import ContainerKind

ZERO = "0001-01-01T00:00:00Z"
OWNER = Owner("node-1", "cluster-1")


def utc(*parts: int) -> datetime.datetime:
    return datetime.datetime(*parts, tzinfo=datetime.UTC)  # type: ignore[arg-type,misc]  # the parts of a date


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-22T23:30:52.090455594Z", utc(2026, 11, 22, 23, 30, 52, 90455)),
        ("2026-11-22T23:30:52Z", utc(2026, 11, 22, 23, 30, 52)),
        ("2026-11-22T23:30:52.5+01:00", utc(2026, 11, 22, 22, 30, 52, 500000)),
        (ZERO, None),
        ("", None),
        (None, None),
        ("yesterday", None),
        ("2026-13-45T00:00:00Z", None),
    ],
)
def test_times_are_read(text: str | None, moment: datetime.datetime | None) -> None:
    assert status.parse_time(text) == moment


@given(st.text())
def test_no_text_is_too_strange_for_a_time(text: str) -> None:
    status.parse_time(text)


def inspected(**state: Any) -> dict[str, Any]:
    kept = labels.container_labels(
        OWNER,
        "f00",
        container(attempt=3, kind=ContainerKind.INIT, annotations={"a": "b"}),
        KEY,
        "app@sha256:abc",
    )
    return {
        "Id": "c1",
        "Created": "2026-01-01T00:00:00Z",
        "Image": "sha256:2",
        "Config": {"Labels": kept},
        "State": {
            "Status": "created",
            "Running": False,
            "ExitCode": 0,
            "Error": "",
            "OOMKilled": False,
            "StartedAt": ZERO,
            "FinishedAt": ZERO,
            **state,
        },
    }


def test_a_created_container_keeps_its_identity() -> None:
    info = status.container_info(inspected())
    assert (info.id, info.container_id, info.sandbox_id) == ("c1", "docker://c1", "f00")
    assert (info.name, info.kind, info.attempt, info.spec_hash) == ("app", ContainerKind.INIT, 3, "abc")
    assert (info.image, info.image_ref, info.annotations) == ("app:1", "app@sha256:abc", {"a": "b"})
    assert (info.status, info.started_at, info.finished_at) == (ContainerStatus.CREATED, None, None)


RUN = {"StartedAt": "2026-01-01T00:00:01Z"}
ENDED = {**RUN, "Status": "exited", "FinishedAt": "2026-01-01T00:00:09Z"}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        pytest.param({**RUN, "Status": "running", "Running": True}, ContainerStatus.RUNNING, id="running"),
        pytest.param({**RUN, "Status": "paused", "Running": True}, ContainerStatus.RUNNING, id="paused"),
        pytest.param(ENDED, ContainerStatus.EXITED, id="exited"),
        pytest.param({**ENDED, "Status": "dead"}, ContainerStatus.EXITED, id="dead"),
        pytest.param({"Status": "melted"}, ContainerStatus.UNKNOWN, id="unknown"),
    ],
)
def test_states_are_cris(state: dict[str, Any], expected: ContainerStatus) -> None:
    assert status.container_info(inspected(**state)).status is expected


def test_the_end_of_a_container_is_told() -> None:
    info = status.container_info(inspected(**ENDED, ExitCode=137, OOMKilled=True))
    assert (info.exit_code, info.oom_killed, info.error) == (137, True, "")
    assert (info.started_at, info.finished_at) == (utc(2026, 1, 1, 0, 0, 1), utc(2026, 1, 1, 0, 0, 9))
    assert status.is_final(info)


def test_a_restarted_container_shows_nothing_of_its_last_end() -> None:
    state = {**ENDED, "Status": "running", "Running": True, "ExitCode": 3, "OOMKilled": True}
    info = status.container_info(inspected(**state))
    assert (info.exit_code, info.oom_killed, info.finished_at) == (0, False, None)


def test_a_start_that_the_engine_noted_late_is_not_after_the_end() -> None:
    state = {**ENDED, "StartedAt": "2026-01-01T00:00:09.1Z"}
    info = status.container_info(inspected(**state))
    assert info.started_at == info.finished_at == utc(2026, 1, 1, 0, 0, 9)


def test_a_failed_start_is_an_end_with_128() -> None:
    info = status.container_info(inspected(ExitCode=127, Error="exec: not found"))
    assert (info.status, info.exit_code, info.error) == (ContainerStatus.EXITED, 128, "exec: not found")
    assert (info.started_at, info.finished_at) == (None, utc(2026, 1, 1))
    assert not status.is_final(info)


def test_a_container_without_our_labels_is_still_read() -> None:
    info = status.container_info({"Id": "x", "State": {}, "Config": {}, "Image": "sha256:1"})
    assert (info.name, info.attempt, info.kind, info.image_ref) == ("", 0, ContainerKind.APP, "sha256:1")


@pytest.mark.parametrize("damaged", ["nonsense", "[1]", ""])
def test_damaged_annotations_are_none(damaged: str) -> None:
    assert labels.kept_annotations({labels.ANNOTATIONS: damaged}) == {}


def summary(number: int, attempt: int, state: str, ip: str = "172.17.0.9") -> dict[str, Any]:
    return {
        "Id": f"s{number}",
        "Created": 1_767_225_600 + number,
        "State": state,
        "Labels": labels.sandbox_labels(OWNER, sandbox(attempt=attempt)),
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": ip, "GlobalIPv6Address": "fd00::9"}}},
    }


def test_a_sandbox_has_addresses_while_it_runs() -> None:
    running = status.sandbox_info(summary(1, 0, "running"))
    assert (running.ready, running.ips) == (True, ("172.17.0.9", "fd00::9"))
    stopped = status.sandbox_info(summary(1, 0, "exited"))
    assert (stopped.ready, stopped.ips) == (False, ())


def test_pods_have_their_newest_attempts_first() -> None:
    info = status.container_info(inspected())
    entry = {"Id": "c1", "Labels": inspected()["Config"]["Labels"]}
    gone = {**entry, "Id": "c2"}
    foreign = {"Id": "x", "Labels": {"a": "b"}}
    pods = status.runtime_pods(
        [summary(1, 0, "exited"), summary(2, 1, "running"), entry, gone, foreign], {"c1": info}
    )
    assert [s.attempt for s in pods[KEY].sandboxes] == [1, 0]
    assert pods[KEY].containers == (info,)
    assert len(pods) == 1


def image(**values: Any) -> dict[str, Any]:
    return {"Id": f"sha256:cafe{0:060}", "RepoTags": ["cafe:latest"], "RepoDigests": [], "Size": 5, **values}


@pytest.mark.parametrize(
    ("name", "tags", "found"),
    [
        pytest.param("cafe", ["cafe:latest"], True, id="a name like an id"),
        pytest.param("cafe", ["other:1"], False, id="the beginning of another image's id"),
        pytest.param(f"sha256:cafe{0:060}", ["other:1"], True, id="id"),
        pytest.param(f"cafe{0:060}", [], True, id="bare id"),
        pytest.param("docker.io/library/other:1", ["other:1"], True, id="long name"),
    ],
)
def test_a_name_is_not_the_beginning_of_an_id(name: str, tags: list[str], found: bool) -> None:
    assert (status.image(name, image(RepoTags=tags)) is not None) == found


def test_an_images_reference_is_of_the_repository_that_was_asked() -> None:
    digests = ["mirror:5000/app@sha256:1", "app@sha256:2"]
    for name, expected in [
        ("app:1", digests[1]),
        ("docker.io/library/app:1", digests[1]),
        ("mirror:5000/app:1", digests[0]),
        ("third/app", digests[0]),
    ]:
        found = status.image(name, image(RepoDigests=digests, Config={"User": "65534:5"}))
        assert found is not None
        assert (found.ref, found.user) == (expected, "65534:5")
