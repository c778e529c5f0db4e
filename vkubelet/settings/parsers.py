"""
From what a source gives to one value. Pure: no file, no environment, no clock.

Each parser raises ValueError with the rest of a sentence that starts with the option's name, and says what
would have been right: ``70000 is not a port; use a number from 1 to 65535``. Syntax rules are those of
Kubernetes (``k8s.io/apimachinery/pkg/util/validation``), named where they are applied. What needs a look at
the machine (does the file exist?) is left to `vkubelet.settings.checks`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar
from urllib.parse import urlsplit

from vkubelet.settings.option import Raw

__all__ = [
    "boolean",
    "choice",
    "dns_subdomain",
    "duration_s",
    "http_url",
    "ip_address",
    "ip_addresses",
    "items",
    "label_key",
    "label_text",
    "label_value",
    "labels",
    "node_name",
    "path",
    "port",
    "positive_duration_s",
    "shown",
    "split_pair",
    "text",
    "whole_number",
    "whole_seconds",
]

T = TypeVar("T")

_TRUE = frozenset({"true", "1", "yes", "y", "on", "t"})
_FALSE = frozenset({"false", "0", "no", "n", "off", "f"})

_DNS_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_DNS_SUBDOMAIN = re.compile(rf"{_DNS_LABEL}(?:\.{_DNS_LABEL})*")
_NAME_PART = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?")
_DNS_SUBDOMAIN_MAX = 253
_NAME_PART_MAX = 63

_NS_PER_UNIT = {
    "ns": 1,
    "us": 1_000,
    "\u00b5s": 1_000,  # micro sign
    "\u03bcs": 1_000,  # Greek mu
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)")
_DURATION_MAX_DIGITS = 40
_INT64_MAX = 2**63 - 1
_PORT_MAX = 65535
_SHOWN_MAX = 100


def shown(raw: Raw) -> str:
    """A value as a message shows it: as it was written, in quotes where it would be hard to see."""
    if isinstance(raw, (list, dict)):
        return "a list" if isinstance(raw, list) else "a mapping"
    written = raw if len(raw) <= _SHOWN_MAX else raw[:_SHOWN_MAX] + "..."
    return written if written and written.isprintable() and " " not in written else repr(written)


def text(raw: Raw) -> str:
    """One text, not empty, without white space around it."""
    if not isinstance(raw, str):
        raise ValueError(f"{shown(raw)} is not a single value")
    if not raw.strip():
        raise ValueError("the value is empty; give one or leave the option out")
    return raw.strip()


def items(raw: Raw) -> list[Raw]:
    """The parts of a list: a repeated flag, a YAML list, text between commas; empty parts are dropped."""
    if isinstance(raw, dict):
        raise ValueError(f"{shown(raw)} is not a list")
    parts: list[Raw] = []
    for part in raw if isinstance(raw, list) else [raw]:
        if isinstance(part, str):
            parts.extend(piece.strip() for piece in part.split(",") if piece.strip())
        else:
            parts.append(part)
    return parts


def boolean(raw: Raw) -> bool:
    """True or false, in the spellings that people use in environment variables."""
    word = text(raw).lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"{shown(raw)} is not a truth value; use true or false")


def whole_number(minimum: int, maximum: int | None = None) -> Callable[[Raw], int]:
    """A parser for decimal whole numbers within the limits, both included."""
    limits = f"from {minimum}" if maximum is None else f"from {minimum} to {maximum}"

    def parse(raw: Raw) -> int:
        written = text(raw)
        problem = f"{shown(raw)} is not a usable number; use a whole number {limits}"
        if re.fullmatch(r"[+-]?[0-9]{1,18}", written, re.ASCII) is None:
            raise ValueError(problem)
        value = int(written)
        if value < minimum or (maximum is not None and value > maximum):
            raise ValueError(problem)
        return value

    return parse


def port(raw: Raw) -> int:
    """A TCP port; 0 leaves the choice to the operating system."""
    try:
        return whole_number(0, _PORT_MAX)(raw)
    except ValueError:
        raise ValueError(f"{shown(raw)} is not a port; use a number from 1 to {_PORT_MAX}") from None


def http_url(raw: Raw) -> str:
    """A URL such as ``http://localhost:4318``."""
    written = text(raw)
    try:
        parts = urlsplit(written)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shown(raw)} is not a URL; write http://host:port")
    return written


def choice(*allowed: T, aliases: Mapping[str, T] | None = None) -> Callable[[Raw], T]:
    """A parser for one word of a closed set, in any case; `aliases` are lower case."""
    by_word = {str(word).lower(): word for word in allowed} | dict(aliases or {})

    def parse(raw: Raw) -> T:
        word = text(raw).lower()
        if word not in by_word:
            raise ValueError(f"{shown(raw)} is unknown; use one of {', '.join(map(str, allowed))}")
        return by_word[word]

    return parse


def duration_s(raw: Raw) -> float:
    """
    Seconds from a duration in Go's spelling (``time.ParseDuration``): ``300ms``, ``1m30s``, ``1.5h``.

    A number without a unit is seconds. Negative durations are refused, as is what Go cannot hold (292 years).
    """
    written = text(raw)
    problem = f"{shown(raw)} is not a duration; use one such as 30s, 1m30s or 2h"
    if len(written) > _DURATION_MAX_DIGITS:
        raise ValueError(problem)
    with_unit = written + "s" if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", written, re.ASCII) else written
    parts = _DURATION_PART.findall(with_unit)
    if not parts or "".join(number + unit for number, unit in parts) != with_unit.removeprefix("+"):
        raise ValueError(problem)
    nanoseconds = sum(float(number) * _NS_PER_UNIT[unit] for number, unit in parts)
    if nanoseconds > _INT64_MAX:
        raise ValueError(problem)
    return nanoseconds / _NS_PER_UNIT["s"]


def whole_seconds(raw: Raw) -> int:
    """A duration of whole seconds, at least one, as the API has it for Leases."""
    seconds = duration_s(raw)
    if seconds < 1 or not seconds.is_integer():
        raise ValueError(f"{shown(raw)} is not usable; give whole seconds, at least 1s")
    return int(seconds)


def positive_duration_s(raw: Raw) -> float:
    """A duration above zero, for what is done again and again."""
    seconds = duration_s(raw)
    if seconds <= 0:
        raise ValueError(f"{shown(raw)} is too short; use a duration above zero")
    return seconds


def ip_address(raw: Raw) -> str:
    """An IPv4 or IPv6 address in its usual spelling; a zone (``%eth0``) is refused, as in the Node API."""
    written = text(raw)
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        address = None
    if address is None or "%" in written:
        raise ValueError(f"{shown(raw)} is not an IP address; use one such as 10.0.0.5 or fd00::5")
    return str(address)


def ip_addresses(raw: Raw) -> tuple[str, ...]:
    """IP addresses, repeated or between commas."""
    return tuple(ip_address(part) for part in items(raw))


def dns_subdomain(raw: Raw) -> str:
    """An RFC 1123 subdomain, Kubernetes' rule for most names."""
    written = text(raw)
    if len(written) > _DNS_SUBDOMAIN_MAX or _DNS_SUBDOMAIN.fullmatch(written) is None:
        raise ValueError(
            f"{shown(raw)} is not an RFC 1123 subdomain; use lower-case letters, digits, '-' and '.', "
            f"with a letter or digit at both ends, at most {_DNS_SUBDOMAIN_MAX} characters"
        )
    return written


def node_name(raw: Raw) -> str:
    """
    The name of a Node.

    An RFC 1123 subdomain, and no longer than a label value, because the node carries its name in
    ``kubernetes.io/hostname``: the API server would refuse the whole Node for that label.
    """
    name = dns_subdomain(raw)
    if len(name) > _NAME_PART_MAX:
        raise ValueError(
            f"{shown(raw)} has {len(name)} characters; a node's name is also its kubernetes.io/hostname "
            f"label, use at most {_NAME_PART_MAX}"
        )
    return name


def label_key(key: str) -> str:
    """A qualified name: an optional RFC 1123 subdomain and ``/``, then at most 63 characters."""
    prefix, slash, name = key.rpartition("/")
    prefix_fits = not slash or (len(prefix) <= _DNS_SUBDOMAIN_MAX and _DNS_SUBDOMAIN.fullmatch(prefix))
    if not prefix_fits or len(name) > _NAME_PART_MAX or _NAME_PART.fullmatch(name) is None:
        raise ValueError(
            f"{shown(key)} is not a key; use letters, digits, '-', '_' and '.', at most {_NAME_PART_MAX}, "
            "after an optional prefix such as example.com/"
        )
    return key


def label_value(value: str) -> str:
    """A label's or taint's value: empty, or at most 63 characters of a name."""
    if value and (len(value) > _NAME_PART_MAX or _NAME_PART.fullmatch(value) is None):
        raise ValueError(
            f"{shown(value)} is not a label value; use at most {_NAME_PART_MAX} letters, digits, '-', '_' "
            "and '.', with a letter or digit at both ends"
        )
    return value


def label_text(raw: Raw) -> str:
    """Text that can stand as the value of a label, not empty."""
    return label_value(text(raw))


def split_pair(raw: Raw) -> tuple[str, str]:
    """``key=value`` in two; the value may be empty."""
    key, equals, value = text(raw).partition("=")
    if not equals:
        raise ValueError(f"{shown(raw)} is not key=value")
    return key.strip(), value.strip()


def labels(raw: Raw) -> Mapping[str, str]:
    """Labels from ``a=b,c=d`` or a YAML mapping, read-only; a key with two values is refused."""
    found: dict[str, str] = {}
    for key, value in _pairs(raw):
        if found.setdefault(label_key(key), label_value(value)) != value:
            raise ValueError(f"{shown(key)} is given twice; give each label once")
    return MappingProxyType(found)


def _pairs(raw: Raw) -> list[tuple[str, str]]:
    if not isinstance(raw, dict):
        return [split_pair(part) for part in items(raw)]
    for key, value in raw.items():
        if not isinstance(value, str):
            raise ValueError(f"the value of {shown(key)} is not text")
    return [(key, str(value)) for key, value in raw.items()]


def path(raw: Raw) -> Path:
    """A path; ``~`` is the home directory. The caller makes it absolute, as only it knows from where."""
    try:
        return Path(text(raw)).expanduser()
    except RuntimeError:
        raise ValueError(f"{shown(raw)}: the home directory is unknown; write the path out") from None
