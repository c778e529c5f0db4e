"""
What ``python -m bench streams`` measures, a row each: one figure of one node, taken again and again.

Everything goes the way of a user: kubectl or client-go, the API server, the node, the container. kubectl
needs some 60 ms to start, which both nodes' figures contain; the row of "one client" leaves that out.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from e2e.harness import manifests
from e2e.harness.controlplane import ControlPlane
from e2e.harness.errors import HarnessError
from e2e.harness.kubectl import Kubectl

__all__ = ["LOG_MB", "POD", "ROWS", "Row", "StreamNode", "pod", "wait_for_log"]

POD = "streams"
OUTPUT_MB = 500
LOG_MB = 100
EXECS = 200
FOLLOWERS = 500
_ROUND_TRIPS = 10
_TIMEOUT_S = 600.0
_LINE = "x" * 99


@dataclass(frozen=True, slots=True)
class StreamNode:
    """
    A node with its pod `POD`.

    Attributes:
        pod: the pod's name.
        process: whose memory is looked at.
        client: the command line of the client-go program, up to its operation.
        zeros: a file of `OUTPUT_MB` to be sent.
    """

    name: str
    pod: str
    kubectl: Kubectl
    process: psutil.Process
    client: tuple[str, ...]
    zeros: Path


@dataclass(frozen=True, slots=True)
class Row:
    """
    One measurement.

    Attributes:
        name: what is done.
        unit: of the figures; "MB/s" is better when it is more, everything else when it is less.
        times: how often it is done on each node; the figure is the median.
        limit: how many times the kubelet's figure is still good.
        measure: does it once.
    """

    name: str
    unit: str
    times: int
    limit: float
    measure: Callable[[StreamNode], float]

    def slower_by(self, ours: float, theirs: float) -> float:
        """How many times as much we need as they do."""
        return theirs / ours if self.unit == "MB/s" else ours / theirs


def pod(name: str, node: str) -> dict[str, Any]:
    """The pod that is streamed to and from; the log is written when it starts."""
    bytes_to_log = LOG_MB * 1_000_000
    wait = "trap 'exit 0' TERM; while true; do sleep 1 & wait $!; done"
    written = f"yes {_LINE} | head -c {bytes_to_log}; touch /tmp/written; {wait}"
    made = manifests.pod(
        name,
        node,
        containers=[
            manifests.container(),
            manifests.container("log", ["sh", "-c", written]),
            manifests.container("line", ["sh", "-c", f"echo the first line; {wait}"]),
        ],
        hostNetwork=True,
        terminationGracePeriodSeconds=1,
        automountServiceAccountToken=False,
    )
    made["spec"] |= {"nodeName": node, "tolerations": [{"operator": "Exists"}]}
    del made["spec"]["nodeSelector"]
    return made


def wait_for_log(node: StreamNode) -> None:
    """
    Wait until the log is written, and see that it is read whole.

    Raises:
        HarnessError: it is not.
    """
    deadline = time.monotonic() + _TIMEOUT_S
    test = ("exec", node.pod, "--container=log", "--", "test", "-e", "/tmp/written")
    while node.kubectl.try_run(*test).returncode != 0:
        if time.monotonic() > deadline:
            raise HarnessError(f"the log of {LOG_MB} MB was not written on {node.name}")
        time.sleep(1)
    command = node.kubectl.command("logs", node.pod, "--container=log")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=node.kubectl.environment()) as reading:
        assert reading.stdout
        count = 0
        while chunk := reading.stdout.read(1 << 20):
            count += len(chunk)
    if count != LOG_MB * 1_000_000:
        raise HarnessError(f"{node.name} shows {count} bytes of a log of {LOG_MB} MB")


# --- the measurements -------------------------------------------------------------------------------------


def _timed(node: StreamNode, *arguments: str, stdin: Path | None = None) -> float:
    """Seconds that kubectl takes; its output goes nowhere."""
    with (stdin or Path("/dev/null")).open("rb") as given:
        started = time.perf_counter()
        done = subprocess.run(
            node.kubectl.command(*arguments),
            stdin=given,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=node.kubectl.environment(),
            timeout=_TIMEOUT_S,
            check=False,
        )
        taken_s = time.perf_counter() - started
    if done.returncode != 0:
        raise HarnessError(f"kubectl {' '.join(arguments)} failed on {node.name}: {done.stderr.decode()}")
    return taken_s


def _exec_kubectl(node: StreamNode) -> float:
    return _timed(node, "exec", node.pod, "--container=main", "--", "true")


def _exec_output(node: StreamNode) -> float:
    writer = f"dd if=/dev/zero bs=65536 count={OUTPUT_MB * 1_000_000 // 65536}"
    return OUTPUT_MB / _timed(node, "exec", node.pod, "--container=main", "--", *writer.split())


def _exec_input(node: StreamNode) -> float:
    # Not by the shell's own process: over WebSocket the kubelet ends when a command has closed its stdout.
    reader = ["sh", "-c", "cat > /dev/null; echo"]
    sent = _timed(node, "exec", "-i", node.pod, "--container=main", "--", *reader, stdin=node.zeros)
    return OUTPUT_MB / sent


def _log_read(node: StreamNode) -> float:
    return LOG_MB / _timed(node, "logs", node.pod, "--container=log")


def _client_measured(node: StreamNode, output: bytes) -> Any:
    found = json.loads(output)
    if found["failed"]:
        raise HarnessError(f"{found['failed']} failed on {node.name}, the first: {found['error']}")
    return found


def _exec_client(node: StreamNode, count: int, parallel: int) -> Any:
    command = [
        *node.client,
        f"--pod={node.pod}",
        f"--count={count}",
        f"--parallel={parallel}",
        *("repeat-exec", "true"),
    ]
    done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise HarnessError(f"the client-go program failed: {done.stderr.decode()}")
    return _client_measured(node, done.stdout)


def _exec_one_client(node: StreamNode) -> float:
    return float(median(_exec_client(node, _ROUND_TRIPS, 1)["seconds"]))


def _execs_at_once(node: StreamNode) -> float:
    return float(_exec_client(node, EXECS, EXECS)["total"])


@contextlib.contextmanager
def _followers(node: StreamNode) -> Iterator[float]:
    """Seconds until each of `FOLLOWERS` has had its first line; they go on following."""
    command = [*node.client, f"--pod={node.pod}", "--container=line", f"--count={FOLLOWERS}", "follow-logs"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdin
        assert client.stdout
        yield float(_client_measured(node, client.stdout.readline())["total"])
        client.stdin.close()


def _follow_seconds(node: StreamNode) -> float:
    with _followers(node) as total_s:
        return total_s


def _follow_memory(node: StreamNode) -> float:
    with _followers(node):
        return float(node.process.memory_info().rss / 1e6)


ROWS = (
    Row("kubectl exec -- true", "s", 15, 1.0, _exec_kubectl),
    Row("exec of true by one client", "s", 5, 1.0, _exec_one_client),
    Row(f"exec output, {OUTPUT_MB} MB", "MB/s", 3, 1.5, _exec_output),
    Row(f"exec input, {OUTPUT_MB} MB", "MB/s", 3, 1.5, _exec_input),
    Row(f"kubectl logs, {LOG_MB} MB", "MB/s", 5, 1.5, _log_read),
    Row(f"{EXECS} execs at once", "s", 1, 1.5, _execs_at_once),  # the kubelet takes minutes
    Row(f"{FOLLOWERS} logs -f at once, first lines", "s", 3, 1.5, _follow_seconds),
    Row(f"{FOLLOWERS} logs -f at once, resident", "MB", 1, 1.5, _follow_memory),
)


def client_command(program: Path, control_plane: ControlPlane) -> tuple[str, ...]:
    """The client-go program as an administrator, up to its operation."""
    file = control_plane.directory
    return (
        str(program),
        f"--server={control_plane.server}",
        f"--ca={control_plane.authority_file}",
        f"--cert={file / 'admin.crt'}",
        f"--key={file / 'admin.key'}",
    )
