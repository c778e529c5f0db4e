"""
Logging: one JSON object a line on stdout, or lines for people on a terminal.

`configure_logging` is called once, by the command line; everybody else takes a logger by `get_logger` and
writes ``log.info("pod created", duration_s=0.2)``: a constant event, values as keys. What the standard
library's loggers say (aiohttp, asyncio, warnings) goes the same way. Turned down: structlog over the standard
library's handlers, which costs each line a LogRecord; the benchmark writes thousands of lines a second.

The vocabulary, so that one query finds a pod's story across components:

============== ==========================================================================================
timestamp      when, UTC, ISO 8601
level          debug, info, warning, error, critical
event          what happened, in constant words
component      the module that speaks: pod_controller, docker
pod, namespace, uid   the pod that is worked on; bound where a worker picks up its key
operation      what the worker is doing: sync, delete, exec
container, image, container_id   the container meant, if one
attempt        how often this was tried, from 1
duration_s     how long it took, seconds
retry_after_s  when it is tried again, seconds
reason         CamelCase, the same word as in the Kubernetes Event
error          what went wrong, one line; `exception` has the traceback
peer, user     who called the kubelet server
============== ==========================================================================================

Environment values, secrets and tokens stay out of log calls. Should one slip in, `scrub` removes what is
filed under a tell-tale key, and bearer tokens anywhere. Tracebacks are printed without local variables.

A line that cannot be written (a full disk, a closed pipe) is dropped and counted: the pods matter more.
The time of a line is read from the system, not from `vkubelet.clock`, since lines are for people.
"""

from __future__ import annotations

import functools
import json
import logging
import re
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, TextIO, TypeAlias

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

if TYPE_CHECKING:
    from vkubelet.settings.options import LogFormat, LogLevel

__all__ = ["LineWriter", "configure_logging", "get_logger", "scrub"]

REDACTED = "[redacted]"

_SECRET_KEYS = frozenset(
    {
        *("token", "bearer", "jwt", "authorization", "cookie"),
        *("password", "passwd", "secret", "credential", "credentials", "apikey", "connection_string", "sas"),
        *("env", "environ", "environment"),
    }
)
_SECRET_ENDINGS = (
    "_token",
    "_password",
    "_secret",
    "_authorization",
    "_cookie",
    "_credential",
    "_credentials",
    "_key_data",
    "private_key",
    "api_key",
    "access_key",
    "account_key",
)
#: No token has fewer characters than that, and words of a sentence ("invalid bearer token") have.
_BEARER = re.compile(r"(?i)\b(bearer\s+)[-A-Za-z0-9._~+/]{8,}=*")
_MARKED_KEYS = 4096
_MAX_DEPTH = 8
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

# These tell at level INFO what is worth a line only to who looks for a fault in them.
_CHATTY_LOGGERS = ("aiohttp.access", "asyncio")

_Render: TypeAlias = Callable[[EventDict], bytes]


def get_logger(component: str) -> FilteringBoundLogger:
    """A logger that may be made at import time; it takes its configuration when it first writes."""
    logger: FilteringBoundLogger = structlog.get_logger(component=component)
    return logger


def configure_logging(level: LogLevel, log_format: LogFormat, stream: TextIO | None = None) -> LineWriter:
    """
    Set up structlog and the standard library's root logger; the last call counts for new loggers.

    Args:
        level: the least that is written.
        log_format: ``auto`` is ``console`` on a terminal and ``json`` elsewhere.
        stream: where lines go, stdout unless given.

    Returns:
        Who writes the lines, and knows how many could not be written.
    """
    target = sys.stdout if stream is None else stream
    on_terminal = target.isatty()
    as_json = log_format == "json" or (log_format == "auto" and not on_terminal)
    writer = LineWriter(target.buffer)
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        scrub,
        _render_json if as_json else _console_renderer(colors=on_terminal),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
    _route_standard_library(level)
    return writer


class LineWriter:
    """
    Writes one line in one piece, whatever thread it comes from.

    Attributes:
        dropped: the number of lines that could not be written.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.dropped = 0

    def msg(self, line: bytes) -> None:
        """Write a line; never raises."""
        with self._lock:
            try:
                self._stream.write(line + b"\n")
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the stream is closed
                self.dropped += 1

    debug = info = warning = warn = error = err = critical = fatal = failure = exception = log = msg


def scrub(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """A processor that replaces what is filed under a tell-tale key, and bearer tokens in text."""
    del logger, method_name
    for key, value in event_dict.items():
        event_dict[key] = _scrubbed(key, value, _MAX_DEPTH)
    return event_dict


def _scrubbed(key: object, value: Any, depth: int) -> Any:
    if depth == 0:
        return REDACTED
    if isinstance(key, str) and _is_tell_tale(key):
        return REDACTED
    if isinstance(value, str):
        return _BEARER.sub(rf"\1{REDACTED}", value) if "earer " in value else value
    if isinstance(value, dict):
        return {inner: _scrubbed(inner, content, depth - 1) for inner, content in value.items()}
    if isinstance(value, (list, tuple)):
        return [_scrubbed("", content, depth - 1) for content in value]
    return value


@functools.lru_cache(_MARKED_KEYS)
def _is_tell_tale(key: str) -> bool:
    plain = key.lower().replace("-", "_")
    return plain in _SECRET_KEYS or plain.endswith(_SECRET_ENDINGS)


def _render_json(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> bytes:
    """One JSON object, what everybody looks for first at its start; what JSON does not know as its `str`."""
    del logger, method_name
    ordered = {
        "timestamp": event_dict.pop("timestamp", None),
        "level": event_dict.pop("level", None),
        "event": event_dict.pop("event", None),
        **event_dict,
    }
    try:
        return orjson.dumps(
            ordered, default=str, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS
        )
    except TypeError:  # a number over 64 bits or text that is not Unicode: the standard library takes both
        return json.dumps(ordered, default=str, skipkeys=True).encode()


def _console_renderer(*, colors: bool) -> Processor:
    renderer = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=32
    )

    def render(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> bytes:
        return renderer(logger, method_name, event_dict).encode(errors="backslashreplace")

    return render


class _StandardLibraryHandler(logging.Handler):
    """Hands the standard library's records to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record under its logger's name as the component."""
        logger: FilteringBoundLogger = structlog.get_logger(component=record.name)
        level = min(max(record.levelno // 10 * 10, logging.DEBUG), logging.CRITICAL)  # 25 counts as INFO
        logger.log(level, self._text(record), exc_info=record.exc_info)

    @staticmethod
    def _text(record: logging.LogRecord) -> str:
        try:
            return record.getMessage().rstrip()
        except (TypeError, ValueError):  # the arguments do not fit the format
            return f"{record.msg} {record.args}"


def _route_standard_library(level: LogLevel) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_StandardLibraryHandler()]
    root.setLevel(_LEVELS[level])
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    logging.captureWarnings(True)
