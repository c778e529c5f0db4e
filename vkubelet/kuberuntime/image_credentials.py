"""
Registry credentials from `imagePullSecrets`.

Pure: secrets in, the credentials that fit an image out, most specific first. Types
``kubernetes.io/dockerconfigjson`` and ``kubernetes.io/dockercfg``; matching as the kubelet's keyring does it
(Kubernetes docs, "Images", "Interpretation of config.json"): host globs by label, ports exactly, paths as
prefixes. An entry that cannot be read is skipped: another secret may fit.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import json
from collections.abc import Iterable, Iterator
from typing import Any

from vkubelet.kuberuntime import image_names
from vkubelet.kuberuntime.contract import RegistryCredentials
from vkubelet.model.references import SecretData

__all__ = ["credentials_for"]

_DEFAULT_REGISTRY = "index.docker.io"


def credentials_for(image: str, secrets: Iterable[SecretData]) -> tuple[RegistryCredentials, ...]:
    """The credentials to try for `image`, in this order."""
    entries = [entry for secret in secrets for entry in _entries(secret)]
    entries.sort(key=lambda entry: entry[0], reverse=True)
    name = image.partition("@")[0]
    found = [credentials for place, credentials in entries if _matches(place, name)]
    if not found and image_names.is_default_registry(image):
        found = [credentials for place, credentials in entries if place == _DEFAULT_REGISTRY]
    return tuple(dict.fromkeys(found))


def _entries(secret: SecretData) -> Iterator[tuple[str, RegistryCredentials]]:
    """Place (host with optional path) and credentials of each entry of a secret."""
    if ".dockerconfigjson" in secret.data:
        config = _parsed(secret.data[".dockerconfigjson"]).get("auths")
    else:
        config = _parsed(secret.data.get(".dockercfg", b"{}"))
    for location, entry in (config if isinstance(config, dict) else {}).items():
        if isinstance(entry, dict) and (login := _login(entry)) is not None:
            place = _place(location)
            yield place, RegistryCredentials(*login, registry=place)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _login(entry: dict[str, Any]) -> tuple[str, str] | None:
    """User and password: of ``auth`` where there is one, which may contain colons in the password."""
    auth = entry.get("auth")
    if not auth:
        username, password = entry.get("username"), entry.get("password")
        return (str(username), str(password or "")) if username else None
    try:
        text = base64.b64decode(str(auth).strip() + "==").decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    username, colon, password = text.rstrip("\x00").partition(":")
    return (username, password) if colon else None


def _place(location: str) -> str:
    """Host and path of an entry's key, which may be a URL and end in an API version."""
    bare = location.removeprefix("https://").removeprefix("http://")
    host, _, path = bare.partition("/")
    for version in ("v1/", "v2/"):
        path = path.removeprefix(version)
    return f"{host}/{path}".rstrip("/") if path not in ("v1", "v2") else host


def _matches(place: str, image: str) -> bool:
    glob_host, _, glob_path = place.partition("/")
    host, _, path = image.partition("/")
    glob_name, glob_port = _port(glob_host)
    name, port = _port(host)
    labels, globs = name.split("."), glob_name.split(".")
    return (
        glob_port == port
        and len(labels) == len(globs)
        and path.startswith(glob_path)
        and all(fnmatch.fnmatchcase(label, glob) for label, glob in zip(labels, globs, strict=True))
    )


def _port(host: str) -> tuple[str, str]:
    name, _, port = host.rpartition(":")
    return (name, port) if name else (host, "")
