import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pytest

from harness.errors import MeterFailed, WindowTooShort
from harness.measuring.windows import SteadyClock, Window, WindowTaker
from harness.meters.base import Conditions
from harness.meters.replay import EnergyPoint, Profile, ReplayMeter
from harness.meters.selection import MeterBank

CASES = 300


@dataclass(frozen=True)
class Case:
    """One window with its truth."""

    window: Window
    true_j: float  # of the work, over all devices
    idle_w: float  # of all devices

    @property
    def error_j(self) -> float:
        """Of the work's energy, the idle tail taken out as a session does."""
        return self.window.energy_j - self.idle_w * self.window.tail_s - self.true_j


def one_case(machine: Any, taker: WindowTaker, duration_s: float, *, devices: int, linger: float) -> Case:
    span_s: list[float] = []

    def work() -> None:
        span_s.append(machine.at_s)
        machine.busy(duration_s)
        span_s.append(machine.at_s)

    window = taker.take(work)
    lingering_j = linger * window.tail_s * (machine.load_w - machine.idle_w)
    true_j = devices * (machine.used_j(*span_s) - lingering_j)
    return Case(window=window, true_j=true_j, idle_w=devices * machine.idle_w)


def cases(make_machine: Callable[..., Any], *, devices: int, linger: float = 0.0) -> list[Case]:
    """Windows of random step, start phase, length, power and poll latency; power lingers for a share of the tail."""
    rng = random.Random(5)
    found = []
    for _ in range(CASES):
        machine = make_machine(idle_w=rng.uniform(20, 120), load_w=rng.uniform(150, 700), read_s=rng.uniform(0, 4e-4))
        steps_s = [rng.uniform(0.01, 0.2) for _ in range(devices)]
        taker = machine.taker(*steps_s, phases_s=tuple(rng.uniform(0, step_s) for step_s in steps_s))
        machine.pause(rng.uniform(0, 1))
        duration_s = rng.uniform(max(5 * max(steps_s), 0.3), 10)
        found.append(one_case(machine, taker, duration_s, devices=devices, linger=linger))
    return found


def held(found: list[Case]) -> float:
    return sum(abs(case.error_j) <= case.window.uncertainty_j for case in found) / len(found)


def widths(found: list[Case]) -> list[float]:
    """Half widths relative to the energy, in order."""
    return sorted(case.window.uncertainty_j / case.window.energy_j for case in found)


def test_the_true_energy_lies_within_the_stated_uncertainty(make_machine: Callable[..., Any]) -> None:
    found = cases(make_machine, devices=1)
    assert held(found) == 1.0
    assert max(abs(case.error_j) / case.true_j for case in found) < 2e-3
    assert widths(found)[CASES // 2] < 0.01
    assert max(widths(found)) < 0.06


def test_power_that_lingers_for_a_quarter_of_the_tail_is_covered(make_machine: Callable[..., Any]) -> None:
    assert held(cases(make_machine, devices=1, linger=0.25)) >= 0.95


@pytest.mark.parametrize("devices", [2, 4])
def test_unaligned_counters_of_further_devices_are_covered_too(make_machine: Callable[..., Any], devices: int) -> None:
    found = cases(make_machine, devices=devices)
    assert held(found) >= 0.95
    assert widths(found)[CASES // 2] < 0.03
    assert abs(fmean(case.error_j / case.window.uncertainty_j for case in found)) < 0.1  # no side is favoured


def test_the_window_is_as_long_as_the_work_and_the_tail_ends_at_a_step(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    taker = machine.taker(0.1)
    machine.pause(0.537)

    window = taker.take(lambda: machine.busy(1.23))

    assert window.started_s == pytest.approx(0.6, abs=2e-3)
    assert window.work_s == pytest.approx(1.23)
    assert window.duration_s == pytest.approx(1.3, abs=2e-3)
    assert window.tail_s == pytest.approx(0.07, abs=2e-3)
    assert window.energy_j == pytest.approx(300 * 1.23 + 60 * 0.07, abs=0.3)
    assert window.counters_end_j[0] - window.counters_start_j[0] == window.energies_j[0]


def test_each_device_has_its_own_energy_and_counters(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    window = machine.taker(0.1, 0.05, phases_s=(0.0, 0.03)).take(lambda: machine.busy(2.0))

    assert len(window.energies_j) == len(window.before) == len(window.after) == 2
    assert window.energy_j == sum(window.energies_j)
    power_w = window.energies_j[1] / window.duration_s
    stale_s = math.hypot(1.96 * 0.05 / 6**0.5, 0.25 * window.tail_s)
    assert window.uncertainties_j[1] == pytest.approx(power_w * stale_s)


def test_an_estimate_is_read_at_once_and_has_no_tail(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    taker = machine.taker(0.1, estimating=True)
    machine.pause(0.2)

    window = taker.take(lambda: machine.busy(1.2))

    assert window.tail_s == 0
    assert window.started_s == pytest.approx(0.3)
    assert window.duration_s == pytest.approx(1.2)
    assert window.uncertainty_j == pytest.approx(window.energy_j / 1.2 * 0.001)


def test_the_state_of_a_device_is_asked_for_before_the_tail(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    ended_s = -1.0

    def clocks(device: int) -> Conditions:
        return Conditions(sm_clock_mhz=1980.0 if machine.at_s == ended_s else 345.0)

    def work() -> None:
        nonlocal ended_s
        machine.busy(1.005)
        ended_s = machine.at_s

    window = machine.taker(0.1, conditions=clocks).take(work)

    assert window.before[0].sm_clock_mhz == 345
    assert window.after[0].sm_clock_mhz == 1980


def test_a_window_of_less_than_the_shortest_is_an_error(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    taker = machine.taker(0.1)
    with pytest.raises(WindowTooShort, match=r"299.*300 ms"):
        taker.take(lambda: machine.busy(0.299))
    taker.take(lambda: machine.busy(0.301))


class Counter(ReplayMeter):
    """A counter that does something else from a moment on."""

    def __init__(self, machine: Any, from_s: float, then: Callable[[float], float]) -> None:
        super().__init__(Profile.constant(100), machine, step_s=0.1)
        self._from_s, self._then, self._machine = from_s, then, machine

    def read_j(self) -> float:
        value = super().read_j()
        return value if self._machine.at_s < self._from_s else self._then(value)


def taker_of(machine: Any, *meters: ReplayMeter) -> WindowTaker:
    return WindowTaker(MeterBank(meters, machine, why="a test"), machine, shortest_s=0.3)


def test_a_counter_that_stands_still_is_an_error(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    taker = taker_of(machine, Counter(machine, 1.0, lambda value: 50.0))
    with pytest.raises(MeterFailed, match="not moved for 2 s"):
        taker.take(lambda: machine.busy(3.0))


def test_a_counter_that_goes_back_during_the_work_is_an_error(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    taker = taker_of(machine, Counter(machine, 1.0, lambda value: value - 1e6))
    with pytest.raises(MeterFailed, match="moved by -"):
        taker.take(lambda: machine.busy(3.0))


def test_a_counter_that_goes_back_while_it_is_waited_for_is_an_error(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    taker = taker_of(machine, Counter(machine, 0.98, lambda value: 1.0))
    machine.pause(0.95)
    with pytest.raises(MeterFailed, match=r"went from .* back to 1 J"):
        taker.take(lambda: machine.busy(3.0))


def test_one_dead_counter_among_several_is_an_error(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    dead = Counter(machine, 0.0, lambda value: 77.0)
    dead.name = "replay:dead"
    taker = taker_of(machine, ReplayMeter(Profile.constant(100), machine), dead)
    with pytest.raises(MeterFailed, match=r"replay:dead: the energy counter has not moved"):
        taker.take(lambda: machine.busy(3.0))


def test_a_recorded_power_profile_is_read_back(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    points = [(0, 0), (1, 50), (3, 650), (4, 700), (5, 750)]  # 50 W, 300 W for 2 s, 50 W
    meter = ReplayMeter(Profile([EnergyPoint(t_s=t_s, energy_j=j) for t_s, j in points]), machine, step_s=0.02)
    machine.pause(0.985)

    window = taker_of(machine, meter).take(lambda: machine.busy(2.0))

    assert window.energy_j - 50 * window.tail_s == pytest.approx(600, abs=window.uncertainty_j)
    assert window.uncertainty_j < 3


def test_the_steady_clock_waits() -> None:
    clock = SteadyClock()
    before_s = clock.now_s()
    clock.pause(0.0)
    assert clock.now_s() >= before_s
