"""What a sensor averages over, how late it is and what it leaves out, against virtual sensors and closed forms."""

import random

import numpy as np
import pytest

from harness.measuring.calibration_beats import Moves, beat_of
from harness.measuring.calibration_fields import Field, Fields
from harness.measuring.calibration_response import Pattern, Response, Values, answer_of_counter, answer_of_field
from harness.measuring.calibration_steady import tail_share
from harness.measuring.calibration_watch import Busy, Watcher
from tests.harness.measuring.calibration_machines import (
    LingeringDevice,
    Virtual,
    lingering_share,
    random_gpu,
    seen_window_s,
)

PATTERN = Pattern([Busy(started_s=1.0, ended_s=3.0), Busy(started_s=6.0, ended_s=8.0)])


def answer_of(moves: Moves, pattern: Pattern) -> Response | None:
    values = Values(at_s=moves.at_s[1:], power_w=np.diff(moves.value) / moves.gaps_s, span_s=moves.gaps_s)
    return answer_of_counter(values, pattern, blur_s=moves.blur_s)


def swept(device: LingeringDevice, period_s: float = 0.1) -> tuple[Moves, Watcher, Response]:
    watcher = Watcher(device.bank, device.clock, poll_s=period_s / 50, conditions_s=10.0)
    watcher.idle(1.0)
    watcher.sweep(device, period_s=period_s, bursts=16, rest_s=2.5 * period_s, rng=random.Random(1))
    moves = Moves.of(watcher.traces[0].counter_at_s, watcher.traces[0].energy_j)
    answer = answer_of(moves, Pattern(watcher.bursts))
    assert answer is not None
    return moves, watcher, answer


def test_the_time_that_a_load_was_on_is_counted_across_bursts() -> None:
    assert PATTERN.on_s(np.array([0.0, 1.5, 4.0, 7.0, 9.0])).tolist() == [0.0, 0.5, 2.0, 3.0, 4.0]


def test_only_times_soon_after_an_end_of_the_load_are_after_an_end() -> None:
    times_s = np.array([0.5, 1.1, 2.9, 3.1, 4.9, 5.5, 6.1, 8.5])

    assert PATTERN.after_an_end(times_s, 2.0).tolist() == [False, False, False, True, True, False, False, True]


@pytest.mark.parametrize(("window_s", "lag_s"), [(0.3, 0.0), (0.05, 0.02), (1.0, 0.1)])
def test_a_trailing_mean_without_noise_is_found_exactly(window_s: float, lag_s: float) -> None:
    at_s = np.arange(0.0, 10.0, 0.013)
    shares = (PATTERN.on_s(at_s - lag_s) - PATTERN.on_s(at_s - lag_s - window_s)) / window_s

    answer = answer_of_field(Values(at_s=at_s, power_w=80.0 + 500.0 * shares), PATTERN, longest_s=2.0, blur_s=0.0)

    assert answer is not None
    assert answer.looks == 1
    assert answer.window_s == pytest.approx(window_s, rel=1e-3)
    assert answer.lag_s == pytest.approx(lag_s, abs=1e-3 * window_s)
    assert answer.low_w == pytest.approx(80.0, rel=1e-3)
    assert answer.high_w == pytest.approx(580.0, rel=1e-3)
    assert answer.rise_s == pytest.approx(0.8 * window_s, rel=1e-3)


def test_a_mean_of_ten_short_looks_is_told_from_a_plain_one() -> None:
    at_s = np.arange(0.0, 10.0, 0.017)
    ends_s = at_s[:, None] - 0.1 * np.arange(10)
    shares = ((PATTERN.on_s(ends_s) - PATTERN.on_s(ends_s - 0.025)) / 0.025).mean(axis=1)

    answer = answer_of_field(Values(at_s=at_s, power_w=60.0 + 400.0 * shares), PATTERN, longest_s=2.0, blur_s=0.0)

    assert answer is not None
    assert answer.looks == 10
    assert answer.window_s == pytest.approx(1.0, rel=0.01)
    assert answer.share == pytest.approx(0.25, abs=0.02)


def test_values_in_which_the_load_does_not_show_have_no_answer() -> None:
    at_s = np.arange(0.0, 10.0, 0.1)
    noise_w = np.random.default_rng(1).standard_normal(at_s.size)

    assert answer_of_field(Values(at_s=at_s, power_w=70.0 + noise_w), PATTERN, longest_s=2.0, blur_s=0.0) is None


@pytest.mark.parametrize("seed", range(30))
def test_period_and_sampled_share_of_a_random_counter_are_found(seed: int) -> None:
    virtual = Virtual(random_gpu(seed), gpus=1 + seed % 4 // 3, seed=seed)
    sensor = virtual.machine.gpu.sensor
    period_s = sensor.counter_period_s
    virtual.load.prepare()
    watcher = Watcher(virtual.bank, virtual.clock, poll_s=min(period_s / 50, 0.002), conditions_s=100.0)
    watcher.idle(0.5)
    watcher.sweep(virtual.load, period_s=period_s, bursts=12, rest_s=max(0.1, 2.5 * period_s), rng=random.Random(seed))

    for trace in watcher.traces:
        moves = Moves.of(trace.counter_at_s, trace.energy_j)
        beat, answer = beat_of(moves), answer_of(moves, Pattern(watcher.bursts))

        assert beat is not None
        assert answer is not None
        assert beat.period_s == pytest.approx(period_s, rel=0.005)
        assert answer.share == pytest.approx(sensor.duty_cycle if sensor.counter_sampled else 1.0, abs=0.12)
        assert answer.lag_s == pytest.approx(0.0, abs=0.002 + 0.02 * period_s)


@pytest.mark.parametrize("seed", range(100, 120))
def test_windows_of_random_power_fields_are_found(seed: int) -> None:
    virtual = Virtual(random_gpu(seed), seed=seed)
    sensor = virtual.machine.gpu.sensor
    virtual.load.prepare()
    watchers = []
    for period_s, bursts, rest_s in ((0.1, 2, 2.0), (sensor.average_period_s, 8, 0.3)):
        watcher = Watcher(virtual.bank, virtual.clock, poll_s=0.002, conditions_s=0.002, counters=False)
        watcher.idle(1.5)
        watcher.sweep(virtual.load, period_s=period_s, bursts=bursts, rest_s=rest_s, rng=random.Random(seed))
        watchers.append(watcher)

    fit = Fields(watchers).best(0, Field.REPORTED)

    assert fit is not None
    assert fit.beat.period_s == pytest.approx(sensor.average_period_s, rel=0.005)
    assert fit.window_s.value == pytest.approx(seen_window_s(sensor, sensor.average_window_s), rel=0.2)


def test_a_sweep_over_the_period_of_the_instant_field_finds_its_short_look() -> None:
    virtual = Virtual(random_gpu(2), seed=2)
    sensor = virtual.machine.gpu.sensor
    virtual.load.prepare()
    watcher = Watcher(virtual.bank, virtual.clock, poll_s=0.002, conditions_s=0.002, counters=False)
    watcher.idle(1.0)
    watcher.sweep(virtual.load, period_s=sensor.instant_period_s, bursts=12, rest_s=0.3, rng=random.Random(1))

    fit = Fields([watcher]).best(0, Field.INSTANT)

    assert fit is not None
    assert fit.known
    assert fit.window_s.value == pytest.approx(sensor.duty_cycle * sensor.duty_period_s, rel=0.1)


def test_a_field_that_the_driver_does_not_give_is_not_there() -> None:
    device = LingeringDevice()
    watcher = Watcher(device.bank, device.clock, poll_s=0.01, conditions_s=0.02)
    watcher.idle(0.5)

    fields = Fields([watcher])

    assert not fields.has(0, Field.INSTANT)
    assert fields.best(0, Field.INSTANT) is None
    assert fields.unknown_period_s() is None


def test_a_late_counter_is_late_by_what_it_is() -> None:
    _, _, answer = swept(LingeringDevice(lag_s=0.03))

    assert answer.lag_s == pytest.approx(0.03, abs=0.002)
    assert answer.share == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(("share", "tau_s"), [(0.5, 0.02), (0.3, 0.05), (0.0, 0.02)])
def test_what_lingers_after_the_load_is_told_from_lag(share: float, tau_s: float) -> None:
    moves, watcher, answer = swept(LingeringDevice(share=share, tau_s=tau_s))

    found = tail_share(moves, watcher.bursts, answer)

    assert found is not None
    assert found.ci95 is not None
    assert answer.lag_s == pytest.approx(0.0, abs=0.002)
    expected = lingering_share(share=share, tau_s=tau_s, period_s=0.1)
    assert found.value == pytest.approx(expected, abs=0.03)
    assert abs(found.value - expected) < 2 * found.ci95 + 0.005
