"""Which of many requests to measure next: those whose measurement takes most uncertainty out of the trace.

A scorer says how uncertain a prediction is, request by request, and nothing of how errors hang together. So it is
assumed that the errors of two requests are the more alike the closer their sizes are: with s the relative uncertainties
and d the distance of the logarithms of batch, prompt and output length, the covariance of the errors is

    C_ij = s_i s_j (0.7 exp(-d² / 2·1.5²) + 0.3 exp(-d² / 2·0.1²))

Most of an error is smooth over a factor of 4.5 in a size, the rest (steps of tiles and buckets) over a tenth. Measuring
request i takes Σ_j w_j C_ij² / (C_ii + noise²) off the mean variance over the trace, w_j being the share of real
requests like j: that sum is the gain, and the request with the largest one is chosen. What it explains is then taken
out of C before the next is chosen, so no two of a round tell the same. This is the greedy choice of points by Cohn's
criterion (D. A. Cohn, "Neural network exploration using optimal experiment design", NIPS 1993), with fixed correlation.

A request that is uncertain and rare has a small gain, and so has one that is asked for often and well known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_SMOOTH_SHARE, _SMOOTH_REACH = 0.7, 1.5  # natural logarithms
_ROUGH_REACH = 0.1
_NOISE = 0.05  # relative, of one measured run; the exact value only matters where s is smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """M requests of a trace, those that may be chosen and those that only count as asked for."""

    sizes: Floats  # [M, 3] batch, prompt and output
    uncertainty: Floats  # [M] relative; 0 where nothing is known to be uncertain
    weight: Floats  # [M] how often the trace asks for it, in any unit
    eligible: NDArray[np.bool_]  # [M]


def choose(pool: Pool, count: int) -> tuple[int, ...]:
    """Places of up to ``count`` requests in the pool, in the order of the choice; none that would tell nothing."""
    covariance = _covariance(pool)
    weight = pool.weight / pool.weight.sum() if len(pool.weight) else pool.weight
    left = pool.eligible.copy()
    chosen: list[int] = []
    while len(chosen) < count and left.any():
        variance = np.maximum(np.diag(covariance), 0.0) + _NOISE**2
        gain = np.where(left, covariance**2 @ weight / variance, -1.0)
        best = int(np.argmax(gain))
        if gain[best] <= 0:
            break
        chosen.append(best)
        left[best] = False
        explained = covariance[:, best] / np.sqrt(variance[best])
        covariance = covariance - np.outer(explained, explained)
    return tuple(chosen)


def root_mean_square(scores: Sequence[float]) -> float:
    """Of the scores that are numbers; 0 where there is none."""
    known = [score for score in scores if np.isfinite(score)]
    return float(np.sqrt(np.mean(np.square(known)))) if known else 0.0


def _covariance(pool: Pool) -> Floats:
    logs = np.log(np.maximum(pool.sizes, 1.0))
    squared = np.sum((logs[:, None] - logs[None]) ** 2, axis=2)
    smooth, rough = (np.exp(-squared / (2 * reach**2)) for reach in (_SMOOTH_REACH, _ROUGH_REACH))
    alike = _SMOOTH_SHARE * smooth + (1 - _SMOOTH_SHARE) * rough
    return np.asarray(np.outer(pool.uncertainty, pool.uncertainty) * alike, dtype=np.float64)
