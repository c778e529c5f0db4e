"""Streams and their states, seen from both ends of an in-memory link."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.protocols.links import ConnectionPair, merged
from vkubelet.errors import LocalProtocolError, RemoteProtocolError
from vkubelet.protocols import spdy
from vkubelet.protocols.spdy import frames
from vkubelet.protocols.spdy.flow import ReceiveWindow, SendWindow
from vkubelet.protocols.spdy.headers import HeaderCompressor

MIB = 1 << 20


def _server() -> spdy.Connection:
    return spdy.Connection(spdy.Role.SERVER)


def _sent_by(connection: spdy.Connection) -> list[frames.Frame]:
    return list(frames.FrameDecoder(64 * 1024).feed(connection.data_to_send()))


class _RawClient:
    """Writes the frames it is told to, allowed or not."""

    def __init__(self) -> None:
        self._compressor = HeaderCompressor()

    def syn_stream(self, stream_id: int, *, fin: bool = False, unidirectional: bool = False) -> bytes:
        block = self._compressor.compress({"streamtype": "stdin"})
        return frames.serialize(frames.SynStream(stream_id, block, fin=fin, unidirectional=unidirectional))


# --- the ordinary life of a stream ------------------------------------------------------------------------


def test_a_stream_is_opened_with_its_headers_and_accepted() -> None:
    pair = ConnectionPair()
    stream_id = pair.client.open_stream({"streamType": "stdin"})
    assert pair.exchange() == ([], [spdy.StreamOpened(1, {"streamtype": "stdin"})])
    pair.server.reply(stream_id, {"ok": "yes"})
    assert pair.exchange() == ([spdy.StreamReplied(1, {"ok": "yes"})], [])


def test_ids_of_a_client_are_odd_and_of_a_server_even() -> None:
    pair = ConnectionPair()
    assert [pair.client.open_stream({}) for _ in range(3)] == [1, 3, 5]
    assert [pair.server.open_stream({}) for _ in range(3)] == [2, 4, 6]


def test_data_goes_both_ways_and_each_way_ends_by_itself() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("data")
    pair.client.send_data(stream_id, b"question", end_stream=True)
    _, heard = pair.exchange()
    assert heard == [spdy.DataReceived(1, b"question"), spdy.StreamEnded(1)]
    assert pair.server.is_open(stream_id)
    pair.server.send_data(stream_id, b"answer")
    pair.server.send_data(stream_id, b"", end_stream=True)
    heard, _ = pair.exchange()
    assert merged(heard) == [spdy.DataReceived(1, b"answer"), spdy.StreamEnded(1)]
    assert not pair.server.is_open(stream_id)
    assert not pair.client.is_open(stream_id)


def test_a_client_may_send_before_the_reply() -> None:
    pair = ConnectionPair()
    stream_id = pair.client.open_stream({})
    pair.client.send_data(stream_id, b"early")
    assert pair.exchange()[1][1:] == [spdy.DataReceived(1, b"early")]


def test_a_unidirectional_stream_has_no_way_back() -> None:
    server = _server()
    server.receive_data(_RawClient().syn_stream(1, unidirectional=True))
    with pytest.raises(LocalProtocolError):
        server.send_data(1, b"x")


def test_a_stream_opened_with_fin_is_ended_from_its_start() -> None:
    events = _server().receive_data(_RawClient().syn_stream(1, fin=True))
    assert events == [spdy.StreamOpened(1, {"streamtype": "stdin"}), spdy.StreamEnded(1)]


def test_a_reply_may_end_the_way_back_at_once() -> None:
    pair = ConnectionPair()
    stream_id = pair.client.open_stream({}, end_stream=True)
    assert pair.exchange()[1] == [spdy.StreamOpened(1, {}), spdy.StreamEnded(1)]
    pair.server.reply(stream_id, end_stream=True)
    assert pair.exchange()[0] == [spdy.StreamReplied(1, {}), spdy.StreamEnded(1)]
    assert not pair.client.is_open(stream_id)
    assert not pair.server.is_open(stream_id)


def test_headers_may_follow_on_an_open_stream() -> None:
    compressor = HeaderCompressor()
    opening = frames.serialize(frames.SynStream(1, compressor.compress({"first": "yes"})))
    more = frames.serialize(frames.Headers(1, compressor.compress({"later": "too"}), fin=True))
    assert _server().receive_data(opening + more) == [
        spdy.StreamOpened(1, {"first": "yes"}),
        spdy.HeadersReceived(1, {"later": "too"}),
        spdy.StreamEnded(1),
    ]


def test_a_reset_ends_both_directions() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("data")
    pair.client.reset(stream_id)
    assert pair.exchange()[1] == [spdy.StreamReset(1, spdy.ResetStatus.CANCEL)]
    with pytest.raises(LocalProtocolError):
        pair.server.send_data(stream_id, b"x")


def test_a_second_reset_says_nothing() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("data")
    pair.server.reset(stream_id)
    pair.server.reset(stream_id)
    assert len(_sent_by(pair.server)) == 1


def test_pings_are_answered_by_themselves() -> None:
    pair = ConnectionPair()
    ping_id = pair.client.ping()
    assert pair.exchange() == ([spdy.PingAcknowledged(ping_id)], [])
    assert pair.client.ping() == ping_id + 2


def test_a_goaway_names_the_last_stream_and_ignores_later_ones() -> None:
    pair = ConnectionPair()
    pair.open_stream("first")
    pair.server.goaway()
    pair.server.goaway()
    late = pair.client.open_stream({})
    heard, by_server = pair.exchange()
    assert heard == [spdy.GoAwayReceived(1, spdy.GoAwayStatus.OK)]
    assert by_server == []
    pair.client.send_data(late, b"x")
    assert pair.exchange() == ([], [])


# --- our own faults ---------------------------------------------------------------------------------------


def test_a_server_may_not_send_before_its_reply() -> None:
    pair = ConnectionPair()
    stream_id = pair.client.open_stream({})
    pair.exchange()
    with pytest.raises(LocalProtocolError):
        pair.server.send_data(stream_id, b"x")


def test_a_stream_is_replied_to_once() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("data")
    with pytest.raises(LocalProtocolError):
        pair.server.reply(stream_id)


def test_nothing_follows_the_end_of_a_stream() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("data")
    pair.client.send_data(stream_id, b"", end_stream=True)
    with pytest.raises(LocalProtocolError):
        pair.client.send_data(stream_id, b"x")


def test_a_frame_holds_less_than_16_mib() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("data")
    with pytest.raises(LocalProtocolError):
        pair.client.send_data(stream_id, bytes(16 * MIB))


# --- faults of the peer -----------------------------------------------------------------------------------


def test_data_after_the_end_resets_that_stream_alone() -> None:
    client, server = _RawClient(), _server()
    server.receive_data(client.syn_stream(1, fin=True) + client.syn_stream(3))
    events = server.receive_data(frames.serialize(frames.Data(1, b"x")))
    assert events == [spdy.StreamReset(1, spdy.ResetStatus.STREAM_ALREADY_CLOSED, by_peer=False)]
    assert _sent_by(server) == [frames.RstStream(1, spdy.ResetStatus.STREAM_ALREADY_CLOSED)]
    assert server.is_open(3)


def test_data_on_a_stream_that_never_was_is_answered_with_a_reset() -> None:
    server = _server()
    assert server.receive_data(frames.serialize(frames.Data(7, b"x"))) == []
    assert _sent_by(server) == [frames.RstStream(7, spdy.ResetStatus.INVALID_STREAM)]


def test_data_that_crosses_our_reset_is_ignored() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("stdin")
    pair.server.reset(stream_id)
    pair.client.send_data(stream_id, b"on its way")
    assert pair.exchange()[1] == []


def test_a_second_reply_resets_the_stream() -> None:
    client, compressor = spdy.Connection(spdy.Role.CLIENT), HeaderCompressor()
    stream_id = client.open_stream({})
    replies = [frames.serialize(frames.SynReply(stream_id, compressor.compress({}))) for _ in range(2)]
    assert client.receive_data(b"".join(replies))[1:] == [
        spdy.StreamReset(stream_id, spdy.ResetStatus.STREAM_IN_USE, by_peer=False)
    ]


def test_data_before_the_reply_resets_the_stream() -> None:
    client = spdy.Connection(spdy.Role.CLIENT)
    stream_id = client.open_stream({})
    assert client.receive_data(frames.serialize(frames.Data(stream_id, b"x"))) == [
        spdy.StreamReset(stream_id, spdy.ResetStatus.PROTOCOL_ERROR, by_peer=False)
    ]


@pytest.mark.parametrize("stream_id", [2, 1, 3], ids=["of our parity", "lower than before", "as before"])
def test_a_stream_id_out_of_order_ends_the_connection(stream_id: int) -> None:
    client, server = _RawClient(), _server()
    server.receive_data(client.syn_stream(3))
    with pytest.raises(RemoteProtocolError):
        server.receive_data(client.syn_stream(stream_id))
    assert _sent_by(server) == [frames.GoAway(3, spdy.GoAwayStatus.PROTOCOL_ERROR)]


def test_a_connection_that_failed_stays_failed() -> None:
    server = _server()
    with pytest.raises(RemoteProtocolError):
        server.receive_data(b"\x80\x02" + bytes(6))
    with pytest.raises(RemoteProtocolError):
        server.receive_data(b"")


def test_more_streams_than_allowed_are_refused_one_by_one() -> None:
    pair = ConnectionPair(server_limits=spdy.Limits(max_streams=2))
    for _ in range(4):
        pair.client.open_stream({})
    refused, opened = pair.exchange()
    assert refused == [
        spdy.StreamReset(5, spdy.ResetStatus.REFUSED_STREAM),
        spdy.StreamReset(7, spdy.ResetStatus.REFUSED_STREAM),
    ]
    assert len(opened) == 2
    pair.client.reset(1)
    pair.client.open_stream({})
    assert spdy.StreamOpened(9, {}) in pair.exchange()[1]


def test_headers_of_a_refused_stream_do_not_spoil_those_of_the_next() -> None:
    pair = ConnectionPair(server_limits=spdy.Limits(max_streams=1))
    pair.client.open_stream({"streamtype": "stdin"})
    pair.client.open_stream({"streamtype": "refused"})
    pair.exchange()
    pair.client.reset(1)
    pair.client.open_stream({"streamtype": "stdout"})
    assert spdy.StreamOpened(5, {"streamtype": "stdout"}) in pair.exchange()[1]


# --- flow control -----------------------------------------------------------------------------------------


def test_a_peer_without_windows_takes_any_amount() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("stdout")
    for _ in range(10):
        pair.server.send_data(stream_id, bytes(MIB))
    assert pair.server.sendable(stream_id) > MIB


def test_a_peer_without_windows_is_sent_no_updates() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("stdin")
    pair.client.send_data(stream_id, bytes(MIB))
    pair.exchange()
    pair.server.acknowledge(stream_id, MIB)
    assert pair.server.data_to_send() == b""


def test_a_peer_that_updates_windows_is_held_to_them() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("stdout")
    pair.server.send_data(stream_id, bytes(64 * 1024))
    for target in (0, stream_id):
        events = pair.server.receive_data(frames.serialize(frames.WindowUpdate(target, 1000)))
        assert events == [spdy.WindowOpened(target)]
    assert pair.server.sendable(stream_id) == 1000
    pair.server.send_data(stream_id, bytes(1000))
    assert pair.server.sendable(stream_id) == 0


def test_settings_change_the_window_of_open_and_later_streams() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("stdout")
    grow = frames.serialize(frames.WindowUpdate(0, MIB)) + frames.serialize(frames.Settings(((7, 100),)))
    pair.server.receive_data(grow)
    assert pair.server.sendable(stream_id) == 100


def test_a_peer_that_shows_windows_is_granted_what_was_consumed() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("stdin")
    pair.server.receive_data(frames.serialize(frames.Settings(())))
    pair.client.send_data(stream_id, bytes(40_000))
    pair.exchange()
    pair.server.acknowledge(stream_id, 40_000)
    assert _sent_by(pair.server) == [
        frames.WindowUpdate(0, 40_000),
        frames.WindowUpdate(stream_id, 40_000),
    ]


def test_window_updates_and_settings_that_concern_nothing_are_ignored() -> None:
    server = _server()
    update, settings = frames.WindowUpdate(99, 5), frames.Settings(((4, 100),))
    assert server.receive_data(frames.serialize(update) + frames.serialize(settings)) == []


def test_a_stream_window_beyond_its_limit_resets_the_stream() -> None:
    pair = ConnectionPair()
    stream_id = pair.open_stream("stdout")
    events = pair.server.receive_data(frames.serialize(frames.WindowUpdate(stream_id, 2**31 - 1)))
    assert events == [spdy.StreamReset(1, spdy.ResetStatus.FLOW_CONTROL_ERROR, by_peer=False)]


def test_the_connection_window_beyond_its_limit_ends_the_connection() -> None:
    with pytest.raises(RemoteProtocolError):
        _server().receive_data(frames.serialize(frames.WindowUpdate(0, 2**31 - 1)))


def test_a_receive_window_grants_by_halves() -> None:
    window = ReceiveWindow(100)
    assert [window.consumed(count) for count in (30, 19, 1, 49, 100)] == [0, 0, 50, 0, 149]


def test_a_send_window_may_be_overdrawn() -> None:
    window = SendWindow(10)
    window.sent(30)
    window.open(25)
    assert window.available == 5


# --- any chunking, any noise ------------------------------------------------------------------------------

_actions = st.lists(
    st.one_of(
        st.just(("open", 0, b"")),
        st.tuples(st.just("data"), st.integers(0, 5), st.binary(max_size=300)),
        st.tuples(st.just("end"), st.integers(0, 5), st.binary(max_size=5)),
        st.tuples(st.just("reset"), st.integers(0, 5), st.just(b"")),
        st.just(("ping", 0, b"")),
    ),
    max_size=30,
)


def _transcript(actions: list[tuple[str, int, bytes]]) -> bytes:
    """What a client writes that does `actions`, leaving out what its own state forbids."""
    client = spdy.Connection(spdy.Role.CLIENT)
    opened: list[int] = []
    for action, index, data in actions:
        try:
            if action == "open":
                opened.append(client.open_stream({"streamtype": f"s{len(opened)}"}))
            elif action == "ping":
                client.ping()
            elif opened:
                stream_id = opened[index % len(opened)]
                if action == "reset":
                    client.reset(stream_id)
                else:
                    client.send_data(stream_id, data, end_stream=action == "end")
        except LocalProtocolError:
            continue
    client.goaway()
    return client.data_to_send()


@given(_actions, st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_any_chunking_gives_the_same_events(actions: list[tuple[str, int, bytes]], sizes: list[int]) -> None:
    wire = _transcript(actions)
    whole, chunked = _server(), _server()
    expected = whole.receive_data(wire)
    events: list[spdy.Event] = []
    position = step = 0
    while position < len(wire):
        size = sizes[step % len(sizes)]
        events += chunked.receive_data(wire[position : position + size])
        position, step = position + size, step + 1
    assert merged(events) == merged(expected)
    assert chunked.data_to_send() == whole.data_to_send()


@given(_actions, st.binary(max_size=100), st.integers(0, 10_000))
def test_a_damaged_transcript_gives_events_or_the_documented_error(
    actions: list[tuple[str, int, bytes]], noise: bytes, at: int
) -> None:
    wire = _transcript(actions)
    cut = at % (len(wire) + 1)
    server = _server()
    try:
        server.receive_data(wire[:cut] + noise + wire[cut + len(noise) :])
    except RemoteProtocolError:
        pass
    server.data_to_send()


def test_a_flood_of_streams_and_pings_is_answered_in_bounded_memory() -> None:
    client, server = _RawClient(), spdy.Connection(spdy.Role.SERVER, spdy.Limits(max_streams=10))
    opened = 0
    for stream_id in range(1, 4001, 2):
        flood = client.syn_stream(stream_id) + frames.serialize(frames.Ping(stream_id))
        opened += len(server.receive_data(flood))
        assert len(server.data_to_send()) < 100
    assert opened == 10
