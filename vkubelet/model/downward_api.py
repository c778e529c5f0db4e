"""
The downward API: what a pod may know about itself, as text (Kubernetes docs, "Downward API").

Environment variables and volumes both read it. What is known only once the pod has a sandbox (addresses) and
what only the node knows (allocatable) comes in with `EnvironmentContext`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from vkubelet.errors import PodReferenceError
from vkubelet.model import quantity
from vkubelet.model.pod import Container, Json, Pod

__all__ = ["EnvironmentContext", "field_value", "resource_value"]


@dataclass(frozen=True, slots=True)
class EnvironmentContext:
    """
    What a container's environment needs beside the pod.

    Attributes:
        pod_ips: primary first; on the host's network the node's are taken instead.
        host_ips: the node's, primary first.
        node_allocatable: quantities by resource name: the limits of a container that has none.
    """

    pod_ips: tuple[str, ...] = ()
    host_ips: tuple[str, ...] = ()
    node_allocatable: Mapping[str, str] = field(default_factory=dict)


_SUBSCRIPTED = re.compile(r"(?P<path>.+?)\['(?P<key>.*)'\]", re.DOTALL)
_DEFAULTED = ("cpu", "memory", "ephemeral-storage")


def field_value(pod: Pod, field_path: str, context: EnvironmentContext) -> str:
    """
    The value of a `fieldRef`.

    A label or annotation that is not there is "". All labels or annotations are given as lines
    ``key="value"``, sorted, quoted as Go does.

    Raises:
        PodReferenceError: there is no such field.
    """
    if subscripted := _SUBSCRIPTED.fullmatch(field_path):
        return _subscripted(pod, field_path, subscripted["path"], subscripted["key"])
    pod_ips = context.pod_ips or (context.host_ips if pod.host_network else ())
    match field_path:
        case "metadata.name":
            return pod.name
        case "metadata.namespace":
            return pod.namespace
        case "metadata.uid":
            return pod.uid
        case "metadata.labels":
            return _lines(pod.labels)
        case "metadata.annotations":
            return _lines(pod.annotations)
        case "spec.nodeName" | "spec.host":
            return pod.node_name
        case "spec.serviceAccountName":
            return pod.service_account_name
        case "status.hostIP":
            return context.host_ips[0] if context.host_ips else ""
        case "status.hostIPs":
            return ",".join(context.host_ips)
        case "status.podIP":
            return pod_ips[0] if pod_ips else ""
        case "status.podIPs":
            return ",".join(pod_ips)
        case _:
            raise PodReferenceError(f"unsupported fieldPath: {field_path}")


def _subscripted(pod: Pod, field_path: str, path: str, key: str) -> str:
    match path:
        case "metadata.labels":
            return pod.labels.get(key, "")
        case "metadata.annotations":
            return pod.annotations.get(key, "")
        case _:
            raise PodReferenceError(f'fieldPath "{field_path}" does not support subscript')


def _lines(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={_quoted(values[key])}" for key in sorted(values))


_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
_ESCAPES |= {'"': '\\"', "\\": "\\\\"}


def _quoted(text: str) -> str:
    """As Go's `strconv.Quote`."""
    return '"' + "".join(_escaped(c) for c in text) + '"'


def _escaped(character: str) -> str:
    if (escape := _ESCAPES.get(character)) is not None:
        return escape
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def resource_value(
    pod: Pod, container: Container | None, reference: Json, context: EnvironmentContext
) -> str:
    """
    The value of a `resourceFieldRef`: a request or limit divided by `divisor`, rounded up.

    Args:
        pod: the pod.
        container: whose environment it is for; None in a volume, where `containerName` is mandatory.
        reference: the `resourceFieldRef`.
        context: where a limit is missing, the node's allocatable counts.

    Raises:
        PodReferenceError: there is no such container or resource.
    """
    if name := reference.get("containerName"):
        container = pod.container(name)
    if container is None:
        raise PodReferenceError(f"container {name or ''} not found")
    kind, _, resource = str(reference["resource"]).partition(".")
    if kind not in ("limits", "requests") or not (
        resource in _DEFAULTED or resource.startswith("hugepages-")
    ):
        raise PodReferenceError(f"unsupported container resource : {reference['resource']}")
    amount: str = (container.resources.get(kind) or {}).get(resource, "0")
    if kind == "limits" and resource in _DEFAULTED and quantity.parse(amount) == 0:
        amount = context.node_allocatable.get(resource, "0")
    divisor = str(reference.get("divisor") or "1")
    if quantity.parse(divisor) == 0:
        divisor = "1"
    units = quantity.millicores if resource == "cpu" else quantity.bytes_
    return str(-(-units(amount) // units(divisor)))
