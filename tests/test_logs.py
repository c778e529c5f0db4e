"""Lines of the log: their form, what is left out, and that nothing stops when they cannot be written."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.logs import LineWriter, configure_logging, get_logger, scrub


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Leave the process's logging as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


class Terminal(io.TextIOWrapper):
    """A stream in memory that says whether it is a terminal."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        self.written = io.BytesIO()
        self.is_terminal = is_terminal
        super().__init__(self.written, encoding="utf-8")

    def isatty(self) -> bool:
        return self.is_terminal

    def text(self) -> str:
        return self.written.getvalue().decode()

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().split("\n")[:-1]]


@pytest.fixture
def stream() -> Terminal:
    return Terminal()


def test_a_line_is_one_json_object_that_starts_with_time_level_and_event(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    get_logger("pod_controller").info("pod created", duration_s=0.25, attempt=1)
    (line,) = stream.objects()
    assert list(line) == ["timestamp", "level", "event", "component", "duration_s", "attempt"]
    assert line["event"] == "pod created"
    assert line["level"] == "info"
    assert line["timestamp"].endswith("Z")


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_only_what_matters_enough_is_written(
    stream: Terminal, level: Literal["debug", "info", "warning", "error"], expected: list[str]
) -> None:
    configure_logging(level, "json", stream)
    log = get_logger("x")
    log.debug("a")
    log.info("a")
    log.warning("a")
    log.error("a")
    logging.getLogger("some.library").debug("a")
    assert [line["level"] for line in stream.objects() if line["component"] == "x"] == expected


def test_auto_is_json_for_machines_and_text_for_people(stream: Terminal) -> None:
    configure_logging("info", "auto", stream)
    get_logger("x").info("to a file")
    assert stream.objects()[0]["event"] == "to a file"

    terminal = Terminal(is_terminal=True)
    configure_logging("info", "auto", terminal)
    get_logger("x").info("to a person", pod="web-1")
    assert "to a person" in terminal.text()
    assert "\x1b[" in terminal.text()


def test_console_lines_have_no_colours_off_a_terminal(stream: Terminal) -> None:
    configure_logging("info", "console", stream)
    get_logger("x").info("plain", pod="web-1")
    assert "\x1b[" not in stream.text()
    assert "pod=web-1" in stream.text()


def test_what_a_worker_binds_is_in_every_line(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    with structlog.contextvars.bound_contextvars(
        pod="web-1", namespace="default", uid="u1", operation="sync"
    ):
        get_logger("docker").info("image pulled")
        logging.getLogger("aiohttp.client").warning("slow")
    get_logger("docker").info("idle")
    pulled, slow, idle = stream.objects()
    bound = {"pod": "web-1", "namespace": "default", "uid": "u1", "operation": "sync"}
    assert bound.items() <= pulled.items()
    assert bound.items() <= slow.items()
    assert "pod" not in idle


def test_the_standard_librarys_loggers_speak_through_the_same_stream(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    logging.getLogger("aiohttp.server").error("cannot %s", "serve")
    logging.getLogger("x").log(25, "in between")
    logging.getLogger("x").log(99, "above all")
    serve, between, above = stream.objects()
    assert (serve["event"], serve["level"], serve["component"]) == ("cannot serve", "error", "aiohttp.server")
    assert between["level"] == "info"
    assert above["level"] == "critical"


def test_a_record_whose_arguments_do_not_fit_is_written_all_the_same(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    logging.getLogger("x").warning("%d pods", "many")
    assert "many" in stream.objects()[0]["event"]


def test_text_with_percent_signs_is_no_format(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    logging.getLogger("x").warning("100% full")
    get_logger("x").warning("100% full")
    assert [line["event"] for line in stream.objects()] == ["100% full", "100% full"]


def test_requests_are_told_only_when_debugging(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    logging.getLogger("aiohttp.access").info("GET /healthz")
    assert stream.text() == ""
    configure_logging("debug", "json", stream)
    logging.getLogger("aiohttp.access").info("GET /healthz")
    assert len(stream.objects()) == 1


def test_warnings_are_lines_too(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    assert "old" in stream.objects()[0]["event"]
    assert stream.objects()[0]["component"] == "py.warnings"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_has_no_local_variables(stream: Terminal, log_format: Literal["json", "console"]) -> None:
    configure_logging("info", log_format, stream)
    secret = "hunter" + "2"
    try:
        len(secret) / 0
    except ZeroDivisionError:
        get_logger("x").exception("failed")
    assert "ZeroDivisionError" in stream.text()
    assert "hunter2" not in stream.text()


# --- secrets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "password",
        "Authorization",
        "secret",
        "client_secret",
        "id_token",
        "X-Registry-Authorization",
        "client-key-data",
        "private_key",
        "storage_account_key",
        "env",
        "credentials",
        "cookie",
    ],
)
def test_what_is_filed_under_a_tell_tale_key_is_left_out(stream: Terminal, key: str) -> None:
    configure_logging("info", "json", stream)
    get_logger("x").info("oops", **{key: "hunter2"}, request={"headers": [{key: "hunter2"}]})
    assert "hunter2" not in stream.text()
    assert stream.objects()[0][key] == "[redacted]"


@pytest.mark.parametrize("key", ["key", "pod", "secret_name", "token_count", "environment_name", "monkey"])
def test_harmless_keys_are_written(stream: Terminal, key: str) -> None:
    configure_logging("info", "json", stream)
    get_logger("x").info("fine", **{key: "value"})
    assert stream.objects()[0][key] == "value"


def test_bearer_tokens_are_cut_out_of_any_text(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    try:
        raise ValueError("401 for 'Authorization: Bearer ey.J0-x_y/z=' at /api")
    except ValueError as error:
        get_logger("x").exception("failed", error=str(error))
    logging.getLogger("y").warning("sent authorization: bearer ey.J0-x_y/z=, got 401")
    assert "ey.J0" not in stream.text()
    assert "at /api" in stream.text()
    assert "got 401" in stream.text()


def test_a_sentence_about_bearer_tokens_is_left_alone(stream: Terminal) -> None:
    configure_logging("info", "json", stream)
    get_logger("x").info("refused", reason="invalid bearer token")
    assert "invalid bearer token" in stream.text()


def test_the_callers_values_are_not_changed_by_scrubbing() -> None:
    headers = {"Authorization": "Bearer x"}
    event = scrub(None, "info", {"event": "e", "headers": headers})
    assert event["headers"] == {"Authorization": "[redacted]"}
    assert headers == {"Authorization": "Bearer x"}


# --- nothing stops ----------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int
    token: str


def circular() -> dict[str, Any]:
    ring: dict[str, Any] = {}
    ring["ring"] = ring
    return ring


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1: 2},
        {(1, 2): 3},
        2**70,
        "\ud800",
        b"\xff",
        float("nan"),
        {1, 2},
        Point(1, "t"),
        circular(),
    ],
    ids=[
        "object",
        "int-key",
        "tuple-key",
        "big",
        "surrogate",
        "bytes",
        "nan",
        "set",
        "dataclass",
        "circular",
    ],
)
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_any_value_can_be_logged(
    stream: Terminal, value: object, log_format: Literal["json", "console"]
) -> None:
    configure_logging("info", log_format, stream)
    get_logger("x").info("odd", value=value)
    assert "odd" in stream.text()
    assert len(stream.text().splitlines()) == 1


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.text(max_size=10)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(JSON)
def test_a_line_is_always_one_line(value: object) -> None:
    stream = Terminal()
    configure_logging("info", "json", stream)
    get_logger("x").info("any", value=value)
    assert stream.written.getvalue().count(b"\n") == 1
    assert stream.objects()[0]["event"] == "any"


class FullDisk(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(28, "No space left on device")


def closed() -> io.BytesIO:
    stream = io.BytesIO()
    stream.close()
    return stream


@pytest.mark.parametrize("broken", [FullDisk, closed], ids=["full-disk", "closed"])
def test_a_line_that_cannot_be_written_is_dropped_and_counted(broken: Callable[[], io.BytesIO]) -> None:
    writer = LineWriter(broken())
    writer.msg(b"one")
    writer.msg(b"two")
    assert writer.dropped == 2
