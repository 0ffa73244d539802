"""What runs across several ranks add up to: the time of each rank, and what collectives cost."""

from dataclasses import dataclass

from harness.kernels import KernelKind, Phase
from harness.records import Part

# Other kernels have no wait_s and send nothing; collectives without a kind of their own (broadcast) are ``other``.
COLLECTIVE_KINDS = (KernelKind.ALL_REDUCE, KernelKind.ALL_GATHER, KernelKind.REDUCE_SCATTER, KernelKind.ALL_TO_ALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSummary:
    """One rank in the used windows of one part of one run; times are medians over the windows."""

    run_id: str
    part: Part
    rank: int
    node: int
    device: str
    windows: int
    duration_s: float | None  # of one pass: from the common start to the end of the rank's own work, over the passes
    wait_s: float | None  # from there until the last rank was done: once per window, however many its passes
    spread: float | None  # relative standard deviation of the duration; null for a single window


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectiveSummary:
    """One kind of collective with messages of one size, over modules, in one pass of a phase of each run of a setup.

    Counts and times are those of one rank: the mean of the ranks of each run, added over the runs.
    """

    setup: int
    phase: Phase
    kind: KernelKind
    message_bytes: int | None  # what each rank puts in, per launch
    runs: int
    launches: float
    link_bytes: float | None  # sent by each rank, over all launches
    duration_s: float | None
    wait_s: float | None  # part of duration_s spent waiting for the last rank to arrive
    rate_bytes_per_s: float | None  # link_bytes over duration_s less wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CommunicationSummary:
    """All collectives in one pass of one phase of one run; times are means of the ranks."""

    run_id: str
    phase: Phase
    duration_s: float | None
    wait_s: float | None
    share: float | None  # duration_s of the phase's duration
    wait_share: float | None  # wait_s of the phase's duration
    longest_wait_s: float | None
    longest_waiting_rank: int | None  # that waited longest_wait_s
