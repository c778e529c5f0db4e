"""What Pod objects and their Events say, for tests to ask in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from e2e.harness.kubectl import Kubectl
from e2e.harness.waiting import wait_until

__all__ = [
    "all_ready",
    "condition",
    "container_status",
    "events",
    "has_ended",
    "is_ready",
    "last_terminated",
    "phase",
    "terminated",
    "wait_for_event",
    "wait_ready",
    "waiting",
]

_LISTS = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")


def phase(pod: Any) -> str | None:
    """``Running`` and so on; None without a pod."""
    answer: str | None = pod and pod["status"].get("phase")
    return answer


def has_ended(pod: Any) -> bool:
    """Whether it has succeeded or failed."""
    return phase(pod) in ("Succeeded", "Failed")


def condition(pod: Any, condition_type: str) -> str | None:
    """The status of one of its conditions, None where it has none."""
    conditions = (pod or {}).get("status", {}).get("conditions") or []
    return next((each["status"] for each in conditions if each["type"] == condition_type), None)


def is_ready(pod: Any) -> bool:
    """Whether it is Running and Ready, and not on its way out."""
    going = (pod or {}).get("metadata", {}).get("deletionTimestamp")
    return phase(pod) == "Running" and condition(pod, "Ready") == "True" and not going


def container_status(pod: Any, name: str = "main") -> Any:
    """A container's status, of whatever kind; {} where there is none yet."""
    status = (pod or {}).get("status", {})
    found = [each for key in _LISTS for each in status.get(key) or [] if each["name"] == name]
    return found[0] if found else {}


def terminated(pod: Any, name: str = "main") -> Any:
    """`state.terminated` of a container, None unless it has ended."""
    return container_status(pod, name).get("state", {}).get("terminated")


def last_terminated(pod: Any, name: str = "main") -> Any:
    """`lastState.terminated` of a container, None unless an earlier attempt has ended."""
    return container_status(pod, name).get("lastState", {}).get("terminated")


def waiting(pod: Any, reason: str, name: str = "main") -> Any:
    """`state.waiting` of a container if it waits for that reason."""
    state = container_status(pod, name).get("state", {}).get("waiting") or {}
    return state if state.get("reason") == reason else None


def wait_ready(kubectl: Kubectl, *names: str, timeout_s: float = 90.0) -> list[Any]:
    """The pods, once each is Running and Ready; AssertionError when the time is up."""
    return [
        kubectl.wait_until(
            "pod",
            name,
            lambda pod: pod if is_ready(pod) else None,
            timeout_s=timeout_s,
            describe=f"pod {name} to be Ready",
        )
        for name in names
    ]


def all_ready(found: Sequence[Any], count: int) -> bool:
    """Whether there are that many pods, and each is Ready."""
    return len(found) == count and all(is_ready(pod) for pod in found)


def events(kubectl: Kubectl, name: str) -> list[Any]:
    """The Events of a pod, in the order of their first occurrence."""
    found = kubectl.items("events", f"--field-selector=involvedObject.name={name}")
    return sorted(found, key=lambda event: event.get("firstTimestamp") or event.get("eventTime") or "")


def wait_for_event(
    kubectl: Kubectl, name: str, reason: str, text: str = "", *, timeout_s: float = 60.0
) -> Any:
    """
    The first Event of a pod with that reason, and `text` in its message.

    Raises:
        AssertionError: none came in time.
    """

    def found() -> Any:
        of_reason = (event for event in events(kubectl, name) if event["reason"] == reason)
        return next((event for event in of_reason if text in event["message"]), None)

    def seen() -> object:
        return [(event["reason"], event["message"]) for event in events(kubectl, name)]

    return wait_until(
        found, timeout_s=timeout_s, describe=f"an Event {reason} with {text!r} of {name}", seen=seen
    )
