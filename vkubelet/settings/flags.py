"""
The command line's side of the options: argparse takes the words apart, the options' parsers do the rest.

Every value reaches `vkubelet.settings.resolve` as text, so that flags, variables and the file obey one set of
rules and all mistakes are reported together. Turned down: click, which has its own words for errors and
stops at the first one.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from vkubelet.errors import ConfigurationError
from vkubelet.settings.option import Option, Raw
from vkubelet.settings.sources import ALL_OPTIONS

__all__ = ["ArgumentParser", "add_options", "given_flags", "unknown_flags"]

#: Flags of virtual-kubelet that mean nothing here, and what to do instead. Ignoring them would be worse.
_REFUSED = {
    "--no-verify-clients": "clients are always verified; use --client-ca-file, or "
    "--authentication-token-webhook, or both",
    "--namespace": "pods of every namespace are served; remove the option",
    "--enable-node-lease": "node leases are always used; remove the option",
    "--metrics-addr": "everything is served on --port; remove the option",
}


class ArgumentParser(argparse.ArgumentParser):
    """Reports a wrong command line as a `ConfigurationError`, in a sentence that starts with the flag."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage, whose length would hide the reason."""
        name, colon, rest = message.removeprefix("argument ").partition(": ")
        raise ConfigurationError(f"{name.split('/')[0]}{colon}{rest}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add every option to the parser of ``vkubelet run``, by group."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for option in ALL_OPTIONS:
        if option.flags:
            group = groups.get(option.group) or groups.setdefault(
                option.group, parser.add_argument_group(option.group)
            )
            _add_option(group, option)


def _add_option(group: argparse._ArgumentGroup, option: Option) -> None:
    described = _help(option)
    if option.switch:
        group.add_argument(
            *option.flags, dest=option.name, nargs="?", const="true", metavar=option.metavar, help=described
        )
    else:
        action = "append" if option.many else "store"
        group.add_argument(
            *option.flags, dest=option.name, action=action, metavar=option.metavar, help=described
        )


def _help(option: Option) -> str:
    default = option.default_help or str(option.default)
    variables = ", ".join(option.env_names)
    key = "" if option.name == "config" else f"; file: {option.file_key}"
    return f"{option.help} [default: {default}; env: {variables}{key}]".replace("%", "%%")


def given_flags(arguments: argparse.Namespace) -> dict[str, Raw]:
    """The options that the command line gave, by name; see `vkubelet.settings.resolve.load_settings`."""
    values = {option.name: getattr(arguments, option.name, None) for option in ALL_OPTIONS}
    return {name: raw for name, raw in values.items() if raw is not None}


def unknown_flags(words: Sequence[str]) -> list[str]:
    """A sentence for each word of the command line that argparse could not place."""
    sentences: list[str] = []
    after_flag = False
    for word in words:
        is_flag = word.startswith("-")
        name, equals, _ = word.partition("=")
        if is_flag:
            sentences.append(f"{name}: {_REFUSED.get(name) or _no_such_option(name)}")
        elif not after_flag:  # else it is the value of the unknown flag before it
            sentences.append(f"{word}: unexpected; options start with --")
        after_flag = is_flag and not equals
    return sentences


def _no_such_option(flag: str) -> str:
    known = [known_flag for option in ALL_OPTIONS for known_flag in option.flags]
    near = difflib.get_close_matches(flag, known, n=1, cutoff=0.7)
    return f"no such option; did you mean {near[0]}?" if near else "no such option; see vkubelet run --help"
