"""
What the operator can say about the Docker engine, read once and checked.

Sources are the environment that Docker's own tools know (`DOCKER_HOST`, `DOCKER_CERT_PATH`), then
``--provider-config``, then defaults; the environment wins over the file, as with every option of vkubelet.
Keys are spelled as in Kubernetes' configuration files. A key that is not known is an error: a misspelled
option must not be one that silently does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vkubelet.errors import ConfigurationError

__all__ = ["DEFAULT_HOST", "DockerSettings", "Endpoint", "endpoint", "parse_settings"]

DEFAULT_HOST = "unix:///var/run/docker.sock"
_DEFAULT_SANDBOX_IMAGES = ("vkubelet.local/pause:1", "registry.k8s.io/pause:3.10.2")
_SIZE = re.compile(r"([0-9]{1,12})(Ki|Mi|Gi|k|m|g)?")
_SIZE_FACTORS = {None: 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "m": 10**6, "g": 10**9}
_PLAIN_PORT = 2375
_TLS_PORT = 2376


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """
    The provider's options.

    Attributes:
        host: where the engine listens, as in `DOCKER_HOST`.
        cert_dir: holds ca.pem, cert.pem and key.pem for TLS over TCP, as in `DOCKER_CERT_PATH`.
        sandbox_images: the first one that is present is used for sandboxes, else the last one is pulled.
        network: the engine's network that pods are attached to.
        container_log_max_size_bytes: the kubelet's `containerLogMaxSize`.
        container_log_max_files: the kubelet's `containerLogMaxFiles`.
        request_timeout_s: how long an ordinary call may take, the kubelet's `runtimeRequestTimeout`.
        system_reserved_cpu_millicores: kept from pods.
        system_reserved_memory_mib: kept from pods; the default is the kubelet's eviction threshold.
    """

    host: str = DEFAULT_HOST
    cert_dir: Path | None = None
    sandbox_images: tuple[str, ...] = _DEFAULT_SANDBOX_IMAGES
    network: str = "bridge"
    container_log_max_size_bytes: int = 10 * 2**20
    container_log_max_files: int = 5
    request_timeout_s: float = 120.0
    system_reserved_cpu_millicores: int = 0
    system_reserved_memory_mib: int = 100


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    Where the engine listens: a Unix socket, or a host and port.

    Attributes:
        url: for messages.
        cert_dir: set for TLS.
    """

    url: str
    unix_path: str | None = None
    host: str = "docker"
    port: int = 0
    cert_dir: Path | None = None

    @property
    def base_url(self) -> str:
        """What requests start with; on a Unix socket the host is of no importance."""
        if self.unix_path is not None:
            return "http://docker"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.cert_dir else 'http'}://{host}:{self.port}"


def parse_settings(config: Mapping[str, object], environ: Mapping[str, str]) -> DockerSettings:
    """
    The settings from ``--provider-config`` and the environment.

    Raises:
        ConfigurationError: a key is unknown or a value is wrong; names it.
    """
    unknown = sorted(key for key in config if key not in _KEYS)
    if unknown:
        raise ConfigurationError(
            f"the docker provider does not know {', '.join(unknown)} in --provider-config: "
            f"use {', '.join(sorted(_KEYS))}"
        )
    values: dict[str, object] = {}
    for key, (field_name, parse) in _KEYS.items():
        if config.get(key) is not None:
            values[field_name] = _parsed(f"{key} in --provider-config", parse, config[key])
    if environ.get("DOCKER_HOST"):
        values["host"] = environ["DOCKER_HOST"]
    if environ.get("DOCKER_CERT_PATH"):
        values["cert_dir"] = Path(environ["DOCKER_CERT_PATH"])
    settings = DockerSettings(**values)  # type: ignore[arg-type]  # each value comes from its field's parser
    endpoint(settings)
    return settings


def endpoint(settings: DockerSettings) -> Endpoint:
    """
    The engine's address.

    ``tcp://`` means TLS when there are certificates, plain HTTP else, as with Docker's own client; unlike
    it, the engine's certificate is always verified.

    Raises:
        ConfigurationError: it is not an address that this provider can use.
    """
    parts = urlsplit(settings.host)
    try:
        port = parts.port
    except ValueError:
        raise ConfigurationError(f"DOCKER_HOST={settings.host}: the port is not a number") from None
    if parts.scheme == "unix" and parts.path:
        return Endpoint(settings.host, unix_path=parts.path)
    if parts.scheme in ("tcp", "http", "https") and parts.hostname:
        if parts.scheme == "https" and settings.cert_dir is None:
            raise ConfigurationError(
                f"DOCKER_HOST={settings.host} needs DOCKER_CERT_PATH for its certificates"
            )
        port = port or (_TLS_PORT if settings.cert_dir else _PLAIN_PORT)
        return Endpoint(settings.host, host=parts.hostname, port=port, cert_dir=settings.cert_dir)
    raise ConfigurationError(
        f"DOCKER_HOST={settings.host} is not an address of a Docker engine: "
        "use unix:///path/to/docker.sock or tcp://host:port"
    )


def _parsed(label: str, parse: Callable[[object], object], value: object) -> object:
    try:
        return parse(value)
    except ValueError as error:
        raise ConfigurationError(f"{label}: {error}") from None


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{value!r} is not a text")
    return value.strip()


def _path(value: object) -> Path:
    return Path(_text(value)).expanduser()


def _images(value: object) -> tuple[str, ...]:
    return (_text(value),)


def _whole_number(value: object) -> int:
    written = str(value).strip()
    if isinstance(value, bool) or re.fullmatch(r"[0-9]{1,12}", written, re.ASCII) is None:
        raise ValueError(f"{value!r} is not a whole number from 0")
    return int(written)


def _positive_number(value: object) -> int:
    number = _whole_number(value)
    if number == 0:
        raise ValueError("0 is too small; use a whole number from 1")
    return number


def _size_bytes(value: object) -> int:
    match = None if isinstance(value, bool) else _SIZE.fullmatch(str(value).strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{value!r} is not a size; use one such as 10Mi")
    return int(match[1]) * _SIZE_FACTORS[match[2]]


_KEYS: Mapping[str, tuple[str, Callable[[object], object]]] = {
    "host": ("host", _text),
    "certPath": ("cert_dir", _path),
    "sandboxImage": ("sandbox_images", _images),
    "network": ("network", _text),
    "containerLogMaxSize": ("container_log_max_size_bytes", _size_bytes),
    "containerLogMaxFiles": ("container_log_max_files", _positive_number),
    "requestTimeoutSeconds": ("request_timeout_s", _positive_number),
    "systemReservedCPUMillicores": ("system_reserved_cpu_millicores", _whole_number),
    "systemReservedMemoryMiB": ("system_reserved_memory_mib", _whole_number),
}
