"""
One option: its names in every source, its parser, its default, its help.

`option` declares a field of `Settings` (`vkubelet.settings.options`) together with all that the command line,
the environment, the configuration file and the help need to know of it, so nothing is said twice and
mypy compares what the parser gives with what the field holds.

The names follow from the field's: ``node_lease_duration_s`` is ``--node-lease-duration``,
``VKUBELET_NODE_LEASE_DURATION`` and ``nodeLeaseDuration``. Turned down: pydantic-settings, which does the
same for a second of import time and reports errors in its own words rather than by option.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

__all__ = ["Default", "Option", "Raw", "option", "option_of"]

T = TypeVar("T")

#: What a source gives before it is parsed: text from a flag or variable, and also lists (a flag that was
#: repeated, YAML) and mappings (YAML). Scalars of a file arrive as the text that was written there.
Raw: TypeAlias = "str | list[Raw] | dict[str, Raw]"

#: A default is text that is parsed like any other value; a function makes it from the environment. None
#: stands for the value None.
Default: TypeAlias = "str | Callable[[Mapping[str, str]], str] | None"

_METADATA_KEY = "vkubelet.option"
_UNIT_SUFFIX = "_s"
_INITIALISMS = frozenset({"ca", "dns", "id", "ip", "qps", "tls", "ttl"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """
    What the sources need to know of one option.

    Attributes:
        name: the field of `Settings`, or the name of a value that others are made from.
        parse: from what a source gives to the value; a ValueError carries the sentence after the
            option's name, such as ``70000 is not a port; use a number from 1 to 65535``.
        help: what it does, for ``--help`` and the documents.
        default: see `Default`.
        default_help: the default in words, where it is computed.
        group: the heading it stands under in the help.
        metavar: what stands for the value in the help.
        env_aliases: further environment variables, asked after our own; what virtual-kubelet's users know.
        flag_name: the flag, where it does not follow from the name: one for each value of a list.
        flag_aliases: further flags that mean the same.
        switch: the flag may stand without a value, which then is ``true``.
        many: the flag may be repeated.
        only_env: neither a flag nor the file can set it.
        empty_env_counts: a variable that is set but empty is a value.
    """

    name: str
    parse: Callable[[Raw], object]
    help: str
    default: Default = None
    default_help: str = ""
    group: str = ""
    metavar: str = "TEXT"
    env_aliases: tuple[str, ...] = ()
    flag_name: str = ""
    flag_aliases: tuple[str, ...] = ()
    switch: bool = False
    many: bool = False
    only_env: bool = False
    empty_env_counts: bool = False

    @property
    def _words(self) -> list[str]:
        return self.name.removesuffix(_UNIT_SUFFIX).split("_")

    @property
    def flag(self) -> str:
        """The flag: ``--node-name``."""
        return self.flag_name or "--" + "-".join(self._words)

    @property
    def flags(self) -> tuple[str, ...]:
        """Every flag that sets it, ours first."""
        return () if self.only_env else (self.flag, *self.flag_aliases)

    @property
    def env_names(self) -> tuple[str, ...]:
        """The environment variables, in the order in which they are asked."""
        return ("VKUBELET_" + "_".join(self._words).upper(), *self.env_aliases)

    @property
    def file_key(self) -> str:
        """The key in the configuration file: ``nodeName``, ``clusterDNS``, as Kubernetes spells its own."""
        first, *rest = self._words
        return first + "".join(word.upper() if word in _INITIALISMS else word.capitalize() for word in rest)

    @property
    def label(self) -> str:
        """The name for messages: the flag, or the variable where there is no flag."""
        return self.env_names[0] if self.only_env else self.flag


def option(
    parse: Callable[[Raw], T],
    help: str,
    *,
    default: Default = None,
    default_help: str = "",
    group: str = "",
    metavar: str = "TEXT",
    env_aliases: tuple[str, ...] = (),
    flag_name: str = "",
    flag_aliases: tuple[str, ...] = (),
    switch: bool = False,
    many: bool = False,
) -> T:
    """A dataclass field that carries its `Option`; the arguments are the attributes of `Option`."""
    declared: dict[str, Any] = {
        "parse": parse,
        "help": help,
        "default": default,
        "default_help": default_help,
        "group": group,
        "metavar": metavar,
        "env_aliases": env_aliases,
        "flag_name": flag_name,
        "flag_aliases": flag_aliases,
        "switch": switch,
        "many": many,
    }
    declared_field: T = dataclasses.field(metadata={_METADATA_KEY: declared})
    return declared_field


def option_of(field: dataclasses.Field[Any]) -> Option:
    """The `Option` that `option` attached to a dataclass field."""
    return Option(name=field.name, **field.metadata[_METADATA_KEY])
