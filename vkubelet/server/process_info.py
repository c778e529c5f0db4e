"""
`Settings` as ``/flagz`` and ``/configz`` show them.

No option holds a secret: those that lead to one name its file. The `KubeletConfiguration`
(``kubelet.config.k8s.io/v1beta1``) has the fields that mean something here, with the values that hold here.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vkubelet.model.node import KUBERNETES_VERSION
from vkubelet.server.zpages import ProcessInfo
from vkubelet.settings import LogLevel, Settings, Taint, installed_version
from vkubelet.settings.option import option_of

__all__ = ["process_info"]

Json = dict[str, Any]

_VERBOSITY: Mapping[LogLevel, int] = {"debug": 4, "info": 2, "warning": 0, "error": 0}
"""klog's levels for ours."""


def process_info(settings: Settings, *, started_at: datetime.datetime) -> ProcessInfo:
    """What this process shows of itself; `started_at` is when it was started."""
    return ProcessInfo(
        version=installed_version(),
        kubernetes_version=KUBERNETES_VERSION.removeprefix("v").rpartition(".")[0],
        started_at=started_at,
        flags={
            option_of(each).label.removeprefix("--"): _text(getattr(settings, each.name))
            for each in dataclasses.fields(settings)
        },
        configuration=_configuration(settings),
    )


def _text(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case Mapping():
            return ",".join(f"{name}={each}" for name, each in value.items())
        case tuple():
            return ",".join(map(_text, value))
        case float():
            return _duration(value)
        case _:
            return str(value)


def _duration(seconds: float) -> str:
    """`metav1.Duration` as Go writes it: ``1m0s``, ``1h2m3s``, ``500ms``."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    minutes, rest_s = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{rest_s:g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _configuration(settings: Settings) -> Json:
    configuration: Json = {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "enableServer": True,
        "syncFrequency": _duration(settings.sync_frequency_s),
        "address": settings.address,
        "port": settings.port,
        "authentication": _authentication(settings),
        "authorization": _authorization(settings),
        "eventRecordQPS": settings.event_qps,
        "eventBurst": settings.event_burst,
        "enableDebuggingHandlers": True,
        "enableSystemLogHandler": False,
        "enableProfilingHandler": False,
        "enableDebugFlagsHandler": False,
        "clusterDomain": settings.cluster_domain,
        "streamingConnectionIdleTimeout": "4h0m0s",
        "nodeStatusUpdateFrequency": "10s",
        "nodeStatusReportFrequency": _duration(settings.node_status_update_frequency_s),
        "nodeLeaseDurationSeconds": settings.node_lease_duration_s,
        "logging": {
            "format": "json" if settings.log_format == "json" else "text",
            "verbosity": _VERBOSITY[settings.log_level],
        },
        "registerWithTaints": [_taint(each) for each in settings.taints],
        "registerNode": True,
    }
    optional = {
        "tlsCertFile": _path(settings.tls_cert_file),
        "tlsPrivateKeyFile": _path(settings.tls_private_key_file),
        "tlsMinVersion": settings.tls_min_version,
        "tlsCipherSuites": list(settings.tls_cipher_suites),
        "rotateCertificates": settings.bootstrap_kubeconfig is not None,
        "serverTLSBootstrap": settings.tls_cert_file is None and not settings.tls_self_signed,
        "clusterDNS": list(settings.cluster_dns),
        "healthzPort": settings.healthz_port,
        "healthzBindAddress": "127.0.0.1" if settings.healthz_port else "",
        "tracing": {"endpoint": settings.tracing_endpoint} if settings.tracing_endpoint else {},
        "maxPods": settings.max_pods,
    }
    return configuration | {name: value for name, value in optional.items() if value}


def _authentication(settings: Settings) -> Json:
    client_ca = _path(settings.client_ca_file)
    return {
        "x509": {"clientCAFile": client_ca} if client_ca else {},
        "webhook": {
            "enabled": settings.authentication_token_webhook,
            "cacheTTL": _duration(settings.authentication_token_webhook_cache_ttl_s),
        },
        "anonymous": {"enabled": settings.anonymous_auth},
    }


def _authorization(settings: Settings) -> Json:
    webhook = {
        "cacheAuthorizedTTL": _duration(settings.authorization_webhook_cache_authorized_ttl_s),
        "cacheUnauthorizedTTL": _duration(settings.authorization_webhook_cache_unauthorized_ttl_s),
    }
    return {"mode": settings.authorization_mode, "webhook": webhook}


def _taint(taint: Taint) -> Json:
    value = {"value": taint.value} if taint.value else {}
    return {"key": taint.key, **value, "effect": taint.effect}


def _path(path: Path | None) -> str:
    return "" if path is None else str(path)
