"""
The real kubectl.

Each call is a process: some 100 ms. What is polled should rather be watched (`kubectl wait`) or polled
through `Kubectl.get`, whose wait grows.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from e2e.harness.terminal import Terminal
from e2e.harness.waiting import wait_until

__all__ = ["Kubectl", "KubectlError"]

_T = TypeVar("_T")


class KubectlError(Exception):
    """
    kubectl ended with another exit code than 0.

    Attributes:
        exit_code: what it ended with.
        stderr: what it wrote there.
    """

    def __init__(self, command: list[str], done: subprocess.CompletedProcess[str]) -> None:
        super().__init__(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()}")
        self.exit_code = done.returncode
        self.stderr = done.stderr


class Kubectl:
    """
    kubectl for one cluster and namespace.

    Args:
        program: the path of kubectl.
        kubeconfig: the user's.
        namespace: what commands mean when they name none; None leaves it to manifest and kubeconfig.
    """

    def __init__(self, program: Path, kubeconfig: Path, namespace: str | None = None) -> None:
        self.program = program
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def within(self, namespace: str) -> Kubectl:
        """The same for another namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line."""
        options = ["--kubeconfig", str(self.kubeconfig)]
        if self.namespace:
            options += ["--namespace", self.namespace]
        return [str(self.program), *options, *(str(argument) for argument in arguments)]

    def environment(self) -> dict[str, str]:
        """The environment; the discovery cache stays beside the kubeconfig."""
        cache = self.kubeconfig.parent / "kubectl-cache"
        return {**os.environ, "KUBECACHEDIR": str(cache), "KUBERC": "off"}

    def try_run(
        self, *arguments: str | Path, stdin: str | None = None, timeout_s: float = 60.0
    ) -> subprocess.CompletedProcess[str]:
        """Run it and return whatever happened: `returncode`, `stdout`, `stderr`."""
        return subprocess.run(
            self.command(*arguments),
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=timeout_s,
            check=False,
        )

    def run(self, *arguments: str | Path, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        """
        Run it and return what it wrote to stdout.

        Raises:
            KubectlError: it ended with another exit code than 0.
        """
        done = self.try_run(*arguments, stdin=stdin, timeout_s=timeout_s)
        if done.returncode != 0:
            raise KubectlError(["kubectl", *(str(argument) for argument in arguments)], done)
        return done.stdout

    def popen(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start it with pipes for stdin, stdout and stderr; the caller ends it."""
        return subprocess.Popen(
            self.command(*arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment(),
        )

    def terminal(self, *arguments: str | Path, rows: int = 24, columns: int = 80) -> Terminal:
        """Start it on a pseudo-terminal, as a person would."""
        return Terminal(self.command(*arguments), environment=self.environment(), rows=rows, columns=columns)

    def apply(self, manifest: Mapping[str, object] | Path | str) -> str:
        """Apply an object, a file, or YAML text."""
        if isinstance(manifest, Path):
            return self.run("apply", "--filename", manifest)
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        return self.run("apply", "--filename", "-", stdin=text)

    def get(self, *arguments: str) -> Any:
        """
        The JSON object that `kubectl get` prints, None when there is no such object.

        Raises:
            KubectlError: for any other error.
        """
        output = self.run("get", "--output", "json", "--ignore-not-found", *arguments)
        return json.loads(output) if output else None

    def items(self, *arguments: str) -> list[Any]:
        """The objects of a list."""
        found = self.get(*arguments)
        return list(found["items"]) if found else []

    def wait_until(
        self,
        kind: str,
        name: str,
        condition: Callable[[Any], _T | None],
        *,
        timeout_s: float = 60.0,
        describe: str | None = None,
    ) -> _T:
        """
        Get an object until `condition` of it is true, and return the condition's answer.

        `condition` gets None while there is no such object.

        Raises:
            AssertionError: the time is up; the message has the object's last status.
        """

        def status() -> object:
            found = self.get(kind, name)
            return found and found.get("status", found)

        return wait_until(
            lambda: condition(self.get(kind, name)),
            timeout_s=timeout_s,
            describe=describe or f"{kind} {name}",
            seen=status,
        )

    def wait_gone(self, kind: str, name: str, *, timeout_s: float = 60.0) -> None:
        """
        Wait until there is no such object.

        Raises:
            AssertionError: the time is up.
        """
        self.wait_until(
            kind,
            name,
            lambda found: found is None,
            timeout_s=timeout_s,
            describe=f"{kind} {name} to be gone",
        )
