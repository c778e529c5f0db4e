"""client-go as a program (`e2e/clients`), and what any client needs to reach an API: an `Access`."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.harness import go_modules

__all__ = ["Access", "ClientGo"]

_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Access:
    """
    A server and what it is shown.

    Attributes:
        server: the URL of an API server, or of a kubelet.
        is_node: it is a kubelet's.
        authority_file: who signed the server's certificate.
        token: a bearer token, "" for none.
        certificate: a client's certificate and key.
    """

    server: str
    is_node: bool
    authority_file: Path
    token: str = ""
    certificate: tuple[Path, Path] | None = None


class ClientGo:
    """client-go for the containers of one pod."""

    def __init__(self, access: Access, namespace: str, pod: str) -> None:
        self._program = go_modules.build_clients()
        self._access = access
        self._namespace = namespace
        self._pod = pod

    def command(self, flags: tuple[str, ...], operation: tuple[str, ...]) -> list[str]:
        """The command line; `flags` are the program's, such as ``-stdin``."""
        access = self._access
        shown = [f"-token={access.token}"] if access.token else []
        if access.certificate:
            shown += [f"-cert={access.certificate[0]}", f"-key={access.certificate[1]}"]
        return [
            str(self._program),
            f"-server={access.server}",
            f"-ca={access.authority_file}",
            f"-node={str(access.is_node).lower()}",
            f"-namespace={self._namespace}",
            f"-pod={self._pod}",
            *(*shown, *flags, *operation),
        ]

    def run(
        self, *operation: str, flags: tuple[str, ...] = (), stdin: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end; its exit code is the command's, or 125 when the client has failed."""
        return subprocess.run(
            self.command(flags, operation), input=stdin, capture_output=True, timeout=_TIMEOUT_S, check=False
        )

    def popen(self, *operation: str, flags: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start it with pipes; the caller ends it."""
        return subprocess.Popen(
            self.command(flags, operation),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
