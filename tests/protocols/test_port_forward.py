"""Which streams belong together, to which port, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.protocols import port_forward
from vkubelet.protocols.port_forward import ForwardStream, Pair, PairTable, StreamKind

DATA, ERROR = StreamKind.DATA, StreamKind.ERROR


@pytest.mark.parametrize(
    ("offered", "is_served"),
    [
        (["portforward.k8s.io"], True),
        (["v4.channel.k8s.io, portforward.k8s.io"], True),
        (["other", " portforward.k8s.io "], True),
        (["v4.channel.k8s.io"], False),
        (["SPDY/3.1+portforward.k8s.io"], False),
        ([], False),
    ],
)
def test_the_protocol_must_be_among_what_the_client_offers(offered: list[str], is_served: bool) -> None:
    assert port_forward.negotiate(offered) is is_served


# --- ports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "port"), [("1", 1), ("80", 80), ("65535", 65535), ("0080", 80)])
def test_ports_are_decimal(text: str, port: int) -> None:
    assert port_forward.parse_port(text) == port


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", 'port "0" must be > 0'),
        ("65536", 'unable to parse "65536" as a port'),
        ("-1", 'unable to parse "-1" as a port'),
        ("+1", 'unable to parse "+1" as a port'),
        (" 1", 'unable to parse " 1" as a port'),
        ("1_0", 'unable to parse "1_0" as a port'),
        ("http", 'unable to parse "http" as a port'),
        ("٣", 'unable to parse "٣" as a port'),
        ("", 'unable to parse "" as a port'),
        ("9" * 5000, "as a port"),
    ],
    ids=[
        "zero",
        "too-large",
        "negative",
        "sign",
        "space",
        "underscore",
        "name",
        "not-ascii",
        "empty",
        "huge",
    ],
)
def test_what_is_no_port_is_refused_in_the_kubelets_words(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        port_forward.parse_port(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "ports"),
    [(["80"], (80,)), (["80", "81"], (80, 81)), (["80,81", "82"], (80, 81, 82)), (["80,80"], (80, 80))],
)
def test_a_query_names_ports_one_by_one_or_in_lists(values: list[str], ports: tuple[int, ...]) -> None:
    assert port_forward.parse_ports(values) == ports


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], 'query parameter "port" is required'),
        ([""], 'query parameter "port" cannot be empty'),
        (["80", ""], 'query parameter "port" cannot be empty'),
        (["80,"], 'unable to parse "" as a port'),
        (["0"], 'port "0" must be > 0'),
        ([",".join(["80"] * 65)], "65 ports in one request, but 64 are the most"),
    ],
)
def test_a_query_without_good_ports_is_refused(values: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        port_forward.parse_ports(values)
    assert str(caught.value) == message


def test_a_websocket_has_two_channels_for_each_port_and_greets_with_its_number() -> None:
    channels = [(port_forward.data_channel(n), port_forward.error_channel(n)) for n in range(3)]
    assert channels == [(0, 1), (2, 3), (4, 5)]
    assert port_forward.greeting(80) == b"\x50\x00"
    assert port_forward.greeting(0x1234) == b"\x34\x12"


# --- streams ----------------------------------------------------------------------------------------------


def headers(kind: str = "data", port: str = "80", request_id: str = "7") -> dict[str, str]:
    named = {"streamtype": kind, "port": port, "requestid": request_id}
    return {name: value for name, value in named.items() if value}


def test_headers_say_what_a_stream_is_for() -> None:
    assert port_forward.parse_stream(3, headers()) == ForwardStream(DATA, 80, "7")
    assert port_forward.parse_stream(1, headers("error")) == ForwardStream(ERROR, 80, "7")


def test_without_request_ids_neighbours_belong_together() -> None:
    first = port_forward.parse_stream(1, headers("error", request_id=""))
    second = port_forward.parse_stream(3, headers("data", request_id=""))
    assert first.request_id == second.request_id
    other = port_forward.parse_stream(5, headers("error", request_id=""))
    assert other.request_id != first.request_id


def test_a_guess_never_meets_a_request_id_of_the_same_digits() -> None:
    assert port_forward.parse_stream(1, headers("error", request_id="")).request_id != "1"


@pytest.mark.parametrize(
    ("given_headers", "message"),
    [
        (headers(port=""), '"port" header is required'),
        (headers(port="0"), 'port "0" must be > 0'),
        (headers(port="http"), 'unable to parse "http" as a port'),
        (headers(kind=""), '"streamtype" header is required'),
        (headers(kind="stdin"), 'invalid stream type "stdin"'),
        ({}, '"port" header is required'),
    ],
)
def test_streams_that_do_not_say_what_they_are_for_are_refused(
    given_headers: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        port_forward.parse_stream(1, given_headers)
    assert str(caught.value) == message


# --- pairs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_first", [False, True])
def test_two_streams_of_a_request_make_a_pair_and_the_data_streams_port_counts(data_first: bool) -> None:
    table = PairTable[str]()
    streams = [(ForwardStream(ERROR, 1, "a"), "error"), (ForwardStream(DATA, 80, "a"), "data")]
    if data_first:
        streams.reverse()
    assert table.add(*streams[0]) is None
    assert len(table) == 1
    assert table.add(*streams[1]) == Pair(80, "data", "error")
    assert len(table) == 0


def test_a_request_cannot_have_a_stream_twice() -> None:
    table = PairTable[str]()
    table.add(ForwardStream(ERROR, 80, "a"), "first")
    with pytest.raises(ValueError, match="error stream already assigned"):
        table.add(ForwardStream(ERROR, 80, "a"), "second")
    assert table.add(ForwardStream(DATA, 80, "a"), "data") == Pair(80, "data", "first")


def test_the_id_of_a_complete_pair_may_be_used_again() -> None:
    table = PairTable[int]()
    for round_trip in range(3):
        assert table.add(ForwardStream(ERROR, 80, "a"), round_trip) is None
        assert table.add(ForwardStream(DATA, 80, "a"), -round_trip) == Pair(80, -round_trip, round_trip)


def test_a_stream_that_waited_too_long_is_given_up_once() -> None:
    table = PairTable[object]()
    mine, later = object(), object()
    table.add(ForwardStream(ERROR, 80, "a"), mine)
    assert not table.give_up("a", later)
    assert table.give_up("a", mine)
    assert not table.give_up("a", mine)
    assert table.add(ForwardStream(DATA, 80, "a"), later) is None


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from(StreamKind)), unique=True))
def test_in_any_order_pairs_are_made_of_what_belongs_together(opened: list[tuple[int, StreamKind]]) -> None:
    table = PairTable[tuple[int, StreamKind]]()
    pairs = []
    for request, kind in opened:
        pair = table.add(ForwardStream(kind, request + 1, str(request)), (request, kind))
        if pair is not None:
            pairs.append(pair)
    both = {request for request, _ in opened if {(request, DATA), (request, ERROR)} <= set(opened)}
    assert {pair.port - 1 for pair in pairs} == both
    assert all(pair == Pair(r + 1, (r, DATA), (r, ERROR)) for pair in pairs for r in [pair.port - 1])
    assert len(table) == len(opened) - 2 * len(both)


@given(st.integers(1, 999), st.dictionaries(st.sampled_from(["port", "streamtype", "requestid"]), st.text()))
def test_any_headers_give_a_stream_or_a_documented_error(stream_id: int, some: dict[str, str]) -> None:
    try:
        stream = port_forward.parse_stream(stream_id, some)
    except ValueError:
        return
    assert 1 <= stream.port <= 65535
