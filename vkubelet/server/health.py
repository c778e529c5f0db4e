"""
``/healthz``, ``/livez`` and ``/readyz``, each with a path of its own for every check.

The format is that of every Kubernetes component: "ok", a line a check with ``?verbose`` or when one fails,
``?exclude=<name>``. Why a check failed is in the log and at the check's own path; the summary withholds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import structlog
from aiohttp import web

from vkubelet.server.endpoint import Endpoint, Handler

__all__ = ["HealthCheck", "health_endpoints"]

log = structlog.get_logger(__name__)

HealthCheck: TypeAlias = Callable[[], str | None]
"""None while all is well, else what is wrong in one sentence; may raise instead. Must not block."""

_ALWAYS: Mapping[str, HealthCheck] = {"ping": lambda: None, "log": lambda: None}
"""An answer proves both: the event loop runs, and no write to the log blocks it."""


def health_endpoints(
    checks: Mapping[str, HealthCheck], readiness_checks: Mapping[str, HealthCheck]
) -> tuple[Endpoint, ...]:
    """
    The three summaries and their checks.

    Args:
        checks: by name, such as "syncloop"; "ping" and "log" are always there.
        readiness_checks: asked for ``/readyz`` only, besides `checks`.
    """
    alive = {**_ALWAYS, **checks}
    return (
        *_family("healthz", alive),
        *_family("livez", alive),
        *_family("readyz", {**alive, **readiness_checks}),
    )


def _family(name: str, checks: Mapping[str, HealthCheck]) -> Iterator[Endpoint]:
    yield Endpoint(f"/{name}", _summary_handler(name, checks), ("GET", "HEAD"))
    for each, check in checks.items():
        yield Endpoint(f"/{name}/{each}", _single_handler(check), ("GET", "HEAD"))


def _problem(check: HealthCheck) -> str | None:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - a check that breaks is a failed check, whatever broke it
        return str(error) or type(error).__name__


def _single_handler(check: HealthCheck) -> Handler:
    async def handle(_: web.Request) -> web.StreamResponse:
        problem = _problem(check)
        if problem is None:
            return web.Response(text="ok")
        return web.Response(status=500, text=f"internal server error: {problem}\n")

    return handle


def _summary_handler(name: str, checks: Mapping[str, HealthCheck]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        excluded = set(request.query.getall("exclude", []))
        lines, failed = _run_checks(checks, excluded)
        if unknown := sorted(excluded - checks.keys()):
            names = ",".join(f'"{each}"' for each in unknown)
            lines.append(f"warn: some health checks cannot be excluded: no matches for {names}")
        if failed:
            log.warning("health check failed", endpoint=name, problems=failed)
            return web.Response(status=500, text="\n".join([*lines, f"{name} check failed"]) + "\n")
        if "verbose" in request.query:
            return web.Response(text="\n".join([*lines, f"{name} check passed"]) + "\n")
        return web.Response(text="ok")

    return handle


def _run_checks(checks: Mapping[str, HealthCheck], excluded: set[str]) -> tuple[list[str], dict[str, str]]:
    lines: list[str] = []
    failed: dict[str, str] = {}
    for name, check in checks.items():
        if name in excluded:
            lines.append(f"[+]{name} excluded: ok")
        elif (problem := _problem(check)) is None:
            lines.append(f"[+]{name} ok")
        else:
            failed[name] = problem
            lines.append(f"[-]{name} failed: reason withheld")
    return lines, failed
