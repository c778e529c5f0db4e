"""Requests about this node: the Node object and its Lease."""

from __future__ import annotations

from vkubelet.kube.rest import STRATEGIC_MERGE_PATCH, PatchType, RestClient, segment
from vkubelet.model.pod import Json

__all__ = ["LeaseApi", "NodeApi"]

_NODES = "/api/v1/nodes"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class NodeApi:
    """Nodes, through a `RestClient`; objects are raw, as their fields have many owners."""

    collection = _NODES

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def get(self, name: str) -> Json:
        """The node. Raises `NotFoundError` when there is none."""
        return await self._client.get(f"{_NODES}/{segment(name)}")

    async def create(self, node: Json) -> Json:
        """Register it. Raises `ConflictError` when one of that name exists."""
        return await self._client.create(_NODES, node)

    async def patch(self, name: str, patch: Json, content_type: PatchType = STRATEGIC_MERGE_PATCH) -> Json:
        """Change metadata or spec; status in it is ignored."""
        return await self._client.patch(f"{_NODES}/{segment(name)}", patch, content_type)

    async def patch_status(self, name: str, patch: Json) -> Json:
        """Change status; metadata in it is taken too, spec is ignored (`patches.node_status_patch`)."""
        return await self._client.patch(f"{_NODES}/{segment(name)}/status", patch)


class LeaseApi:
    """Leases of ``kube-node-lease``, through a `RestClient`."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def get(self, name: str) -> Json:
        """The lease. Raises `NotFoundError` when there is none."""
        return await self._client.get(f"{_LEASES}/{segment(name)}")

    async def create(self, lease: Json) -> Json:
        """Raises `ConflictError` when one of that name exists."""
        return await self._client.create(_LEASES, lease)

    async def update(self, lease: Json) -> Json:
        """Replace it. Raises `ConflictError` when its `resourceVersion` is not the present one."""
        return await self._client.update(f"{_LEASES}/{segment(lease['metadata']['name'])}", lease)
