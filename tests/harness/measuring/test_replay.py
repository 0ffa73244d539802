"""Kernel energies by replay: what loops made by hand must come to."""

import math
from dataclasses import replace

import pytest

from harness.kernels import NULL_KERNEL, KernelKind, Phase
from harness.measuring.kernel_energy import (
    ISOLATION95,
    NULL_IN_GRAPH,
    KernelEnergy,
    RankKernels,
    Replayed,
    gap_power,
    null_loop,
    replayed,
)
from harness.measuring.loops import RankCounter
from harness.measuring.results import TakenWindow
from harness.meters.base import Conditions
from harness.records import EnergyMethod, Part
from tests.harness.measuring.made import IDLE_W, count, loops, session, split, taken, traced

US = 1e-6
GAP_W = 90.0  # gross
GEMM = traced("gemm", 400 * 10 * US, launches=400)  # of 10 µs
REDUCE = replace(traced("reduce", 100 * 30 * US, launches=100, kind=KernelKind.ALL_REDUCE), wait_s=100 * 12 * US)
ONE = RankCounter(devices=(0,))


def null_loops(*, eager: bool = True, dense: bool = True) -> list[TakenWindow]:
    """Empty kernels of 2 µs at 120 W, and gaps of 18 µs between them where the host is in between."""
    found = []
    if eager:
        found += loops(Part.REPLAY, null_loop(NULL_KERNEL), (2 * 120 + 18 * GAP_W) * US, 20 * US)
    if dense:
        found += loops(Part.REPLAY, null_loop(NULL_IN_GRAPH), 2 * 120 * US, 2 * US)
    return found


def gemm_loops(gap_us: float) -> list[TakenWindow]:
    """Launches of 10 µs at 300 W, with a gap after each."""
    return loops(Part.REPLAY, [count("gemm")], (10 * 300 + gap_us * GAP_W) * US, (10 + gap_us) * US)


def rank_of(*kernels: object, rank: int = 0, late: bool = False, devices: tuple[int, ...] = (0,)) -> RankKernels:
    return RankKernels(
        rank=rank,
        counter=RankCounter(devices=devices),
        phases={Phase.PREFILL: split(*kernels)},  # type: ignore[arg-type]
        late=late,
    )


def replay(windows: list[TakenWindow], *kernels: object) -> Replayed:
    (found,) = replayed(session(windows), [rank_of(*kernels)])
    return found


def only(found: Replayed) -> KernelEnergy:
    (kernel,) = found.kernels
    return kernel


def test_the_power_of_gaps_is_that_of_empty_kernels_less_the_kernels() -> None:
    gap_w = gap_power(session(null_loops()), ONE)
    assert gap_w is not None
    assert gap_w.value == pytest.approx(GAP_W - IDLE_W)


def test_without_a_graph_of_empty_kernels_gaps_are_taken_to_be_as_their_loop() -> None:
    gap_w = gap_power(session(null_loops(dense=False)), ONE)
    assert gap_w is not None
    assert gap_w.value == pytest.approx((2 * 120 + 18 * GAP_W) / 20 - IDLE_W)
    assert gap_power(session(null_loops(eager=False)), ONE) is None


def test_launches_without_gaps_are_taken_as_they_are() -> None:
    found = only(replay([*gemm_loops(0.0), *null_loops()], GEMM))
    assert found.active_j.value == pytest.approx(400 * 10 * US * (300 - IDLE_W))
    assert (found.gap_s, found.duration_s) == pytest.approx((0.0, 4e-3))
    assert found.kernel_ids == ("gemm",)
    assert found.method is EnergyMethod.REPLAY
    assert found.wait_j is found.wait_s is None


def test_the_energy_of_gaps_between_launches_is_taken_out() -> None:
    found = only(replay([*gemm_loops(15.0), *null_loops()], GEMM))
    assert found.active_j.value == pytest.approx(400 * 10 * US * (300 - IDLE_W))
    assert found.gap_s == pytest.approx(400 * 15 * US)
    assert found.alone_j.value == pytest.approx(400 * US * (10 * (300 - IDLE_W) + 15 * (GAP_W - IDLE_W)))


def test_gaps_of_unknown_power_leave_the_kernel_unknown() -> None:
    """Its loop would pass for the kernel's energy, gaps and all."""
    found = replay(gemm_loops(15.0), GEMM)
    assert found.kernels == ()
    assert found.missing == ("gemm",)
    assert found.gap_w is None
    assert only(replay(gemm_loops(0.2), GEMM)).active_j.value == pytest.approx(1.0, rel=0.02), (
        "two per cent are no gaps"
    )


def test_a_loop_that_is_faster_than_the_kernel_in_its_phase_counts_per_launch() -> None:
    """Caches are warm in a loop: what it used is what it used."""
    slower = replace(GEMM, traced_duration_s=400 * 12 * US)
    found = only(replay([*gemm_loops(0.0), *null_loops()], slower))
    assert found.active_j.value == pytest.approx(400 * 10 * US * (300 - IDLE_W))
    assert found.duration_s == pytest.approx(400 * 12 * US)


def test_small_kernels_looped_together_have_the_energy_of_all() -> None:
    """A pass launches two norms of 3 µs and one copy of 4 µs; the phase 100 times as many."""
    norm, copy = traced("norm", 200 * 3 * US, launches=200), traced("copy", 100 * 4 * US, launches=100)
    together = [count("norm", 2), count("copy", 1)]
    windows = loops(Part.REPLAY, together, (6 * 150 + 4 * 250 + 3 * 5 * GAP_W) * US, (10 + 15) * US)

    found = only(replay([*windows, *null_loops()], norm, copy))

    assert found.kernel_ids == ("norm", "copy")
    assert found.active_j.value == pytest.approx(100 * (6 * (150 - IDLE_W) + 4 * (250 - IDLE_W)) * US)
    assert found.duration_s == pytest.approx(1e-3)


def test_kernels_without_a_usable_loop_are_missing() -> None:
    lost = [replace(window, rejected="slow") for window in gemm_loops(0.0)]
    found = replay([*lost, *null_loops()], GEMM, traced("norm", 1e-4))
    assert found.kernels == ()
    assert found.missing == ("gemm", "norm")


def test_the_same_kernel_in_two_phases_is_two_kernels() -> None:
    windows = [
        *loops(Part.REPLAY, [count("gemm", phase=Phase.PREFILL)], 5e-3, 10 * US),
        *loops(Part.REPLAY, [count("gemm", phase=Phase.DECODE)], 2e-3, 10 * US),
    ]
    rank = RankKernels(rank=0, counter=ONE, phases={Phase.PREFILL: split(GEMM), Phase.DECODE: split(GEMM)})
    (found,) = replayed(session(windows), [rank])
    active = {kernel.phase: kernel.active_j.value for kernel in found.kernels}
    assert active[Phase.PREFILL] == pytest.approx(400 * (5e-3 - 10 * US * IDLE_W))
    assert active[Phase.DECODE] == pytest.approx(400 * (2e-3 - 10 * US * IDLE_W))


TRANSFER_W, WAIT_W, LATE_US = 160.0, 130.0, 2000.0


def collective_windows(devices: int = 1, scale: float = 1.0) -> list[TakenWindow]:
    """Transfers of 18 µs; with one rank late, the others wait 2 ms for it, and the last rank idles meanwhile."""
    prompt_j = [18 * TRANSFER_W * US * scale] * devices
    late_j = [prompt + LATE_US * WAIT_W * US * scale for prompt in prompt_j]
    if devices > 1:
        late_j[-1] = prompt_j[-1] + LATE_US * 55 * US
    return [
        *loops(Part.REPLAY, [count("reduce")], prompt_j, 18 * US),
        *loops(Part.WAITING, [count("reduce")], late_j, (18 + LATE_US) * US),
    ]


def test_a_collective_is_its_transfers_and_its_waiting() -> None:
    found = replay([*collective_windows(), *null_loops()], REDUCE)
    kernel = only(found)
    assert found.wait_w is not None
    assert found.wait_w.value == pytest.approx(WAIT_W - IDLE_W)
    assert kernel.wait_s == pytest.approx(1200 * US)
    assert kernel.wait_j == pytest.approx(1200 * US * (WAIT_W - IDLE_W))
    assert kernel.active_j.value == pytest.approx(100 * 18 * US * (TRANSFER_W - IDLE_W) + (kernel.wait_j or 0))


def test_the_late_rank_waits_at_the_power_of_the_others() -> None:
    ranks = [rank_of(REDUCE, rank=rank, late=rank == 2, devices=(rank,)) for rank in range(3)]
    found = replayed(session(collective_windows(3), idle_w=(50.0, 50.0, 50.0)), ranks)
    assert [round(each.wait_w.value, 6) for each in found if each.wait_w is not None] == [80.0, 80.0, 80.0]


def test_waiting_of_unknown_power_or_length_leaves_the_collective_unknown() -> None:
    transfers = [window for window in collective_windows() if window.part is Part.REPLAY]
    assert replay(transfers, REDUCE).missing == ("reduce",)
    assert replay(collective_windows(), replace(REDUCE, wait_s=None)).missing == ("reduce",)


def test_a_collective_that_never_waited_is_known_without_a_waiting_loop() -> None:
    transfers = [window for window in collective_windows() if window.part is Part.REPLAY]
    prompt = replace(REDUCE, wait_s=0.0, traced_duration_s=100 * 18 * US)
    found = only(replay(transfers, prompt))
    assert (found.wait_j, found.wait_s) == (0.0, 0.0)
    assert found.active_j.value == pytest.approx(100 * 18 * US * (TRANSFER_W - IDLE_W))


def test_a_loop_of_latecomers_that_hardly_took_longer_says_nothing_of_waiting() -> None:
    hardly = [
        *loops(Part.REPLAY, [count("reduce")], 18 * TRANSFER_W * US, 18 * US),
        *loops(Part.WAITING, [count("reduce")], 25 * TRANSFER_W * US, 25 * US),
    ]
    assert replay(hardly, REDUCE).wait_w is None


def test_the_uncertainty_of_a_loop_and_of_the_gaps_is_that_of_the_kernel() -> None:
    noisy_gap = loops(Part.REPLAY, null_loop(), (2 * 120 + 18 * GAP_W) * US, 20 * US, spread=0.02)
    result = session([*gemm_loops(15.0), *noisy_gap])
    gap_w = gap_power(result, ONE)
    assert gap_w is not None
    (found,) = replayed(result, [rank_of(GEMM)])
    kernel = only(found)
    gaps_j = (gap_w.ci95 or 0) * 400 * 15 * US
    assert kernel.active_j.ci95 == pytest.approx(math.hypot(gaps_j, ISOLATION95 * kernel.active_j.value))
    assert kernel.alone_j.ci95 == pytest.approx(0, abs=1e-9)


def at_clock(windows: list[TakenWindow], clock_mhz: float | None) -> list[TakenWindow]:
    seen = (Conditions(sm_clock_mhz=clock_mhz),)
    return [replace(each, window=replace(each.window, after=seen)) for each in windows]


def at_share(share: float, exponent: float) -> list[TakenWindow]:
    """Launches at a share of the full clock: longer by as much, and energy above idle falls with an exponent."""
    active_j = 10 * (300 - IDLE_W) * US * share**exponent
    pass_s = 10 * US / share
    return at_clock(loops(Part.REPLAY, [count("gemm")], active_j + IDLE_W * pass_s, pass_s), 2000 * share)


PHASE = at_clock([taken(Part.PREFILL, 1.0)], 2000.0)
TRUE_J = 400 * 10 * US * (300 - IDLE_W)


@pytest.mark.parametrize("exponent", [0.0, 0.7, 1.4, 2.0])
def test_a_loop_at_a_lower_clock_than_its_phase_is_scaled_to_it(exponent: float) -> None:
    found = only(replay([*at_share(0.9, exponent), *null_loops(), *PHASE], GEMM))
    assert found.gap_s == pytest.approx(0, abs=1e-12), "it took longer, but not for gaps"
    assert found.active_j.value == pytest.approx(TRUE_J * 0.9 ** (exponent - 1))
    assert abs(found.active_j.value - TRUE_J) <= (found.active_j.ci95 or 0) <= 0.13 * TRUE_J
    assert found.clock95_j == pytest.approx(found.active_j.value * (1 / 0.9 - 1))


def test_a_loop_at_a_higher_clock_than_its_phase_is_scaled_down() -> None:
    """The phase is at the board's limit, the kernel alone is not."""
    phase = at_clock([taken(Part.PREFILL, 1.0)], 1800.0)
    found = only(replay([*at_share(1.0, 0.0), *null_loops(), *phase], GEMM))
    assert found.active_j.value == pytest.approx(0.9 * TRUE_J)
    assert found.active_j.ci95 == pytest.approx(math.hypot(0.1, ISOLATION95) * 0.9 * TRUE_J)


@pytest.mark.parametrize("clock_mhz", [2000.0, None])
def test_at_the_same_clock_or_an_unknown_one_nothing_is_scaled(clock_mhz: float | None) -> None:
    windows = [*at_clock(gemm_loops(0.0), clock_mhz), *null_loops(), *PHASE]
    found = only(replay(windows, GEMM))
    assert found.active_j.value == pytest.approx(TRUE_J)
    assert found.clock95_j == 0
    assert found.active_j.ci95 == pytest.approx(ISOLATION95 * TRUE_J)
