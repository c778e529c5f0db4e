"""
A strategic merge patch, applied as the API server does it: the reference for tests of `kube.patches`.

Written from the documentation ("Update API Objects in Place Using kubectl patch") and checked against the
real API server. Directives that nobody here sends are refused, so that a test cannot pass by being ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

MERGE_KEYS: Mapping[str, str] = {
    "status.conditions": "type",
    "status.podIPs": "ip",
    "status.hostIPs": "ip",
    "status.addresses": "type",
    "status.resourceClaimStatuses": "name",
    "spec.containers": "name",
    "spec.initContainers": "name",
    "spec.volumes": "name",
    "metadata.ownerReferences": "uid",
}
"""Lists that merge, and by what (patchStrategy and patchMergeKey of the Go types); others are atomic."""


def apply(original: Json, patch: Json) -> Json:
    """The object after the patch; `original` is not changed."""
    return _merge_map(original, patch, "")


def _merge_map(original: Json, patch: Json, path: str) -> Json:
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive is not None:
        raise ValueError(f"directive {directive!r} is not known here")
    merged = dict(original)
    for key, value in patch.items():
        where = f"{path}.{key}" if path else key
        if key.startswith("$"):
            raise ValueError(f"directive {key!r} is not known here")
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            old = merged.get(key)
            merged[key] = _merge_map(old if isinstance(old, dict) else {}, value, where)
        elif isinstance(value, list) and where in MERGE_KEYS:
            merged[key] = _merge_list(merged.get(key) or [], value, MERGE_KEYS[where], where)
        else:
            merged[key] = value
    return merged


def _merge_list(original: list[Json], patch: list[Json], merge_key: str, path: str) -> list[Json]:
    entries = [e for e in patch if "$patch" not in e]
    if {"$patch": "replace"} in patch:
        return entries
    merged = list(original)
    for entry in patch:
        if entry.get("$patch") == "delete":
            merged = [e for e in merged if e.get(merge_key) != entry[merge_key]]
        elif "$patch" in entry:
            raise ValueError(f"directive {entry['$patch']!r} is not known here")
    for entry in entries:
        found = next((i for i, e in enumerate(merged) if e.get(merge_key) == entry[merge_key]), None)
        if found is None:
            merged.append(_merge_map({}, entry, path + "[]"))
        else:
            merged[found] = _merge_map(merged[found], entry, path + "[]")
    return merged
