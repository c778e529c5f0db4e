"""`kubectl port-forward` as a process, and what a test does with the ports it opens."""

from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from e2e.harness.kubectl import Kubectl
from e2e.harness.waiting import wait_until

__all__ = ["Forwarding", "exchange", "kubectl_port_forward", "sha256", "upload"]

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) -> (\d+)")
_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = 120.0


class Forwarding:
    """
    A kubectl that forwards.

    Attributes:
        local: the ports of this machine by those of the pod.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._output: list[str] = []
        self._reader = threading.Thread(target=self._read, name="kubectl port-forward", daemon=True)
        self._reader.start()
        self.local: dict[int, int] = {}

    def wait_ready(self, count: int) -> None:
        """
        Wait until all `count` ports are open.

        Raises:
            AssertionError: kubectl has ended instead, or the time is up.
        """

        def ready() -> bool:
            found = _FORWARDING.findall(self.output)
            self.local = {int(remote): int(local) for local, remote in found}
            assert len(self.local) == count or self._process.poll() is None, self.output
            return len(self.local) == count

        wait_until(ready, timeout_s=30, describe="kubectl to forward", seen=lambda: self.output)

    @property
    def output(self) -> str:
        """What kubectl has said so far."""
        return "".join(self._output)

    def connect(self, port: int) -> socket.socket:
        """A connection to a port of the pod."""
        return socket.create_connection(("127.0.0.1", self.local[port]), timeout=_TIMEOUT_S)

    def wait_for_end(self) -> int:
        """Kubectl's exit code, once it has ended by itself."""
        exit_code = self._process.wait(_TIMEOUT_S)
        self._reader.join()
        return exit_code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output.append(line)


@contextmanager
def kubectl_port_forward(
    kubectl: Kubectl, pod: str, *ports: int, environment: Mapping[str, str] | None = None
) -> Iterator[Forwarding]:
    """Forward ports of a pod to free ones of this machine until the end of the block."""
    process = subprocess.Popen(
        kubectl.command("port-forward", f"pod/{pod}", "--address=127.0.0.1", *(f":{port}" for port in ports)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**kubectl.environment(), **(environment or {})},
    )
    assert process.stdout is not None
    try:
        forwarding = Forwarding(process)
        forwarding.wait_ready(len(ports))
        yield forwarding
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send `data` and, at the same time, receive until as much has come back or the other side ends."""
    received = bytearray()

    def receive() -> None:
        while len(received) < len(data) and (chunk := sock.recv(_CHUNK_BYTES)):
            received.extend(chunk)

    receiver = threading.Thread(target=receive, name="receiver", daemon=True)
    receiver.start()
    sock.sendall(data)
    receiver.join(_TIMEOUT_S)
    return bytes(received)


def upload(sock: socket.socket, data: bytes) -> str:
    """Send `data`, end our half, and return the rest of what the other side says."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    answer = bytearray()
    while chunk := sock.recv(_CHUNK_BYTES):
        answer += chunk
    return answer.decode()


def sha256(data: bytes) -> str:
    """What `sha256sum` prints of its input."""
    return f"{hashlib.sha256(data).hexdigest()}  -\n"
