"""The energy of kernels by replay: each looped alone until the window is long enough.

A kernel lasts microseconds and a counter moves every 20–100 ms, so a kernel's energy is never read. Looped alone,

    active energy of a launch = (E − idle power × t) − gap power × (t − time of the launch)

with E and t energy and time of a pass of the loop. The gap power, above idle, is that of a loop of empty kernels in
which the device mostly waits for the host, less the empty kernels themselves where they were looped in a graph too:
(E_eager − E_graph) / (t_eager − t_graph) − idle power. Nothing is taken off where launches follow one another without
gaps (CUDA graphs). Where there are gaps and their power is not known, the kernel's energy is not known. Kernels too
small to be looped one by one are looped together, in the proportions of their phase: their sum is known.

A collective looped by all ranks at once gives the energy of the *transfer*: nobody is late. The power of *waiting* is
that of a loop in which one rank is always late, less its transfers, over the lateness, on a rank that is not late:
(E_late − E_prompt) / (t_late − t_prompt) − idle power. In its phase a collective used

    launches × transfer + waiting power × time that the trace saw it wait,

which is not known where the trace does not say how long it waited, or it waited and no loop shows at what power.

A kernel alone can draw more than the board's limit, which lowers the clock, where among others it ran at full clock;
or the other way round. Energy above idle is then scaled by the ratio of the SM clocks, phase to loop, to the power 1,
and the exponents 0 (nothing depends on the clock) to 2 (voltage follows the clock, E ~ V²: Mudge, "Power: a first-class
architectural design constraint", Computer 34, 2001) are the ends of its 95 % interval. Time that a launch takes longer
at a lower clock is no gap.

Intervals hold for the gross energy, idle power being taken as known: gain and offset are those of what was read.

Assumed: a launch uses the same energy alone as among others, to within ``ISOLATION95``. Clocks, caches, temperature and
input values can make that wrong, so loops share rounds with the run's own windows, inputs are those of the model, and
the energy ledger and the regression over mixtures (``regression``) test it. Method: micro-benchmarks in a loop, Arafa
et al., "Verified Instruction-Level Energy Consumption Measurement for NVIDIA GPUs" (CF 2020, arXiv 2002.07795); loops
long against the sensor's cycle at varied phases: "Part-time power measurements" (arXiv 2312.02741).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from harness.kernels import NULL_KERNEL, KernelCount, Phase
from harness.measuring.attribution import Apportionment, KernelShare
from harness.measuring.loops import Loop, RankCounter, clock_of_phase_mhz, clock_ratio, loop_of
from harness.measuring.results import SessionResult
from harness.measuring.statistics import Mean
from harness.records import EnergyMethod, Part
from harness.tracing.graph import COLLECTIVES

NULL_IN_GRAPH = f"{NULL_KERNEL}_graph"  # the empty kernel launched without the host in between
# How far a kernel's energy alone may differ from that in its phase (relative, 95 %), all kernels alike: temperature
# and with it leakage are not the same in all windows. An assumption, held against virtual machines.
ISOLATION95: Final = 0.01
_DENSE = 0.9  # a loop whose launches fill so much of it has no gaps to speak of


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEnergy:
    """The energy of one kernel, or of several small ones together, in one pass of its phase on one rank.

    Replay: ``active_j`` = ``alone_j`` − gap power × ``gap_s`` + waiting power × ``wait_s``. The two powers are the same
    numbers for all kernels of a rank, errors included, and so is what ``ISOLATION95`` and ``clock95_j`` allow for:
    they are in the interval of ``active_j`` only, and whoever adds kernels up needs the terms apart.
    """

    phase: Phase
    rank: int
    kernel_ids: tuple[str, ...]  # several: only their sum is known
    method: EnergyMethod
    active_j: Mean  # above idle
    alone_j: Mean  # the loop's, above idle, gaps included
    duration_s: float  # in the phase
    gap_s: float = 0.0  # of the loop
    clock95_j: float = 0.0  # half width: the loop's clock was not the phase's
    wait_j: float | None = None  # collectives: part of the active energy spent waiting …
    wait_s: float | None = None  # … for so long


@dataclass(frozen=True, slots=True, kw_only=True)
class RankKernels:
    """The kernels of every phase on one rank, as traced, with the counter that its energy is read from."""

    rank: int
    counter: RankCounter
    phases: Mapping[Phase, Apportionment]
    late: bool = False  # the rank that is late in loops that show the power of waiting

    def share(self, phase: Phase, kernel_id: str) -> KernelShare | None:
        """One kernel of a phase."""
        split = self.phases.get(phase)
        return None if split is None else next((e for e in split.kernels if e.kernel.kernel_id == kernel_id), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What replay found on one rank. Powers are above idle; None: not known."""

    kernels: tuple[KernelEnergy, ...]
    gap_w: Mean | None  # between launches
    wait_w: Mean | None  # of waiting in a collective
    missing: tuple[str, ...] = field(default=())  # kernels whose energy is not known


def null_loop(kernel_id: str = NULL_KERNEL) -> tuple[KernelCount, ...]:
    """The loop of empty kernels."""
    return (KernelCount(phase=Phase.PREFILL, kernel_id=kernel_id, launches=1),)


def replayed(session: SessionResult, ranks: Sequence[RankKernels]) -> tuple[Replayed, ...]:
    """Kernel energies of every rank, from the replay and waiting windows of a session.

    The late rank never waits in its loop, so its waiting power is taken to be the mean of the others'.
    """
    waits = [_wait_power(session, each) for each in ranks]
    known = [wait for wait in waits if wait is not None]
    common = None if not known else known[0].times(sum(wait.value for wait in known) / len(known) / known[0].value)
    return tuple(_of_rank(session, each, wait or common) for each, wait in zip(ranks, waits, strict=True))


def gap_power(session: SessionResult, counter: RankCounter) -> Mean | None:
    """Power above idle between launches, as stated above; None without a loop of empty kernels."""
    eager = loop_of(session, Part.REPLAY, null_loop(), counter)
    if eager is None:
        return None
    dense = loop_of(session, Part.REPLAY, null_loop(NULL_IN_GRAPH), counter)
    gross_w = eager.power_w
    if dense is not None and dense.duration_s.value < _DENSE * eager.duration_s.value:
        gap_s = eager.duration_s.value - dense.duration_s.value
        gross_w = eager.energy_j.plus(dense.energy_j, weight=-1).times(1 / gap_s)
    return gross_w.less(counter.idle_w(session))


def _of_rank(session: SessionResult, rank: RankKernels, wait_w: Mean | None) -> Replayed:
    gap_w = gap_power(session, rank.counter)
    found: list[KernelEnergy] = []
    for kernels in _loops(session):
        loop = loop_of(session, Part.REPLAY, kernels, rank.counter)
        shares = [share for each in kernels if (share := rank.share(each.phase, each.kernel_id)) is not None]
        if loop is not None and len(shares) == len(kernels):
            energy = _energy(session, rank, loop, shares, gap_w=gap_w, wait_w=wait_w)
            found += [] if energy is None else [energy]
    have = {(each.phase, kernel_id) for each in found for kernel_id in each.kernel_ids}
    missing = tuple(
        share.kernel.kernel_id
        for phase, split in rank.phases.items()
        for share in split.kernels
        if (phase, share.kernel.kernel_id) not in have
    )
    return Replayed(kernels=tuple(found), gap_w=gap_w, wait_w=wait_w, missing=missing)


def _energy(
    session: SessionResult,
    rank: RankKernels,
    loop: Loop,
    shares: Sequence[KernelShare],
    *,
    gap_w: Mean | None,
    wait_w: Mean | None,
) -> KernelEnergy | None:
    """Energy of a loop's kernels in a pass of their phase; None where a part of it is not known."""
    passes = shares[0].kernel.launches / loop.kernels[0].launches  # of the loop in one pass of the phase
    collective = shares[0].kernel.kind in COLLECTIVES
    waits = [share.wait_s if collective else 0.0 for share in shares]
    loop_s = loop.duration_s.value * passes
    waited_s = sum(wait or 0.0 for wait in waits)
    phase = loop.kernels[0].phase
    ratio = clock_ratio(clock_of_phase_mhz(session, phase, rank.counter), loop.clock_mhz)
    gap_s = max(0.0, loop_s - (sum(share.duration_s for share in shares) - waited_s) * max(1.0, ratio))
    gaps_unknown = gap_w is None and gap_s > (1 - _DENSE) * loop_s
    if None in waits or (waited_s > 0 and wait_w is None) or gaps_unknown:
        return None
    alone = loop.energy_j.less(rank.counter.idle_w(session) * loop.duration_s.value).times(passes * ratio)
    gap_s *= ratio
    active = alone if gap_w is None else alone.plus(gap_w, weight=-gap_s)
    clock95_j = abs(ratio - 1) * abs(active.value)
    active = active if wait_w is None else active.plus(wait_w, weight=waited_s)
    return KernelEnergy(
        phase=phase,
        rank=rank.rank,
        kernel_ids=tuple(each.kernel_id for each in loop.kernels),
        method=EnergyMethod.REPLAY,
        active_j=active.with_repeat(math.hypot(clock95_j, ISOLATION95 * active.value)),
        alone_j=alone,
        duration_s=sum(share.duration_s for share in shares),
        gap_s=0.0 if gap_w is None else gap_s,
        clock95_j=clock95_j,
        wait_j=None if not collective else (0.0 if wait_w is None else wait_w.value * waited_s),
        wait_s=waited_s if collective else None,
    )


def _wait_power(session: SessionResult, rank: RankKernels) -> Mean | None:
    """Active power of waiting, on a rank that is not the late one: what a pass takes beyond its transfer."""
    waiting = {taken.kernels for taken in session.windows if taken.part is Part.WAITING}
    if rank.late:
        return None
    for kernels in sorted(waiting):
        late = loop_of(session, Part.WAITING, kernels, rank.counter)
        prompt = loop_of(session, Part.REPLAY, kernels, rank.counter)
        if late is not None and prompt is not None and late.duration_s.value > 1.5 * prompt.duration_s.value:
            waited_s = late.duration_s.value - prompt.duration_s.value
            gross_w = late.energy_j.plus(prompt.energy_j, weight=-1).times(1 / waited_s)
            return gross_w.less(rank.counter.idle_w(session))
    return None


def _loops(session: SessionResult) -> list[tuple[KernelCount, ...]]:
    loops = {taken.kernels for taken in session.windows if taken.part is Part.REPLAY}
    return sorted(kernels for kernels in loops if not kernels[0].kernel_id.startswith(NULL_KERNEL))
