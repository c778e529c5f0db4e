"""
Keeps the Node object: registered, true, and there.

The provider is asked every 10 s, and at once when it says that something changed; the API server is told at
once of a change and otherwise every five minutes, since the Lease is the heartbeat (Kubernetes docs,
"Nodes", "Heartbeats"). A Node that exists is adopted: our labels, taints and status are put on it and what
others have put there stays. One that somebody deletes is registered again.

A node's own credentials may not set every label nor change taints (NodeRestriction); what is forbidden is
left out and said once, rather than leaving the node unregistered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from vkubelet.clock import Clock
from vkubelet.errors import ApiError, ConflictError, ForbiddenError, NotFoundError
from vkubelet.kube import patches
from vkubelet.logs import get_logger
from vkubelet.model import node as node_rules
from vkubelet.model.node import NodeIdentity
from vkubelet.model.observations import NodeObservation
from vkubelet.model.pod import Json

__all__ = ["NodeApi", "NodeController"]

log = get_logger("node_controller")

POLL_S = 10.0
_RESTRICTED_LABELS = frozenset({"kubernetes.io/role"})


class NodeApi(Protocol):
    """The requests that are needed; each raises `ApiError`."""

    async def get(self, name: str) -> Json:
        """The node."""

    async def create(self, node: Json) -> Json:
        """Register it."""

    async def patch(self, name: str, patch: Json) -> Json:
        """Change metadata and spec by a strategic merge patch."""

    async def patch_status(self, name: str, patch: Json) -> Json:
        """Change status by a strategic merge patch."""


class NodeController:
    """
    The loop of one Node.

    Args:
        describe: what the platform offers now; does not raise.
        wake: set by whoever knows that `describe` would answer differently.
        report_s: the longest time between two status writes.
    """

    def __init__(
        self,
        api: NodeApi,
        describe: Callable[[], Awaitable[NodeObservation]],
        identity: NodeIdentity,
        wake: asyncio.Event,
        *,
        clock: Clock,
        report_s: float = 300.0,
    ) -> None:
        self._api = api
        self._describe = describe
        self._identity = identity
        self._wake = wake
        self._clock = clock
        self._report_s = report_s
        self._node: Json | None = None
        self._last_status: Json | None = None
        self._reported_at = float("-inf")

    @property
    def uid(self) -> str | None:
        """The Node's uid, None until it is registered."""
        return None if self._node is None else self._node["metadata"]["uid"]

    def node_seen(self, node: Json | None) -> None:
        """The watch showed our Node, or (None) that somebody deleted it."""
        if node is None:
            log.warning("node was deleted, registering it again", node=self._identity.node_name)
            self._node = None
            self._wake.set()
        elif self._node is not None and _is_later(node, self._node):
            self._node = node

    async def run(self) -> None:
        """Register and keep the Node true until cancelled; no answer of the API server ends it."""
        while True:
            try:
                await self.sync()
            except ApiError as error:
                log.warning("node was not updated, will be tried again", error=str(error))
            await self._pause()

    async def sync(self) -> None:
        """
        Bring the Node up to date: no write, or the one that is due.

        Raises:
            ApiError: it could not be read or written.
        """
        observation = await self._describe()
        if self._node is None:
            await self._register(observation)
            return
        status = self._status(observation)
        is_due = self._clock.monotonic() - self._reported_at >= self._report_s
        if not is_due and not node_rules.status_changed(self._node.get("status") or {}, status):
            return
        try:
            await self._write_status(status)
        except NotFoundError:
            self._node = None
            await self._register(observation)

    async def say_goodbye(self, message: str) -> None:
        """Report NotReady, so that the scheduler looks elsewhere at once; a failure is only logged."""
        if self._node is None:
            return
        conditions = node_rules.not_ready_conditions(
            message, now=self._clock.now(), current=self._node.get("status")
        )
        try:
            await self._api.patch_status(self._identity.node_name, {"status": {"conditions": conditions}})
        except ApiError as error:
            log.warning("could not report NotReady", error=str(error))

    # --- registration ---------------------------------------------------------------------------------

    async def _register(self, observation: NodeObservation) -> None:
        node = node_rules.node_object(self._identity, observation, now=self._clock.now())
        try:
            self._node = await self._create(node)
        except ConflictError:
            await self._adopt(await self._api.get(self._identity.node_name), node)
        else:
            self._note_written(node["status"])
            log.info("node registered", node=self._identity.node_name)

    async def _create(self, node: Json) -> Json:
        try:
            return await self._api.create(node)
        except ForbiddenError as error:
            metadata = node["metadata"]
            allowed = _unrestricted(metadata["labels"])
            if allowed == metadata["labels"]:
                raise
            log.warning("a label is not permitted, registering without it", error=str(error))
            return await self._api.create({**node, "metadata": {**metadata, "labels": allowed}})

    async def _adopt(self, present: Json, wanted: Json) -> None:
        present = await self._labelled(present, wanted["metadata"])
        present = await self._tainted(present, wanted["spec"].get("taints") or [])
        status = wanted["status"]
        _keep_transition_times(status, present.get("status") or {})
        self._node = present
        await self._write_status(status)
        log.info("node adopted", node=self._identity.node_name)

    async def _labelled(self, node: Json, wanted: Json) -> Json:
        for labels in (wanted["labels"], _unrestricted(wanted["labels"])):
            patch = patches.metadata_patch(node["metadata"], labels=labels, annotations=wanted["annotations"])
            if patch is None:
                break
            try:
                return await self._api.patch(self._identity.node_name, patch)
            except ForbiddenError as error:
                log.warning("labels are not permitted", error=str(error))
        return node

    async def _tainted(self, node: Json, taints: list[Json]) -> Json:
        patch = patches.taints_patch(node, taints)
        if patch is None:
            return node
        try:
            return await self._api.patch(self._identity.node_name, patch)
        except ForbiddenError as error:
            log.warning("taints may not be changed, leaving them", error=str(error))
            return node

    # --- status ---------------------------------------------------------------------------------------

    def _status(self, observation: NodeObservation) -> Json:
        current = None if self._node is None else self._node.get("status")
        return node_rules.node_status(self._identity, observation, current=current, now=self._clock.now())

    async def _write_status(self, status: Json) -> None:
        assert self._node is not None
        patch = patches.node_status_patch(self._node.get("status") or {}, status, self._last_status)
        if patch is not None:
            self._node = await self._api.patch_status(self._identity.node_name, patch)
        self._note_written(status)

    def _note_written(self, status: Json) -> None:
        self._last_status = status
        self._reported_at = self._clock.monotonic()

    async def _pause(self) -> None:
        timer = self._clock.call_later(POLL_S, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()
            self._wake.clear()


def _unrestricted(labels: Json) -> Json:
    """Those that a node's own credentials may set."""
    return {k: v for k, v in labels.items() if k not in _RESTRICTED_LABELS}


def _is_later(node: Json, than: Json) -> bool:
    """Another version of the same Node than we know from our own writes, which the watch may lag behind."""
    new, old = node["metadata"], than["metadata"]
    return new["uid"] == old["uid"] and _version(new) > _version(old)


def _version(metadata: Json) -> int:
    version: str = metadata.get("resourceVersion", "")
    return int(version) if version.isdigit() else 0


def _keep_transition_times(status: Json, current: Json) -> None:
    """Conditions that an adopted Node has already keep the time since when they hold."""
    present = {c["type"]: c for c in current.get("conditions") or ()}
    for condition in status["conditions"]:
        before = present.get(condition["type"]) or {}
        if before.get("status") == condition["status"] and before.get("lastTransitionTime"):
            condition["lastTransitionTime"] = before["lastTransitionTime"]
