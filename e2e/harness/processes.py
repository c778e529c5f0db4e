"""
Processes that can be found, and ended, after the one that started them.

Each is recorded in a JSON file with its pid, its creation time (a pid alone may have passed to a stranger)
and its owner: the process it must not outlive, or nobody for what a demo leaves running. A test run that
was killed leaves records whose owner is gone; `end_orphans` ends those, and only those, so that two runs in
one checkout leave each other alone.

Turned down: a parent-death signal. It follows the thread that started the child, not the process, and does
not reach what the child starts.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from e2e.harness import paths

__all__ = ["ManagedProcess", "end_orphans", "tail"]


class ManagedProcess:
    """
    A process in a session of its own, its output appended to a log file.

    Args:
        name: for messages, and the name of the record and log file.
        directory: where `<name>.process.json` and `<name>.log` are.
        detached: it may outlive this process, as a demo does.
    """

    def __init__(self, name: str, directory: Path, *, detached: bool = False) -> None:
        self.name = name
        self.log_file = directory / f"{name}.log"
        self._record_file = directory / f"{name}.process.json"
        self._detached = detached
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> None:
        """Start it; `environment` is added to ours."""
        self._record_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as log:
            self._child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._write_record(self._child.pid)

    def _write_record(self, pid: int) -> None:
        owner = None if self._detached else _identity(os.getpid())
        record = {"process": _identity(pid), "owner": owner}
        temporary = self._record_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(record))
        temporary.replace(self._record_file)

    @property
    def pid(self) -> int | None:
        """Its pid while it runs, else None. Also of one that an earlier process started and recorded."""
        if self._child is not None:
            self._child.poll()  # collects it if it has ended
        process = _find(_read(self._record_file).get("process"))
        return process.pid if process else None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.pid is not None

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs or when it is not our child."""
        return self._child.poll() if self._child else None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process alone, if it runs."""
        if pid := self.pid:
            os.kill(pid, number)

    def stop(self, timeout_s: float = 15.0) -> None:
        """SIGTERM, and SIGKILL when it has not ended after `timeout_s`. Fine when it does not run."""
        if self._child is None:
            _end(self._record_file, timeout_s)
            return
        self._child.terminate()
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._record_file.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL to the process alone, as the kernel does when memory runs out; returns when it is dead."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()
        else:
            _end(self._record_file, timeout_s=0)


def end_orphans(directory: Path = paths.CACHE) -> None:
    """End the processes of tests and benchmarks, recorded below `directory`, whose owner is gone."""
    records = (directory.glob(f"{user}/**/*.process.json") for user in ("e2e", "bench"))
    for record_file in itertools.chain.from_iterable(records):
        record = _read(record_file)
        if record.get("process") and record.get("owner") and not _find(record["owner"]):
            _end(record_file, timeout_s=5.0)


def tail(path: Path, lines: int = 40) -> str:
    """The last lines of a log file, or a note that there is none."""
    if not path.exists():
        return f"({path} does not exist)"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def _end(record_file: Path, timeout_s: float) -> None:
    process = _find(_read(record_file).get("process"))
    if process is not None:
        try:
            process.terminate()
            _, alive = psutil.wait_procs([process], timeout=timeout_s)
            for stubborn in alive:
                stubborn.kill()
            psutil.wait_procs(alive, timeout=5)
        except psutil.NoSuchProcess:
            pass  # it ended by itself
    record_file.unlink(missing_ok=True)


def _identity(pid: int) -> dict[str, float] | None:
    try:
        return {"pid": pid, "created": psutil.Process(pid).create_time()}
    except psutil.NoSuchProcess:
        return None


def _find(identity: object) -> psutil.Process | None:
    if not isinstance(identity, dict):
        return None
    try:
        process = psutil.Process(int(identity["pid"]))
        same = abs(process.create_time() - float(identity["created"])) < 1.0
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _read(record_file: Path) -> dict[str, object]:
    try:
        record = json.loads(record_file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


if __name__ == "__main__":
    end_orphans(Path(sys.argv[1]) if len(sys.argv) > 1 else paths.CACHE)
