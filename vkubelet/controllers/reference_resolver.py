"""
Fetches what pods refer to: ConfigMaps, Secrets and service account tokens.

Objects are read one by one, by name, only when a pod of this node uses them, so the permission to list
Secrets is never needed. An answer serves every pod that asks within its lifetime, and pods that ask at the
same time share one request. A failure to read is an answer too (`Unavailable`), with a shorter lifetime:
it is for env and volumes to say whether it matters.

Tokens belong to one pod and are renewed when 80 % of their life is over, as the kubelet's are.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, Protocol, TypeVar

from vkubelet.clock import Clock
from vkubelet.errors import ApiError, NotFoundError
from vkubelet.model.keys import PodKey
from vkubelet.model.pod import Pod
from vkubelet.model.references import (
    ConfigMapData,
    References,
    SecretData,
    ServiceAccountToken,
    ServiceData,
    TokenKey,
    Unavailable,
    required_references,
)
from vkubelet.model.volumes import token_refresh_at

__all__ = ["ReferenceApi", "ReferenceResolver", "with_known"]

FOUND_LIFETIME_S = 20.0
UNAVAILABLE_LIFETIME_S = 0.5

K = TypeVar("K")
V = TypeVar("V")


class ReferenceApi(Protocol):
    """The reads that are needed; each raises `ApiError`."""

    async def get_config_map(self, namespace: str, name: str) -> ConfigMapData:
        """One ConfigMap."""

    async def get_secret(self, namespace: str, name: str) -> SecretData:
        """One Secret."""

    async def request_token(self, pod: Pod, key: TokenKey) -> ServiceAccountToken:
        """A token for the pod's service account, bound to the pod."""


class ReferenceResolver:
    """
    Turns the names a pod mentions into a `References` snapshot.

    Args:
        services: the Services that a namespace's pods see in their environment.
    """

    def __init__(
        self, api: ReferenceApi, services: Callable[[str], tuple[ServiceData, ...]], *, clock: Clock
    ) -> None:
        self._api = api
        self._services = services
        self._clock = clock
        self._config_maps: _Cache[tuple[str, str], ConfigMapData] = _Cache(clock)
        self._secrets: _Cache[tuple[str, str], SecretData] = _Cache(clock)
        self._tokens: dict[PodKey, dict[TokenKey, ServiceAccountToken]] = {}

    async def resolve(self, pod: Pod) -> References:
        """Everything the pod refers to, as it is now; what cannot be read is `Unavailable`."""
        names = required_references(pod)
        services = self._services(pod.namespace)
        if not (names.config_maps or names.secrets or names.tokens):
            return References(services=services)
        config_maps, secrets, tokens = await asyncio.gather(
            _fetch(names.config_maps, lambda name: self._config_map(pod.namespace, name)),
            _fetch(names.secrets, lambda name: self._secret(pod.namespace, name)),
            _fetch(names.tokens, lambda key: self._token(pod, key)),
        )
        return References(config_maps, secrets, tokens, services)

    def refresh_at(self, pod: PodKey) -> datetime.datetime | None:
        """When the first of the pod's tokens wants to be renewed."""
        return min(map(token_refresh_at, self._tokens.get(pod, {}).values()), default=None)

    def forget(self, pod: PodKey) -> None:
        """Drop what was kept for a pod that is gone."""
        self._tokens.pop(pod, None)

    def purge(self) -> None:
        """Drop answers whose lifetime is over."""
        self._config_maps.purge()
        self._secrets.purge()

    async def _config_map(self, namespace: str, name: str) -> ConfigMapData | Unavailable:
        return await self._config_maps.get(
            (namespace, name),
            lambda: self._api.get_config_map(namespace, name),
            what=f'configmap "{name}"',
        )

    async def _secret(self, namespace: str, name: str) -> SecretData | Unavailable:
        return await self._secrets.get(
            (namespace, name), lambda: self._api.get_secret(namespace, name), what=f'secret "{name}"'
        )

    async def _token(self, pod: Pod, key: TokenKey) -> ServiceAccountToken | Unavailable:
        kept = self._tokens.setdefault(pod.key, {})
        token = kept.get(key)
        if token is None or token_refresh_at(token) <= self._clock.now():
            try:
                token = kept[key] = await self._api.request_token(pod, key)
            except ApiError as error:
                if token is not None and token.expires_at > self._clock.now():
                    return token
                return Unavailable(f"failed to fetch token: {error}", missing=False)
        return token


def with_known(references: References, before: References | None) -> References:
    """
    The answers, with those of `before` for objects that could not be read now but may well be there.

    So an API server that is away takes nothing from pods that run: the kubelet's managers, too, go on with
    what they had. What the API server says is missing, is missing.
    """
    if before is None or not references.unavailable():
        return references
    return dataclasses.replace(
        references,
        config_maps=_filled(references.config_maps, before.config_maps),
        secrets=_filled(references.secrets, before.secrets),
    )


def _filled(
    now: Mapping[K, V | Unavailable], before: Mapping[K, V | Unavailable]
) -> Mapping[K, V | Unavailable]:
    return {
        k: before.get(k, a) if isinstance(a, Unavailable) and not a.missing else a for k, a in now.items()
    }


async def _fetch(names: Iterable[K], fetch: Callable[[K], Awaitable[V]]) -> Mapping[K, V]:
    wanted = tuple(names)
    return dict(zip(wanted, await asyncio.gather(*map(fetch, wanted)), strict=True))


class _Cache(Generic[K, V]):
    """Answers by key; one request at a time for each, made by the first who asks."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._answers: dict[K, tuple[float, V | Unavailable]] = {}
        self._asking: dict[K, asyncio.Future[None]] = {}

    async def get(self, key: K, fetch: Callable[[], Awaitable[V]], *, what: str) -> V | Unavailable:
        while (asking := self._asking.get(key)) is not None:
            await asyncio.wait([asking])
        expires_at, answer = self._answers.get(key, _NEVER)
        if answer is not None and self._clock.monotonic() < expires_at:
            return answer
        self._asking[key] = asyncio.get_running_loop().create_future()
        try:
            answer = await _ask(fetch, what)
        finally:
            self._asking.pop(key).set_result(None)
        lifetime_s = UNAVAILABLE_LIFETIME_S if isinstance(answer, Unavailable) else FOUND_LIFETIME_S
        self._answers[key] = (self._clock.monotonic() + lifetime_s, answer)
        return answer

    def purge(self) -> None:
        now = self._clock.monotonic()
        self._answers = {k: kept for k, kept in self._answers.items() if kept[0] > now}


_NEVER: tuple[float, None] = (0.0, None)


async def _ask(fetch: Callable[[], Awaitable[V]], what: str) -> V | Unavailable:
    try:
        return await fetch()
    except NotFoundError:
        return Unavailable(f"{what} not found", missing=True)
    except ApiError as error:
        return Unavailable(f"failed to read {what}: {error}", missing=False)
