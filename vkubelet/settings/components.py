"""
The options that are no fields of `Settings`, since other values are made from them.

These are the file that the rest may come from, and the parts of the default taint.
"""

from __future__ import annotations

from vkubelet.settings import parsers
from vkubelet.settings.option import Option
from vkubelet.settings.taints import DEFAULT_TAINT_KEY, taint_effect

__all__ = ["COMPONENT_OPTIONS"]

_CLUSTER = "cluster and provider"
_NODE = "node"

#: The options that other values are made from: `Settings.taints`, and the file that the rest may come from.
COMPONENT_OPTIONS: tuple[Option, ...] = (
    Option(
        name="config",
        parse=parsers.path,
        help="A YAML file with any of these options, as in nodeName: worker-1.",
        default_help="none",
        group=_CLUSTER,
        metavar="FILE",
    ),
    Option(
        name="disable_taint",
        parse=parsers.boolean,
        help="No taint on the Node.",
        default="false",
        group=_NODE,
        metavar="BOOL",
        switch=True,
    ),
    Option(
        name="taint_key",
        parse=lambda raw: parsers.label_key(parsers.text(raw)),
        help="The key of the default taint.",
        default=DEFAULT_TAINT_KEY,
        group=_NODE,
        metavar="KEY",
        only_env=True,
    ),
    Option(
        name="taint_value",
        parse=lambda raw: parsers.label_value(raw if isinstance(raw, str) else str(raw)),
        help="The value of the default taint; empty for none.",
        default_help="the provider's name",
        group=_NODE,
        metavar="VALUE",
        only_env=True,
        empty_env_counts=True,
    ),
    Option(
        name="taint_effect",
        parse=taint_effect,
        help="The effect of the default taint.",
        default="NoSchedule",
        group=_NODE,
        metavar="EFFECT",
        only_env=True,
    ),
)
