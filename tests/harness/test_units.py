"""Quantities as people read them, and time spans as people write them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 J"),
        (1.0, "1 J"),
        (999.7, "1 kJ"),
        (0.99996, "1 J"),
        (-0.00125, "-1.25 mJ"),
        (3.6e6, "3.6 MJ"),
        (2e-9, "2 nJ"),
    ],
)
def test_a_quantity_is_written_with_the_prefix_that_fits(value: float, text: str) -> None:
    assert units.si(value, "J") == text


@given(st.floats(min_value=1e-9, max_value=1e17))
def test_no_quantity_of_everyday_size_is_written_with_an_exponent(value: float) -> None:
    assert "e" not in units.si(value, "J")


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("5min", 300.0), ("1.5h", 5400.0)])
def test_time_spans_are_read(text: str, seconds: float) -> None:
    assert units.parse_duration_s(text) == seconds


@given(st.text(max_size=20))
def test_anything_is_a_time_span_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert units.parse_duration_s(text) >= 0


def test_what_is_no_time_span_is_told_how_to_write_one() -> None:
    with pytest.raises(ValueError, match="90s, 5min"):
        units.parse_duration_s("soon")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12.3 ms"), (59.0, "59 s"), (75, "1 min 15 s"), (7260, "2 h 1 min")]
)
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert units.duration(seconds) == text
