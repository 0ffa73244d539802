from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.errors import MeterCause, MeterFailed, MeterUnavailable, UsageError
from harness.meters.base import Clock, CounterRead, ManualClock
from harness.meters.estimate import EstimateMeter, PowerModel
from harness.meters.replay import Profile, ReplayMeter
from harness.meters.selection import MeterBank, describe, meters_for
from harness.records import Provenance


@dataclass
class Order:
    """In which order meters were read."""

    names: list[str] = field(default_factory=list)


class NotedMeter(ReplayMeter):
    def __init__(self, name: str, power_w: float, clock: ManualClock, order: Order) -> None:
        super().__init__(Profile.constant(power_w), clock, step_s=0.01, name=name)
        self._order = order

    def read_j(self) -> float:
        self._order.names.append(self.name)
        return super().read_j()


def noted_bank(clock: ManualClock, order: Order) -> MeterBank:
    meters = [NotedMeter(f"gpu{i}", 100.0 * (i + 1), clock, order) for i in range(3)]
    return MeterBank(meters, clock, why="for the test")


def estimate_of_test(clock: ManualClock) -> EstimateMeter:
    return EstimateMeter(PowerModel(tdp_w=10, tdp_known=False, ram_w=1, cpu_power_w=lambda: 1.0), clock)


@pytest.fixture
def estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EstimateMeter, "of_this_machine", estimate_of_test)


def test_counters_are_read_forwards_at_the_start_and_backwards_at_the_end() -> None:
    clock, order = ManualClock(per_read_s=0.001), Order()
    bank = noted_bank(clock, order)
    start = bank.read_start()
    end = bank.read_end()

    assert order.names == ["gpu0", "gpu1", "gpu2", "gpu2", "gpu1", "gpu0"]
    lengths_s = [late.at_s - early.at_s for early, late in zip(start, end, strict=True)]
    assert lengths_s == sorted(lengths_s, reverse=True)
    middles_s = [(late.at_s + early.at_s) / 2 for early, late in zip(start, end, strict=True)]
    assert middles_s == pytest.approx([middles_s[0]] * 3)


def test_a_read_carries_its_middle_and_how_long_it_took() -> None:
    clock = ManualClock(now_s=10.0, per_read_s=0.5)
    meter = ReplayMeter(Profile.constant(1.0), clock)  # reads the clock once when made, once per read
    (read,) = MeterBank((meter,), clock, why="").read_start()

    assert read.at_s == pytest.approx(11.5)
    assert read.latency_s == pytest.approx(1.0)


class ToldMeter(ReplayMeter):
    """Knows better than its reader when it looked."""

    def read_at(self, clock: Clock) -> CounterRead:
        return CounterRead(energy_j=3.0, at_s=clock.now_s() - 1.0, latency_s=0.001)


def test_a_meter_that_knows_when_it_looked_is_believed() -> None:
    clock = ManualClock(10.0)
    bank = MeterBank((ToldMeter(Profile.constant(1.0), clock),), clock, why="")

    assert bank.read_start() == (CounterRead(energy_j=3.0, at_s=9.0, latency_s=0.001),)


class LateMeter(ReplayMeter):
    """Integrates samples of a mean."""

    lag_s = 0.5

    def sampling95_j(self, start_s: float, end_s: float) -> float | None:
        return None if start_s < 0 else 0.1 * (end_s - start_s)


def test_a_bank_says_what_sampling_costs_and_a_bank_of_counters_that_it_costs_nothing() -> None:
    clock = ManualClock()
    counters = MeterBank((ReplayMeter(Profile.constant(1.0), clock),), clock, why="")
    sampled = MeterBank([LateMeter(Profile.constant(1.0), clock)] * 2, clock, why="")

    assert (counters.lag_s, counters.sampling95_j(0, 9), counters.sampler()) == (0.0, None, None)
    assert sampled.lag_s == 0.5
    assert sampled.sampling95_j(1, 9) == pytest.approx((0.8, 0.8))
    assert sampled.sampling95_j(-1, 9) == (None, None)


def test_each_device_keeps_its_own_energy() -> None:
    clock = ManualClock()
    bank = noted_bank(clock, Order())
    start = bank.read_start()
    clock.advance(2.0)
    end = bank.read_end()

    energies_j = [late.energy_j - early.energy_j for early, late in zip(start, end, strict=True)]
    assert energies_j == pytest.approx([200.0, 400.0, 600.0])
    assert [read.latency_s for read in end] == [0.0, 0.0, 0.0]


def test_a_bank_is_as_slow_as_its_slowest_counter() -> None:
    clock = ManualClock(per_read_s=0.0002)
    fast = ReplayMeter(Profile.constant(1), clock, step_s=0.02)
    slow = ReplayMeter(Profile.constant(1), clock, step_s=0.05)
    fast.step_s = slow.step_s = 0.1
    bank = MeterBank((fast, slow), clock, why="")
    bank.measure_steps()

    assert bank.step_s == pytest.approx(0.05, abs=0.002)


def test_a_counter_that_stands_still_is_a_failure_and_not_zero_joules() -> None:
    clock = ManualClock(per_read_s=0.001)
    bank = MeterBank((ReplayMeter(Profile.constant(0), clock),), clock, why="")

    with pytest.raises(MeterFailed, match=r"stood still for 0\.5 s") as failure:
        bank.measure_steps(max_wait_s=0.5)
    assert failure.value.cause is MeterCause.COUNTER_STOOD_STILL


def test_provenances_are_never_mixed_in_a_bank() -> None:
    clock = ManualClock()

    with pytest.raises(ValueError, match="never mixed"):
        MeterBank((ReplayMeter(Profile.constant(1), clock), estimate_of_test(clock)), clock, why="")


def test_closing_a_bank_closes_its_meters() -> None:
    clock = ManualClock()
    bank = noted_bank(clock, Order())
    bank.close()
    bank.close()

    with pytest.raises(MeterFailed, match="closed"):
        bank.read_start()


@pytest.mark.usefixtures("estimated")
def test_without_rapl_the_cpu_is_estimated_and_the_reason_kept(tmp_path: Path) -> None:
    bank = meters_for("cpu", powercap=tmp_path / "nowhere", clock=ManualClock())

    assert bank.provenance is Provenance.ESTIMATED
    assert bank.method == "codecarbon-cpu-load"
    assert "nowhere does not exist" in bank.why
    assert describe(bank) == "codecarbon-cpu-load (generic TDP 10 W, RAM 1 W) (estimated)"


@pytest.mark.usefixtures("estimated")
def test_a_rapl_that_stands_still_is_not_believed(powercap: Callable[..., Path]) -> None:
    root = powercap({"intel-rapl:0": ("package-0", 5)})
    bank = meters_for("cpu", powercap=root, clock=ManualClock(per_read_s=0.01))

    assert bank.provenance is Provenance.ESTIMATED
    assert "stand still" in bank.why


def test_a_rapl_that_moves_is_taken(powercap: Callable[..., Path]) -> None:
    root = powercap({"intel-rapl:0": ("package-0", 5)})

    class Turning(ManualClock):
        def now_s(self) -> float:
            file = root / "intel-rapl:0" / "energy_uj"
            file.write_text(str(int(file.read_text()) + 1000))
            return super().now_s()

    bank = meters_for("cpu", powercap=root, clock=Turning(per_read_s=0.001))

    assert (bank.method, bank.provenance) == ("rapl", Provenance.MEASURED)
    assert bank.name == "rapl (package-0)"
    bank.close()


def test_a_device_of_another_kind_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="must be cuda or cpu"):
        meters_for("tpu")


def test_gpus_are_metered_one_by_one(nvml_machine: Callable[..., Any]) -> None:
    machine = nvml_machine(CUDA_VISIBLE_DEVICES="2,1,0")
    machine.describe(gpus=3, p2p=0, now_s=0, power_mw=0, _0_energy_mj=1000, _1_energy_mj=2000, _2_energy_mj=3000)
    machine.ask("globals().update(bank=meters_for('cuda', gpu_indices=(0, 1)))")

    assert [read["energy_j"] for read in machine.ask("bank.read_end()")] == [3.0, 2.0]
    assert machine.ask("describe(bank)") == "nvml:0, nvml:1 (measured)"
    assert [facts["topology"] for facts in machine.ask("bank.facts()")] == ["nvlink: 0-1"] * 2
    assert machine.ask("bank.step_s") == 0.1


@pytest.mark.parametrize(
    ("value", "indices", "says"),
    [
        ("0", "(0, 1)", "GPU 1 cannot be metered: 1 GPU"),
        ("MIG-stub-0,MIG-other-0", "(0, 1)", "1 GPU"),
        ("", "(0,)", "0 GPU"),
    ],
)
def test_a_gpu_that_is_not_visible_cannot_be_metered(
    nvml_machine: Callable[..., Any], value: str, indices: str, says: str
) -> None:
    machine = nvml_machine(CUDA_VISIBLE_DEVICES=value)
    machine.describe(gpus=2, mig=1)

    with pytest.raises(MeterUnavailable, match=says):
        machine.ask(f"meters_for('cuda', gpu_indices={indices})")


def test_gpus_of_different_models_must_be_numbered_by_bus(nvml_machine: Callable[..., Any]) -> None:
    machine = nvml_machine()
    machine.describe(gpus=2, _0_name="NVIDIA A30", _1_name="NVIDIA L4")

    with pytest.raises(MeterUnavailable, match="CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        machine.ask("meters_for('cuda')")
    assert machine.ask("meters_for('cuda', environ={'CUDA_DEVICE_ORDER': 'PCI_BUS_ID'}).name") == "nvml:0"


def test_two_slices_of_one_gpu_are_not_counted_twice(nvml_machine: Callable[..., Any]) -> None:
    machine = nvml_machine()
    slices = (
        "tuple(GpuHandle(uuid=u, board_uuid='GPU-stub-0', name='A', memory_bytes=None) for u in ('MIG-a', 'MIG-b'))"
    )

    with pytest.raises(MeterUnavailable, match="counted twice") as failure:
        machine.ask(f"choose({slices}, (0, 1), {{}})")
    assert failure.value.cause is MeterCause.AMBIGUOUS_DEVICE


def test_a_gpu_that_is_cut_into_slices_must_be_named_by_slice(shared_nvml_machine: Any) -> None:
    machine = shared_nvml_machine
    machine.describe(gpus=2, _0_mig=1, now_s=0, energy_mj=4000)

    with pytest.raises(MeterUnavailable, match="cut into slices") as failure:
        machine.ask("meters_for('cuda', gpu_indices=(0,), environ={})")
    assert failure.value.cause is MeterCause.AMBIGUOUS_DEVICE
    assert machine.ask("meters_for('cuda', gpu_indices=(1,), environ={}).read_end()[0].energy_j") == 4.0
    named = "meters_for('cuda', environ={'CUDA_VISIBLE_DEVICES': 'MIG-stub-0'}).read_end()[0].energy_j"
    assert machine.ask(named) == 4.0
    assert len(machine.ask("find_gpus({}).gpus")) == 2, "it is still counted among the machine's"


def test_a_search_for_gpus_says_why_there_are_none(nvml_machine: Callable[..., Any]) -> None:
    machine = nvml_machine(CUDA_VISIBLE_DEVICES="")
    assert "hides all GPUs" in machine.ask("find_gpus().why_none")
    assert machine.ask("find_gpus({}).why_none") is None
    assert len(machine.ask("find_gpus({}).gpus")) == 1
    machine.describe(error__nvmlInit=18)
    assert "Reboot" in machine.ask("find_gpus({}).why_none")
