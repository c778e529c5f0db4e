"""
`KubeClient`: one API server, with typed requests by family.

`rest` has the verbs and the connections, `credentials` the identity; the families here say what a kubelet
asks and turn answers into values of `model`.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import aiohttp

from vkubelet.clock import Clock, SystemClock
from vkubelet.errors import (
    ApiUnavailableError,
    ConfigurationError,
    ForbiddenError,
    NotFoundError,
    UnauthorizedError,
)
from vkubelet.kube.credentials import Credentials
from vkubelet.kube.nodes import LeaseApi, NodeApi
from vkubelet.kube.pods import PodApi
from vkubelet.kube.references import ReferenceApi
from vkubelet.kube.rest import RestClient
from vkubelet.kube.reviews import ReviewApi

__all__ = ["KubeClient"]


class KubeClient(RestClient):
    """
    The API server as vkubelet uses it; `connect` makes one.

    Attributes:
        pods: read pods, patch their status, delete them.
        nodes: the Node object.
        leases: its Lease.
        references: ConfigMaps, Secrets, tokens.
        reviews: TokenReview and SubjectAccessReview.
    """

    def __init__(self, credentials: Credentials, *, user_agent: str = "", connections: int = 32) -> None:
        super().__init__(credentials, user_agent=user_agent or _user_agent(), connections=connections)
        self.pods = PodApi(self)
        self.nodes = NodeApi(self)
        self.leases = LeaseApi(self)
        self.references = ReferenceApi(self)
        self.reviews = ReviewApi(self)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        kubeconfig: Path | None,
        *,
        clock: Clock | None = None,
        connections: int = 32,
        option: str = "--kubeconfig",
    ) -> AsyncIterator[Self]:
        """
        A client for the cluster of `kubeconfig`, or for the one this pod runs in when that is None.

        Nothing is sent yet: `check_credentials` does.

        Raises:
            ConfigurationError: the kubeconfig cannot be used; the sentence names `option`.
        """
        credentials = await Credentials.load(kubeconfig, clock or SystemClock(), option)
        async with cls(credentials, connections=connections) as client:
            yield client

    async def check_credentials(self) -> None:
        """
        Make sure that the API server is there and knows us.

        Raises:
            ConfigurationError: our certificate has expired, its certificate cannot be verified, or it does
                not accept us; the sentence names ``--kubeconfig``.
            ApiUnavailableError: no answer; it may come up yet.
        """
        self.credentials.check_certificate()
        source = self.credentials.source
        try:
            user = await self.reviews.review_self()
        except ApiUnavailableError as error:
            if _is_untrusted(error):
                raise ConfigurationError(f"{source}: {error}") from error
            raise
        except NotFoundError:
            return  # before Kubernetes 1.28 there was no such question
        except (UnauthorizedError, ForbiddenError) as error:
            raise ConfigurationError(
                f"{source}: {self.credentials.server} does not accept these credentials: {error}"
            ) from error
        if user.name == "system:anonymous":
            raise ConfigurationError(f"{source}: {self.credentials.server} does not know these credentials")

    async def server_version(self) -> tuple[int, int]:
        """The API server's Kubernetes version, such as (1, 36); (0, 0) when it does not tell."""
        try:
            answer = await self.get("/version")
        except (ForbiddenError, NotFoundError):
            return 0, 0
        major, minor = (re.sub(r"\D.*", "", str(answer.get(part, ""))) for part in ("major", "minor"))
        return int(major or 0), int(minor or 0)

    async def cluster_id(self) -> str:
        """The uid of the namespace ``kube-system``: another one for each cluster, and never changing."""
        namespace = await self.get("/api/v1/namespaces/kube-system")
        uid: str = namespace["metadata"]["uid"]
        return uid


def _is_untrusted(error: ApiUnavailableError) -> bool:
    return isinstance(error.__cause__, aiohttp.ClientConnectorCertificateError)


def _user_agent() -> str:
    try:
        return f"vkubelet/{importlib.metadata.version('vkubelet')}"
    except importlib.metadata.PackageNotFoundError:
        return "vkubelet/unknown"
