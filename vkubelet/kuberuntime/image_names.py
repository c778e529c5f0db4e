"""
Image names: which are valid, and which registry they mean.

The grammar is the one of github.com/distribution/reference: ``[domain[:port]/]path[:tag][@digest]``.
"""

from __future__ import annotations

import functools
import re

__all__ = ["is_default_registry", "is_valid", "why_invalid"]

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_NAME = re.compile(
    rf"(?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*"
    r"(?::[\w][\w.-]{0,127})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
_MAX_CHARS = 255 + 1 + 128 + 1 + 200
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@functools.lru_cache(maxsize=1024)
def is_valid(image: str) -> bool:
    """Whether a registry could have an image of this name."""
    return (
        len(image) <= _MAX_CHARS
        and _NAME.fullmatch(image) is not None
        and _IDENTIFIER.fullmatch(image) is None
    )


def why_invalid(image: str) -> str:
    """What is wrong with an invalid name, in the words of the reference library."""
    if _IDENTIFIER.fullmatch(image):
        return f"invalid repository name ({image}), cannot specify 64-byte hexadecimal strings"
    if not is_valid(image.lower()):
        return "invalid reference format"
    path = image.partition("@")[0]
    path = path if is_default_registry(image) else path.partition("/")[2]
    name = path.rpartition(":")[0] or path
    name = name if "/" in name or not is_default_registry(image) else f"library/{name}"
    return f"invalid reference format: repository name ({name}) must be lowercase"


def is_default_registry(image: str) -> bool:
    """It comes from Docker Hub: its first part is no host name (kubelet: isDefaultRegistryMatch)."""
    first, slash, _ = image.partition("/")
    return not slash or first in ("docker.io", "index.docker.io") or not any(c in first for c in ".:")
