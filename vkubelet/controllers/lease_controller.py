"""
The node's heartbeat: its Lease, renewed four times within its duration.

A lease that fails to be renewed is tried again soon, and re-read when somebody else has written it; as long
as vkubelet runs it is renewed, also while the provider is down, for that is the Ready condition's to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from vkubelet.clock import Clock
from vkubelet.errors import ApiError, ConflictError, NotFoundError
from vkubelet.logs import get_logger
from vkubelet.model import node as node_rules
from vkubelet.model.pod import Json

__all__ = ["LeaseApi", "LeaseController"]

log = get_logger("lease_controller")

RETRY_S = 1.0


class LeaseApi(Protocol):
    """The requests that are needed; each raises `ApiError`."""

    async def get(self, name: str) -> Json:
        """The lease of that name in ``kube-node-lease``."""

    async def create(self, lease: Json) -> Json:
        """A new one."""

    async def update(self, lease: Json) -> Json:
        """Replace it, if its `resourceVersion` still holds."""


class LeaseController:
    """
    The loop of one Lease.

    Args:
        node_uid: the Node's uid, None while it is not registered.
        duration_s: how long one renewal holds.
    """

    def __init__(
        self,
        api: LeaseApi,
        node_name: str,
        node_uid: Callable[[], str | None],
        *,
        clock: Clock,
        duration_s: int = node_rules.LEASE_DURATION_S,
    ) -> None:
        self._api = api
        self._node_name = node_name
        self._node_uid = node_uid
        self._clock = clock
        self._duration_s = duration_s
        self._lease: Json | None = None

    async def run(self) -> None:
        """Renew until cancelled."""
        while True:
            delay_s = self._duration_s / 4
            try:
                if not await self.renew():
                    delay_s = RETRY_S
            except (ConflictError, NotFoundError) as error:
                log.info("lease was changed by others, reading it again", error=str(error))
                self._lease, delay_s = None, RETRY_S
            except ApiError as error:
                log.warning("lease was not renewed, will be tried again", error=str(error))
                delay_s = RETRY_S
            await self._clock.sleep(delay_s)

    async def renew(self) -> bool:
        """
        Renew once; False while there is no Node to own the lease.

        Raises:
            ApiError: it was not renewed.
        """
        uid = self._node_uid()
        if uid is None:
            return False
        if self._lease is None:
            self._lease = await self._read_or_create(uid)
        else:
            self._lease = await self._api.update(self._renewed(self._lease))
        return True

    async def _read_or_create(self, uid: str) -> Json:
        try:
            present = await self._api.get(self._node_name)
        except NotFoundError:
            return await self._api.create(
                node_rules.lease_object(
                    self._node_name, uid, now=self._clock.now(), duration_s=self._duration_s
                )
            )
        return await self._api.update(self._renewed(present))

    def _renewed(self, lease: Json) -> Json:
        return node_rules.renewed_lease(
            lease, self._node_name, now=self._clock.now(), duration_s=self._duration_s
        )
