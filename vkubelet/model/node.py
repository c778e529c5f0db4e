"""
The Node and Lease objects of this node, from who it is and what its provider offers.

The objects hold what we speak for and nothing else: labels, taints, conditions and addresses of others are
theirs, and the patches that carry ours leave them alone. When what is written (at a change at once, else
every few minutes) is the node controller's.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from vkubelet import clock
from vkubelet.model import quantity
from vkubelet.model.observations import NodeCondition, NodeObservation
from vkubelet.model.pod import Json

__all__ = [
    "KUBERNETES_VERSION",
    "LEASE_DURATION_S",
    "LEASE_NAMESPACE",
    "NodeIdentity",
    "NodeTaint",
    "declared_features",
    "kubelet_version",
    "lease_object",
    "node_labels",
    "node_object",
    "node_status",
    "node_taints",
    "not_ready_conditions",
    "renewed_lease",
    "status_changed",
]

KUBERNETES_VERSION = "v1.36.0"
"""The Kubernetes release whose kubelet we stand in for; tools compare `kubeletVersion` with it."""

LEASE_NAMESPACE = "kube-node-lease"
LEASE_DURATION_S = 40
"""A lease not renewed for that long lets the node count as gone (kubelet: nodeLeaseDurationSeconds)."""

_WEBSOCKETS_FEATURE = "ExtendWebSocketsToKubelet"
_WEBSOCKETS_SINCE = (1, 36)

_INFO_FIELDS = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "operatingSystem",
    "architecture",
)


class NodeTaint(Protocol):
    """A taint: pods that do not tolerate it stay away."""

    @property
    def key(self) -> str:
        """Such as ``virtual-kubelet.io/provider``."""

    @property
    def value(self) -> str:
        """Compared with a toleration's."""

    @property
    def effect(self) -> str:
        """NoSchedule, PreferNoSchedule or NoExecute."""


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """
    Who the node is.

    Attributes:
        node_name: its name, also its `Hostname` address.
        provider: the provider's name.
        version: vkubelet's own.
        addresses: of the machine that serves the kubelet API, primary first.
        port: where it serves it.
        labels: what the operator wants on it; they win over ours.
        declared_features: as `declared_features` gives them.
    """

    node_name: str
    provider: str
    version: str
    addresses: tuple[str, ...]
    port: int
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[NodeTaint, ...] = ()
    declared_features: tuple[str, ...] = ()


def declared_features(server_version: tuple[int, int]) -> tuple[str, ...]:
    """
    `status.declaredFeatures`: promises to the API server and the scheduler, so none before it holds.

    With ``ExtendWebSocketsToKubelet`` the API server passes clients' WebSockets for exec, attach and
    port-forward through to this node instead of translating them to SPDY.

    Args:
        server_version: the API server's, (major, minor); one that does not know the field is not told.
    """
    return (_WEBSOCKETS_FEATURE,) if server_version >= _WEBSOCKETS_SINCE else ()


def kubelet_version(provider: str, version: str) -> str:
    """`nodeInfo.kubeletVersion`: a Kubernetes version first, for tools that parse it, then who we are."""
    return f"{KUBERNETES_VERSION}-vk-{provider}-{version}"


def node_object(identity: NodeIdentity, observation: NodeObservation, *, now: datetime.datetime) -> Json:
    """The Node to register: created whole where there is none of that name."""
    spec: Json = {}
    if taints := node_taints(identity):
        spec["taints"] = taints
    if observation.provider_id:
        spec["providerID"] = observation.provider_id
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": identity.node_name,
            "labels": node_labels(identity, observation),
            "annotations": dict(observation.annotations),
        },
        "spec": spec,
        "status": node_status(identity, observation, current=None, now=now),
    }


def node_labels(identity: NodeIdentity, observation: NodeObservation) -> dict[str, str]:
    """
    The labels that we want on the node.

    Those by which virtual nodes are known, the well-known ones (Kubernetes docs, "Well-Known Labels,
    Annotations and Taints"), the provider's, then the operator's. Cloud load balancers are told to leave
    the node out: its pods are not behind its address.
    """
    labels = {
        "type": "virtual-kubelet",
        "kubernetes.io/role": "agent",
        "kubernetes.io/hostname": identity.node_name,
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
    }
    if system := observation.node_info.get("operatingSystem"):
        labels["kubernetes.io/os"] = system
    if architecture := observation.node_info.get("architecture"):
        labels["kubernetes.io/arch"] = architecture
    return {**labels, **observation.labels, **identity.labels}


def node_taints(identity: NodeIdentity) -> list[Json]:
    """`spec.taints`, ours only."""
    return [
        {"key": t.key, "value": t.value, "effect": t.effect}
        if t.value
        else {"key": t.key, "effect": t.effect}
        for t in identity.taints
    ]


# --- status -----------------------------------------------------------------------------------------------


def node_status(
    identity: NodeIdentity,
    observation: NodeObservation,
    *,
    current: Json | None,
    now: datetime.datetime,
) -> Json:
    """
    The node's status, as far as it is ours.

    Args:
        identity: who it is.
        observation: what the provider sees now.
        current: the status that the API server has: a condition that stays keeps its transition time.
        now: the heartbeat of every condition.
    """
    addresses = [{"type": "InternalIP", "address": ip} for ip in identity.addresses]
    status: Json = {
        "capacity": dict(observation.capacity),
        "allocatable": dict(observation.allocatable),
        "conditions": _conditions(observation.conditions, current, now),
        "addresses": [*addresses, {"type": "Hostname", "address": identity.node_name}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": identity.port}},
        "nodeInfo": {
            **{name: observation.node_info.get(name, "") for name in _INFO_FIELDS},
            "kubeletVersion": kubelet_version(identity.provider, identity.version),
        },
    }
    if identity.declared_features or (current or {}).get("declaredFeatures"):
        status["declaredFeatures"] = list(identity.declared_features)
    return status


def _conditions(
    conditions: Iterable[NodeCondition], current: Json | None, now: datetime.datetime
) -> list[Json]:
    moment = clock.rfc3339(now)
    present = {c["type"]: c for c in (current or {}).get("conditions") or ()}
    return [_condition(c, present.get(c.type), moment) for c in conditions]


def _condition(condition: NodeCondition, present: Json | None, now: str) -> Json:
    since: str | None = None
    if present is not None and present.get("status") == condition.status:
        since = present.get("lastTransitionTime")
    return {
        "type": condition.type,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since or now,
    }


def not_ready_conditions(message: str, *, now: datetime.datetime, current: Json | None = None) -> list[Json]:
    """
    The Ready condition of a node that is about to leave, so that pods move away at once and not after 40 s.

    Args:
        message: why, for people.
        now: its heartbeat.
        current: the status that the API server has.
    """
    return _conditions([NodeCondition("Ready", "False", "KubeletNotReady", message)], current, now)


def status_changed(old: Json, new: Json) -> bool:
    """
    Whether `new`, ours, says more than that time has passed since `old`, the API server's.

    Heartbeats do not count, nor how a quantity is written, nor what others have added to `old`, nor that a
    feature we declare is missing there: an API server may drop it.
    """
    if set(old.get("declaredFeatures") or ()) - set(new.get("declaredFeatures") or ()):
        return True
    if any(old.get(name) != new[name] for name in ("addresses", "daemonEndpoints")):
        return True
    if any(_amounts(old.get(name)) != _amounts(new[name]) for name in ("capacity", "allocatable")):
        return True
    info: Json = old.get("nodeInfo") or {}
    if any(info.get(name, "") != value for name, value in new["nodeInfo"].items()):
        return True
    present = {c["type"]: _verdict(c) for c in old.get("conditions") or ()}
    return any(present.get(c["type"]) != _verdict(c) for c in new["conditions"])


def _verdict(condition: Json) -> tuple[str, str, str]:
    return condition.get("status", ""), condition.get("reason", ""), condition.get("message", "")


def _amounts(quantities: Mapping[str, str] | None) -> dict[str, Fraction]:
    return {name: quantity.parse(value) for name, value in (quantities or {}).items()}


# --- lease ------------------------------------------------------------------------------------------------


def lease_object(
    node_name: str, node_uid: str, *, now: datetime.datetime, duration_s: int = LEASE_DURATION_S
) -> Json:
    """The node's Lease, to be created; it goes when the Node with that uid goes."""
    lease: Json = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": node_name,
            "namespace": LEASE_NAMESPACE,
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": node_name, "uid": node_uid},
            ],
        },
        "spec": {},
    }
    return renewed_lease(lease, node_name, now=now, duration_s=duration_s)


def renewed_lease(
    lease: Json, node_name: str, *, now: datetime.datetime, duration_s: int = LEASE_DURATION_S
) -> Json:
    """That lease held by this node from now on; a new object, the rest of it as it was."""
    spec: Json = {
        **(lease.get("spec") or {}),
        "holderIdentity": node_name,
        "leaseDurationSeconds": duration_s,
        "renewTime": clock.rfc3339_micro(now),
    }
    return {**lease, "spec": spec}
