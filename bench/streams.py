"""
Streams and statistics: vkubelet on Docker beside the real kubelet on containerd.

Both are nodes of one control plane, each with the same pod; they take turns, so that a machine that is busy
for a while is so for both. The last two rows are vkubelet's alone, beside a limit (`bench.scrapes`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import psutil

from bench import kubelet_node, scrapes, stream_rows
from bench.stream_rows import ROWS, Row, StreamNode
from e2e.harness import go_modules, images, paths, pods
from e2e.harness.controlplane import ControlPlane
from e2e.harness.docker_engine import DockerEngine
from e2e.harness.errors import HarnessError
from e2e.harness.kubectl import Kubectl
from e2e.harness.processes import ManagedProcess
from e2e.harness.progress import Progress
from e2e.harness.vkubelet import Vkubelet, grant_vkubelet_user, issue_credentials

__all__ = ["add_arguments", "run"]

NODES = ("vkubelet", "kubelet")
_DIRECTORY = paths.CACHE / "bench"
_DOCKER_CONFIG = 'containerLogMaxSize: "1Gi"\n'  # the log that is read must not have been rotated

Figures = dict[str, dict[str, float]]
"""By row, then by node; "limit" is a node too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m bench streams``."""
    parser.add_argument("--nodes", default=",".join(NODES), help=f"which of {','.join(NODES)}")
    parser.add_argument("--rows", default="", help="only rows with this in their name")
    parser.add_argument("--times", type=int, help="how often each, instead of 3 to 15 times")
    parser.add_argument("--pods", type=int, default=1000, help="for the statistics (default: 1000; 0: none)")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print the figures and ratios; 0 when vkubelet could be measured, whatever came out."""
    progress = Progress(sys.stderr)
    figures: Figures = {}
    with _control_plane() as control_plane:
        rows = [row for row in ROWS if arguments.rows in row.name]
        if rows:
            with _nodes(arguments.nodes.split(","), control_plane, progress) as nodes:
                for row in rows:
                    with progress.step(row.name):
                        figures[row.name] = _alternate(row, nodes, arguments.times or row.times, progress)
        if arguments.pods:
            figures |= _scrapes(control_plane, arguments.pods, arguments.rows, progress)
    _print(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1))
    return 1 if any(math.isnan(of_nodes.get("vkubelet", 0.0)) for of_nodes in figures.values()) else 0


def _alternate(row: Row, nodes: list[StreamNode], times: int, progress: Progress) -> dict[str, float]:
    """The median of each node; not a number for one that fails."""
    taken: dict[str, list[float]] = {node.name: [] for node in nodes}
    for _ in range(times):
        for node in nodes:
            try:
                taken[node.name].append(row.measure(node))
            except (HarnessError, subprocess.TimeoutExpired) as error:
                progress.note(f"  {row.name} failed: {error}")
                taken[node.name].append(math.nan)
    return {name: math.nan if any(map(math.isnan, of)) else median(of) for name, of in taken.items()}


# --- what is measured -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _control_plane() -> Iterator[ControlPlane]:
    directory = _DIRECTORY / "cluster"
    shutil.rmtree(directory, ignore_errors=True)
    control_plane = ControlPlane(directory, one_process=False, bind_address="127.0.0.1")
    try:
        with control_plane:
            grant_vkubelet_user(_kubectl(control_plane))
            yield control_plane
    finally:
        control_plane.delete()


def _kubectl(control_plane: ControlPlane) -> Kubectl:
    return Kubectl(control_plane.programs.kubectl(), control_plane.admin_kubeconfig)


@contextlib.contextmanager
def _nodes(names: list[str], control_plane: ControlPlane, progress: Progress) -> Iterator[list[StreamNode]]:
    """The nodes, each with its pod, whose log is written."""
    kubectl = _kubectl(control_plane)
    kubectl.wait_until("serviceaccount", "default", lambda found: found is not None)
    zeros = _DIRECTORY / "zeros"
    with contextlib.ExitStack() as stack:
        engine = DockerEngine.find_or_start()
        stack.callback(engine.stop)
        images.ensure_images(engine)
        client = stream_rows.client_command(go_modules.build_clients(), control_plane)
        processes = {name: stack.enter_context(_node(name, control_plane, engine)) for name in names}
        with zeros.open("wb") as file:
            file.truncate(stream_rows.OUTPUT_MB * 1_000_000)
        stack.callback(zeros.unlink)
        nodes = [
            StreamNode(name, f"{stream_rows.POD}-{name}", kubectl, _process(process), client, zeros)
            for name, process in processes.items()
        ]
        stack.callback(_delete_pods, kubectl, nodes)
        with progress.step(f"pods with a log of {stream_rows.LOG_MB} MB"):
            for node in nodes:
                kubectl.apply(stream_rows.pod(node.pod, node.name))
            for node in nodes:
                pods.wait_ready(kubectl, node.pod)
                stream_rows.wait_for_log(node)
        yield nodes


@contextlib.contextmanager
def _node(name: str, control_plane: ControlPlane, engine: DockerEngine) -> Iterator[ManagedProcess]:
    directory = _DIRECTORY / name
    if name == kubelet_node.NODE:
        with kubelet_node.KubeletNode(control_plane, engine, directory) as kubelet:
            yield kubelet.kubelet
        return
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    config = directory / "docker.yaml"
    config.write_text(_DOCKER_CONFIG)
    with _vkubelet(name, control_plane, directory, "docker", "--provider-config", str(config)) as vkubelet:
        yield vkubelet.process


def _vkubelet(
    name: str, control_plane: ControlPlane, directory: Path, provider: str, *arguments: str
) -> Vkubelet:
    return Vkubelet(
        issue_credentials(control_plane, name),
        _kubectl(control_plane),
        directory,
        provider=provider,
        node_name=name,
        arguments=arguments,
    )


def _process(managed: ManagedProcess) -> psutil.Process:
    if managed.pid is None:
        raise HarnessError(f"{managed.name} has ended: see {managed.log_file}")
    return psutil.Process(managed.pid)


def _delete_pods(kubectl: Kubectl, nodes: list[StreamNode]) -> None:
    """Before the nodes stop: they remove the containers."""
    kubectl.try_run("delete", "pod", "--ignore-not-found", *(node.pod for node in nodes), timeout_s=120)


def _scrapes(control_plane: ControlPlane, count: int, rows: str, progress: Progress) -> Figures:
    pages = {f"{page}, {count} pods": page for page in scrapes.PAGES}
    wanted = {name: page for name, page in pages.items() if rows in name}
    if not wanted:
        return {}
    directory = _DIRECTORY / "vkubelet-memory"
    shutil.rmtree(directory, ignore_errors=True)
    figures: Figures = {}
    with _vkubelet("memory", control_plane, directory, "memory") as vkubelet:
        with progress.step(f"{count} pods"):
            scrapes.start_pods(control_plane, "memory", count)
        for name, page in wanted.items():
            with progress.step(name):
                taken_ms = scrapes.scrape_ms(control_plane, vkubelet, page)
                figures[name] = {"vkubelet": taken_ms, "limit": scrapes.LIMIT_MS}
    return figures


# --- what is printed --------------------------------------------------------------------------------------


def _print(figures: Figures) -> None:
    print(f"{'':36}{'vkubelet':>12}{'kubelet':>12}{'':6}{'slower by':>10}{'target':>8}")
    rows = {row.name: row for row in ROWS}
    for name, of_nodes in figures.items():
        row = rows.get(name)
        beside = of_nodes.get("kubelet", of_nodes.get("limit"))
        ours = of_nodes.get("vkubelet")
        unit = row.unit if row else "ms"
        line = f"{name:36}{_figure(ours):>12}{_figure(beside):>12} {unit:5}"
        if ours is not None and beside is not None:
            factor, limit = (row.slower_by(ours, beside), row.limit) if row else (ours / beside, 1.0)
            line += f"{factor:10.2f}{limit:8.1f}{'  BEHIND' if factor > limit else ''}"
        print(line)


def _figure(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "" if value is None else "failed"
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"
