"""
SPDY header blocks: name/value pairs in a zlib stream (draft 3.1, section 2.6.10).

All header blocks of one direction are one zlib stream with a preset dictionary, each block flushed
(Z_SYNC_FLUSH). So every block that arrives has to be decompressed, also that of a stream we refuse, or the
next one cannot be read.

What a block may grow to is limited while it is decompressed, not after: a kilobyte of zlib can hold a
megabyte of zeros.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import Final

from vkubelet.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["DICTIONARY", "HeaderCompressor", "HeaderDecompressor"]

_LENGTH = struct.Struct("!I")

_DICTIONARY_WORDS: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges "
    "age allow authorization cache-control connection content-base content-encoding content-language "
    "content-length content-location content-md5 content-range content-type date etag expect expires from "
    "host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location "
    "max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status"
)

_DICTIONARY_TAIL: Final = (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    b"401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    b"503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    b"Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
    b"application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
    b"gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _prefixed(words: Iterable[str]) -> bytes:
    return b"".join(_LENGTH.pack(len(word)) + word.encode() for word in words)


DICTIONARY: Final = (
    _prefixed(_DICTIONARY_WORDS.split())
    + _prefixed(["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"])
    + _DICTIONARY_TAIL
)
"""The dictionary that the specification prints: length-prefixed words, then a tail of plain text."""


class HeaderCompressor:
    """The sending direction."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def compress(self, headers: Mapping[str, str]) -> bytes:
        """
        A header block.

        Args:
            headers: names in any case, sent in lower case; several values of one name are joined by NUL.

        Raises:
            LocalProtocolError: a name is empty, or a character is beyond ISO 8859-1.
        """
        parts = [_LENGTH.pack(len(headers))]
        for name, value in headers.items():
            parts += _field(name.lower()), _field(value)
        if "" in headers:
            raise LocalProtocolError("a SPDY header without a name")
        return self._zlib.compress(b"".join(parts)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


def _field(text: str) -> bytes:
    try:
        raw = text.encode("latin-1")
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"a SPDY header cannot carry {text!r}") from error
    return _LENGTH.pack(len(raw)) + raw


class HeaderDecompressor:
    """The receiving direction."""

    def __init__(self, *, max_size: int, max_count: int) -> None:
        self._max_size = max_size
        self._max_count = max_count
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def decompress(self, block: bytes) -> dict[str, str]:
        """
        The headers of a block, names in lower case, several values of one name joined by NUL.

        Raises:
            RemoteProtocolError: not zlib, too large or too many, a name empty or twice, or bytes missing or
                left over. The zlib stream cannot be used after that.
        """
        plain = self._inflate(block)
        count, position = _read_length(plain, 0)
        if count > self._max_count:
            raise RemoteProtocolError(f"{count} SPDY headers, at most {self._max_count} are accepted")
        headers: dict[str, str] = {}
        for _ in range(count):
            name, position = _read_field(plain, position)
            value, position = _read_field(plain, position)
            name = name.lower()
            if not name or name in headers:
                raise RemoteProtocolError(f"SPDY header name {name!r} is empty or given twice")
            headers[name] = value
        if position != len(plain):
            raise RemoteProtocolError(f"{len(plain) - position} bytes after the SPDY headers")
        return headers

    def _inflate(self, block: bytes) -> bytes:
        try:
            plain = self._zlib.decompress(block, self._max_size + 1)
        except zlib.error as error:
            raise RemoteProtocolError(f"SPDY headers cannot be decompressed: {error}") from error
        if len(plain) > self._max_size:
            raise RemoteProtocolError(f"SPDY headers of more than {self._max_size} bytes")
        if self._zlib.eof:
            raise RemoteProtocolError("the zlib stream of the SPDY headers has ended")
        return plain


def _read_length(plain: bytes, position: int) -> tuple[int, int]:
    if position + _LENGTH.size > len(plain):
        raise RemoteProtocolError("SPDY headers end early")
    return _LENGTH.unpack_from(plain, position)[0], position + _LENGTH.size


def _read_field(plain: bytes, position: int) -> tuple[str, int]:
    length, start = _read_length(plain, position)
    if start + length > len(plain):
        raise RemoteProtocolError("SPDY headers end early")
    return plain[start : start + length].decode("latin-1"), start + length
