"""The energy of kernels by regression over mixtures: no kernel needs a loop of its own.

In a *mixture* window some kernels of a phase run in the model's order, each a number of times, launched by the host as
in the model. The windows' energies above idle are linear in the time each kernel took in them:

    active energy of window w = Σ over kernels j: power_j × time of j in w + gap power × time without a kernel

which is solved for powers ≥ 0 (non-negative least squares: Lawson and Hanson, "Solving least squares problems", 1974,
chapter 23), each window weighted by what its reading may get wrong, and at least by ``_FLOOR``. Times are launches ×
time per launch in the phase; where they add up to more than the window they are shortened alike. Energy in the phase =
power × time in the phase, so that an error in the traced time of a kernel cancels. Where the SM clock of a window is
not that of the phase, its energy is scaled to it, and trusted less, as in ``kernel_energy``.

The interval of a power is that of the linear regression without the bound: t(windows − unknowns) × √(diagonal of
(XᵀWX)⁻¹ × χ²/degrees) (Draper and Smith, "Applied Regression Analysis", 1998, 5.1), the last factor being at least 1,
so that windows that agree by chance make nothing narrower. A kernel whose power is at the bound has an interval too:
0 W is an estimate like any other, and bounds that hold bring the estimates nearer to the truth. What all readings get
wrong alike (power that lingers, gain, offset) scales all powers alike and is added. Kernels whose counts are always in
one proportion are one unknown; where the windows do not tell all unknowns apart, nothing is known. Gaps too short to
matter have no power.

Host gaps come with launches, and where every launch has one, their time is a sum of kernel times too and their power
cannot be found here. So where loops of empty kernels were taken, the gap power is theirs (``kernel_energy``), and time
of gaps × that power is taken off first; its error goes into every kernel, by as much as gaps go with it.

Assumed: a kernel's power does not depend on what runs beside it; a collective in a mixture waits as long per launch as
in its phase, for its power here is the mean of transfer and waiting.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from harness.kernels import Phase
from harness.measuring.attribution import Apportionment
from harness.measuring.kernel_energy import KernelEnergy, RankKernels, gap_power
from harness.measuring.loops import active_energy_j, clock_mhz, clock_of_phase_mhz, clock_ratio
from harness.measuring.results import SessionResult, TakenWindow, reading95_j, systematic95
from harness.measuring.statistics import Mean, mean_from, student_t
from harness.records import EnergyMethod, Part

_FLOOR = 2e-3  # of a window's energy: no reading is trusted better than that against a model this simple
_NO_GAPS = 1e-3  # of the windows' time: gaps that short have no power that could be found
_DISTINCT = 1e-6  # smallest to largest singular value of a design that tells its unknowns apart
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Regressed:
    """What regression found on one rank."""

    kernels: tuple[KernelEnergy, ...]
    gap_w: Mean | None  # active power between launches
    windows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Powers [unknowns] in W, and the half widths of their 95 % intervals from the scatter of the windows."""

    powers_w: _Floats
    half95_w: _Floats
    response_per_s: _Floats  # [unknowns, windows]: what a joule more in a window does to the powers, without the bound


@dataclass(frozen=True, slots=True, kw_only=True)
class _System:
    """Windows as equations. Without a known gap power it is the last unknown, unless there are no gaps."""

    times_s: _Floats  # [windows, unknowns]
    gaps_s: _Floats  # [windows]
    energies_j: _Floats  # [windows], above idle, that of gaps of known power taken off
    errors_j: _Floats  # [windows], standard deviations
    common: float  # half width of what all windows get wrong alike, relative to their active energy
    systematic: float  # the same of gain and offset, relative to what was read


@dataclass(frozen=True, slots=True, kw_only=True)
class _GapShare:
    """The known gap power, and by how much a kernel's power falls for each watt of it."""

    power_w: Mean
    share: float


def regressed(session: SessionResult, ranks: Sequence[RankKernels]) -> tuple[Regressed, ...]:
    """Kernel energies of every rank, from the mixture windows of a session; empty where they do not suffice."""
    return tuple(_of_rank(session, rank) for rank in ranks)


def solved(times_s: _Floats, energies_j: _Floats, errors_j: _Floats) -> Fit | None:
    """Weighted non-negative least squares; shapes [windows, unknowns], [windows], [windows] (standard deviations).

    None where there are not more windows than unknowns, or the windows do not tell the unknowns apart.
    """
    windows, unknowns = times_s.shape
    scale = np.linalg.norm(times_s / errors_j[:, None], axis=0)  # [unknowns]
    if windows <= unknowns or not unknowns or not scale.all():
        return None
    rows, right = times_s / errors_j[:, None] / scale, energies_j / errors_j
    singular = np.linalg.svd(rows, compute_uv=False)
    if singular[-1] < _DISTINCT * singular[0]:
        return None
    solution, _ = nnls(rows, right)
    degrees = windows - unknowns
    scatter = max(1.0, float(np.sum((right - rows @ solution) ** 2)) / degrees)
    variance = np.diag(np.linalg.inv(rows.T @ rows)) * scatter
    return Fit(
        powers_w=solution / scale,
        half95_w=student_t(degrees) * np.sqrt(variance) / scale,
        response_per_s=np.linalg.pinv(rows) / scale[:, None] / errors_j,
    )


def _of_rank(session: SessionResult, rank: RankKernels) -> Regressed:
    found: list[KernelEnergy] = []
    known_w = gap_power(session, rank.counter)
    gaps = [] if known_w is None else [known_w]
    windows = 0
    for phase, split in rank.phases.items():
        used = _mixtures(session, phase)
        groups = _groups(used)
        if len(used) <= len(groups):
            continue
        system = _system(session, rank, split, used, groups, known_w)
        fit = solved(system.times_s, system.energies_j, system.errors_j)
        if fit is None:
            continue
        windows += len(used)
        idle_w = rank.counter.idle_w(session)
        powers = [_mean(fit, system, number, idle_w) for number in range(len(fit.powers_w))]
        gaps += powers[len(groups) :]
        shares = (fit.response_per_s @ system.gaps_s).tolist()  # [unknowns]
        for kernel_ids, power_w, share in zip(groups, powers, shares, strict=False):
            duration_s = sum(each.duration_s for each in split.kernels if each.kernel.kernel_id in kernel_ids)
            gap = None if known_w is None else _GapShare(power_w=known_w, share=share)
            found.append(_kernel(phase, rank.rank, kernel_ids, duration_s, power_w, gap))
    gap_w = None if not gaps else min(gaps, key=lambda each: math.inf if each.ci95 is None else each.ci95)
    return Regressed(kernels=tuple(found), gap_w=gap_w, windows=windows)


def _kernel(
    phase: Phase,
    rank: int,
    kernel_ids: tuple[str, ...],
    duration_s: float,
    power_w: Mean,
    gap: "_GapShare | None",
) -> KernelEnergy:
    active = alone = power_w.times(duration_s)
    if gap is not None:  # an error of the gap power is in the kernel's with the other sign
        alone = alone.less(-gap.power_w.value * gap.share * duration_s)
        error = mean_from(0.0, repeat95=gap.power_w.repeat95, samples=gap.power_w.samples)
        active = active.plus(error, weight=-gap.share * duration_s)
    return KernelEnergy(
        phase=phase,
        rank=rank,
        kernel_ids=kernel_ids,
        method=EnergyMethod.REGRESSED,
        active_j=active,
        alone_j=alone,
        duration_s=duration_s,
        gap_s=0.0 if gap is None else gap.share * duration_s,
    )


def _mixtures(session: SessionResult, phase: Phase) -> list[TakenWindow]:
    return [
        taken
        for taken in session.windows
        if taken.part is Part.MIXTURE and taken.rejected is None and taken.kernels[0].phase is phase
    ]


def _groups(used: Sequence[TakenWindow]) -> list[tuple[str, ...]]:
    """Kernels that are told apart; those whose counts are always in one proportion are one unknown."""
    launches = [_launches(taken) for taken in used]
    groups: dict[tuple[float, ...], list[str]] = {}
    for name in sorted(set().union(*launches)):
        counts = [each.get(name, 0) for each in launches]
        largest = max(counts)
        if largest > 0:
            groups.setdefault(tuple(round(count / largest, 9) for count in counts), []).append(name)
    return [tuple(group) for group in groups.values()]


def _launches(taken: TakenWindow) -> dict[str, int]:
    """Launches of each kernel in one pass of a mixture."""
    counts: dict[str, int] = {}
    for each in taken.kernels:
        counts[each.kernel_id] = counts.get(each.kernel_id, 0) + each.launches
    return counts


def _system(
    session: SessionResult,
    rank: RankKernels,
    split: Apportionment,
    used: Sequence[TakenWindow],
    groups: Sequence[tuple[str, ...]],
    gap_w: Mean | None,
) -> _System:
    """The windows of a phase as equations for the powers of the groups and, last, of gaps whose power is not known."""
    devices, sharing = rank.counter.devices, rank.counter.sharing
    in_phase_mhz = clock_of_phase_mhz(session, used[0].kernels[0].phase, rank.counter)
    ratios = np.array([clock_ratio(in_phase_mhz, clock_mhz([taken], rank.counter)) for taken in used])
    times_s = _times_s(split, used, groups, np.maximum(1.0, ratios))
    energies_j = ratios * [active_energy_j(taken, session, rank.counter) for taken in used]
    halves = [
        reading95_j(taken.window, session.idle, session.precision, step_s=session.step_s, devices=devices)
        for taken in used
    ]
    read_j = np.array([sum(taken.window.spans[device].energy_j for device in devices) for taken in used])
    errors_j = np.hypot([half.random_j / 1.96 for half in halves], _FLOOR * read_j) / sharing
    errors_j = np.hypot(errors_j, np.abs((ratios - 1) * energies_j) / 1.96)
    gaps_s = times_s[:, -1]
    solve_gaps = gap_w is None and float(gaps_s.sum()) > _NO_GAPS * sum(taken.window.work_s for taken in used)
    active_j = float(energies_j.sum()) * sharing
    return _System(
        times_s=times_s if solve_gaps else times_s[:, :-1],
        gaps_s=gaps_s,
        energies_j=energies_j if gap_w is None else energies_j - gap_w.value * gaps_s,
        errors_j=errors_j,
        common=sum(half.common_j for half in halves) / active_j if active_j > 0 else 0.0,
        systematic=systematic95(used, session.precision, devices),
    )


def _times_s(
    split: Apportionment, used: Sequence[TakenWindow], groups: Sequence[tuple[str, ...]], slower: _Floats
) -> _Floats:
    """Time of each group and, last, of no kernel in each window: [windows, groups + 1].

    ``slower`` [windows] is by how much kernels may take longer there than in their phase.
    """
    launch_s = {each.kernel.kernel_id: each.duration_s / each.kernel.launches for each in split.kernels}
    times_s = np.zeros((len(used), len(groups) + 1))
    for row, taken in enumerate(used):
        launches = _launches(taken)
        for column, group in enumerate(groups):
            pass_s = sum(launches.get(name, 0) * launch_s.get(name, 0.0) for name in group)
            times_s[row, column] = taken.passes * pass_s
        work_s, kernels_s = taken.window.work_s, float(times_s[row].sum())
        times_s[row] *= min(1.0, work_s / kernels_s) if kernels_s > 0 else 1.0
        times_s[row, -1] = max(0.0, work_s - kernels_s * slower[row])
    return times_s


def _mean(fit: Fit, system: _System, number: int, idle_w: float) -> Mean:
    """One power as a mean; gain and offset are those of the gross power."""
    power_w = float(fit.powers_w[number])
    return mean_from(
        power_w,
        repeat95=float(fit.half95_w[number]),
        samples=len(system.energies_j),
        systematic95=system.systematic * (power_w + idle_w),
        common95=system.common * power_w,
    )
