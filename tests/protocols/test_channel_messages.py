"""Channels in WebSocket messages: the binary and base64 forms, the close signal, and who speaks what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.errors import RemoteProtocolError
from vkubelet.protocols.channel_messages import (
    REMOTE_COMMAND_SUBPROTOCOLS,
    ChannelData,
    ChannelDecoder,
    ChannelEnd,
    ChannelEvent,
    Subprotocol,
    negotiate_subprotocol,
)
from vkubelet.protocols.remote_command import Version
from vkubelet.protocols.websocket import DataReceived

V5 = Subprotocol("v5.channel.k8s.io", Version.V5)
V4 = Subprotocol("v4.channel.k8s.io", Version.V4)
BASE64 = Subprotocol("base64.channel.k8s.io", Version.V1, is_base64=True)


def pieces(message: bytes, size: int = 1 << 30) -> list[DataReceived]:
    parts = [message[start : start + size] for start in range(0, len(message), size)] or [b""]
    last = len(parts) - 1
    return [DataReceived(part, False, index == 0, index == last) for index, part in enumerate(parts)]


def decode(subprotocol: Subprotocol, *messages: bytes, size: int = 1 << 30) -> list[ChannelEvent]:
    decoder = ChannelDecoder(subprotocol)
    heard = (decoder.feed(piece) for message in messages for piece in pieces(message, size))
    return [event for event in heard if event is not None]


@pytest.mark.parametrize("subprotocol", [V5, V4, BASE64], ids=lambda subprotocol: subprotocol.name)
@given(
    messages=st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=40)), max_size=6),
    size=st.integers(1, 9),
)
def test_what_is_encoded_is_decoded_whatever_the_chunks(
    subprotocol: Subprotocol, messages: list[tuple[int, bytes]], size: int
) -> None:
    wire = [b"".join(subprotocol.encode(channel, data)) for channel, data in messages]
    assert _joined(decode(subprotocol, *wire, size=size)) == _joined(
        [ChannelData(channel, data) for channel, data in messages if data]
    )


def _joined(events: list[ChannelEvent]) -> list[tuple[int, bytes]]:
    result: list[tuple[int, bytes]] = []
    for event in events:
        assert isinstance(event, ChannelData)
        if result and result[-1][0] == event.channel:
            result[-1] = (event.channel, result[-1][1] + event.data)
        else:
            result.append((event.channel, event.data))
    return result


def test_the_base64_form_is_a_digit_and_base64() -> None:
    assert b"".join(BASE64.encode(0, b"foo\n")) == b"0Zm9vCg=="
    assert decode(BASE64, b"0Zm9v\r\nCg==") == [ChannelData(0, b"foo\n")]


def test_an_empty_message_says_nothing() -> None:
    assert decode(V5, b"", b"\x00", b"\x00x") == [ChannelData(0, b"x")]


@pytest.mark.parametrize("size", [1, 2])
def test_the_close_signal_ends_a_channel(size: int) -> None:
    assert decode(V5, b"\xff\x00", size=size) == [ChannelEnd(0)]


def test_before_v5_channel_255_is_a_channel_like_any_other() -> None:
    assert decode(V4, b"\xff\x00") == [ChannelData(255, b"\x00")]


@pytest.mark.parametrize("message", [b"\xff", b"\xff\x00\x01", b"\xff" + bytes(1000)], ids=len)
def test_a_close_signal_that_names_no_channel_is_a_violation(message: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(V5, message)


@pytest.mark.parametrize("message", [b"0Zm9", b"0Zm9v!!!!", b"0Zg==Zg==", b"0===="])
@pytest.mark.parametrize("size", [1, 4, 100])
def test_what_is_not_base64_is_a_violation(message: bytes, size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        decode(BASE64, message, size=size)


@given(st.binary(max_size=60), st.integers(1, 7), st.sampled_from(REMOTE_COMMAND_SUBPROTOCOLS))
def test_noise_gives_events_or_the_documented_error(
    noise: bytes, size: int, subprotocol: Subprotocol
) -> None:
    try:
        decode(subprotocol, noise, size=size)
    except RemoteProtocolError:
        pass


@pytest.mark.parametrize(
    ("offered", "spoken"),
    [
        (["v4.channel.k8s.io", "channel.k8s.io"], "v4.channel.k8s.io"),
        (["channel.k8s.io", "v4.channel.k8s.io"], "channel.k8s.io"),
        (["v4.channel.k8s.io", "v5.channel.k8s.io"], "v5.channel.k8s.io"),
        (["v9.channel.k8s.io", "v3.channel.k8s.io"], "v3.channel.k8s.io"),
        (["v4.base64.channel.k8s.io"], "v4.base64.channel.k8s.io"),
        (["base64.channel.k8s.io"], "base64.channel.k8s.io"),
        ([], ""),
        (["base64url.bearer.authorization.k8s.io.dG9r"], ""),
        (["base64url.bearer.authorization.k8s.io.dG9r", "v4.channel.k8s.io"], "v4.channel.k8s.io"),
        (["v9.channel.k8s.io"], None),
    ],
)
def test_which_subprotocol_is_spoken(offered: list[str], spoken: str | None) -> None:
    found = negotiate_subprotocol(offered)
    assert (found.name if found else None) == spoken
