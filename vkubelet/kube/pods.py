"""Requests about pods: what a kubelet reads and writes of them."""

from __future__ import annotations

from vkubelet.errors import ConflictError, InvalidObjectError
from vkubelet.kube.rest import RestClient, segment
from vkubelet.kube.sharing import SharedValues
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Json, Pod, parse_pod

__all__ = ["PodApi", "PodParser", "pod_key"]

_PODS = "/api/v1/pods"


def pod_key(raw: Json) -> PodKey:
    """
    The identity of a raw pod.

    Raises:
        KeyError: it has no name or uid.
    """
    metadata: Json = raw["metadata"]
    return PodKey(metadata.get("namespace", "default"), metadata["name"], metadata["uid"])


class PodParser:
    """`model.pod.parse_pod` for many pods that are kept: what several say alike is there once (`sharing`)."""

    def __init__(self) -> None:
        self._values = SharedValues()

    def __call__(self, raw: Json) -> Pod:
        """The typed view of `raw`, which is kept and must not be changed any more."""
        raw["metadata"].pop("managedFields", None)
        return parse_pod(self._values.share(raw))


class PodApi:
    """Pods, through a `RestClient`."""

    collection = _PODS
    """Every pod of the cluster; list and watch it with `on_node`."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    @staticmethod
    def on_node(node_name: str) -> dict[str, str]:
        """Selects the pods bound to a node: a node's own credentials may ask for nothing else."""
        return {"fieldSelector": f"spec.nodeName={node_name}"}

    async def list_on_node(self, node_name: str) -> list[Pod]:
        """
        Every pod bound to the node, by a consistent read.

        What is not in the answer is gone: it may be the reason to remove things. Ask the platform first and
        the API server after, or a pod that is created between counts as an orphan.
        """
        pods: list[Pod] = []
        parse = PodParser()
        async for page in self._client.list_pages(_PODS, self.on_node(node_name)):
            pods.extend(parse(raw) for raw in page.get("items") or ())
        return pods

    async def get(self, namespace: str, name: str) -> Json:
        """The pod of that name, as it is now. Raises `NotFoundError` when there is none."""
        return await self._client.get(_path(namespace, name))

    async def patch_status(self, key: PodKey, patch: Json) -> Json:
        """
        One strategic merge patch to ``pods/status`` (`patches.status_patch` makes it); returns the pod.

        Raises:
            ConflictError: the patch carries a uid and the pod of that name has another.
            NotFoundError: the pod is gone.
        """
        try:
            return await self._client.patch(f"{_path(key.namespace, key.name)}/status", patch)
        except InvalidObjectError as error:
            # For a patch the API server words another uid as an attempt to change an immutable field.
            if "metadata.uid: Invalid value" in str(error):
                raise ConflictError(str(error), code=error.code, reason=error.reason) from error
            raise

    async def delete(self, key: PodKey, *, grace_period_s: int = 0) -> None:
        """
        Remove the pod, by default for good, if it still is the one with this uid.

        Raises:
            ConflictError: the name belongs to another pod now.
            NotFoundError: it is gone already.
        """
        await self._client.delete(
            _path(key.namespace, key.name),
            {
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "gracePeriodSeconds": grace_period_s,
                "preconditions": {"uid": key.uid},
            },
        )


def _path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{segment(namespace)}/pods/{segment(name)}"
