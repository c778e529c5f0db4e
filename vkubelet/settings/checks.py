"""
What a look at the machine says about values that are well formed: are the files there, do they fit?

Each function gives the rest of a sentence that starts with the option's name, or None when all is well.
Expiry of certificates and the API server's answer are left to those who use them: they change while we run.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vkubelet.errors import ConfigurationError
from vkubelet.settings.files import read_mapping
from vkubelet.settings.parsers import shown

__all__ = [
    "client_ca_problem",
    "current_cluster_and_user",
    "key_pair_problem",
    "kubeconfig_problem",
    "provider_problem",
    "readable_problem",
    "root_dir_problem",
]

_KUBECONFIG_FILES = {
    "cluster": ("certificate-authority",),
    "user": ("client-certificate", "client-key", "tokenFile"),
}


def provider_problem(name: str, installed: Collection[str]) -> str | None:
    """Is a provider of this name installed?"""
    if name in installed:
        return None
    if not installed:
        return f"{shown(name)} is not installed, nor is any other provider; install vkubelet with pip"
    return f"{shown(name)} is not installed; use one of {', '.join(sorted(installed))}"


def readable_problem(path: Path) -> str | None:
    """Is it a file, and may we read it?"""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return None


def root_dir_problem(path: Path) -> str | None:
    """Can the directory be made, or does it exist, and may we write there?"""
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is not a directory; choose another place"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{existing} is not writable; choose another place or change its permissions"
    return None


def key_pair_problem(certificate: Path, key: Path) -> str | None:
    """Is it a certificate with the key that belongs to it?"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty passphrase in place of OpenSSL's question on the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        return f"{certificate} and the key {key} cannot be used together: {_tls_reason(error)}"
    return None


def client_ca_problem(path: Path) -> str | None:
    """Does the file hold at least one certificate?"""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(path)
    except (OSError, ValueError) as error:
        return f"{path} holds no usable certificate: {_tls_reason(error)}"
    return None


def _tls_reason(error: OSError | ValueError) -> str:
    reason = getattr(error, "reason", None)
    return str(reason).replace("_", " ").lower() if reason else "PEM is expected"


def kubeconfig_problem(path: Path) -> str | None:
    """Does its current context lead to a server and a user, and are the files that they name there?"""
    problem = readable_problem(path)
    if problem is not None:
        several = os.pathsep in str(path)
        return f"{path} lists several files; give one" if several else problem
    try:
        document = read_mapping(path, "")
        cluster, user = current_cluster_and_user(document)
    except ConfigurationError as error:
        return str(error).removeprefix(": ")
    except ValueError as error:
        return f"{path} {error}"
    if not isinstance(cluster.get("server"), str) or not cluster["server"]:
        return f"{path} names no server for the cluster of its current context"
    return _referenced_files_problem(path, {"cluster": cluster, "user": user})


def current_cluster_and_user(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """
    The cluster and the user of a kubeconfig's current context.

    Raises:
        ValueError: what it lacks, as the rest of a sentence that starts with its name.
    """
    name = document.get("current-context")
    if not name:
        raise ValueError("has no current-context; set one with kubectl config use-context")
    context = _named(document, "contexts", name, "context")
    cluster = _named(document, "clusters", context.get("cluster"), "cluster")
    return cluster, _named(document, "users", context.get("user"), "user")


def _named(document: Mapping[str, Any], section: str, name: object, kind: str) -> Mapping[str, Any]:
    entries = document.get(section)
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(kind), dict):
            found: Mapping[str, Any] = entry[kind]
            return found
    raise ValueError(f"has no {kind} {shown(str(name))}, which its current context needs")


def _referenced_files_problem(path: Path, parts: Mapping[str, Mapping[str, Any]]) -> str | None:
    for kind, keys in _KUBECONFIG_FILES.items():
        for key in keys:
            named = parts[kind].get(key)
            problem = readable_problem(path.parent / str(named)) if named else None
            if problem is not None:
                return f"{path} names a {key} that is of no use: {problem}"
    return None
