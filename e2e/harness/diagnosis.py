"""What explains a failure: the objects, the events and the logs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from e2e.harness import processes
from e2e.harness.kubectl import Kubectl

__all__ = ["explain"]

_QUESTIONS = (
    ("get", "nodes", "--output=wide"),
    ("get", "pods", "--output=wide"),
    ("describe", "pods"),
    ("get", "events", "--sort-by=.lastTimestamp"),
)


def explain(kubectl: Kubectl, log_files: Iterable[Path], *, lines: int = 60) -> str:
    """Nodes, the namespace's pods and events, and the end of each log file, as text."""
    where = f"--namespace {kubectl.namespace} " if kubectl.namespace else ""
    parts = [
        f"$ kubectl {where}{' '.join(question)}\n{_answer(kubectl, question)}" for question in _QUESTIONS
    ]
    for log_file in log_files:
        parts.append(f"--- the end of {log_file}\n{processes.tail(log_file, lines)}")
    return "\n\n".join(parts)


def _answer(kubectl: Kubectl, question: tuple[str, ...]) -> str:
    try:
        done = kubectl.try_run(*question, timeout_s=20)
    except subprocess.TimeoutExpired:
        return "(no answer in 20 s)"
    return (done.stdout + done.stderr).strip()
