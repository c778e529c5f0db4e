from __future__ import annotations

import dataclasses

import pytest

from tests.clocks import ManualClock
from tests.server.kubelet import ApiServer
from vkubelet.model.access import AccessAttributes, AccessReviewResult, UserInfo
from vkubelet.server.authorization import (
    AlwaysAllow,
    Undecided,
    WebhookAuthorizer,
    api_verb,
    node_subresources,
)

ASKED = AccessAttributes(UserInfo("jane", groups=("dev",)), "get", "nodes", "metrics", "node-1")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/stats", ("stats",)),
        ("/stats/summary", ("stats",)),
        ("/statsx", ("proxy",)),
        ("/metrics", ("metrics",)),
        ("/metrics/cadvisor", ("metrics",)),
        ("/logs/", ("log",)),
        ("/logs/syslog", ("log",)),
        ("/checkpoint/ns/pod/container", ("checkpoint",)),
        ("/statusz", ("statusz",)),
        ("/flagz", ("configz",)),
        ("/configz", ("configz", "proxy")),
        ("/pods", ("pods", "proxy")),
        ("/pods/", ("pods", "proxy")),
        ("/runningpods/", ("pods", "proxy")),
        ("/healthz", ("healthz", "proxy")),
        ("/healthz/syncloop", ("healthz", "proxy")),
        ("/containerLogs/ns/pod/container", ("proxy",)),
        ("/exec/ns/pod/container", ("proxy",)),
        ("/exec/ns/pod/uid/container", ("proxy",)),
        ("/exec/stats/metrics/logs", ("proxy",)),
        ("/attach/ns/pod/container", ("proxy",)),
        ("/attach/ns/pod/uid/container", ("proxy",)),
        ("/run/ns/pod/container", ("proxy",)),
        ("/run/ns/pod/uid/container", ("proxy",)),
        ("/portForward/ns/pod", ("proxy",)),
        ("/portForward/ns/pod/uid", ("proxy",)),
        ("/debug/pprof/heap", ("proxy",)),
        ("/debug/flags/v", ("proxy",)),
        ("/metrics/resource", ("metrics",)),
        ("/metrics/probes", ("metrics",)),
        ("/metrics/slis", ("metrics",)),
        ("/healthz/log", ("healthz", "proxy")),
        ("/healthz/ping", ("healthz", "proxy")),
        ("/podsecurity", ("proxy",)),
        ("/Pods", ("proxy",)),
        ("/", ("proxy",)),
        ("/nothing", ("proxy",)),
    ],
)
def test_the_path_decides_which_subresources_open_it(path: str, expected: tuple[str, ...]) -> None:
    assert node_subresources(path) == expected


@pytest.mark.parametrize(
    ("method", "verb"),
    [("GET", "get"), ("POST", "create"), ("PUT", "update"), ("PATCH", "patch"), ("DELETE", "delete")],
)
def test_the_method_decides_the_verb(method: str, verb: str) -> None:
    assert api_verb(method) == verb


def test_a_method_that_the_api_does_not_know_has_no_verb() -> None:
    assert api_verb("HEAD") == ""


async def test_a_yes_holds_for_five_minutes() -> None:
    clock, api = ManualClock(), ApiServer(allowed={("jane", "get", "metrics")})
    authorizer = WebhookAuthorizer(api.review_access, clock)
    assert await authorizer.authorize(ASKED) is True
    api.allowed.clear()
    await clock.advance(299)
    assert await authorizer.authorize(ASKED) is True
    await clock.advance(1)
    assert await authorizer.authorize(ASKED) is False


async def test_a_no_holds_for_half_a_minute() -> None:
    clock, api = ManualClock(), ApiServer()
    authorizer = WebhookAuthorizer(api.review_access, clock)
    assert await authorizer.authorize(ASKED) is False
    api.allowed.add(("jane", "get", "metrics"))
    await clock.advance(29)
    assert await authorizer.authorize(ASKED) is False
    await clock.advance(1)
    assert await authorizer.authorize(ASKED) is True


async def test_how_long_answers_hold_can_be_chosen() -> None:
    clock, api = ManualClock(), ApiServer(allowed={("jane", "get", "metrics")})
    authorizer = WebhookAuthorizer(api.review_access, clock, allow_ttl_s=10, deny_ttl_s=5)
    assert await authorizer.authorize(ASKED) is True
    api.allowed.clear()
    await clock.advance(10)
    assert await authorizer.authorize(ASKED) is False
    api.allowed.add(("jane", "get", "metrics"))
    await clock.advance(5)
    assert await authorizer.authorize(ASKED) is True


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(ASKED, user=UserInfo("john", groups=("dev",))),
        dataclasses.replace(ASKED, user=UserInfo("jane", groups=("ops",))),
        dataclasses.replace(ASKED, user=UserInfo("jane", uid="7", groups=("dev",))),
        dataclasses.replace(ASKED, user=UserInfo("jane", groups=("dev",), extra={"scope": ("x",)})),
        dataclasses.replace(ASKED, verb="create"),
        dataclasses.replace(ASKED, subresource="proxy"),
    ],
    ids=["name", "groups", "uid", "extra", "verb", "subresource"],
)
async def test_an_answer_is_for_exactly_what_was_asked(other: AccessAttributes) -> None:
    api = ApiServer()
    authorizer = WebhookAuthorizer(api.review_access, ManualClock())
    await authorizer.authorize(ASKED)
    await authorizer.authorize(other)
    assert api.reviewed_access == [ASKED, other]


async def test_without_an_answer_nobody_is_let_in_and_the_next_one_asks_again() -> None:
    api = ApiServer(allowed={("jane", "get", "metrics")}, is_up=False)
    authorizer = WebhookAuthorizer(api.review_access, ManualClock())
    assert isinstance(await authorizer.authorize(ASKED), Undecided)
    api.is_up = True
    assert await authorizer.authorize(ASKED) is True


async def test_an_answer_that_both_allows_and_denies_is_a_no() -> None:
    async def review(_: AccessAttributes) -> AccessReviewResult:
        return AccessReviewResult(allowed=True, denied=True)

    assert await WebhookAuthorizer(review, ManualClock()).authorize(ASKED) is False


async def test_always_allow_asks_nobody() -> None:
    assert await AlwaysAllow().authorize(ASKED) is True
