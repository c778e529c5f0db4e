"""
Container logs from the engine's json-file driver.

Kubernetes' options are the engine's: `tail`, `since` (inclusive, with nanoseconds), `timestamps`, `follow`.
The engine cuts long lines into messages of 16 KiB and puts a time before each; in Kubernetes only the
beginning of a line has one, so those in the middle of a line are taken out again, which the frames of the
multiplexed stream make possible. A log without any options is read past the engine where it can be
(`log_files`).
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from providers.docker import log_files, status
from providers.docker.client import EngineClient, EngineError
from providers.docker.stdcopy import Demultiplexer, Piece, StreamId
from vkubelet.errors import ProviderUnavailableError, RemoteProtocolError, StreamError
from vkubelet.provider import LogOptions

__all__ = ["LogPlace", "container_logs", "log_place"]

_EVERYTHING = {"stdout": "1", "stderr": "1"}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class LogPlace:
    """
    Where a container's log is, which never changes.

    Attributes:
        has_terminal: the engine gives it as one raw stream.
        path: of the file that is being written, on the engine's machine; None for another logging driver.
    """

    has_terminal: bool
    path: Path | None


def log_place(inspected: Mapping[str, Any]) -> LogPlace:
    """The place, from ``GET /containers/{id}/json``."""
    driver = ((inspected.get("HostConfig") or {}).get("LogConfig") or {}).get("Type")
    path = inspected.get("LogPath") if driver == "json-file" else None
    return LogPlace(status.has_terminal(inspected), Path(path) if path else None)


@asynccontextmanager
async def container_logs(
    client: EngineClient, container_id: str, options: LogOptions, place: LogPlace | None = None
) -> AsyncIterator[AsyncIterator[bytes]]:
    """See `LogSource.container_logs`; the engine is asked for the place where it is not known."""
    try:
        if place is None:
            place = log_place(await client.get(f"/containers/{container_id}/json"))
        async with _opened(client, container_id, options, place) as output:
            yield output if options.limit_bytes is None else _limited(output, options.limit_bytes)
    except (EngineError, ProviderUnavailableError) as error:
        raise StreamError(str(error), status=getattr(error, "status", 503)) from error


@asynccontextmanager
async def _opened(
    client: EngineClient, container_id: str, options: LogOptions, place: LogPlace
) -> AsyncIterator[AsyncIterator[bytes]]:
    params = _params(options)
    if params == _EVERYTHING and place.path is not None and client.endpoint.unix_path is not None:
        with ExitStack() as closing:
            if (files := log_files.open_log(place.path, closing)) is not None:
                yield log_files.read_log(files)
                return
    async with client.stream("GET", f"/containers/{container_id}/logs", params) as chunks:
        yield chunks if place.has_terminal else _merged(chunks, timestamps=options.timestamps)


def _params(options: LogOptions) -> dict[str, str]:
    params = dict(_EVERYTHING)
    if options.follow:
        params["follow"] = "1"
    if options.timestamps:
        params["timestamps"] = "1"
    if options.tail_lines is not None:
        params["tail"] = str(options.tail_lines)
    if options.since is not None:
        params["since"] = _unix_time(options.since)
    return params


def _unix_time(moment: datetime.datetime) -> str:
    """Seconds and nanoseconds since 1970 as the engine reads them; nothing is written before."""
    elapsed = max(moment.astimezone(datetime.UTC) - _EPOCH, datetime.timedelta())
    return f"{elapsed.days * 86400 + elapsed.seconds}.{elapsed.microseconds * 1000:09d}"


async def _merged(chunks: AsyncIterator[bytes], *, timestamps: bool) -> AsyncIterator[bytes]:
    """Both streams in the order of writing."""
    demultiplexer = Demultiplexer()
    lines = _LineStarts()
    async for chunk in chunks:
        try:
            pieces = demultiplexer.receive_data(chunk, by_frame=timestamps)
        except RemoteProtocolError as error:
            raise StreamError(str(error)) from error
        for piece in pieces:
            if piece.stream is StreamId.SYSTEM_ERROR:
                raise StreamError(piece.data.decode(errors="replace").strip())
        data = b"".join(lines.without_inner_times(p) if timestamps else p.data for p in pieces)
        if data:
            yield data


class _LineStarts:
    """
    Takes out the time of a message that continues a line of its stream.

    A message's time ends with the first space; it may come in several pieces.
    """

    def __init__(self) -> None:
        self._in_line: dict[StreamId, bool] = {}
        self._dropping = False

    def without_inner_times(self, piece: Piece) -> bytes:
        data = piece.data
        if piece.starts_frame:
            self._dropping = self._in_line.get(piece.stream, False)
        if self._dropping:
            _, space, data = data.partition(b" ")
            self._dropping = not space
        if data:
            self._in_line[piece.stream] = not data.endswith(b"\n")
        return data


async def _limited(chunks: AsyncIterator[bytes], limit_bytes: int) -> AsyncIterator[bytes]:
    remaining = limit_bytes
    async for chunk in chunks:
        if remaining <= 0:
            return
        yield chunk[:remaining]
        remaining -= len(chunk)
        if remaining <= 0:
            return
