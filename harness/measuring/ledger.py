"""The energy ledger of a run: what its own window used, against what idle power, kernels and gaps explain.

    run = idle + Σ active kernels (replay or regressed) + active host gaps + residual

Idle is idle power × duration. Kernels are those of prefill and decode on every rank, by a method that does not use the
energy of run or phase. Gaps are the time in which a rank ran no kernel, at the power between launches. The residual is
what is left: what the methods fail to explain, never zero by construction.

Interval of the residual, in quadrature:

* repeats of the run, of every kernel's loop, and of the two powers that all kernels of a rank share: an error of the
  gap power is in the gaps and, with the other sign, in every kernel whose loop had gaps, so it counts for the
  *difference* of these times only; one of the waiting power counts for all time waited. All ranks are read in the same
  windows, which may vary on all of them for one reason, so half widths of repeats add up over the ranks;
* what all windows get wrong alike (power that lingers), with its sign: in the run as in the loops;
* gain and offset: the meter gets them wrong on both sides, so what is left is the relative error × the residual;
* ``ISOLATION95`` of the kernels and gaps, of all alike: they were not measured in the run's own windows; and what
  running at another clock in its loop adds for a kernel (``kernel_energy``), which has one sign for all.

Assumed: idle power is the same number on both sides, so its own error cancels as far as kernels and gaps fill the run.
Errors of regressed powers are treated as independent, though they add up to the windows' energies and so partly cancel:
that interval is on the wide side. Source: the law of propagation of uncertainty, GUM (JCGM 100:2008), 5.1.2 and 5.2.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.kernels import Phase
from harness.measuring.kernel_energy import ISOLATION95, KernelEnergy, RankKernels
from harness.measuring.loops import RankCounter, loop_of
from harness.measuring.results import SessionResult
from harness.measuring.statistics import Mean, mean_from, total_of
from harness.records import EnergyMethod, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class RankFindings:
    """What one method found on one rank: kernels of all phases, and the active powers that they share."""

    rank: RankKernels
    kernels: tuple[KernelEnergy, ...]
    gap_active_w: Mean
    wait_active_w: Mean | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The energy of a run, explained; residual_j is what is not."""

    method: EnergyMethod
    energy_j: Mean
    idle_j: float
    kernels_j: Mean
    gaps_j: Mean
    residual_j: Mean

    @property
    def closes(self) -> bool:
        """Whether the residual lies inside its own interval."""
        return self.residual_j.ci95 is not None and abs(self.residual_j.value) <= self.residual_j.ci95


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One rank's side of the ledger; ``explained_j`` is kernels and gaps together."""

    counter: RankCounter
    idle_j: float
    kernels_j: Mean
    gaps_j: Mean
    explained_j: Mean
    clock95_j: float  # half width: other clocks in the loops than in the phases


def ledger_of(session: SessionResult, findings: Sequence[RankFindings], method: EnergyMethod) -> Ledger | None:
    """Draw up the ledger of a run; None where its own windows cannot be used, or a kernel or phase is missing."""
    entries = [_entry(session, each) for each in findings]
    drawn = [entry for entry in entries if entry is not None]
    if not drawn or len(drawn) < len(entries):
        return None
    devices = tuple(dict.fromkeys(device for entry in drawn for device in entry.counter.devices))
    run = loop_of(session, Part.RUN, (), RankCounter(devices=devices))
    if run is None:
        return None
    idle_j = sum(entry.idle_j for entry in drawn)
    return Ledger(
        method=method,
        energy_j=run.energy_j,
        idle_j=idle_j,
        kernels_j=_over_ranks([entry.kernels_j for entry in drawn]),
        gaps_j=_over_ranks([entry.gaps_j for entry in drawn]),
        residual_j=_residual(drawn, run.energy_j, idle_j),
    )


def _residual(entries: Sequence[_Entry], run_j: Mean, idle_j: float) -> Mean:
    explained_j = _over_ranks([entry.explained_j for entry in entries])
    repeats = (run_j.repeat95, explained_j.repeat95)
    isolation_j = ISOLATION95 * explained_j.value + math.fsum(entry.clock95_j for entry in entries)
    left_j = run_j.value - idle_j - explained_j.value
    return mean_from(
        left_j,
        repeat95=None if None in repeats else math.hypot(repeats[0] or 0.0, repeats[1] or 0.0, isolation_j),
        samples=min(run_j.samples, explained_j.samples),
        systematic95=abs(left_j) * run_j.systematic95 / abs(run_j.value),
        common95=abs(run_j.common95 - explained_j.common95),
    )


def _entry(session: SessionResult, found: RankFindings) -> _Entry | None:
    run = loop_of(session, Part.RUN, (), found.rank.counter)
    if run is None or not _complete(session, found):
        return None
    kernels_s = sum(share.duration_s for split in found.rank.phases.values() for share in split.kernels)
    gap_s = max(0.0, run.duration_s.value - kernels_s)
    looped_gaps_s = sum(kernel.gap_s for kernel in found.kernels)
    waited_s = sum(kernel.wait_s or 0.0 for kernel in found.kernels)
    gap_w = found.gap_active_w
    alone_j = total_of([kernel.alone_j for kernel in found.kernels])
    if found.wait_active_w is not None:
        alone_j = alone_j.plus(found.wait_active_w, weight=waited_s)
    return _Entry(
        counter=found.rank.counter,
        idle_j=found.rank.counter.idle_w(session) * run.duration_s.value,
        kernels_j=alone_j.plus(gap_w, weight=-looped_gaps_s),
        gaps_j=gap_w.times(gap_s),
        explained_j=alone_j.plus(gap_w, weight=gap_s - looped_gaps_s),
        clock95_j=sum(kernel.clock95_j for kernel in found.kernels),
    )


def _complete(session: SessionResult, found: RankFindings) -> bool:
    """Whether every kernel of every phase of the run is known."""
    phases = {Phase(part.value) for part in (Part.PREFILL, Part.DECODE) if session.part(part) is not None}
    have = {(kernel.phase, kernel_id) for kernel in found.kernels for kernel_id in kernel.kernel_ids}
    want = {(phase, share.kernel.kernel_id) for phase, split in found.rank.phases.items() for share in split.kernels}
    return want <= have and phases <= found.rank.phases.keys()


def _over_ranks(means: Sequence[Mean]) -> Mean:
    """Sum over the ranks: they were read in the same windows, with meters of one kind, so half widths add up."""
    known = [mean.repeat95 for mean in means if mean.repeat95 is not None]
    return mean_from(
        math.fsum(mean.value for mean in means),
        repeat95=None if len(known) < len(means) else math.fsum(known),
        samples=min(mean.samples for mean in means),
        systematic95=math.fsum(mean.systematic95 for mean in means),
        common95=math.fsum(mean.common95 for mean in means),
    )
