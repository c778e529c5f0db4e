"""Parsers, and the files of providers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vkubelet.errors import ConfigurationError
from vkubelet.settings import Taint, load_provider_config
from vkubelet.settings.option import Option, Raw
from vkubelet.settings.parsers import duration_s, labels
from vkubelet.settings.sources import ALL_OPTIONS
from vkubelet.settings.taints import parse_taint, parse_taints


def test_a_providers_file_keeps_yamls_types(here: Path) -> None:
    (here / "p.yaml").write_text("host: unix:///x\nlimit: 3\nflags: [a, true]\n")
    assert load_provider_config(here / "p.yaml") == {"host": "unix:///x", "limit": 3, "flags": ["a", True]}


def test_without_a_file_a_provider_gets_nothing() -> None:
    assert load_provider_config(None) == {}


@pytest.mark.parametrize(
    "content", [b"a: 1\na: 2\n", b"[1]", b"!!python/object:os.system {}", b"\xff\xfe\xfd"]
)
def test_a_wrong_providers_file_is_told(here: Path, content: bytes) -> None:
    (here / "p.yaml").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"^--provider-config: "):
        load_provider_config(here / "p.yaml")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("20", 20.0),
        ("1.5", 1.5),
        ("1m30s", 90.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("+3s", 3.0),
        ("300ms", 0.3),
        ("1h1m1s1ms1us1ns", 3661.001001001),
        ("2µs", 2e-6),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_in_parts_is_their_sum(hours: int, minutes: int, seconds: int, millis: int) -> None:
    expected = hours * 3600 + minutes * 60 + seconds + millis / 1000
    assert duration_s(f"{hours}h{minutes}m{seconds}s{millis}ms") == pytest.approx(expected)


NAME = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True)
PREFIX = st.from_regex(r"[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,3}/", fullmatch=True)
KEY = st.one_of(NAME, st.builds(str.__add__, PREFIX, NAME))
VALUE = st.one_of(st.just(""), NAME)
TAINT = st.builds(Taint, KEY, VALUE, st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"]))


@settings(max_examples=30)
@given(st.dictionaries(KEY, VALUE, max_size=3))
def test_labels_survive_being_written_and_read(pairs: dict[str, str]) -> None:
    assert labels(",".join(f"{key}={value}" for key, value in pairs.items())) == pairs
    assert labels([f"{key}={value}" for key, value in pairs.items()]) == pairs
    assert labels(dict(pairs)) == pairs


@given(TAINT)
def test_a_taint_survives_being_written_and_read(taint: Taint) -> None:
    assert parse_taint(str(taint)) == taint
    assert parse_taint({"key": taint.key, "value": taint.value, "effect": taint.effect}) == taint


@given(st.lists(TAINT, max_size=4, unique_by=lambda taint: (taint.key, taint.effect)))
def test_a_list_of_taints_is_read_in_order(taints: list[Taint]) -> None:
    assert parse_taints(",".join(map(str, taints))) == tuple(taints)


RAW: st.SearchStrategy[Raw] = st.recursive(
    st.text(max_size=30),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("option", ALL_OPTIONS, ids=lambda option: option.name)
@settings(max_examples=25)
@given(raw=RAW)
def test_a_parser_gives_a_value_or_a_sentence_whatever_it_is_fed(option: Option, raw: Raw) -> None:
    try:
        option.parse(raw)
    except ValueError as error:
        sentence = str(error)
    else:
        return
    assert sentence.splitlines() == [sentence]


def test_reading_settings_imports_no_http_library() -> None:
    code = (
        "import sys, vkubelet.cli; heavy = {'aiohttp', 'kubernetes_asyncio', 'cryptography', 'structlog', "
        "'asyncio'}; print(*heavy & sys.modules.keys())"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
