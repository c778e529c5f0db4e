"""The plain port on this machine."""

from __future__ import annotations

import re
import socket

import aiohttp
import pytest

from vkubelet.errors import ConfigurationError
from vkubelet.server.health_port import health_port


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/healthz", (200, "ok")),
        ("/healthz/ping", (200, "ok")),
        ("/healthz/syncloop", (200, "ok")),
        ("/pods", (404, "404: Not Found")),
        ("/metrics", (404, "404: Not Found")),
        ("/readyz", (404, "404: Not Found")),
    ],
)
async def test_health_is_all_that_is_told_without_credentials(
    port: int, path: str, answer: tuple[int, str]
) -> None:
    url = f"http://127.0.0.1:{port}{path}"
    async with (
        health_port(port, {"syncloop": lambda: None}),
        aiohttp.ClientSession() as session,
        session.get(url) as response,
    ):
        assert (response.status, await response.text()) == answer


async def test_a_failing_check_is_told(port: int) -> None:
    async with (
        health_port(port, {"syncloop": lambda: "stuck"}),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}/healthz") as response,
    ):
        assert response.status == 500


async def test_zero_serves_nothing() -> None:
    async with health_port(0, {}):
        pass


async def test_a_taken_port_is_told_with_the_option_to_change(port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        words = re.escape(f"--healthz-port {port} cannot be served on")
        with pytest.raises(ConfigurationError, match=rf"{words}.*choose another port, or 0 for none"):
            await health_port(port, {}).__aenter__()
