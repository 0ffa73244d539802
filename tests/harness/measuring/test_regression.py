"""Kernel energies by regression over mixtures: exact without noise, and honest intervals with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from harness.kernels import Phase
from harness.measuring.kernel_energy import NULL_IN_GRAPH, RankKernels, null_loop
from harness.measuring.loops import RankCounter
from harness.measuring.precision import Precision
from harness.measuring.regression import Regressed, regressed, solved
from harness.measuring.results import TakenWindow
from harness.meters.base import Conditions
from harness.records import EnergyMethod, Part
from tests.harness.measuring.made import EXACT, IDLE_W, count, loops, session, split, taken, traced

GAP_W = 30.0  # above idle
POWERS_W = {"attention": 180.0, "copy": 90.0, "gemm": 320.0, "norm": 120.0}  # above idle
LAUNCH_S = {"attention": 2e-4, "copy": 5e-5, "gemm": 1e-3, "norm": 2e-5}
LAUNCHES = {"attention": 40, "copy": 80, "gemm": 160, "norm": 200}  # in the phase


def design(rng: np.random.Generator, kernels: int) -> NDArray[np.float64]:
    """Times [windows, kernels + 1] of 2.5 s in all: each kernel in half of the windows, and gaps."""
    windows = 2 * (kernels + 1) + 4
    present = np.argsort(rng.random((windows, kernels)), axis=0) < windows // 2
    times_s = np.column_stack([present * rng.uniform(0.8, 1.2, (windows, kernels)), rng.uniform(0.05, 0.6, windows)])
    return np.asarray(times_s * 2.5 / times_s.sum(axis=1)[:, None], dtype=np.float64)


@pytest.mark.parametrize("kernels", [1, 2, 5, 30])
def test_without_noise_powers_are_found_exactly(kernels: int) -> None:
    rng = np.random.default_rng(kernels)
    powers_w = np.append(rng.uniform(20, 600, kernels), 40.0)
    times_s = design(rng, kernels)
    fit = solved(times_s, times_s @ powers_w, np.full(len(times_s), 0.1))
    assert fit is not None
    assert fit.powers_w == pytest.approx(powers_w)


@dataclass(frozen=True)
class Coverage:
    """Over all powers of all systems."""

    held: float
    held_at_zero: float
    median_half: float  # relative to the power


def coverage(*, noise: float, zeros: int = 0, systems: int = 250) -> Coverage:
    """Systems of 3 to 12 kernels; ``noise`` is relative to a window's energy, 2 ‰ is what is expected of it."""
    rng = np.random.default_rng(7)
    held, at_zero, halves = [], [], []
    for _ in range(systems):
        kernels = int(rng.integers(3, 13))
        powers_w = np.append(rng.uniform(30, 500, kernels), rng.uniform(0, 60))
        powers_w[:zeros] = 0.0
        times_s = design(rng, kernels)
        true_j = times_s @ powers_w
        fit = solved(times_s, true_j * (1 + noise * rng.standard_normal(len(true_j))), 2e-3 * true_j)
        assert fit is not None
        inside = np.abs(fit.powers_w - powers_w) <= fit.half95_w
        held += list(inside)
        at_zero += list(inside[:zeros])
        halves += list(fit.half95_w[zeros:-1] / powers_w[zeros:-1])
    return Coverage(
        held=float(np.mean(held)),
        held_at_zero=float(np.mean(at_zero)) if zeros else 1.0,
        median_half=float(np.median(halves)),
    )


@pytest.mark.parametrize("noise", [2e-3, 1e-2])
def test_intervals_hold_the_truth_nineteen_times_in_twenty(noise: float) -> None:
    """Whether the windows scatter as their readings say or five times as much."""
    found = coverage(noise=noise)
    assert 0.93 <= found.held <= 0.99
    assert found.median_half < 15 * noise


def test_windows_that_agree_by_chance_make_no_interval_narrower() -> None:
    found = coverage(noise=1e-5)
    assert found.held == 1.0
    assert found.median_half > 5e-3


def test_kernels_that_draw_nothing_have_intervals_and_others_keep_theirs() -> None:
    found = coverage(noise=5e-3, zeros=2)
    assert found.held_at_zero >= 0.95
    assert 0.93 <= found.held <= 0.99


def test_too_few_windows_or_unknowns_that_always_come_together_have_no_solution() -> None:
    times_s = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])
    assert solved(times_s[:2], np.ones(2), np.ones(2)) is None
    assert solved(times_s, np.ones(3), np.ones(3)) is not None
    assert solved(np.column_stack([times_s, times_s.sum(axis=1)])[[0, 1, 2, 0, 1]], np.ones(5), np.ones(5)) is None
    assert solved(times_s * [1.0, 0.0], np.ones(3), np.ones(3)) is None


def mixture(counts: Mapping[str, int], number: int, *, gap_share: float = 0.2, devices: int = 1) -> TakenWindow:
    """A window of 1,000 passes in which the kernels draw what they draw."""
    kernels_s = 1000 * sum(LAUNCH_S[name] * launches for name, launches in counts.items())
    kernels_j = 1000 * sum(POWERS_W[name] * LAUNCH_S[name] * launches for name, launches in counts.items())
    gap_s = kernels_s * gap_share * (1 + number % 3)
    work_s = kernels_s + gap_s
    gross_j = kernels_j + gap_s * GAP_W + work_s * IDLE_W
    return taken(
        Part.MIXTURE,
        *[gross_j] * devices,
        passes=1000,
        kernels=[count(name, launches) for name, launches in counts.items()],
        work_s=work_s,
        started_s=20.0 + 20 * number,
    )


def mixtures(names: Sequence[str] = tuple(POWERS_W), *, windows: int = 14, **options: float) -> list[TakenWindow]:
    """Half of the kernels in each window, by a fixed draw."""
    rng = np.random.default_rng(1)
    found: list[TakenWindow] = []
    while len(found) < windows:
        counts = {name: int(rng.integers(1, 6)) for name in names if rng.random() < 0.5}
        if counts:
            found.append(mixture(counts, len(found), **options))  # type: ignore[arg-type]
    return found


PHASE = split(*(traced(name, LAUNCHES[name] * LAUNCH_S[name], launches=LAUNCHES[name]) for name in POWERS_W))


def fit_of(windows: Sequence[TakenWindow], precision: Precision = EXACT, **counter: object) -> Regressed:
    rank = RankKernels(
        rank=0,
        counter=RankCounter(**{"devices": (0,)} | counter),  # type: ignore[arg-type]
        phases={Phase.PREFILL: PHASE},
    )
    idle_w = (IDLE_W,) * len(windows[0].window.spans)
    (found,) = regressed(session(windows, precision=precision, idle_w=idle_w), [rank])
    return found


def active_j(name: str) -> float:
    return POWERS_W[name] * LAUNCH_S[name] * LAUNCHES[name]


def test_mixtures_give_every_kernel_its_energy_in_the_phase_and_the_gaps_their_power() -> None:
    found = fit_of(mixtures())
    assert {kernel.kernel_ids: kernel.active_j.value for kernel in found.kernels} == pytest.approx(
        {(name,): active_j(name) for name in POWERS_W}
    )
    assert found.gap_w is not None
    assert found.gap_w.value == pytest.approx(GAP_W)
    assert found.windows == 14
    for kernel in found.kernels:
        assert kernel.method is EnergyMethod.REGRESSED
        assert kernel.duration_s == pytest.approx(LAUNCH_S[kernel.kernel_ids[0]] * LAUNCHES[kernel.kernel_ids[0]])


def test_a_kernel_that_was_traced_too_long_has_its_energy_all_the_same() -> None:
    """Power comes out lower by as much as time is longer; the gaps pay for it, a little."""
    slow = traced("gemm", 1.02 * LAUNCHES["gemm"] * LAUNCH_S["gemm"], launches=LAUNCHES["gemm"])
    others = [share.kernel for share in PHASE.kernels if share.kernel.kernel_id != "gemm"]
    rank = RankKernels(rank=0, counter=RankCounter(devices=(0,)), phases={Phase.PREFILL: split(slow, *others)})
    (found,) = regressed(session(mixtures()), [rank])
    gemm = next(kernel for kernel in found.kernels if kernel.kernel_ids == ("gemm",))
    assert gemm.active_j.value == pytest.approx(active_j("gemm"), rel=0.003)


def test_kernels_always_in_one_proportion_are_one_unknown() -> None:
    together = [
        replace(window, kernels=tuple(each for each in window.kernels if each.kernel_id not in {"norm", "copy"}))
        for window in mixtures(("attention", "gemm"))
    ]
    windows = []
    for number, window in enumerate(together):
        counts = {each.kernel_id: each.launches for each in window.kernels}
        if number % 2:
            counts |= {"norm": 5 * (1 + number % 3), "copy": 2 * (1 + number % 3)}
        windows.append(mixture(counts, number))

    found = fit_of(windows)

    energies = {kernel.kernel_ids: kernel.active_j.value for kernel in found.kernels}
    assert set(energies) == {("attention",), ("gemm",), ("copy", "norm")}
    # In the phase they come in the same proportion: 200 norms to 80 copies.
    assert energies["copy", "norm"] == pytest.approx(active_j("norm") + active_j("copy"))


def test_without_gaps_there_is_no_power_of_gaps_and_all_else_is_known() -> None:
    found = fit_of(mixtures(gap_share=0.0))
    assert found.gap_w is None
    assert {kernel.kernel_ids[0]: kernel.active_j.value for kernel in found.kernels} == pytest.approx(
        {name: active_j(name) for name in POWERS_W}
    )


def test_too_few_usable_mixtures_give_nothing() -> None:
    windows = mixtures()
    few = [replace(window, rejected="slow") for window in windows[5:]]
    for used in (windows[:5] + few, [*few], [windows[0]] * 20):
        found = fit_of(used)
        assert (found.kernels, found.gap_w, found.windows) == ((), None, 0)


def test_ranks_that_share_a_counter_have_even_parts_of_its_powers() -> None:
    found = fit_of(mixtures(), sharing=2)
    gemm = next(kernel for kernel in found.kernels if kernel.kernel_ids == ("gemm",))
    assert gemm.active_j.value == pytest.approx(active_j("gemm") / 2)


def test_a_rank_on_two_devices_has_the_energy_of_both() -> None:
    found = fit_of(mixtures(devices=2), devices=(0, 1))
    gemm = next(kernel for kernel in found.kernels if kernel.kernel_ids == ("gemm",))
    assert gemm.active_j.value == pytest.approx(2 * active_j("gemm"))


def test_gain_is_that_of_the_gross_energy_and_what_lingers_is_in_every_power() -> None:
    tails = [
        replace(each, window=replace(each.window, spans=tuple(replace(s, tail_s=0.1) for s in each.window.spans)))
        for each in mixtures()
    ]
    for windows, precision in ((mixtures(), Precision(gain95=0.05, tail95=0.0)), (tails, Precision(tail95=0.25))):
        gemm = next(kernel for kernel in fit_of(windows, precision).kernels if kernel.kernel_ids == ("gemm",))
        duration_s = LAUNCH_S["gemm"] * LAUNCHES["gemm"]
        if precision.gain95:
            assert gemm.active_j.systematic95 == pytest.approx(0.05 * (active_j("gemm") + IDLE_W * duration_s))
        else:
            assert 0.003 < gemm.active_j.common95 / gemm.active_j.value < 0.05


def at_clock(windows: Sequence[TakenWindow], clock_mhz: float) -> list[TakenWindow]:
    return [replace(each, window=replace(each.window, after=(Conditions(sm_clock_mhz=clock_mhz),))) for each in windows]


def test_mixtures_at_another_clock_than_the_phase_are_scaled_to_it() -> None:
    """At nine tenths of the clock launches take longer by a ninth and use nine tenths above idle."""
    slow = []
    for each in mixtures(gap_share=0.0)[:4]:
        work_s, (span,) = each.window.work_s, each.window.spans
        energy_j = 0.9 * (span.energy_j - IDLE_W * work_s) + IDLE_W * work_s / 0.9
        window = replace(each.window, work_s=work_s / 0.9, spans=(replace(span, energy_j=energy_j),))
        slow.append(replace(each, window=window))
    phase = at_clock([taken(Part.PREFILL, 1.0)], 2000.0)
    found = fit_of([*at_clock(slow, 1800.0), *at_clock(mixtures(gap_share=0.0)[4:], 2000.0), *phase])
    assert found.gap_w is None, "longer launches are no gaps"
    assert found.windows == 14
    for kernel in found.kernels:
        assert kernel.active_j.value == pytest.approx(active_j(kernel.kernel_ids[0]))


def test_mixtures_at_another_clock_are_trusted_less() -> None:
    """Here energy does not depend on the clock, so that those at nine tenths of it come out wrong."""
    phase = at_clock([taken(Part.PREFILL, 1.0)], 2000.0)
    windows = mixtures(gap_share=0.0, windows=40)
    found = fit_of([*at_clock(windows[:8], 1800.0), *at_clock(windows[8:], 2000.0), *phase])
    for kernel in found.kernels:
        true_j = active_j(kernel.kernel_ids[0])
        assert kernel.active_j.value == pytest.approx(true_j, rel=0.005)
        assert abs(kernel.active_j.value - true_j) <= (kernel.active_j.ci95 or 0)


def null_windows(spread: float = 0.0) -> list[TakenWindow]:
    """Loops of empty kernels, in which the device waits for the host all but a few per cent of the time."""
    gross_w = GAP_W + IDLE_W
    return [
        *loops(Part.REPLAY, null_loop(), (20 * gross_w + 120) * 1e-6, 21e-6, spread=spread),
        *loops(Part.REPLAY, null_loop(NULL_IN_GRAPH), 120e-6, 1e-6),
    ]


def eager(windows: int = 14) -> list[TakenWindow]:
    """Mixtures in which every launch has a gap of 5 µs: gaps are a sum of kernel times."""
    found = []
    for number, plain in enumerate(mixtures(gap_share=0.0, windows=windows)):
        gap_s = 1000 * 5e-6 * sum(each.launches for each in plain.kernels)
        (span,) = plain.window.spans
        more = replace(span, energy_j=span.energy_j + gap_s * (GAP_W + IDLE_W))
        window = replace(plain.window, work_s=plain.window.work_s + gap_s, spans=(more,), started_s=20.0 + 20 * number)
        found.append(replace(plain, window=window))
    return found


def test_where_gaps_come_with_launches_their_power_is_that_of_empty_kernels() -> None:
    assert fit_of(eager()).kernels == (), "alone, mixtures cannot tell gaps from kernels"
    found = fit_of([*eager(), *null_windows()])
    assert {kernel.kernel_ids[0]: kernel.active_j.value for kernel in found.kernels} == pytest.approx(
        {name: active_j(name) for name in POWERS_W}
    )
    assert found.gap_w is not None
    assert found.gap_w.value == pytest.approx(GAP_W)
    for kernel in found.kernels:
        assert kernel.gap_s == pytest.approx(5e-6 * LAUNCHES[kernel.kernel_ids[0]]), "a gap for every launch"
        assert kernel.alone_j.value == pytest.approx(kernel.active_j.value + GAP_W * kernel.gap_s)


def test_an_error_of_the_gap_power_is_in_every_kernel_that_has_gaps() -> None:
    found = fit_of([*eager(), *null_windows(spread=0.1)])
    assert found.gap_w is not None
    wrong_w = found.gap_w.value - GAP_W
    assert 0.02 * GAP_W < abs(wrong_w) < (found.gap_w.ci95 or 0)
    for kernel in found.kernels:
        true_j = active_j(kernel.kernel_ids[0])
        assert kernel.active_j.value - true_j == pytest.approx(-wrong_w * kernel.gap_s, rel=1e-6)
        own_j = kernel.alone_j.ci95 or 0
        assert kernel.active_j.ci95 == pytest.approx(np.hypot(own_j, (found.gap_w.ci95 or 0) * kernel.gap_s))
