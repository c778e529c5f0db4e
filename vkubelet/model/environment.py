"""
A container's environment: Service variables, `envFrom`, `env` and ``$(VAR)``.

Each value keeps where it came from (`EnvVar.secret`), so that a platform which can keep a secret is told
which ones are; a value into which a secret was expanded is one too. The order is fixed (the kubelet's is
that of a Go map, thus random): Services by name, then `envFrom` and `env` as written, a later name winning.

There is no filter for odd names: since Kubernetes 1.34 every printable ASCII name without ``=`` is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vkubelet.errors import PodReferenceError
from vkubelet.model import downward_api
from vkubelet.model.downward_api import EnvironmentContext
from vkubelet.model.pod import Container, Json, Pod
from vkubelet.model.references import References, ServiceData

__all__ = ["EnvVar", "EnvironmentContext", "container_environment", "expand_command", "service_environment"]


@dataclass(frozen=True, slots=True)
class EnvVar:
    """One variable; `repr` does not show its value. `secret`: all or part of it comes from a Secret."""

    name: str
    value: str = field(repr=False)
    secret: bool = False


def container_environment(
    pod: Pod, container: Container, references: References, context: EnvironmentContext
) -> tuple[EnvVar, ...]:
    """
    All variables that the container starts with, each name once.

    Raises:
        PodReferenceError: a mandatory ConfigMap, Secret or key is missing, or a field does not exist; the
            message is the kubelet's.
    """
    services = service_environment(pod, references.services)
    declared: dict[str, EnvVar] = {}
    for source in container.env_from:
        declared.update((v.name, v) for v in _from_source(pod, source, references))
    for entry in container.env:
        if entry.get("value"):
            variable = _expanded(entry["name"], entry["value"], declared, services)
        elif entry.get("valueFrom"):
            found = _from_reference(pod, container, entry, references, context)
            if found is None:
                continue
            variable = found
        else:
            variable = EnvVar(entry["name"], "")
        declared[variable.name] = variable
    return (*(v for name, v in services.items() if name not in declared), *declared.values())


# --- envFrom and valueFrom --------------------------------------------------------------------------------


def _from_source(pod: Pod, source: Json, references: References) -> Iterator[EnvVar]:
    """The variables of one `envFrom` entry, sorted by key; none where it is optional and missing."""
    prefix = source.get("prefix") or ""
    if reference := source.get("configMapRef"):
        found = references.config_map(reference["name"], optional=bool(reference.get("optional")))
        for key in sorted(found.data) if found else ():
            yield EnvVar(prefix + key, found.data[key] if found else "")
    if reference := source.get("secretRef"):
        secret = references.secret(reference["name"], optional=bool(reference.get("optional")))
        for key, data in sorted(secret.data.items()) if secret else ():
            yield EnvVar(prefix + key, _text(pod, reference["name"], key, data), secret=True)


def _from_reference(
    pod: Pod, container: Container, entry: Json, references: References, context: EnvironmentContext
) -> EnvVar | None:
    """The variable of an entry with `valueFrom`; None where it is optional and missing."""
    name: str = entry["name"]
    source: Json = entry["valueFrom"]
    if reference := source.get("fieldRef"):
        return EnvVar(name, downward_api.field_value(pod, reference["fieldPath"], context))
    if reference := source.get("resourceFieldRef"):
        return EnvVar(name, downward_api.resource_value(pod, container, reference, context))
    if reference := source.get("configMapKeyRef"):
        value = _config_map_key(pod, reference, references)
        return None if value is None else EnvVar(name, value)
    if reference := source.get("secretKeyRef"):
        value = _secret_key(pod, reference, references)
        return None if value is None else EnvVar(name, value, secret=True)
    raise PodReferenceError(f"environment variable {name} has an unknown source: {', '.join(source)}")


def _config_map_key(pod: Pod, reference: Json, references: References) -> str | None:
    name, key, optional = reference["name"], reference["key"], bool(reference.get("optional"))
    found = references.config_map(name, optional=optional)
    if found is not None and key in found.data:
        return found.data[key]
    if optional:
        return None
    raise PodReferenceError(f"couldn't find key {key} in ConfigMap {pod.namespace}/{name}")


def _secret_key(pod: Pod, reference: Json, references: References) -> str | None:
    name, key, optional = reference["name"], reference["key"], bool(reference.get("optional"))
    found = references.secret(name, optional=optional)
    if found is not None and key in found.data:
        return _text(pod, name, key, found.data[key])
    if optional:
        return None
    raise PodReferenceError(f"couldn't find key {key} in Secret {pod.namespace}/{name}")


def _text(pod: Pod, name: str, key: str, data: bytes) -> str:
    """A Secret's value as text: a variable cannot hold other bytes, here as with the kubelet."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise PodReferenceError(
            f"key {key} in Secret {pod.namespace}/{name} is not UTF-8 text and cannot be an environment "
            "variable: mount it as a volume"
        ) from None


# --- $(VAR) -----------------------------------------------------------------------------------------------

_REFERENCE = re.compile(r"\$(?:\$|\((?P<name>[^)]*)\))", re.DOTALL)


def _expanded(
    name: str, value: str, declared: Mapping[str, EnvVar], services: Mapping[str, EnvVar]
) -> EnvVar:
    used = [declared.get(r["name"]) for r in _REFERENCE.finditer(value) if r["name"] is not None]
    secret = any(v is not None and v.secret for v in used)
    return EnvVar(name, _expand(value, declared, services), secret)


def _expand(text: str, *scopes: Mapping[str, EnvVar]) -> str:
    """
    `text` with each ``$(NAME)`` replaced by the variable, from the first scope that has it.

    ``$$`` is an escaped ``$``; a name that nobody knows, an open bracket and any other ``$`` stay as they
    are (Kubernetes docs, "Define Dependent Environment Variables").
    """

    def replacement(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "$"
        found = next((scope[name] for scope in scopes if name in scope), None)
        return match[0] if found is None else found.value

    return _REFERENCE.sub(replacement, text)


def expand_command(words: Sequence[str], environment: Iterable[EnvVar]) -> tuple[str, ...]:
    """`command` or `args` with ``$(VAR)`` replaced from the container's environment."""
    scope = {v.name: v for v in environment}
    return tuple(_expand(word, scope) for word in words)


# --- Services ---------------------------------------------------------------------------------------------


def service_environment(pod: Pod, services: Iterable[ServiceData]) -> dict[str, EnvVar]:
    """
    The variables that tell of Services (Kubernetes docs, "Service: Environment variables").

    Those of the pod's namespace unless `enableServiceLinks` is false, and always ``default/kubernetes``;
    a Service ``kubernetes`` in the pod's own namespace takes its place.
    """
    chosen: dict[str, ServiceData] = {}
    for service in sorted(services, key=lambda s: (s.namespace == pod.namespace, s.name)):
        is_master = (service.namespace, service.name) == ("default", "kubernetes")
        is_linked = service.namespace == pod.namespace and pod.enable_service_links
        if (is_master or is_linked) and service.cluster_ip not in ("", "None") and service.ports:
            chosen[service.name] = service
    variables = (pair for name in sorted(chosen) for pair in _service_variables(chosen[name]))
    return {name: EnvVar(name, value) for name, value in variables}


def _service_variables(service: ServiceData) -> Iterator[tuple[str, str]]:
    prefix = _variable_name(service.name)
    yield f"{prefix}_SERVICE_HOST", service.cluster_ip
    yield f"{prefix}_SERVICE_PORT", str(service.ports[0].port)
    for port in service.ports:
        if port.name:
            yield f"{prefix}_SERVICE_PORT_{_variable_name(port.name)}", str(port.port)
    host = f"[{service.cluster_ip}]" if ":" in service.cluster_ip else service.cluster_ip
    for index, port in enumerate(service.ports):
        protocol = (port.protocol or "TCP").lower()
        url = f"{protocol}://{host}:{port.port}"
        if index == 0:
            yield f"{prefix}_PORT", url
        port_prefix = f"{prefix}_PORT_{port.port}_{protocol.upper()}"
        yield port_prefix, url
        yield f"{port_prefix}_PROTO", protocol
        yield f"{port_prefix}_PORT", str(port.port)
        yield f"{port_prefix}_ADDR", service.cluster_ip


def _variable_name(name: str) -> str:
    return name.upper().replace("-", "_")
