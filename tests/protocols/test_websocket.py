"""RFC 6455: what one side sends the other hears, whatever the chunks; what breaks the rules gets a Close."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.errors import LocalProtocolError, RemoteProtocolError
from vkubelet.protocols import websocket
from vkubelet.protocols.websocket import CloseCode, Closed, DataReceived, PingReceived, PongReceived, frames
from vkubelet.protocols.websocket.frames import Opcode

KEY = b"\x37\xfa\x21\x3d"


def client() -> websocket.Connection:
    return websocket.Connection(websocket.Role.CLIENT)


def server() -> websocket.Connection:
    return websocket.Connection(websocket.Role.SERVER)


def from_client(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A masked frame; the opcode need not exist."""
    header = frames.frame_header(Opcode.BINARY, len(payload), key=KEY)
    return bytes(((0x80 if fin else 0) | opcode,)) + header[1:] + frames.mask(payload, KEY)


def merged(events: list[websocket.Event]) -> list[websocket.Event]:
    """The same events with the pieces of a message joined: where it was cut says nothing."""
    result: list[websocket.Event] = []
    for event in events:
        last = result[-1] if result else None
        if (
            isinstance(event, DataReceived)
            and isinstance(last, DataReceived)
            and not (last.ends or event.begins)
        ):
            result[-1] = DataReceived(last.data + event.data, last.is_text, last.begins, event.ends)
        else:
            result.append(event)
    return result


# --- masks ------------------------------------------------------------------------------------------------


@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4), st.integers(0, 9))
def test_a_mask_is_an_exclusive_or_with_the_key_repeated(data: bytes, key: bytes, offset: int) -> None:
    expected = bytes(byte ^ key[(index + offset) % 4] for index, byte in enumerate(data))
    assert frames.mask(data, key, offset) == expected
    assert frames.mask(expected, key, offset) == data


# --- messages ---------------------------------------------------------------------------------------------

_actions = st.lists(
    st.tuples(
        st.sampled_from(["binary", "text", "fragments", "ping", "pong"]),
        st.one_of(st.binary(max_size=70), st.sampled_from([bytes(125), bytes(126), bytes(300)])),
    ),
    max_size=8,
)


def perform(sender: websocket.Connection, actions: list[tuple[str, bytes]]) -> bytes:
    for action, data in actions:
        match action:
            case "binary":
                sender.send_message(data, prefix=b"p")
            case "text":
                sender.send_message(data.hex().encode(), is_text=True)
            case "fragments":
                sender.send_fragment(data, begins=True, ends=False)
                sender.ping(b"between")
                sender.send_fragment(b"", begins=False, ends=False)
                sender.send_fragment(data, begins=False, ends=True)
            case "ping":
                sender.ping(data[:125])
            case "pong":
                sender.pong()
    sender.close(CloseCode.NORMAL, "done")
    return sender.data_to_send()


def heard(actions: list[tuple[str, bytes]]) -> list[websocket.Event]:
    events: list[websocket.Event] = []
    for action, data in actions:
        match action:
            case "binary":
                events.append(DataReceived(b"p" + data, False, True, True))
            case "text":
                events.append(DataReceived(data.hex().encode(), True, True, True))
            case "fragments":
                # A control frame may come between the pieces of a message.
                events.append(DataReceived(data, False, True, False))
                events.append(PingReceived())
                events.append(DataReceived(data, False, False, True))
            case "ping":
                events.append(PingReceived())
            case "pong":
                events.append(PongReceived(b""))
    return [*events, Closed(1000, "done")]


@pytest.mark.parametrize("from_server", [False, True], ids=["client to server", "server to client"])
@given(actions=_actions, sizes=st.lists(st.integers(1, 400), min_size=1, max_size=9))
def test_any_chunking_gives_what_was_sent(
    from_server: bool, actions: list[tuple[str, bytes]], sizes: list[int]
) -> None:
    sender, receiver = (server(), client()) if from_server else (client(), server())
    wire = perform(sender, actions)
    events: list[websocket.Event] = []
    position = step = 0
    while position < len(wire):
        size = sizes[step % len(sizes)]
        events += receiver.receive_data(wire[position : position + size])
        position, step = position + size, step + 1
    assert merged(events) == merged(heard(actions))
    assert receiver.close_received
    assert receiver.close_sent


@pytest.mark.parametrize(
    ("length", "header"),
    [(0, 2), (125, 2), (126, 4), (65535, 4), (65536, 10)],
)
def test_lengths_take_as_many_bytes_as_they_need(length: int, header: int) -> None:
    assert len(frames.frame_header(Opcode.BINARY, length)) == header
    assert len(frames.frame_header(Opcode.BINARY, length, key=KEY)) == header + 4


def test_the_examples_of_the_rfc() -> None:
    """Section 5.7."""
    assert server().receive_data(bytes.fromhex("818537fa213d7f9f4d5158")) == [
        DataReceived(b"Hello", True, True, True)
    ]
    assert client().receive_data(bytes.fromhex("810548656c6c6f")) == [
        DataReceived(b"Hello", True, True, True)
    ]
    assert merged(client().receive_data(bytes.fromhex("010348656c80026c6f"))) == [
        DataReceived(b"Hello", True, True, True)
    ]


def test_data_is_handed_on_as_it_arrives() -> None:
    receiver = server()
    wire = from_client(Opcode.BINARY, bytes(range(100)))
    assert receiver.receive_data(wire[:50]) == [DataReceived(bytes(range(44)), False, True, False)]
    assert receiver.receive_data(wire[50:]) == [DataReceived(bytes(range(44, 100)), False, False, True)]


def test_a_ping_is_answered_with_its_payload() -> None:
    receiver = server()
    assert receiver.receive_data(from_client(Opcode.PING, b"are you there")) == [PingReceived()]
    assert receiver.data_to_send() == b"\x8a\x0dare you there"


# --- the end ----------------------------------------------------------------------------------------------


def test_a_close_is_answered_with_its_code_and_ends_all() -> None:
    receiver = server()
    wire = from_client(Opcode.CLOSE, b"\x03\xe9bye") + from_client(Opcode.PING)
    assert receiver.receive_data(wire) == [Closed(1001, "bye")]
    assert receiver.data_to_send() == b"\x88\x02\x03\xe9"
    assert receiver.receive_data(from_client(Opcode.PING)) == []
    assert receiver.data_to_send() == b""
    with pytest.raises(LocalProtocolError):
        receiver.send_message(b"late")


def test_a_close_without_a_code_is_one() -> None:
    receiver = server()
    assert receiver.receive_data(from_client(Opcode.CLOSE)) == [Closed(CloseCode.NO_STATUS, "")]
    assert receiver.data_to_send() == b"\x88\x00"


def test_our_close_is_sent_once_and_the_peers_data_is_still_heard() -> None:
    receiver = server()
    receiver.close(CloseCode.GOING_AWAY, "é" * 100)
    receiver.close()
    assert receiver.data_to_send() == b"\x88\x7c\x03\xe9" + "é".encode() * 61
    assert receiver.receive_data(from_client(Opcode.PING) + from_client(Opcode.BINARY, b"x")) == [
        PingReceived(),
        DataReceived(b"x", False, True, True),
    ]
    assert receiver.receive_data(from_client(Opcode.CLOSE, b"\x03\xe9")) == [Closed(1001, "")]
    assert receiver.data_to_send() == b""


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        pytest.param(b"\x82\x01x", 1002, id="not masked"),
        pytest.param(from_client(Opcode.BINARY | 0x40), 1002, id="a reserved bit"),
        pytest.param(from_client(3), 1002, id="an unknown opcode"),
        pytest.param(from_client(Opcode.CONTINUATION), 1002, id="a continuation of nothing"),
        pytest.param(
            from_client(Opcode.TEXT, fin=False) + from_client(Opcode.TEXT), 1002, id="a message within one"
        ),
        pytest.param(from_client(Opcode.PING, fin=False), 1002, id="a fragmented ping"),
        pytest.param(from_client(Opcode.PING, bytes(126)), 1002, id="a long ping"),
        pytest.param(b"\x82\xff" + b"\xff" * 8 + KEY, 1002, id="a length beyond 2^63"),
        pytest.param(from_client(Opcode.CLOSE, b"\x03"), 1002, id="half a close code"),
        pytest.param(from_client(Opcode.CLOSE, b"\x03\xed"), 1002, id="a close code that is never sent"),
        pytest.param(from_client(Opcode.CLOSE, b"\x03\xe8\xff"), 1007, id="a close reason that is no text"),
        pytest.param(from_client(Opcode.TEXT, b"\xc3\x28"), 1007, id="text that is no UTF-8"),
        pytest.param(from_client(Opcode.TEXT, b"\xc3"), 1007, id="text that ends early"),
    ],
)
def test_a_violation_closes_with_its_code(wire: bytes, code: int) -> None:
    receiver = server()
    with pytest.raises(RemoteProtocolError):
        receiver.receive_data(wire)
    answer = receiver.data_to_send()
    assert answer[0] == 0x88
    assert int.from_bytes(answer[2:4], "big") == code
    assert receiver.receive_data(from_client(Opcode.PING)) == []


def test_a_masked_frame_from_a_server_is_a_violation() -> None:
    with pytest.raises(RemoteProtocolError):
        client().receive_data(from_client(Opcode.BINARY, b"x"))


def test_text_cut_within_a_character_is_text() -> None:
    receiver = server()
    wire = from_client(Opcode.TEXT, b"\xe2\x82", fin=False) + from_client(Opcode.CONTINUATION, b"\xac")
    assert merged(receiver.receive_data(wire)) == [DataReceived("€".encode(), True, True, True)]


# --- hostile peers ----------------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_noise_gives_events_or_the_documented_error(noise: bytes) -> None:
    for receiver in (server(), client()):
        try:
            receiver.receive_data(noise)
        except RemoteProtocolError:
            assert receiver.close_sent
        receiver.data_to_send()


@given(_actions, st.binary(max_size=50), st.integers(0, 10_000))
def test_a_damaged_conversation_gives_events_or_the_documented_error(
    actions: list[tuple[str, bytes]], noise: bytes, at: int
) -> None:
    wire = perform(client(), actions)
    cut = at % (len(wire) + 1)
    receiver = server()
    try:
        receiver.receive_data(wire[:cut] + noise + wire[cut + len(noise) :])
    except RemoteProtocolError:
        assert receiver.close_sent


def test_a_huge_frame_and_a_message_without_end_are_not_held() -> None:
    receiver = server()
    receiver.receive_data(b"\x02\xff" + (1 << 40).to_bytes(8, "big") + KEY)
    chunk = bytes(64 * 1024)
    receiver.receive_data(chunk)
    tracemalloc.start()
    try:
        for _ in range(100):
            receiver.receive_data(chunk)
        held, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 64 * 1024


# --- handshake --------------------------------------------------------------------------------------------


def test_the_accept_key_of_the_rfc() -> None:
    """Section 1.3."""
    assert websocket.accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        pytest.param({}, "version missing", id="no version"),
        pytest.param({"sec-websocket-version": "8"}, "version 8", id="an old version"),
        pytest.param({"sec-websocket-version": "13"}, "16 bytes", id="no key"),
        pytest.param(
            {"sec-websocket-version": "13", "sec-websocket-key": "c2hvcnQ="}, "16 bytes", id="a short key"
        ),
        pytest.param(
            {"sec-websocket-version": "13", "sec-websocket-key": "%%%"}, "16 bytes", id="not base64"
        ),
    ],
)
def test_a_request_that_is_no_handshake_is_refused(headers: dict[str, str], message: str) -> None:
    with pytest.raises(RemoteProtocolError, match=message):
        websocket.check_request(headers)


def test_a_handshake_gives_its_key_and_what_is_offered() -> None:
    headers = {"sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
    assert websocket.check_request(headers) == "dGhlIHNhbXBsZSBub25jZQ=="
    assert websocket.offered_subprotocols(["a, b", "", "c"]) == ["a", "b", "c"]
