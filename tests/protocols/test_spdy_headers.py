"""Header blocks: one zlib stream per direction, and no block that grows beyond the limits."""

from __future__ import annotations

import hashlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.errors import LocalProtocolError, RemoteProtocolError
from vkubelet.protocols.spdy.headers import DICTIONARY, HeaderCompressor, HeaderDecompressor

_latin1 = st.characters(max_codepoint=255)
_headers = st.dictionaries(st.text(_latin1, min_size=1).map(str.lower), st.text(_latin1), max_size=8).filter(
    lambda headers: all(ord(letter) < 256 for name in headers for letter in name)
)


def _decompressor(*, max_size: int = 4096, max_count: int = 16) -> HeaderDecompressor:
    return HeaderDecompressor(max_size=max_size, max_count=max_count)


def _plain(*pairs: tuple[bytes, bytes], count: int | None = None) -> bytes:
    parts = [struct.pack("!I", len(pairs) if count is None else count)]
    for pair in pairs:
        parts += [struct.pack("!I", len(text)) + text for text in pair]
    return b"".join(parts)


def _block(plain: bytes, mode: int = zlib.Z_SYNC_FLUSH) -> bytes:
    compressor = zlib.compressobj(zdict=DICTIONARY)
    return compressor.compress(plain) + compressor.flush(mode)


def test_the_dictionary_is_the_one_of_the_specification() -> None:
    # The Adler-32 sum is what zlib streams carry as DICTID; the hash is that of Go's copy.
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
    assert hashlib.sha256(DICTIONARY).hexdigest().startswith("51d27341373f923f3cd88e1eb7162aea")


@given(st.lists(_headers, min_size=1, max_size=5))
def test_blocks_are_read_as_they_were_written(blocks: list[dict[str, str]]) -> None:
    compressor, decompressor = HeaderCompressor(), _decompressor(max_size=1 << 20)
    for headers in blocks:
        assert decompressor.decompress(compressor.compress(headers)) == headers


def test_names_travel_in_lower_case() -> None:
    block = HeaderCompressor().compress({"streamType": "stdin"})
    assert _decompressor().decompress(block) == {"streamtype": "stdin"}


@pytest.mark.parametrize("headers", [{"": "x"}, {"name": "€"}], ids=["no name", "beyond ISO 8859-1"])
def test_headers_that_cannot_be_sent_are_our_fault(headers: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        HeaderCompressor().compress(headers)


def test_a_decompression_bomb_costs_no_more_than_the_limit() -> None:
    bomb = _block(_plain((b"a", bytes(50_000_000))))
    assert len(bomb) < 64 * 1024
    with pytest.raises(RemoteProtocolError, match="more than 4096 bytes"):
        _decompressor().decompress(bomb)


@pytest.mark.parametrize(
    "block",
    [
        pytest.param(b"not zlib", id="not zlib"),
        pytest.param(zlib.compress(_plain()), id="no dictionary, and ended"),
        pytest.param(_block(_plain(), zlib.Z_FINISH), id="the zlib stream ends"),
        pytest.param(b"", id="nothing"),
        pytest.param(_block(b""), id="no count"),
        pytest.param(_block(_plain(count=1)), id="a header is missing"),
        pytest.param(_block(_plain(count=2**32 - 1)), id="4 billion headers"),
        pytest.param(_block(_plain((b"a", b"b")) + b"x"), id="bytes left over"),
        pytest.param(_block(_plain((b"", b"b"))), id="a header without a name"),
        pytest.param(_block(_plain((b"a", b"b"), (b"A", b"c"))), id="a name given twice"),
        pytest.param(_block(struct.pack("!II", 1, 2**32 - 1) + b"a"), id="a name of 4 GiB"),
        pytest.param(_block(_plain(*((b"%d" % n, b"") for n in range(17)))), id="too many headers"),
    ],
)
def test_a_malformed_block_is_a_fault_of_the_peer(block: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        _decompressor().decompress(block)


@given(st.binary(max_size=200), st.booleans())
def test_noise_gives_headers_or_the_documented_error(noise: bytes, compressed: bool) -> None:
    try:
        _decompressor().decompress(_block(noise) if compressed else noise)
    except RemoteProtocolError:
        pass
