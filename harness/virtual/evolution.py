"""How the GPUs of one machine change with time: temperature, leakage, clocks, limits, and faults that touch them.

Within one block of the timeline all of these stand still; a block ends when a temperature has moved by about 0.5 °C.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.virtual.faults import OF_THE_GPU, Fault, FaultKind, only
from harness.virtual.gpu import Load
from harness.virtual.physics import PIECE_S, Cycle, Ladder, Piece
from harness.virtual.program import FloatArray, IntArray
from harness.virtual.timeline import Timeline

IDLE_BIT, POWER_CAP_BIT, THERMAL_BIT = 0x1, 0x4, 0x20  # NVML's clocks-event reasons
_STEP_C = 0.5  # leakage of common GPUs moves by a tenth of a watt, and sensors show whole degrees
_LONGEST_BLOCK_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A cycle that ran some times, and the power beside it, [G] each."""

    cycle: Cycle
    count: int
    end_s: float
    idle_w: FloatArray
    foreign_w: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """What faults, or their absence, impose at one time; one entry per GPU."""

    power_w: FloatArray
    foreign_w: FloatArray
    top_rungs: tuple[int, ...]
    throttle: IntArray


class Evolution:
    """The state of G GPUs, and the timeline it leaves behind. They start at rest, at the temperature of idling."""

    def __init__(self, load: Load, gpus: int, faults: Sequence[Fault]) -> None:
        self.timeline = Timeline(gpus)
        self._load, self._gpus = load, gpus
        self._ladder = Ladder.of(load)
        self._clocks_mhz = cache(lambda rungs: self._ladder.clocks_mhz[list(rungs)])
        self._faults = tuple(
            tuple(fault for fault in faults if fault.gpu == gpu and fault.kind in OF_THE_GPU) for gpu in range(gpus)
        )
        edges = {edge for fault in faults if fault.kind in OF_THE_GPU for edge in (fault.at_s, fault.until_s)}
        self._edges_s = sorted(edges)
        self._undisturbed = self._limits_with(0.0, ((),) * gpus)
        self._since_s = 0.0
        self._temperatures_c: FloatArray = np.full(gpus, self._cold_c())
        self._settled_c: FloatArray = self._temperatures_c  # where the power of the current block leads

    def idle(self, now_s: float, *, context: bool) -> float:
        """Begin to idle; gives the time up to which that holds."""
        self._relax(now_s)
        limits = self._limits(now_s)
        power_w = self._idle_w(self._temperatures_c, context=context) + limits.foreign_w
        rungs = limits.top_rungs if context else (self._ladder.lowest,) * self._gpus
        self._append(now_s, None, power_w, rungs, limits.throttle | IDLE_BIT)
        self._heat(power_w)
        return min(now_s + self._block_s(), self._next_edge_s(now_s))

    def work(self, piece: Piece, now_s: float, most: int) -> Stretch:
        """Begin to run a piece again and again, up to so many times: until clocks may have to change."""
        self._relax(now_s)
        limits = self._limits(now_s)
        idle_w = self._idle_w(self._temperatures_c, context=True)
        rungs = self._rungs(piece, idle_w, limits)
        cycle = piece.cycle(rungs)
        beside_w = idle_w + limits.foreign_w
        throttle = limits.throttle
        if rungs != limits.top_rungs:
            throttle = throttle | (np.array(rungs) > np.array(limits.top_rungs)) * POWER_CAP_BIT
        self._append(now_s, cycle, beside_w, rungs, throttle)
        self._heat(beside_w + cycle.power_w)
        count = self._repetitions(cycle.period_s, now_s, most)
        end_s = now_s + count * cycle.period_s
        return Stretch(cycle=cycle, count=count, end_s=end_s, idle_w=idle_w, foreign_w=limits.foreign_w)

    def cycle_now(self, piece: Piece, now_s: float) -> Cycle:
        """How a piece would go if it started now."""
        idle_w = self._idle_w(self._temperatures_at(now_s), context=True)
        return piece.cycle(self._rungs(piece, idle_w, self._limits(now_s)))

    def power_limit_w(self, gpu: int, now_s: float) -> float:
        """The enforced power limit."""
        return float(self._limits(now_s).power_w[gpu])

    # ---- temperature ----

    def _temperatures_at(self, now_s: float) -> FloatArray:
        """They go exponentially towards ambient + resistance × power."""
        share = math.exp((self._since_s - now_s) / self._load.time_constant_s)
        return self._settled_c + (self._temperatures_c - self._settled_c) * share

    def _heat(self, power_w: FloatArray) -> None:
        self._settled_c = self._load.ambient_c + self._load.c_per_w * power_w

    def _relax(self, now_s: float) -> None:
        if now_s > self._since_s:
            self._temperatures_c = self._temperatures_at(now_s)
            self._since_s = now_s

    def _idle_w(self, temperatures_c: FloatArray, *, context: bool) -> FloatArray:
        load = self._load
        resting_w = load.idle_power_w if context else load.bare_idle_power_w
        rise = np.exp(load.leakage_per_c * (temperatures_c - load.leakage_reference_c))
        return np.asarray(resting_w + load.leakage_w * rise, dtype=np.float64)

    def _cold_c(self) -> float:
        """Temperature of a GPU that has idled for long without a context."""
        temperature_c = np.full(1, self._load.ambient_c)
        for _ in range(100):
            temperature_c = self._load.ambient_c + self._load.c_per_w * self._idle_w(temperature_c, context=False)
        return float(temperature_c[0])

    def _block_s(self) -> float:
        """Time in which no temperature moves by more than the step, or ``PIECE_S`` if that is longer."""
        way_c = float(np.abs(self._settled_c - self._temperatures_c).max())
        return max(PIECE_S, min(_LONGEST_BLOCK_S, self._load.time_constant_s * _STEP_C / max(way_c, 1e-9)))

    def _repetitions(self, period_s: float, now_s: float, most: int) -> int:
        span_s = min(self._block_s(), most * period_s)
        edge_s = self._next_edge_s(now_s)
        if edge_s < now_s + span_s:
            return min(most, math.ceil((edge_s - now_s) / period_s))
        return max(1, min(most, int(span_s / period_s + 1e-9)))

    # ---- clocks, limits, faults ----

    def _rungs(self, piece: Piece, idle_w: FloatArray, limits: _Limits) -> tuple[int, ...]:
        budgets_w = (limits.power_w - limits.foreign_w - idle_w).tolist()
        return tuple(piece.rung_within(gpu, budgets_w[gpu], limits.top_rungs[gpu]) for gpu in range(self._gpus))

    def _limits(self, now_s: float) -> _Limits:
        return self._limits_with(now_s, self._faults) if self._edges_s else self._undisturbed

    def _limits_with(self, now_s: float, faults: Sequence[tuple[Fault, ...]]) -> _Limits:
        limit = [only(mine, FaultKind.POWER_LIMIT, now_s) for mine in faults]
        foreign = [only(mine, FaultKind.FOREIGN_PROCESS, now_s) for mine in faults]
        hot = [only(mine, FaultKind.THROTTLE, now_s) for mine in faults]
        return _Limits(
            power_w=np.array([fault.amount if fault else self._load.power_limit_w for fault in limit]),
            foreign_w=np.array([fault.amount if fault else 0.0 for fault in foreign]),
            top_rungs=tuple(self._ladder.rung_of_share(fault.amount) if fault else 0 for fault in hot),
            throttle=np.array([THERMAL_BIT if fault else 0 for fault in hot]),
        )

    def _next_edge_s(self, now_s: float) -> float:
        return next((edge_s for edge_s in self._edges_s if edge_s > now_s), math.inf)

    def _append(
        self, now_s: float, cycle: Cycle | None, constant_w: FloatArray, rungs: tuple[int, ...], throttle: IntArray
    ) -> None:
        self.timeline.append(
            now_s,
            cycle,
            constant_w,
            temperatures_c=self._temperatures_c,
            clocks_mhz=self._clocks_mhz(rungs),
            throttle=throttle,
        )
