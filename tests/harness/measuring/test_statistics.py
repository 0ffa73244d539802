import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.measuring.statistics import Mean, Trial, line_at, mean_of, student_t

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12)
FACTORS = st.floats(-50, 50).filter(lambda factor: abs(factor) > 1e-3)
POINTS = st.lists(st.tuples(st.integers(0, 1000), st.floats(-1e3, 1e3)), min_size=3, max_size=12).filter(
    lambda points: len({at for at, _ in points}) > 1
)


def trials(values: list[float], **halves: float) -> list[Trial]:
    return [Trial(value=value, **halves) for value in values]


def near(value: float, scale: float) -> object:
    return pytest.approx(value, rel=1e-9, abs=1e-9 * scale)


@pytest.mark.parametrize(("degrees", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (19, 2.093)])
def test_students_t_is_that_of_the_tables(degrees: int, quantile: float) -> None:
    assert student_t(degrees) == pytest.approx(quantile, abs=5e-4)


def test_a_mean_and_its_interval_are_scipys() -> None:
    values = [10.1, 9.8, 10.4, 10.0, 9.9]
    low, high = stats.t.interval(0.95, df=4, loc=np.mean(values), scale=stats.sem(values))

    mean = mean_of(trials(values))

    assert mean.value == pytest.approx(10.04)
    assert mean.ci95 == pytest.approx((high - low) / 2)
    assert mean.samples == 5


def test_what_all_readings_get_wrong_alike_is_not_averaged_out() -> None:
    mean = mean_of(trials([5.0] * 100, common95=0.3))
    assert (mean.ci95, mean.common95, mean.repeat95) == pytest.approx((0.3, 0.3, 0.0))


def test_what_is_random_in_the_readings_averages_out() -> None:
    mean = mean_of(trials([5.0] * 100, random95=0.3))
    assert (mean.ci95, mean.common95) == pytest.approx((0.03, 0.0))


def test_a_mean_is_as_wide_as_its_spread_or_its_readings_whichever_is_wider() -> None:
    spread = mean_of(trials([1.0, 2.0, 3.0])).ci95
    assert spread == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert mean_of(trials([1.0, 2.0, 3.0], random95=0.5)).ci95 == pytest.approx(spread)
    assert mean_of(trials([1.0, 2.0, 3.0], random95=9.0)).ci95 == pytest.approx(9 / 3**0.5)


def test_spread_and_what_all_readings_get_wrong_add_in_quadrature() -> None:
    spread = mean_of(trials([1.0, 2.0, 3.0])).ci95
    assert spread is not None
    mean = mean_of(trials([1.0, 2.0, 3.0], common95=0.7))
    assert mean.ci95 == pytest.approx(math.hypot(spread, 0.7))
    assert mean.repeat95 == pytest.approx(spread)


def test_the_interval_of_one_sample_is_not_known() -> None:
    mean = mean_of(trials([4.2], random95=0.1, common95=0.1))
    assert mean == Mean(value=4.2, ci95=None, samples=1)
    assert mean.relative == math.inf


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        mean_of([])


def test_a_relative_half_width_has_no_sign_and_is_infinite_around_zero() -> None:
    assert Mean(value=-4.0, ci95=1.0, samples=3).relative == 0.25
    assert Mean(value=0.0, ci95=1.0, samples=3).relative == math.inf


@given(VALUES, FACTORS, st.floats(-1e3, 1e3))
def test_a_mean_scales_and_shifts_with_its_values(values: list[float], factor: float, shift: float) -> None:
    mean = mean_of(trials(values))
    moved = mean_of(trials([value * factor + shift for value in values]))
    scaled = mean.times(factor)

    assert mean.ci95 is not None
    assert moved.ci95 is not None
    assert scaled.ci95 is not None
    assert moved.value == near(scaled.value + shift, 1e5)
    assert moved.ci95 == near(scaled.ci95, 1e6)
    assert scaled.ci95 >= 0


def test_an_interval_of_the_mean_holds_the_truth_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(2000):
        mean = mean_of(trials(list(rng.normal(7.0, 1.0, 5))))
        assert mean.ci95 is not None
        held += abs(mean.value - 7.0) <= mean.ci95
    assert 0.935 <= held / 2000 <= 0.965


def mean_response(points: list[tuple[int, float]], at: float) -> tuple[float, float]:
    """Value and half width from the normal equations: x' (X'X)^-1 x."""
    x = np.array([[1.0, place] for place, _ in points])
    y = np.array([value for _, value in points])
    beta, *_ = np.linalg.lstsq(x, y, rcond=None)
    residual = y - x @ beta
    degrees = len(points) - 2
    variance = residual @ residual / degrees
    here = np.array([1.0, at])
    width = stats.t.ppf(0.975, degrees) * math.sqrt(variance * here @ np.linalg.inv(x.T @ x) @ here)
    return float(here @ beta), float(width)


@given(POINTS, st.floats(0, 1000))
def test_a_lines_mean_response_is_that_of_the_normal_equations(points: list[tuple[int, float]], at: float) -> None:
    line = line_at([Trial(value=value, at=place) for place, value in points], at)
    value, width = mean_response(points, at)
    assert line.value == pytest.approx(value, rel=1e-6, abs=1e-5)
    assert line.ci95 == pytest.approx(width, rel=1e-5, abs=1e-5)


def test_a_line_through_exact_points_is_read_exactly() -> None:
    line = line_at([Trial(value=3 + 0.5 * at, at=at) for at in (100, 150, 200)], 170)
    assert line.value == pytest.approx(88.0)
    assert line.ci95 == pytest.approx(0.0, abs=1e-9)


def test_an_offset_of_all_readings_is_an_offset_of_the_line() -> None:
    points = [Trial(value=3 + 0.5 * at, common95=0.2, at=at) for at in (100, 150, 200)]
    for at in (100, 150, 260):
        assert line_at(points, at).ci95 == pytest.approx(0.2)


def test_what_is_random_in_the_readings_of_a_line_counts_by_their_weight() -> None:
    points = [Trial(value=3 + 0.5 * at, random95=0.3, at=at) for at in (100, 150, 200)]
    assert line_at(points, 150).ci95 == pytest.approx(0.3 / 3**0.5)
    # At an end the weights are 5/6, 1/3 and −1/6.
    assert line_at(points, 100).ci95 == pytest.approx(0.3 * (25 / 36 + 1 / 9 + 1 / 36) ** 0.5)


@pytest.mark.parametrize(
    "few", [lambda: [Trial(value=1, at=1), Trial(value=2, at=2)], lambda: [Trial(value=1, at=5)] * 4]
)
def test_a_line_needs_three_trials_at_two_places(few: Callable[[], list[Trial]]) -> None:
    with pytest.raises(ValueError, match="three trials at two different places"):
        line_at(few(), 1.0)
