from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders import START, moment
from vkubelet.errors import StreamError
from vkubelet.provider import LogOptions
from vkubelet.server.log_options import check_stream, parse_log_options

NAMES = (
    "follow",
    "previous",
    "timestamps",
    "tail",
    "tailLines",
    "limitBytes",
    "sinceSeconds",
    "sinceTime",
    "stream",
)


def test_no_query_asks_for_all_that_is_there() -> None:
    assert parse_log_options({}, START) == LogOptions()


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"follow": "true", "previous": "1", "timestamps": ""}, LogOptions(True, True, True)),
        ({"follow": "false", "previous": "0", "timestamps": "False"}, LogOptions()),
        ({"follow": "no"}, LogOptions(follow=True)),
        ({"tailLines": "0"}, LogOptions(tail_lines=0)),
        ({"tailLines": "+5"}, LogOptions(tail_lines=5)),
        ({"tail": "7", "tailLines": "5"}, LogOptions(tail_lines=7)),
        ({"tail": "all", "tailLines": "5"}, LogOptions()),
        ({"tail": ""}, LogOptions()),
        ({"limitBytes": "1"}, LogOptions(limit_bytes=1)),
        ({"sinceSeconds": "90"}, LogOptions(since=moment(-90))),
        ({"sinceTime": "2026-01-01T02:00:01+02:00"}, LogOptions(since=moment(1))),
        ({"sinceTime": "2026-01-01T00:00:01.123456789Z"}, LogOptions(since=moment(1.123456))),
        ({"sinceTime": ""}, LogOptions()),
        ({"sinceTime": "null"}, LogOptions()),
        ({"stream": "All"}, LogOptions()),
        ({"unknown": "x"}, LogOptions()),
    ],
    ids=str,
)
def test_the_query_is_read_as_the_kubelet_reads_it(query: dict[str, str], expected: LogOptions) -> None:
    assert parse_log_options(query, START) == expected


def test_a_time_before_all_times_is_the_first_one() -> None:
    since = parse_log_options({"sinceSeconds": str(2**63 - 1)}, START).since
    assert since == datetime.datetime.min.replace(tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "many"},
        {"tailLines": ""},
        {"tailLines": "1_0"},
        {"tailLines": " 1"},
        {"tailLines": "٣"},
        {"tailLines": str(2**63)},
        {"tail": "some"},
        {"limitBytes": "1.5"},
        {"sinceSeconds": "1m"},
        {"sinceTime": "yesterday"},
        {"sinceTime": "2026-01-01"},
        {"sinceTime": "2026-13-01T00:00:00Z"},
        {"sinceTime": "2026-01-01T00:00:00"},
    ],
    ids=str,
)
def test_what_cannot_be_decoded_is_a_bad_request(query: dict[str, str]) -> None:
    with pytest.raises(StreamError, match="Unable to decode query") as caught:
        parse_log_options(query, START)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "query",
    [
        {"tailLines": "-1"},
        {"limitBytes": "0"},
        {"sinceSeconds": "0"},
        {"sinceSeconds": "1", "sinceTime": "2026-01-01T00:00:00Z"},
        {"stream": "Both"},
        {"stream": "Stdout", "tailLines": "1"},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_unprocessable(query: dict[str, str]) -> None:
    with pytest.raises(StreamError, match="Invalid request") as caught:
        parse_log_options(query, START)
    assert caught.value.status == 422


@pytest.mark.parametrize("stream", ["Stdout", "Stderr"])
def test_one_stream_alone_is_refused_by_name(stream: str) -> None:
    assert parse_log_options({"stream": stream}, START) == LogOptions()
    with pytest.raises(StreamError, match=f'given log stream: "{stream}"') as caught:
        check_stream({"stream": stream})
    assert caught.value.status == 400


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.one_of(
            st.text(max_size=30),
            st.integers().map(str),
            st.datetimes(timezones=st.timezones()).map(datetime.datetime.isoformat),
        ),
    )
)
def test_any_query_is_options_or_a_documented_refusal(query: dict[str, str]) -> None:
    try:
        options = parse_log_options(query, START)
    except StreamError as refusal:
        options, status = LogOptions(), refusal.status
    else:
        status = 200
    assert status in (200, 400, 422)
    assert options.tail_lines is None or options.tail_lines >= 0
    assert options.limit_bytes is None or options.limit_bytes >= 1
