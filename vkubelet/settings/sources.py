"""
Which source gives which value: a flag over the environment over the file. Nothing is parsed here.

A variable that is set but empty counts as not set, as charts and shells leave such behind; a flag with an
empty value does not, because ``--node-ip "$IP"`` without IP must not silently take the default.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vkubelet.settings.files import read_settings_file
from vkubelet.settings.option import Option, Raw
from vkubelet.settings.options import COMPONENT_OPTIONS, OPTIONS

__all__ = [
    "ALL_OPTIONS",
    "ENVIRONMENT",
    "FILE",
    "FLAG",
    "Given",
    "from_environment",
    "from_file",
    "from_flags",
]

ALL_OPTIONS: tuple[Option, ...] = (*OPTIONS, *COMPONENT_OPTIONS)

#: Ranks of the sources; the highest one that gives a value wins.
FILE, ENVIRONMENT, FLAG = 1, 2, 3

# Kubernetes gives the pods of a namespace with a Service "vkubelet" the variable VKUBELET_PORT, holding
# "tcp://10.96.3.4:10250" (documented as "Docker links compatible variables"). It is not meant for us.
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://\S+")
_UNSET_IN_YAML = ("", "null", "~")


@dataclass(frozen=True, slots=True)
class Given:
    """
    What a source gave for an option.

    Attributes:
        raw: the value before parsing.
        rank: the source, one of `FILE`, `ENVIRONMENT` and `FLAG`.
        origin: where to look for it, as messages have it; "" for a flag, which the message names anyway.
        base: what a relative path is relative to.
    """

    raw: Raw
    rank: int
    origin: str
    base: Path


def from_flags(flags: Mapping[str, Raw]) -> dict[str, Given]:
    """What the command line gave, by the option's name."""
    return {name: Given(raw, FLAG, "", Path.cwd()) for name, raw in flags.items()}


def from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """What the environment gave, by the option's name; the first variable that counts is taken."""
    found: dict[str, Given] = {}
    for option in ALL_OPTIONS:
        for variable in option.env_names:
            if _counts(option, environ.get(variable)):
                found[option.name] = Given(environ[variable], ENVIRONMENT, variable, Path.cwd())
                break
    return found


def _counts(option: Option, value: str | None) -> bool:
    if value is None or _SERVICE_LINK.fullmatch(value):
        return False
    return value != "" or option.empty_env_counts


def from_file(path: Path) -> tuple[dict[str, Given], list[str]]:
    """
    What the file gave, by the option's name, and a sentence for each key that is unknown.

    Relative paths in it are relative to its directory, as in the kubelet's configuration file.

    Raises:
        ConfigurationError: the file cannot be read or is no YAML mapping.
    """
    names = {
        option.file_key: option.name
        for option in ALL_OPTIONS
        if not option.only_env and option.name != "config"
    }
    found: dict[str, Given] = {}
    problems: list[str] = []
    for key, raw in read_settings_file(path).items():
        if key not in names:
            problems.append(f"--config: {path} has no option {key}{_suggestion(key, names)}")
        elif raw not in _UNSET_IN_YAML:
            found[names[key]] = Given(raw, FILE, f"{key} in {path}", path.parent)
    return found, problems


def _suggestion(key: str, names: Mapping[str, str]) -> str:
    by_lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(key.lower().replace("-", "").replace("_", ""), by_lower, n=1, cutoff=0.8)
    return f"; did you mean {by_lower[near[0]]}?" if near else "; see vkubelet run --help"
