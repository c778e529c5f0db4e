"""Requests for what pods refer to: ConfigMaps, Secrets, service account tokens, Services."""

from __future__ import annotations

import base64
import binascii
import datetime

from vkubelet.errors import ApiUnavailableError
from vkubelet.kube.rest import RestClient, segment
from vkubelet.model.pod import Json, Pod
from vkubelet.model.references import (
    ConfigMapData,
    SecretData,
    ServiceAccountToken,
    ServiceData,
    ServicePort,
    TokenKey,
)

__all__ = ["ReferenceApi", "parse_config_map", "parse_secret", "parse_service"]


class ReferenceApi:
    """Objects that pods name, through a `RestClient`."""

    services = "/api/v1/services"
    """Every Service of the cluster; list and watch it, with `parse_service`."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def get_config_map(self, namespace: str, name: str) -> ConfigMapData:
        """Raises `NotFoundError` when there is none."""
        return parse_config_map(await self._client.get(_path(namespace, "configmaps", name)))

    async def get_secret(self, namespace: str, name: str) -> SecretData:
        """Raises `NotFoundError` when there is none."""
        return parse_secret(await self._client.get(_path(namespace, "secrets", name)))

    async def request_token(self, pod: Pod, key: TokenKey) -> ServiceAccountToken:
        """
        A token of the pod's service account, bound to the pod: it ends with it (TokenRequest).

        Raises:
            NotFoundError: no such service account.
            ConflictError: the pod was replaced by another of its name.
        """
        answer = await self._client.create(
            f"{_path(pod.namespace, 'serviceaccounts', pod.service_account_name)}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [key.audience] if key.audience else [],
                    "expirationSeconds": key.expiration_s,
                    "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
                },
            },
        )
        status = answer["status"]
        return ServiceAccountToken(
            status["token"], datetime.datetime.fromisoformat(status["expirationTimestamp"])
        )


def parse_config_map(raw: Json) -> ConfigMapData:
    """`data` and decoded `binaryData`."""
    return ConfigMapData(raw.get("data") or {}, _decoded(raw.get("binaryData")))


def parse_secret(raw: Json) -> SecretData:
    """Decoded `data`."""
    return SecretData(_decoded(raw.get("data")), raw.get("type") or "Opaque")


def parse_service(raw: Json) -> ServiceData | None:
    """None for a Service without a cluster IP (headless, or an ExternalName): it is in no environment."""
    spec: Json = raw.get("spec") or {}
    cluster_ip: str = spec.get("clusterIP") or "None"
    if cluster_ip == "None":
        return None
    ports = tuple(
        ServicePort(port.get("name") or "", port["port"], port.get("protocol") or "TCP")
        for port in spec.get("ports") or ()
    )
    metadata: Json = raw["metadata"]
    return ServiceData(metadata["namespace"], metadata["name"], cluster_ip, ports)


def _decoded(encoded: dict[str, str | None] | None) -> dict[str, bytes]:
    try:
        return {key: base64.b64decode(value or "") for key, value in (encoded or {}).items()}
    except binascii.Error as error:
        raise ApiUnavailableError(f"the API server sent data that is not base64: {error}") from error


def _path(namespace: str, resource: str, name: str) -> str:
    return f"/api/v1/namespaces/{segment(namespace)}/{resource}/{segment(name)}"
