"""What the sensor of a virtual GPU shows of a truth that is known."""

import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.meters.period import measure_step_s
from harness.virtual.machine import VirtualMachine
from harness.virtual.meter import VirtualMeter
from harness.virtual.sensor import Draws, normal, uniform
from tests.harness.virtual.virtual_examples import COMPUTE, a_machine, work


def a_meter(*, faults: tuple[Any, ...] = (), gpus: int = 1, **sensor: Any) -> tuple[VirtualMachine, VirtualMeter]:
    """A machine that idles at 100 W and the meter of its first GPU."""
    machine = a_machine(gpus=gpus, sensor=sensor, faults=faults)
    machine.load_context()
    return machine, machine.meters()[0]


def moves(
    machine: VirtualMachine, meter: VirtualMeter, *, count: int, poll_s: float
) -> tuple[list[float], list[float]]:
    """When the counter moved, to within a poll, and by how much."""
    at_s: list[float] = []
    by_j: list[float] = []
    last_j = meter.read_j()
    while len(at_s) < count:
        machine.clock.pause(poll_s)
        level_j = meter.read_j()
        if level_j != last_j:
            at_s.append(machine.clock.now_s())
            by_j.append(level_j - last_j)
            last_j = level_j
    return at_s, by_j


# ---- the counter ----


@pytest.mark.parametrize("period_s", [0.01, 0.02, 0.1, 0.2])
def test_the_period_of_the_counter_is_found_as_with_a_real_one(period_s: float) -> None:
    machine, meter = a_meter(counter_period_s=period_s)

    assert measure_step_s(meter, machine.clock) == pytest.approx(period_s, abs=3e-5)


def test_the_counter_shows_the_energy_up_to_its_last_move() -> None:
    machine, meter = a_meter()
    at_s, by_j = moves(machine, meter, count=30, poll_s=1e-3)

    assert by_j[1:] == pytest.approx([10.0] * 29, abs=1.1e-3)
    assert np.diff(at_s) == pytest.approx([0.1] * 29, abs=1.1e-3)


def test_the_counter_holds_exactly_what_was_drawn_between_its_moves() -> None:
    machine, meter = a_meter()
    (start_s,), _ = moves(machine, meter, count=1, poll_s=1e-5)
    start_j = meter.read_j()

    machine.run(machine.compile(work(COMPUTE)), 1234, label="work")
    (end_s,), _ = moves(machine, meter, count=1, poll_s=1e-5)

    true_j = machine.truth.energy_between_j(0, start_s, end_s)
    assert meter.read_j() - start_j == pytest.approx(true_j, abs=258 * 5e-5)


def test_moves_come_early_or_late_but_do_not_drift() -> None:
    machine, meter = a_meter(counter_jitter_s=0.01)
    at_s, _ = moves(machine, meter, count=400, poll_s=2e-4)
    gaps_s = np.diff(at_s)

    # the difference of two even spreads of ± 10 ms
    assert gaps_s.std() == pytest.approx(0.01 * (2 / 3) ** 0.5, rel=0.15)
    assert 0.079 < gaps_s.min() < gaps_s.max() < 0.121
    assert at_s[-1] - at_s[0] == pytest.approx(39.9, abs=0.021)


def test_the_counter_rounds_down_to_its_quantum() -> None:
    machine, meter = a_meter(counter_quantum_j=7.0)
    _, by_j = moves(machine, meter, count=20, poll_s=1e-3)

    assert {round(step_j / 7.0, 9) for step_j in by_j} <= {1.0, 2.0}
    assert sum(by_j) == pytest.approx(200, abs=14)


def test_gain_and_offset_show_in_everything_that_is_read() -> None:
    machine, meter = a_meter(gain=1.1, offset_w=-3.0)
    before_j = meter.read_j()
    machine.clock.pause(100)

    assert meter.read_j() - before_j == pytest.approx(10_700, abs=11)
    assert meter.instant_power_w() == pytest.approx(107)
    assert meter.average_power_w() == pytest.approx(107)


def test_noise_of_the_counter_is_that_of_one_look_at_the_power_per_duty_period() -> None:
    machine, meter = a_meter(noise_w=5.0, duty_period_s=0.025)
    _, by_j = moves(machine, meter, count=2000, poll_s=0.1)

    assert statistics.mean(by_j) == pytest.approx(10.0, abs=0.03)
    # four looks of 5 W within 0.1 s
    assert statistics.stdev(by_j) == pytest.approx(0.1 * 5 / 2, rel=0.1)


def test_noise_never_makes_the_counter_go_back() -> None:
    machine, meter = a_meter(noise_w=300.0)
    levels_j = []
    for _ in range(300):
        machine.clock.pause(0.1)
        levels_j.append(meter.read_j())

    assert levels_j == sorted(levels_j)


def test_how_often_somebody_looks_changes_nothing() -> None:
    sensor: dict[str, Any] = {
        "noise_w": 4.0,
        "counter_jitter_s": 0.004,
        "duty_cycle": 0.25,
        "counter_sampled": True,
        "counter_period_s": 0.05,
        "duty_period_s": 0.02,
    }

    def seen(polls: int) -> tuple[float, float, float]:
        machine, _ = a_meter(**sensor)
        # read_j would take time, and so change what is measured: the sensor is asked directly
        counter, power = machine.meters()[0]._counter, machine.meters()[0]._average
        program = machine.compile(work(COMPUTE))
        for _ in range(5):
            machine.run(program, 200, label="work")
            start_s = machine.clock.now_s()
            for poll in range(1, polls + 1):
                machine.clock.pause(start_s + 2.0 * poll / polls - machine.clock.now_s())
                counter.at(machine.clock.now_s())
        return counter.at(machine.clock.now_s()), counter._moved_s, power.at(machine.clock.now_s())

    assert seen(1) == pytest.approx(seen(1000), rel=1e-12)


def test_counters_of_several_gpus_move_at_different_times() -> None:
    machine, _ = a_meter(gpus=4)
    phases_s = [meter._counter._next_s for meter in machine.meters()]

    assert len({round(phase_s, 4) for phase_s in phases_s}) == 4
    assert all(0 <= phase_s < 0.1 for phase_s in phases_s)


# ---- the duty cycle ----


def on_and_off(machine: VirtualMachine, *, on_s: float, period_s: float, times: int) -> None:
    """A load that works for a part of each period, in step with nothing else."""
    program = machine.compile(work(("slice", 1e12 * on_s / 1e-3, 0.0, 0.0)))
    for _ in range(times):
        start_s = machine.clock.now_s()
        machine.run(program, 1, label="on")
        machine.clock.pause(start_s + period_s - machine.clock.now_s())


@pytest.mark.parametrize("sampled", [False, True])
def test_only_a_counter_that_shares_the_duty_cycle_is_fooled_by_a_load_in_step_with_it(sampled: bool) -> None:
    machine, meter = a_meter(duty_cycle=0.25, counter_sampled=sampled)
    before_j = meter.read_j()
    start_s = machine.clock.now_s()
    on_and_off(machine, on_s=0.02, period_s=0.1, times=100)

    true_j = machine.truth.energy_between_j(0, start_s, machine.clock.now_s())
    active_j = true_j - 100 * (machine.clock.now_s() - start_s)
    seen_j = meter.read_j() - before_j - 100 * (machine.clock.now_s() - start_s)

    assert (abs(seen_j / active_j - 1) > 0.7) == sampled
    assert sampled or seen_j == pytest.approx(active_j, rel=0.02)


def test_a_sampled_counter_is_right_for_a_steady_load() -> None:
    machine, meter = a_meter(duty_cycle=0.25, counter_sampled=True)
    machine.run(machine.compile(work(COMPUTE)), 100, label="before")
    moves(machine, meter, count=1, poll_s=1e-4)  # idles for a moment
    start_j = meter.read_j()
    machine.run(machine.compile(work(COMPUTE)), 1000, label="work")

    assert meter.read_j() - start_j == pytest.approx(2580, rel=0.01)


def test_a_look_at_the_power_sees_only_the_last_part_of_the_duty_period() -> None:
    machine, meter = a_meter(duty_cycle=0.25, duty_period_s=0.1)
    field = meter._instant
    renewed_s = field.renewed_s(2.0) + 0.1
    machine.clock.pause(renewed_s - 0.05)  # a load that starts half a period before the look
    machine.run(machine.compile(work(COMPUTE)), 20, label="work")

    assert field.at(renewed_s + 0.01) == pytest.approx(258, rel=1e-5)
    assert field.at(renewed_s - 0.01) == pytest.approx(100)


# ---- power fields ----


@pytest.mark.parametrize("window_s", [0.025, 0.1, 0.3, 1.0])
def test_the_average_rises_in_a_straight_line_over_its_window(window_s: float) -> None:
    machine, meter = a_meter(average_window_s=window_s, average_period_s=1e-3)
    machine.clock.pause(2)
    seen_w: list[float] = []

    def watch() -> None:
        seen_w.append(meter._average.at(machine.clock.now_s()))

    machine.run(machine.compile(work(("steady", 1e12, 0.0, 0.0))), 1500, label="work", meanwhile=watch, every_s=1e-3)

    rise = [(power_w - 100) / 150 for power_w in seen_w]
    reached_s = [1e-3 * next(i + 1 for i, share in enumerate(rise) if share >= wanted) for wanted in (0.25, 0.5, 0.98)]
    assert reached_s == pytest.approx([0.25 * window_s, 0.5 * window_s, 0.98 * window_s], abs=2.1e-3)


def test_power_fields_are_renewed_at_their_own_times_only() -> None:
    machine, meter = a_meter(instant_period_s=0.05, noise_w=2.0)
    seen_w = []
    for _ in range(1000):
        machine.clock.pause(1e-3)
        seen_w.append(meter._instant.at(machine.clock.now_s()))
    changes = [i for i in range(1, 1000) if seen_w[i] != seen_w[i - 1]]

    assert 19 <= len(changes) <= 20
    assert np.diff(changes).tolist() == pytest.approx([50] * (len(changes) - 1), abs=1)


def test_noise_of_the_average_falls_with_the_looks_in_its_window() -> None:
    machine, meter = a_meter(noise_w=8.0, duty_period_s=0.1, average_window_s=1.6, average_period_s=0.1)
    machine.clock.pause(2)
    averages_w, instants_w = [], []
    for _ in range(1000):
        machine.clock.pause(0.1)
        averages_w.append(meter._average.at(machine.clock.now_s()))
        instants_w.append(meter._instant.at(machine.clock.now_s()))

    assert statistics.stdev(instants_w) == pytest.approx(8, rel=0.1)
    assert statistics.stdev(averages_w) == pytest.approx(2, rel=0.1)


def test_powers_come_in_whole_quanta() -> None:
    machine, meter = a_meter(power_quantum_w=0.75)
    machine.clock.pause(3)

    assert meter.instant_power_w() == pytest.approx(99.75)


# ---- calls ----


def test_every_call_takes_its_time_and_is_read_in_the_middle() -> None:
    machine, meter = a_meter(read_latency_s=0.04, counter_period_s=0.1)
    for call in (meter.read_j, meter.instant_power_w, meter.average_power_w, meter.conditions):
        before_s = machine.clock.now_s()
        call()
        assert machine.clock.now_s() - before_s == pytest.approx(0.04)
    before_j = meter._counter.at(machine.clock.now_s())
    machine.clock.pause(meter._counter._next_s - 0.019 - machine.clock.now_s())

    assert meter.read_j() > before_j


def test_latency_varies_by_its_jitter() -> None:
    machine, meter = a_meter(read_latency_s=1e-3, read_latency_jitter_s=2e-3)
    latencies_s = []
    for _ in range(500):
        before_s = machine.clock.now_s()
        meter.read_j()
        latencies_s.append(machine.clock.now_s() - before_s)

    assert 1e-3 <= min(latencies_s) < 1.1e-3
    assert 2.9e-3 < max(latencies_s) <= 3e-3


def test_hours_may_pass_between_two_looks() -> None:
    machine, meter = a_meter(counter_period_s=0.02, noise_w=3.0, counter_jitter_s=0.001)
    before_j = meter.read_j()
    machine.clock.pause(5 * 3600)

    assert meter.read_j() - before_j == pytest.approx(5 * 3600 * 100, rel=1e-4)


@given(
    period_s=st.floats(0.005, 0.3),
    jitter=st.floats(0, 0.49),
    quantum_j=st.floats(1e-3, 5),
    latency_s=st.floats(1e-5, 0.01),
    steps=st.lists(st.tuples(st.booleans(), st.floats(0, 0.5)), min_size=1, max_size=30),
)
@settings(max_examples=50, deadline=None)
def test_whatever_happens_the_counter_shows_the_energy_up_to_its_last_move_and_never_falls(
    period_s: float, jitter: float, quantum_j: float, latency_s: float, steps: list[tuple[bool, float]]
) -> None:
    machine, meter = a_meter(
        counter_period_s=period_s,
        counter_jitter_s=jitter * period_s,
        counter_quantum_j=quantum_j,
        read_latency_s=latency_s,
    )
    program = machine.compile(work(COMPUTE))
    machine.clock.pause(0.5)
    first_j, first_s = meter.read_j(), meter._counter._moved_s
    last_j = first_j
    for busy, duration_s in steps:
        if busy:
            machine.run(program, 1 + int(100 * duration_s), label="work")
        else:
            machine.clock.pause(duration_s)
        level_j = meter.read_j()
        true_j = machine.truth.energy_between_j(0, first_s, meter._counter._moved_s)
        assert level_j >= last_j
        assert level_j - first_j == pytest.approx(true_j, abs=quantum_j * 1.001)
        assert machine.clock.now_s() - meter._counter._moved_s <= 2 * period_s + latency_s
        last_j = level_j


def test_draws_by_number_are_the_same_however_they_are_taken() -> None:
    for make in (normal, uniform):
        whole = Draws((4, 2), make).take(0, 5000)
        again = Draws((4, 2), make)
        pieces = [again.take(first, 50) for first in range(4950, -1, -50)]
        assert np.concatenate(pieces[::-1]).tolist() == whole.tolist()
        assert Draws((4, 3), make).take(0, 9).tolist() != whole[:9].tolist()
