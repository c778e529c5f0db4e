"""
What was asked of the API server, from its audit log: who wrote what, how often, with which content.

A test that counts writes reads it here. The API server's metrics were turned down for that: they know neither
the user nor the object, so that they count what other tests do at the same time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["AuditLog", "Request"]

_RESOURCES = [{"group": "", "resources": ["pods", "pods/status", "nodes", "nodes/status"]}]
_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {
            "level": "Request",
            "verbs": ["create", "update", "patch", "delete"],
            "resources": _RESOURCES,
        },
        {"level": "Metadata", "verbs": ["get"], "resources": _RESOURCES},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True)
class Request:
    """
    One request for a pod or a node.

    Attributes:
        user: who asked.
        verb: such as ``patch``.
        subresource: such as ``status``, or "".
        code: the HTTP status of the answer.
        body: what was sent, where the request changes something.
    """

    user: str
    verb: str
    subresource: str
    code: int
    body: Any = field(repr=False)


class AuditLog:
    """
    The audit log of an API server.

    Args:
        directory: for its policy and the log.
    """

    def __init__(self, directory: Path) -> None:
        self._policy_file = directory / "audit-policy.yaml"
        self._log_file = directory / "audit.log"

    def flags(self) -> list[str]:
        """What makes a kube-apiserver write it, each request before its answer is sent."""
        self._policy_file.parent.mkdir(parents=True, exist_ok=True)
        self._policy_file.write_text(yaml.safe_dump(_POLICY))
        return [
            f"--audit-policy-file={self._policy_file}",
            f"--audit-log-path={self._log_file}",
            "--audit-log-mode=blocking",
        ]

    def requests(self, resource: str, name: str, namespace: str = "") -> list[Request]:
        """All requests for one object, in order."""
        return [
            Request(
                user=entry["user"]["username"],
                verb=entry["verb"],
                subresource=entry["objectRef"].get("subresource", ""),
                code=entry["responseStatus"]["code"],
                body=entry.get("requestObject"),
            )
            for entry in self._entries()
            if _concerns(entry["objectRef"], resource, name, namespace)
        ]

    def _entries(self) -> Iterator[Any]:
        with self._log_file.open() as log:
            for line in log:
                if line.endswith("\n"):
                    yield json.loads(line)


def _concerns(reference: Any, resource: str, name: str, namespace: str) -> bool:
    wanted = (resource, name, namespace)
    return (reference["resource"], reference.get("name"), reference.get("namespace", "")) == wanted
