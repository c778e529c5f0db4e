"""
Images: what is present, and fetching what is not.

Pull policy and which credentials fit are decided by the pod engine; here one image is looked up or pulled.
`SandboxImage` finds the image that sandboxes are made of.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from urllib.parse import quote

import orjson
import structlog

from providers.docker import status
from providers.docker.client import EngineClient
from providers.docker.jsonlines import JsonLines
from vkubelet.clock import Clock
from vkubelet.errors import PodNotFoundError, ProviderError, ProviderUnavailableError, RemoteProtocolError
from vkubelet.kuberuntime.contract import Image, RegistryCredentials

__all__ = ["SandboxImage", "image_status", "pull_image", "pull_params", "registry_auth"]

log = structlog.get_logger(__name__)

_RETRY_AFTER_S = 60.0


async def image_status(client: EngineClient, name: str) -> Image | None:
    """The image if it is present; the engine knows ``busybox`` and ``docker.io/library/busybox`` as one."""
    try:
        inspected = await client.get(f"/images/{quote(name, safe='/:@')}/json")
    except PodNotFoundError:
        return None
    return status.image(name, inspected)


async def pull_image(client: EngineClient, name: str, credentials: Sequence[RegistryCredentials]) -> Image:
    """
    Fetch it, with each credential in turn, then without.

    Raises:
        ProviderError: in the registry's words; of several refusals the first.
    """
    refusals: list[ProviderError] = []
    for auth in (*map(registry_auth, credentials), None):
        try:
            await _pull(client, name, auth)
        except ProviderUnavailableError:
            raise
        except ProviderError as error:
            refusals.append(error)
            continue
        if (image := await image_status(client, name)) is not None:
            return image
        raise ProviderError(f"the image {name} was pulled but the Docker engine does not have it")
    raise refusals[0]


async def _pull(client: EngineClient, name: str, auth: str | None) -> None:
    headers = {"X-Registry-Auth": auth} if auth else {}
    lines = JsonLines()
    try:
        async with client.stream("POST", "/images/create", pull_params(name), headers=headers) as chunks:
            async for chunk in chunks:
                _check_progress(lines.receive_data(chunk))
            _check_progress(lines.receive_data(b""))
    except (PodNotFoundError, RemoteProtocolError) as error:
        raise ProviderError(str(error)) from error


def _check_progress(entries: Sequence[dict[str, object]]) -> None:
    for entry in entries:
        if error := entry.get("error"):
            raise ProviderError(str(error))


def pull_params(name: str) -> dict[str, str]:
    """The query for ``POST /images/create``: without a tag the engine would fetch all of a repository's."""
    if "@" in name:
        return {"fromImage": name}
    path, slash, last = name.rpartition("/")
    repository, _, tag = last.partition(":")
    return {"fromImage": f"{path}{slash}{repository}", "tag": tag or "latest"}


def registry_auth(credentials: RegistryCredentials) -> str:
    """The header X-Registry-Auth (Engine API, "Authentication"): JSON in URL-safe base64."""
    auth = {
        "username": credentials.username,
        "password": credentials.password,
        "serveraddress": credentials.registry,
    }
    return base64.urlsafe_b64encode(orjson.dumps(auth)).decode()


class SandboxImage:
    """
    The image of sandboxes: the first of `candidates` that is present, else the last one, pulled.

    A failure is remembered for a minute, so that each pod that waits for it does not ask the registry again.

    Args:
        client: the engine.
        clock: for the minute.
        candidates: see `DockerSettings.sandbox_images`.
        changed: called when it has become available, or has not.
    """

    def __init__(
        self, client: EngineClient, clock: Clock, candidates: Sequence[str], changed: Callable[[], None]
    ) -> None:
        self._client = client
        self._clock = clock
        self._candidates = tuple(candidates)
        self._changed = changed
        self._found: str | None = None
        self._retry_at = 0.0
        self.problem = ""
        """Why there is none, "" while that is not known."""

    def forget(self) -> None:
        """The engine says that it has no such image (any more)."""
        self._found = None

    async def resolve(self) -> str:
        """
        Its id.

        Raises:
            ProviderError: it is neither present nor can it be pulled; says what to do.
        """
        if self._found is None:
            self._found = await self._present() or await self._pulled()
            if self.problem:
                self.problem = ""
                self._changed()
        return self._found

    async def check(self) -> str:
        """What keeps sandboxes from being made, "" when nothing does; does not pull."""
        if self._found is None:
            self._found = await self._present()
        if self._found is not None:
            self.problem = ""
        return self.problem

    async def _present(self) -> str | None:
        for candidate in self._candidates:
            if (image := await image_status(self._client, candidate)) is not None:
                return image.id
        return None

    async def _pulled(self) -> str:
        if self.problem and self._clock.monotonic() < self._retry_at:
            raise ProviderError(self.problem)
        name = self._candidates[-1]
        try:
            return (await pull_image(self._client, name, ())).id
        except ProviderUnavailableError:
            raise
        except ProviderError as error:
            self._retry_at = self._clock.monotonic() + _RETRY_AFTER_S
            self.problem = (
                f"no sandbox image: the Docker engine has none of {', '.join(self._candidates)}, and "
                f"{name} could not be pulled ({error}); pull or load one of them, or name another as "
                "sandboxImage in --provider-config"
            )
            log.warning("no sandbox image", problem=self.problem)
            self._changed()
            raise ProviderError(self.problem) from error
