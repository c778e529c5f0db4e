"""
From sources to `Settings`, with everything that is wrong reported at once.

An operator who starts a container a minute at a time should not learn of one mistake a minute. Only a
``--config`` that cannot be read is reported alone, since nobody knows what it would have said.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from vkubelet.errors import ConfigurationError
from vkubelet.settings import checks
from vkubelet.settings.files import load_provider_config
from vkubelet.settings.installed import installed_providers
from vkubelet.settings.option import Option, Raw
from vkubelet.settings.options import OPTIONS, Settings
from vkubelet.settings.sources import ALL_OPTIONS, Given, from_environment, from_file, from_flags
from vkubelet.settings.taints import Taint

__all__ = ["load_settings"]

_BY_NAME = {option.name: option for option in ALL_OPTIONS}


def load_settings(
    flags: Mapping[str, Raw],
    environ: Mapping[str, str] | None = None,
    *,
    providers: Collection[str] | None = None,
) -> Settings:
    """
    The settings that flags, environment and file add up to.

    Args:
        flags: what the command line gave, by the option's name (``node_name``); see `flags.given_flags`.
        environ: the process's environment unless given.
        providers: the names of the installed providers, unless given.

    Raises:
        ConfigurationError: one sentence a line, each starting with the option's name.
    """
    resolution = _Resolution(os.environ if environ is None else environ)
    resolution.collect(flags)
    resolution.parse()
    resolution.make_taints()
    resolution.check(installed_providers() if providers is None else providers)
    if resolution.problems:
        raise ConfigurationError("\n".join(resolution.problems))
    return Settings(**{option.name: resolution.values[option.name] for option in OPTIONS})


class _Resolution:
    """One run of `load_settings`: what was given, what it became, and what is wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.given: dict[str, Given] = {}
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []

    def collect(self, flags: Mapping[str, Raw]) -> None:
        """Fill `given`: each option from its best source."""
        above_file = {**from_environment(self.environ), **from_flags(flags)}
        file: dict[str, Given] = {}
        if "config" in above_file:
            self.given = above_file
            path = self._parsed(_BY_NAME["config"])
            if path is None:
                raise ConfigurationError("\n".join(self.problems))
            file, unknown = from_file(path)
            self.problems.extend(unknown)
        self.given = {**file, **above_file}

    def parse(self) -> None:
        """Fill `values`; what cannot be parsed is missing from it and has its sentence in `problems`."""
        for option in ALL_OPTIONS:
            value = self._parsed(option)
            if value is not None or self._is_unset(option):
                self.values[option.name] = value

    def _is_unset(self, option: Option) -> bool:
        return option.name not in self.given and option.default is None

    def _parsed(self, option: Option) -> Any:
        """The option's value; None when it has none or, with a sentence in `problems`, a wrong one."""
        given = self.given.get(option.name)
        default = option.default(self.environ) if callable(option.default) else option.default
        raw = default if given is None else given.raw
        if raw is None:
            return None
        try:
            value = option.parse(raw)
        except ValueError as error:
            self.report(option.name, str(error))
            return None
        if isinstance(value, Path):
            return Path(os.path.abspath((Path.cwd() if given is None else given.base) / value))
        return value

    def report(self, name: str, problem: str | None) -> None:
        """Note a problem with an option, if there is one, and where its value came from."""
        if problem is None:
            return
        given, label = self.given.get(name), _BY_NAME[name].label
        origin = f" (set by {given.origin})" if given is not None and given.origin not in ("", label) else ""
        self.problems.append(f"{label}: {problem}{origin}")

    def make_taints(self) -> None:
        """
        Settle `Settings.taints`: given ones, none, or the default one.

        ``--disable-taint`` says "no taints" in the source it comes from, so ``--taint`` on the command
        line still counts where the file disables them; both in one source is a contradiction.
        """
        if "disable_taint" not in self.values or "taints" not in self.values:
            return
        taints_rank = self._rank("taints")
        disabled_rank = self._rank("disable_taint") if self.values["disable_taint"] else 0
        if disabled_rank and disabled_rank == taints_rank:
            self.report("disable_taint", "taints are given too; leave out one of the two")
        elif disabled_rank > taints_rank:
            self.values["taints"] = ()
        elif not taints_rank:
            self.values["taints"] = self._default_taints()

    def _rank(self, name: str) -> int:
        return self.given[name].rank if name in self.given else 0

    def _default_taints(self) -> tuple[Taint, ...]:
        key, value, effect = (self.values.get(f"taint_{part}") for part in ("key", "value", "effect"))
        if key is None or effect is None:
            return ()  # reported where it was parsed
        if value is None:
            value = self.values.get("provider") or ""
        return (Taint(key, value, effect),)

    def check(self, providers: Collection[str]) -> None:
        """Look at what can only be judged together or on this machine."""
        self._check_provider(providers)
        self._check_api_server()
        self._check_serving()
        root_dir = self.values.get("root_dir")
        if root_dir is not None:
            self.report("root_dir", checks.root_dir_problem(root_dir))

    def _check_provider(self, providers: Collection[str]) -> None:
        if "provider" not in self.given:
            listed = ", ".join(sorted(providers)) or "none is installed"
            self.report("provider", f"missing; say where the pods shall run: {listed}")
        elif "provider" in self.values:
            self.report("provider", checks.provider_problem(self.values["provider"], providers))
        try:
            load_provider_config(self.values.get("provider_config"))
        except ConfigurationError as error:
            self.report("provider_config", str(error).partition(": ")[2])

    def _check_api_server(self) -> None:
        kubeconfig = self.values.get("kubeconfig")
        if "bootstrap_kubeconfig" in self.given:
            self._check_bootstrap(kubeconfig, self.values.get("bootstrap_kubeconfig"))
        elif kubeconfig is not None:
            self.report("kubeconfig", checks.kubeconfig_problem(kubeconfig))
        elif "kubeconfig" not in self.given and not self.environ.get("KUBERNETES_SERVICE_HOST"):
            self.report(
                "kubeconfig",
                "missing, and this is not a pod in a cluster; name a kubeconfig, or set KUBECONFIG",
            )

    def _check_bootstrap(self, kubeconfig: Path | None, bootstrap: Path | None) -> None:
        """One of the two must be there; ours is looked at when it is read, since we may write it anew."""
        if "kubeconfig" not in self.given:
            self.report("kubeconfig", "missing; --bootstrap-kubeconfig needs the name of the file to write")
        elif kubeconfig is not None and not kubeconfig.exists() and bootstrap is not None:
            self.report("bootstrap_kubeconfig", checks.kubeconfig_problem(bootstrap))

    def _check_serving(self) -> None:
        self._check_key_pair()
        client_ca = self.values.get("client_ca_file")
        if client_ca is not None:
            self.report(
                "client_ca_file", checks.readable_problem(client_ca) or checks.client_ca_problem(client_ca)
            )
        self._check_not_open()

    def _check_key_pair(self) -> None:
        certificate, key = self.values.get("tls_cert_file"), self.values.get("tls_private_key_file")
        before = len(self.problems)
        if certificate is not None:
            self.report("tls_cert_file", checks.readable_problem(certificate))
        if key is not None:
            self.report("tls_private_key_file", checks.readable_problem(key))
        if "tls_cert_file" in self.given and "tls_private_key_file" not in self.given:
            self.report("tls_private_key_file", "missing; --tls-cert-file needs its key")
        if "tls_private_key_file" in self.given and "tls_cert_file" not in self.given:
            self.report("tls_cert_file", "missing; --tls-private-key-file needs its certificate")
        if certificate is not None and key is not None and len(self.problems) == before:
            self.report("tls_cert_file", checks.key_pair_problem(certificate, key))
        if certificate is not None and self.values.get("tls_self_signed"):
            self.report("tls_self_signed", "--tls-cert-file is given too; leave out one of the two")

    def _check_not_open(self) -> None:
        """Refuse what nobody could use, and what would let anybody run commands in every pod."""
        if self.values.get("authentication_token_webhook") is False and "client_ca_file" not in self.given:
            self.report(
                "authentication_token_webhook",
                "false without --client-ca-file leaves nobody who could log in; give one of the two",
            )
        if self.values.get("anonymous_auth") and self.values.get("authorization_mode") == "AlwaysAllow":
            self.report(
                "anonymous_auth",
                "with --authorization-mode AlwaysAllow anybody could run commands in every pod; use Webhook",
            )
