from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from tests.clocks import ManualClock, settle
from tests.server.kubelet import ADMIN_TOKEN, ApiServer
from vkubelet.errors import ConfigurationError
from vkubelet.model.access import ANONYMOUS, TokenReviewResult, UserInfo
from vkubelet.server.authentication import (
    Authenticator,
    BearerTokens,
    Rejected,
    bearer_token,
    make_authenticator,
)


def request_with(**headers: str) -> web.Request:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("GET", "/pods", headers=names)


def with_token(token: str = ADMIN_TOKEN) -> web.Request:
    return request_with(Authorization=f"Bearer {token}")


def webhook(api: ApiServer, *, anonymous_auth: bool = False) -> Authenticator:
    return make_authenticator(
        client_trust=None, review_token=api.review_token, anonymous_auth=anonymous_auth, clock=ManualClock()
    )


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer abc", "abc"),
        ("  Bearer abc  ", "abc"),
        ("Bearer abc def", "abc"),
        ("Bearer ", None),
        ("Bearer  abc", None),
        ("Bearer", None),
        ("Basic abc", None),
        ("", None),
    ],
)
def test_a_bearer_token_is_the_word_after_bearer(header: str, token: str | None) -> None:
    assert bearer_token(request_with(Authorization=header)) == token


def test_a_websocket_client_gives_its_token_as_a_subprotocol() -> None:
    encoded = urlsafe_b64encode(b"s3cret").decode().rstrip("=")
    request = request_with(
        Upgrade="websocket",
        Sec_WebSocket_Protocol=f"v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}",
    )
    assert bearer_token(request) == "s3cret"


def test_a_subprotocol_that_is_no_token_is_none() -> None:
    request = request_with(
        Upgrade="websocket", Sec_WebSocket_Protocol="base64url.bearer.authorization.k8s.io.!!!!a"
    )
    assert bearer_token(request) is None


async def test_an_accepted_token_is_asked_about_every_two_minutes() -> None:
    clock, api = ManualClock(), ApiServer()
    tokens = BearerTokens(api.review_token, clock)
    for advance_s in (0, 119, 1, 119):
        await clock.advance(advance_s)
        assert await tokens.authenticate(with_token()) == UserInfo("admin")
    assert api.reviewed_tokens == [ADMIN_TOKEN] * 2


async def test_how_long_a_token_holds_can_be_chosen() -> None:
    clock, api = ManualClock(), ApiServer()
    tokens = BearerTokens(api.review_token, clock, 10)
    for advance_s in (0, 9, 1):
        await clock.advance(advance_s)
        await tokens.authenticate(with_token())
    assert api.reviewed_tokens == [ADMIN_TOKEN] * 2


async def test_a_revoked_token_is_refused_after_two_minutes() -> None:
    clock, api = ManualClock(), ApiServer()
    tokens = BearerTokens(api.review_token, clock)
    await tokens.authenticate(with_token())
    api.tokens.clear()
    await clock.advance(120)
    assert isinstance(await tokens.authenticate(with_token()), Rejected)


async def test_a_token_that_is_nobodys_is_remembered_for_two_minutes() -> None:
    clock, asked = ManualClock(), 0

    async def review(_: str) -> TokenReviewResult:
        nonlocal asked
        asked += 1
        return TokenReviewResult(authenticated=False)

    tokens = BearerTokens(review, clock)
    for advance_s in (0, 119, 1):
        await clock.advance(advance_s)
        assert isinstance(await tokens.authenticate(with_token()), Rejected)
    assert asked == 2


async def test_an_error_about_a_token_is_not_remembered() -> None:
    api = ApiServer()
    tokens = BearerTokens(api.review_token, ManualClock())
    assert isinstance(await tokens.authenticate(with_token("new")), Rejected)
    api.tokens["new"] = UserInfo("jane")
    assert await tokens.authenticate(with_token("new")) == UserInfo("jane")


async def test_without_the_api_server_a_new_token_is_refused_and_a_known_one_holds() -> None:
    api = ApiServer()
    tokens = BearerTokens(api.review_token, ManualClock())
    await tokens.authenticate(with_token())
    api.is_up = False
    assert isinstance(await tokens.authenticate(with_token("other")), Rejected)
    assert await tokens.authenticate(with_token()) == UserInfo("admin")


async def test_many_requests_with_one_token_are_one_review() -> None:
    asked, gate = 0, asyncio.Event()

    async def review(_: str) -> TokenReviewResult:
        nonlocal asked
        asked += 1
        await gate.wait()
        return TokenReviewResult(authenticated=True, user=UserInfo("admin"))

    tokens = BearerTokens(review, ManualClock())
    requests = [asyncio.create_task(tokens.authenticate(with_token())) for _ in range(50)]
    await settle()
    gate.set()
    assert set(map(str, await asyncio.gather(*requests))) == {str(UserInfo("admin"))}
    assert asked == 1


async def test_everybody_who_is_authenticated_is_in_the_group_of_those() -> None:
    verdict = await webhook(ApiServer()).authenticate(with_token())
    assert verdict == UserInfo("admin", groups=("system:authenticated",))


async def test_without_credentials_there_is_no_user() -> None:
    assert await webhook(ApiServer()).authenticate(request_with()) is None


async def test_without_credentials_there_is_an_anonymous_user_where_such_are_let_in() -> None:
    assert await webhook(ApiServer(), anonymous_auth=True).authenticate(request_with()) == ANONYMOUS


async def test_a_wrong_token_does_not_make_its_owner_anonymous() -> None:
    verdict = await webhook(ApiServer(), anonymous_auth=True).authenticate(with_token("wrong"))
    assert isinstance(verdict, Rejected)


def test_no_way_to_authenticate_is_a_configuration_error_that_names_both_options() -> None:
    with pytest.raises(ConfigurationError, match=r"--client-ca-file .*--authentication-token-webhook"):
        make_authenticator(client_trust=None, review_token=None, anonymous_auth=False, clock=ManualClock())
