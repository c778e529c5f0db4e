"""
Questions to the API server about others and ourselves: who is this, and may they do that?

The values are `model.access`'s, since the kubelet's server asks with them; what an answer means for a request
is decided there.
"""

from __future__ import annotations

from vkubelet.kube.rest import RestClient
from vkubelet.model.access import AccessAttributes, AccessReviewResult, TokenReviewResult, UserInfo
from vkubelet.model.pod import Json

__all__ = ["ReviewApi"]

_AUTHENTICATION = "authentication.k8s.io/v1"
_AUTHORIZATION = "authorization.k8s.io/v1"


class ReviewApi:
    """Reviews, through a `RestClient`."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def review_token(self, token: str) -> TokenReviewResult:
        """Whose bearer token this is (TokenReview, for the API server's own audiences)."""
        status = await self._review(_AUTHENTICATION, "TokenReview", {"token": token})
        authenticated = status.get("authenticated") is True
        user = _user(status.get("user") or {}) if authenticated else None
        return TokenReviewResult(authenticated, user, status.get("error") or "")

    async def review_access(self, attributes: AccessAttributes) -> AccessReviewResult:
        """Whether that user may do that (SubjectAccessReview)."""
        user = attributes.user
        spec: Json = {
            "user": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
            "resourceAttributes": {
                "verb": attributes.verb,
                "group": attributes.group,
                "version": attributes.version,
                "resource": attributes.resource,
                "subresource": attributes.subresource,
                "name": attributes.name,
            },
        }
        status = await self._review(_AUTHORIZATION, "SubjectAccessReview", spec)
        return AccessReviewResult(
            allowed=status.get("allowed") is True,
            denied=status.get("denied") is True,
            reason=status.get("reason") or "",
            evaluation_error=status.get("evaluationError") or "",
        )

    async def review_self(self) -> UserInfo:
        """Who the API server takes us for; ``system:anonymous`` when our credentials mean nothing to it."""
        status = await self._review(_AUTHENTICATION, "SelfSubjectReview", None)
        return _user(status.get("userInfo") or {})

    async def _review(self, api_version: str, kind: str, spec: Json | None) -> Json:
        body: Json = {"apiVersion": api_version, "kind": kind}
        if spec is not None:
            body["spec"] = spec
        answer = await self._client.create(f"/apis/{api_version}/{kind.lower()}s", body)
        status: Json = answer.get("status") or {}
        return status


def _user(raw: Json) -> UserInfo:
    extra = {key: tuple(values) for key, values in (raw.get("extra") or {}).items()}
    return UserInfo(raw.get("username") or "", raw.get("uid") or "", tuple(raw.get("groups") or ()), extra)
