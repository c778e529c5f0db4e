"""What is installed beside us: providers by entry point, and our own version."""

from __future__ import annotations

from importlib import metadata

__all__ = ["PROVIDER_GROUP", "installed_providers", "installed_version"]

#: Our own providers and those of third parties are found in the same way.
PROVIDER_GROUP = "vkubelet.providers"


def installed_providers() -> dict[str, metadata.EntryPoint]:
    """The providers by name, in order of their names; none is imported before `EntryPoint.load` is called."""
    found = {entry.name: entry for entry in metadata.entry_points(group=PROVIDER_GROUP)}
    return dict(sorted(found.items()))


def installed_version() -> str:
    """The version of the installed package; ``unknown`` when we run without having been installed."""
    try:
        return metadata.version("vkubelet")
    except metadata.PackageNotFoundError:
        return "unknown"
