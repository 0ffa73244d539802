"""What loops of kernels say about a run: energies by replay and regression, how far they disagree, and the ledger."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.campaign.kernel_rows import Counted, PhaseSplit
from harness.kernels import Phase
from harness.measuring.kernel_energy import KernelEnergy, RankKernels, Replayed, replayed
from harness.measuring.ledger import Ledger, RankFindings, ledger_of
from harness.measuring.loops import RankCounter
from harness.measuring.regression import Regressed, regressed
from harness.measuring.results import SessionResult
from harness.records import EnergyMethod, KernelEnergyRow, Part

_Key = tuple[int, Phase, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelFindings:
    """Rows of kernel energies, and the ledger of the run where one can be drawn up."""

    rows: tuple[KernelEnergyRow, ...] = ()
    ledger: Ledger | None = None
    notes: tuple[str, ...] = ()


def kernel_findings(
    run_id: str, session: SessionResult, counted: Counted, splits: Mapping[Phase, PhaseSplit], *, how: str
) -> KernelFindings:
    """Evaluate the loops of a session; empty where it has none. ``how`` says how kernels were launched in replay."""
    if not any(taken.kernels for taken in session.windows) or not splits:
        return KernelFindings()
    ranks = rank_kernels(counted, splits)
    by_replay, by_regression = replayed(session, ranks), regressed(session, ranks)
    active = {
        EnergyMethod.REPLAY: _by_key(each.kernels for each in by_replay),
        EnergyMethod.REGRESSED: _by_key(each.kernels for each in by_regression),
    }
    idle_w = [rank.counter.idle_w(session) for rank in ranks]
    rows = [
        _row(run_id, kernel, idle_w[rank], active, how if method is EnergyMethod.REPLAY else f"{windows} mixtures")
        for method, per_rank, windows in (
            (EnergyMethod.REPLAY, [each.kernels for each in by_replay], 0),
            (EnergyMethod.REGRESSED, [each.kernels for each in by_regression], by_regression[0].windows),
        )
        for rank, kernels in enumerate(per_rank)
        for kernel in kernels
        if len(kernel.kernel_ids) == 1
    ]
    ledger = _ledger(session, ranks, by_replay, by_regression)
    return KernelFindings(rows=tuple(rows), ledger=ledger, notes=_notes(session, by_replay, ledger))


def rank_kernels(counted: Counted, splits: Mapping[Phase, PhaseSplit]) -> tuple[RankKernels, ...]:
    """The kernels of each rank, with the counters that its energy is read from."""
    ranks = len(next(iter(splits.values())).ranks)
    owners = [max(first for first in counted.ranks if first <= rank) for rank in range(ranks)]
    return tuple(
        RankKernels(
            rank=rank,
            counter=RankCounter(
                devices=tuple(device for device, first in enumerate(counted.ranks) if first == owner),
                sharing=owners.count(owner),
            ),
            phases={phase: split.ranks[rank] for phase, split in splits.items()},
            late=ranks > 1 and rank == ranks - 1,
        )
        for rank, owner in enumerate(owners)
    )


def _by_key(ranks: Iterable[tuple[KernelEnergy, ...]]) -> dict[_Key, KernelEnergy]:
    alone = (kernel for kernels in ranks for kernel in kernels if len(kernel.kernel_ids) == 1)
    return {(kernel.rank, kernel.phase, kernel.kernel_ids[0]): kernel for kernel in alone}


def _row(
    run_id: str,
    kernel: KernelEnergy,
    idle_w: float,
    active: Mapping[EnergyMethod, Mapping[_Key, KernelEnergy]],
    how: str,
) -> KernelEnergyRow:
    other = EnergyMethod.REGRESSED if kernel.method is EnergyMethod.REPLAY else EnergyMethod.REPLAY
    twin = active[other].get((kernel.rank, kernel.phase, kernel.kernel_ids[0]))
    comparable = twin is not None and twin.active_j.value > 0
    return KernelEnergyRow(
        run_id=run_id,
        phase=kernel.phase,
        rank=kernel.rank,
        kernel_id=kernel.kernel_ids[0],
        method=kernel.method,
        energy_j=kernel.active_j.value + idle_w * kernel.duration_s,
        active_energy_j=kernel.active_j.value,
        energy_ci95_j=kernel.active_j.ci95,
        wait_energy_j=None
        if kernel.wait_j is None or kernel.wait_s is None
        else kernel.wait_j + idle_w * kernel.wait_s,
        disagreement=kernel.active_j.value / twin.active_j.value - 1 if comparable and twin is not None else None,
        how=how,
    )


def _ledger(
    session: SessionResult,
    ranks: Sequence[RankKernels],
    by_replay: Sequence[Replayed],
    by_regression: Sequence[Regressed],
) -> Ledger | None:
    """By replay where every kernel has a loop, else by regression.

    Mixtures without gaps do not show what gaps draw: then that is what the loops of empty kernels do.
    """
    replay = [
        RankFindings(rank=rank, kernels=found.kernels, gap_active_w=found.gap_w, wait_active_w=found.wait_w)
        for rank, found in zip(ranks, by_replay, strict=True)
        if found.gap_w is not None
    ]
    if len(replay) == len(ranks) and (ledger := ledger_of(session, replay, EnergyMethod.REPLAY)) is not None:
        return ledger
    mixed = [
        RankFindings(rank=rank, kernels=found.kernels, gap_active_w=gap_w)
        for rank, found, alone in zip(ranks, by_regression, by_replay, strict=True)
        if (gap_w := found.gap_w or alone.gap_w) is not None
    ]
    return ledger_of(session, mixed, EnergyMethod.REGRESSED) if len(mixed) == len(ranks) else None


def _notes(session: SessionResult, by_replay: Sequence[Replayed], ledger: Ledger | None) -> tuple[str, ...]:
    notes = []
    missing = {name for found in by_replay for name in found.missing}
    if missing and any(taken.part is Part.REPLAY for taken in session.windows):
        notes.append(f"{len(missing)} kernel(s) could not be replayed, {min(missing)} among them")
    if ledger is not None and not ledger.closes and ledger.residual_j.ci95 is not None:
        notes.append(
            f"the ledger does not close: residual {ledger.residual_j.value:.4g} J, "
            f"and its interval is ± {ledger.residual_j.ci95:.2g} J"
        )
    return tuple(notes)
