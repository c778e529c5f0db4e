"""
The query of ``/containerLogs`` as `LogOptions`: `v1.PodLogOptions`, decoded and checked as by the kubelet.

Pure. What cannot be decoded is 400 and what is not valid 422, with the kubelet's two messages, which name no
parameter: the API server has checked the same before and named it to the user.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping

from vkubelet.errors import StreamError
from vkubelet.provider import LogOptions

__all__ = ["check_stream", "parse_log_options"]

_INTEGER = re.compile(r"[+-]?[0-9]+")
_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_INT64 = range(-(2**63), 2**63)
_STREAMS = ("All", "Stdout", "Stderr")


def parse_log_options(query: Mapping[str, str], now: datetime.datetime) -> LogOptions:
    """
    The options that the query asks for; the first of a repeated parameter counts.

    ``tail`` is the old name of ``tailLines``, where "all" means no limit. ``sinceSeconds`` counts back
    from `now`.

    Raises:
        StreamError: 400 or 422.
    """
    tail_lines = _integer(query, "tailLines")
    if tail := query.get("tail"):
        tail_lines = None if tail == "all" else _integer(query, "tail")
    limit_bytes = _integer(query, "limitBytes")
    since_s = _integer(query, "sinceSeconds")
    since_time = _time(query, "sinceTime")
    valid = (
        (tail_lines is None or tail_lines >= 0)
        and (limit_bytes is None or limit_bytes >= 1)
        and (since_s is None or since_s >= 1)
        and not (since_s is not None and "sinceTime" in query)
        and _is_valid_stream(query.get("stream"), tail_lines)
    )
    if not valid:
        raise StreamError('{"message": "Invalid request."}', status=422)
    return LogOptions(
        follow=_boolean(query, "follow"),
        previous=_boolean(query, "previous"),
        timestamps=_boolean(query, "timestamps"),
        tail_lines=tail_lines,
        since=since_time if since_s is None else _ago(now, since_s),
        limit_bytes=limit_bytes,
    )


def check_stream(query: Mapping[str, str]) -> None:
    """
    Refuse one of the two streams: only both together are served (PodLogsQuerySplitStreams is alpha).

    Raises:
        StreamError: 400, the kubelet's message.
    """
    stream = query.get("stream")
    if stream not in (None, "All"):
        raise StreamError(
            f'unable to return the given log stream: "{stream}". '
            "Please enable PodLogsQuerySplitStreams feature gate in kubelet",
            status=400,
        )


def _is_valid_stream(stream: str | None, tail_lines: int | None) -> bool:
    if stream is None:
        return True
    return stream in _STREAMS and (stream == "All" or tail_lines is None)


def _boolean(query: Mapping[str, str], name: str) -> bool:
    """Only 0 and false are false; a parameter without a value is true."""
    value = query.get(name)
    return value is not None and value != "0" and value.lower() != "false"


def _integer(query: Mapping[str, str], name: str) -> int | None:
    value = query.get(name)
    if value is None:
        return None
    if not _INTEGER.fullmatch(value) or len(value) > 20 or int(value) not in _INT64:
        raise _undecodable()
    return int(value)


def _time(query: Mapping[str, str], name: str) -> datetime.datetime | None:
    """An empty value and "null" are the zero time, from which on everything is."""
    value = query.get(name)
    if value is None or value in ("", "null"):
        return None
    if not _RFC3339.fullmatch(value):
        raise _undecodable()
    try:
        return datetime.datetime.fromisoformat(value).astimezone(datetime.UTC)
    except (ValueError, OverflowError) as error:
        raise _undecodable() from error


def _undecodable() -> StreamError:
    return StreamError('{"message": "Unable to decode query."}', status=400)


def _ago(now: datetime.datetime, seconds: int) -> datetime.datetime:
    try:
        return now - datetime.timedelta(seconds=seconds)
    except OverflowError:
        return datetime.datetime.min.replace(tzinfo=datetime.UTC)
