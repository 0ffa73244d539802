"""How intervals go through sums and products, and what stopping at a good-looking interval costs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measuring.statistics import Mean, Trial, line_at, mean_from, mean_of, total_of

HALVES = st.floats(0, 10)
MEANS = st.builds(
    lambda value, repeat, systematic, common: mean_from(
        value, repeat95=repeat, samples=5, systematic95=systematic, common95=common
    ),
    st.floats(1, 100),
    HALVES,
    HALVES,
    HALVES,
)
TEN = mean_from(10.0, repeat95=0.3, samples=5, systematic95=0.5, common95=0.2)
FOUR = mean_from(4.0, repeat95=0.4, samples=3, systematic95=0.2, common95=0.1)


@given(MEANS)
def test_the_parts_of_an_interval_add_in_quadrature(mean: Mean) -> None:
    assert mean.ci95 == pytest.approx(math.hypot(mean.repeat95 or 0.0, mean.systematic95, mean.common95))
    assert mean.relative == pytest.approx((mean.repeat95 or 0.0) / mean.value)


@given(MEANS, st.floats(-20, 20))
def test_a_factor_is_in_every_part_of_the_interval(mean: Mean, factor: float) -> None:
    found = mean.times(factor)
    assert found.value == pytest.approx(mean.value * factor)
    assert found.systematic95 == pytest.approx(mean.systematic95 * abs(factor))
    assert found.common95 == pytest.approx(mean.common95 * abs(factor))
    assert found.repeat95 == pytest.approx((mean.repeat95 or 0.0) * abs(factor), abs=1e-5)


def test_repeats_add_in_quadrature_and_what_the_meter_gets_wrong_adds_up() -> None:
    found = TEN.plus(FOUR, weight=2.0)
    assert found.value == 18
    assert found.repeat95 == pytest.approx(math.hypot(0.3, 0.8))
    assert (found.systematic95, found.common95) == pytest.approx((0.9, 0.4))
    assert found.samples == 3


def test_in_a_difference_what_the_meter_gets_wrong_cancels() -> None:
    found = TEN.plus(TEN, weight=-1.0)
    assert found.value == 0
    assert (found.systematic95, found.common95) == (0.0, 0.0)
    assert found.ci95 == pytest.approx(math.hypot(0.3, 0.3))


def test_a_known_amount_less_leaves_the_interval_alone() -> None:
    found = TEN.less(7.0)
    assert found.value == 3
    assert (found.ci95, found.systematic95, found.common95) == pytest.approx((TEN.ci95, 0.5, 0.2))


def test_a_further_systematic_part_is_independent_of_the_others() -> None:
    found = TEN.with_systematic(1.2)
    assert found.systematic95 == pytest.approx(1.3)
    assert found.repeat95 == pytest.approx(0.3)
    assert found.ci95 == pytest.approx(math.hypot(0.3, 0.2, 1.3))


def test_a_sum_with_a_term_of_unknown_spread_has_no_interval() -> None:
    once = mean_of([Trial(value=3.0)]).with_systematic(0.1)
    assert once.ci95 is None
    assert TEN.plus(once).ci95 is None
    assert TEN.plus(once).value == 13
    assert total_of([TEN, once]).ci95 is None


def test_a_sum_of_many_is_that_of_one_after_the_other() -> None:
    found, expected = total_of([TEN, FOUR, TEN]), TEN.plus(FOUR).plus(TEN)
    assert found == expected
    assert found.repeat95 == pytest.approx(math.hypot(0.3, 0.4, 0.3))
    assert (found.systematic95, found.common95) == pytest.approx((1.2, 0.5))


def test_the_sum_of_nothing_is_nothing() -> None:
    assert total_of([]) == mean_from(0.0, repeat95=0.0, samples=0)


def test_a_gain_moves_sums_of_one_meter_as_far_as_stated() -> None:
    """Each term off by a gain of 1.05: the sum is off by as much as the systematic parts of its terms add up to."""
    terms = [mean_from(value, repeat95=0.0, samples=5, systematic95=0.05 * value) for value in (3.0, 8.0, 5.0)]
    found = terms[0].plus(terms[1], weight=2.0).plus(terms[2], weight=-1.0)
    assert found.ci95 == pytest.approx(0.05 * found.value)


def test_means_of_more_trials_than_planned_are_wider_and_others_are_not() -> None:
    values = [Trial(value=at**2, at=at) for at in (1.0, 2.0, 3.5, 4.0)]
    plain, line = mean_of(values).ci95, line_at(values, 2.0).ci95
    assert plain is not None
    assert line is not None
    assert (mean_of(values, planned=4).ci95, line_at(values, 2.0, planned=4).ci95) == (plain, line)
    assert mean_of(values, planned=3).ci95 == pytest.approx(1.15 * plain)
    assert line_at(values, 2.0, planned=3).ci95 == pytest.approx(1.15 * line)


def stopped(spread: float, *, planned: int | None, sessions: int = 1500) -> float:
    """How often the interval holds the truth if trials go on from 5 to 20 until it is 2 % of the mean."""
    rng = np.random.default_rng(11)
    held = 0
    for values in rng.normal(1.0, spread, (sessions, 20)):
        for count in range(5, 21):
            mean = mean_of([Trial(value=float(value)) for value in values[:count]], planned=planned)
            if mean.relative <= 0.02:
                break
        held += abs(mean.value - 1.0) <= (mean.ci95 or 0.0)
    return held / sessions


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.035])
def test_an_interval_at_which_one_stopped_still_holds_the_truth_nineteen_times_in_twenty(spread: float) -> None:
    assert 0.93 <= stopped(spread, planned=5) <= 0.97


def test_without_widening_it_would_not() -> None:
    assert stopped(0.035, planned=None) < 0.93
