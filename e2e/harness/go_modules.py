"""
Builds programs of further Go modules in this repository into `.cache/bin`, each once.

What tests and benchmarks need beside the control plane (`go.py`) has modules of its own, so that nobody who
only wants a control plane waits for it, and so that the versions one of them asks for move no other's.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from e2e.harness import go, paths
from e2e.harness.errors import HarnessError
from e2e.harness.progress import Progress

__all__ = ["build", "build_clients", "kubernetes_link_flags", "module_directory"]

_BINARIES = paths.CACHE / "bin"
_STRIPPED = "-s -w"


def build_clients() -> Path:
    """
    client-go as a program (`e2e/clients`), built if needed.

    Raises:
        HarnessError: Go is not to be had or the build failed.
    """
    return build("clients", paths.REPOSITORY / "e2e" / "clients", ".", "building the client-go program")


def build(
    name: str,
    module: Path,
    package: str,
    step: str,
    *,
    link_flags: str = _STRIPPED,
    verb: Sequence[str] = ("build",),
) -> Path:
    """
    The program `package` of the Go module in the directory `module`, built if needed.

    Args:
        name: of the program's file.
        module: its `go.mod`, `go.sum` and Go files decide whether it has to be built again.
        package: the import path, or ``.``.
        step: what a person is told while it takes long.
        link_flags: the linker's.
        verb: the go command: ``build``, or ``test -c`` for a program made of tests.

    Raises:
        HarnessError: Go is not to be had or the build failed; the message has its last lines.
    """
    binary, stamp = _BINARIES / name, _BINARIES / f"{name}.stamp"
    command = ["go", *verb, "-ldflags", link_flags, package]
    digest = _digest(module, command)
    if binary.exists() and stamp.exists() and stamp.read_text() == digest:
        return binary
    _BINARIES.mkdir(parents=True, exist_ok=True)
    temporary = binary.with_name(f"{name}.{os.getpid()}")
    with Progress(sys.stderr).step(step):
        _run([*command[:-1], "-o", str(temporary), package], module)
    temporary.replace(binary)  # a running one keeps its file
    stamp.write_text(digest)
    return binary


def kubernetes_link_flags(module: Path) -> str:
    """Linker flags with which a program of Kubernetes knows its version: that of `module`'s `go.mod`."""
    found = re.search(
        r"\bk8s\.io/kubernetes (v\d+\.\d+\.\d+)\b", (module / "go.mod").read_text(), re.MULTILINE
    )
    if found is None:
        raise HarnessError(f"{module / 'go.mod'} requires no k8s.io/kubernetes")
    major, minor, _ = found[1].removeprefix("v").split(".")
    version = "k8s.io/component-base/version"
    return (
        f"{_STRIPPED} -X {version}.gitVersion={found[1]} -X {version}.gitMajor={major} "
        f"-X {version}.gitMinor={minor} -X {version}.gitTreeState=clean"
    )


def module_directory(module: Path, dependency: str) -> Path:
    """Where Go keeps the source of a module that the one in the directory `module` depends on."""
    _run(["go", "mod", "download", dependency], module)
    return Path(_run(["go", "list", "-m", "-f", "{{.Dir}}", dependency], module).strip())


def _run(command: Sequence[str], module: Path) -> str:
    done = subprocess.run(
        command, cwd=module, env=go.go_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last_lines = "\n".join(done.stderr.splitlines()[-20:])
        raise HarnessError(f"`{' '.join(command)}` failed in {module}:\n{last_lines}")
    return done.stdout


def _digest(module: Path, command: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(command).encode())
    for source in sorted([*module.glob("*.go"), module / "go.mod", module / "go.sum"]):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()
