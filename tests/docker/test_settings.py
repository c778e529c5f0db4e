"""The provider's options: from the file and the environment, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from providers.docker.settings import DockerSettings, endpoint, parse_settings
from vkubelet.errors import ConfigurationError


def test_nothing_said_is_the_default() -> None:
    assert parse_settings({}, {}) == DockerSettings()


def test_every_key_is_understood() -> None:
    config = {
        "host": "tcp://engine:2376",
        "certPath": "/certs",
        "sandboxImage": "mirror/pause:3",
        "network": "pods",
        "containerLogMaxSize": "20Mi",
        "containerLogMaxFiles": "3",
        "requestTimeoutSeconds": 60,
        "systemReservedCPUMillicores": "500",
        "systemReservedMemoryMiB": 256,
    }
    assert parse_settings(config, {}) == DockerSettings(
        host="tcp://engine:2376",
        cert_dir=Path("/certs"),
        sandbox_images=("mirror/pause:3",),
        network="pods",
        container_log_max_size_bytes=20 << 20,
        container_log_max_files=3,
        request_timeout_s=60,
        system_reserved_cpu_millicores=500,
        system_reserved_memory_mib=256,
    )


def test_the_environment_wins() -> None:
    environ = {"DOCKER_HOST": "tcp://other:1", "DOCKER_CERT_PATH": "/c"}
    settings = parse_settings({"host": "unix:///x"}, environ)
    assert (settings.host, settings.cert_dir) == ("tcp://other:1", Path("/c"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        pytest.param({"sandboximage": "x"}, "does not know sandboximage", id="unknown key"),
        pytest.param({"containerLogMaxSize": "ten"}, "containerLogMaxSize", id="size"),
        pytest.param({"containerLogMaxSize": "0"}, "containerLogMaxSize", id="no size"),
        pytest.param({"containerLogMaxFiles": 0}, "containerLogMaxFiles.*from 1", id="no files"),
        pytest.param({"containerLogMaxFiles": True}, "containerLogMaxFiles", id="truth value"),
        pytest.param({"network": ["a"]}, "network", id="list"),
        pytest.param({"systemReservedMemoryMiB": "-1"}, "systemReservedMemoryMiB", id="negative"),
        pytest.param({"host": "ssh://me@there"}, "ssh://me@there", id="scheme"),
        pytest.param({"host": "tcp://a:b"}, "port", id="port"),
        pytest.param({"host": "unix://"}, "unix:///path", id="no path"),
        pytest.param({"host": "https://a"}, "DOCKER_CERT_PATH", id="TLS without certificates"),
    ],
)
def test_a_wrong_value_is_named(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parse_settings(config, {})


@pytest.mark.parametrize(
    ("host", "certs", "base_url"),
    [
        ("unix:///run/d.sock", None, "http://docker"),
        ("tcp://engine", None, "http://engine:2375"),
        ("tcp://engine", Path("/c"), "https://engine:2376"),
        ("tcp://[::1]:99", None, "http://[::1]:99"),
    ],
)
def test_an_address_gives_a_url(host: str, certs: Path | None, base_url: str) -> None:
    assert endpoint(DockerSettings(host=host, cert_dir=certs)).base_url == base_url
