import random

import pytest

from harness.measuring.loops import RankCounter, active_energy_j, loop_of
from harness.measuring.precision import Precision
from harness.records import Part
from tests.harness.measuring.made import IDLE_W, count, loops, session, taken

ONE = RankCounter(devices=(0,))
GEMM, COPY = count("gemm"), count("copy")


def test_a_loop_is_energy_and_time_of_a_pass_without_lead_and_tail() -> None:
    windows = [taken(Part.REPLAY, 400 + IDLE_W * 0.3, passes=8, kernels=[GEMM], work_s=2.0, lead_s=0.1, tail_s=0.2)] * 3
    loop = loop_of(session(windows), Part.REPLAY, [GEMM], ONE)
    assert loop is not None
    assert (loop.energy_j.value, loop.duration_s.value, loop.power_w.value) == pytest.approx((50, 0.25, 200))
    assert loop.energy_j.samples == 3


def test_windows_of_other_loops_and_rejected_ones_do_not_count() -> None:
    windows = [
        *loops(Part.REPLAY, [GEMM], 4.0, 0.01),
        *loops(Part.REPLAY, [COPY], 99.0, 0.01),
        *loops(Part.WAITING, [GEMM], 99.0, 0.01),
        *loops(Part.REPLAY, [count("gemm", 2)], 99.0, 0.01),
        taken(Part.REPLAY, 99.0, kernels=[GEMM], rejected="slow"),
    ]
    result = session(windows)
    loop = loop_of(result, Part.REPLAY, [GEMM], ONE)
    assert loop is not None
    assert loop.energy_j.value == pytest.approx(4)
    assert loop_of(result, Part.REPLAY, [count("norm")], ONE) is None
    assert loop_of(result, Part.RUN, [], ONE) is None


def test_ranks_that_share_a_counter_have_even_parts_of_it() -> None:
    result = session(loops(Part.RUN, [], 12.0, 0.1, spread=0.01))
    whole, part = (loop_of(result, Part.RUN, [], RankCounter(devices=(0,), sharing=many)) for many in (1, 3))
    assert whole is not None
    assert part is not None
    assert part.energy_j.value == pytest.approx(whole.energy_j.value / 3)
    assert part.energy_j.ci95 == pytest.approx((whole.energy_j.ci95 or 0) / 3)
    assert RankCounter(devices=(0,), sharing=5).idle_w(result) == pytest.approx(IDLE_W / 5)


def test_a_rank_on_several_devices_has_what_all_of_their_counters_say() -> None:
    result = session(loops(Part.RUN, [], [12.0, 5.0, 100.0], 0.1), idle_w=(50.0, 40.0, 30.0))
    counter = RankCounter(devices=(0, 1))
    loop = loop_of(result, Part.RUN, [], counter)
    assert loop is not None
    assert loop.energy_j.value == pytest.approx(17)
    assert counter.idle_w(result) == pytest.approx(90)


def test_windows_that_vary_together_on_all_devices_do_not_average_out_over_them() -> None:
    """Two devices whose windows are 3 % off alike: the sum is as uncertain, relatively, as each."""
    result = session(loops(Part.RUN, [], [10.0, 10.0], 0.1, spread=0.03, rng=random.Random(3)), idle_w=(50.0, 50.0))
    one, both = (loop_of(result, Part.RUN, [], RankCounter(devices=devices)) for devices in ((0,), (0, 1)))
    assert one is not None
    assert both is not None
    assert both.energy_j.relative == pytest.approx(one.energy_j.relative)


def test_gain_is_in_a_loops_interval() -> None:
    result = session(
        loops(Part.RUN, [], [12.0, 5.0], 0.1), idle_w=(50.0, 40.0), precision=Precision(gain95=0.1, tail95=0)
    )
    one, both = (loop_of(result, Part.RUN, [], RankCounter(devices=devices)) for devices in ((1,), (0, 1)))
    assert one is not None
    assert both is not None
    assert one.energy_j.systematic95 == pytest.approx(0.5)
    assert both.energy_j.systematic95 == pytest.approx(1.7)


def test_energy_above_idle_takes_the_idle_power_of_the_windows_own_time() -> None:
    window = taken(Part.MIXTURE, 400 + IDLE_W * 0.3, work_s=2.0, lead_s=0.1, tail_s=0.2)
    assert active_energy_j(window, session([]), ONE) == pytest.approx(400 - 2 * IDLE_W)
    assert active_energy_j(window, session([]), RankCounter(devices=(0,), sharing=4)) == pytest.approx(75)
