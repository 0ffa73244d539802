"""What one reading may get wrong: each cause by itself, with known answers."""

import random

import pytest

from harness.measuring.precision import Precision, precision_of
from harness.measuring.results import TakenWindow, reading95_j, reading95_of_device, results, systematic95
from harness.records import Part
from tests.harness.measuring.made import EXACT, idle_floor, taken, window

IDLE = idle_floor(50.0)
TWO_IDLE = idle_floor(50.0, 50.0)


def test_gain_and_offset_of_a_meter_are_independent() -> None:
    precision = Precision(gain95=0.03, offset95_w=2.0)
    assert precision.systematic95_j(1000.0, 20.0) == pytest.approx(50)
    assert Precision().systematic95_j(1000.0, 20.0) == 0, "nobody states a gain"


def test_of_nvmls_counters_five_per_cent_and_a_millijoule_are_stated_and_of_others_nothing() -> None:
    assert (precision_of("nvml-counter").gain95, precision_of("nvml-counter").quantum_j) == (0.05, 1e-3)
    assert "nvml.h" in precision_of("nvml-power").source
    assert precision_of("rapl") == Precision()
    assert precision_of("virtual-counter").gain95 is None


def test_when_a_counter_stepped_costs_idle_energy_only() -> None:
    loaded = window(400.0, work_s=1.0, timing95_s=0.004)
    half = reading95_of_device(loaded, IDLE, EXACT, 0, step_s=0.1)
    assert (half.random_j, half.common_j) == pytest.approx((50 * 0.004, 0.0))


def test_power_that_lingers_counts_above_idle_and_for_the_tail_alone() -> None:
    loaded = window(400 + 0.3 * 50, work_s=1.0, lead_s=0.1, tail_s=0.2)  # 350 W above idle
    half = reading95_of_device(loaded, IDLE, Precision(tail95=0.1), 0, step_s=0.1)
    assert (half.random_j, half.common_j) == pytest.approx((0.0, 0.1 * 350 * 0.2))


def test_a_window_that_used_less_than_idle_has_no_load_that_could_linger() -> None:
    half = reading95_of_device(window(40.0, tail_s=0.2), IDLE, Precision(), 0, step_s=0.1)
    assert half.common_j == 0


def test_two_roundings_to_a_quantum_make_a_triangle() -> None:
    half = reading95_of_device(window(400.0), IDLE, Precision(quantum_j=6**0.5, tail95=0.0), 0, step_s=0.1)
    assert half.random_j == pytest.approx(1.96)


def test_what_sampling_power_misses_is_part_of_the_reading() -> None:
    half = reading95_of_device(window(400.0, sampling95_j=3.0, timing95_s=0.08), IDLE, EXACT, 0, step_s=0.1)
    assert half.random_j == pytest.approx(5.0)


def test_over_devices_what_is_random_adds_in_quadrature_and_what_is_common_adds_up() -> None:
    both = window(410.0, 410.0, work_s=1.0, tail_s=0.2, timing95_s=0.03)
    half = reading95_j(both, TWO_IDLE, Precision(tail95=0.1), step_s=0.1)
    assert half.random_j == pytest.approx(1.5 * 2**0.5)
    assert half.common_j == pytest.approx(2 * 0.1 * 350 * 0.2)
    one = reading95_j(both, TWO_IDLE, Precision(tail95=0.1), step_s=0.1, devices=[1])
    assert one == reading95_of_device(both, TWO_IDLE, Precision(tail95=0.1), 1, step_s=0.1)


def seen_j(share: float, phase: float, start: float, length: float, power_w: float) -> float:
    """Energy above idle that a sensor with steps of 1 s sees if it looks only for a share of each, from a phase on."""
    seen_s, end = 0.0, start + length
    for step in range(int(start) - 1, int(end) + 2):
        first, last = step + phase, step + phase + share
        seen_s += max(0.0, min(last, end) - max(first, start))
    return power_w * seen_s / share


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_a_sensor_that_looks_for_a_part_of_each_step_is_covered(share: float) -> None:
    """The work starts anywhere in a step, as the start jitter makes it; the sensor looks at a phase of its own."""
    rng, held, errors = random.Random(2), 0, []
    for _ in range(2000):
        length = rng.uniform(20, 50)
        read_j = seen_j(share, rng.uniform(0, 1 - share), rng.uniform(0, 1), length, 300.0)
        reading = window(read_j + 50 * (length + 1), work_s=length, tail_s=1.0)
        half = reading95_of_device(reading, IDLE, Precision(sampled_share=share, tail95=0.0), 0, step_s=1.0)
        errors.append(read_j - 300 * length)
        held += abs(errors[-1]) <= half.random_j
    assert held >= 0.95 * 2000
    assert abs(sum(errors)) / 2000 < 0.03 * 300, "no side is favoured"
    half = reading95_of_device(window(350.0 * 30, work_s=30.0), IDLE, Precision(sampled_share=share), 0, step_s=1.0)
    spread = (sum(error**2 for error in errors) / 2000) ** 0.5
    assert half.random_j < 2.5 * 1.96 * spread, "nor is the interval far too wide"


def in_run(energies_j: list[float]) -> list[TakenWindow]:
    return [taken(Part.RUN, *energies_j, work_s=2.0)] * 3


def test_a_gain_may_be_the_same_in_all_meters_of_a_kind_so_it_adds_up_over_devices() -> None:
    used = in_run([300.0, 400.0])
    assert systematic95(used, Precision(gain95=0.05), [0, 1]) == pytest.approx(0.05)
    assert systematic95(used, Precision(gain95=0.05), [1]) == pytest.approx(0.05)
    assert systematic95(used, Precision(offset95_w=3.0), [0, 1]) == pytest.approx(3 * 2 * 2 / 700)


def test_gain_is_in_the_interval_of_a_part_and_in_its_systematic_share() -> None:
    work = type("Named", (), {"part": Part.RUN, "mean_context_tokens": None})()
    (found,) = results([work], in_run([300.0, 400.0]), TWO_IDLE, Precision(gain95=0.05, tail95=0.0))
    assert found.energy_j is not None
    assert found.energy_j.ci95 == pytest.approx(35)
    assert found.energy_j.systematic95 == pytest.approx(35)
    assert found.energy_j.repeat95 == pytest.approx(0, abs=1e-6)
    assert found.energy_j.relative < 1e-6, "more trials would not help"
