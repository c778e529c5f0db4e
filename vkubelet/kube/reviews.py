"""Questions to the API server about others and ourselves: who is this, and may they do that?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vkubelet.kube.rest import RestClient
from vkubelet.model.pod import Json

__all__ = ["Decision", "ResourceAttributes", "ReviewApi", "UserInfo"]

_AUTHENTICATION = "/apis/authentication.k8s.io/v1"
_AUTHORIZATION = "/apis/authorization.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Who somebody is (`authentication.k8s.io/v1.UserInfo`)."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResourceAttributes:
    """What somebody wants to do, such as ``get`` the subresource ``log`` of the node ``n1``."""

    verb: str
    resource: str
    subresource: str = ""
    name: str = ""
    namespace: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to a SubjectAccessReview."""

    allowed: bool
    reason: str = ""


class ReviewApi:
    """Reviews, through a `RestClient`."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    async def token_review(self, token: str, audiences: tuple[str, ...] = ()) -> UserInfo | None:
        """
        Whose token this is, None when nobody's.

        It must be for one of `audiences`; () means the API server's own.
        """
        spec: Json = {"token": token}
        if audiences:
            spec["audiences"] = list(audiences)
        status = await self._review(f"{_AUTHENTICATION}/tokenreviews", "TokenReview", spec)
        if status.get("authenticated") is not True:
            return None
        if audiences and not set(audiences) & set(status.get("audiences") or ()):
            return None  # an authenticator that knows no audiences has not checked them
        return _user(status.get("user") or {})

    async def subject_access_review(self, user: UserInfo, attributes: ResourceAttributes) -> Decision:
        """Whether `user` may do it."""
        spec: Json = {
            "user": user.username,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {key: list(values) for key, values in user.extra.items()},
            "resourceAttributes": {
                "verb": attributes.verb,
                "group": attributes.group,
                "version": "v1",
                "resource": attributes.resource,
                "subresource": attributes.subresource,
                "name": attributes.name,
                "namespace": attributes.namespace,
            },
        }
        status = await self._review(f"{_AUTHORIZATION}/subjectaccessreviews", "SubjectAccessReview", spec)
        allowed = status.get("allowed") is True and status.get("denied") is not True
        return Decision(allowed, status.get("reason") or status.get("evaluationError") or "")

    async def self_review(self) -> UserInfo:
        """Who the API server takes us for; ``system:anonymous`` when our credentials mean nothing to it."""
        status = await self._review(f"{_AUTHENTICATION}/selfsubjectreviews", "SelfSubjectReview", None)
        return _user(status.get("userInfo") or {})

    async def _review(self, path: str, kind: str, spec: Json | None) -> Json:
        body: Json = {"apiVersion": path[len("/apis/") :].rpartition("/")[0], "kind": kind}
        if spec is not None:
            body["spec"] = spec
        answer = await self._client.create(path, body)
        status: Json = answer.get("status") or {}
        return status


def _user(raw: Json) -> UserInfo:
    extra = {key: tuple(values) for key, values in (raw.get("extra") or {}).items()}
    return UserInfo(raw.get("username") or "", raw.get("uid") or "", tuple(raw.get("groups") or ()), extra)
