"""A program on a pseudo-terminal: typed to, read from, resized."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

__all__ = ["Terminal"]


class Terminal:
    """
    A program whose controlling terminal is ours to play with; also a context manager that ends it.

    Attributes:
        output: all that the program wrote so far, as text.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        rows: int = 24,
        columns: int = 80,
    ) -> None:
        self._master, slave = pty.openpty()
        self.output = ""
        self._consumed = 0
        self._set_size(rows, columns)
        try:
            # `setsid --ctty` makes the pseudo-terminal the controlling one, so that a resize is signalled.
            self._process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *command],
                stdin=slave,
                stdout=slave,
                stderr=slave,
                env={**(environment or os.environ), "TERM": "xterm"},
            )
        finally:
            os.close(slave)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, text: str) -> None:
        r"""Type `text`; ``\r`` is the Enter key, ``\x03`` is Ctrl-C, ``\x04`` Ctrl-D."""
        os.write(self._master, text.encode())

    def expect(self, pattern: str, *, timeout_s: float = 30.0) -> re.Match[str]:
        """
        Read until `pattern` is found in what was written since the last find.

        Raises:
            AssertionError: it did not come in time, or the program ended first.
        """
        deadline = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.output[self._consumed :])) is None:
            if not self._read(deadline - time.monotonic()):
                raise AssertionError(f"waited for {pattern!r} on the terminal; it shows: {self.output!r}")
        self._consumed += found.end()
        return found

    def resize(self, rows: int, columns: int) -> None:
        """Give the terminal another size; the kernel sends SIGWINCH."""
        self._set_size(rows, columns)

    def wait(self, *, timeout_s: float = 30.0) -> int:
        """
        Read to the end and return the exit code.

        Raises:
            AssertionError: the program has not ended in time.
        """
        deadline = time.monotonic() + timeout_s
        while self._read(deadline - time.monotonic()):
            pass
        try:
            return self._process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running; the terminal shows: {self.output!r}") from None

    def close(self) -> None:
        """Hang up, and end the program if it stays."""
        os.close(self._master)
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def _read(self, timeout_s: float) -> bool:
        """Whether more came before the time was up or the program ended."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout_s))
        if not ready:
            return False
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last process on the other side is gone
            return False
        self.output += data.decode(errors="replace")
        return bool(data)

    def _set_size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
