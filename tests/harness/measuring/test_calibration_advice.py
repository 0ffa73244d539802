"""How long windows must be and how many: worked out by hand, and never less than the protocol's own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.measuring.calibration_advice import Facts, advice, half_width
from harness.measuring.protocol import STANDARD

GOOD = Facts(
    period_s=0.1,
    read_s=1e-4,
    edge_share=1.0,
    noise_w=2.0,
    idle_w=100.0,
    load_w=600.0,
    tail_share=0.02,
    aliasing=None,
)


def facts(**changes: float | None) -> Facts:
    values = {name: getattr(GOOD, name) for name in Facts.__dataclass_fields__}
    return Facts(**values | changes)


def test_a_good_counter_leaves_the_protocol_as_it_is() -> None:
    found = advice([GOOD], STANDARD)

    assert found.window_s == 5.0
    assert found.kernel_window_share == 0.5
    assert (found.trials_min, found.trials_max) == (5, 20)
    assert found.idle_s == 10.0


def test_a_period_that_is_measured_as_a_hair_more_changes_nothing() -> None:
    assert advice([facts(period_s=0.10003)], STANDARD).window_s == 5.0
    assert advice([facts(period_s=0.20003)], STANDARD).idle_s == 10.0


def test_nothing_measured_leaves_the_protocol_as_it_is() -> None:
    assert advice([Facts()], STANDARD).window_s == 5.0
    assert advice([], STANDARD).trials_min == 5
    assert half_width(Facts(), 5.0) is None


def test_a_slow_counter_wants_fifty_of_its_periods() -> None:
    found = advice([GOOD, facts(period_s=0.3)], STANDARD)

    assert found.window_s == 15.0
    assert found.idle_s == 15.0
    assert "50 periods" in found.reasons[0]


def test_a_counter_that_hides_three_quarters_of_its_edges_wants_longer_windows() -> None:
    # 1.96 √2 ½ · 0.75 · 1,900 W · 0.4 s = 790 J, of which ½ · 2 % · √5 · 2,000 W = 44.7 W may be wrong.
    found = advice([facts(period_s=0.4, edge_share=0.25, load_w=2000.0)], STANDARD)
    hidden_j = 1.96 * 2**0.5 * 0.5 * 0.75 * 1900.0 * 0.4

    assert found.window_s == 20.0  # 50 periods, longer than what its edges want:
    assert hidden_j / (0.5 * 0.02 * 5**0.5 * 2000.0) == pytest.approx(17.7, rel=0.01)


def test_power_that_lingers_wants_longer_windows() -> None:
    # 0.9 · 500 W · 0.1 s = 45 J, in each trial alike: 45 J / (½ · 2 % · 600 W) = 7.5 s.
    found = advice([facts(tail_share=0.9)], STANDARD)

    assert found.window_s == 7.5
    assert "lingers" in found.reasons[0]


def test_noise_wants_longer_windows_by_its_square() -> None:
    # (1.96 · 150 W / (½ · 2 % · √5 · 600 W))² · 0.1 s = 48 s
    found = advice([facts(noise_w=150.0)], STANDARD)

    assert found.window_s == pytest.approx((1.96 * 150 / (0.01 * 5**0.5 * 600)) ** 2 * 0.1, rel=0.03)
    assert found.trials_min > 5  # t(4) is larger than 1.96


def test_a_counter_that_aliases_wants_a_trial_at_each_phase() -> None:
    found = advice([facts(aliasing=0.3)], STANDARD)

    assert found.trials_min == 8
    assert "aliases" in found.reasons[1]
    assert advice([facts(aliasing=0.01)], STANDARD).trials_min == 5


def test_a_reading_gets_better_with_the_length_of_its_window() -> None:
    shares = [share for length_s in (0.2, 1.0, 5.0) if (share := half_width(GOOD, length_s)) is not None]

    # Edges: √2 · 1.05 ms · 100 W = 0.149 J; noise: 1.96 · 2 W √(0.1 s · 1 s) = 1.24 J; what lingers: 1 J.
    assert shares[1] == pytest.approx(math.hypot(2**0.5 * 1.05e-3 * 100, 1.96 * 2 * 0.1**0.5, 1.0) / 600, rel=1e-3)
    assert sorted(shares, reverse=True) == shares


positive = st.floats(min_value=1e-4, max_value=1e4)
share = st.floats(min_value=0.0, max_value=1.0)
some_facts = st.builds(
    Facts,
    period_s=st.none() | st.floats(min_value=1e-3, max_value=1.0),
    read_s=st.none() | st.floats(min_value=0.0, max_value=0.01),
    edge_share=st.none() | share,
    noise_w=st.none() | st.floats(min_value=0.0, max_value=100.0),
    idle_w=st.none() | positive,
    load_w=st.none() | positive,
    tail_share=st.none() | share,
    aliasing=st.none() | share,
)


@given(st.lists(some_facts, max_size=4))
def test_advice_never_asks_for_less_than_the_protocol(devices: list[Facts]) -> None:
    found = advice(devices, STANDARD)

    assert found.window_s >= STANDARD.window_s
    assert all(found.window_s >= 50 * (one.period_s or 0.0) / 1.01 for one in devices)
    assert found.idle_s >= STANDARD.idle_s
    assert found.trials_min >= STANDARD.trials_min
    assert found.trials_max >= max(STANDARD.trials_max, found.trials_min)
    kernel_s = found.kernel_window_share * found.window_s
    assert kernel_s >= STANDARD.kernel_window_share * STANDARD.window_s * (1 - 1e-9) or found.kernel_window_share == 1.0
    assert 0 < found.kernel_window_share <= 1
    assert len(found.reasons) == 2
