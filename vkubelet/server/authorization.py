"""
May this user do that? The kubelet's mapping of requests to RBAC, and the API server's answer, remembered.

Every request is an access to a subresource of this node (Kubernetes docs, "Kubelet
authentication/authorization"). Since 1.33 some paths have a subresource of their own, and ``nodes/proxy``
still opens them too (KubeletFineGrainedAuthz).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import structlog

from vkubelet.clock import Clock
from vkubelet.errors import VirtualKubeletError
from vkubelet.model.access import AccessAttributes, AccessReviewResult, UserInfo
from vkubelet.server.expiring_cache import ExpiringCache, Fetched
from vkubelet.server.review_retry import retried

__all__ = [
    "AlwaysAllow",
    "Authorizer",
    "ReviewAccess",
    "Undecided",
    "WebhookAuthorizer",
    "api_verb",
    "node_subresources",
]

log = structlog.get_logger(__name__)

ReviewAccess: TypeAlias = Callable[[AccessAttributes], Awaitable[AccessReviewResult]]
"""Makes a SubjectAccessReview; raises `ApiError` when there is no answer."""

ALLOW_TTL_S = 300.0
DENY_TTL_S = 30.0
_MAX_ENTRIES = 8192
_REVIEW_TIMEOUT_S = 30.0

_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

_FINE_GRAINED = (
    ("/pods", "pods"),
    ("/healthz", "healthz"),
    ("/livez", "healthz"),
    ("/readyz", "healthz"),
    ("/configz", "configz"),
    ("/runningpods", "pods"),
)
"""Opened by this subresource or by ``proxy``. (/livez and /readyz are not a kubelet's: as /healthz.)"""

_EXCLUSIVE = (
    ("/stats", "stats"),
    ("/metrics", "metrics"),
    ("/logs", "log"),
    ("/checkpoint", "checkpoint"),
    ("/statusz", "statusz"),
    ("/flagz", "configz"),
)
"""Opened by this subresource alone."""


def api_verb(method: str) -> str:
    """The API's verb for an HTTP method; "" for one that has none, which only a rule for all verbs allows."""
    return _VERBS.get(method, "")


def node_subresources(path: str) -> tuple[str, ...]:
    """
    The subresources of ``nodes`` of which any one opens `path`, to be asked for in this order.

    Args:
        path: the decoded path of the request, without its query.
    """
    fine = tuple(subresource for prefix, subresource in _FINE_GRAINED if _is_below(path, prefix))
    exclusive = tuple(subresource for prefix, subresource in _EXCLUSIVE if _is_below(path, prefix))
    return fine + (exclusive or ("proxy",))


def _is_below(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


@dataclass(frozen=True, slots=True)
class Undecided:
    """There is no answer to be had: the request is refused, and the next one asks again."""

    reason: str


class Authorizer(Protocol):
    """Says yes or no."""

    async def authorize(self, attributes: AccessAttributes) -> bool | Undecided:
        """Whether it is allowed."""


class AlwaysAllow:
    """Yes to everybody who was authenticated. Only for those who ask for it by name."""

    async def authorize(self, attributes: AccessAttributes) -> bool | Undecided:
        """Whether it is allowed: it is."""
        return True


class WebhookAuthorizer:
    """Asks the API server; by default a yes holds for 5 minutes and a no for 30 s, as the kubelet's."""

    def __init__(
        self,
        review_access: ReviewAccess,
        clock: Clock,
        *,
        allow_ttl_s: float = ALLOW_TTL_S,
        deny_ttl_s: float = DENY_TTL_S,
    ) -> None:
        self._review_access = review_access
        self._clock = clock
        self._allow_ttl_s = allow_ttl_s
        self._deny_ttl_s = deny_ttl_s
        self._cache: ExpiringCache[object, bool | Undecided] = ExpiringCache(clock, _MAX_ENTRIES)

    async def authorize(self, attributes: AccessAttributes) -> bool | Undecided:
        """Whether it is allowed; no answer within 30 s is `Undecided`."""
        return await self._cache.get(_cache_key(attributes), lambda: self._review(attributes))

    async def _review(self, attributes: AccessAttributes) -> Fetched[bool | Undecided]:
        try:
            async with asyncio.timeout(_REVIEW_TIMEOUT_S):
                result = await retried(lambda: self._review_access(attributes), self._clock)
        except (VirtualKubeletError, TimeoutError) as error:
            reason = str(error) or "no answer to the SubjectAccessReview in time"
            log.warning("access review failed", user=attributes.user.name, error=reason)
            return Fetched(Undecided(reason), 0)
        allowed = result.allowed and not result.denied
        return Fetched(allowed, self._allow_ttl_s if allowed else self._deny_ttl_s)


def _cache_key(attributes: AccessAttributes) -> object:
    user: UserInfo = attributes.user
    return (
        user.name,
        user.uid,
        user.groups,
        tuple(sorted(user.extra.items())),
        attributes.verb,
        attributes.resource,
        attributes.subresource,
        attributes.name,
    )
