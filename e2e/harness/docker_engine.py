"""
Finds a Docker engine, or starts one.

An engine that answers is used as it is: at `DOCKER_HOST`, else at /var/run/docker.sock. Where none does, and
this is root on a Debian-like system, dockerd is installed with apt and started by hand, since machines
without an init system are the usual case for CI. What was started here can be stopped again; an engine that
was found is never touched.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.parse
from pathlib import Path
from typing import Any

from e2e.harness import paths, processes
from e2e.harness.errors import HarnessError

__all__ = ["DEFAULT_SOCKET", "DockerEngine", "EngineUnavailableError"]

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
_READY_TIMEOUT_S = 60.0


class EngineUnavailableError(HarnessError):
    """There is no Docker engine and none can be started; the message says why."""


class DockerEngine:
    """
    A Docker engine that answers.

    Attributes:
        host: as in `DOCKER_HOST`: ``unix:///path`` or ``tcp://host:port``.
    """

    def __init__(self, host: str, daemon: processes.ManagedProcess | None = None) -> None:
        self.host = host
        self._daemon = daemon

    @classmethod
    def find_or_start(cls, *, detached: bool = False) -> DockerEngine:
        """
        The engine that answers, else one that is started.

        Args:
            detached: it may outlive this process.

        Raises:
            EngineUnavailableError: none answers and none can be started.
        """
        host = os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET
        problem = _ping(host)
        if problem is None:
            return cls(host)
        if os.environ.get("DOCKER_HOST"):
            raise EngineUnavailableError(f"no Docker engine answers at DOCKER_HOST={host}: {problem}")
        _install()
        daemon = daemon_process(detached=detached)
        _start(daemon)
        return cls(DEFAULT_SOCKET, daemon)

    @classmethod
    def find(cls) -> DockerEngine | None:
        """The engine that answers, or None."""
        host = os.environ.get("DOCKER_HOST") or DEFAULT_SOCKET
        return cls(host) if _ping(host) is None else None

    @property
    def started_here(self) -> bool:
        """Whether `find_or_start` had to start it."""
        return self._daemon is not None

    def stop(self) -> None:
        """Stop the engine if it was started here."""
        if self._daemon:
            self._daemon.stop(timeout_s=30)

    def containers(self, *labels: str) -> list[Any]:
        """All containers, ended ones included, that have all these labels, written ``name=value``."""
        filters = urllib.parse.quote(json.dumps({"label": labels}))
        _, found = self.request("GET", f"/containers/json?all=1&filters={filters}")
        return list(found)

    def state(self, container_id: str) -> str | None:
        """A container's state, such as ``running``; None when there is none."""
        status, found = self.request("GET", f"/containers/{container_id}/json")
        return found["State"]["Status"] if status == http.HTTPStatus.OK else None

    def put_file(self, container_id: str, directory: str, name: str) -> None:
        """Make an empty file in a container's file system."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            tar.addfile(tarfile.TarInfo(name))
        path = urllib.parse.quote(directory, safe="")
        status, answer = self.request(
            "PUT", f"/containers/{container_id}/archive?path={path}", archive.getvalue()
        )
        if status != http.HTTPStatus.OK:
            raise HarnessError(f"the Docker engine did not take {directory}/{name}: {answer}")

    def remove_containers(self, *labels: str) -> None:
        """Remove, by force, all containers that have all these labels, written ``name=value``."""
        for container in self.containers(*labels):
            self.request("DELETE", f"/containers/{container['Id']}?force=1&v=1")

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
        """The HTTP status and the JSON of the answer, the last one where it is a stream of them."""
        connection = self.connect()
        try:
            connection.request(method, path, body, {"Content-Type": "application/x-tar"} if body else {})
            response = connection.getresponse()
            lines = [line for line in response.read().splitlines() if line.strip()]
        finally:
            connection.close()
        return response.status, json.loads(lines[-1]) if lines else None

    def connect(self, timeout_s: float = 120.0) -> http.client.HTTPConnection:
        """A new connection to the Engine API."""
        return _connect(self.host, timeout_s)


def daemon_process(*, detached: bool = False) -> processes.ManagedProcess:
    """The dockerd that `find_or_start` starts, or that a process before this one started."""
    return processes.ManagedProcess(
        "dockerd", paths.CACHE / ("docker" if detached else "e2e/docker"), detached=detached
    )


def _install() -> None:
    missing = [name for name in ("dockerd", "iptables") if shutil.which(name) is None]
    if os.geteuid() != 0:
        raise EngineUnavailableError(
            f"no Docker engine answers at {DEFAULT_SOCKET}, and only root can start one: start Docker, "
            "or set DOCKER_HOST"
        )
    if missing and shutil.which("apt-get") is None:
        raise EngineUnavailableError(
            f"no Docker engine answers at {DEFAULT_SOCKET}, and {' and '.join(missing)} is not installed: "
            "install Docker, or set DOCKER_HOST"
        )
    if missing:
        apt_install("docker.io", "iptables")


def apt_install(*packages: str) -> None:
    """
    Install Debian packages; their service scripts are kept from starting anything.

    Raises:
        EngineUnavailableError: apt-get failed; the message has its last lines.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    if subprocess.run(install, env=environment, capture_output=True, check=False).returncode == 0:
        return
    # Package lists may be missing or stale, as they are in a fresh container.
    subprocess.run(["apt-get", "update", "-q"], env=environment, capture_output=True, check=False)
    done = subprocess.run(install, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last_lines = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
        raise EngineUnavailableError(f"`{' '.join(install)}` failed:\n{last_lines}")


def _start(daemon: processes.ManagedProcess) -> None:
    directory = daemon.log_file.parent
    daemon.start(["dockerd", "--host", DEFAULT_SOCKET, "--pidfile", directory / "dockerd.pid"])
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while (problem := _ping(DEFAULT_SOCKET)) is not None:
        if not daemon.running or daemon.exit_code is not None or time.monotonic() > deadline:
            daemon.stop()
            raise EngineUnavailableError(
                f"dockerd was started but does not answer ({problem}); the end of {daemon.log_file}:\n"
                + processes.tail(daemon.log_file, 12)
            )
        time.sleep(0.1)


def _ping(host: str) -> str | None:
    """None when an engine answers there, else why it does not."""
    try:
        connection = _connect(host, timeout_s=5)
        try:
            connection.request("GET", "/_ping")
            answer = connection.getresponse()
            answer.read()
        finally:
            connection.close()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return None if answer.status == http.HTTPStatus.OK else f"HTTP status {answer.status}"


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("docker", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _connect(host: str, timeout_s: float) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(host)
    if parts.scheme == "unix":
        return _UnixConnection(Path(parts.path), timeout_s)
    if parts.scheme in ("tcp", "http") and parts.hostname and not os.environ.get("DOCKER_TLS_VERIFY"):
        return http.client.HTTPConnection(parts.hostname, parts.port or 2375, timeout=timeout_s)
    raise EngineUnavailableError(
        f"DOCKER_HOST={host} is not understood here: use unix:///path or tcp://host:port without TLS"
    )
