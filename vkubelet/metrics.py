"""
vkubelet's own metrics, under the kubelet's and client-go's names where they have one.

Every metric is declared here, once, and is imported by whoever moves it; values are those of this process,
as is usual with Prometheus, so tests look at differences. The library is prometheus_client: an observation
costs it under a microsecond, which is nothing beside what is observed. Figures of pods are not kept here:
`server.resource_metrics` and `server.cadvisor_metrics` write what a provider reads when it is asked.

Labels have few values: never a pod's name, a path with names in it, or a message.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Self

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

__all__ = [
    "PROBES",
    "REGISTRY",
    "QueueMetrics",
    "RestRequest",
    "exposition",
    "http_request",
    "provider_call",
    "queue_metrics",
    "runtime_operation",
    "set_build_info",
    "watch_restarted",
]

# Go's client has no such series, and they double what is scraped.
disable_created_metrics()  # type: ignore[no-untyped-call]  # the one function of the library without types

REGISTRY: Final = CollectorRegistry()
"""``/metrics``."""
PROBES: Final = CollectorRegistry()
"""``/metrics/probes``."""

_DEFAULT_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_POD_START_BUCKETS_S: Final = (
    *(0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180),
    *(240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600),
)
_STATUS_BUCKETS_S: Final = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 20, 30, 45, 60)
_OPERATION_BUCKETS_S: Final = tuple(0.005 * 2.5**n for n in range(14))
_QUEUE_BUCKETS_S: Final = tuple(10.0**n for n in range(-8, 2))
_REST_BUCKETS_S: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)

ProcessCollector(registry=REGISTRY)


def _counter(name: str, words: str, *labels: str, registry: CollectorRegistry = REGISTRY) -> Counter:
    return Counter(name, words, labels, registry=registry)


def _gauge(name: str, words: str, *labels: str) -> Gauge:
    return Gauge(name, words, labels, registry=REGISTRY)


def _histogram(
    name: str,
    words: str,
    *labels: str,
    buckets: tuple[float, ...] = _DEFAULT_BUCKETS_S,
    registry: CollectorRegistry = REGISTRY,
) -> Histogram:
    return Histogram(name, words, labels, registry=registry, buckets=buckets)


# --- the node and its pods --------------------------------------------------------------------------------

NODE_NAME = _gauge("kubelet_node_name", "The node's name. The count is always 1.", "node")
BUILD_INFO = _gauge(
    "vkubelet_build_info", "The version of vkubelet. Always 1.", "version", "python_version", "provider"
)
KUBERNETES_BUILD_INFO = _gauge(
    "kubernetes_build_info",
    "A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, "
    "build date, Go version, and compiler from which Kubernetes was built, and platform on which it is "
    "running.",
    *("major", "minor", "git_version", "git_commit", "git_tree_state", "build_date"),
    *("go_version", "compiler", "platform"),
)
RUNNING_PODS = _gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox")
RUNNING_CONTAINERS = _gauge(
    "kubelet_running_containers", "Number of containers currently running", "container_state"
)
DESIRED_PODS = _gauge(
    "kubelet_desired_pods",
    "The number of pods the kubelet is being instructed to run. static is true if the pod is not from the "
    "apiserver.",
    "static",
)
POD_START = _histogram(
    "kubelet_pod_start_duration_seconds",
    "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
    buckets=_POD_START_BUCKETS_S,
)
POD_WORKER = _histogram(
    "kubelet_pod_worker_duration_seconds",
    "Duration in seconds to sync a single pod. Broken down by operation type: create, update, or sync",
    "operation_type",
)
POD_STATUS_SYNC = _histogram(
    "kubelet_pod_status_sync_duration_seconds",
    "Duration in seconds to sync a pod status update. Measures time from detection of a change to pod status "
    "until the API is successfully updated for that pod, even if multiple intevening changes to pod status "
    "occur.",
    buckets=_STATUS_BUCKETS_S,
)
ORPHANS_REMOVED = _counter(
    "vkubelet_orphans_removed", "Pods of the provider that were removed because the API server has them not."
)

# --- the provider and its runtime -------------------------------------------------------------------------

PROVIDER_CALLS = _counter(
    "vkubelet_provider_calls", "Calls of the provider, by outcome: OK or the kind of error.", "call", "code"
)
PROVIDER_CALL_DURATION = _histogram(
    "vkubelet_provider_call_duration_seconds", "Duration in seconds of calls of the provider.", "call"
)
RUNTIME_OPERATIONS = _counter(
    "kubelet_runtime_operations",
    "Cumulative number of runtime operations by operation type.",
    "operation_type",
)
RUNTIME_OPERATION_ERRORS = _counter(
    "kubelet_runtime_operations_errors",
    "Cumulative number of runtime operation errors by operation type.",
    "operation_type",
)
RUNTIME_OPERATION_DURATION = _histogram(
    "kubelet_runtime_operations_duration_seconds",
    "Duration in seconds of runtime operations. Broken down by operation type.",
    "operation_type",
    buckets=_OPERATION_BUCKETS_S,
)
STARTED_PODS = _counter("kubelet_started_pods", "Cumulative number of pods started")
STARTED_POD_ERRORS = _counter("kubelet_started_pods_errors", "Cumulative number of errors when starting pods")
STARTED_CONTAINERS = _counter(
    "kubelet_started_containers", "Cumulative number of containers started", "container_type"
)
STARTED_CONTAINER_ERRORS = _counter(
    "kubelet_started_containers_errors",
    "Cumulative number of errors when starting containers",
    "container_type",
    "code",
)

# --- requests, streams, queues, watches -------------------------------------------------------------------

_HTTP_LABELS: Final = ("method", "path", "server_type", "long_running")
HTTP_REQUESTS = _counter(
    "kubelet_http_requests", "Number of the http requests received since the server started", *_HTTP_LABELS
)
HTTP_DURATION = _histogram(
    "kubelet_http_requests_duration_seconds", "Duration in seconds to serve http requests", *_HTTP_LABELS
)
HTTP_INFLIGHT = _gauge(
    "kubelet_http_inflight_requests", "Number of the inflight http requests", *_HTTP_LABELS
)
STREAM_CONNECTIONS = _gauge(
    "vkubelet_stream_connections", "Connections that carry exec, attach or port-forward streams."
)
STREAM_RECEIVED_BYTES = _counter(
    "vkubelet_stream_received_bytes", "Bytes read from connections with streams."
)
STREAM_SENT_BYTES = _counter("vkubelet_stream_sent_bytes", "Bytes written to connections with streams.")
REST_REQUESTS = _counter(
    "rest_client_requests",
    "Number of HTTP requests, partitioned by status code, method, and host.",
    "code",
    "method",
    "host",
)
REST_DURATION = _histogram(
    "rest_client_request_duration_seconds",
    "Request latency in seconds. Broken down by verb, and host.",
    "verb",
    "host",
    buckets=_REST_BUCKETS_S,
)
WATCH_RESTARTS = _counter(
    "vkubelet_watch_restarts", "Watches that ended and were opened again, by resource.", "resource"
)
QUEUE_DEPTH = _gauge("workqueue_depth", "Current depth of workqueue", "name")
QUEUE_ADDS = _counter("workqueue_adds", "Total number of adds handled by workqueue", "name")
QUEUE_RETRIES = _counter("workqueue_retries", "Total number of retries handled by workqueue", "name")
QUEUE_DURATION = _histogram(
    "workqueue_queue_duration_seconds",
    "How long in seconds an item stays in workqueue before being requested.",
    "name",
    buckets=_QUEUE_BUCKETS_S,
)
QUEUE_WORK_DURATION = _histogram(
    "workqueue_work_duration_seconds",
    "How long in seconds processing an item from workqueue takes.",
    "name",
    buckets=_QUEUE_BUCKETS_S,
)

# --- probes -----------------------------------------------------------------------------------------------

PROBE_RESULTS = _counter(
    "prober_probe",
    "Cumulative number of a liveness, readiness or startup probe for a container by result.",
    *("probe_type", "result", "container", "pod", "namespace", "pod_uid"),
    registry=PROBES,
)
PROBE_DURATION = _histogram(
    "prober_probe_duration_seconds",
    "Duration in seconds for a probe response.",
    *("probe_type", "container", "pod", "namespace"),
    registry=PROBES,
)
_PROBER_STARTED = Gauge(
    "process_start_time_seconds",
    "Start time of the process since unix epoch in seconds.",
    registry=PROBES,
)
_PROBER_STARTED.set(time.time())


_START_POD: Final = "run_podsandbox"


# --- helpers for those who observe ------------------------------------------------------------------------


def exposition(registry: CollectorRegistry) -> str:
    """All metrics of a registry in the text format."""
    return generate_latest(registry).decode()


def set_build_info(version: str, provider: str, node_name: str, kubelet_version: str) -> None:
    """What this process is; `kubelet_version` is the Node's, such as ``v1.36.0-docker-vkubelet-0.1.0``."""
    major, minor = kubelet_version.removeprefix("v").split(".")[:2]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    machine = f"{platform.system().lower()}/{platform.machine()}"
    KUBERNETES_BUILD_INFO.labels(major, minor, kubelet_version, "", "", "", python, "", machine).set(1)
    BUILD_INFO.labels(version, platform.python_version(), provider).set(1)
    NODE_NAME.labels(node_name).set(1)


@contextmanager
def provider_call(call: str) -> Iterator[None]:
    """Count a call of the provider, with its outcome."""
    started, code = time.perf_counter(), "OK"
    try:
        yield
    except BaseException as error:
        code = type(error).__name__
        raise
    finally:
        PROVIDER_CALLS.labels(call, code).inc()
        _call_duration(call).observe(time.perf_counter() - started)


@contextmanager
def runtime_operation(operation: str) -> Iterator[None]:
    """Count an operation of a container runtime; `operation` is the kubelet's word for it."""
    operations, errors, duration = _operation(operation)
    started = time.perf_counter()
    try:
        yield
    except BaseException:
        errors.inc()
        if operation == _START_POD:
            STARTED_POD_ERRORS.inc()
        raise
    else:
        if operation == _START_POD:
            STARTED_PODS.inc()
    finally:
        operations.inc()
        duration.observe(time.perf_counter() - started)


@contextmanager
def http_request(method: str, path: str, *, is_long_running: bool) -> Iterator[None]:
    """Count a request to the kubelet server; `path` is one of few words for it."""
    requests, duration, inflight = _http(method, path, str(is_long_running).lower())
    requests.inc()
    inflight.inc()
    started = time.perf_counter()
    try:
        yield
    finally:
        inflight.dec()
        duration.observe(time.perf_counter() - started)


class RestRequest:
    """
    A request to the API server, counted when it is left.

    Attributes:
        code: the answer's; ``<error>`` while there is none, as in client-go.
    """

    __slots__ = ("_host", "_method", "_started", "code")

    def __init__(self, method: str, host: str) -> None:
        self._method = method
        self._host = host
        self.code = "<error>"

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        requests, duration = _rest(self._method, self._host, self.code)
        requests.inc()
        duration.observe(time.perf_counter() - self._started)


def watch_restarted(path: str) -> None:
    """Count a watch of a collection that starts once more."""
    WATCH_RESTARTS.labels(path.rpartition("/")[2]).inc()


@dataclass(frozen=True, slots=True)
class QueueMetrics:
    """What a work queue moves."""

    adds: Counter
    retries: Counter
    queued_s: Histogram
    worked_s: Histogram


def queue_metrics(name: str, depth: Callable[[], float]) -> QueueMetrics:
    """The metrics of the queue of that name; `depth` is asked when they are scraped."""
    QUEUE_DEPTH.labels(name).set_function(depth)
    return QueueMetrics(
        QUEUE_ADDS.labels(name),
        QUEUE_RETRIES.labels(name),
        QUEUE_DURATION.labels(name),
        QUEUE_WORK_DURATION.labels(name),
    )


# Looking a child up by its labels costs more than moving it.


@lru_cache(maxsize=64)
def _call_duration(call: str) -> Histogram:
    return PROVIDER_CALL_DURATION.labels(call)


@lru_cache(maxsize=64)
def _operation(operation: str) -> tuple[Counter, Counter, Histogram]:
    return (
        RUNTIME_OPERATIONS.labels(operation),
        RUNTIME_OPERATION_ERRORS.labels(operation),
        RUNTIME_OPERATION_DURATION.labels(operation),
    )


@lru_cache(maxsize=256)
def _http(method: str, path: str, long_running: str) -> tuple[Counter, Histogram, Gauge]:
    labels = (method, path, "readwrite", long_running)
    return HTTP_REQUESTS.labels(*labels), HTTP_DURATION.labels(*labels), HTTP_INFLIGHT.labels(*labels)


@lru_cache(maxsize=256)
def _rest(method: str, host: str, code: str) -> tuple[Counter, Histogram]:
    return REST_REQUESTS.labels(code, method, host), REST_DURATION.labels(method, host)
