import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.meters.base import Conditions, ManualClock
from harness.meters.replay import EnergyPoint, Profile, ReplayMeter
from harness.records import Provenance


def profile(*points: tuple[float, float]) -> Profile:
    return Profile([EnergyPoint(t_s=t_s, energy_j=energy_j) for t_s, energy_j in points])


def test_a_profile_is_played_point_by_point_and_goes_on_at_its_last_power() -> None:
    clock = ManualClock(100.0)
    meter = ReplayMeter(profile((0, 0), (2, 100), (4, 400)), clock, step_s=0)

    levels_j = []
    for _ in range(4):
        clock.advance(1.5)
        levels_j.append(meter.read_j())

    assert levels_j == pytest.approx([75.0, 250.0, 475.0, 700.0])


def test_the_counter_shows_the_last_whole_step() -> None:
    clock = ManualClock()
    meter = ReplayMeter(Profile.constant(300.0), clock, step_s=0.1)
    clock.advance(0.0999)
    assert meter.read_j() == 0.0
    clock.advance(0.2001)
    assert meter.read_j() == pytest.approx(90.0)
    clock.advance(0.05)
    assert meter.read_j() == pytest.approx(90.0)


def test_a_measured_step_does_not_change_what_is_played() -> None:
    clock = ManualClock()
    meter = ReplayMeter(Profile.constant(300.0), clock, step_s=0.1)
    meter.step_s = 0.02
    clock.advance(0.15)

    assert meter.read_j() == pytest.approx(30.0)


@pytest.mark.parametrize("points", [(), ((0, 0),), ((0, 0), (0, 1)), ((0, 5), (1, 4))])
def test_an_impossible_profile_is_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="two points or more"):
        profile(*points)


@given(st.floats(1e-3, 1e4), st.floats(1e-3, 1), st.floats(0, 1e6))
def test_the_counter_is_never_more_than_one_step_behind(power_w: float, step_s: float, elapsed_s: float) -> None:
    clock = ManualClock()
    meter = ReplayMeter(Profile.constant(power_w), clock, step_s=step_s)
    clock.advance(elapsed_s)

    behind_j = power_w * elapsed_s - meter.read_j()
    tolerance_j = 1e-6 * power_w * max(1.0, elapsed_s)
    assert -tolerance_j <= behind_j <= power_w * step_s + tolerance_j


def test_it_reports_what_the_demonstration_wants_and_never_a_measurement() -> None:
    meter = ReplayMeter(Profile.constant(1), ManualClock(), conditions=lambda: Conditions(throttle_reasons=0x40))

    assert meter.conditions() == Conditions(throttle_reasons=0x40)
    assert meter.provenance is Provenance.SIMULATED


def test_a_manual_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="cannot go back"):
        ManualClock().advance(-1)
