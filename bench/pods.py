"""
Pods a second: vkubelet on the memory provider, beside kwok and the limit.

The limit is a bare client that creates the same pods and writes the same statuses itself: what the API
server and this machine can do at all. Each row has a control plane of its own, freshly started.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import uvloop

from bench import kwok_node
from bench.api import connect
from bench.throughput import Result, measure
from e2e.harness import paths, processes
from e2e.harness.controlplane import ControlPlane
from e2e.harness.kubectl import Kubectl
from e2e.harness.progress import Progress
from e2e.harness.vkubelet import Vkubelet, grant_vkubelet_user, issue_credentials

__all__ = ["add_arguments", "run"]

ROWS = ("limit", "kwok", "vkubelet")
_DIRECTORY = paths.CACHE / "bench"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m bench pods``."""
    parser.add_argument("--pods", type=int, default=1000, help="how many (default: 1000)")
    parser.add_argument("--more-pods", type=int, default=0, help="then so many, for memory a pod")
    parser.add_argument("--rows", default=",".join(ROWS), help=f"which of {','.join(ROWS)}")
    parser.add_argument("--json", type=Path, help="write the rows to this file as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure each row and print the table and the ratios."""
    progress = Progress(sys.stderr)
    results: dict[str, Result] = {}
    for row in arguments.rows.split(","):
        with _control_plane() as control_plane, _node(row, control_plane) as (node, process):
            with progress.step(f"{row}: {arguments.pods} pods"):
                results[row] = _measure(control_plane, row, node, arguments.pods, process)
            if row == "vkubelet" and arguments.more_pods:
                with progress.step(f"{row}: {arguments.more_pods} pods"):
                    results["vkubelet more"] = _measure(
                        control_plane, row, node, arguments.more_pods, process
                    )
    _print(results)
    if arguments.json:
        arguments.json.write_text(json.dumps([_as_json(r) for r in results.values()], indent=1))
    return 0 if all(r.ready == r.pods == r.gone for r in results.values()) else 1


@contextmanager
def _control_plane() -> Iterator[ControlPlane]:
    directory = _DIRECTORY / "cluster"
    shutil.rmtree(directory, ignore_errors=True)
    control_plane = ControlPlane(directory, one_process=False, bind_address="127.0.0.1")
    try:
        with control_plane:
            yield control_plane
    finally:
        control_plane.delete()


@contextmanager
def _node(row: str, control_plane: ControlPlane) -> Iterator[tuple[str, psutil.Process | None]]:
    """Whatever serves the row's node; gives the node's name and the process to look at."""
    kubectl = Kubectl(control_plane.programs.kubectl(), control_plane.admin_kubeconfig)
    directory = _DIRECTORY / row
    shutil.rmtree(directory, ignore_errors=True)
    match row:
        case "limit":
            kubectl.apply(kwok_node.node_object("limit"))
            yield "limit", None
        case "kwok":
            kubectl.apply(kwok_node.node_object(kwok_node.NODE))
            managed = kwok_node.process(control_plane, directory)
            try:
                time.sleep(5)  # its informers; it has no sign of being ready for pods
                yield kwok_node.NODE, _process(managed)
            finally:
                managed.stop()
        case _:
            grant_vkubelet_user(kubectl)
            credentials = issue_credentials(control_plane, "vkubelet")
            with Vkubelet(
                credentials, kubectl, directory, provider="memory", node_name="vkubelet"
            ) as vkubelet:
                time.sleep(3)
                yield "vkubelet", _process(vkubelet.process)


def _process(managed: processes.ManagedProcess) -> psutil.Process | None:
    return psutil.Process(managed.pid) if managed.pid else None


def _measure(
    control_plane: ControlPlane, row: str, node: str, pods: int, process: psutil.Process | None
) -> Result:
    async def measured() -> Result:
        async with connect(control_plane) as api:
            return await measure(api, row, node, pods, process=process, own_status=row == "limit")

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measured())


# --- what is printed --------------------------------------------------------------------------------------


def _print(results: dict[str, Result]) -> None:
    print(
        f"{'':10}{'pods':>6}{'pods/s':>8}{'p50 s':>7}{'p99 s':>7}{'gone/s':>8}"
        f"{'CPU s up/down':>15}{'MB idle/loaded':>16}  writes a pod, up | down"
    )
    for name, r in results.items():
        print(
            f"{name:10.10}{r.pods:6}{r.pods_per_s:8.1f}{r.percentile_s(0.5):7.2f}{r.percentile_s(0.99):7.2f}"
            f"{r.deletes_per_s:8.1f}{r.cpu_up_s:8.1f} /{r.cpu_down_s:5.1f}"
            f"{r.idle_mb:9.0f} /{r.loaded_mb:5.0f}  {_writes(r, up=True)} | {_writes(r, up=False)}"
        )
    _print_ratios(results)


def _writes(result: Result, *, up: bool) -> str:
    counts = result.writes_up if up else result.writes_down
    each = ((kind, count / result.pods) for kind, count in sorted(counts.items()))
    return ", ".join(f"{kind} {share:.2f}" for kind, share in each if share >= 0.01)


def _print_ratios(results: dict[str, Result]) -> None:
    ours = results.get("vkubelet")
    if ours is None:
        return
    for peer in ("limit", "kwok"):
        if (theirs := results.get(peer)) is not None:
            print(
                f"vkubelet / {peer}: {ours.pods_per_s / theirs.pods_per_s:.2f} of its pods/s up, "
                f"{ours.deletes_per_s / theirs.deletes_per_s:.2f} of its pods/s down"
            )
    if (more := results.get("vkubelet more")) is not None:
        each_kb = (more.loaded_mb - ours.loaded_mb) * 1000 / (more.pods - ours.pods)
        print(f"vkubelet: {each_kb:.1f} KB for each pod from {ours.pods} to {more.pods}")


def _as_json(result: Result) -> dict[str, object]:
    return {
        "name": result.name,
        "pods": result.pods,
        "pods_per_s": round(result.pods_per_s, 1),
        "p50_s": round(result.percentile_s(0.5), 3),
        "p99_s": round(result.percentile_s(0.99), 3),
        "deletes_per_s": round(result.deletes_per_s, 1),
        "idle_mb": round(result.idle_mb, 1),
        "loaded_mb": round(result.loaded_mb, 1),
        "writes_up": dict(result.writes_up),
        "writes_down": dict(result.writes_down),
    }
