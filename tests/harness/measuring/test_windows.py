import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pytest

from harness.errors import MeterFailed, WindowTooShort
from harness.measuring.precision import Precision
from harness.measuring.results import IdleFloor, reading95_j, work_energy_j
from harness.measuring.windows import SteadyClock, Window, WindowTaker
from harness.meters.base import Conditions
from harness.meters.replay import EnergyPoint, Profile, ReplayMeter
from harness.meters.selection import MeterBank
from tests.harness.measuring.made import idle_floor

CASES = 300


@dataclass(frozen=True)
class Case:
    """One window with its truth."""

    window: Window
    true_j: float  # of the work, over all devices
    idle: IdleFloor
    step_s: float

    @property
    def error_j(self) -> float:
        """Of the work's energy, over all devices."""
        devices = range(len(self.window.spans))
        return sum(work_energy_j(self.window, self.idle, device) for device in devices) - self.true_j

    def half_j(self, tail95: float) -> float:
        """Half width of what the readings say."""
        return reading95_j(self.window, self.idle, Precision(tail95=tail95), step_s=self.step_s).all_j


def one_case(machine: Any, taker: WindowTaker, duration_s: float, *, linger: float, jitter_s: float = 0.0) -> Case:
    """Power that lingers is simulated by a truth that lacks it."""
    window = taker.take(lambda: machine.busy(duration_s), jitter_s=jitter_s)
    active_w = machine.load_w - machine.idle_w
    lingering_j = sum(linger * span.tail_s * active_w for span in window.spans)
    used_j = machine.used_j(window.started_s, window.started_s + window.work_s)
    return Case(
        window=window,
        true_j=len(window.spans) * used_j - lingering_j,
        idle=idle_floor(*(machine.idle_w,) * len(window.spans)),
        step_s=taker.step_s,
    )


def cases(
    make_machine: Callable[..., Any], *, devices: int, linger: float = 0.0, slowest_read_s: float = 4e-4
) -> list[Case]:
    """Windows of random step, start phase, length, power and read latency; power lingers for a share of the tail."""
    rng = random.Random(5)
    found = []
    for _ in range(CASES):
        machine = make_machine(
            idle_w=rng.uniform(20, 120), load_w=rng.uniform(150, 700), read_s=rng.uniform(0, slowest_read_s)
        )
        steps_s = [rng.uniform(0.01, 0.2) for _ in range(devices)]
        taker = machine.taker(*steps_s, phases_s=tuple(rng.uniform(0, step_s) for step_s in steps_s))
        machine.pause(rng.uniform(0, 1))
        duration_s = rng.uniform(max(5 * max(steps_s), 0.3), 10)
        jitter_s = rng.uniform(0, max(steps_s))
        found.append(one_case(machine, taker, duration_s, linger=linger, jitter_s=jitter_s))
    return found


def held(found: list[Case], tail95: float) -> float:
    return sum(abs(case.error_j) <= case.half_j(tail95) for case in found) / len(found)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_true_energy_lies_within_what_the_readings_say(make_machine: Callable[..., Any], devices: int) -> None:
    """Nothing lingers here, so the interval is that of the times of the counters' steps alone."""
    found = cases(make_machine, devices=devices)
    errors = sorted(abs(case.error_j) / case.true_j for case in found)

    assert held(found, 0.0) >= 0.93
    assert errors[CASES // 2] < 1e-4
    assert errors[-1] < 3e-3
    assert abs(fmean(case.error_j / case.half_j(0.0) for case in found)) < 0.1, "no side is favoured"


@pytest.mark.parametrize("devices", [1, 4, 8])
def test_power_that_lingers_on_every_device_is_covered(make_machine: Callable[..., Any], devices: int) -> None:
    found = cases(make_machine, devices=devices, linger=0.2)
    assert held(found, 0.25) >= 0.95
    assert held(found, 0.1) < 0.2, "the interval is not wider than what is said to linger"
    assert sorted(case.half_j(0.25) / case.true_j for case in found)[CASES // 2] < 0.01


def test_every_device_has_a_lead_and_a_tail_that_end_at_its_steps(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    taker = machine.taker(0.1, 0.07)
    machine.pause(0.537)

    window = taker.take(lambda: machine.busy(1.23), jitter_s=0.04)

    slow, fast = window.spans
    assert slow.started_s == pytest.approx(0.6, abs=2e-3)
    assert fast.started_s == pytest.approx(0.56, abs=2e-3)
    assert window.started_s == pytest.approx(0.64, abs=2e-3)
    assert window.work_s == pytest.approx(1.23)
    for span, end_s in ((slow, 1.9), (fast, 1.89)):
        assert span.started_s + span.duration_s == pytest.approx(end_s, abs=2e-3)
        assert span.lead_s == pytest.approx(window.started_s - span.started_s)
        assert span.tail_s == pytest.approx(span.duration_s - span.lead_s - 1.23)
        assert span.energy_j == pytest.approx(300 * 1.23 + 60 * span.idle_s, abs=0.3)
        assert span.counter_end_j - span.counter_start_j == span.energy_j
    assert window.energy_j == slow.energy_j + fast.energy_j


@pytest.mark.parametrize("devices", [1, 8])
def test_slow_reads_make_the_times_of_steps_less_certain(make_machine: Callable[..., Any], devices: int) -> None:
    found = cases(make_machine, devices=devices, slowest_read_s=5e-3)
    assert held(found, 0.0) >= 0.93
    assert sorted(abs(case.error_j) / case.true_j for case in found)[CASES // 2] < 5e-4


class Late(Profile):
    """What a machine has used, shown late."""

    def __init__(self, machine: Any, lag_s: float) -> None:
        self._history = machine.history()
        self._lag_s = lag_s

    def energy_j(self, t_s: float) -> float:
        return float(self._history.energy_j(max(0.0, t_s - self._lag_s)))


@pytest.mark.parametrize(("waited_s", "right"), [(0.25, True), (0.0, False)])
def test_energy_that_shows_late_is_waited_for_at_both_ends(
    make_machine: Callable[..., Any], waited_s: float, right: bool
) -> None:
    """There is a load right before the window too, which must not get into it."""
    machine = make_machine()
    bank = MeterBank([ReplayMeter(Late(machine, 0.25), machine, step_s=0.1)], machine, why="a test")
    taker = WindowTaker(bank, machine, shortest_s=0.3, precision=Precision(lag_s=waited_s))
    machine.busy(2.0)

    window = taker.take(lambda: machine.busy(1.0, 500.0))

    found_j = work_energy_j(window, idle_floor(60.0), 0)
    assert (found_j == pytest.approx(500, abs=0.3)) is right
    assert (window.spans[0].started_s > 2.25) is right


def test_an_estimate_is_read_at_once_and_has_no_tail(make_machine: Callable[..., Any]) -> None:
    machine = make_machine()
    taker = machine.taker(0.1, estimating=True)
    machine.pause(0.2)

    window = taker.take(lambda: machine.busy(1.2))

    (span,) = window.spans
    assert (span.lead_s, span.tail_s) == (0, 0)
    assert window.started_s == span.started_s == pytest.approx(0.3)
    assert window.work_s == span.duration_s == pytest.approx(1.2)
    assert span.timing95_s == pytest.approx(1.96 * 0.001 * (2 / 3) ** 0.5)


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

    assert work_energy_j(window, idle_floor(50.0), 0) == pytest.approx(600, abs=0.1)


def test_the_steady_clock_waits() -> None:
    clock = SteadyClock()
    before_s = clock.now_s()
    clock.pause(0.0)
    assert clock.now_s() >= before_s
