"""For every option: what it takes, what it refuses, and how to load it on top of what must be given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from vkubelet.errors import ConfigurationError
from vkubelet.settings import Settings, Taint, load_settings
from vkubelet.settings.option import Raw

PROVIDERS = ("docker", "memory")


def kubeconfig(**changes: object) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443"}}],
        "users": [{"name": "u", "user": {"token": "abc"}}],
    }
    return yaml.safe_dump({**document, **changes})


def load(
    flags: Mapping[str, Raw] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Mapping[str, object] | str | None = None,
) -> Settings:
    """Load on top of what must be given, which comes from the file unless the test gives it elsewhere."""
    given = dict(flags or {})
    if isinstance(file, str):
        Path("vkubelet.yaml").write_text(file)
    else:
        content = {"kubeconfig": "a.kubeconfig", "provider": "memory", "rootDir": "state", **(file or {})}
        Path("vkubelet.yaml").write_text(yaml.safe_dump(content))
    given.setdefault("config", "vkubelet.yaml")
    return load_settings(given, environ or {}, providers=PROVIDERS)


def problems(
    flags: Mapping[str, Raw] | None = None,
    environ: Mapping[str, str] | None = None,
    file: Mapping[str, object] | str | None = None,
) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        load(flags, environ, file)
    return str(caught.value).splitlines()


@dataclasses.dataclass(frozen=True)
class Case:
    """Three texts for an option and the values they stand for; the first is not the default."""

    texts: tuple[str, str, str]
    values: tuple[object, object, object]
    with_flags: Mapping[str, Raw] = dataclasses.field(default_factory=dict)


def same(*texts: str, **with_flags: Raw) -> Case:
    first, second, third = texts
    return Case((first, second, third), (first, second, third), with_flags)


def files(suffix: str, **with_flags: Raw) -> Case:
    names = tuple(f"{copy}.{suffix}" for copy in "abc")
    return same(*names, **with_flags)


def numbers(*values: int) -> Case:
    return Case((str(values[0]), str(values[1]), str(values[2])), (values[0], values[1], values[2]))


def switch(first: bool, **with_flags: Raw) -> Case:
    texts = ("true", "no", "1") if first else ("false", "yes", "0")
    return Case(texts, (first, not first, first), with_flags)


SECONDS = Case(("7s", "1m30s", "250ms"), (7.0, 90.0, 0.25))

CASES: dict[str, Case] = {
    "kubeconfig": files("kubeconfig"),
    "bootstrap_kubeconfig": files("kubeconfig", kubeconfig="new.kubeconfig"),
    "provider": same("docker", "memory", "docker"),
    "provider_config": files("yaml"),
    "cluster_id": same("blue", "green", "0123"),
    "root_dir": same("one", "two", "three"),
    "node_name": same("worker-1", "worker-2.example.com", "0123"),
    "node_ip": same("10.1.2.3", "fd00::5", "10.9.9.9"),
    "node_labels": Case(
        ("a=1,example.com/b=2", "c=", "d=4"), ({"a": "1", "example.com/b": "2"}, {"c": ""}, {"d": "4"})
    ),
    "taints": Case(
        ("dedicated=gpu:NoExecute", "spot:PreferNoSchedule", "a=b:NoSchedule,a=b:NoExecute"),
        (
            (Taint("dedicated", "gpu", "NoExecute"),),
            (Taint("spot", "", "PreferNoSchedule"),),
            (Taint("a", "b", "NoSchedule"), Taint("a", "b", "NoExecute")),
        ),
    ),
    "os": Case(("windows", "Linux", "WINDOWS"), ("Windows", "Linux", "Windows")),
    "max_pods": numbers(5, 110, 0),
    "address": same("127.0.0.1", "::", "10.0.0.1"),
    "port": numbers(10251, 443, 0),
    "tls_cert_file": files("crt", tls_private_key_file="a.key"),
    "tls_private_key_file": files("key", tls_cert_file="a.crt"),
    "tls_self_signed": switch(True),
    "tls_min_version": same("VersionTLS13", "VersionTLS12", "VersionTLS13"),
    "tls_cipher_suites": Case(
        (
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,TLS_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
            "TLS_AES_256_GCM_SHA384",
        ),
        (
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256"),
            ("TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",),
            ("TLS_AES_256_GCM_SHA384",),
        ),
    ),
    "client_ca_file": files("crt"),
    "authentication_token_webhook": switch(False, client_ca_file="a.crt"),
    "authentication_token_webhook_cache_ttl_s": SECONDS,
    "authorization_mode": Case(
        ("alwaysallow", "Webhook", "AlwaysAllow"), ("AlwaysAllow", "Webhook", "AlwaysAllow")
    ),
    "authorization_webhook_cache_authorized_ttl_s": SECONDS,
    "authorization_webhook_cache_unauthorized_ttl_s": SECONDS,
    "anonymous_auth": switch(True),
    "max_connections": numbers(10, 5000, 1),
    "request_qps": numbers(5, 1000, 0),
    "request_burst": numbers(10, 2000, 1),
    "cluster_dns": Case(
        ("10.96.0.10", "10.96.0.10,fd00::a", "1.1.1.1"),
        (("10.96.0.10",), ("10.96.0.10", "fd00::a"), ("1.1.1.1",)),
    ),
    "cluster_domain": same("k8s.example.com", "cluster.local", "corp"),
    "pod_sync_workers": numbers(10, 50, 1),
    "sync_frequency_s": SECONDS,
    "node_lease_duration_s": Case(("60s", "40", "2m"), (60, 40, 120)),
    "node_status_update_frequency_s": SECONDS,
    "startup_timeout_s": SECONDS,
    "shutdown_grace_period_s": SECONDS,
    "event_qps": numbers(5, 50, 0),
    "event_burst": numbers(10, 100, 1),
    "healthz_port": numbers(10248, 443, 0),
    "tracing_endpoint": same("http://localhost:4318", "https://[::1]:4318/otlp", "http://collector"),
    "log_level": Case(("DEBUG", "warn", "error"), ("debug", "warning", "error")),
    "log_format": same("json", "console", "auto"),
}


BAD: dict[str, tuple[str, ...]] = {
    "kubeconfig": ("missing.kubeconfig", "a.yaml", "a.crt", "", "a.kubeconfig:b.kubeconfig"),
    "bootstrap_kubeconfig": ("missing.kubeconfig", "a.yaml", "a.crt", ""),
    "provider": ("aci2", "", "no such"),
    "provider_config": ("missing.yaml", "a.crt", ".", ""),
    "cluster_id": ("-a", "x" * 64, "a b", ""),
    "root_dir": ("a.yaml", "a.yaml/sub", ""),
    "node_name": ("Worker", "a_b", "-a", "a..b", "x" * 64, "x" * 254, ""),
    "node_ip": ("10.1.2", "10.1.2.3/8", "fe80::1%eth0", "host", ""),
    "node_labels": ("a", "a=b,a=c", "=b", "-a=b", "a=b c", "A/=b", "UP/a=b", f"a={'x' * 64}"),
    "taints": ("a", "a=b", "a=b:Never", ":NoSchedule", "a=b:NoSchedule,a=c:NoSchedule", "a=b c:NoSchedule"),
    "os": ("BeOS", ""),
    "max_pods": ("-1", "many", "1.5", "1_000", "٣", ""),
    "address": ("everywhere", ":10250", ""),
    "port": ("70000", "-1", "http", "1e3", "9" * 30, ""),
    "tls_cert_file": ("missing.crt", ".", ""),
    "tls_private_key_file": ("missing.key", ".", ""),
    "tls_self_signed": ("maybe", ""),
    "tls_min_version": ("VersionTLS11", "1.2", ""),
    "tls_cipher_suites": (
        "TLS_RSA_WITH_AES_128_CBC_SHA",
        "TLS_NULL",
        "TLS_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    ),
    "client_ca_file": ("missing.crt", "a.key", "a.yaml", ""),
    "authentication_token_webhook": ("maybe", "", "2"),
    "authentication_token_webhook_cache_ttl_s": ("-1s", "never"),
    "authorization_mode": ("RBAC", ""),
    "authorization_webhook_cache_authorized_ttl_s": ("-1s", "never"),
    "authorization_webhook_cache_unauthorized_ttl_s": ("-1s", "never"),
    "anonymous_auth": ("maybe", ""),
    "max_connections": ("0", "many"),
    "request_qps": ("-1", "x"),
    "request_burst": ("0", "x"),
    "cluster_dns": ("kube-dns", "10.96.0.10,dns"),
    "cluster_domain": ("Cluster.Local", ".local", ""),
    "pod_sync_workers": ("0", "-1", "all"),
    "sync_frequency_s": ("0", "1 minute", "-1s", "s", "1x", ""),
    "node_lease_duration_s": ("0", "1.5s", "10ms"),
    "node_status_update_frequency_s": ("0s", "often"),
    "startup_timeout_s": ("-1s", "never", "1m30", "999999999h", "."),
    "shutdown_grace_period_s": ("-1s", "1d"),
    "event_qps": ("-1", "x"),
    "event_burst": ("0", "x"),
    "healthz_port": ("70000", "-1", ""),
    "tracing_endpoint": ("localhost:4318", "ftp://host", "http://", "http://[::1", ""),
    "log_level": ("loud", ""),
    "log_format": ("xml", ""),
}
