"""Fetching what pods refer to: once for all who ask, by name only, tokens in time."""

from __future__ import annotations

import asyncio
import datetime
from collections import Counter
from dataclasses import dataclass, field

import pytest

from tests.builders import START, container_json, make_pod
from tests.clocks import ManualClock, settle
from tests.controllers.pod_node import FakeNode
from vkubelet.controllers.reference_resolver import (
    FOUND_LIFETIME_S,
    UNAVAILABLE_LIFETIME_S,
    ReferenceResolver,
    with_known,
)
from vkubelet.errors import ApiUnavailableError, ForbiddenError, NotFoundError
from vkubelet.model.pod import Json, Pod
from vkubelet.model.references import (
    ConfigMapData,
    References,
    SecretData,
    ServiceAccountToken,
    ServiceData,
    TokenKey,
    Unavailable,
)

LIFE_S = 3600


@dataclass
class Api:
    """A `ReferenceApi` over dictionaries."""

    clock: ManualClock
    config_maps: dict[str, ConfigMapData] = field(default_factory=dict)
    secrets: dict[str, SecretData] = field(default_factory=dict)
    error: Exception | None = None
    gate: asyncio.Event | None = None
    asked: Counter[str] = field(default_factory=Counter)

    async def get_config_map(self, namespace: str, name: str) -> ConfigMapData:
        await self._ask(f"configmap {namespace}/{name}")
        if name not in self.config_maps:
            raise NotFoundError(f'configmaps "{name}" not found', code=404)
        return self.config_maps[name]

    async def get_secret(self, namespace: str, name: str) -> SecretData:
        await self._ask(f"secret {namespace}/{name}")
        if name not in self.secrets:
            raise NotFoundError(f'secrets "{name}" not found', code=404)
        return self.secrets[name]

    async def request_token(self, pod: Pod, key: TokenKey) -> ServiceAccountToken:
        await self._ask(f"token {pod.name} {key.audience}")
        expires_at = self.clock.now() + datetime.timedelta(seconds=key.expiration_s)
        return ServiceAccountToken(f"token {sum(self.asked.values())}", expires_at)

    async def _ask(self, what: str) -> None:
        self.asked[what] += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error


SERVICE = ServiceData("default", "db", "10.0.0.7", ())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def api(clock: ManualClock) -> Api:
    return Api(clock, {"app": ConfigMapData({"a": "1"})}, {"pw": SecretData({"word": b"open"})})


@pytest.fixture
def resolver(api: Api, clock: ManualClock) -> ReferenceResolver:
    return ReferenceResolver(api, lambda namespace: (SERVICE,) if namespace == "default" else (), clock=clock)


def using(*config_maps: str, secrets: tuple[str, ...] = (), name: str = "web") -> Pod:
    env_from: list[Json] = [{"configMapRef": {"name": n}} for n in config_maps]
    env_from += [{"secretRef": {"name": n}} for n in secrets]
    return make_pod(name, containers=[container_json(envFrom=env_from)])


def with_token(name: str = "web", expiration_s: int = LIFE_S) -> Pod:
    sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": expiration_s}}]
    return make_pod(name, volumes=[{"name": "token", "projected": {"sources": sources}}])


TOKEN = TokenKey("", LIFE_S)


async def test_a_pod_that_refers_to_nothing_costs_no_request(resolver: ReferenceResolver, api: Api) -> None:
    assert await resolver.resolve(make_pod()) == References(services=(SERVICE,))
    assert not api.asked


async def test_only_what_a_pod_names_is_read(resolver: ReferenceResolver, api: Api) -> None:
    found = await resolver.resolve(using("app", secrets=("pw",)))

    assert found.config_maps == {"app": ConfigMapData({"a": "1"})}
    assert found.secrets == {"pw": SecretData({"word": b"open"})}
    assert api.asked == {"configmap default/app": 1, "secret default/pw": 1}


async def test_pods_that_ask_at_the_same_time_share_one_request(
    resolver: ReferenceResolver, api: Api
) -> None:
    api.gate = asyncio.Event()
    asking = [asyncio.create_task(resolver.resolve(using("app", name=f"web-{i}"))) for i in range(20)]
    await settle()
    api.gate.set()
    answers = await asyncio.gather(*asking)

    assert api.asked == {"configmap default/app": 1}
    assert all(a.config_maps == {"app": ConfigMapData({"a": "1"})} for a in answers)


async def test_one_who_gives_up_does_not_keep_the_others_waiting(
    resolver: ReferenceResolver, api: Api
) -> None:
    api.gate = asyncio.Event()
    first, second = [asyncio.create_task(resolver.resolve(using("app"))) for _ in range(2)]
    await settle()
    first.cancel()
    await settle()
    api.gate.set()

    assert (await second).config_maps == {"app": ConfigMapData({"a": "1"})}
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_answer_serves_for_its_lifetime(
    resolver: ReferenceResolver, api: Api, clock: ManualClock
) -> None:
    await resolver.resolve(using("app"))
    api.config_maps["app"] = ConfigMapData({"a": "2"})
    await clock.advance(FOUND_LIFETIME_S * 0.9)
    assert (await resolver.resolve(using("app"))).config_maps == {"app": ConfigMapData({"a": "1"})}

    await clock.advance(FOUND_LIFETIME_S * 0.2)
    assert (await resolver.resolve(using("app"))).config_maps == {"app": ConfigMapData({"a": "2"})}
    resolver.purge()
    assert api.asked == {"configmap default/app": 2}


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        pytest.param(
            NotFoundError("x", code=404), Unavailable('configmap "app" not found', missing=True), id="missing"
        ),
        pytest.param(
            ForbiddenError("no permission", code=403),
            Unavailable('failed to read configmap "app": no permission', missing=False),
            id="forbidden",
        ),
        pytest.param(
            ApiUnavailableError("no answer"),
            Unavailable('failed to read configmap "app": no answer', missing=False),
            id="no answer",
        ),
    ],
)
async def test_a_failure_is_an_answer_that_is_soon_asked_for_again(
    resolver: ReferenceResolver, api: Api, clock: ManualClock, error: Exception, answer: Unavailable
) -> None:
    api.error = error
    found = await resolver.resolve(using("app"))
    assert found.config_maps == {"app": answer}
    assert found.unavailable() == (answer,)

    api.error = None
    await clock.advance(UNAVAILABLE_LIFETIME_S)
    assert (await resolver.resolve(using("app"))).config_maps == {"app": ConfigMapData({"a": "1"})}


def test_what_cannot_be_read_now_is_taken_from_before_and_what_is_missing_is_not() -> None:
    before = References({"a": ConfigMapData({"k": "1"}), "b": ConfigMapData({})}, {"s": SecretData({})})
    lost = Unavailable("no answer", missing=False)
    gone = Unavailable("not found", missing=True)
    now = References({"a": lost, "b": gone, "c": lost}, {"s": lost}, services=(SERVICE,))

    known = with_known(now, before)
    assert known.config_maps == {"a": ConfigMapData({"k": "1"}), "b": gone, "c": lost}
    assert known.secrets == {"s": SecretData({})}
    assert known.services == (SERVICE,)
    assert with_known(now, None) is now


# --- tokens -----------------------------------------------------------------------------------------------


async def test_a_token_is_asked_for_once_and_renewed_at_four_fifths_of_its_life(
    resolver: ReferenceResolver, api: Api, clock: ManualClock
) -> None:
    pod = with_token()
    first = (await resolver.resolve(pod)).token(TOKEN)
    assert resolver.refresh_at(pod.key) == START + datetime.timedelta(seconds=LIFE_S * 0.8)

    await clock.advance(LIFE_S * 0.79)
    assert (await resolver.resolve(pod)).token(TOKEN) is first
    await clock.advance(LIFE_S * 0.02)
    assert (await resolver.resolve(pod)).token(TOKEN) != first
    assert api.asked == {"token web ": 2}


async def test_a_token_that_cannot_be_renewed_serves_until_it_expires(
    resolver: ReferenceResolver, api: Api, clock: ManualClock
) -> None:
    pod = with_token()
    first = (await resolver.resolve(pod)).token(TOKEN)
    api.error = ApiUnavailableError("no answer")
    await clock.advance(LIFE_S * 0.9)
    assert (await resolver.resolve(pod)).token(TOKEN) is first

    await clock.advance(LIFE_S * 0.2)
    assert (await resolver.resolve(pod)).unavailable() == (
        Unavailable("failed to fetch token: no answer", missing=False),
    )


async def test_every_pod_has_a_token_of_its_own_until_it_is_forgotten(
    resolver: ReferenceResolver, api: Api
) -> None:
    pods = [with_token("a"), with_token("b")]
    tokens = {(await resolver.resolve(pod)).token(TOKEN).token for pod in pods}
    assert len(tokens) == 2

    resolver.forget(pods[0].key)
    assert resolver.refresh_at(pods[0].key) is None
    assert resolver.refresh_at(pods[1].key) is not None


async def test_a_running_pod_is_given_its_new_token_in_time(node: FakeNode) -> None:
    key = await node.create(volumes=with_token().spec["volumes"])
    (request,) = node.server.requests_to("POST", "/token")
    assert request.body["spec"]["boundObjectRef"]["uid"] == key.uid
    await node.advance(LIFE_S * 0.79)
    assert node.platform.methods(key) == ["create_pod"]

    await node.advance(LIFE_S * 0.02)
    assert node.platform.methods(key) == ["create_pod", "update_pod"]
    given = [c.references.token(TOKEN).token for c in node.platform.calls if c.references is not None]
    assert given[0] != given[1]
    await node.advance(LIFE_S * 8)
    assert len(node.server.requests_to("POST", "/token")) == 12


async def test_a_token_that_cannot_be_renewed_is_not_asked_for_all_the_time(node: FakeNode) -> None:
    key = await node.create(volumes=with_token().spec["volumes"])
    node.server.fail(500, "POST", "/token", times=1000)
    await node.advance(LIFE_S * 0.95)
    assert 8 <= len(node.server.requests_to("POST", "/token")) <= 20
    assert node.platform.methods(key) == ["create_pod"]

    node.server.recover()
    await node.advance(61)
    assert node.platform.methods(key) == ["create_pod", "update_pod"]
