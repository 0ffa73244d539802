"""Times and energies of work that can be worked out by hand."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.errors import UsageError
from harness.virtual.physics import Cycle, Ladder, pieces_of
from harness.virtual.program import Segments
from tests.example_graphs import GPU
from tests.harness.virtual.virtual_examples import COMPUTE, MEMORY, REDUCE, a_gpu, work

TINY = ("tiny", 0.0, 0.0, 0.0)


def cycle(
    segments: Segments, *, rung: int = 0, speeds: tuple[float, ...] = (1.0,), host_s: float = 0.0, **load: Any
) -> Cycle:
    (piece,) = pieces_of(segments, a_gpu(**load).load, np.array(speeds), host_s)
    return piece.cycle((rung,) * len(speeds))


@pytest.mark.parametrize(
    ("segment", "load", "duration_s"),
    [
        (COMPUTE, {}, 10e-3),
        (COMPUTE, {"flop_efficiency": 0.5}, 20e-3),
        (MEMORY, {}, 10e-3),
        (MEMORY, {"bytes_efficiency": 0.8}, 12.5e-3),
        (REDUCE, {}, 10e-3),
        (REDUCE, {"link_efficiency": 0.25, "link_latency_s": 1e-3}, 44e-3),
        (COMPUTE, {"launch_s": 1e-3}, 14e-3),
        (TINY, {"launch_s": 1e-3}, 4e-3),
    ],
)
def test_the_slowest_of_compute_memory_and_link_sets_the_time(
    segment: tuple[str, float, float, float], load: dict[str, Any], duration_s: float
) -> None:
    made = cycle(work(segment, launches=4, collective=("reduce",)), **load)

    assert made.kernel_s[0, 0] == pytest.approx(duration_s)
    assert made.period_s == pytest.approx(duration_s)
    assert made.gap_s[0] == 0


def test_dynamic_energy_is_the_busy_power_and_so_much_per_flop_and_byte() -> None:
    made = cycle(work(COMPUTE, MEMORY, REDUCE, collective=("reduce",)))

    # 10 ms of 50 W each, and 1e13 FLOP · 0.1 pJ + 1e9 B · 80 pJ, 1e12 · 0.1 pJ + 1e10 · 80 pJ, 1e9 B · 200 pJ
    assert made.kernel_j[0].tolist() == pytest.approx([0.5 + 1 + 0.08, 0.5 + 0.1 + 0.8, 0.5 + 0.2])
    assert made.energy_j[0] == pytest.approx(3.68)
    assert made.times_s[0, -1] == pytest.approx(0.03)


def test_at_half_the_clock_arithmetic_takes_twice_the_time_and_memory_the_same() -> None:
    half = cycle(work(COMPUTE, MEMORY), rung=100)  # exponent 2: busy power a quarter, joules per FLOP a half

    assert half.kernel_s[0].tolist() == pytest.approx([20e-3, 10e-3])
    assert half.kernel_j[0].tolist() == pytest.approx([20e-3 * 12.5 + 0.5 + 0.08, 10e-3 * 12.5 + 0.05 + 0.8])


def test_other_units_draw_the_same_power_at_their_own_peak() -> None:
    whole = cycle(work(("gemm", 1e13, 0, 0)))
    single = cycle(work(("gemm", 1e13, 0, 0), dtypes={"gemm": "float32"}))

    assert single.period_s == pytest.approx(10 * whole.period_s)
    assert single.power_w[0] == pytest.approx(whole.power_w[0]) == pytest.approx(150)


def test_a_slow_host_leaves_gaps_between_launches() -> None:
    made = cycle(work(COMPUTE, TINY, launches=10), host_s=2e-3, launch_s=0.5e-3)

    # compute: 10 launches of 1.5 ms in the time of 20 ms; tiny: 10 launches of 0.5 ms
    assert made.kernel_s[0].tolist() == pytest.approx([15e-3, 5e-3])
    assert made.gap_s[0] == pytest.approx(5e-3 + 15e-3)
    assert made.gap_j[0] == pytest.approx(20e-3 * 20)
    assert made.period_s == pytest.approx(40e-3)


def test_the_others_wait_in_a_collective_for_the_slowest() -> None:
    made = cycle(work(COMPUTE, REDUCE, MEMORY, REDUCE, TINY, collective=("reduce",)), speeds=(1.0, 0.8), launch_s=1e-3)

    # 10 ms against 12.5 ms before the first all-reduce, 10 against 12.5 again before the second
    assert made.wait_s[:, 1].tolist() == pytest.approx([5e-3, 0.0])
    assert made.kernel_s[:, 1].tolist() == pytest.approx([27e-3, 22e-3])
    assert made.wait_j[0, 1] == pytest.approx(5e-3 * 30)
    assert made.kernel_j[0, 1] - made.kernel_j[1, 1] == pytest.approx(5e-3 * 30)
    assert made.times_s[:, -1].tolist() == pytest.approx([made.period_s] * 2)
    assert made.wait_s[:, [0, 2, 3]].sum() == 0


def test_without_a_collective_the_faster_gpu_idles_at_the_end_of_the_pass() -> None:
    made = cycle(work(COMPUTE), speeds=(1.0, 0.5))

    assert made.gap_s.tolist() == pytest.approx([10e-3, 0.0])
    assert made.energy_j[0] - made.energy_j[1] == pytest.approx(10e-3 * (20 - 50))


def test_a_collective_of_one_gpu_waits_for_nobody() -> None:
    assert cycle(work(COMPUTE, REDUCE, collective=("reduce",))).wait_s.sum() == 0


def test_energy_at_any_time_is_the_integral_of_piecewise_constant_power() -> None:
    made = cycle(work(COMPUTE, MEMORY))
    times_s = np.array([0.0, 5e-3, 10e-3, 15e-3, 20e-3, 25e-3, 1.0])

    energies_j = made.energy_at(0, times_s)

    assert energies_j.tolist() == pytest.approx([0, 0.79, 1.58, 2.28, 2.98, 3.77, 50 * 2.98])


def test_one_rank_can_be_made_late_for_every_collective() -> None:
    segments = work(COMPUTE, REDUCE, MEMORY, REDUCE, collective=("reduce",))
    (piece,) = pieces_of(segments, a_gpu().load, np.ones(3), 0.0, 2e-3)

    made = piece.cycle((0, 0, 0))

    assert made.wait_s[:, 1].tolist() == pytest.approx([4e-3, 4e-3, 0])
    assert made.gap_s.tolist() == pytest.approx([0, 0, 4e-3])
    assert made.period_s == pytest.approx(44e-3)


def test_a_rank_can_be_late_for_a_collective_right_after_another() -> None:
    segments = work(COMPUTE, REDUCE, ("gather", 0.0, 0.0, 1e9), MEMORY, collective=("reduce", "gather"))
    (piece,) = pieces_of(segments, a_gpu().load, np.ones(2), 0.0, 2e-3)

    made = piece.cycle((0, 0))

    assert made.wait_s.tolist() == [pytest.approx([0, 2e-3, 2e-3, 0]), pytest.approx([0, 0, 0, 0])]
    assert made.times_s[:, -1].tolist() == pytest.approx([44e-3, 44e-3])


def test_what_takes_no_time_at_the_end_of_long_work_makes_no_piece_of_its_own() -> None:
    pieces = pieces_of(work(*[COMPUTE] * 25, TINY), a_gpu().load, np.ones(1), 0.0)

    assert sum(piece.kernel.size for piece in pieces) == 26
    assert all(piece.cycle((0,)).period_s > 0 for piece in pieces)


def test_long_work_is_cut_where_clocks_may_change() -> None:
    load = a_gpu().load
    segments = work(*[COMPUTE, REDUCE, MEMORY] * 40, collective=("reduce",))  # 1.2 s

    alone = pieces_of(segments, load, np.ones(1), 0.0)
    together = pieces_of(segments, load, np.ones(2), 0.0)

    assert [piece.cycle((0,)).period_s for piece in alone] == pytest.approx([0.25, 0.25, 0.25, 0.25, 0.2])
    assert sum(piece.cycle((0, 0)).period_s for piece in together) == pytest.approx(1.2)
    assert all(piece.kernel[-1] == 1 for piece in together[:-1]), "cut after a collective"
    assert len(together) == 5


def test_cutting_changes_no_total() -> None:
    segments = work(*[COMPUTE, REDUCE, MEMORY] * 40, REDUCE, collective=("reduce",))
    speeds = np.array([1.0, 0.9, 0.97])

    pieces = pieces_of(segments, a_gpu().load, speeds, 1e-3)
    cycles = [piece.cycle((0, 0, 0)) for piece in pieces]

    assert len(cycles) > 3
    # 40 times: 11.1 ms and 11.1 ms of the slowest, and the all-reduce; one more all-reduce at the end
    assert sum(made.period_s for made in cycles) == pytest.approx(40 * (20e-3 / 0.9 + 10e-3) + 10e-3)
    assert sum(made.wait_s.sum(axis=1) for made in cycles)[1] == 0
    assert sum(made.wait_s.sum(axis=1) for made in cycles)[0] == pytest.approx(40 * (20e-3 / 0.9 - 20e-3))


def test_the_highest_clock_within_a_budget_is_found() -> None:
    (piece,) = pieces_of(work(COMPUTE), a_gpu().load, np.ones(1), 0.0)

    def demand_w(rung: int) -> float:
        return float(piece.cycle((rung,)).power_w[0])

    for budget_w in (30.0, 60.0, 100.0, 157.9, 1000.0):
        rung = piece.rung_within(0, budget_w, 0)
        assert demand_w(rung) <= budget_w
        assert rung == 0 or demand_w(rung - 1) > budget_w
        assert piece.rung_within(0, budget_w, rung + 1) == rung + 1
    assert piece.rung_within(0, -1.0, 0) == 180, "the lowest, where no clock is low enough"
    assert piece.rung_within(0, 1000.0, 33) == 33, "never above the top"


def test_gaps_count_towards_the_mean_power() -> None:
    (piece,) = pieces_of(work(COMPUTE), a_gpu(gap_w=40).load, np.ones(1), 20e-3)  # 158 W for half of the time, 40 W

    assert piece.rung_within(0, 99.0, 0) == 0
    assert piece.rung_within(0, 98.9, 0) > 0


def test_the_ladder_stays_within_its_ends() -> None:
    ladder = Ladder.of(a_gpu(clock_mhz=1000, lowest_clock_mhz=210, clock_step_mhz=100).load)

    assert ladder.clocks_mhz.tolist() == [1000, 900, 800, 700, 600, 500, 400, 300]
    assert ladder.rung_of_share(0.65) == 4
    assert ladder.rung_of_share(0.1) == ladder.lowest


@pytest.mark.parametrize("missing", ["peak_bytes_per_s", "link_bytes_per_s"])
def test_a_figure_that_the_hardware_table_lacks_is_named(missing: str) -> None:
    unknown: dict[str, Any] = {missing: None}
    hardware = replace(GPU, **unknown)

    with pytest.raises(UsageError, match=missing):
        cycle(work(COMPUTE, REDUCE, collective=("reduce",)), hardware=hardware)


def test_a_dtype_without_units_and_work_without_time_are_errors() -> None:
    with pytest.raises(UsageError, match="int8"):
        cycle(work(COMPUTE, dtypes={"compute": "int8"}))
    with pytest.raises(UsageError, match="no time"):
        cycle(work(TINY))
