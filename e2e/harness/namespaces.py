"""A namespace that a test, or the tests of one module, have to themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from e2e.harness.kubectl import Kubectl
from e2e.harness.waiting import wait_until

__all__ = ["own_namespace", "wait_for_namespaces"]

_PREFIX = "test-"


@contextlib.contextmanager
def own_namespace(kubectl: Kubectl, name: str) -> Iterator[Kubectl]:
    """
    Make the namespace ``test-<name>`` with its default service account; it is deleted afterwards.

    Yields the kubectl that is at home there. Nobody waits for the deletion: see `wait_for_namespaces`.
    """
    name = f"{_PREFIX}{name}"
    kubectl.run("create", "namespace", name)
    within = kubectl.within(name)
    # Pods are refused before the controller manager has made it.
    within.wait_until("serviceaccount", "default", lambda found: found is not None)
    try:
        yield within
    finally:
        kubectl.run("delete", "namespace", name, "--wait=false")


def wait_for_namespaces(kubectl: Kubectl, timeout_s: float = 60.0) -> None:
    """
    Wait until the tests' namespaces are gone, and with them the pods and their containers.

    Raises:
        AssertionError: some pods are still there.
    """

    def gone() -> bool:
        return not any(each["metadata"]["name"].startswith(_PREFIX) for each in kubectl.items("namespaces"))

    def pods_left() -> str:
        return kubectl.run("get", "pods", "--all-namespaces", "--output=wide")

    wait_until(gone, timeout_s=timeout_s, describe="the tests' namespaces to be gone", seen=pods_left)
