"""The multiplexed stream: known bytes, and the same pieces however they are cut."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.docker.stdcopy import Demultiplexer, Piece, StreamId
from tests.docker.fake_engine import frame
from vkubelet.errors import RemoteProtocolError

_FRAMES = st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(max_size=40)), max_size=20)


def merged(pieces: list[Piece]) -> list[tuple[StreamId, bytes]]:
    """Neighbours of one stream put together."""
    return [(s, b"".join(p.data for p in group)) for s, group in groupby(pieces, key=lambda p: p.stream)]


def in_chunks(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


def test_the_engines_own_bytes_are_read() -> None:
    received = bytes.fromhex("0100000000000004") + b"out\n" + bytes.fromhex("0200000000000003") + b"err"
    demultiplexer = Demultiplexer()
    assert demultiplexer.receive_data(received) == [
        Piece(StreamId.STDOUT, b"out\n"),
        Piece(StreamId.STDERR, b"err"),
    ]
    assert demultiplexer.at_frame_end


def test_neighbouring_frames_of_one_stream_are_one_piece() -> None:
    data = frame(1, b"a") + frame(1, b"b") + frame(1, b"") + frame(1, b"c")
    assert Demultiplexer().receive_data(data) == [Piece(StreamId.STDOUT, b"abc")]


def test_frames_are_kept_apart_when_asked() -> None:
    data = frame(1, b"a") + frame(1, b"b")
    pieces = Demultiplexer().receive_data(data, by_frame=True)
    assert pieces == [Piece(StreamId.STDOUT, b"a"), Piece(StreamId.STDOUT, b"b")]


def test_payload_is_handed_on_before_its_frame_is_whole() -> None:
    demultiplexer = Demultiplexer()
    data = frame(1, b"x" * 100)
    assert demultiplexer.receive_data(data[:50]) == [Piece(StreamId.STDOUT, b"x" * 42)]
    assert not demultiplexer.at_frame_end
    assert demultiplexer.receive_data(data[50:]) == [Piece(StreamId.STDOUT, b"x" * 58, starts_frame=False)]


@given(_FRAMES, st.lists(st.integers(min_value=0), max_size=12), st.booleans())
def test_any_chunking_gives_the_same_streams(
    frames: list[tuple[int, bytes]], cuts: list[int], by_frame: bool
) -> None:
    data = b"".join(frame(stream, payload) for stream, payload in frames)
    demultiplexer = Demultiplexer()
    pieces = [
        p for chunk in in_chunks(data, cuts) for p in demultiplexer.receive_data(chunk, by_frame=by_frame)
    ]
    assert merged(pieces) == merged([Piece(StreamId(s), payload) for s, payload in frames if payload])
    assert demultiplexer.at_frame_end


@given(_FRAMES, st.lists(st.integers(min_value=0), max_size=12))
def test_the_beginnings_of_frames_are_marked(frames: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(frame(stream, payload) for stream, payload in frames)
    demultiplexer = Demultiplexer()
    found: list[bytes] = []
    for chunk in in_chunks(data, cuts):
        for piece in demultiplexer.receive_data(chunk, by_frame=True):
            if piece.starts_frame:
                found.append(piece.data)
            else:
                found[-1] += piece.data
    assert found == [payload for _, payload in frames if payload]


@pytest.mark.parametrize("header", ["0400000000000001", "0101000000000001", "4854545000000001"])
def test_what_is_no_header_is_refused(header: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Demultiplexer().receive_data(bytes.fromhex(header))


@given(st.lists(st.binary(max_size=30), max_size=20))
def test_any_bytes_are_read_or_refused(chunks: list[bytes]) -> None:
    demultiplexer = Demultiplexer()
    try:
        for chunk in chunks:
            demultiplexer.receive_data(chunk)
    except RemoteProtocolError:
        pass
