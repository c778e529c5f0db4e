"""
The command line: ``vkubelet run`` and what else an operator types.

Takes the arguments, builds `Settings`, calls `app.run`, and turns what comes back into an exit code: 0 for a
normal stop, 1 for a failure while running, 2 for a wrong configuration, 130 for an interrupt that came before
the application took over the signals. Signals and the order of start and stop are `vkubelet.app`'s.

What a command needs is imported when it runs, so ``vkubelet --help`` does not wait for an HTTP library.
A further command is one more entry in `COMMANDS`.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vkubelet.errors import ConfigurationError, VirtualKubeletError
from vkubelet.settings import Settings, installed_version, load_settings
from vkubelet.settings.flags import ArgumentParser, add_options, given_flags, unknown_flags

if TYPE_CHECKING:
    import asyncio

__all__ = ["COMMANDS", "Command", "main"]

_OK, _FAILED, _MISCONFIGURED, _INTERRUPTED = 0, 1, 2, 130


@dataclass(frozen=True, slots=True)
class Command:
    """
    One command of ``vkubelet``.

    Attributes:
        name: the word on the command line.
        help: one line for ``vkubelet --help``.
        add_arguments: adds its arguments to its parser.
        run: does the work and gives the exit code; a ConfigurationError is reported for it.
    """

    name: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    parser = _parser()
    try:
        arguments, unplaced = parser.parse_known_args(argv)
        if unplaced:
            raise ConfigurationError("\n".join(unknown_flags(unplaced)))
        if arguments.command is None:
            parser.print_help(sys.stderr)
            return _MISCONFIGURED
        command: Command = arguments.command
        return command.run(arguments)
    except ConfigurationError as error:
        _complain(error)
        return _MISCONFIGURED


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="vkubelet",
        description="A Kubernetes node whose pods run where a provider puts them.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=None)
    parser.add_argument("--version", action="version", version=_version_text())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command in COMMANDS:
        subparser = commands.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False
        )
        command.add_arguments(subparser)
        subparser.set_defaults(command=command)
    return parser


def _complain(error: BaseException) -> None:
    """Each line of the message on stderr, after our name."""
    for sentence in str(error).splitlines() or [repr(error)]:
        print(f"vkubelet: {sentence}", file=sys.stderr)


# --- vkubelet version -------------------------------------------------------------------------------------


def _version_text() -> str:
    return f"vkubelet {installed_version()} (Python {platform.python_version()}, {sys.platform})"


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    del parser


def _version(arguments: argparse.Namespace) -> int:
    del arguments
    print(_version_text())
    return _OK


# --- vkubelet run -----------------------------------------------------------------------------------------


def _run(arguments: argparse.Namespace) -> int:
    settings = load_settings(given_flags(arguments))
    from vkubelet.logs import configure_logging, get_logger

    configure_logging(settings.log_level, settings.log_format)
    try:
        _run_until_stopped(settings)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the outermost boundary: whatever ends us is told, then we end
        leaves = list(_leaves(error))
        summary = "; ".join(map(str, leaves))
        get_logger("cli").critical("vkubelet failed", error=summary, exc_info=_unexpected(error, leaves))
        return _told(leaves)
    return _OK


def _run_until_stopped(settings: Settings) -> None:
    import asyncio

    from vkubelet import app

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(app.run(settings))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """The event loop of uvloop where that is installed, about twice as fast; else asyncio's."""
    import asyncio

    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _told(leaves: Sequence[BaseException]) -> int:
    """Say on stderr what ended us; the exit code."""
    for leaf in leaves:
        _complain(leaf)
    wrong_settings = all(isinstance(leaf, ConfigurationError) for leaf in leaves)
    return _MISCONFIGURED if wrong_settings else _FAILED


def _unexpected(error: Exception, leaves: Sequence[BaseException]) -> Exception | None:
    """The error itself if anything in it was not foreseen, so that its traceback is logged."""
    foreseen = all(isinstance(leaf, VirtualKubeletError) for leaf in leaves)
    return None if foreseen else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors that a task group's exception group holds, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error


#: Every command, in the order of ``vkubelet --help``.
COMMANDS: tuple[Command, ...] = (
    Command("run", "Register a node and run the pods that are bound to it.", add_options, _run),
    Command("version", "Print the version.", _no_arguments, _version),
)
