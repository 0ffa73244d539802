from dataclasses import replace

import pytest

from harness.measuring.results import IdleFloor, TakenWindow, results
from harness.measuring.windows import Window
from harness.meters.base import Conditions
from harness.records import Part


def taken_at(part: Part, *clocks_mhz: float | None, rejected: str | None = None) -> TakenWindow:
    conditions = tuple(Conditions(sm_clock_mhz=clock) for clock in clocks_mhz)
    window = Window(
        energies_j=(100.0,) * len(clocks_mhz),
        uncertainties_j=(1.0,) * len(clocks_mhz),
        counters_start_j=(0.0,) * len(clocks_mhz),
        counters_end_j=(100.0,) * len(clocks_mhz),
        started_s=10.0,
        duration_s=1.0,
        tail_s=0.0,
        before=conditions,
        after=conditions,
    )
    return TakenWindow(
        part=part,
        trial=0,
        passes=1.0,
        context_start_tokens=None,
        mean_context_tokens=None,
        window=window,
        rejected=rejected,
    )


def idle_window(started_s: float, power_w: float) -> Window:
    return replace(taken_at(Part.IDLE, None).window, energies_j=(10 * power_w,), started_s=started_s, duration_s=10.0)


def test_the_idle_floor_is_linear_between_before_and_after() -> None:
    floor = IdleFloor(before=idle_window(0.0, 50.0), after=idle_window(100.0, 70.0))
    assert [floor.power_w(at_s) for at_s in (0, 5, 55, 105, 200)] == pytest.approx([50, 50, 60, 70, 70])
    assert floor.mean_power_w == 60


def test_an_idle_floor_known_before_only_is_constant() -> None:
    before = idle_window(0.0, 50.0)
    assert IdleFloor(before=before, after=before).power_w(1e3) == 50


def test_a_rising_idle_floor_is_taken_out_of_each_tail_as_it_was() -> None:
    floor = IdleFloor(before=idle_window(0.0, 50.0), after=idle_window(100.0, 70.0))
    taken = taken_at(Part.PREFILL, None)
    tailed = replace(taken, passes=2.0, window=replace(taken.window, started_s=54.1, duration_s=1.0, tail_s=0.2))
    work = type("Named", (), {"part": Part.PREFILL, "mean_context_tokens": None})()
    (found,) = results([work], [tailed, tailed], floor)
    assert found.energy_j is not None
    assert found.energy_j.value == pytest.approx((100 - 60 * 0.2) / 2)
    assert found.duration_s is not None
    assert found.duration_s.value == pytest.approx(0.4)
