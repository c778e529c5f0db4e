"""
The remote command protocol of exec and attach: versions, streams, terminal sizes and the final status.

It is the same whether the streams travel over SPDY or WebSocket; how they travel is not told here. Follows
the kubelet (`k8s.io/cri-streaming`, `k8s.io/apimachinery/.../remotecommand`):

========  ==========================================================================================
version   what it adds
========  ==========================================================================================
v1        ``channel.k8s.io``: stdin, stdout, stderr and an error stream with text
v2        fixes of v1 that concern the Go client
v3        a resize stream, when there is a terminal
v4        a `metav1.Status` in JSON on the error stream, and with it exit codes
v5        over WebSocket: a signal that closes one channel, such as stdin
========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, TypedDict

import orjson

__all__ = [
    "CLOSE_CHANNEL",
    "SPDY_VERSIONS",
    "WEBSOCKET_CHANNELS",
    "ExitStatus",
    "InternalError",
    "RemoteStatus",
    "ResizeDecoder",
    "StreamOptions",
    "StreamType",
    "Version",
    "encode_status",
    "negotiate",
]

_MAX_RESIZE_MESSAGE = 1024
_MAX_UINT16 = 0xFFFF


class StreamType(StrEnum):
    """The header ``streamType`` of a stream."""

    ERROR = "error"
    STDIN = "stdin"
    STDOUT = "stdout"
    STDERR = "stderr"
    RESIZE = "resize"


WEBSOCKET_CHANNELS: Final[Mapping[StreamType, int]] = {
    StreamType.STDIN: 0,
    StreamType.STDOUT: 1,
    StreamType.STDERR: 2,
    StreamType.ERROR: 3,
    StreamType.RESIZE: 4,
}
"""The first byte of each WebSocket message."""

CLOSE_CHANNEL: Final = 255
"""v5: a message on this channel names the channel that ends."""


class Version(IntEnum):
    """A version of the protocol; later ones do all that earlier ones do."""

    V1 = 1
    V2 = 2
    V3 = 3
    V4 = 4
    V5 = 5

    @property
    def protocol(self) -> str:
        """Its name in ``X-Stream-Protocol-Version`` and ``Sec-WebSocket-Protocol``."""
        return "channel.k8s.io" if self is Version.V1 else f"v{self.value}.channel.k8s.io"

    @property
    def has_resize(self) -> bool:
        """There is a resize stream when there is a terminal."""
        return self >= Version.V3

    @property
    def has_json_status(self) -> bool:
        """The error stream carries a Status, not text."""
        return self >= Version.V4


SPDY_VERSIONS: Final = (Version.V4, Version.V3, Version.V2, Version.V1)
"""What the kubelet accepts over SPDY, where FLAG_FIN does what v5 adds."""


def negotiate(offered: Sequence[str], accepted: Sequence[Version]) -> Version | None:
    """
    The first version that the client offers and we accept; the client's order decides.

    Args:
        offered: values of ``X-Stream-Protocol-Version``, each a name or a comma-separated list.
        accepted: what this transport can do.
    """
    by_name = {version.protocol: version for version in accepted}
    names = (name.strip() for value in offered for name in value.split(","))
    return next((by_name[name] for name in names if name in by_name), None)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Which streams a client asked for. With `tty` there is no `stderr`: a terminal has one output."""

    stdin: bool = False
    stdout: bool = False
    stderr: bool = False
    tty: bool = False

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> StreamOptions:
        """
        Read ``input``, ``output``, ``error`` and ``tty``; only the value ``1`` means yes, as on the kubelet.

        The API server turns its own ``stdin=true`` and so on into these.

        Raises:
            ValueError: nothing is asked for; the message is the kubelet's.
        """
        tty = query.get("tty") == "1"
        options = cls(
            stdin=query.get("input") == "1",
            stdout=query.get("output") == "1",
            stderr=query.get("error") == "1" and not tty,
            tty=tty,
        )
        if not (options.stdin or options.stdout or options.stderr):
            raise ValueError("you must specify at least 1 of stdin, stdout, stderr")
        return options

    def expected_streams(self, version: Version) -> frozenset[StreamType]:
        """The streams that the client is to open before anything starts."""
        wanted = {
            StreamType.ERROR: True,
            StreamType.STDIN: self.stdin,
            StreamType.STDOUT: self.stdout,
            StreamType.STDERR: self.stderr,
            StreamType.RESIZE: self.tty and version.has_resize,
        }
        return frozenset(stream for stream, asked in wanted.items() if asked)


# --- terminal sizes ---------------------------------------------------------------------------------------


class ResizeDecoder:
    """
    Terminal sizes from the resize stream: JSON objects one after the other, however they are cut.

    Clients separate them with a newline (Go) or not at all (JavaScript), so an object ends where its brace
    closes. As on the kubelet, the first thing that is no size ends the decoding, and nothing else.
    """

    def __init__(self) -> None:
        self._partial = b""
        self._broken = False

    def feed(self, data: bytes) -> list[tuple[int, int]]:
        """The (width, height) pairs that `data` completes."""
        sizes: list[tuple[int, int]] = []
        if self._broken:
            return sizes
        *objects, self._partial = (self._partial + data).split(b"}")
        for text in objects:
            size = _parse_size(text + b"}")
            if size is None:
                self._break()
                return sizes
            sizes.append(size)
        if len(self._partial) > _MAX_RESIZE_MESSAGE:
            self._break()
        return sizes

    def _break(self) -> None:
        self._broken = True
        self._partial = b""


def _parse_size(text: bytes) -> tuple[int, int] | None:
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(parsed, dict):
        return None
    # Go matches field names in any case and takes a missing one for 0.
    fields = {key.lower(): value for key, value in parsed.items()}
    width, height = fields.get("width", 0), fields.get("height", 0)
    if not (_is_uint16(width) and _is_uint16(height)):
        return None
    return width, height


def _is_uint16(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MAX_UINT16


# --- the final status -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """The command ended by itself, or an attached container did (code 0)."""

    code: int = 0


@dataclass(frozen=True, slots=True)
class InternalError:
    """The command could not be run; the message is for the client."""

    message: str


RemoteStatus = ExitStatus | InternalError


class _Cause(TypedDict):
    reason: str
    message: str


class _Details(TypedDict):
    causes: list[_Cause]


class _Status(TypedDict, total=False):
    """`metav1.Status`, as much of it as the kubelet sends here."""

    status: str
    message: str
    reason: str
    details: _Details
    code: int


def encode_status(status: RemoteStatus, version: Version) -> bytes:
    """
    What goes onto the error stream at the end; nothing for success before v4.

    kubectl takes its exit code from the cause ``ExitCode`` of the reason ``NonZeroExitCode``.
    """
    as_json = _to_json(status)
    if version.has_json_status:
        return orjson.dumps(as_json)
    return as_json.get("message", "").encode()


def _to_json(status: RemoteStatus) -> _Status:
    match status:
        case ExitStatus(code=0):
            return {"status": "Success"}
        case ExitStatus(code=code):
            return {
                "status": "Failure",
                "message": f"command terminated with non-zero exit code: exit status {code}",
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
            }
        case InternalError(message=message):
            return {
                "status": "Failure",
                "message": f"Internal error occurred: {_printable(message)}",
                "reason": "InternalError",
                "code": 500,
            }


def _printable(message: str) -> str:
    """Without the lone surrogates that stand for undecodable bytes in file names; UTF-8 cannot hold them."""
    return message.encode("utf-8", "replace").decode()
