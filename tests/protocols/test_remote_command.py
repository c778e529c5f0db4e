"""Versions, streams, terminal sizes and statuses of exec and attach."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict

from vkubelet.protocols.remote_command import (
    SPDY_VERSIONS,
    ExitStatus,
    InternalError,
    RemoteStatus,
    ResizeDecoder,
    StreamOptions,
    StreamType,
    Version,
    encode_status,
    negotiate,
)

ERROR, STDIN, STDOUT, STDERR, RESIZE = StreamType


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        pytest.param(["v4.channel.k8s.io"], Version.V4, id="one"),
        pytest.param(["v5.channel.k8s.io", "v4.channel.k8s.io"], Version.V4, id="client-go, which knows v5"),
        pytest.param(["v2.channel.k8s.io", "v4.channel.k8s.io"], Version.V2, id="the client's order decides"),
        pytest.param(["v9.channel.k8s.io, v3.channel.k8s.io,channel.k8s.io"], Version.V3, id="a list"),
        pytest.param(["channel.k8s.io"], Version.V1, id="the first version has no number"),
        pytest.param(["v9.channel.k8s.io"], None, id="only unknown ones"),
        pytest.param([], None, id="none"),
    ],
)
def test_the_first_offer_that_we_accept_is_taken(offered: list[str], expected: Version | None) -> None:
    assert negotiate(offered, SPDY_VERSIONS) is expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({"output": "1"}, StreamOptions(stdout=True), id="output"),
        pytest.param(
            {"input": "1", "output": "1", "error": "1"},
            StreamOptions(stdin=True, stdout=True, stderr=True),
            id="all three",
        ),
        pytest.param(
            {"output": "1", "error": "1", "tty": "1"},
            StreamOptions(stdout=True, tty=True),
            id="a terminal has no stderr",
        ),
        pytest.param({"output": "1", "error": "true"}, StreamOptions(stdout=True), id="only 1 is yes"),
        pytest.param(
            {"output": "1", "stdin": "1"}, StreamOptions(stdout=True), id="not the API server's names"
        ),
    ],
)
def test_options_are_read_as_the_kubelet_reads_them(query: dict[str, str], expected: StreamOptions) -> None:
    assert StreamOptions.from_query(MultiDict(query)) == expected


@pytest.mark.parametrize(
    "query", [{}, {"tty": "1"}, {"tty": "1", "error": "1"}, {"stdout": "true"}], ids=json.dumps
)
def test_a_request_for_no_stream_is_refused(query: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="you must specify at least 1 of stdin, stdout, stderr"):
        StreamOptions.from_query(query)


@pytest.mark.parametrize(
    ("options", "version", "expected"),
    [
        pytest.param(StreamOptions(stdout=True), Version.V4, {ERROR, STDOUT}, id="output"),
        pytest.param(
            StreamOptions(stdin=True, stdout=True, tty=True),
            Version.V3,
            {ERROR, STDIN, STDOUT, RESIZE},
            id="a terminal",
        ),
        pytest.param(
            StreamOptions(stdin=True, stdout=True, tty=True),
            Version.V2,
            {ERROR, STDIN, STDOUT},
            id="a terminal before v3",
        ),
    ],
)
def test_the_streams_to_wait_for_follow_from_options_and_version(
    options: StreamOptions, version: Version, expected: set[StreamType]
) -> None:
    assert options.expected_streams(version) == expected


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param([b'{"Width":80,"Height":24}\n'], [(80, 24)], id="Go"),
        pytest.param(
            [b'{"Width":80,"Height":24}{"Height":5,"Width":6}'], [(80, 24), (6, 5)], id="no newline"
        ),
        pytest.param([b'{"Wid', b'th":80,', b'"Height":24', b"}"], [(80, 24)], id="in pieces"),
        pytest.param([b'{"width":1,"HEIGHT":2}'], [(1, 2)], id="names in any case"),
        pytest.param([b'{"Width":80}'], [(80, 0)], id="a missing name is 0"),
        pytest.param([b'{"Width":1}nonsense}', b'{"Width":2}'], [(1, 0)], id="ends at nonsense"),
        pytest.param([b'{"Width":65536}{"Width":2}'], [], id="beyond 16 bits"),
        pytest.param([b'{"Width":-1}'], [], id="negative"),
        pytest.param([b'{"Width":true}'], [], id="not a number"),
        pytest.param([b"[1]}"], [], id="not an object"),
        pytest.param([b" " * 2000, b'{"Width":2}'], [], id="too long"),
    ],
)
def test_sizes_are_read_one_after_the_other(chunks: list[bytes], expected: list[tuple[int, int]]) -> None:
    decoder = ResizeDecoder()
    assert [size for chunk in chunks for size in decoder.feed(chunk)] == expected


@given(st.lists(st.binary(max_size=50)))
def test_noise_on_the_resize_stream_raises_nothing(chunks: list[bytes]) -> None:
    decoder = ResizeDecoder()
    for chunk in chunks:
        decoder.feed(chunk)


@pytest.mark.parametrize(
    ("status", "as_json", "as_text"),
    [
        pytest.param(ExitStatus(), {"status": "Success"}, "", id="success"),
        pytest.param(
            ExitStatus(137),
            {
                "status": "Failure",
                "message": "command terminated with non-zero exit code: exit status 137",
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": "137"}]},
            },
            "command terminated with non-zero exit code: exit status 137",
            id="an exit code",
        ),
        pytest.param(
            InternalError("no\udcff"),
            {
                "status": "Failure",
                "message": "Internal error occurred: no?",
                "reason": "InternalError",
                "code": 500,
            },
            "Internal error occurred: no?",
            id="an error, with what UTF-8 cannot hold replaced",
        ),
    ],
)
def test_the_status_is_json_from_v4_and_text_before(
    status: RemoteStatus, as_json: dict[str, object], as_text: str
) -> None:
    assert json.loads(encode_status(status, Version.V4)) == as_json
    assert json.loads(encode_status(status, Version.V5)) == as_json
    assert encode_status(status, Version.V3).decode() == as_text
