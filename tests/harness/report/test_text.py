"""Numbers and names as the page writes them."""

import math
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.report import text


@pytest.mark.parametrize(
    "write",
    [
        lambda: text.quantity(None, "J"),
        lambda: text.with_interval(None, 1.0, "J"),
        lambda: text.percent(None),
        lambda: text.signed_percent(None, 1.0),
        lambda: text.signed_quantity(None, 1.0, "J"),
        lambda: text.time_with_interval(None, 1.0),
        lambda: text.systematic(None, 1.0),
        lambda: text.systematic(1.0, None),
        lambda: text.count(None),
        lambda: text.time_span(None),
        lambda: text.memory(None),
        lambda: text.yes_no(None),
        lambda: text.plain(None),
        lambda: text.quantity(math.nan, "J"),
        lambda: text.percent(math.inf),
    ],
)
def test_what_is_not_known_is_a_dash(write: Callable[[], str]) -> None:
    assert write() == "–"


def test_an_interval_is_relative_to_the_size_of_a_negative_value() -> None:
    assert text.with_interval(-2.0, 0.5, "J") == "-2 J ± 25 %"


def test_zero_is_shown_as_zero_and_not_as_unknown() -> None:
    assert text.quantity(0.0, "J") == "0 J"
    assert text.with_interval(0.0, 0.1, "J") == "0 J"


@pytest.mark.parametrize(
    ("value", "half_width", "words"),
    [(1e-9, 2.0, "+1 nJ ± 2 J"), (-1.5, 0.5, "−1.5 J ± 500 mJ"), (0.0, 0.0, "+0 J ± 0 J")],
)
def test_a_difference_keeps_its_sign_and_its_interval_its_unit(value: float, half_width: float, words: str) -> None:
    assert text.signed_quantity(value, half_width, "J") == words


@pytest.mark.parametrize(("share", "words"), [(1e-4, "0.01 %"), (1e-5, "0.001 %"), (9e-6, "< 0.001 %"), (0.0, "0 %")])
def test_a_share_too_small_to_know_is_not_given_digits(share: float, words: str) -> None:
    assert text.percent(share) == words


@given(st.text())
def test_text_of_the_dataset_becomes_one_line_without_control_characters(raw: str) -> None:
    shown = text.plain(raw)

    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs"}
    assert len(shown.splitlines()) <= 1
    assert shown == shown.strip()


@given(st.text(), st.integers(min_value=1, max_value=80))
def test_short_text_is_never_longer_than_asked(raw: str, length: int) -> None:
    assert len(text.short(raw, length)) <= length


@given(st.text())
def test_any_text_is_accepted_as_a_time_and_as_a_model(raw: str) -> None:
    text.moment(raw)
    assert text.model_name(raw)
