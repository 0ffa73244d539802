"""One suite for all meters: what measuring relies on, whatever the counter is."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MeterError, MeterFailed
from harness.meters.base import Conditions, DeviceFacts, DeviceMeter, ManualClock
from harness.meters.estimate import EstimateMeter, PowerModel
from harness.meters.period import measure_step_s
from harness.meters.rapl import RaplMeter
from harness.meters.replay import Profile, ReplayMeter
from harness.records import Provenance
from harness.virtual.faults import Fault, FaultKind
from harness.virtual.machine import VirtualClock
from tests.harness.virtual.virtual_examples import a_machine

POWER_W = 300.0


@dataclass
class Rig:
    """A meter over a device that draws 300 W all the time."""

    meter: DeviceMeter
    clock: ManualClock | VirtualClock
    advance: Callable[[float], None]
    break_it: Callable[[], None]


class NvmlMeterElsewhere:
    """The NVML meter of another process, which has the stand-in library."""

    step_s = 0.1

    def __init__(self, machine: Any) -> None:
        self._machine = machine
        machine.ask("globals().update(meter=NvmlMeter(visible_gpus()[0]))")
        self.name: str = machine.ask("meter.name")
        self.method: str = machine.ask("meter.method")
        self.provenance = Provenance(machine.ask("meter.provenance"))

    def read_j(self) -> float:
        return float(self._machine.ask("meter.read_j()"))

    def close(self) -> None:
        self._machine.ask("meter.close()")

    def conditions(self, *, powers: bool = True) -> Conditions:
        return Conditions(**self._machine.ask(f"meter.conditions(powers={powers})"))

    def facts(self) -> DeviceFacts:
        return DeviceFacts(**self._machine.ask("meter.facts()"))


def replay_rig(request: pytest.FixtureRequest) -> Rig:
    clock = ManualClock(5.0)
    meter = ReplayMeter(Profile.constant(POWER_W), clock)
    return Rig(meter, clock, clock.advance, lambda: meter.fail("pulled out"))


def rapl_rig(request: pytest.FixtureRequest) -> Rig:
    powercap: Callable[..., Path] = request.getfixturevalue("powercap")
    clock = ManualClock()
    root = powercap({"intel-rapl:0": ("package-0", 7_000), "intel-rapl:0:0": ("dram", 11)})

    def advance(duration_s: float) -> None:
        clock.advance(duration_s)
        for domain, power_w in (("intel-rapl:0", 250), ("intel-rapl:0:0", 50)):
            file = root / domain / "energy_uj"
            file.write_text(str(int(file.read_text()) + round(power_w * duration_s * 1e6)))

    return Rig(RaplMeter(root), clock, advance, (root / "intel-rapl:0" / "energy_uj").unlink)


def estimate_rig(request: pytest.FixtureRequest) -> Rig:
    clock = ManualClock(9.0)
    power_w = [POWER_W - 20]
    model = PowerModel(tdp_w=400, tdp_known=True, ram_w=20, cpu_power_w=lambda: power_w[0])
    return Rig(EstimateMeter(model, clock), clock, clock.advance, lambda: power_w.__setitem__(0, float("nan")))


def nvml_rig(request: pytest.FixtureRequest) -> Rig:
    machine = request.getfixturevalue("nvml_machine")()
    clock = ManualClock(1000.0)
    machine.describe(power_mw=300_000, now_s=1000.0)

    def advance(duration_s: float) -> None:
        clock.advance(duration_s)
        machine.describe(now_s=repr(clock.now_s()))

    break_it = lambda: machine.describe(error__nvmlDeviceGetTotalEnergyConsumption=15)  # noqa: E731
    return Rig(NvmlMeterElsewhere(machine), clock, advance, break_it)


def virtual_rig(request: pytest.FixtureRequest) -> Rig:
    lost = Fault(kind=FaultKind.LOST, gpu=0, at_s=100.0)
    machine = a_machine(bare_idle_power_w=POWER_W, faults=[lost])
    clock = machine.clock
    return Rig(machine.meters()[0], clock, clock.pause, lambda: clock.pause(100.0))


@pytest.fixture(
    params=[replay_rig, rapl_rig, estimate_rig, nvml_rig, virtual_rig],
    ids=["replay", "rapl", "estimate", "nvml", "virtual"],
)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = request.param(request)
    yield rig
    rig.meter.close()


def test_a_meter_says_what_it_is(rig: Rig) -> None:
    assert rig.meter.name
    assert rig.meter.method
    assert rig.meter.provenance in (Provenance.MEASURED, Provenance.ESTIMATED, Provenance.SIMULATED)
    assert rig.meter.step_s > 0
    assert rig.meter.facts().name


def test_energy_is_power_times_time_in_joules(rig: Rig) -> None:
    before_j = rig.meter.read_j()
    rig.advance(10.0)

    assert rig.meter.read_j() - before_j == pytest.approx(3000.0, abs=POWER_W * rig.meter.step_s)


def test_energies_of_windows_that_follow_each_other_add_up(rig: Rig) -> None:
    levels_j = [rig.meter.read_j()]
    for duration_s in (0.5, 2.0, 0.25, 7.25):
        rig.advance(duration_s)
        levels_j.append(rig.meter.read_j())

    assert levels_j[-1] - levels_j[0] == pytest.approx(3000.0, abs=POWER_W * rig.meter.step_s)


def test_the_counter_never_goes_back(rig: Rig) -> None:
    levels_j = []
    for duration_s in (0.0, 0.001, 0.03, 0.07, 0.0, 0.1, 3.0, 0.0):
        rig.advance(duration_s)
        levels_j.append(rig.meter.read_j())

    assert levels_j == sorted(levels_j)


def test_reading_twice_at_one_instant_uses_no_energy(rig: Rig) -> None:
    rig.advance(1.0)

    assert rig.meter.read_j() == rig.meter.read_j()


def test_a_failure_is_an_error_and_not_a_number(rig: Rig) -> None:
    rig.advance(1.0)
    rig.meter.read_j()
    rig.advance(1.0)
    rig.break_it()

    with pytest.raises(MeterError) as failure:
        rig.meter.read_j()
    assert "\n" in str(failure.value), "the message ends with what to do"


def test_a_meter_closes_twice_and_then_refuses_to_read(rig: Rig) -> None:
    rig.meter.close()
    rig.meter.close()

    with pytest.raises(MeterFailed, match="closed"):
        rig.meter.read_j()


def test_what_a_device_does_not_tell_is_none_and_not_zero(rig: Rig) -> None:
    conditions = rig.meter.conditions()

    assert conditions.power_w is None or conditions.power_w > 0
    assert conditions.sm_clock_mhz is None or conditions.sm_clock_mhz > 0


def test_a_counter_that_stands_still_has_no_step(rig: Rig) -> None:
    assert measure_step_s(rig.meter, ManualClock(per_read_s=0.01), max_wait_s=0.3) is None
