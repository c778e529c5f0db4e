"""
Tells a person what takes so long.

On a terminal the running step counts its seconds in place; elsewhere, such as in CI's log, it says once in
a while that it is still at it, so that nobody takes a seven-minute build for a hang.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import TextIO

__all__ = ["Progress"]

_BOLD, _DIM, _GREEN, _RED, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
_LINE_INTERVAL_S = 20.0  # without a terminal
_TICK_S = 1.0


class Progress:
    """Prints headings and steps; colours only on a terminal, and none with NO_COLOR set."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = self._terminal and not os.environ.get("NO_COLOR")

    def heading(self, text: str) -> None:
        """What the lines that follow are about."""
        self._print(f"\n{self._paint(_BOLD, text)}")

    def note(self, text: str) -> None:
        """A line for the reader."""
        self._print(text)

    def command(self, text: str) -> None:
        """A command line, shown before its output."""
        self._print(self._paint(_DIM, f"$ {text}"))

    @contextlib.contextmanager
    def step(self, text: str) -> Iterator[None]:
        """One step that may take long: its seconds are counted until the block ends."""
        started = time.monotonic()
        done = threading.Event()
        ticker = threading.Thread(target=self._tick, args=(text, started, done), daemon=True)
        ticker.start()
        mark = self._paint(_RED, "failed")
        try:
            yield
            mark = self._paint(_GREEN, "done")
        finally:
            done.set()
            ticker.join()
            self._clear_line()
            self._print(f"  {text}: {mark} in {time.monotonic() - started:.1f} s")

    def _tick(self, text: str, started: float, done: threading.Event) -> None:
        interval_s = _TICK_S if self._terminal else _LINE_INTERVAL_S
        while not done.wait(interval_s):
            line = f"  {text} ... {time.monotonic() - started:.0f} s"
            if self._terminal:
                self._stream.write(f"\r\x1b[K{line}")
                self._stream.flush()
            else:
                self._print(line)

    def _clear_line(self) -> None:
        if self._terminal:
            self._stream.write("\r\x1b[K")

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_RESET}" if self._colours else text

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
