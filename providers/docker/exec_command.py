"""
Commands in a container, over a hijacked connection.

The streams are `attached_streams`'. The end of output is the command's end; its exit code is asked for after
that.

A command that cannot be started (no such file) is told by the engine as text on stdout and exit code 126,
like output of the command itself. The kubelet over a CRI runtime answers with an error instead, and so does
this: `StreamError` with the engine's words, whenever the engine says that there never was a process.

The Engine API cannot end a command. A cancelled one loses its input and output, and where the engine is on
this machine its process is killed, if it is certain that it belongs to the container. On another machine a
command that ignores both runs on until its container ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from providers.docker.attached_streams import AttachedStreams, write
from providers.docker.client import EngineClient, EngineError
from vkubelet.clock import Clock
from vkubelet.errors import ProviderError, ProviderUnavailableError, RemoteProtocolError, StreamError
from vkubelet.kuberuntime.contract import ExecResult
from vkubelet.provider import ExecIO, TerminalSize

__all__ = ["run_command", "run_command_sync"]

log = structlog.get_logger(__name__)

_START_FAILURE = b"OCI runtime exec failed"
_NOT_STARTED_EXIT_CODES = frozenset({126, 127})
_FIRST_POLL_S = 0.01
_LONGEST_POLL_S = 0.5
_DETACH_KEYS = ",".join(["ctrl-@", "ctrl-_"] * 4)
"""The engine's own ctrl-p,ctrl-q would swallow a shell's ctrl-p. It cannot do without; nobody types these."""
_END_TIMEOUT_S = 3.0
_MAX_SYNC_OUTPUT_BYTES = 16 << 20


async def run_command(
    client: EngineClient, clock: Clock, container_id: str, command: Sequence[str], io: ExecIO
) -> int:
    """
    See `ExecRunner.exec`.

    Raises:
        PodNotFoundError: there is no such container.
        StreamError: it does not run, or the command could not be started.
    """
    try:
        exec_id = await _create(client, container_id, command, io)
    except (EngineError, ProviderUnavailableError) as error:
        raise StreamError(str(error), status=500) from error
    over = False
    try:
        held = await _run_streams(client, clock, exec_id, io)
        exit_code, never_ran = await _exit_code(client, clock, exec_id)
        over = True
    except StreamError:
        raise
    except (ProviderError, RemoteProtocolError) as error:
        raise StreamError(str(error), status=500) from error
    finally:
        if not over:
            await _end(client, clock, container_id, exec_id)
    if held and never_ran:
        raise StreamError(held.decode(errors="replace").strip(), status=500)
    if held:
        await write(io.stdout, held)
    return exit_code


async def _run_streams(client: EngineClient, clock: Clock, exec_id: str, io: ExecIO) -> bytes:
    connection = await client.hijack(f"/exec/{exec_id}/start", {"Detach": False, "Tty": io.tty})
    try:
        streams = AttachedStreams(
            client,
            clock,
            f"/exec/{exec_id}",
            connection,
            io,
            has_terminal=io.tty,
            failure=_START_FAILURE,
        )
        return await streams.run()
    finally:
        connection.close()


async def run_command_sync(
    client: EngineClient, clock: Clock, container_id: str, command: Sequence[str], timeout_s: float
) -> ExecResult:
    """See `ContainerRuntime.exec_sync`; of each output the first 16 MiB are kept, as CRI runtimes do."""
    io = _Collected()
    async with asyncio.timeout(timeout_s):
        exit_code = await run_command(client, clock, container_id, command, io)
    return ExecResult(exit_code, bytes(io.stdout.data), bytes(io.stderr.data))


class _Buffer:
    def __init__(self) -> None:
        self.data = bytearray()

    async def write(self, data: bytes) -> None:
        self.data += data[: _MAX_SYNC_OUTPUT_BYTES - len(self.data)]


class _Collected:
    """An `ExecIO` that keeps the output and gives no input."""

    def __init__(self) -> None:
        self.stdin: AsyncIterator[bytes] | None = None
        self.stdout = _Buffer()
        self.stderr = _Buffer()
        self.tty = False
        self.resizes: AsyncIterator[TerminalSize] | None = None


async def _create(client: EngineClient, container_id: str, command: Sequence[str], io: ExecIO) -> str:
    body = {
        "Cmd": list(command),
        "AttachStdin": io.stdin is not None,
        "AttachStdout": io.stdout is not None,
        "AttachStderr": io.stderr is not None and not io.tty,
        "Tty": io.tty,
        "DetachKeys": _DETACH_KEYS,
    }
    return str((await client.post(f"/containers/{container_id}/exec", body=body))["Id"])


async def _exit_code(client: EngineClient, clock: Clock, exec_id: str) -> tuple[int, bool]:
    """The exit code, and whether there never was a process; waits while the engine says that it runs."""
    delay_s = _FIRST_POLL_S
    while (state := await client.get(f"/exec/{exec_id}/json")).get("Running"):
        await clock.sleep(delay_s)
        delay_s = min(delay_s * 2, _LONGEST_POLL_S)
    exit_code = state.get("ExitCode")
    if exit_code is None:
        raise StreamError("the Docker engine does not know how the command ended")
    return int(exit_code), not state.get("Pid") and exit_code in _NOT_STARTED_EXIT_CODES


async def _end(client: EngineClient, clock: Clock, container_id: str, exec_id: str) -> None:
    """End a command that is not wanted any more, as far as that can be done; see the module's docstring."""
    try:
        async with asyncio.timeout(_END_TIMEOUT_S):
            state = await _started(client, clock, exec_id)
    except (ProviderError, TimeoutError) as error:
        log.warning("command may run on", container_id=container_id, error=str(error))
        return
    if state.get("Running") and not _kill(client, container_id, int(state.get("Pid") or 0)):
        log.warning("command runs on, the engine cannot end it", container_id=container_id)


async def _started(client: EngineClient, clock: Clock, exec_id: str) -> dict[str, Any]:
    """The state of a command once it has a process or has ended."""
    while True:
        state: dict[str, Any] = await client.get(f"/exec/{exec_id}/json")
        if state.get("Pid") or state.get("ExitCode") is not None:
            return state
        await clock.sleep(_FIRST_POLL_S)


def _kill(client: EngineClient, container_id: str, pid: int) -> bool:
    """Kill a process of this machine if it is one of the container's; a pidfd cannot hit its successor."""
    if client.endpoint.unix_path is None or pid <= 0:
        return False
    try:
        process = os.pidfd_open(pid)
    except (OSError, AttributeError):  # gone, not permitted, or not Linux
        return False
    try:
        if container_id not in Path(f"/proc/{pid}/cgroup").read_text():
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(process)
    return True
