"""
Who we are to the API server, where the cluster itself says so: TLS bootstrapping, as the kubelet's.

With ``--bootstrap-kubeconfig`` and no ``--kubeconfig`` yet, the credentials in the former ask for a client
certificate for this node, and a kubeconfig that names its file is written. From then on the certificate is
renewed with itself, in time; a node that was away for too long starts over. A ``--kubeconfig`` that leads to
anything else than that file was written by somebody else and is never touched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from vkubelet.clock import Clock
from vkubelet.errors import ApiUnavailableError, ConfigurationError
from vkubelet.kube.certificate_requests import CertificateRequestApi
from vkubelet.kube.certificates import CertificateManager, client_request, is_usable
from vkubelet.kube.client import KubeClient
from vkubelet.logs import get_logger
from vkubelet.settings import Settings
from vkubelet.settings.checks import current_cluster_and_user
from vkubelet.settings.files import read_mapping

__all__ = ["bootstrap", "keep_certificate"]

log = get_logger("identity")

_OPTION = "--bootstrap-kubeconfig"
_FILE_KEYS = ("certificate-authority",)
_LEAST_WAIT_S = 1.0
_NAME = "kubelet-client"


async def bootstrap(settings: Settings, clock: Clock) -> None:
    """
    Make sure that ``--kubeconfig`` is there, which may take until somebody approves our request.

    Raises:
        ConfigurationError: the bootstrap kubeconfig cannot be used, or a file cannot be written.
    """
    kubeconfig, source = settings.kubeconfig, settings.bootstrap_kubeconfig
    if source is None or kubeconfig is None:
        return
    certificate_file = _certificate_file(settings)
    usable = is_usable(certificate_file, clock)
    if kubeconfig.exists() and (usable or not _leads_to(kubeconfig, certificate_file)):
        return
    if not usable:
        async with KubeClient.connect(source, clock=clock, option=_OPTION) as client:
            await _check(client)
            await _manager(settings, client, clock).ensure()
    _write_kubeconfig(kubeconfig, source, certificate_file)
    log.info("kubeconfig written", file=str(kubeconfig), certificate=str(certificate_file))


async def keep_certificate(settings: Settings, client: KubeClient, clock: Clock) -> None:
    """
    Renew our client certificate for ever, if it is one that we asked for; else return.

    Raises:
        ConfigurationError: it has expired and only a new start with the bootstrap kubeconfig can help.
    """
    if client.credentials.certificate_file != _certificate_file(settings):
        return
    changed = asyncio.Event()
    manager = _manager(settings, client, clock, changed.set)
    async with asyncio.TaskGroup() as group:
        group.create_task(manager.run(), name="client certificate")
        group.create_task(_show_new_ones(client, changed, clock, group), name="new client certificates")
        if settings.bootstrap_kubeconfig is not None:
            group.create_task(_end_when_expired(client, clock), name="end of the client certificate")


async def _show_new_ones(
    client: KubeClient, changed: asyncio.Event, clock: Clock, group: asyncio.TaskGroup
) -> None:
    while True:
        await changed.wait()
        changed.clear()
        try:
            client.credentials.reload_certificate()
        except ConfigurationError as error:
            log.error("new client certificate cannot be used", error=str(error))
        else:
            group.create_task(client.renew_connections(clock), name="end of old connections")
            await asyncio.sleep(0)


async def _end_when_expired(client: KubeClient, clock: Clock) -> None:
    """As the kubelet: without a valid certificate nothing can be asked for, but another start bootstraps."""
    while (expires_at := client.credentials.certificate_expires_at) is not None:
        await clock.sleep(max((expires_at - clock.now()).total_seconds(), _LEAST_WAIT_S))
        client.credentials.check_certificate()


async def _check(client: KubeClient) -> None:
    """Tell credentials that are no good at once; an API server that is not up yet is waited for later."""
    try:
        await client.check_credentials()
    except ApiUnavailableError as error:
        log.warning("the API server does not answer, will be tried again", error=str(error))


def _ignore() -> None:
    """Nobody uses the certificate yet."""


def _manager(
    settings: Settings, client: KubeClient, clock: Clock, on_change: Callable[[], None] = _ignore
) -> CertificateManager:
    return CertificateManager(
        CertificateRequestApi(client, clock),
        client_request(settings.node_name),
        _directory(settings),
        _NAME,
        clock=clock,
        on_change=on_change,
        on_pending=_tell_pending,
    )


def _directory(settings: Settings) -> Path:
    return settings.root_dir / "pki"


def _certificate_file(settings: Settings) -> Path:
    return _directory(settings) / f"{_NAME}-current.pem"


def _tell_pending(request: str) -> None:
    log.warning(
        "client certificate waits to be approved", approve_with=f"kubectl certificate approve {request}"
    )


# --- the kubeconfig ---------------------------------------------------------------------------------------


def _leads_to(kubeconfig: Path, certificate_file: Path) -> bool:
    try:
        _, user = current_cluster_and_user(read_mapping(kubeconfig, "--kubeconfig"))
    except (ConfigurationError, ValueError):
        return False  # whoever reads it next says what is wrong with it
    return user.get("client-certificate") == str(certificate_file)


def _write_kubeconfig(path: Path, source: Path, certificate_file: Path) -> None:
    """The cluster of `source`, and the certificate as the user."""
    try:
        cluster, _ = current_cluster_and_user(read_mapping(source, _OPTION))
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "default-cluster", "cluster": _absolute(cluster, source.parent)}],
            "users": [
                {
                    "name": "default-auth",
                    "user": {
                        "client-certificate": str(certificate_file),
                        "client-key": str(certificate_file),
                    },
                }
            ],
            "contexts": [
                {
                    "name": "default-context",
                    "context": {"cluster": "default-cluster", "user": "default-auth", "namespace": "default"},
                }
            ],
            "current-context": "default-context",
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            yaml.safe_dump(document, file, sort_keys=False)
        beside.replace(path)
    except ValueError as error:
        raise ConfigurationError(f"{_OPTION}: {source} {error}") from error
    except OSError as error:
        raise ConfigurationError(f"--kubeconfig: cannot write {path}: {error.strerror}") from error


def _absolute(cluster: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Paths in a kubeconfig are relative to it, and ours stands elsewhere."""
    return {
        key: str(directory / value) if key in _FILE_KEYS and value else value
        for key, value in cluster.items()
    }
