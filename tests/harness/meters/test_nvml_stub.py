"""The stand-in for NVIDIA's library itself: what it presents is what its file says, also to other tools."""

import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.native.nvml_file import NvmlFile, Segment

SEGMENTS = [(100.0, 50.0), (101.0, 650.0), (103.0, 150.0)]


def energy_j(start_s: float, end_s: float) -> float:
    """Of the segments."""
    ends_s = [start for start, _ in SEGMENTS[1:]] + [1e9]
    return sum(
        power_w * max(0.0, min(end_s, last_s) - max(start_s, first_s))
        for (first_s, power_w), last_s in zip(SEGMENTS, ends_s, strict=True)
    )


@pytest.fixture
def profiled(shared_nvml_machine: Any) -> Any:
    machine = shared_nvml_machine
    machine.describe(gpus=2, power_mw=50_000)
    machine.file.segments(0, SEGMENTS)
    machine.file.write()
    machine.ask("globals().update(lib=open_nvml())")
    machine.ask("globals().update(devices=[device_of(lib, gpu, 'GPU') for gpu in visible_gpus({})])")
    return machine


def counter_j(machine: Any, now_s: float, gpu: int = 0) -> float:
    machine.describe(now_s=repr(now_s))
    return float(machine.ask(f"devices[{gpu}].energy_mj()")) * 1e-3


def powers_w(machine: Any, now_s: float) -> dict[str, float | None]:
    machine.describe(now_s=repr(now_s))
    told: dict[str, float | None] = machine.ask("devices[0].conditions(frozenset())")
    return told


@pytest.mark.parametrize("now_s", [100.0, 100.5, 101.0, 102.3, 103.0, 250.0])
def test_the_counter_holds_the_energy_under_the_segments(profiled: Any, now_s: float) -> None:
    profiled.describe(step_ms=0)

    assert counter_j(profiled, now_s) - counter_j(profiled, 100.0) == pytest.approx(energy_j(100, now_s), abs=2e-3)
    assert counter_j(profiled, now_s, gpu=1) == pytest.approx(50 * now_s, abs=1e-3), "another GPU has its own power"


def test_the_counter_moves_in_steps_at_its_phase(profiled: Any) -> None:
    profiled.describe(step_ms=100, phase_ms=30)

    assert counter_j(profiled, 101.429) == counter_j(profiled, 101.331)
    assert counter_j(profiled, 101.431) - counter_j(profiled, 101.429) == pytest.approx(65.0, abs=2e-3)


def test_steps_come_early_or_late_by_the_jitter_and_never_go_back(profiled: Any) -> None:
    profiled.describe(step_ms=50, step_jitter_ms=20)
    levels_j = [counter_j(profiled, 101 + i * 2e-3) for i in range(200)]
    moves = [i for i in range(1, 200) if levels_j[i] != levels_j[i - 1]]
    gaps_ms = {2 * (later - earlier) for earlier, later in pairwise(moves)}

    assert levels_j == sorted(levels_j)
    assert len(gaps_ms) > 2
    assert min(gaps_ms) >= 8
    assert max(gaps_ms) <= 92


def test_the_counter_is_rounded_down_to_its_quantum(profiled: Any) -> None:
    profiled.describe(step_ms=0, quantum_mj=5000)

    assert counter_j(profiled, 101.5) == pytest.approx(5 * ((50 * 100 + 50 + 325) // 5))


def test_gain_and_offset_hold_for_energy_and_power_alike(profiled: Any) -> None:
    profiled.describe(step_ms=0, gain=1.04, offset_mw=2000, average_ms=1000)
    moved_j = counter_j(profiled, 102.75) - counter_j(profiled, 102.25)
    told = powers_w(profiled, 102.75)

    assert moved_j == pytest.approx(0.5 * (650 * 1.04 + 2), abs=2e-3)
    assert told["power_w"] == pytest.approx(650 * 1.04 + 2)
    assert told["average_power_w"] == pytest.approx(650 * 1.04 + 2)


def test_power_fields_can_disagree_with_the_counter(profiled: Any) -> None:
    profiled.describe(power_gain=1.5, step_ms=0)

    assert powers_w(profiled, 102.5)["power_w"] == pytest.approx(975.0)
    assert counter_j(profiled, 102.5) - counter_j(profiled, 101.5) == pytest.approx(650.0, abs=2e-3)


def test_instant_power_is_renewed_at_its_period_and_the_average_trails(profiled: Any) -> None:
    profiled.describe(instant_ms=500, average_ms=1000, average_step_ms=200)

    assert powers_w(profiled, 101.4)["power_w"] == 650.0
    assert powers_w(profiled, 103.4)["power_w"] == 150.0
    assert powers_w(profiled, 101.5)["average_power_w"] == pytest.approx(0.6 * 50 + 0.4 * 650)


def test_a_sensor_that_looks_part_of_the_time_misses_the_rest(profiled: Any) -> None:
    # It looks in the last quarter of each 100 ms, the load is there in the first half of each.
    on_off = [(200 + i * 0.05, 600.0 if i % 2 == 0 else 100.0) for i in range(40)]
    profiled.file.segments(0, on_off)
    profiled.describe(duty_ms=100, duty=0.25, average_ms=1000, step_ms=100)
    told = powers_w(profiled, 201.5)
    assert [told["power_w"], told["average_power_w"]] == pytest.approx([100.0, 100.0])
    assert counter_j(profiled, 201.5) - counter_j(profiled, 200.5) == pytest.approx(350.0, abs=0.01)
    profiled.describe(counter_sampled=1)
    assert counter_j(profiled, 201.5) - counter_j(profiled, 200.5) == pytest.approx(100.0, abs=0.01)


def test_noise_is_the_same_for_the_same_look_and_has_its_size(profiled: Any) -> None:
    profiled.describe(duty_ms=10, noise_mw=4000, average_ms=0)
    looks_w = [powers_w(profiled, 104 + i * 0.01)["power_w"] or 0.0 for i in range(300)]
    mean_w = sum(looks_w) / len(looks_w)
    sigma_w = (sum((power_w - mean_w) ** 2 for power_w in looks_w) / len(looks_w)) ** 0.5

    assert powers_w(profiled, 104.5)["power_w"] == pytest.approx(looks_w[50])
    assert mean_w == pytest.approx(150.0, abs=1.0)
    assert sigma_w == pytest.approx(4.0, rel=0.2)


def test_a_segment_may_say_clock_temperature_and_slowdown(profiled: Any) -> None:
    hot = Segment(t_s=10.0, power_w=600, sm_clock_mhz=1410, temperature_c=88.4, throttle_reasons=0x20)
    profiled.file.segments(0, [Segment(t_s=0.0, power_w=100), hot])

    assert powers_w(profiled, 5.0)["sm_clock_mhz"] == 1980
    told = powers_w(profiled, 12.0)
    assert (told["sm_clock_mhz"], told["temperature_c"], told["throttle_reasons"]) == (1410, 88, 0x20)


def test_a_slice_has_no_counter_of_its_own(shared_nvml_machine: Any) -> None:
    machine = shared_nvml_machine
    machine.describe(mig=1)
    machine.ask("globals().update(lib=open_nvml())")
    machine.ask("globals().update(slice=lib.call('nvmlDeviceGetHandleByUUID', 'MIG-stub-0'))")

    counter = "lib.call('nvmlDeviceGetTotalEnergyConsumption', slice)"
    assert machine.ask(f"cause(lambda: {counter})") == "NOT_SUPPORTED"


def test_without_a_told_time_it_runs_on_the_machine_s_clock(
    nvml_machine: Callable[..., Any],
) -> None:
    machine = nvml_machine()
    machine.describe(step_ms=0)
    machine.ask("globals().update(lib=open_nvml(), begun_s=time.monotonic())")
    machine.ask("globals().update(device=device_of(lib, visible_gpus()[0], 'GPU'))")
    machine.describe(origin_s=repr(machine.ask("begun_s")))
    shown_j = machine.ask("device.energy_mj()") * 1e-3

    assert 0 < shown_j <= 100 * machine.ask("time.monotonic() - begun_s")


def test_two_files_written_at_once_are_told_apart(shared_nvml_machine: Any) -> None:
    machine = shared_nvml_machine
    for temperature in range(20, 60):
        machine.describe(temperature=temperature)
        machine.ask("globals().update(lib=open_nvml())") if temperature == 20 else None
        found = machine.ask("device_of(lib, visible_gpus({})[0], 'GPU').conditions(frozenset()).temperature_c")
        assert found == temperature


def test_the_writer_writes_the_format_that_the_library_documents(tmp_path: Any) -> None:
    file = NvmlFile(tmp_path / "gpus.txt")
    file.set(gpus=2, step_ms=20)
    file.set(gpu=1, from_s=12.5, error={"nvmlInit": 9}, hang=["nvmlDeviceGetName"], name="NVIDIA L4")
    file.set(step_ms=None)
    file.segments(0, [(1.0, 100.0), Segment(t_s=2.5, power_w=50, sm_clock_mhz=900)])
    file.write()

    assert (tmp_path / "gpus.txt").read_text().splitlines() == [
        "gpus=2",
        "1.name@12.5=NVIDIA L4",
        "1.error.nvmlInit@12.5=9",
        "1.hang.nvmlDeviceGetName@12.5=1",
        "segment 0 1.0 100.0",
        "segment 0 2.5 50 900",
    ]


_CODECARBON = """
from codecarbon.core.gpu import AllGPUDevices
(details,) = AllGPUDevices().get_gpu_details()
print(details["name"], details["uuid"], details["total_energy_consumption"], details["power_usage"])
"""


def test_codecarbon_reads_the_same_gpu(nvml_machine: Callable[..., Any]) -> None:
    machine = nvml_machine()
    machine.describe(now_s=10, power_mw=300_000, name="NVIDIA H100 80GB HBM3")
    done = subprocess.run(
        [sys.executable, "-c", _CODECARBON], env=machine.environ, capture_output=True, text=True, check=True
    )

    assert done.stdout.split("\n")[0] == "NVIDIA H100 80GB HBM3 GPU-stub-0 3000000 300.0"
