"""
How the containers of the memory runtime behave: by the pod's annotations, else by their command.

Annotations hold for all app containers of the pod, or, with ``.<container>`` appended, for one container::

    memory.vkubelet.io/run-seconds: "3"     ends after 3 s; without it, and with another command than those
                                            that `script` knows, a container runs until it is stopped
    memory.vkubelet.io/exit-code: "7"       with this exit code; implies run-seconds "0"
    memory.vkubelet.io/start-error: "..."   cannot be started, with this message
    memory.vkubelet.io/ignores-term: "true" outlives SIGTERM to the end of its grace period
    memory.vkubelet.io/cpu: "250m"          uses as much CPU while it runs, by the statistics
    memory.vkubelet.io/memory: "64Mi"       and as much memory
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from providers.memory.script import FOREVER, parse_script
from vkubelet.kuberuntime.contract import ContainerConfig, SandboxConfig
from vkubelet.model import quantity
from vkubelet.model.pod import ContainerKind

__all__ = ["ENDLESS", "PREFIX", "Behaviour", "behaviour_of"]

PREFIX = "memory.vkubelet.io/"


@dataclass(frozen=True, slots=True)
class Behaviour:
    """
    What a started container does.

    Attributes:
        run_s: until it ends by itself; `FOREVER` for never.
        output: what it writes to its log at once.
        start_error: why it cannot be started, "" when it can.
        oom_killed: it ends for want of memory.
        ignores_term: only SIGKILL ends it.
        copies_stdin: it writes what an attached client types.
        ends_with_stdin: the first attached client's end of input is its own end (`stdinOnce`).
        cpu_millicores, memory_bytes: what it uses, by the statistics.
    """

    run_s: float = FOREVER
    exit_code: int = 0
    output: bytes = b""
    start_error: str = ""
    oom_killed: bool = False
    ignores_term: bool = False
    copies_stdin: bool = False
    ends_with_stdin: bool = False
    cpu_millicores: int = 1
    memory_bytes: int = 2**20


ENDLESS = Behaviour()
_DEFAULT_CPU, _DEFAULT_MEMORY = "1m", "1Mi"
_COMPLETES = Behaviour(run_s=0.0)


def behaviour_of(config: ContainerConfig, sandbox: SandboxConfig) -> Behaviour:
    """What the container will do when it is started."""
    by_command = _by_command(config, sandbox)
    if not any(name.startswith(PREFIX) for name in sandbox.annotations):
        return by_command
    annotations = _Annotations(sandbox.annotations, config)
    exit_code, run_s = annotations.get("exit-code"), annotations.get("run-seconds")
    lasts = 0.0 if exit_code else by_command.run_s
    return Behaviour(
        run_s=float(run_s) if run_s else lasts,
        exit_code=int(exit_code) if exit_code else by_command.exit_code,
        output=by_command.output,
        start_error=annotations.get("start-error"),
        ignores_term=annotations.get("ignores-term") == "true",
        copies_stdin=by_command.copies_stdin,
        ends_with_stdin=by_command.ends_with_stdin,
        cpu_millicores=quantity.millicores(annotations.get("cpu") or _DEFAULT_CPU),
        memory_bytes=quantity.bytes_(annotations.get("memory") or _DEFAULT_MEMORY),
    )


def _by_command(config: ContainerConfig, sandbox: SandboxConfig) -> Behaviour:
    command = (*config.command, *config.args)
    if not command:
        return _COMPLETES if _must_end(config) else ENDLESS
    script = parse_script(command, hostname=sandbox.hostname)
    if not script.is_known and _must_end(config):
        return Behaviour(run_s=0.0, output=script.output)
    if script.copies_stdin:
        return Behaviour(
            output=script.output,
            exit_code=script.exit_code,
            copies_stdin=config.stdin,
            ends_with_stdin=config.stdin_once and not config.tty,
        )
    return Behaviour(run_s=script.run_s, exit_code=script.exit_code, output=script.output)


def _must_end(config: ContainerConfig) -> bool:
    """An init container that never ended would keep its pod from running at all."""
    return config.kind is ContainerKind.INIT


class _Annotations:
    """The pod's annotations as they apply to one container."""

    def __init__(self, annotations: Mapping[str, str], config: ContainerConfig) -> None:
        self._annotations = annotations
        self._config = config

    def get(self, name: str) -> str:
        own = self._annotations.get(f"{PREFIX}{name}.{self._config.name}")
        if own is not None or self._config.kind is not ContainerKind.APP:
            return own or ""
        return self._annotations.get(f"{PREFIX}{name}", "")
