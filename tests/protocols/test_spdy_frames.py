"""The wire format: every frame survives the way to bytes and back, and nothing else gets in."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.errors import RemoteProtocolError
from vkubelet.protocols.spdy import frames

_stream_ids = st.integers(1, 2**31 - 1)
_u32 = st.integers(0, 2**32 - 1)
_blocks = st.binary(max_size=200)

_control_frames: st.SearchStrategy[frames.Frame] = st.one_of(
    st.builds(
        frames.SynStream,
        _stream_ids,
        _blocks,
        fin=st.booleans(),
        unidirectional=st.booleans(),
        associated_id=st.integers(0, 2**31 - 1),
        priority=st.integers(0, 7),
    ),
    st.builds(frames.SynReply, _stream_ids, _blocks, fin=st.booleans()),
    st.builds(frames.Headers, _stream_ids, _blocks, fin=st.booleans()),
    st.builds(frames.RstStream, _stream_ids, st.integers(1, 2**32 - 1)),
    st.builds(
        frames.Settings,
        st.lists(st.tuples(st.integers(0, 2**24 - 1), _u32), max_size=5).map(tuple),
    ),
    st.builds(frames.Ping, _u32),
    st.builds(frames.GoAway, st.integers(0, 2**31 - 1), _u32),
    st.builds(frames.WindowUpdate, st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)),
)


def _decode(data: bytes, *, max_control_length: int = 1024) -> list[frames.Frame]:
    return list(frames.FrameDecoder(max_control_length).feed(data))


@given(_control_frames)
def test_a_control_frame_is_read_as_it_was_written(frame: frames.Frame) -> None:
    assert _decode(frames.serialize(frame)) == [frame]


@given(_control_frames, st.data())
def test_a_control_frame_comes_out_once_whatever_the_chunks(frame: frames.Frame, data: st.DataObject) -> None:
    wire = frames.serialize(frame) * 2
    cut = data.draw(st.integers(0, len(wire)))
    decoder = frames.FrameDecoder(1024)
    assert [*decoder.feed(wire[:cut]), *decoder.feed(wire[cut:])] == [frame, frame]


def test_data_is_handed_on_as_it_arrives_and_ends_with_its_last_byte() -> None:
    decoder = frames.FrameDecoder(64)
    wire = frames.serialize(frames.Data(5, b"abcdef", fin=True))
    assert list(decoder.feed(wire[:10])) == [frames.Data(5, b"ab")]
    assert list(decoder.feed(wire[10:])) == [frames.Data(5, b"cdef", fin=True)]


def test_an_empty_data_frame_is_a_frame() -> None:
    assert _decode(frames.serialize(frames.Data(1, b"", fin=True))) == [frames.Data(1, b"", fin=True)]


def test_a_data_frame_of_16_mib_is_never_held() -> None:
    decoder = frames.FrameDecoder(64)
    assert list(decoder.feed(frames.data_frame_header(1, frames.MAX_FRAME_LENGTH, fin=False))) == []
    assert list(decoder.feed(b"x" * 1000)) == [frames.Data(1, b"x" * 1000)]


def test_a_control_frame_of_unknown_type_is_skipped() -> None:
    unknown = struct.pack("!II", 0x8003_000A, 5) + b"hello"
    ping = frames.Ping(7)
    assert _decode(unknown + frames.serialize(ping)) == [ping]


@pytest.mark.parametrize(
    "wire",
    [
        pytest.param(struct.pack("!II", 0x8002_0006, 4) + bytes(4), id="another version of SPDY"),
        pytest.param(struct.pack("!II", 0x8003_0001, 1025), id="a control frame beyond the limit"),
        pytest.param(struct.pack("!II", 0, 0), id="data on stream 0"),
        pytest.param(struct.pack("!III", 0x8003_0002, 4, 0), id="a reply on stream 0"),
        pytest.param(struct.pack("!II", 0x8003_0001, 9) + bytes(9), id="a short SYN_STREAM"),
        pytest.param(struct.pack("!II", 0x8003_0001, 0), id="an empty SYN_STREAM"),
        pytest.param(struct.pack("!II", 0x8003_0006, 5) + bytes(5), id="a long PING"),
        pytest.param(struct.pack("!II", 0x8003_0003, 4) + bytes(4), id="a short RST_STREAM"),
        pytest.param(struct.pack("!IIII", 0x8003_0003, 8, 1, 0), id="a RST_STREAM without a reason"),
        pytest.param(struct.pack("!III", 0x8003_0004, 4, 1), id="SETTINGS that miss an entry"),
        pytest.param(struct.pack("!III", 0x8003_0004, 4, 2**32 - 1), id="SETTINGS that promise 4 billion"),
        pytest.param(struct.pack("!III", 0x8003_0007, 4, 1), id="a GOAWAY of SPDY/2"),
        pytest.param(struct.pack("!III", 0x8003_0009, 4, 1), id="a short WINDOW_UPDATE"),
    ],
)
def test_a_malformed_frame_is_a_fault_of_the_peer(wire: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        _decode(wire)


@given(st.lists(st.binary(max_size=64), max_size=20))
def test_noise_gives_frames_or_the_documented_error(chunks: list[bytes]) -> None:
    decoder = frames.FrameDecoder(256)
    try:
        for chunk in chunks:
            for _ in decoder.feed(chunk):
                pass
    except RemoteProtocolError:
        pass
