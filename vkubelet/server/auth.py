"""
The gate in front of every endpoint: first who (`authentication`), then whether (`authorization`).

It stands in the server's own middleware and not at the routes, so that nothing can be served around it: an
unknown path is answered 401 or 403 before 404. The answers and their texts are the kubelet's.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from aiohttp import web

from vkubelet.model.access import AccessAttributes, UserInfo
from vkubelet.server.authentication import Authenticator, Rejected
from vkubelet.server.authorization import Authorizer, Undecided, api_verb, node_subresources

__all__ = ["Gate"]

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Gate:
    """Who may use the API of the node `node_name`."""

    authenticator: Authenticator
    authorizer: Authorizer
    node_name: str

    async def refusal(self, request: web.Request) -> web.Response | None:
        """None for a request that may pass; else its answer: 401, 403, or 500 when there is no verdict."""
        verdict = await self.authenticator.authenticate(request)
        match verdict:
            case UserInfo():
                return await self._check_access(verdict, request)
            case Rejected(reason):
                log.info("credentials rejected", path=request.path, reason=reason)
        return web.Response(status=401, text="Unauthorized")

    async def _check_access(self, user: UserInfo, request: web.Request) -> web.Response | None:
        verb = api_verb(request.method)
        subresources = node_subresources(request.path)
        for subresource in subresources:
            attributes = AccessAttributes(user, verb, "nodes", subresource, self.node_name)
            match await self.authorizer.authorize(attributes):
                case True:
                    return None
                case Undecided():
                    asked = f"user={user.name}, verb={verb}, resource=nodes, subresource={subresource}"
                    return web.Response(status=500, text=f"Authorization error ({asked})")
        asked = f"user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(subresources)}]"
        log.info("access denied", user=user.name, verb=verb, path=request.path)
        return web.Response(status=403, text=f"Forbidden ({asked})\n")
