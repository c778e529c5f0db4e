from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vkubelet.model import quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", Fraction(0)),
        ("1", Fraction(1)),
        ("+1", Fraction(1)),
        ("-1", Fraction(-1)),
        ("001", Fraction(1)),
        ("100m", Fraction(1, 10)),
        ("1.5", Fraction(3, 2)),
        ("1.", Fraction(1)),
        (".5", Fraction(1, 2)),
        ("1u", Fraction(1, 10**6)),
        ("1n", Fraction(1, 10**9)),
        ("0.1n", Fraction(1, 10**9)),
        ("-0.1n", Fraction(-1, 10**9)),
        ("1k", Fraction(1000)),
        ("1M", Fraction(10**6)),
        ("1G", Fraction(10**9)),
        ("1T", Fraction(10**12)),
        ("1P", Fraction(10**15)),
        ("1E", Fraction(10**18)),
        ("1Ki", Fraction(2**10)),
        ("1.5Gi", Fraction(3 * 2**29)),
        ("1Ei", Fraction(2**60)),
        ("100Ei", Fraction(2**63 - 1)),
        ("2e3", Fraction(2000)),
        ("2E3", Fraction(2000)),
        ("2E-3", Fraction(1, 500)),
    ],
)
def test_every_notation_of_a_quantity_is_read_exactly(text: str, value: Fraction) -> None:
    assert quantity.parse(text) == value


@pytest.mark.parametrize(
    "text", ["", ".", "m", "1 Gi", "1Gb", "1e", "0x10", "1i", "--1", "1mm", "½", "1e99999"]
)
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity") as raised:
        quantity.parse(text)
    assert repr(text) in str(raised.value)


@pytest.mark.parametrize(
    ("text", "millicores", "whole"),
    [("100m", 100, 1), ("0.1", 100, 1), ("1.0001", 1001, 2), ("2", 2000, 2), ("1n", 1, 1), ("0", 0, 0)],
)
def test_parts_are_rounded_up(text: str, millicores: int, whole: int) -> None:
    assert quantity.millicores(text) == millicores
    assert quantity.bytes_(text) == whole


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1000Ki", "1000Ki"),
        ("0.3Ki", "307200m"),
        ("1000000", "1M"),
        ("1234", "1234"),
        ("12e3", "12e3"),
        ("1e2", "100"),
        ("1e-2", "10e-3"),
        ("00", "0"),
        ("0Gi", "0"),
        ("5000E", "5000E"),
        ("-2048Ki", "-2Mi"),
    ],
)
def test_the_canonical_form_is_the_api_servers(text: str, canonical: str) -> None:
    assert quantity.canonical(text) == canonical


def test_a_value_finer_than_a_nano_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="finer than a nano"):
        quantity.format_quantity(Fraction(1, 10**10))


suffixes = st.sampled_from(["", *"numkMGTPE", "Ki", "Mi", "Gi", "Ti", "Pi", "e3", "E-6"])
quantities = st.builds(
    lambda sign, whole, part, suffix: f"{sign}{whole}{part}{suffix}",
    st.sampled_from(["", "-", "+"]),
    st.integers(0, 2000),
    st.sampled_from(["", ".", ".5", ".125", ".001"]),
    suffixes,
)


@given(quantities)
def test_the_canonical_form_has_the_same_value(text: str) -> None:
    canonical = quantity.canonical(text)

    assert quantity.parse(canonical) == quantity.parse(text)


@given(st.integers(-(10**24), 10**24), st.sampled_from(["DecimalSI", "DecimalExponent"]))
def test_what_is_written_is_read_back(nanos: int, style: quantity.Format) -> None:
    value = Fraction(nanos, 10**9)

    assert quantity.parse(quantity.format_quantity(value, style)) == value


@given(st.text(max_size=8))
def test_any_text_is_a_quantity_or_a_value_error(text: str) -> None:
    try:
        quantity.parse(text)
    except ValueError:
        return
