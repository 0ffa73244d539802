import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.meters.power import PowerField, PowerSample, integrate
from harness.meters.sampler_records import SAMPLE_BYTES, packed


def samples(*points: tuple[float, float | None]) -> list[PowerSample]:
    return [PowerSample(device=0, at_s=at_s, latency_s=0.0, power_w=power_w) for at_s, power_w in points]


def steady(power_w: float, end_s: float, period_s: float = 0.1) -> list[PowerSample]:
    return samples(*[(i * period_s, power_w) for i in range(round(end_s / period_s) + 1)])


def test_energy_is_the_area_under_the_line_through_the_samples() -> None:
    found = integrate(samples((0, 100), (0.4, 300), (0.8, 300)), 0.0, 0.8)

    assert found is not None
    assert found.energy_j == pytest.approx(0.4 * 200 + 0.4 * 300)
    assert found.samples == 3
    assert found.longest_gap_s == pytest.approx(0.4)


def test_the_ends_lie_on_the_line_between_the_samples_around_them() -> None:
    found = integrate(samples((0, 100), (0.4, 300), (0.8, 300)), 0.2, 0.6)

    assert found is not None
    assert found.energy_j == pytest.approx(0.2 * (200 + 300) / 2 + 0.2 * 300)


@settings(deadline=None)
@given(st.floats(1, 2000), st.floats(0, 4), st.floats(0.1, 5))
def test_steady_power_is_known_exactly(power_w: float, start_s: float, span_s: float) -> None:
    found = integrate(steady(power_w, 10.0), start_s, start_s + span_s)

    assert found is not None
    assert found.energy_j == pytest.approx(power_w * span_s)
    assert found.sampling95_j == pytest.approx(0.0, abs=1e-9 * power_w)


@pytest.mark.parametrize(
    "gapped",
    [
        samples(),
        samples((0.0, 5.0)),
        samples((0.3, 5.0), (0.6, 5.0), (1.0, 5.0)),
        samples((0.0, 5.0), (0.4, 5.0), (0.9, 5.0)),
        samples((0.0, 5.0), (0.2, 5.0), (0.8, 5.0), (1.0, 5.0)),
        samples((0.0, 5.0), (0.3, None), (0.6, None), (1.0, 5.0)),
    ],
    ids=["none", "one", "late start", "early end", "gap", "nulls"],
)
def test_energy_is_none_where_power_is_not_known(gapped: list[PowerSample]) -> None:
    assert integrate(gapped, 0.1, 1.0) is None


def test_a_short_null_is_bridged() -> None:
    found = integrate(samples((0.0, 100.0), (0.2, None), (0.4, 300.0)), 0.0, 0.4)

    assert found is not None
    assert found.energy_j == pytest.approx(80.0)


def test_a_trailing_mean_is_moved_back_by_half_its_length() -> None:
    # 100 W, from 5 s to 8 s 400 W, then 100 W; read through a trailing mean of 1 s.
    def mean_w(at_s: float) -> float:
        busy_s = max(0.0, min(at_s, 8.0) - max(at_s - 1.0, 5.0))
        return 100.0 + 300.0 * busy_s

    times_s = [i * 0.01 for i in range(1200)]
    trail = samples(*[(at_s, mean_w(at_s)) for at_s in times_s])
    found = integrate(trail, 4.0, 9.0, averaging_s=1.0)
    edge = integrate(trail, 5.0, 8.0, averaging_s=1.0)

    assert found is not None
    assert edge is not None
    assert found.energy_j == pytest.approx(5 * 100 + 3 * 300, rel=1e-3)
    assert edge.energy_j == pytest.approx(3 * 400 - 2 * 300 / 8, rel=1e-3), "ΔP·A/8 at each edge"
    assert edge.energy_j + edge.sampling95_j >= 3 * 400 * 0.999


def test_which_power_is_said() -> None:
    told = [
        PowerSample(device=0, at_s=at_s, latency_s=0, power_w=1.0, average_power_w=2.0, reported_power_w=3.0)
        for at_s in (0.0, 0.5)
    ]

    energies = [integrate(told, 0.0, 0.5, field=field) for field in PowerField]
    assert [found and found.energy_j for found in energies] == [0.5, 1.5, 1.0]


def test_the_interval_holds_for_loads_that_come_and_go() -> None:
    rng = random.Random(4)
    held = 0
    for _ in range(150):
        period_s, busy, phase_s = rng.uniform(0.005, 0.15), rng.uniform(0.1, 0.9), rng.uniform(0, 1)

        def power_w(at_s: float, period_s: float = period_s, busy: float = busy, phase_s: float = phase_s) -> float:
            return 600.0 if math.fmod(at_s + phase_s, period_s) < busy * period_s else 150.0

        looks_s = [i * 0.1 + rng.uniform(-0.02, 0.02) for i in range(-2, 63)]
        found = integrate(samples(*[(at_s, power_w(at_s)) for at_s in looks_s]), 0.0, 6.0)
        assert found is not None
        true_j = sum(power_w((i + 0.5) * 2e-3) for i in range(3000)) * 2e-3
        held += abs(found.energy_j - true_j) <= found.sampling95_j
    assert held >= 0.9 * 150, held


def test_a_record_is_of_one_size_whatever_is_missing() -> None:
    bare = PowerSample(device=7, at_s=1.5, latency_s=2e-5, power_w=None, problem=15)
    full = PowerSample(
        device=65535,
        at_s=1e9,
        latency_s=1e-6,
        power_w=1.0,
        average_power_w=2.0,
        reported_power_w=3.0,
        sm_clock_mhz=4.0,
        temperature_c=5.0,
        throttle_reasons=2**63,
        power_limit_w=6.0,
    )

    assert {len(packed(sample)) for sample in (bare, full)} == {SAMPLE_BYTES}
