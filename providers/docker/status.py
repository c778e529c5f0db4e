"""
From what the engine says to what the contract reports. Pure.

Sandboxes are read from the list (it has their addresses), containers from an inspection (the list has no
exit codes).
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from providers.docker import labels
from vkubelet.kuberuntime.contract import ContainerInfo, ContainerStatus, Image, RuntimePod, SandboxInfo
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import ContainerKind

__all__ = [
    "START_ERROR_EXIT_CODE",
    "addresses",
    "container_info",
    "event_pod",
    "has_terminal",
    "image",
    "is_final",
    "parse_time",
    "runtime_pods",
    "sandbox_info",
    "was_started",
]

Answer = Mapping[str, Any]

START_ERROR_EXIT_CODE = 128
"""What CRI runtimes give a container that could not be started (reason StartError)."""

_NEVER = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
_RUNNING = frozenset({"running", "paused", "restarting"})
_ENDED = frozenset({"exited", "dead", "removing"})


def parse_time(text: str | None) -> datetime.datetime | None:
    """
    A time as Go writes it (RFC 3339 with nanoseconds, cut to microseconds), in UTC.

    Go's zero time, and a text that is no time, give None.
    """
    match = _TIME.fullmatch(text or "")
    if match is None or match[1].startswith("0001-"):
        return None
    microseconds = (match[2] or "0")[:6].ljust(6, "0")
    offset = "+00:00" if match[3] == "Z" else match[3]
    try:
        return datetime.datetime.fromisoformat(f"{match[1]}.{microseconds}{offset}").astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return None


def sandbox_info(summary: Answer) -> SandboxInfo:
    """A sandbox, from its entry in ``GET /containers/json``."""
    ready = summary.get("State") == "running"
    return SandboxInfo(
        id=summary["Id"],
        attempt=labels.kept_attempt(summary.get("Labels") or {}),
        ready=ready,
        created_at=datetime.datetime.fromtimestamp(summary.get("Created") or 0, datetime.UTC),
        ips=tuple(addresses(summary.get("NetworkSettings") or {})) if ready else (),
    )


def addresses(settings: Answer) -> Iterable[str]:
    """A container's addresses, from its `NetworkSettings`."""
    for network in (settings.get("Networks") or {}).values():
        for name in ("IPAddress", "GlobalIPv6Address"):
            if network and network.get(name):
                yield network[name]


def was_started(state: Answer) -> bool:
    """Whether a container with the inspected `State` runs or has run."""
    return bool(state.get("Running")) or state.get("Status") in _ENDED or bool(_times(state)[0])


def _times(state: Answer) -> tuple[datetime.datetime | None, datetime.datetime | None]:
    """
    When it was started and when it ended.

    The engine notes a start when it hears of it, which for a very short run is after the end.
    """
    started, finished = parse_time(state.get("StartedAt")), parse_time(state.get("FinishedAt"))
    if started and finished and not state.get("Running"):
        started = min(started, finished)
    return started, finished


def has_terminal(inspected: Answer) -> bool:
    """Whether a container has a terminal, in which case its output is one raw stream."""
    return bool((inspected.get("Config") or {}).get("Tty"))


def container_info(inspected: Answer) -> ContainerInfo:
    """
    A container, from ``GET /containers/{id}/json``.

    One that could not be started has never run: the engine leaves it "created" with an exit code and an
    error, a CRI runtime shows it as exited with 128, and so do we. Its end is given as its creation.
    """
    state = inspected.get("State") or {}
    kept = (inspected.get("Config") or {}).get("Labels") or {}
    created_at = parse_time(inspected.get("Created")) or _NEVER
    failed = not was_started(state) and bool(state.get("Error") or state.get("ExitCode"))
    status = ContainerStatus.EXITED if failed else _status(state)
    ended = status is ContainerStatus.EXITED
    started_at, finished_at = _times(state)
    if failed:
        finished_at = finished_at or created_at
    return ContainerInfo(
        id=inspected["Id"],
        container_id=f"docker://{inspected['Id']}",
        sandbox_id=kept.get(labels.SANDBOX_ID, ""),
        name=kept.get(labels.CONTAINER_NAME, ""),
        kind=_kind(kept.get(labels.CONTAINER_KIND, "")),
        attempt=labels.kept_attempt(kept),
        status=status,
        image=kept.get(labels.IMAGE, ""),
        image_ref=kept.get(labels.IMAGE_REF) or inspected.get("Image") or "",
        spec_hash=kept.get(labels.CONTAINER_HASH, ""),
        created_at=created_at,
        started_at=started_at,
        finished_at=finished_at if ended else None,
        exit_code=_exit_code(state, failed=failed) if ended else 0,
        oom_killed=ended and bool(state.get("OOMKilled")),
        error=str(state.get("Error") or "the container could not be started") if failed else "",
        annotations=labels.kept_annotations(kept),
    )


def _exit_code(state: Answer, *, failed: bool) -> int:
    return START_ERROR_EXIT_CODE if failed else int(state.get("ExitCode") or 0)


def _status(state: Answer) -> ContainerStatus:
    word = state.get("Status")
    if word in _RUNNING:
        return ContainerStatus.RUNNING
    if word in _ENDED:
        return ContainerStatus.EXITED
    return ContainerStatus.CREATED if word == "created" else ContainerStatus.UNKNOWN


def _kind(written: str) -> ContainerKind:
    try:
        return ContainerKind(written)
    except ValueError:
        return ContainerKind.APP


def is_final(info: ContainerInfo) -> bool:
    """Whether it will stay so: it has run and ended, and nobody here starts a container twice."""
    return info.status is ContainerStatus.EXITED and not info.error


def runtime_pods(
    summaries: Sequence[Answer], containers: Mapping[str, ContainerInfo]
) -> dict[PodKey, RuntimePod]:
    """
    Pods from the list, each with its newest attempts first.

    Args:
        summaries: entries of ``GET /containers/json``.
        containers: what inspecting those that are no sandboxes gave; what is missing has just been removed.
    """
    sandboxes: dict[PodKey, list[SandboxInfo]] = {}
    members: dict[PodKey, list[ContainerInfo]] = {}
    for summary in summaries:
        kept = summary.get("Labels") or {}
        key = labels.pod_key(kept)
        if key is None:
            continue
        if labels.is_sandbox(kept):
            sandboxes.setdefault(key, []).append(sandbox_info(summary))
        elif summary["Id"] in containers:
            members.setdefault(key, []).append(containers[summary["Id"]])
    return {
        key: RuntimePod(
            key,
            tuple(sorted(sandboxes.get(key, ()), key=lambda s: (s.attempt, s.created_at), reverse=True)),
            tuple(sorted(members.get(key, ()), key=lambda c: (c.attempt, c.created_at), reverse=True)),
        )
        for key in sandboxes.keys() | members.keys()
    }


def event_pod(event: Answer) -> PodKey | None:
    """Whose container an entry of ``GET /events`` is about."""
    return labels.pod_key((event.get("Actor") or {}).get("Attributes") or {})


def image(name: str, inspected: Answer) -> Image | None:
    """
    The image `name`, from ``GET /images/{name}/json``.

    None where the engine took a name such as ``cafe`` for the beginning of an image's id: in a pod it is
    the name of a repository.
    """
    identity = str(inspected["Id"])
    tags = [str(tag) for tag in inspected.get("RepoTags") or ()]
    digests = [str(digest) for digest in inspected.get("RepoDigests") or ()]
    if _is_id_prefix(name, identity) and not any(_names(tag, name) for tag in (*tags, *digests)):
        return None
    return Image(
        id=identity,
        ref=_reference(name, digests) or identity,
        user=str((inspected.get("Config") or {}).get("User") or ""),
        size_bytes=int(inspected.get("Size") or 0),
    )


def _is_id_prefix(name: str, identity: str) -> bool:
    """A prefix, but not the whole."""
    digest = identity.partition(":")[2] or identity
    return name not in (digest, identity) and (digest.startswith(name) or identity.startswith(name))


def _names(reference: str, name: str) -> bool:
    return _repository(reference).split("/")[-1] == name.split("/")[-1]


def _repository(reference: str) -> str:
    """``host:5000/team/app:1`` and ``host:5000/team/app@sha256:…`` are of ``host:5000/team/app``."""
    without_digest = reference.partition("@")[0]
    path, slash, last = without_digest.rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}"


def _reference(name: str, digests: Sequence[str]) -> str:
    """Of several repositories that have the image, the one that it was asked for by."""
    asked = _repository(name).removeprefix("docker.io/").removeprefix("library/")
    return next((d for d in digests if _repository(d) == asked), digests[0] if digests else "")
