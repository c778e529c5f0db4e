"""
The files of configMap, secret, downwardAPI and projected volumes: what is to be where, with which mode.

Pure: from the volume and what it refers to follow paths, contents and modes. Writing them so that a running
container never sees half of an update is the pod engine's.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field

from vkubelet.errors import PodReferenceError
from vkubelet.model import downward_api
from vkubelet.model.downward_api import EnvironmentContext
from vkubelet.model.pod import Json, Pod, Volume
from vkubelet.model.references import References, ServiceAccountToken, TokenKey

__all__ = ["FILE_VOLUME_TYPES", "VolumeFile", "VolumeFiles", "token_refresh_at", "volume_files"]

FILE_VOLUME_TYPES = frozenset({"configMap", "secret", "downwardAPI", "projected"})
"""The volume types whose files `volume_files` knows."""

_DEFAULT_MODE = 0o644
_MAX_PATH_CHARS = 4096
_MAX_NAME_CHARS = 255


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """One file; `repr` does not show its content. `secret`: from a Secret, or a token."""

    content: bytes = field(repr=False)
    mode: int
    secret: bool = False


VolumeFiles = dict[str, VolumeFile]
"""Files by their path in the volume: relative, normal, never upwards."""


def volume_files(
    pod: Pod, volume: Volume, references: References, context: EnvironmentContext | None = None
) -> VolumeFiles:
    """
    The files of one volume (Kubernetes docs, "Volumes", "Projected Volumes").

    An optional ConfigMap or Secret that is missing gives none, an optional key is left out. In a projected
    volume a later source wins.

    Args:
        pod: the pod.
        volume: one of its volumes, of a type in `FILE_VOLUME_TYPES`.
        references: what it refers to.
        context: the node's allocatable resources, for `resourceFieldRef`.

    Raises:
        PodReferenceError: something mandatory is missing, or a path leads out of the volume; the message
            is the kubelet's.
        ValueError: the volume is of another type.
    """
    source = volume.source
    mode = _mode(source.get("defaultMode"), _DEFAULT_MODE)
    context = context or EnvironmentContext()
    match volume.source_type:
        case "configMap" | "secret" | "downwardAPI":
            files = _projection(pod, volume.source_type, source, mode, references, context)
        case "projected":
            files = _projected(pod, source.get("sources") or [], mode, references, context)
        case other:
            raise ValueError(f"a volume of type {other} has no files of its own")
    return {_checked_path(path): file for path, file in files.items()}


def _projected(
    pod: Pod, sources: list[Json], mode: int, references: References, context: EnvironmentContext
) -> VolumeFiles:
    """All sources together; every error is told, as the kubelet does."""
    files: VolumeFiles = {}
    errors: list[str] = []
    for source in sources:
        for kind, projection in source.items():
            try:
                files.update(_projection(pod, kind, projection, mode, references, context))
            except PodReferenceError as error:
                errors.append(str(error))
    if errors:
        raise PodReferenceError(errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]")
    return files


def _projection(
    pod: Pod, kind: str, source: Json, mode: int, references: References, context: EnvironmentContext
) -> VolumeFiles:
    match kind:
        case "configMap":
            return _config_map(source, mode, references)
        case "secret":
            return _secret(source, mode, references)
        case "downwardAPI":
            items = source.get("items") or []
            return {i["path"]: _downward_file(pod, i, mode, context) for i in items}
        case "serviceAccountToken":
            key = TokenKey(source.get("audience") or "", source.get("expirationSeconds") or 3600)
            token = references.token(key).token.encode()
            return {source["path"]: VolumeFile(token, mode, secret=True)}
        case other:
            raise PodReferenceError(f"a projected volume with {other} is not supported")


def _config_map(source: Json, mode: int, references: References) -> VolumeFiles:
    found = references.config_map(source.get("name") or "", optional=bool(source.get("optional")))
    contents: dict[str, bytes] = {}
    if found is not None:
        contents = {key: text.encode() for key, text in found.data.items()} | dict(found.binary_data)
    return _selected(source, contents, mode, missing="configmap references non-existent config key: ")


def _secret(source: Json, mode: int, references: References) -> VolumeFiles:
    # A volume names it secretName, a projection name.
    name = source.get("secretName") or source.get("name") or ""
    found = references.secret(name, optional=bool(source.get("optional")))
    contents = found.data if found is not None else {}
    return _selected(source, contents, mode, missing="references non-existent secret key: ", secret=True)


def _selected(
    source: Json, contents: Mapping[str, bytes], mode: int, *, missing: str, secret: bool = False
) -> VolumeFiles:
    """Every key, or those that `items` lists under the paths it gives."""
    items = source.get("items")
    if not items:
        return {key: VolumeFile(contents[key], mode, secret) for key in sorted(contents)}
    files: VolumeFiles = {}
    for item in items:
        key = item["key"]
        if key in contents:
            files[item["path"]] = VolumeFile(contents[key], _mode(item.get("mode"), mode), secret)
        elif not source.get("optional"):
            raise PodReferenceError(missing + key)
    return files


def _downward_file(pod: Pod, item: Json, mode: int, context: EnvironmentContext) -> VolumeFile:
    if reference := item.get("fieldRef"):
        value = downward_api.field_value(pod, reference["fieldPath"], context)
    else:
        value = downward_api.resource_value(pod, None, item.get("resourceFieldRef") or {}, context)
    return VolumeFile(value.encode(), _mode(item.get("mode"), mode))


def _mode(given: int | None, default: int) -> int:
    """Permission bits; JSON writes them as a decimal number (420 is 0644)."""
    return default if given is None else given & 0o7777


def _checked_path(path: str) -> str:
    """`path`, normal; refused where it could lead out of the volume or clash with its book-keeping."""
    if not path:
        raise PodReferenceError('invalid path: must not be empty: ""')
    if path.startswith("/"):
        raise PodReferenceError(f"invalid path: must be relative path: {path}")
    if len(path) > _MAX_PATH_CHARS:
        raise PodReferenceError(f"invalid path: must be less than or equal to {_MAX_PATH_CHARS} characters")
    normal = posixpath.normpath(path)
    names = path.split("/")
    if ".." in names:
        raise PodReferenceError(f"invalid path: must not contain '..': {path}")
    if any(len(name) > _MAX_NAME_CHARS for name in names):
        raise PodReferenceError(
            f"invalid path: filenames must be less than or equal to {_MAX_NAME_CHARS} characters"
        )
    if normal.startswith(".."):
        raise PodReferenceError(f"invalid path: must not start with '..': {path}")
    if normal == ".":
        raise PodReferenceError(f"invalid path: must name a file: {path}")
    return normal


# --- tokens -----------------------------------------------------------------------------------------------

_REFRESH_AT_PERCENT = 80
_MAX_AGE = datetime.timedelta(hours=24)
_USUAL_LIFETIME = datetime.timedelta(hours=1)


def token_refresh_at(token: ServiceAccountToken) -> datetime.datetime:
    """
    When a token is to be renewed: after 80 % of its life, at the latest after 24 hours.

    That is the kubelet's rule, so a container that reads the file anew now and then never holds an expired
    token (Kubernetes docs, "Managing Service Accounts"). Its life begins at the ``iat`` of the token
    itself; where that cannot be read it is taken to be an hour.
    """
    issued_at = _issued_at(token.token) or token.expires_at - _USUAL_LIFETIME
    lifetime = token.expires_at - issued_at
    return min(issued_at + lifetime * _REFRESH_AT_PERCENT / 100, issued_at + _MAX_AGE)


def _issued_at(token: str) -> datetime.datetime | None:
    """The ``iat`` claim (RFC 7519), None where the token is not a JWT that has one."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.datetime.fromtimestamp(claims["iat"], datetime.UTC)
    except (binascii.Error, UnicodeDecodeError, ValueError, KeyError, TypeError, OverflowError):
        return None
