"""How long each rank worked in each window of a run that spans several."""

from collections.abc import Sequence
from dataclasses import dataclass

from harness.measuring.results import SessionResult, TakenWindow
from harness.records import RankTimeRow


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlace:
    """Where a rank computes."""

    node: int
    device: str  # cpu, or cuda:N on its machine


@dataclass(frozen=True, slots=True, kw_only=True)
class Lap:
    """One call of a work's ``run`` by all ranks at once. The times of its ends are those of rank 0's clock."""

    begun_s: float
    ended_s: float
    durations_s: tuple[float, ...]  # [ranks], from the common start to the rank's own end


def rank_time_rows(
    run_id: str, session: SessionResult, laps: Sequence[Lap], places: Sequence[RankPlace]
) -> tuple[RankTimeRow, ...]:
    """Rows of every window, rejected ones included: the lap of a window lies inside it on the same clock."""
    return tuple(
        RankTimeRow(
            run_id=run_id,
            part=taken.part,
            trial=taken.trial,
            rank=rank,
            node=places[rank].node,
            device=places[rank].device,
            passes=taken.passes,
            duration_s=duration_s,
            wait_s=max(lap.durations_s) - duration_s,
        )
        for taken in session.windows
        for lap in laps
        if _holds(taken, lap)
        for rank, duration_s in enumerate(lap.durations_s)
    )


def _holds(taken: TakenWindow, lap: Lap) -> bool:
    window = taken.window
    return window.started_s <= lap.begun_s and lap.ended_s <= window.started_s + window.work_s
