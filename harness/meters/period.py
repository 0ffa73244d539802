"""How often counters move, found by watching them."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from harness.meters.base import Clock, Meter

_TICKS = 8


def measure_step_s(meter: Meter, clock: Clock, max_wait_s: float = 2.0) -> float | None:
    """Median time between two moves of one counter; ``None`` if it did not move twice in ``max_wait_s``."""
    return measure_steps_s((meter,), clock, max_wait_s)[0]


def measure_steps_s(meters: Sequence[Meter], clock: Clock, max_wait_s: float = 2.0) -> tuple[float | None, ...]:
    """Median time between two moves of each counter, all watched in one spin; ``None`` as in ``measure_step_s``.

    Raises ``MeterFailed`` when a counter stops answering.
    """
    levels = [meter.read_j() for meter in meters]
    edges_s: list[list[float]] = [[] for _ in meters]
    deadline_s = clock.now_s() + max_wait_s
    while min(map(len, edges_s), default=_TICKS) < _TICKS and clock.now_s() < deadline_s:
        for i, meter in enumerate(meters):
            level = meter.read_j()
            if level != levels[i]:
                levels[i] = level
                edges_s[i].append(clock.now_s())
    return tuple(_median_gap_s(edges) for edges in edges_s)


def _median_gap_s(edges_s: Sequence[float]) -> float | None:
    gaps = [later - earlier for earlier, later in pairwise(edges_s)]
    return median(gaps) if gaps else None
