"""Steady power, its intervals, gaps, settling, heat and aliasing, against machines whose truth is known."""

import math
from dataclasses import replace

import numpy as np
import pytest

from harness.measuring.calibration_beats import Moves
from harness.measuring.calibration_records import Aliasing
from harness.measuring.calibration_response import Pattern, Response
from harness.measuring.calibration_steady import (
    Phase,
    aliasing,
    gap,
    integral_j,
    level,
    noise_w,
    settle_s,
    tail_share,
    time_constant_s,
    w_per_c,
)
from harness.measuring.calibration_watch import Busy, FloatArray, Trace, Watcher
from harness.meters.base import Conditions
from tests.harness.measuring.calibration_machines import Virtual, random_gpu

ANSWER = Response(
    looks=1,
    spacing_s=0.1,
    spacing95_s=0.001,
    open_s=0.1,
    open95_s=0.001,
    lag_s=0.0,
    lag95_s=0.001,
    low_w=100.0,
    high_w=500.0,
    misfit=1e-3,
    left_w=np.zeros(0),
)


def counted(at_s: FloatArray, power_w: FloatArray, half_s: float = 1e-4) -> Moves:
    """A counter that moves at these times; ``power_w`` is the mean power before each."""
    energies_j = np.cumsum(power_w * np.diff(at_s, prepend=at_s[0]))
    return Moves(at_s=at_s, half_s=np.full(at_s.shape, half_s), value=energies_j)


def powers(at_s: FloatArray, power_w: FloatArray) -> Trace:
    looks = [Conditions(power_w=value) for value in power_w.tolist()]
    return Trace(conditions_at_s=at_s.tolist(), conditions=looks)


def cooling(at_s: FloatArray, values_c: FloatArray) -> Trace:
    looks = [Conditions(temperature_c=float(round(value))) for value in values_c.tolist()]
    return Trace(conditions_at_s=at_s.tolist(), conditions=looks)


def test_idle_power_of_random_machines_lies_in_its_interval() -> None:
    held = []
    for seed in range(30):
        virtual = Virtual(random_gpu(seed), gpus=1 + seed % 4, seed=seed)
        for resident in (False, True):
            if resident:
                virtual.load.prepare()
                virtual.clock.pause(2.0)
            period_s = virtual.machine.gpu.sensor.counter_period_s
            watcher = Watcher(virtual.bank, virtual.clock, poll_s=max(1e-3, period_s / 20), conditions_s=100.0)
            watcher.idle(max(2.0, 20 * period_s))
            for gpu, trace in enumerate(watcher.traces):
                moves = Moves.of(trace.counter_at_s, trace.energy_j)
                start_s, end_s = float(moves.at_s[0]), float(moves.at_s[-1])
                true_w = virtual.machine.truth.energy_between_j(gpu, start_s, end_s) / (end_s - start_s)
                found = level(moves)
                assert found is not None
                assert found.ci95 is not None
                assert found.ci95 < 0.1 * true_w
                held.append(abs(found.value - true_w) <= found.ci95)

    assert np.mean(held) >= 0.93


def test_a_level_of_too_few_moves_is_not_known() -> None:
    assert level(counted(np.array([0.0, 0.1]), np.array([100.0, 100.0]))) is None


def test_a_level_is_no_better_than_the_times_of_its_edges() -> None:
    found = level(counted(np.arange(0.0, 10.05, 0.1), np.full(101, 200.0), half_s=0.05))

    assert found is not None
    assert found.ci95 == pytest.approx(200.0 * math.hypot(0.05, 0.05) / 10.0, rel=0.05)


def test_power_is_integrated_by_trapezoids() -> None:
    at_s, power_w = np.array([0.0, 1.0, 3.0]), np.array([10.0, 20.0, 0.0])

    assert integral_j(at_s, power_w, np.array([0.0, 0.5, 1.0, 2.0, 3.0])).tolist() == [0.0, 6.25, 15.0, 30.0, 35.0]


@pytest.mark.parametrize("factor", [1.0, 1.75])
def test_the_gap_between_counter_and_polled_power_is_found(factor: float) -> None:
    draw = np.random.default_rng(1)
    moves = counted(np.arange(0.0, 10.0, 0.1), 187.0 + draw.standard_normal(100))
    at_s = np.arange(0.0, 10.0, 0.02)

    found = gap(moves, powers(at_s, factor * 187.0 + draw.standard_normal(at_s.size)), 0.5)

    assert found is not None
    assert found.ci95 is not None
    assert found.value == pytest.approx(factor - 1, abs=0.005)
    assert found.ci95 < 0.01


def test_without_polled_power_there_is_no_gap() -> None:
    moves = counted(np.arange(0.0, 10.0, 0.1), np.full(100, 187.0))

    assert gap(moves, Trace(conditions_at_s=[1.0, 2.0, 3.0], conditions=[Conditions()] * 3), 0.5) is None


def test_noise_is_found_though_power_drifts() -> None:
    draw = np.random.default_rng(2)
    at_s = np.arange(0.0, 60.0, 0.1)
    moves = counted(at_s, 400.0 + 0.2 * at_s + 3.0 * draw.standard_normal(at_s.size))

    assert noise_w(moves, 1.0, 0.1) == pytest.approx(3.0, rel=0.3)


def test_noise_that_is_the_looks_own_blur_is_not_called_noise() -> None:
    draw = np.random.default_rng(3)
    even_s = np.arange(0.0, 60.0, 0.1)
    moves = counted(even_s, np.full(600, 400.0))
    blurred = Moves(at_s=even_s + draw.uniform(-0.02, 0.02, 600), half_s=np.full(600, 0.02), value=moves.value)

    found_w = noise_w(blurred, 1.0, 0.1)

    assert found_w is None or found_w < 8.0  # 400 W × 0.02/√3 s over 1 s, three times, in 10 periods: 25 W unmended


def test_idle_power_settles_when_it_stays_near_where_it_ends_up() -> None:
    at_s = np.arange(0.05, 20.0, 0.1)
    power_w = np.where(at_s < 3.0, 150.0, 100.0)

    assert settle_s(counted(at_s, power_w), 0.0, 500.0) == pytest.approx(3.0, abs=0.15)


def test_idle_power_that_never_comes_to_rest_has_not_settled() -> None:
    at_s = np.arange(0.05, 20.0, 0.1)
    power_w = np.where(at_s < 19.5, 100.0, 300.0)

    assert settle_s(counted(at_s, power_w), 0.0, 500.0) is None


def test_how_long_idle_takes_to_settle_is_not_known_from_a_short_stretch() -> None:
    assert settle_s(counted(np.arange(0.05, 1.0, 0.1), np.full(10, 100.0)), 0.0, 500.0) is None


def test_the_slope_of_idle_power_over_temperature_is_found() -> None:
    at_s = np.arange(0.0, 60.0, 0.1)
    values_c = 40.0 + 25.0 * np.exp(-at_s / 20.0)

    found = w_per_c(counted(at_s, 90.0 + 0.3 * values_c), cooling(at_s, values_c), 1.0)

    assert found is not None
    assert found.value == pytest.approx(0.3, rel=0.05)
    assert time_constant_s(cooling(at_s, values_c), 0.0) == pytest.approx(20.0, rel=0.1)


def test_a_temperature_that_hardly_moves_says_nothing_about_its_effect() -> None:
    at_s = np.arange(0.0, 60.0, 0.1)
    values_c = 40.0 + 2.0 * np.exp(-at_s / 20.0)

    assert w_per_c(counted(at_s, 90.0 + 0.3 * values_c), cooling(at_s, values_c), 1.0) is None
    assert time_constant_s(cooling(at_s, values_c), 0.0) is None


def test_a_slope_that_noise_hides_is_not_reported() -> None:
    draw = np.random.default_rng(5)
    at_s = np.arange(0.0, 60.0, 0.1)
    values_c = 40.0 + 10.0 * np.exp(-at_s / 20.0)

    assert w_per_c(counted(at_s, 90.0 + 20.0 * draw.standard_normal(600)), cooling(at_s, values_c), 1.0) is None


def test_cooling_is_not_called_known_before_one_time_constant_was_seen() -> None:
    at_s = np.arange(0.0, 20.0, 0.1)
    values_c = 40.0 + 60.0 * np.exp(-at_s / 60.0)

    assert time_constant_s(cooling(at_s, values_c), 0.0) is None


def test_what_lingers_is_not_known_from_two_bursts() -> None:
    moves = counted(np.arange(0.0, 10.0, 0.1), np.full(100, 100.0))
    bursts = [Busy(started_s=1.0, ended_s=2.0), Busy(started_s=3.0, ended_s=4.0)]

    assert tail_share(moves, bursts, replace(ANSWER, left_w=np.zeros(99))) is None


def beating(*, share: float) -> Aliasing:
    """A load of the counter's period, on for half of it, at eight phases; the counter sees the last ``share``."""
    moves_s = np.arange(0.0, 33.0, 0.1)
    bursts, phases = [], []
    for number in range(8):
        begun_s = 4.0 * number + 1.0 + 0.1 * number / 8
        bursts += [Busy(started_s=begun_s + 0.1 * n, ended_s=begun_s + 0.1 * n + 0.05) for n in range(20)]
        phases.append(Phase(started_s=begun_s - 0.5, ended_s=begun_s + 2.5))
    pattern = Pattern(bursts)
    seen = (pattern.on_s(moves_s) - pattern.on_s(moves_s - 0.1 * share)) / (0.1 * share)
    found = aliasing(counted(moves_s, 100.0 + 400.0 * seen), Trace(), pattern, ANSWER, phases, 0.1)
    assert found is not None
    return found


def test_a_counter_that_looks_a_quarter_of_the_time_aliases_with_a_load_of_its_period() -> None:
    found = beating(share=0.25)

    # At its best phase it sees the load always: 500 W for 300 W.
    assert found.worst == pytest.approx(0.67, abs=0.05)
    assert found.seen
    assert found.phases == 8


def test_a_counter_that_sees_everything_does_not_alias() -> None:
    found = beating(share=1.0)

    assert found.worst < 1e-3
    assert found.bias == pytest.approx(0.0, abs=1e-3)
    assert not found.seen


def test_aliasing_is_not_known_where_most_phases_could_not_be_read() -> None:
    moves = counted(np.arange(0.0, 3.0, 0.1), np.full(30, 100.0))
    phases = [Phase(started_s=10.0 * n, ended_s=10.0 * n + 2.0) for n in range(8)]
    pattern = Pattern([Busy(started_s=0.5, ended_s=0.6)])

    assert aliasing(moves, Trace(), pattern, ANSWER, phases, 0.1) is None
