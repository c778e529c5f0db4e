"""
The objects of the fake API server, with the behaviour that a kubelet can notice.

Versions, uids, preconditions and conflicts, graceful deletion of pods, subresources that take only their
part, and a history to watch from that can be compacted. `fake_api_server` puts HTTP around it; tests may call
it directly, which is "somebody else" acting on the cluster.
"""

from __future__ import annotations

import asyncio
import copy
import datetime
import itertools
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tests.kube import strategic_merge

Json = dict[str, Any]
Change = Literal["ADDED", "MODIFIED", "DELETED"]


@dataclass(frozen=True)
class Kind:
    """One resource type."""

    resource: str
    kind: str
    api_version: str = "v1"
    namespaced: bool = True


KINDS = {
    k.resource: k
    for k in (
        Kind("pods", "Pod"),
        Kind("nodes", "Node", namespaced=False),
        Kind("namespaces", "Namespace", namespaced=False),
        Kind("events", "Event"),
        Kind("configmaps", "ConfigMap"),
        Kind("secrets", "Secret"),
        Kind("services", "Service"),
        Kind("serviceaccounts", "ServiceAccount"),
        Kind("leases", "Lease", "coordination.k8s.io/v1"),
        Kind("certificatesigningrequests", "CertificateSigningRequest", "certificates.k8s.io/v1", False),
        Kind("runtimeclasses", "RuntimeClass", "node.k8s.io/v1", False),
        Kind("csinodes", "CSINode", "storage.k8s.io/v1", False),
    )
}


class StatusError(Exception):
    """A request that ends in a `metav1.Status`."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: Json | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details or {},
            "code": code,
        }


@dataclass(frozen=True)
class HistoryEntry:
    """One change: the object after it, and before it."""

    version: int
    resource: str
    change: Change
    new: Json
    old: Json | None


class FakeObjects:
    """
    Objects by resource, namespace and name.

    What is handed in and out is copied, as it would be on the wire.
    """

    def __init__(self) -> None:
        self.version = 100
        self.history: list[HistoryEntry] = []
        self.oldest_version = 0
        self.changed = asyncio.Event()
        self._objects: dict[tuple[str, str, str], Json] = {}
        self._suffixes = itertools.count(1)
        for name in ("default", "kube-system", "kube-node-lease"):
            self.create("namespaces", {"metadata": {"name": name}})
            self.create("serviceaccounts", {"metadata": {"name": "default", "namespace": name}})

    # --- reads

    def get(self, resource: str, name: str, namespace: str = "default") -> Json:
        """The object; 404 as `StatusError` when there is none."""
        return copy.deepcopy(self._find(resource, namespace, name))

    def find(self, resource: str, name: str, namespace: str = "default") -> Json | None:
        """The object, None when there is none."""
        found = self._objects.get(self._key(resource, namespace, name))
        return copy.deepcopy(found)

    def list(self, resource: str, namespace: str | None = None, field_selector: str = "") -> list[Json]:
        """The objects of all namespaces, or of one, ordered by namespace and name."""
        matches = selector(field_selector)
        found = sorted((k, o) for k, o in self._objects.items() if k[0] == resource and matches(o))
        return [copy.deepcopy(o) for k, o in found if namespace is None or k[1] == namespace]

    # --- writes

    def create(self, resource: str, body: Json, namespace: str = "default") -> Json:
        """Add an object; `metadata.namespace` wins over `namespace`."""
        kind, made = KINDS[resource], copy.deepcopy(body)
        metadata = made.setdefault("metadata", {})
        if kind.namespaced:
            metadata.setdefault("namespace", namespace)
            self._check_namespace(metadata["namespace"], kind)
        if "name" not in metadata:
            metadata["name"] = f"{metadata['generateName']}{next(self._suffixes):05d}"
        key = self._key(resource, metadata.get("namespace", ""), metadata["name"])
        if key in self._objects:
            message = f'{resource} "{metadata["name"]}" already exists'
            raise StatusError(409, "AlreadyExists", message)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        made = {"kind": kind.kind, "apiVersion": kind.api_version, **made}
        if resource == "pods":
            _default_pod(made)
        if resource in ("pods", "nodes", "namespaces"):
            made.setdefault("status", {})
        self._store(key, made, "ADDED")
        return copy.deepcopy(made)

    def update(self, resource: str, body: Json, subresource: str = "") -> Json:
        """Replace an object; its `resourceVersion` must be the present one."""
        metadata = body["metadata"]
        key = self._key(resource, metadata.get("namespace", "default"), metadata["name"])
        old = self._find(*key)
        sent = metadata.get("resourceVersion")
        if not sent or sent == "0":
            message = (
                f'{KINDS[resource].kind} "{key[2]}" is invalid: metadata.resourceVersion: must be specified'
            )
            raise StatusError(422, "Invalid", message)
        self._check_unchanged(key, old, metadata)
        return self._change(key, old, copy.deepcopy(body), subresource)

    def patch(
        self,
        resource: str,
        name: str,
        patch: Json,
        *,
        namespace: str = "default",
        subresource: str = "",
        strategic: bool = True,
    ) -> Json:
        """Apply a strategic (or JSON) merge patch; uid and resourceVersion in it are preconditions."""
        key = self._key(resource, namespace, name)
        old = self._find(*key)
        self._check_unchanged(key, old, patch.get("metadata") or {})
        merge = strategic_merge.apply if strategic else _json_merge
        return self._change(key, old, merge(copy.deepcopy(old), copy.deepcopy(patch)), subresource)

    def delete(
        self,
        resource: str,
        name: str,
        namespace: str = "default",
        *,
        grace_period_s: int | None = None,
        uid: str | None = None,
    ) -> Json:
        """Delete, a pod with its grace period; `uid` is a precondition."""
        key = self._key(resource, namespace, name)
        old = self._find(*key)
        present = old["metadata"]["uid"]
        if uid is not None and uid != present:
            message = f"the UID in the precondition ({uid}) does not match the UID in record ({present})"
            raise StatusError(409, "Conflict", self._conflict(key, message))
        grace_s = _grace_s(old, grace_period_s) if resource == "pods" else 0
        if grace_s == 0 and not old["metadata"].get("finalizers"):
            self._remove(key)
            return copy.deepcopy(old)
        return self._begin_deletion(key, old, grace_s)

    def compact(self) -> None:
        """Forget the history: a watch from an older version is answered with 410."""
        self.history.clear()
        self.oldest_version = self.version

    # --- parts

    def _begin_deletion(self, key: tuple[str, str, str], old: Json, grace_s: int) -> Json:
        metadata = old["metadata"]
        if "deletionTimestamp" in metadata and metadata.get("deletionGracePeriodSeconds", 0) <= grace_s:
            return copy.deepcopy(old)
        new = copy.deepcopy(old)
        if "deletionTimestamp" not in metadata:
            new["metadata"]["generation"] = metadata.get("generation", 0) + 1
        new["metadata"] |= {"deletionTimestamp": now(grace_s), "deletionGracePeriodSeconds": grace_s}
        self._store(key, new, "MODIFIED")
        return copy.deepcopy(new)

    def _change(self, key: tuple[str, str, str], old: Json, new: Json, subresource: str) -> Json:
        """Store what the endpoint lets through: ``/status`` status, the others everything else."""
        kept = {"name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation"}
        kept |= {"deletionTimestamp", "deletionGracePeriodSeconds"}
        metadata = {k: v for k, v in (new.get("metadata") or {}).items() if k not in kept}
        metadata |= {k: v for k, v in old["metadata"].items() if k in kept}
        if subresource == "status":
            result = {**old, "status": new.get("status") or {}}
        else:
            result = {**old, **new}
            if "status" in old:
                result["status"] = old["status"]
        result["metadata"] = metadata
        if result == old:
            return copy.deepcopy(old)
        if result.get("spec") != old.get("spec"):
            metadata["generation"] = metadata.get("generation", 0) + 1
        self._store(key, result, "MODIFIED")
        deleted = metadata.get("deletionTimestamp") and metadata.get("deletionGracePeriodSeconds", 0) == 0
        if deleted and not metadata.get("finalizers"):
            self._remove(key)
        return copy.deepcopy(result)

    def _store(self, key: tuple[str, str, str], new: Json, change: Change) -> None:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        self.history.append(HistoryEntry(self.version, key[0], change, new, self._objects.get(key)))
        self._objects[key] = new
        self._wake()

    def _remove(self, key: tuple[str, str, str]) -> None:
        self.version += 1
        old = self._objects.pop(key)
        last = copy.deepcopy(old)
        last["metadata"]["resourceVersion"] = str(self.version)
        self.history.append(HistoryEntry(self.version, key[0], "DELETED", last, old))
        self._wake()

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _key(self, resource: str, namespace: str, name: str) -> tuple[str, str, str]:
        return resource, namespace if KINDS[resource].namespaced else "", name

    def _find(self, resource: str, namespace: str, name: str) -> Json:
        found = self._objects.get(self._key(resource, namespace, name))
        if found is None:
            details = {"name": name, "kind": resource}
            raise StatusError(404, "NotFound", f'{resource} "{name}" not found', details=details)
        return found

    def _check_namespace(self, namespace: str, kind: Kind) -> None:
        found = self._find("namespaces", "", namespace)
        if found["metadata"].get("deletionTimestamp"):
            message = (
                f"{kind.resource} is forbidden: unable to create new content in namespace {namespace} "
                "because it is being terminated"
            )
            causes = {"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}
            raise StatusError(403, "Forbidden", message, details=causes)

    def _check_unchanged(self, key: tuple[str, str, str], old: Json, sent: Json) -> None:
        uid, version = sent.get("uid"), sent.get("resourceVersion")
        if uid and uid != old["metadata"]["uid"]:
            message = f'{KINDS[key[0]].kind} "{key[2]}" is invalid: metadata.uid: Invalid value: "{uid}": '
            raise StatusError(422, "Invalid", message + "field is immutable")
        if version and version != "0" and version != old["metadata"]["resourceVersion"]:
            message = (
                "the object has been modified; please apply your changes to the latest version and try again"
            )
            raise StatusError(409, "Conflict", self._conflict(key, message))

    @staticmethod
    def _conflict(key: tuple[str, str, str], message: str) -> str:
        return f'Operation cannot be fulfilled on {key[0]} "{key[2]}": {message}'


def selector(expression: str) -> Callable[[Json], bool]:
    """A field selector of ``path=value`` and ``path!=value`` terms."""
    terms = [_term(term) for term in expression.split(",") if term]
    return lambda obj: all((_value_at(obj, path) == value) is wanted for path, wanted, value in terms)


def _term(term: str) -> tuple[str, bool, str]:
    path, operator, value = term.partition("!=")
    if operator:
        return path, False, value
    path, _, value = term.partition("=")
    return path, True, value.removeprefix("=")


def _value_at(obj: Json, path: str) -> Any:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value or ""


def now(offset_s: int = 0) -> str:
    """RFC 3339, as `metav1.Time`."""
    moment = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=offset_s)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def watch_events(
    entries: list[HistoryEntry], resource: str, matches: Callable[[Json], bool]
) -> Iterator[Json]:
    """The watch events of a selection: an object that comes to match is ADDED, one that ceases DELETED."""
    for entry in entries:
        if entry.resource != resource:
            continue
        before = entry.old is not None and matches(entry.old)
        after = entry.change != "DELETED" and matches(entry.new)
        if before or after:
            change = "MODIFIED" if before and after else "ADDED" if after else "DELETED"
            yield {"type": change, "object": entry.new}


def _grace_s(pod: Json, asked_s: int | None) -> int:
    """As the API server's pod strategy: no grace where nothing can be running."""
    grace_s = pod["spec"].get("terminationGracePeriodSeconds", 30) if asked_s is None else asked_s
    if not pod["spec"].get("nodeName") or pod["status"].get("phase") in ("Succeeded", "Failed"):
        return 0
    return int(grace_s)


def _default_pod(pod: Json) -> None:
    spec = pod["spec"]
    defaults = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "default",
        "serviceAccount": "default",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        "enableServiceLinks": True,
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    pod["spec"] = defaults | spec
    for container in pod["spec"]["containers"]:
        container.setdefault("resources", {})
        container.setdefault("imagePullPolicy", "IfNotPresent")
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
    pod["status"] = {"phase": "Pending", "qosClass": "BestEffort"} | (pod.get("status") or {})


def _json_merge(original: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(original) if isinstance(original, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _json_merge(merged.get(key), value)
    return merged
