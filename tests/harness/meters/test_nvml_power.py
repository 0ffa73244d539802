"""Energy from sampled power, for GPUs without a counter: only where allowed, and never more certain than it is."""

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from harness.errors import MeterCause, MeterFailed, MeterUnavailable
from harness.meters.nvml_power import PowerIntegral, SampledPower
from harness.meters.power import PowerField, PowerSample, SamplerReport, SamplerState

OPEN = "globals().update(bank=meters_for('cuda', gpu_indices={}, allow_sampled_power=True))"


class ToldSampler:
    """Delivers the samples it is given."""

    period_s = 0.1

    def __init__(self, *looks: list[PowerSample]) -> None:
        self.state = SamplerState.FINISHED
        self._looks = list(looks)

    def start(self) -> None:
        self.state = SamplerState.RUNNING

    def take(self) -> tuple[PowerSample, ...]:
        return tuple(self._looks.pop(0)) if self._looks else ()

    def stop(self) -> SamplerReport:
        if self.state is SamplerState.RUNNING:
            self.state = SamplerState.FINISHED
        return SamplerReport(state=self.state, samples=(), detail="for the test")


def look(at_s: float, power_w: float | None, device: int = 0, **more: Any) -> PowerSample:
    return PowerSample(device=device, at_s=at_s, latency_s=0.0, power_w=power_w, **more)


def integral(*points: tuple[float, float | None]) -> PowerIntegral:
    made = PowerIntegral("gpu", PowerField.INSTANT, averaging_s=0.0, longest_gap_s=0.5)
    for at_s, power_w in points:
        made.add(look(at_s, power_w))
    return made


def test_energy_adds_up_trapezoid_by_trapezoid() -> None:
    assert integral((1.0, 100.0), (1.25, 300.0), (1.5, 300.0)).energy_j == pytest.approx(0.25 * 200 + 0.25 * 300)


def test_a_short_null_is_bridged_and_a_long_one_spoils_the_energy_for_good() -> None:
    short = integral((0.0, 100.0), (0.25, None), (0.5, 100.0))
    long = integral((0.0, 100.0), (0.3, None), (0.6, None), (0.7, 100.0), (0.8, 100.0))

    assert short.fault is None
    assert short.energy_j == pytest.approx(50.0)
    assert long.fault is not None
    assert long.fault.cause is MeterCause.SAMPLES_MISSING


def test_steady_samples_leave_nothing_to_doubt_and_others_do() -> None:
    steady = integral(*[(i * 0.125, 200.0) for i in range(80)])
    restless = integral(*[(i * 0.125, 200.0 + 100.0 * (-1) ** i) for i in range(80)])

    assert steady.sampling95_j(1.0, 9.0) == pytest.approx(0.0)
    assert restless.sampling95_j(1.0, 9.0) == pytest.approx(1.96 * 100 * 0.125 * 64**0.5, rel=0.02)
    assert steady.sampling95_j(1.0, 99.0) is None


@pytest.mark.parametrize(
    ("powers", "usage_averaging_s", "energy_j", "averaging_s"),
    [
        ({"power_w": 100.0, "average_power_w": 200.0, "reported_power_w": 300.0}, 1.0, 10.0, 0.0),
        ({"power_w": None, "average_power_w": 200.0, "reported_power_w": 300.0}, 0.0, 30.0, 0.0),
        ({"power_w": None, "average_power_w": 200.0, "reported_power_w": 300.0}, 1.0, 30.0, 1.0),
        ({"power_w": None, "average_power_w": 200.0}, 1.0, 20.0, 1.0),
    ],
)
def test_the_best_power_the_gpu_tells_is_taken(
    powers: dict[str, Any], usage_averaging_s: float, energy_j: float, averaging_s: float
) -> None:
    looks = [PowerSample(device=0, at_s=at_s, latency_s=0.0, **powers) for at_s in (0.0, 0.1)]
    power = SampledPower(ToldSampler(looks), ["gpu"], [usage_averaging_s])

    assert power.integrals[0].energy_j == pytest.approx(energy_j)
    assert power.integrals[0].averaging_s == averaging_s


def test_a_gpu_that_tells_no_power_cannot_be_measured() -> None:
    sampler = ToldSampler(*[[look(i * 0.1, None)] for i in range(30)])
    sampler.period_s = 0.001

    with pytest.raises(MeterUnavailable, match="tells no power either") as failure:
        SampledPower(sampler, ["gpu"], [0.0])
    assert failure.value.cause is MeterCause.NOT_SUPPORTED
    assert sampler.state is SamplerState.FINISHED


@pytest.mark.parametrize("state", ["silent", "full", "killed", "failed"])
def test_a_sampler_that_is_no_more_is_a_failure_with_its_cause(state: str) -> None:
    sampler = ToldSampler([look(0.0, 100.0)])
    power = SampledPower(sampler, ["gpu"], [0.0])
    power.catch_up()
    sampler.state = SamplerState(state)

    with pytest.raises(MeterFailed, match="for the test") as failure:
        power.catch_up()
    assert failure.value.cause is MeterCause[f"SAMPLER_{state.upper()}"]


def test_a_gpu_without_a_counter_is_refused_unless_sampled_power_is_allowed(shared_nvml_machine: Any) -> None:
    machine = shared_nvml_machine
    machine.describe(missing="counter")

    with pytest.raises(MeterUnavailable, match="allow energy to be integrated from sampled power") as failure:
        machine.ask("meters_for('cuda')")
    assert failure.value.cause is MeterCause.NOT_SUPPORTED


def test_a_counter_is_taken_although_sampled_power_is_allowed(shared_nvml_machine: Any) -> None:
    shared_nvml_machine.ask(OPEN.format((0,)))

    assert shared_nvml_machine.ask("bank.method") == "nvml-counter"


@pytest.mark.parametrize("code", [4, 9, 15, 18])
def test_only_a_counter_that_is_not_there_is_replaced(shared_nvml_machine: Any, code: int) -> None:
    machine = shared_nvml_machine
    machine.file.set(error={"nvmlDeviceGetTotalEnergyConsumption": code})
    machine.file.write()

    with pytest.raises(MeterUnavailable):
        machine.ask(OPEN.format((0,)))


@pytest.fixture
def sampled(nvml_machine: Callable[..., Any]) -> Any:
    """A machine of two GPUs, one without a counter, whose power is sampled."""
    machine = nvml_machine()
    machine.describe(gpus=2, _1_missing="counter", _0_power_mw=100_000, _1_power_mw=250_000)
    machine.ask(OPEN.format((0, 1)))
    return machine


def test_the_method_says_that_power_was_sampled_and_why(sampled: Any) -> None:
    assert sampled.ask("(bank.method, bank.provenance)") == ["nvml-power", "measured"]
    assert "integrated from sampled power, as was allowed" in sampled.ask("bank.why")
    assert "nvml:1" in sampled.ask("bank.why")
    assert sampled.ask("bank.lag_s") == 0.0
    assert sampled.ask("[meter.name for meter in bank.meters]") == ["nvml:0", "nvml:1"]


def test_energy_from_sampled_power_is_power_times_time(sampled: Any) -> None:
    sampled.ask("bank.measure_steps()")
    first = sampled.ask("bank.read_start()")
    sampled.ask("bank.measure_steps()")
    last = sampled.ask("bank.read_end()")

    powers_w = [
        (after["energy_j"] - before["energy_j"]) / (after["at_s"] - before["at_s"])
        for before, after in zip(first, last, strict=True)
    ]
    assert powers_w[1] == pytest.approx(2.5 * powers_w[0], rel=0.05)
    assert powers_w == pytest.approx([100.0, 250.0], rel=0.3), "the last sample is up to a period old"
    half_widths_j = sampled.ask(f"bank.sampling95_j({first[0]['at_s']!r}, {last[0]['at_s'] - 0.2!r})")
    assert half_widths_j == pytest.approx([0.0, 0.0], abs=1e-9)


def test_a_killed_sampler_is_a_failure_and_not_a_counter_that_stands_still(sampled: Any) -> None:
    pid = sampled.ask("bank.meters[0]._power._sampler.pid")
    os.kill(pid, signal.SIGKILL)
    sampled.ask("bank.meters[0]._power._sampler._process.wait()")

    assert sampled.ask("cause(bank.meters[0].read_j)") == "SAMPLER_KILLED"
    assert sampled.ask("cause(bank.meters[1].read_j)") == "SAMPLER_KILLED"


def test_a_gpu_that_is_lost_spoils_its_own_energy(sampled: Any) -> None:
    lost = {"nvmlDeviceGetFieldValues": 15, "nvmlDeviceGetPowerUsage": 15}
    sampled.file.set(gpu=1, error=lost)
    sampled.file.write()
    spoilt = (
        "next(word for word in iter(lambda: time.sleep(0.01) or cause(bank.meters[1].read_j), None) "
        "if not isinstance(word, float))"
    )

    assert sampled.ask(spoilt) == "SAMPLES_MISSING"
    assert sampled.ask("bank.meters[0].read_j()") > 0
    with pytest.raises(MeterFailed, match=r"NVML's error 15"):
        sampled.ask("bank.meters[1].read_j()")


def test_the_last_meter_ends_the_sampler(sampled: Any) -> None:
    sampled.ask("bank.meters[0].close() or bank.meters[0].close()")
    assert sampled.ask("bank.meters[1]._power._sampler.alive")
    sampled.ask("bank.close()")

    assert not sampled.ask("bank.meters[1]._power._sampler.alive")
    assert sampled.ask("cause(bank.meters[1].read_j)") == "CLOSED"


@pytest.mark.parametrize(
    ("arch", "name", "averaging_s"),
    [
        (4, "Tesla P100-SXM2-16GB", 0.0),
        (7, "NVIDIA A100-SXM4-80GB", 0.0),
        (7, "NVIDIA A10", 1.0),
        (9, "NVIDIA H100 80GB HBM3", 1.0),
    ],
)
def test_whether_reported_power_is_a_mean_depends_on_the_gpu(
    shared_nvml_machine: Any, arch: int, name: str, averaging_s: float
) -> None:
    machine = shared_nvml_machine
    machine.describe(arch=arch, name=name)

    assert machine.ask("nvml_power._usage_averaging_s(visible_gpus(), ['gpu'])") == [averaging_s]


def test_a_bank_can_sample_its_own_gpus(nvml_machine: Callable[..., Any]) -> None:
    machine = nvml_machine(CUDA_VISIBLE_DEVICES="1,0")
    machine.describe(gpus=2, _0_power_mw=100_000, _1_power_mw=250_000)
    machine.ask("globals().update(sampler=meters_for('cuda', gpu_indices=(0, 1)).sampler())")
    machine.ask("sampler.start()")

    assert {(sample["device"], sample["power_w"]) for sample in machine.ask("sampler.take()")} == {
        (0, 250.0),
        (1, 100.0),
    }
    assert machine.ask("sampler.stop()")["state"] == "finished"
