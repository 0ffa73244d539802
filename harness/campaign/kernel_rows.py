"""Rows of kernels and of their energies, from the traces of all ranks and the energy of their phase.

Every rank has its own share of the phase's energy: what the counter of its device read, or an equal part of a counter
that several ranks share (a CPU). Each share is apportioned to that rank's kernels and host gaps, so together they fill
the phase.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.campaign.graph_rows import places
from harness.campaign.task import Task
from harness.kernels import Phase
from harness.measuring.attribution import Apportionment, Ceilings, KernelShare, apportion
from harness.measuring.results import SessionResult, work_energy_j
from harness.meters.selection import MeterBank
from harness.records import EnergyMethod, KernelEnergyRow, KernelRow, Part, Provenance
from harness.tracing.graph import KernelGraph
from harness.tracing.timeline import TracedKernel


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Which counters the windows of a run were read from; tuples have one entry per counter."""

    names: tuple[str, ...]
    device_sha256: tuple[str | None, ...]
    ranks: tuple[int, ...]  # the first, or only, rank whose energy it counts
    method: str
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseKernels:
    """The kernels of one pass of a phase."""

    phase: Phase
    ranks: tuple[tuple[TracedKernel, ...], ...]  # [ranks][kernels]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSplit:
    """The energy of a phase, apportioned on every rank."""

    phase: Phase
    ranks: tuple[Apportionment, ...]

    @property
    def host_gap_energy_j(self) -> float:
        """Energy of the time in which no kernel ran, over all ranks."""
        return sum(each.host_gap_energy_j for each in self.ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class _RankShare:
    """What of the energy of a phase, and of the idle power, is one rank's."""

    energy: float  # shares of 1
    idle: float


def counted_by(bank: MeterBank, ranks: Sequence[int]) -> Counted:
    """What is recorded of the counters; ``ranks`` as in ``Counted``."""
    return Counted(
        names=tuple(meter.name for meter in bank.meters),
        device_sha256=tuple(facts.uuid_sha256 for facts in bank.facts()),
        ranks=tuple(ranks),
        method=bank.method,
        provenance=bank.provenance,
    )


def split_phase(task: Task, session: SessionResult, counted: Counted, traced: PhaseKernels) -> PhaseSplit | None:
    """Apportion the energy of a phase; None where it is not known."""
    result = session.part(Part(str(traced.phase)))
    if result is None or result.energy_j is None or result.duration_s is None:
        return None
    energy_j, duration_s = result.energy_j.value, result.duration_s.value
    shares = _rank_shares(session, counted, Part(str(traced.phase)), len(traced.ranks))
    return PhaseSplit(
        phase=traced.phase,
        ranks=tuple(
            apportion(
                kernels,
                energy_j=energy_j * share.energy,
                duration_s=duration_s,
                idle_power_w=session.idle.mean_power_w * share.idle,
                ceilings=ceilings_of_rank(task),
                host_is_device=task.job.deployment.device == "cpu",
            )
            for kernels, share in zip(traced.ranks, shares, strict=True)
        ),
    )


def phase_splits(
    task: Task, session: SessionResult, counted: Counted, traced: Sequence[PhaseKernels]
) -> dict[Phase, PhaseSplit]:
    """The phases whose energy is known and whose kernels were traced."""
    found = (split_phase(task, session, counted, each) for each in traced)
    return {split.phase: split for split in found if split is not None}


def kernel_rows(run_id: str, split: PhaseSplit, graph: KernelGraph | None = None) -> tuple[KernelRow, ...]:
    """One row per rank and kernel, each with its place in the phase's graph."""
    rows = []
    for rank, each in enumerate(split.ranks):
        found = places(graph, [share.kernel for share in each.kernels])
        rows += [
            _kernel_row(run_id, split.phase, rank, share, found.get(share.kernel.kernel_id)) for share in each.kernels
        ]
    return tuple(rows)


def kernel_energy_rows(run_id: str, split: PhaseSplit) -> tuple[KernelEnergyRow, ...]:
    """One row per rank and kernel, by the method ``apportioned``."""
    return tuple(
        KernelEnergyRow(
            run_id=run_id,
            phase=split.phase,
            rank=rank,
            kernel_id=share.kernel.kernel_id,
            method=EnergyMethod.APPORTIONED,
            energy_j=share.energy_j,
            active_energy_j=share.active_energy_j,
            energy_ci95_j=None,
        )
        for rank, each in enumerate(split.ranks)
        for share in each.kernels
    )


def _kernel_row(run_id: str, phase: Phase, rank: int, share: KernelShare, graph_kernel: int | None) -> KernelRow:
    kernel = share.kernel
    return KernelRow(
        run_id=run_id,
        phase=phase,
        rank=rank,
        kernel_id=kernel.kernel_id,
        kind=kernel.kind,
        op=kernel.op,
        module=kernel.module,
        dtype=kernel.dtype,
        shape=kernel.shape,
        launches=kernel.launches,
        flop=kernel.flop,
        read_bytes=kernel.read_bytes,
        write_bytes=kernel.write_bytes,
        link_bytes=kernel.link_bytes,
        duration_s=share.duration_s,
        traced_duration_s=kernel.traced_duration_s,
        wait_s=share.wait_s,
        graph_kernel=graph_kernel,
    )


def ceilings_of_rank(task: Task) -> Ceilings:
    """Those of a device; ranks on a CPU share its ceilings."""
    deployment, whole = task.job.deployment, task.ceilings
    sharing = deployment.ranks // deployment.nodes if deployment.device == "cpu" else 1
    return Ceilings(
        flop_per_s=None if whole.flop_per_s is None else whole.flop_per_s / sharing,
        bytes_per_s=None if whole.bytes_per_s is None else whole.bytes_per_s / sharing,
    )


def _rank_shares(session: SessionResult, counted: Counted, part: Part, ranks: int) -> tuple[_RankShare, ...]:
    """Shares of the ranks in energy and idle power; each adds up to 1."""
    idle_w = session.idle.mean_powers_w
    used = [taken.window for taken in session.windows if taken.part is part and taken.rejected is None]
    energies_j = [sum(work_energy_j(window, session.idle, meter) for window in used) for meter in range(len(idle_w))]
    energy, power = _of_ranks(energies_j, counted.ranks, ranks), _of_ranks(idle_w, counted.ranks, ranks)
    return tuple(_RankShare(energy=energy[rank], idle=power[rank]) for rank in range(ranks))


def _of_ranks(values: Sequence[float], firsts: Sequence[int], ranks: int) -> list[float]:
    """Shares of the ranks in the values of counters, each of which is divided evenly among the ranks it counts for."""
    whole = sum(values)
    owners = [max(first for first in firsts if first <= rank) for rank in range(ranks)]
    return [
        sum(value for value, first in zip(values, firsts, strict=True) if first == owner) / owners.count(owner) / whole
        for owner in owners
    ]
