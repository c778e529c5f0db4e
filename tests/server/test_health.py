from __future__ import annotations

from dataclasses import replace

import pytest

from tests.server.kubelet import Files, Pods, serving
from vkubelet.server.app import Powers


def fine() -> str | None:
    return None


def slow() -> str | None:
    return "pods were last synced 5m ago"


def broken() -> str | None:
    raise ValueError("a bug in the check")


POWERS = Powers(pods=Pods(), health_checks={"syncloop": fine})


@pytest.mark.parametrize(
    "path", ["/healthz", "/healthz/", "/healthz/ping", "/healthz/log", "/healthz/syncloop"]
)
async def test_a_healthy_node_says_ok(files: Files, path: str) -> None:
    async with serving(files, POWERS) as kubelet:
        assert await kubelet.get(path) == (200, "ok")


async def test_every_check_is_a_line_when_asked_for(files: Files) -> None:
    async with serving(files, POWERS) as kubelet:
        assert await kubelet.get("/healthz?verbose") == (
            200,
            "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n",
        )


@pytest.mark.parametrize("check", [slow, broken])
async def test_a_failed_check_is_named_and_its_reason_withheld(files: Files, check: object) -> None:
    powers = replace(POWERS, health_checks={"syncloop": check})  # type: ignore[dict-item] # both are checks
    async with serving(files, powers) as kubelet:
        assert await kubelet.get("/healthz") == (
            500,
            "[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n",
        )


@pytest.mark.parametrize(("check", "reason"), [(slow, slow() or ""), (broken, "a bug in the check")])
async def test_the_checks_own_path_tells_the_reason(files: Files, check: object, reason: str) -> None:
    powers = replace(POWERS, health_checks={"syncloop": check})  # type: ignore[dict-item] # both are checks
    async with serving(files, powers) as kubelet:
        assert await kubelet.get("/healthz/syncloop") == (500, f"internal server error: {reason}\n")
        assert await kubelet.get("/healthz/ping") == (200, "ok")


async def test_checks_can_be_left_out(files: Files) -> None:
    powers = replace(POWERS, health_checks={"syncloop": slow})
    async with serving(files, powers) as kubelet:
        assert await kubelet.get("/livez?exclude=syncloop&exclude=nothing&verbose") == (
            200,
            "[+]ping ok\n[+]log ok\n[+]syncloop excluded: ok\n"
            'warn: some health checks cannot be excluded: no matches for "nothing"\nlivez check passed\n',
        )


async def test_a_node_can_live_without_being_ready(files: Files) -> None:
    powers = replace(POWERS, readiness_checks={"pods": lambda: "not yet listed"})
    async with serving(files, powers) as kubelet:
        assert (await kubelet.get("/livez"))[0] == 200
        assert (await kubelet.get("/readyz"))[0] == 500
        assert (await kubelet.get("/healthz/pods"))[0] == 404


async def test_a_probe_may_ask_for_the_status_alone(files: Files) -> None:
    async with (
        serving(files, POWERS) as kubelet,
        kubelet.session() as session,
        session.head("/healthz") as response,
    ):
        assert response.status == 200
