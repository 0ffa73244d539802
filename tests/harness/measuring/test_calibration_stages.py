"""A whole calibration of virtual machines, as short as can be, against what they are."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from harness.errors import MeterFailed
from harness.measuring.calibration import Calibration
from harness.measuring.calibration_making import make_calibration
from harness.measuring.calibration_records import DeviceCalibration
from harness.measuring.calibration_stages import Stages
from harness.measuring.calibration_watch import Busy
from harness.measuring.protocol import STANDARD
from harness.meters.base import Conditions
from harness.meters.replay import Profile, ReplayMeter
from harness.meters.selection import MeterBank
from harness.records import Provenance
from harness.virtual.faults import Fault, FaultKind
from harness.virtual.gpu import VirtualGpu, read_virtual_gpu
from harness.virtual.machine import VirtualMachine
from tests.harness.measuring.calibration_machines import (
    SHORT,
    LingeringDevice,
    PausingManualClock,
    Virtual,
    random_gpu,
    seen_window_s,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def calibrated(gpu: VirtualGpu, *, gpus: int = 1, seed: int = 0) -> tuple[DeviceCalibration, ...]:
    virtual = Virtual(gpu, gpus=gpus, seed=seed)
    rng = random.Random(seed)
    return Stages(virtual.bank, virtual.clock, virtual.load, lengths=SHORT, rng=rng).calibrate()


def with_sensor(gpu: VirtualGpu, **changes: object) -> VirtualGpu:
    return replace(gpu, sensor=replace(gpu.sensor, **changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def h100() -> VirtualGpu:
    return with_sensor(read_virtual_gpu("h100-sxm"), gain=1.0)


@pytest.fixture(scope="module")
def h100_calibrated(h100: VirtualGpu) -> DeviceCalibration:
    (device,) = calibrated(h100)
    return device


@pytest.mark.parametrize(("seed", "gpus"), [(202, 2), (203, 1), (211, 4)])
def test_random_machines_are_found_to_be_what_they_are(seed: int, gpus: int) -> None:
    gpu = random_gpu(seed)
    sensor, load = gpu.sensor, gpu.load

    for device in calibrated(gpu, gpus=gpus, seed=seed):
        counter, idle = device.counter, device.idle
        assert counter is not None
        assert counter.period_s == pytest.approx(sensor.counter_period_s, rel=0.005)
        assert counter.quantum_j == pytest.approx(sensor.counter_quantum_j)
        assert counter.read_median_s == pytest.approx(1.25e-4, rel=0.2)
        assert counter.sampled_share is not None
        share = sensor.duty_cycle if sensor.counter_sampled else 1.0
        assert counter.sampled_share.value == pytest.approx(share, abs=0.15)
        assert device.reported is not None
        assert device.reported.window_s is not None
        assert device.reported.window_s.ci95 is not None
        seen_s = seen_window_s(sensor, sensor.average_window_s)
        assert device.reported.window_s.value == pytest.approx(seen_s, rel=0.2, abs=2 * device.reported.window_s.ci95)
        assert idle.bare_w is not None
        assert idle.context_w is not None
        # Leakage comes on top, more of it with a context, which warms the device.
        added_w = idle.context_w.value - idle.bare_w.value
        assert added_w == pytest.approx(load.idle_power_w - load.bare_idle_power_w, rel=0.1, abs=2.0)
        assert device.load_gap is not None
        assert abs(device.load_gap.value) < 0.02
        assert device.load_w is not None
        assert device.load_w.value > idle.context_w.value + 50


def sampled_share(device: DeviceCalibration) -> float:
    """What the counter sees."""
    assert device.counter is not None
    assert device.counter.sampled_share is not None
    return device.counter.sampled_share.value


def seen_to_alias(device: DeviceCalibration) -> bool:
    """With a load of the counter's period."""
    (beat,) = [one for one in device.aliasing if one.load_period_s == pytest.approx(0.1, rel=0.01)]
    return beat.seen


def test_a_counter_that_shares_the_sensors_duty_cycle_is_seen_to_alias(h100: VirtualGpu) -> None:
    (device,) = calibrated(with_sensor(h100, counter_sampled=True))

    assert sampled_share(device) == pytest.approx(0.25, abs=0.05)
    assert seen_to_alias(device)


def test_a_counter_that_sees_everything_does_not_alias_though_its_power_fields_do(
    h100_calibrated: DeviceCalibration,
) -> None:
    device = h100_calibrated

    assert sampled_share(device) == pytest.approx(1.0, abs=0.05)
    assert not seen_to_alias(device)
    assert device.aliasing[0].polled_worst is not None
    assert device.aliasing[0].polled_worst > 0.3
    assert device.instant is not None
    assert device.instant.sampled_share == pytest.approx(0.25, abs=0.03)


def test_a_mean_of_one_second_is_found_though_the_load_ran_shortly_before(h100_calibrated: DeviceCalibration) -> None:
    reported = h100_calibrated.reported

    assert reported is not None
    assert reported.window_s is not None
    assert reported.window_s.value == pytest.approx(1.0, rel=0.02)
    assert reported.misfit is not None
    assert reported.misfit < 0.02


def test_missing_fields_are_none_with_the_reason(h100: VirtualGpu) -> None:
    (device,) = calibrated(with_sensor(h100, missing=("instant", "temperature")))

    assert device.instant is None
    assert device.load_gap is None
    assert device.idle_gap is None
    assert device.idle.w_per_c is None
    assert device.idle.time_constant_s is None
    assert any("no instant power" in note for note in device.notes)
    assert device.counter is not None


def test_without_a_counter_the_power_fields_are_calibrated_all_the_same(h100: VirtualGpu) -> None:
    (device,) = calibrated(with_sensor(h100, missing=("counter",)))

    assert device.counter is None
    assert device.load_w is None
    assert device.idle.bare_w is None
    assert device.idle.tail_share is None
    assert device.aliasing == ()
    assert device.instant is not None
    assert any("no energy counter" in note for note in device.notes)


def test_a_counter_that_stands_still_is_an_error(h100: VirtualGpu) -> None:
    machine = VirtualMachine(h100, gpus=1, seed=0, faults=(Fault(kind=FaultKind.STANDS_STILL, gpu=0, at_s=0.0),))
    bank = MeterBank(machine.meters(), machine.clock, why="virtual")
    load = Virtual(h100).load

    with pytest.raises(MeterFailed, match="stood still"):
        Stages(bank, machine.clock, load, lengths=SHORT, rng=random.Random(1)).calibrate()


def test_a_load_without_a_context_leaves_one_idle_power() -> None:
    device = LingeringDevice(share=0.3, tau_s=0.03, lag_s=0.01)

    (found,) = Stages(device.bank, device.clock, device, lengths=SHORT, rng=random.Random(1)).calibrate()

    assert found.idle.context_w is None
    assert found.idle.bare_w is not None
    assert found.idle.bare_w.value == pytest.approx(100.0, rel=0.01)
    assert found.load_w is not None
    assert found.load_w.value == pytest.approx(500.0, rel=0.01)
    assert found.counter is not None
    assert found.counter.lag_s is not None
    assert found.counter.lag_s.value == pytest.approx(0.01, abs=0.002)
    assert any("one idle power only" in note for note in found.notes)


def test_two_calibrations_of_one_machine_are_equal(h100: VirtualGpu, h100_calibrated: DeviceCalibration) -> None:
    assert calibrated(h100) == (h100_calibrated,)


class _NoLoad:
    name = "none"
    has_context = False

    def prepare(self) -> None:
        raise AssertionError("an estimate needs no load")

    def run(self, duration_s: float, look: Callable[[], None], every_s: float) -> Busy:
        raise AssertionError("an estimate needs no load")


class _Estimating(ReplayMeter):
    provenance = Provenance.ESTIMATED


def test_where_energy_is_estimated_only_the_read_is_timed() -> None:
    clock = PausingManualClock(per_read_s=1e-6)
    meter = _Estimating(Profile.constant(30.0), clock, conditions=Conditions)

    found = make_calibration(
        MeterBank((meter,), clock, why="estimated"), clock, _NoLoad(), quick=True, rng=random.Random(1), now=NOW
    )

    (device,) = found.devices
    assert device.counter is not None
    assert device.counter.read_median_s == pytest.approx(2e-6)
    assert device.counter.period_s is None
    assert device.idle.bare_w is None
    assert device.load_w is None
    assert any("There is no sensor to calibrate" in note for note in found.notes)
    assert found.protocol(STANDARD) == STANDARD


def test_a_made_calibration_says_how_it_was_made(h100: VirtualGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.measuring.calibration_making.QUICK_LENGTHS", SHORT)
    virtual = Virtual(h100)

    found = make_calibration(virtual.bank, virtual.clock, virtual.load, quick=True, rng=random.Random(1), now=NOW)

    assert found.provenance is Provenance.SIMULATED
    assert found.method == "virtual-counter"
    assert found.calibrated_at_utc == "2026-11-24T12:00:00+00:00"
    assert found.quick
    assert Calibration.from_json(found.to_json()) == found
    facts = virtual.bank.facts()
    assert found.difference(provenance=found.provenance, method=found.method, facts=facts) is None
