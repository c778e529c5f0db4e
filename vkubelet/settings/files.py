"""
The YAML files that an operator writes: our own settings, and a provider's.

Our settings are read without YAML's guesses at types: `clusterID: 0123` stays ``0123`` and ``no`` stays
``no`` until the option's own parser sees them, the same one that sees flags and variables. A provider's file
is plain YAML, since the provider knows its types. In both a key that stands twice is an error, where YAML's
loaders would keep the last one silently.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from vkubelet.errors import ConfigurationError
from vkubelet.settings.option import Raw

__all__ = ["load_provider_config", "read_mapping", "read_settings_file"]


class _UniqueKeys(yaml.constructor.BaseConstructor):
    """Refuses a mapping in which a key stands twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} stands twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _TextLoader(_UniqueKeys, yaml.BaseLoader):
    """Every scalar is the text that was written."""


class _TypedLoader(_UniqueKeys, yaml.SafeLoader):
    """Scalars have YAML's types."""


_Loader: TypeAlias = "type[_TextLoader] | type[_TypedLoader]"


def read_settings_file(path: Path) -> dict[str, Raw]:
    """
    Our own settings by key, scalars as text.

    Raises:
        ConfigurationError: naming ``--config``; the file cannot be read or is no YAML mapping.
    """
    found: dict[str, Raw] = _read(path, "--config", _TextLoader)
    return found


def load_provider_config(path: Path | None) -> Mapping[str, object]:
    """
    A provider's own settings; empty without a file.

    Raises:
        ConfigurationError: naming ``--provider-config``; the file cannot be read or is no YAML mapping.
    """
    return {} if path is None else read_mapping(path, "--provider-config")


def read_mapping(path: Path, label: str) -> dict[str, Any]:
    """
    A YAML mapping with YAML's types; an empty file is an empty mapping.

    Raises:
        ConfigurationError: naming `label`, the option that the path came from.
    """
    return _read(path, label, _TypedLoader)


def _read(path: Path, label: str, loader: _Loader) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)  # both build plain values only
    except OSError as error:
        raise ConfigurationError(f"{label}: {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{label}: {path} is not a text file in UTF-8") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigurationError(f"{label}: {path} is not valid YAML: {_where(error)}") from error
    if document is None or document == "":
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise ConfigurationError(f"{label}: {path} does not hold a mapping of names to values")
    return document


def _where(error: Exception) -> str:
    """One line for an error of the parser: its place and its problem."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())
