"""Faults, each with its cause, at its time, and gone when it is over."""

from typing import Any

import pytest

from harness.errors import MeterCause, MeterError, MeterFailed, MeterUnavailable
from harness.meters.base import Conditions
from harness.records import Provenance
from harness.virtual.faults import Fault, FaultKind
from harness.virtual.gpu import FEATURES
from harness.virtual.machine import VirtualMachine
from harness.virtual.meter import VirtualMeter
from tests.harness.virtual.virtual_examples import COMPUTE, a_machine, work


def with_fault(kind: str, **values: Any) -> tuple[VirtualMachine, VirtualMeter]:
    """A machine that idles at 100 W, whose second GPU has a fault from 10 s on."""
    fault = Fault(kind=FaultKind(kind), gpu=1, **{"at_s": 10.0} | values)
    machine = a_machine(gpus=2, faults=[fault])
    machine.load_context()
    return machine, machine.meters()[1]


def level_at(machine: VirtualMachine, meter: VirtualMeter, at_s: float) -> float:
    machine.clock.pause(at_s - machine.clock.now_s())
    return meter.read_j()


def test_a_counter_that_stands_still_keeps_what_it_showed() -> None:
    machine, meter = with_fault("stands_still", until_s=20.0)
    start_j = level_at(machine, meter, 5)

    stuck_j = [level_at(machine, meter, at_s) for at_s in (11, 15, 19)]

    assert len(set(stuck_j)) == 1
    assert stuck_j[0] - start_j == pytest.approx(500, abs=10)
    assert level_at(machine, meter, 25) - start_j == pytest.approx(2000, abs=10)


def test_what_it_shows_does_not_depend_on_when_it_was_last_read() -> None:
    first, second = with_fault("stands_still"), with_fault("stands_still")
    for at_s in (3, 9.99, 10.2):
        level_at(*first, at_s)

    assert level_at(*first, 30) == level_at(*second, 30)


def test_faults_begin_in_the_order_of_their_times() -> None:
    back = Fault(kind=FaultKind.GOES_BACK, gpu=0, at_s=10.0, until_s=11.0)
    still = Fault(kind=FaultKind.STANDS_STILL, gpu=0, at_s=5.0)
    machine, at_once = a_machine(faults=[back, still]), a_machine(faults=[still])

    assert level_at(machine, machine.meters()[0], 20) == level_at(at_once, at_once.meters()[0], 5.001)


def test_a_counter_that_jumps_shows_so_much_more() -> None:
    machine, meter = with_fault("jumps", value=5000.0)
    start_j = level_at(machine, meter, 9)

    assert level_at(machine, meter, 11) - start_j == pytest.approx(5200, abs=10)
    assert level_at(machine, meter, 12) - start_j == pytest.approx(5300, abs=10)


def test_a_counter_that_goes_back_starts_again_at_the_bottom() -> None:
    machine, meter = with_fault("goes_back")
    assert level_at(machine, meter, 9) > 1000

    assert level_at(machine, meter, 12) == pytest.approx(200, abs=10)
    assert level_at(machine, meter, 22) == pytest.approx(1200, abs=10)


@pytest.mark.parametrize(
    ("kind", "cause", "words"),
    [
        ("lost", MeterCause.DEVICE_LOST, "GPU is lost"),
        ("hangs", MeterCause.HUNG, "time-out"),
        ("no_permission", MeterCause.NO_PERMISSION, "Insufficient Permissions"),
        ("not_supported", MeterCause.NOT_SUPPORTED, "Not Supported"),
    ],
)
def test_a_counter_that_cannot_be_read_says_why_and_only_while_it_lasts(
    kind: str, cause: MeterCause, words: str
) -> None:
    machine, meter = with_fault(kind, until_s=40.0)
    level_at(machine, meter, 9)

    machine.clock.pause(2)
    with pytest.raises(MeterFailed, match=rf"virtual:1.*{words}.*\n.+") as failure:
        meter.read_j()

    assert failure.value.cause is cause
    assert machine.meters()[0].read_j() > 0, "the other GPU is well"
    assert level_at(machine, meter, 41) > 0


def test_a_call_that_hangs_is_given_up_after_its_time() -> None:
    machine, meter = with_fault("hangs", value=3.0)
    machine.clock.pause(11)

    for call in (meter.read_j, meter.instant_power_w, meter.average_power_w):
        before_s = machine.clock.now_s()
        with pytest.raises(MeterFailed, match="time-out"):
            call()
        assert machine.clock.now_s() - before_s == pytest.approx(3, abs=0.01)


@pytest.mark.parametrize("kind", ["lost", "hangs"])
def test_nothing_is_known_of_a_gpu_that_does_not_answer(kind: str) -> None:
    machine, meter = with_fault(kind)
    machine.clock.pause(11)

    assert meter.conditions() == Conditions()
    with pytest.raises(MeterFailed):
        meter.instant_power_w()
    assert machine.meters()[0].conditions() != Conditions()


def test_a_foreign_process_draws_power_and_can_be_seen() -> None:
    machine, meter = with_fault("foreign_process", until_s=20.0, value=70.0)
    seen = []
    for at_s in (5, 15, 25):
        machine.clock.pause(at_s - machine.clock.now_s())
        conditions = meter.conditions()
        seen.append((conditions.other_processes, round(conditions.power_w or 0, 3)))

    assert seen == [(0, 100.0), (1, 170.0), (0, 100.0)]
    assert machine.truth.energy_between_j(1, 0, 25) == pytest.approx(2500 + 700)
    assert machine.truth.energy_between_j(0, 0, 25) == pytest.approx(2500)


def test_what_a_foreign_process_draws_during_a_run_is_kept_apart() -> None:
    machine, _ = with_fault("foreign_process", at_s=1.1, until_s=2.13)  # passes last 10 ms

    machine.run(machine.compile(work(COMPUTE)), 300, label="work")

    truth = machine.truth.of("work")
    assert truth.foreign_energy_j.tolist() == pytest.approx([0, 61.8], abs=0.61)
    assert truth.energy_j.tolist() == pytest.approx([774, 774 + truth.foreign_energy_j[1]])
    assert truth.kernel_energy_j[:, 0].tolist() == pytest.approx([774, 774])


def test_a_changed_power_limit_slows_one_gpu_and_can_be_seen() -> None:
    machine, meter = with_fault("power_limit", at_s=1.0, value=200.0)
    assert meter.conditions().power_limit_w == 1000

    machine.run(machine.compile(work(COMPUTE)), 500, label="work")
    limited, free = meter.conditions(), machine.meters()[0].conditions()

    assert (limited.power_limit_w, limited.throttle_reasons) == (200, 0x4)
    assert limited.sm_clock_mhz is not None
    assert limited.sm_clock_mhz < 1800
    assert limited.power_w is not None
    assert 195 < limited.power_w <= 200.001
    assert (free.sm_clock_mhz, free.throttle_reasons) == (2000, 0)
    assert meter.facts().power_limit_w == 200


def test_power_that_a_foreign_process_draws_is_taken_from_the_limit() -> None:
    foreign = Fault(kind=FaultKind.FOREIGN_PROCESS, gpu=0, at_s=0.0, value=100.0)
    machine = a_machine(faults=[foreign], power_limit_w=300.0)

    machine.run(machine.compile(work(COMPUTE)), 100, label="work")

    truth = machine.truth.of("work")
    assert 297 < truth.energy_j[0] / truth.duration_s <= 300


def test_a_gpu_that_is_too_hot_drops_its_clock_and_says_so() -> None:
    machine, meter = with_fault("throttle", at_s=1.0, until_s=6.0, value=0.5)
    program = machine.compile(work(COMPUTE))

    machine.run(program, 100, label="before")
    machine.run(program, 100, label="hot")
    hot = meter.conditions()
    machine.clock.pause(7 - machine.clock.now_s())
    machine.run(program, 100, label="after")

    durations_s = [machine.truth.of(label).kernel_duration_s[1, 0] for label in ("before", "hot", "after")]
    assert durations_s == pytest.approx([1, 2, 1])
    assert (hot.sm_clock_mhz, hot.throttle_reasons) == (1000, 0x20)
    assert meter.conditions().throttle_reasons == 0


@pytest.mark.parametrize("feature", FEATURES)
def test_what_the_sensor_lacks_is_none_or_an_error_and_never_zero(feature: str) -> None:
    machine = a_machine(sensor={"missing": (feature,)})
    (meter,) = machine.meters()
    fields = {
        "instant": {"power_w"},
        "average": {"reported_power_w", "average_power_w"},
        "temperature": {"temperature_c"},
        "clocks": {"sm_clock_mhz"},
        "processes": {"other_processes"},
        "throttle": {"throttle_reasons"},
    }.get(feature, set())
    calls = {"counter": meter.read_j, "instant": meter.instant_power_w, "average": meter.average_power_w}

    conditions = meter.conditions()

    missing = {name for name in Conditions.__dataclass_fields__ if getattr(conditions, name) is None}
    assert missing == fields | {"memory_clock_mhz", "performance_state"}
    for name, call in calls.items():
        if name == feature:
            with pytest.raises(MeterUnavailable, match=r"Not Supported.*\n") as failure:
                call()
            assert failure.value.cause is MeterCause.NOT_SUPPORTED
        else:
            assert call() > 0


def test_a_closed_meter_tells_nothing_more() -> None:
    (meter,) = a_machine().meters()
    meter.close()

    for call in (meter.read_j, meter.instant_power_w, meter.average_power_w):
        with pytest.raises(MeterError, match="closed"):
            call()


def test_nobody_can_take_a_virtual_meter_for_a_real_one() -> None:
    machine = a_machine(gpus=2)
    facts = [meter.facts() for meter in machine.meters()]

    assert all(meter.provenance is Provenance.SIMULATED for meter in machine.meters())
    assert all("VIRTUAL" in one.name for one in facts)
    assert facts[0].uuid_sha256 != facts[1].uuid_sha256
    assert facts[0].power_limit_w == 1000


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "explodes"},
        {"kind": "jumps"},
        {"kind": "power_limit"},
        {"kind": "lost", "value": 3.0},
        {"kind": "throttle", "value": 1.5},
        {"kind": "foreign_process", "value": -1.0},
        {"kind": "hangs", "value": 0.0},
        {"kind": "lost", "gpu": -1},
        {"kind": "lost", "at_s": 5.0, "until_s": 5.0},
        {"kind": "lost", "at_s": -1.0},
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"fault|value|explodes"):
        Fault(**{"gpu": 0, "at_s": 1.0} | values)


def test_a_fault_of_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="not among the 1"):
        a_machine(faults=[Fault(kind=FaultKind.LOST, gpu=1, at_s=0.0)])
