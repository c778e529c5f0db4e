"""
`Settings`: every option of ``vkubelet run``, one field each, declared once.

A field's declaration is also its documentation: ``vkubelet run --help``, the environment, the file and the
messages are all made from it (see `vkubelet.settings.option` for how the names follow from the field's).
Flat rather than nested: the flags are flat, and ``settings.tls_cert_file`` can be searched for.
"""

# ruff: noqa: RUF009 - `option` makes a dataclass field, it is no default that instances would share
from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from vkubelet.settings import defaults, parsers
from vkubelet.settings.components import COMPONENT_OPTIONS
from vkubelet.settings.option import Option, option, option_of
from vkubelet.settings.taints import DEFAULT_TAINT_KEY, Taint, parse_taints
from vkubelet.settings.tls_names import TLS_VERSIONS, TLSVersion, cipher_suites

__all__ = [
    "COMPONENT_OPTIONS",
    "OPTIONS",
    "AuthorizationMode",
    "LogFormat",
    "LogLevel",
    "OperatingSystem",
    "Settings",
]

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
LogFormat: TypeAlias = Literal["auto", "json", "console"]
AuthorizationMode: TypeAlias = Literal["Webhook", "AlwaysAllow"]
OperatingSystem: TypeAlias = Literal["Linux", "Windows"]

_LOG_LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")
_LOG_LEVEL_ALIASES: dict[str, LogLevel] = {"warn": "warning"}
_LOG_FORMATS: tuple[LogFormat, ...] = ("auto", "json", "console")
_AUTHORIZATION_MODES: tuple[AuthorizationMode, ...] = ("Webhook", "AlwaysAllow")
_OPERATING_SYSTEMS: tuple[OperatingSystem, ...] = ("Linux", "Windows")

_CLUSTER = "cluster and provider"
_NODE = "node"
_SERVER = "kubelet server"
_PODS = "pods"
_TIMES = "times and limits"
_LOGS = "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    What ``vkubelet run`` was told, complete and checked. Made by `vkubelet.settings.load_settings`.

    Every path is absolute. Durations are seconds.
    """

    kubeconfig: Path | None = option(
        parsers.path,
        "How to reach the API server. Without it, the service account of the pod that vkubelet runs in.",
        default_help="the pod's service account",
        group=_CLUSTER,
        metavar="FILE",
        env_aliases=("KUBECONFIG",),
    )
    bootstrap_kubeconfig: Path | None = option(
        parsers.path,
        "How to ask for a client certificate while --kubeconfig does not exist yet: it is written then.",
        default_help="none: --kubeconfig must exist",
        group=_CLUSTER,
        metavar="FILE",
    )
    provider: str = option(
        parsers.label_text,
        "Where the pods run: the name of an installed provider, such as docker or memory.",
        default_help="none: it must be given",
        group=_CLUSTER,
        metavar="NAME",
    )
    provider_config: Path | None = option(
        parsers.path,
        "A YAML file with the provider's own settings.",
        default_help="the provider's defaults",
        group=_CLUSTER,
        metavar="FILE",
    )
    cluster_id: str | None = option(
        parsers.label_text,
        "A name for this cluster, to tell its pods from those of others on the same platform.",
        default_help="what the provider takes",
        group=_CLUSTER,
        metavar="NAME",
    )
    root_dir: Path = option(
        parsers.path,
        "The directory for what outlives a restart, and for the files of pods' volumes.",
        default=defaults.host_root_dir,
        default_help="/var/lib/vkubelet for root, else ~/.local/state/vkubelet",
        group=_CLUSTER,
        metavar="DIR",
    )

    node_name: str = option(
        parsers.node_name,
        "The name of the Node.",
        default=defaults.host_name,
        default_help="the host's name in lower case",
        group=_NODE,
        metavar="NAME",
        env_aliases=("DEFAULT_NODE_NAME",),
        flag_aliases=("--nodename", "--hostname-override"),
    )
    node_ip: str = option(
        parsers.ip_address,
        "The Node's InternalIP: the API server calls the kubelet server there.",
        default=defaults.route_ip,
        default_help="the address on the default route",
        group=_NODE,
        metavar="IP",
        env_aliases=("VKUBELET_POD_IP",),
    )
    node_labels: Mapping[str, str] = option(
        parsers.labels,
        "Labels for the Node, as key=value, repeated or between commas.",
        default="",
        default_help="none",
        group=_NODE,
        metavar="KEY=VALUE",
        many=True,
    )
    taints: tuple[Taint, ...] = option(
        parse_taints,
        "Taints for the Node, as key=value:Effect, repeated or between commas; they replace the default one.",
        default_help=f"{DEFAULT_TAINT_KEY}=PROVIDER:NoSchedule",
        group=_NODE,
        metavar="KEY=VALUE:EFFECT",
        flag_name="--taint",
        flag_aliases=("--register-with-taints",),
        many=True,
    )
    os: OperatingSystem = option(
        parsers.choice(*_OPERATING_SYSTEMS),
        "The operating system of the containers, Linux or Windows: refused if it is not the provider's.",
        default="Linux",
        group=_NODE,
        metavar="OS",
    )
    max_pods: int | None = option(
        parsers.whole_number(0),
        "The number of pods the Node offers room for.",
        default_help="what the provider offers",
        group=_NODE,
        metavar="NUMBER",
    )

    address: str = option(
        parsers.ip_address,
        "The address to serve on; 0.0.0.0 is every IPv4 address, :: every address where the system does so.",
        default="0.0.0.0",
        group=_SERVER,
        metavar="IP",
    )
    port: int = option(
        parsers.port,
        "The port to serve on; 0 takes a free one.",
        default="10250",
        group=_SERVER,
        env_aliases=("KUBELET_PORT",),
        metavar="PORT",
    )
    tls_cert_file: Path | None = option(
        parsers.path,
        "The serving certificate (PEM, with its chain). With --tls-private-key-file.",
        default_help="the cluster is asked for one (CertificateSigningRequest)",
        group=_SERVER,
        metavar="FILE",
        env_aliases=("APISERVER_CERT_LOCATION",),
    )
    tls_private_key_file: Path | None = option(
        parsers.path,
        "The key of --tls-cert-file (PEM).",
        default_help="vkubelet makes one",
        group=_SERVER,
        metavar="FILE",
        env_aliases=("APISERVER_KEY_LOCATION",),
    )
    tls_self_signed: bool = option(
        parsers.boolean,
        "Serve with a certificate that vouches for itself, instead of asking the cluster for one.",
        default="false",
        group=_SERVER,
        metavar="BOOL",
        switch=True,
    )
    tls_min_version: TLSVersion = option(
        parsers.choice(*TLS_VERSIONS),
        "The oldest version of TLS to serve: VersionTLS12 or VersionTLS13.",
        default="VersionTLS12",
        group=_SERVER,
        metavar="VERSION",
    )
    tls_cipher_suites: tuple[str, ...] = option(
        cipher_suites,
        "The cipher suites for TLS 1.2 by their IANA names, repeated or between commas; TLS 1.3 has its own.",
        default="",
        default_help="all with forward secrecy and authenticated encryption",
        group=_SERVER,
        metavar="NAME",
        many=True,
    )
    client_ca_file: Path | None = option(
        parsers.path,
        "Who signs the certificates of clients that may connect (PEM).",
        default_help="no client certificates",
        group=_SERVER,
        metavar="FILE",
        env_aliases=("APISERVER_CA_CERT_LOCATION",),
        flag_aliases=("--client-verify-ca",),
    )
    authentication_token_webhook: bool = option(
        parsers.boolean,
        "Let the API server say whose bearer token it is (TokenReview).",
        default="true",
        group=_SERVER,
        metavar="BOOL",
        switch=True,
    )
    authentication_token_webhook_cache_ttl_s: float = option(
        parsers.duration_s,
        "How long the answer to a TokenReview holds.",
        default="2m",
        group=_SERVER,
        metavar="DURATION",
    )
    authorization_mode: AuthorizationMode = option(
        parsers.choice(*_AUTHORIZATION_MODES),
        "Webhook: the API server says what a client may do (SubjectAccessReview). AlwaysAllow: anything.",
        default="Webhook",
        group=_SERVER,
        metavar="MODE",
    )
    authorization_webhook_cache_authorized_ttl_s: float = option(
        parsers.duration_s,
        "How long a yes to a SubjectAccessReview holds.",
        default="5m",
        group=_SERVER,
        metavar="DURATION",
    )
    authorization_webhook_cache_unauthorized_ttl_s: float = option(
        parsers.duration_s,
        "How long a no to a SubjectAccessReview holds.",
        default="30s",
        group=_SERVER,
        metavar="DURATION",
    )
    anonymous_auth: bool = option(
        parsers.boolean,
        "Let in clients without credentials, as system:anonymous.",
        default="false",
        group=_SERVER,
        metavar="BOOL",
        switch=True,
    )
    max_connections: int = option(
        parsers.whole_number(1),
        "Connections to the server at once, at most; each stream of exec, attach or logs -f has one.",
        default="5000",
        group=_SERVER,
        metavar="NUMBER",
    )
    request_qps: int = option(
        parsers.whole_number(0),
        "Requests to the server a second, at most, the rest is answered 429; 0 for no limit.",
        default="1000",
        group=_SERVER,
        metavar="NUMBER",
    )
    request_burst: int = option(
        parsers.whole_number(1),
        "Requests to the server at once, at most.",
        default="2000",
        group=_SERVER,
        metavar="NUMBER",
    )

    healthz_port: int = option(
        parsers.port,
        "A port on 127.0.0.1 for /healthz without TLS and credentials; 0 for none (a kubelet has 10248).",
        default="0",
        group=_SERVER,
        metavar="PORT",
    )

    cluster_dns: tuple[str, ...] = option(
        parsers.ip_addresses,
        "Name servers for pods with dnsPolicy ClusterFirst, repeated or between commas.",
        default="",
        default_help="the host's",
        group=_PODS,
        metavar="IP",
        env_aliases=("KUBE_DNS_IP",),
        many=True,
    )
    cluster_domain: str = option(
        parsers.dns_subdomain,
        "The domain of Services, for the pods' search list.",
        default="cluster.local",
        group=_PODS,
        metavar="DOMAIN",
    )
    pod_sync_workers: int = option(
        parsers.whole_number(1),
        "How many pods are worked on at the same time.",
        default="50",
        group=_PODS,
        metavar="NUMBER",
    )
    sync_frequency_s: float = option(
        parsers.positive_duration_s,
        "The longest time between two comparisons of what a pod is with what it should be.",
        default="1m",
        group=_PODS,
        metavar="DURATION",
        flag_aliases=("--full-resync-period",),
    )

    node_lease_duration_s: int = option(
        parsers.whole_seconds,
        "How long a heartbeat holds; it is renewed after a quarter of this.",
        default="40s",
        group=_TIMES,
        metavar="DURATION",
    )
    node_status_update_frequency_s: float = option(
        parsers.positive_duration_s,
        "The longest time between two writes of the Node's status; a change is written at once.",
        default="5m",
        group=_TIMES,
        metavar="DURATION",
        flag_aliases=("--node-status-report-frequency",),
    )
    startup_timeout_s: float = option(
        parsers.duration_s,
        "How long to wait for the API server at the start; 0 waits for ever.",
        default="0s",
        group=_TIMES,
        metavar="DURATION",
    )
    shutdown_grace_period_s: float = option(
        parsers.duration_s,
        "How long running work may take to finish after SIGTERM.",
        default="20s",
        group=_TIMES,
        metavar="DURATION",
    )
    event_qps: int = option(
        parsers.whole_number(0),
        "Events a second, at most; 0 for no limit.",
        default="50",
        group=_TIMES,
        metavar="NUMBER",
    )
    event_burst: int = option(
        parsers.whole_number(1),
        "Events at once, at most.",
        default="100",
        group=_TIMES,
        metavar="NUMBER",
    )

    tracing_endpoint: str | None = option(
        parsers.http_url,
        "Where to send OpenTelemetry traces, by OTLP over HTTP. Needs pip install 'vkubelet[otel]'.",
        default_help="no traces",
        group=_LOGS,
        metavar="URL",
        env_aliases=("OTEL_EXPORTER_OTLP_ENDPOINT",),
    )

    log_level: LogLevel = option(
        parsers.choice(*_LOG_LEVELS, aliases=_LOG_LEVEL_ALIASES),
        "The least that is logged: debug, info, warning or error.",
        default="info",
        group=_LOGS,
        metavar="LEVEL",
    )
    log_format: LogFormat = option(
        parsers.choice(*_LOG_FORMATS),
        "json: one object a line; console: for people; auto: console on a terminal, json elsewhere.",
        default="auto",
        group=_LOGS,
        metavar="FORMAT",
    )


#: The options that are fields of `Settings`, in their order.
OPTIONS: tuple[Option, ...] = tuple(option_of(field) for field in dataclasses.fields(Settings))
