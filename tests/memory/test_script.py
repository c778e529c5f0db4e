"""The commands that the memory provider acts out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.memory.script import FOREVER, Script, parse_script


@pytest.mark.parametrize(
    ("command", "script"),
    [
        (["true"], Script()),
        (["/bin/false"], Script(exit_code=1)),
        (["sh", "-c", "exit 7"], Script(exit_code=7)),
        (["sh", "-c", "echo a b; sleep 3; exit 2; echo never"], Script(b"a b\n", 3.0, 2)),
        (["sh", "-c", "false && echo no; echo yes"], Script(b"yes\n")),
        (["sh", "-c", "true && echo yes"], Script(b"yes\n")),
        (["echo", "-n", "x"], Script(b"x")),
        (["printf", r"a\nb"], Script(b"a\nb")),
        (["cat"], Script(copies_stdin=True)),
        (["sleep", "2.5"], Script(run_s=2.5)),
        (["nginx", "-g", "daemon off;"], Script(run_s=FOREVER, is_known=False)),
        (["sh", "-c", "echo hi; httpd -f"], Script(b"hi\n", FOREVER, is_known=False)),
        (["sh", "-c", "echo 'unclosed"], Script(run_s=FOREVER, is_known=False)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_commands(command: list[str], script: Script) -> None:
    assert parse_script(command) == script


@given(st.lists(st.text(max_size=20), max_size=4) | st.text(max_size=40).map(lambda t: ["sh", "-c", t]))
def test_any_command_has_some_outcome(command: list[str]) -> None:
    assert parse_script(command).run_s >= 0
