"""When a counter moves and a power is renewed, as far as looking from outside can tell: period, jitter, quantum.

A move lies somewhere between two looks. Its time is taken as the middle, wrong by at most half of what lies between.

*Beat.* Moves at times t_i belong to whole numbers k_i of one period T: t_i = t_0 + k_i T + e_i. A first T comes from
the median gap where most gaps agree with it (a counter moves in every period); else, and where that fits three times
better, from the periodogram R(T) = |mean exp(2πi t_i/T)|, of which the longest T that comes close to the greatest R is
taken: its fractions fit as well, but explain nothing more. Then the k_i follow by rounding gap by gap, and T by least
squares. The rms of e_i, less what the looks themselves blur, is the jitter.

Assumed: e_i stays below a quarter of T, and looks come several times in a period.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.measuring.calibration_watch import FloatArray, array

_FEWEST = 6  # moves that make a beat
_DENSE = 0.6  # share of the gaps that must agree with the median gap
_EVEN = 0.05  # … in periods, below which nothing better need be looked for
_STRAY = 0.2  # rms deviation from the beat, in periods, above which there is none
_NEARLY = 0.85  # of the greatest R
_LONGEST_S, _SHORTEST_S = 2.0, 0.004  # periods that the periodogram tells apart
_FINENESS = 6  # frequencies in one line's width
_ENOUGH_S, _SURE = 12.0, 15  # a stretch, and moves in it, from which the periodogram finds a period
_LEAST_J = 1e-6  # no counter in use resolves less


@dataclass(frozen=True, slots=True, kw_only=True)
class Moves:
    """The moves of a value that only changes now and then. All [N]."""

    at_s: FloatArray  # middle between the last look before and the first after
    half_s: FloatArray  # half of what lies between
    value: FloatArray  # after the move

    @classmethod
    def of(cls, at_s: Sequence[float], values: Sequence[float | None]) -> "Moves":
        """Find them in a series of looks; looks that gave nothing are left out."""
        known = [(at, value) for at, value in zip(at_s, values, strict=True) if value is not None]
        times_s, levels = array([at for at, _ in known]), array([value for _, value in known])
        moved = np.flatnonzero(np.diff(levels)) + 1
        before_s, after_s = times_s[moved - 1], times_s[moved]
        return cls(at_s=(before_s + after_s) / 2, half_s=(after_s - before_s) / 2, value=levels[moved])

    @property
    def gaps_s(self) -> FloatArray:
        """Time between successive moves, [N − 1]."""
        return np.asarray(np.diff(self.at_s), dtype=np.float64)

    @property
    def blur_s(self) -> float:
        """Standard deviation that the looks give the times: even between two looks."""
        return float(np.sqrt(np.mean(self.half_s**2) / 3)) if self.at_s.size else 0.0

    def between(self, start_s: float, end_s: float) -> "Moves":
        """Those in a span of time."""
        inside = (self.at_s >= start_s) & (self.at_s <= end_s)
        return Moves(at_s=self.at_s[inside], half_s=self.half_s[inside], value=self.value[inside])


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The period in which something moves."""

    period_s: float
    origin_s: float  # of a move, on the fitted line
    number: NDArray[np.int64]  # [N] of each move
    jitter_s: float | None  # rms deviation of moves from the line, the looks' own blur taken out; None: lost in it
    strays_s: float  # the same with the blur left in

    def times_s(self, start_s: float, end_s: float) -> FloatArray:
        """Where moves belong between two times, [M]."""
        first = math.ceil((start_s - self.origin_s) / self.period_s)
        last = math.floor((end_s - self.origin_s) / self.period_s)
        return np.asarray(self.origin_s + self.period_s * np.arange(first, last + 1), dtype=np.float64)


def beat_of(moves: Moves) -> Beat | None:
    """The beat of some moves; None where they are too few or keep none."""
    if moves.at_s.size < _FEWEST:
        return None
    gaps_s = moves.gaps_s
    usual_s = float(np.median(gaps_s))
    agreeing = float(np.mean(np.abs(gaps_s - usual_s) < usual_s / 4))
    dense = _fitted(moves, usual_s) if agreeing >= _DENSE else None
    if dense is not None and dense.strays_s <= max(_EVEN * dense.period_s, 2 * moves.blur_s):
        return dense
    sparse_s = _from_periodogram(moves)
    sparse = None if sparse_s is None else _fitted(moves, sparse_s)
    if dense is None or (sparse is not None and sparse.strays_s < dense.strays_s / 3):
        return sparse
    return dense


def quantum_j(energies_j: FloatArray) -> float | None:
    """The step in which a counter counts: the greatest common divisor of its increments, in microjoules.

    None without increments. A counter whose true step is finer than that reads as 1 µJ.
    """
    increments = np.rint(np.diff(energies_j) / _LEAST_J).astype(np.int64)
    divisor = int(np.gcd.reduce(increments[increments > 0])) if (increments > 0).any() else 0
    return divisor * _LEAST_J if divisor else None


def _fitted(moves: Moves, period_s: float) -> Beat | None:
    """Number the moves by rounding gap by gap, and fit the line."""
    steps = _steps(moves.gaps_s, period_s)
    number = np.concatenate([[0], np.cumsum(steps)])
    slope_s, origin_s = np.polyfit(number, moves.at_s, 1)
    if slope_s <= 0:
        return None
    strays_s = float(np.sqrt(np.mean((moves.at_s - origin_s - slope_s * number) ** 2)))
    if strays_s > max(_STRAY * slope_s, 2 * moves.blur_s):
        return None
    return Beat(
        period_s=float(slope_s),
        origin_s=float(origin_s),
        number=number,
        strays_s=strays_s,
        jitter_s=math.sqrt(strays_s**2 - moves.blur_s**2) if strays_s > moves.blur_s else None,
    )


def _steps(gaps_s: FloatArray, period_s: float) -> NDArray[np.int64]:
    """Periods in each gap. Short gaps, in which a wrong period cannot be miscounted, mend it before long ones count."""
    for longest in (1.5, 4.5, 15.0, 50.0, math.inf):
        steps = np.maximum(1, np.rint(gaps_s / period_s)).astype(np.int64)
        chosen = steps <= longest
        if chosen.any():
            period_s = float(gaps_s[chosen].sum() / steps[chosen].sum())
    return np.maximum(1, np.rint(gaps_s / period_s)).astype(np.int64)


def _from_periodogram(moves: Moves) -> float | None:
    """The longest period at which the moves agree nearly as well as anywhere."""
    times_s = moves.at_s - moves.at_s[0]
    if np.count_nonzero(times_s < _ENOUGH_S) >= _SURE:
        times_s = times_s[times_s < _ENOUGH_S]
    span_s = float(times_s[-1])
    shortest_s = max(_SHORTEST_S, 4 * moves.blur_s)
    longest_s = min(_LONGEST_S, span_s / 2)
    if shortest_s >= longest_s:
        return None
    frequencies = np.arange(1 / longest_s, 1 / shortest_s, 1 / (_FINENESS * span_s))
    agreement = np.array([abs(np.exp(2j * np.pi * f * times_s).mean()) for f in frequencies])
    if agreement.max() < 0.8:
        return None
    first = int(np.argmax(agreement >= _NEARLY * agreement.max()))
    while first + 1 < agreement.size and agreement[first + 1] > agreement[first]:
        first += 1
    return float(1 / frequencies[first])
