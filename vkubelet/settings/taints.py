"""Taints of the node, from ``key=value:Effect`` as kubectl writes them, or from a YAML mapping. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from vkubelet.settings.option import Raw
from vkubelet.settings.parsers import choice, items, label_key, label_value, shown, text

__all__ = ["DEFAULT_TAINT_KEY", "Taint", "TaintEffect", "parse_taint", "parse_taints", "taint_effect"]

TaintEffect: TypeAlias = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]

#: The key that virtual-kubelet's users tolerate in their pods.
DEFAULT_TAINT_KEY = "virtual-kubelet.io/provider"

_EFFECTS: tuple[TaintEffect, ...] = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_TAINT_KEYS = frozenset({"key", "value", "effect"})

taint_effect = choice(*_EFFECTS)


@dataclass(frozen=True, slots=True)
class Taint:
    """A `core/v1.Taint`: pods that do not tolerate it stay away."""

    key: str
    value: str
    effect: TaintEffect

    def __str__(self) -> str:
        """``key=value:Effect``, or ``key:Effect`` without a value."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"


def parse_taint(raw: Raw) -> Taint:
    """One taint from ``key=value:Effect``, ``key:Effect`` or ``{key: ..., value: ..., effect: ...}``."""
    if isinstance(raw, dict):
        return _from_mapping(raw)
    pair, colon, effect = text(raw).rpartition(":")
    if not colon:
        raise ValueError(f"{shown(raw)} is not a taint; write key=value:Effect, with one of {_effects()}")
    key, _, value = pair.partition("=")
    return Taint(label_key(key), label_value(value), taint_effect(effect))


def parse_taints(raw: Raw) -> tuple[Taint, ...]:
    """
    Taints, repeated, between commas, or a YAML list.

    The same key may come again with another effect; the API server refuses a pair that comes twice.
    """
    taints = tuple(parse_taint(part) for part in items(raw))
    seen: set[tuple[str, str]] = set()
    for taint in taints:
        if (taint.key, taint.effect) in seen:
            raise ValueError(f"{taint.key} with {taint.effect} is given twice; give each pair once")
        seen.add((taint.key, taint.effect))
    return taints


def _from_mapping(raw: dict[str, Raw]) -> Taint:
    if not {"key", "effect"} <= raw.keys() <= _TAINT_KEYS:
        raise ValueError(f"{shown(raw)} is not a taint; give key, effect ({_effects()}) and perhaps value")
    value = raw.get("value", "")
    return Taint(
        label_key(text(raw["key"])), label_value(text(value) if value else ""), taint_effect(raw["effect"])
    )


def _effects() -> str:
    return ", ".join(_EFFECTS)
