"""
OpenTelemetry traces of a pod's way: watch event, sync, provider calls, status write.

Off unless `configure` was called, and then a span costs a look at one variable. What happens to a pod happens
in many tasks, far apart in time; so nothing is handed from one to the next: **a pod is a trace, whose id is
the pod's uid** (both have 128 bits), and whoever knows the uid finds the trace. A sampler that decides by
the trace's id, as OTEL_TRACES_SAMPLER=traceidratio does, takes or leaves a pod as a whole.

Attributes are names and numbers. Messages of errors and values of any kind stay out: a secret that is never
put in cannot leak.
"""

from __future__ import annotations

import contextlib
import contextvars
import hashlib
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final, Protocol

from vkubelet.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Tracer

__all__ = ["configure", "otlp_exporter", "pod_span", "span"]

_NOTHING: Final[AbstractContextManager[None]] = contextlib.nullcontext()
_trace_id: Final[contextvars.ContextVar[int]] = contextvars.ContextVar("trace_id", default=0)
_tracer: Tracer | None = None


class Identified(Protocol):
    """A pod's identity: `model.keys.PodKey`, and what a pod says of itself."""

    @property
    def namespace(self) -> str:
        """Its namespace."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def uid(self) -> str:
        """Its uid."""


def pod_span(name: str, pod: Identified, **attributes: str | int | bool) -> AbstractContextManager[None]:
    """Something that happens to a pod, in that pod's trace; `span` within it makes its parts."""
    if _tracer is None:
        return _NOTHING
    about = {"k8s.pod.uid": pod.uid, "k8s.pod.name": pod.name, "k8s.namespace.name": pod.namespace}
    return _entered(_tracer, name, {**about, **attributes}, _trace_id_of(pod.uid))


def span(name: str, **attributes: str | int | bool) -> AbstractContextManager[None]:
    """A part of what is under way."""
    if _tracer is None:
        return _NOTHING
    return _entered(_tracer, name, attributes, 0)


@contextlib.contextmanager
def _entered(
    tracer: Tracer, name: str, attributes: Mapping[str, str | int | bool], trace_id: int
) -> Iterator[None]:
    """A span; with a trace id the first of its kind in this task, without one a child of what is entered."""
    from opentelemetry.context import Context
    from opentelemetry.trace import Status, StatusCode

    token = _trace_id.set(trace_id)
    try:
        with tracer.start_as_current_span(
            name,
            context=Context() if trace_id else None,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as entered:
            try:
                yield
            except BaseException as error:
                entered.set_attribute("error.type", type(error).__name__)
                entered.set_status(Status(StatusCode.ERROR))
                raise
    finally:
        _trace_id.reset(token)


def _trace_id_of(uid: str) -> int:
    """A uid is a trace's id; what is no UUID, such as the hash of a static pod's file, is made one."""
    try:
        return uuid.UUID(uid).int
    except ValueError:
        return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:16])


class _PodIds:
    """
    The SDK's `IdGenerator`: a pod's spans are of its trace.

    That is not a subclass, for the SDK is not imported before it is needed.
    """

    def generate_span_id(self) -> int:
        return random.getrandbits(64) or 1

    def generate_trace_id(self) -> int:
        return _trace_id.get() or random.getrandbits(128) or 1

    def is_trace_id_random(self) -> bool:
        """The 56 lowest bits, by which samplers decide, are: also those of a random UUID."""
        return True


# --- switching on -----------------------------------------------------------------------------------------


def otlp_exporter(endpoint: str) -> SpanExporter:
    """
    Sends spans by OTLP over HTTP.

    Args:
        endpoint: of the collector, such as ``http://localhost:4318``, as in OTEL_EXPORTER_OTLP_ENDPOINT.

    Raises:
        ConfigurationError: the packages for it are not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ConfigurationError(
            "--tracing-endpoint needs packages that are not installed: pip install 'vkubelet[otel]'"
        ) from error
    return OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")


def configure(exporter: SpanExporter, *, node_name: str, version: str) -> Callable[[], None]:
    """
    Make spans from now on; returns what ends that and sends the rest, which may take seconds and blocks.

    Args:
        exporter: where spans go, in batches, from a thread of its own.
        node_name: the node's.
        version: of vkubelet.
    """
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    global _tracer
    about = {"service.name": "vkubelet", "service.version": version, "k8s.node.name": node_name}
    provider = TracerProvider(resource=Resource.create(about), id_generator=_PodIds(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = provider.get_tracer("vkubelet", version)

    def end() -> None:
        global _tracer
        _tracer = None
        provider.shutdown()

    return end
