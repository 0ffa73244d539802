"""How much of what was traced is in the kernel graphs."""

from dataclasses import dataclass

from harness.kernels import KernelKind, Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSummary:
    """The traced kernels of one phase that has a graph, over ranks and runs of a setup, one pass of the phase each.

    Times are traced ones, the profiler's share included: that is what was held against the graph.
    """

    setup: int
    phase: Phase
    runs: int
    launches: int
    matched_launches: int  # that are in the graph
    traced_duration_s: float | None
    matched_duration_s: float | None
    matched_launch_share: float | None
    matched_time_share: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmatchedKernel:
    """One operator in one module that was traced and is not in the graph, over shapes, ranks and runs of a setup."""

    setup: int
    phase: Phase
    kind: KernelKind
    op: str
    module: str | None
    launches: int
    traced_duration_s: float | None
    time_share: float | None  # of the traced time of all kernels held against the graph
