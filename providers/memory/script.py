"""
What a container's or an exec's command would do, for the few commands that demos and tests use.

``echo``, ``printf``, ``cat``, ``true``, ``false``, ``sleep``, ``exit``, ``hostname``, and those in
``sh -c`` joined by ``;`` or ``&&``. Anything else counts as a program that runs until it is stopped. A real
interpreter was turned down: whoever needs one has Docker.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = ["FOREVER", "Script", "parse_script"]

FOREVER = float("inf")
_SHELLS = frozenset({"sh", "/bin/sh", "bash", "/bin/bash", "ash", "/bin/ash"})


@dataclass(frozen=True, slots=True)
class Script:
    """
    The outcome of a command.

    Attributes:
        output: what it writes to stdout, at once.
        run_s: how long it runs; `FOREVER` for what does not end by itself.
        exit_code: its exit code when it ends.
        copies_stdin: it ends by copying its input to its output (``cat``).
        is_known: the command is one of those above.
    """

    output: bytes = b""
    run_s: float = 0.0
    exit_code: int = 0
    copies_stdin: bool = False
    is_known: bool = True


def parse_script(command: Sequence[str], *, hostname: str = "") -> Script:
    """What `command` does; `hostname` is what the command of that name prints."""
    total = Script()
    for operator, words in _commands(command):
        if operator == "&&" and total.exit_code != 0:
            continue
        step = _step(words, hostname)
        total = Script(
            total.output + step.output,
            total.run_s + step.run_s,
            step.exit_code,
            step.copies_stdin,
            step.is_known,
        )
        if words[:1] == ["exit"] or step.run_s == FOREVER or step.copies_stdin:
            break
    return total


def _commands(command: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The single commands, each with the operator before it."""
    is_shell = len(command) > 2 and command[0] in _SHELLS and command[1] in ("-c", "-ec")
    if not is_shell:
        yield "", list(command)
        return
    lexer = shlex.shlex(command[2], posix=True, punctuation_chars=";&|")
    lexer.whitespace_split = True
    operator, words = "", list[str]()
    try:
        tokens = list(lexer)
    except ValueError:
        tokens = ["?"]
    for token in (*tokens, ";"):
        if token not in (";", "&&"):
            words.append(token)
            continue
        if words:
            yield operator, words
        operator, words = token, []


def _step(words: list[str], hostname: str) -> Script:
    program, arguments = words[0].rpartition("/")[2] if words else "", words[1:]
    match program, arguments:
        case "true" | ":", _:
            return Script()
        case "false", _:
            return Script(exit_code=1)
        case "exit", []:
            return Script()
        case "exit", [code, *_] if code.isdecimal():
            return Script(exit_code=int(code) % 256)
        case "echo", ["-n", *rest]:
            return Script(" ".join(rest).encode())
        case "echo", _:
            return Script(" ".join(arguments).encode() + b"\n")
        case "printf", [text, *_]:
            return Script(text.encode().decode("unicode_escape").encode())
        case "hostname", []:
            return Script(hostname.encode() + b"\n")
        case "cat", [] | ["-"]:
            return Script(copies_stdin=True)
        case "sleep", [seconds, *_] if seconds.replace(".", "", 1).isdecimal():
            return Script(run_s=float(seconds))
        case _:
            return Script(run_s=FOREVER, is_known=False)
