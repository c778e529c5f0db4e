"""
Where the API server is, and what we prove ourselves with.

Reading a kubeconfig (exec plugins, OIDC, tokens and token files, client certificates, proxies) and the
in-cluster service account is `kubernetes_asyncio`'s work; this module gives it a place to put the result,
keeps what can expire fresh, and says in one sentence what is wrong. Token files are read again every minute,
as client-go does; an exec plugin is asked again when its answer expires or the API server refuses it; a
client certificate file that was replaced is used for the connections made from then on.

Inline certificates reach OpenSSL through files, since it takes no others: they live in a directory of our own
for the moment that takes, so that a killed process leaves no key behind in /tmp.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib import request as urllib_request
from urllib.parse import urlsplit

import yaml

from vkubelet.clock import Clock
from vkubelet.errors import ConfigurationError
from vkubelet.kube.lean_import import incluster_config, kube_config

__all__ = ["Credentials"]

_REFRESH_S = 60.0
_FORCED_REFRESH_S = 10.0
"""After a 401 nothing is fetched more often than this: a plugin may open a browser window."""

_LOADER_ERRORS = (
    kube_config.ConfigException,
    yaml.YAMLError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
)
"""The loader checks little: a kubeconfig of the wrong shape surfaces as any of these."""


@dataclass(slots=True)
class _Loaded:
    """The attributes of `kubernetes_asyncio`'s `Configuration` that its loaders write."""

    host: str = ""
    ssl_ca_cert: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify_ssl: bool = True
    tls_server_name: str | None = None
    proxy: str | None = None
    api_key: dict[str, str] = field(default_factory=dict)
    refresh_api_key_hook: object = None


class Credentials:
    """
    One API server and our identity there.

    Attributes:
        source: what it was read from, for messages: ``--kubeconfig /path`` or ``the service account``.
        server: base URL without a slash at its end.
        ssl_context: None for plain HTTP.
        server_hostname: the name to verify the server's certificate for, None for the URL's.
        proxy: URL of a proxy, None for a direct connection.
        certificate_expires_at: end of the client certificate, None without one.
    """

    def __init__(
        self, loaded: _Loaded, source: str, clock: Clock, reload: Callable[[bool], Awaitable[None]] | None
    ) -> None:
        self.source = source
        self.server = _checked_server(loaded.host, source)
        self.server_hostname = loaded.tls_server_name or None
        self.proxy = _checked_proxy(loaded.proxy or _environment_proxy(self.server), source)
        self.certificate_expires_at: datetime.datetime | None = None
        self.ssl_context = _ssl_context(loaded, source) if self.server.startswith("https:") else None
        self._loaded = loaded
        self._clock = clock
        self._reload = reload
        self._refreshed_at = clock.monotonic()
        self._lock = asyncio.Lock()
        self._certificate_seen: tuple[str, int] | None = None
        self._load_certificate()

    @classmethod
    async def load(cls, kubeconfig: Path | None, clock: Clock, option: str = "--kubeconfig") -> Credentials:
        """
        Read `kubeconfig`, or use the pod's service account when it is None.

        Raises:
            ConfigurationError: it cannot be used; the sentence names `option`.
        """
        if kubeconfig is None:
            return _from_service_account(clock)
        return await _from_kubeconfig(kubeconfig, clock, f"{option} {kubeconfig}")

    @property
    def certificate_file(self) -> Path | None:
        """The client certificate's file; gone meanwhile, if it stood in the kubeconfig itself."""
        return Path(self._loaded.cert_file) if self._loaded.cert_file else None

    @property
    def authorization(self) -> str | None:
        """The present value of the header of that name."""
        return self._loaded.api_key.get("BearerToken")

    @property
    def is_due(self) -> bool:
        """`refresh` has something to look at; asked before each request, so it is cheap."""
        return self._clock.monotonic() - self._refreshed_at >= _REFRESH_S

    async def refresh(self, *, refused: bool = False) -> None:
        """
        Read again what may have changed; at most one at a time, and no more often than makes sense.

        Args:
            refused: the API server did not accept what we have, so an exec plugin is asked even though its
                last answer has not expired.

        Raises:
            ConfigurationError: it cannot be read any more; what we had stays in use.
        """
        async with self._lock:
            age_s = self._clock.monotonic() - self._refreshed_at
            if age_s < (_FORCED_REFRESH_S if refused else _REFRESH_S):
                return
            self._refreshed_at = self._clock.monotonic()
            try:
                if self._reload is not None:
                    await self._reload(refused)
                self._load_certificate()
            except _LOADER_ERRORS as error:
                raise ConfigurationError(f"{self.source}: credentials cannot be renewed: {error}") from error

    def check_certificate(self) -> None:
        """
        Complain about a client certificate that has expired.

        Raises:
            ConfigurationError: naming its source and the date.
        """
        expires_at = self.certificate_expires_at
        if expires_at is not None and expires_at <= self._clock.now():
            raise ConfigurationError(
                f"{self.source}: the client certificate expired on {expires_at:%Y-%m-%d %H:%M} UTC: "
                "have a new one signed, or name another kubeconfig"
            )

    def reload_certificate(self) -> None:
        """
        Show a client certificate whose file was replaced, on connections made from now on.

        Raises:
            ConfigurationError: it cannot be used; what we had stays in use.
        """
        try:
            self._load_certificate()
        except OSError as error:
            raise ConfigurationError(f"{self.source}: credentials cannot be renewed: {error}") from error

    def _load_certificate(self) -> None:
        """Put the client certificate into the TLS context if its file is not the one that is in there."""
        path = self._loaded.cert_file
        if self.ssl_context is None or not path:
            return
        if not Path(path).exists() and self._certificate_seen is not None:
            return  # it was inline, and its file is gone since it was first loaded
        seen = (path, os.stat(path).st_mtime_ns)
        if seen == self._certificate_seen:
            return
        try:
            self.ssl_context.load_cert_chain(path, self._loaded.key_file or None, password=_no_password)
            self.certificate_expires_at = _expiry(Path(path).read_bytes())
        except (ssl.SSLError, ValueError) as error:
            raise ConfigurationError(
                f"{self.source}: client certificate and key cannot be used: {error}"
            ) from error
        self._certificate_seen = seen


# --- the two sources --------------------------------------------------------------------------------------


async def _from_kubeconfig(path: Path, clock: Clock, source: str) -> Credentials:
    if not path.is_file():  # noqa: ASYNC240 - once, at the start
        raise ConfigurationError(f"{source}: there is no such file")
    _check_shape(path, source)
    loaded = _Loaded()
    with tempfile.TemporaryDirectory(prefix="vkubelet-") as scratch:
        try:
            loader = await kube_config.load_kube_config(
                config_file=str(path),
                client_configuration=loaded,
                persist_config=False,
                temp_file_path=scratch,
            )
            return Credentials(loaded, source, clock, _reloading(loader, loaded))
        except ConfigurationError:
            raise
        except _LOADER_ERRORS as error:
            raise ConfigurationError(f"{source}: not a usable kubeconfig: {_words(error)}") from error
        finally:
            _forget_files_in(scratch)


def _check_shape(path: Path, source: str) -> None:
    """Say what is missing in words; the loader would stumble over it."""
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigurationError(f"{source}: it cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigurationError(f"{source}: this is no kubeconfig")
    for key in ("clusters", "contexts", "users"):
        if not isinstance(config.get(key) or [], list):
            raise ConfigurationError(f"{source}: {key} must be a list")


def _reloading(loader: Any, loaded: _Loaded) -> Callable[[bool], Awaitable[None]] | None:
    """How to renew a kubeconfig's credentials, None when nothing in it changes by itself."""
    user = loader._user
    if user is None or not any(kind in user for kind in ("exec", "auth-provider", "tokenFile")):
        return None

    async def reload(refused: bool) -> None:
        expiry_known = hasattr(loader, "exec_plugin_expiry")
        if "exec" in user and not refused and not expiry_known:
            return
        if refused and expiry_known:
            del loader.exec_plugin_expiry
        # The loader's public load_and_set would write the certificates to files anew every minute.
        await loader._load_authentication()
        loader._set_config(loaded)

    return reload


def _from_service_account(clock: Clock) -> Credentials:
    loaded = _Loaded()
    try:
        loader = incluster_config.InClusterConfigLoader(
            token_filename=incluster_config.SERVICE_TOKEN_FILENAME,
            cert_filename=incluster_config.SERVICE_CERT_FILENAME,
            try_refresh_token=False,
        )
        loader.load_and_set(loaded)
    except _LOADER_ERRORS as error:
        raise ConfigurationError(
            f"--kubeconfig: none is given and this is not a pod of a cluster either ({_words(error)})"
        ) from error

    async def reload(_refused: bool) -> None:
        loader.load_and_set(loaded)

    return Credentials(loaded, "the pod's service account", clock, reload)


def _forget_files_in(directory: str) -> None:
    """The loader would hand out a removed file again for the same content."""
    files: dict[str, str] = kube_config._temp_files
    for content in [c for c, name in files.items() if name.startswith(directory)]:
        del files[content]


# --- parts ------------------------------------------------------------------------------------------------


def _checked_server(host: str, source: str) -> str:
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError(f'{source}: "{host}" is not the URL of an API server')
    return host.rstrip("/")


def _checked_proxy(proxy: str | None, source: str) -> str | None:
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        raise ConfigurationError(
            f'{source}: proxy "{proxy}" is not supported: only http and https proxies are'
        )
    return proxy or None


def _environment_proxy(server: str) -> str | None:
    parts = urlsplit(server)
    if urllib_request.proxy_bypass(parts.netloc):
        return None
    return urllib_request.getproxies().get(parts.scheme)


def _ssl_context(loaded: _Loaded, source: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=loaded.ssl_ca_cert)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"{source}: the certificate authority cannot be used: {error}") from error
    # Python 3.13 refuses certificates without an Authority Key Identifier; Go does not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not loaded.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _no_password() -> str:
    """Keeps OpenSSL from asking for one on the terminal."""
    raise ValueError("the key is encrypted")


def _expiry(pem: bytes) -> datetime.datetime:
    from cryptography import x509  # 3 MB that a token does not need

    return x509.load_pem_x509_certificate(pem).not_valid_after_utc


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
