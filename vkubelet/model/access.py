"""
Who asks, what for, and what the API server says to it: the values of TokenReview and SubjectAccessReview.

They stand here because two packages meet in them: `server` asks and `kube` answers. Only what a kubelet
sends and reads is typed; both reviews have more fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "ALL_AUTHENTICATED",
    "ANONYMOUS",
    "AccessAttributes",
    "AccessReviewResult",
    "TokenReviewResult",
    "UserInfo",
]

ALL_AUTHENTICATED = "system:authenticated"
"""The group of everybody whose credentials were accepted."""


@dataclass(frozen=True, slots=True)
class UserInfo:
    """
    `authentication.k8s.io/v1` UserInfo.

    Attributes:
        extra: what else the authenticator knows, such as the credential's id.
    """

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


ANONYMOUS = UserInfo("system:anonymous", groups=("system:unauthenticated",))
"""Somebody without credentials, where such are let in."""


@dataclass(frozen=True, slots=True)
class TokenReviewResult:
    """
    `status` of a TokenReview.

    Attributes:
        user: None unless `authenticated`.
        error: why the API server could not tell, "" when it could.
    """

    authenticated: bool
    user: UserInfo | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class AccessAttributes:
    """
    `spec` of a SubjectAccessReview for one resource of the cluster (no namespace).

    Attributes:
        verb: the API's, such as "get" or "create"; "" for a method that has none.
        name: the object's, here the node's.
    """

    user: UserInfo
    verb: str
    resource: str
    subresource: str
    name: str
    group: str = ""
    version: str = "v1"


@dataclass(frozen=True, slots=True)
class AccessReviewResult:
    """`status` of a SubjectAccessReview; neither allowed nor denied means no opinion, which is no."""

    allowed: bool
    denied: bool = False
    reason: str = ""
    evaluation_error: str = ""
