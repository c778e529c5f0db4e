"""
The smallest patch that makes one object's status, labels or taints what they should be. Pure.

Patches are strategic merge patches (Kubernetes docs, "Update API objects in place"), not JSON merge patches:
a JSON merge patch replaces ``conditions`` as a whole, so it would need everybody else's conditions, freshly
read, and lose what changes in between; a strategic one merges them by type and speaks of ours alone. For the
same reason nothing here carries a `resourceVersion`: `metadata.uid` is the fence that keeps a write from a
successor of the same name, and among our own writes the last one is right. (Others' ``resourceVersion: "0"``
is an error since Kubernetes 1.35.)

How each list merges is fixed by the API's Go types: conditions by type; ``podIPs``, ``hostIPs`` and
``addresses`` by keys that do not tell two of a kind apart or keep an order, so those are replaced by
directive; all others are atomic.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from vkubelet.model import quantity
from vkubelet.model.pod import Json
from vkubelet.model.status import OWNED_FIELDS

__all__ = ["metadata_patch", "node_status_patch", "status_patch", "taints_patch"]

_NEVER_REMOVED = frozenset({"observedGeneration", "qosClass"})
"""The API server puts these back: a patch that removes them would be made again and again."""

_REPLACED_LISTS = frozenset({"podIPs", "hostIPs", "addresses"})
_QUANTITIES = ("capacity", "allocatable")
_UNCHANGED: Final = object()


def status_patch(
    uid: str, old_status: Json, new_status: Json, owned_conditions: Collection[str]
) -> Json | None:
    """
    From one pod status to another, for ``pods/status``.

    Args:
        uid: of the pod; the API server refuses the patch when the name has another one by then.
        old_status: as the API server has it.
        new_status: the fields of `model.status.OWNED_FIELDS`; one of them that is absent is removed, every
            other field of `old_status` stays.
        owned_conditions: the types that `new_status` speaks for; one of them that it lacks is removed.

    Returns:
        None when nothing is to change.
    """
    changes: Json = {}
    for name in OWNED_FIELDS:
        old, new = old_status.get(name), new_status.get(name)
        if name == "conditions":
            if entries := _conditions(old or (), new or (), owned_conditions):
                changes[name] = entries
        elif not (_equal(old, new) or (new is None and name in _NEVER_REMOVED)):
            changes[name] = _replacement(name, old, new)
    return {"metadata": {"uid": uid}, "status": changes} if changes else None


def node_status_patch(old_status: Json, new_status: Json, last: Json | None = None) -> Json | None:
    """
    From one node status to another, for ``nodes/status``.

    A node has several writers (cloud controllers set addresses, administrators extended resources, problem
    detectors conditions), so what is removed is only what we ourselves had put there.

    Args:
        old_status: as the API server has it.
        new_status: ours: every field, condition and quantity that we speak for.
        last: what we wrote last; what it has and `new_status` has not is removed.

    Returns:
        None when nothing is to change. A condition's `lastHeartbeatTime` counts as a change.
    """
    changes: Json = {}
    before = last or {}
    for name in dict.fromkeys((*new_status, *before)):
        change = _node_field(name, old_status.get(name), new_status.get(name), before.get(name))
        if change is not _UNCHANGED:
            changes[name] = change
    return {"status": changes} if changes else None


def _node_field(name: str, old: Any, new: Any, last: Any) -> Any:
    """The patch of one field, or `_UNCHANGED`."""
    if name == "conditions":
        kinds = {c["type"] for c in (*(new or ()), *(last or ()))}
        return _conditions(old or (), new or (), kinds) or _UNCHANGED
    if name in _QUANTITIES:
        new = {key: quantity.canonical(value) for key, value in (new or {}).items()}
    if isinstance(new, dict):
        return _entries(old or {}, new, last or {}) or _UNCHANGED
    return _UNCHANGED if _equal(old, new) else _replacement(name, old, new)


def metadata_patch(
    old_metadata: Json,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    last_labels: Collection[str] = (),
    last_annotations: Collection[str] = (),
) -> Json | None:
    """
    Sets these labels and annotations, and keeps everybody else's.

    Args:
        old_metadata: as the API server has it.
        labels: those that must be there.
        annotations: likewise.
        last_labels: keys that were ours before: removed where `labels` no longer has them.
        last_annotations: likewise.

    Returns:
        None when nothing is to change.
    """
    changes: Json = {}
    for name, new, last in (
        ("labels", labels or {}, last_labels),
        ("annotations", annotations or {}, last_annotations),
    ):
        if entries := _entries(old_metadata.get(name) or {}, new, last):
            changes[name] = entries
    return {"metadata": changes} if changes else None


def taints_patch(node: Json, taints: Sequence[Json]) -> Json | None:
    """
    Adds or changes these taints of a node and keeps the others.

    A taint is known by its key and effect. The list is atomic, so others' taints must be sent along; the
    `resourceVersion` makes that safe: a conflict means to read the node again.

    Returns:
        None when they are there already.
    """
    present: list[Json] = (node.get("spec") or {}).get("taints") or []
    ours = {(t["key"], t["effect"]) for t in taints}
    merged = [t for t in present if (t["key"], t["effect"]) not in ours] + list(taints)
    if all(t in present for t in taints):
        return None
    metadata = {"resourceVersion": node["metadata"]["resourceVersion"]}
    return {"metadata": metadata, "spec": {"taints": merged}}


# --- parts ------------------------------------------------------------------------------------------------


def _conditions(old: Sequence[Json], new: Sequence[Json], owned: Collection[str]) -> list[Json]:
    """Entries for a list that merges by ``type``: changed fields of changed conditions, and deletions."""
    before = {c["type"]: c for c in old}
    entries: list[Json] = []
    for condition in new:
        kind: str = condition["type"]
        if kind in owned and (fields := _fields(before.pop(kind, {}), condition)):
            entries.append({"type": kind, **fields})
    kept = {c["type"] for c in new}
    entries.extend({"$patch": "delete", "type": k} for k in before if k in owned and k not in kept)
    return entries


def _fields(old: Json, new: Json) -> Json:
    """The fields that differ; None removes one."""
    changed = {key: value for key, value in new.items() if not _equal(old.get(key), value)}
    gone = old.keys() - new.keys() - _NEVER_REMOVED
    changed.update({key: None for key in sorted(gone) if old[key] is not None})
    return changed


def _entries(old: Mapping[str, Any], new: Mapping[str, Any], last: Collection[str]) -> Json:
    """Entries for a map that several write: ours that differ, and None for those of ours that went."""
    changed: Json = {key: value for key, value in new.items() if old.get(key) != value}
    changed.update({key: None for key in last if key in old and key not in new})
    return changed


def _replacement(name: str, old: Any, new: Any) -> Any:
    """The value that makes the field `new`; None removes it."""
    if name in _REPLACED_LISTS and old and new:
        return [*new, {"$patch": "replace"}]
    return None if _is_empty(new) else new


def _equal(old: Any, new: Any) -> bool:
    """
    The same for the API server, to which null, absent and empty are one.

    In objects that it has stored, it fills such fields in (``lastState: {}``). False and 0 are values.
    """
    if old == new:
        return True
    if isinstance(old, dict) and isinstance(new, dict):
        return all(_equal(old.get(key), new.get(key)) for key in old.keys() | new.keys())
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return all(map(_equal, old, new))
    return _is_empty(old) and _is_empty(new)


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | dict | list | tuple) and not value)
