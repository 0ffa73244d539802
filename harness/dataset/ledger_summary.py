"""What independent kernel methods add up to: the ledger of each run, kernels by every method, collectives.

Half widths are those of 95 % intervals. Where rows are added, their half widths are added too: readings of one meter
share its gain, and how far the rows of several share anything is not known, so a sum may be better than it says, never
worse.
"""

from dataclasses import dataclass

from harness.kernels import KernelKind, Phase
from harness.records import EnergyMethod


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSummary:
    """The energy ledger of one finished run, with what follows from its row; null where there is none."""

    run_id: str
    explained_j: float | None  # idle + kernels + host gaps
    residual_share: float | None  # of the run's energy
    residual_share_ci95: float | None
    closes: bool | None  # whether the residual lies inside its own interval; null: it has none
    traced: bool  # whether the run has kernels at all
    replayed_kernels: int  # kernels of all ranks with an energy of their own by this method
    regressed_kernels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSummary:
    """One kernel of a setup and phase by every method: one operator, module, dtype and shape, over ranks and runs.

    Energies are gross, of all ranks, in one pass of the phase: the mean of the runs. A method that lacks one of the
    rows behind it has none.
    """

    setup: int
    phase: Phase
    kind: KernelKind
    op: str
    module: str | None
    dtype: str
    shape: str
    runs: int
    launches: float  # in one pass, of all ranks
    apportioned_j: float | None
    replay_j: float | None
    replay_ci95_j: float | None
    regressed_j: float | None
    regressed_ci95_j: float | None
    disagreement: float | None  # active energy by replay over that by regression, less 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DisagreementSummary:
    """How far replay and regression differ over the kernels of a setup and phase that have both, rank by rank.

    Quantiles are of the size of ``disagreement`` as replay states it: active energy by replay over that by regression,
    less 1.
    """

    setup: int
    phase: Phase
    large_only: bool  # only kernels of at least 1 % of their phase on their rank
    kernels: int
    median: float
    percentile95: float
    bias: float  # median with its sign: above 0, replay says more


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveEnergySummary:
    """One kind of collective with messages of one size by one method, over phases, modules and runs of a setup.

    All but ``collectives`` is of one of them, the mean: one launch on every rank. Energies are gross, of all ranks;
    times are those of one rank. Transfer and waiting add up to the energy.
    """

    setup: int
    kind: KernelKind
    message_bytes: int | None  # what each rank puts in
    ranks: int
    method: EnergyMethod | None  # null: none of these collectives has an energy
    runs: int
    collectives: float  # behind the numbers
    energy_j: float | None
    energy_ci95_j: float | None
    transfer_j: float | None
    waiting_j: float | None
    transfer_s: float | None
    waiting_s: float | None
    link_bytes: float | None  # sent by all ranks together; a ring is assumed
    transfer_j_per_byte: float | None  # over the bytes that are sent
    transfer_ci95_j_per_byte: float | None  # that of transfer and waiting together, which is no smaller
    waiting_share: float | None  # of the energy
