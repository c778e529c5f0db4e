"""
What a pod refers to beside itself: ConfigMaps, Secrets, tokens and Services.

`required_references` lists them (pure); a controller fetches them; the provider gets the answers as one
`References` value. An answer may be that an object is missing: whether that matters is decided where the
value is used, because ``optional: true`` and "the other containers run all the same" are rules of env and
volumes, not of fetching.

Values from Secrets stay marked as such (`SecretData`, whose `repr` shows nothing), so that a platform that
can keep a secret gets the chance.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from vkubelet.errors import PodReferenceError
from vkubelet.model.pod import Json, Pod

__all__ = [
    "ConfigMapData",
    "ReferenceNames",
    "References",
    "SecretData",
    "ServiceAccountToken",
    "ServiceData",
    "ServicePort",
    "TokenKey",
    "Unavailable",
    "required_references",
]


@dataclass(frozen=True, slots=True)
class ConfigMapData:
    """`data` and decoded `binaryData` of a ConfigMap."""

    data: Mapping[str, str]
    binary_data: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SecretData:
    """Decoded `data` of a Secret; hidden from `repr`."""

    data: Mapping[str, bytes] = field(repr=False)
    type: str = "Opaque"


@dataclass(frozen=True, slots=True)
class ServiceAccountToken:
    """An answer to a TokenRequest; hidden from `repr`."""

    token: str = field(repr=False)
    expires_at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Unavailable:
    """
    It could not be read.

    Attributes:
        message: the kubelet's, such as ``configmap "app" not found``.
        missing: the API server says that it does not exist; else it may well (no permission, no answer).
    """

    message: str
    missing: bool


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Which token: `audience` "" means the API server's own."""

    audience: str
    expiration_s: int


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service."""

    name: str
    port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class ServiceData:
    """A Service with a cluster IP, for the environment (`model.environment`)."""

    namespace: str
    name: str
    cluster_ip: str
    ports: tuple[ServicePort, ...]


@dataclass(frozen=True, slots=True)
class ReferenceNames:
    """What must be fetched for a pod; objects are in the pod's namespace."""

    config_maps: frozenset[str] = frozenset()
    secrets: frozenset[str] = frozenset()
    tokens: frozenset[TokenKey] = frozenset()


@dataclass(frozen=True, slots=True)
class References:
    """
    The answers, a snapshot that never changes; a newer one replaces it whole.

    `services` are those of the pod's namespace plus ``default/kubernetes``.
    """

    config_maps: Mapping[str, ConfigMapData | Unavailable] = field(default_factory=dict)
    secrets: Mapping[str, SecretData | Unavailable] = field(default_factory=dict)
    tokens: Mapping[TokenKey, ServiceAccountToken | Unavailable] = field(default_factory=dict)
    services: tuple[ServiceData, ...] = ()

    def config_map(self, name: str, *, optional: bool = False) -> ConfigMapData | None:
        """
        The ConfigMap; None when it is missing and `optional`.

        Raises:
            PodReferenceError: it is mandatory, or could not be read for another reason than being missing.
        """
        found = self.config_maps.get(name) or Unavailable(f'configmap "{name}" was not fetched', False)
        if isinstance(found, Unavailable):
            _check_optional(found, optional=optional)
            return None
        return found

    def secret(self, name: str, *, optional: bool = False) -> SecretData | None:
        """The Secret; rules and errors as for `config_map`."""
        found = self.secrets.get(name) or Unavailable(f'secret "{name}" was not fetched', False)
        if isinstance(found, Unavailable):
            _check_optional(found, optional=optional)
            return None
        return found

    def token(self, key: TokenKey) -> ServiceAccountToken:
        """
        The token.

        Raises:
            PodReferenceError: it could not be had.
        """
        found = self.tokens.get(key) or Unavailable("the service account token was not fetched", False)
        if isinstance(found, Unavailable):
            raise PodReferenceError(found.message)
        return found

    def unavailable(self) -> tuple[Unavailable, ...]:
        """Everything that could not be read: worth another try later."""
        answers = (*self.config_maps.values(), *self.secrets.values(), *self.tokens.values())
        return tuple(a for a in answers if isinstance(a, Unavailable))


def _check_optional(found: Unavailable, *, optional: bool) -> None:
    if not (optional and found.missing):
        raise PodReferenceError(found.message)


def required_references(pod: Pod) -> ReferenceNames:
    """Every ConfigMap, Secret and token that the pod's env, volumes and imagePullSecrets name."""
    config_maps: set[str] = set()
    secrets: set[str] = set(pod.image_pull_secrets)
    tokens: set[TokenKey] = set()
    for kind, source in _sources(pod):
        match kind:
            case "configMap" | "configMapRef" | "configMapKeyRef":
                config_maps.add(source["name"])
            case "secretRef" | "secretKeyRef":
                secrets.add(source["name"])
            case "secret":
                secrets.add(source.get("secretName") or source["name"])
            case "serviceAccountToken":
                tokens.add(TokenKey(source.get("audience") or "", source.get("expirationSeconds") or 3600))
            case _:
                pass
    return ReferenceNames(frozenset(config_maps), frozenset(secrets), frozenset(tokens))


def _sources(pod: Pod) -> Iterator[tuple[str, Json]]:
    for container in pod.all_containers():
        for entry in container.env:
            yield from (entry.get("valueFrom") or {}).items()
        for entry in container.env_from:
            yield from ((k, v) for k, v in entry.items() if isinstance(v, dict))
    for volume in pod.volumes:
        if volume.source_type == "projected":
            for projection in volume.source.get("sources") or ():
                yield from projection.items()
        else:
            yield volume.source_type, volume.source
