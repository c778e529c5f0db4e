"""
`resource.Quantity`: "500m", "1.5Gi", "2e3" as exact numbers.

Values are `fractions.Fraction`, because 0.1 cores must be exactly 100 millicores and floats make it 101 when
rounded up. Like Go's, finer parts than a nano are rounded away from zero: who asks for something gets
something.
"""

from __future__ import annotations

import functools
import re
from fractions import Fraction
from typing import Literal

__all__ = ["Format", "bytes_", "canonical", "format_quantity", "millicores", "parse"]

Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]
"""How a quantity is written; the API server keeps it."""

_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {exponent: suffix for suffix, exponent in _BINARY.items()}

_SYNTAX = re.compile(
    r"(?P<sign>[+-]?)(?=\.?[0-9])(?P<whole>[0-9]*)(?:\.(?P<part>[0-9]*))?"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]{1,4}))?"
)
_NANO = 10**9
_MAX_INT64 = 2**63 - 1


def parse(quantity: str) -> Fraction:
    """
    The exact value.

    Raises:
        ValueError: it is not a quantity; the message quotes it.
    """
    return _parse(quantity)[0]


def millicores(quantity: str) -> int:
    """CPU in thousandths of a core, rounded up (Go's `MilliValue`)."""
    return -((-parse(quantity) * 1000) // 1)


def bytes_(quantity: str) -> int:
    """An amount of memory or storage in whole bytes, rounded up (Go's `Value`)."""
    return -(-parse(quantity) // 1)


def canonical(quantity: str) -> str:
    """
    As the API server writes it: the largest suffix that leaves a whole number, in the same format.

    ``1024Ki`` is ``1Mi``, ``0.5`` is ``500m``, ``1.5Gi`` is ``1536Mi``.

    Raises:
        ValueError: it is not a quantity.
    """
    return format_quantity(*_parse(quantity))


def format_quantity(value: Fraction | int, style: Format = "DecimalSI") -> str:
    """
    A number as a canonical quantity.

    `BinarySI` falls back to decimal below 1024 and for parts of one, where it would have to round.

    Raises:
        ValueError: `value` has parts smaller than a nano.
    """
    value = Fraction(value)
    if (value * _NANO).denominator != 1:
        raise ValueError(f"{value} is finer than a nano")
    if value == 0:
        return "0"
    if style == "BinarySI" and abs(value) >= 1024 and value.denominator == 1:
        number, exponent = _reduced(int(value), 1024, 6)
        return f"{number}{_BINARY_SUFFIX.get(exponent * 10, '')}"
    limit = 9 if style != "DecimalExponent" else 10**6
    number, exponent = _reduced(int(value * _NANO), 1000, limit)
    exponent = exponent * 3 - 9
    if style == "DecimalExponent":
        return f"{number}e{exponent}" if exponent else str(number)
    return f"{number}{_DECIMAL_SUFFIX[exponent]}"


def _reduced(number: int, base: int, limit: int) -> tuple[int, int]:
    """`number` with up to `limit` factors of `base` taken out, and how many."""
    taken = 0
    while taken < limit and number % base == 0:
        number //= base
        taken += 1
    return number, taken


@functools.lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[Fraction, Format]:
    match = _SYNTAX.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a quantity such as 500m, 1.5Gi or 2e3")
    sign, digits, part, suffix, exponent = match.group("sign", "whole", "part", "suffix", "exponent")
    value = Fraction(int(digits + (part or "") or "0"), 10 ** len(part or ""))
    style: Format
    if exponent is not None:
        value, style = value * Fraction(10) ** int(exponent), "DecimalExponent"
    elif suffix in _BINARY:
        value, style = min(value * 2 ** _BINARY[suffix], Fraction(_MAX_INT64)), "BinarySI"
    else:
        value, style = value * Fraction(10) ** _DECIMAL[suffix or ""], "DecimalSI"
    value = Fraction(-((-value * _NANO) // 1), _NANO)
    return (-value if sign == "-" else value), style
