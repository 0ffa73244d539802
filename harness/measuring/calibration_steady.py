"""Power that stands still, and how it gets there: levels, gaps between two ways of reading, what lingers, heat.

*Blocks.* A stretch is cut at moves of the counter into blocks of equal length or a little more; the mean power of a
block is what the counter moved by, over the time between the two moves.

*Level.* Energy between the first and the last move, over the time between. Half width² = (t(K − 1) s/√K)² of the K
blocks + (P √(h₁² + h₂²)/D)², h being half of what lies between two looks at either end, D the length. Assumed: blocks
err independently; a drift widens the interval, as it should.

*Gap.* Instant power, integrated by trapezoids over each block, relative to the counter's energy of that block, less 1;
mean and t-interval over the blocks. Where it is far from 0, one of the two is wrong, and nothing here says which.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import minimize_scalar

from harness.measuring.calibration_beats import Moves
from harness.measuring.calibration_records import Aliasing, Estimate
from harness.measuring.calibration_response import Pattern, Response
from harness.measuring.calibration_watch import Busy, FloatArray, Trace, array
from harness.measuring.statistics import student_t

_BLOCKS: Final = 8
_NORMAL_95: Final = 1.96
_SETTLED: Final = 0.02  # of the load's step: closer than that power has settled
_LEAST_FALL_C: Final = 4.0  # temperatures are whole degrees
_FEWEST_SAMPLES: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Stretches between moves of a counter; all [K]."""

    start_s: FloatArray
    end_s: FloatArray
    energy_j: FloatArray

    @property
    def power_w(self) -> FloatArray:
        """Mean power of each."""
        return self.energy_j / (self.end_s - self.start_s)

    @classmethod
    def of(cls, moves: Moves, block_s: float) -> "Blocks":
        """Cut a stretch at moves that are at least ``block_s`` apart."""
        cuts: list[int] = []
        for index, at_s in enumerate(moves.at_s.tolist()):
            if not cuts or at_s >= moves.at_s[cuts[-1]] + block_s * (1 - 1e-6):
                cuts.append(index)
        at_s, energy_j = moves.at_s[cuts], moves.value[cuts]
        return cls(start_s=at_s[:-1], end_s=at_s[1:], energy_j=np.diff(energy_j))


def level(moves: Moves) -> Estimate | None:
    """Mean power between the first and the last move of a stretch; None for fewer than three moves."""
    if moves.at_s.size < 3:
        return None
    length_s = float(moves.at_s[-1] - moves.at_s[0])
    power_w = float(moves.value[-1] - moves.value[0]) / length_s
    blocks_w = Blocks.of(moves, length_s / _BLOCKS).power_w
    edges_w = abs(power_w) * math.hypot(moves.half_s[0], moves.half_s[-1]) / length_s
    return Estimate(value=power_w, ci95=math.hypot(_half_width(blocks_w), edges_w))


def gap(moves: Moves, trace: Trace, block_s: float) -> Estimate | None:
    """Integrated instant power against the counter in a stretch, relative; None where either is missing."""
    blocks, powers = Blocks.of(moves, block_s), _powers(trace)
    if powers is None:
        return None
    inside = (blocks.start_s >= powers.at_s[0]) & (blocks.end_s <= powers.at_s[-1])
    if inside.sum() < _FEWEST_SAMPLES:
        return None
    start_j, end_j = (
        integral_j(powers.at_s, powers.power_w, edge_s[inside]) for edge_s in (blocks.start_s, blocks.end_s)
    )
    shares = (end_j - start_j) / blocks.energy_j[inside] - 1
    return Estimate(value=float(shares.mean()), ci95=_half_width(shares))


def integral_j(at_s: FloatArray, power_w: FloatArray, until_s: FloatArray) -> FloatArray:
    """Energy under samples of power from the first one until each of some times, by trapezoids."""
    areas_j = np.concatenate([[0.0], np.cumsum(np.diff(at_s) * (power_w[1:] + power_w[:-1]) / 2)])
    index = np.clip(np.searchsorted(at_s, until_s, side="right") - 1, 0, at_s.size - 2)
    since_s = until_s - at_s[index]
    slope = (power_w[index + 1] - power_w[index]) / (at_s[index + 1] - at_s[index])
    return np.asarray(areas_j[index] + since_s * (power_w[index] + since_s * slope / 2), dtype=np.float64)


def noise_w(moves: Moves, block_s: float, period_s: float) -> float | None:
    """Standard deviation of the mean power of one period, in a stretch of steady power.

    σ² = (mean (pᵢ₊₁ − pᵢ)²/2 − 3 (P b/D)²) · D/T over successive blocks of D (von Neumann's estimate, which drift does
    not widen): b, what the looks blur the moves' times by, moves energy from one block to the next, so that it enters
    the difference of neighbours with 1 + 4 + 1. Noise that is independent from period to period is assumed.
    None for a stretch too short, or where blur explains everything.
    """
    blocks = Blocks.of(moves, block_s)
    if blocks.energy_j.size < _BLOCKS:
        return None
    length_s, powers_w = float((blocks.end_s - blocks.start_s).mean()), blocks.power_w
    blurred_w = float(powers_w.mean()) * moves.blur_s / length_s
    variance = float(np.mean(np.diff(powers_w) ** 2)) / 2 - 3 * blurred_w**2
    return math.sqrt(variance * length_s / period_s) if variance > 0 else None


def tail_share(moves: Moves, bursts: Sequence[Busy], answer: Response) -> Estimate | None:
    """Of the load's power above idle, the share that lingers from the end of the load to the counter's next move.

    At the first move after each end (and the counter's lag), what the counter shows beyond its answer to a load that
    stops at once is energy that lingered: e_i. With τ_i the time from the end to that move, the share is
    Σ e_i / ((high − low) Σ τ_i), and its half width t(n − 1) √(Σ (e_i − share·τ_i)²/(n − 1) · n)/Σ τ_i: a ratio
    estimator (Cochran, "Sampling techniques", 6.4). What the lag is wrong by passes for lingering: its half width over
    the mean τ comes on top. ``answer.left_w`` must belong to the moves but the first.
    """
    step_w = answer.high_w - answer.low_w
    spans_s, at_s = moves.gaps_s, moves.at_s[1:]
    excess_s, tails_s = [], []
    for burst in bursts:
        index = int(np.searchsorted(at_s, burst.ended_s + max(0.0, answer.lag_s)))
        if 0 < index < at_s.size:
            excess_s.append(float(answer.left_w[index] * spans_s[index] / step_w))
            tails_s.append(float(at_s[index] - burst.ended_s))
    count, whole_s = len(tails_s), sum(tails_s)
    if count < 3 or whole_s <= 0:
        return None
    share = sum(excess_s) / whole_s
    left = sum((excess - share * tail) ** 2 for excess, tail in zip(excess_s, tails_s, strict=True))
    spread = student_t(count - 1) * math.sqrt(left / (count - 1) * count) / whole_s
    return Estimate(value=share, ci95=math.hypot(spread, answer.lag95_s * count / whole_s))


def settle_s(moves: Moves, ended_s: float, load_w: float) -> float | None:
    """How long after a load the power of a counter's period still differs from where it ends up, the last quarter.

    Different: by more than 2 % of the load's step and more than four standard deviations, those of noise in the last
    quarter (from successive differences).
    None where the stretch after the load is too short to say, or power has not come to rest in it.
    """
    after = moves.between(ended_s, math.inf)
    blocks = Blocks.of(after, 0.0)
    if blocks.energy_j.size < 2 * _BLOCKS:
        return None
    powers_w = blocks.power_w
    last_w = powers_w[-(powers_w.size // 4) :]
    final_w = float(last_w.mean())
    noise = math.sqrt(float(np.mean(np.diff(last_w) ** 2)) / 2)
    allowed_w = max(_SETTLED * abs(load_w - final_w), 4 * noise)
    unsettled = np.flatnonzero(np.abs(powers_w - final_w) > allowed_w)
    if not unsettled.size:
        return float(blocks.start_s[0] - ended_s)  # no later than the first move
    if unsettled[-1] >= powers_w.size - powers_w.size // 4:
        return None
    return float(blocks.end_s[unsettled[-1]] - ended_s)


def temperatures(trace: Trace) -> tuple[FloatArray, FloatArray]:
    """When a temperature was read, and what it was; [N] each."""
    known = [
        (at_s, one.temperature_c)
        for at_s, one in zip(trace.conditions_at_s, trace.conditions, strict=True)
        if one.temperature_c is not None
    ]
    return array([at_s for at_s, _ in known]), array([value for _, value in known])


def w_per_c(moves: Moves, trace: Trace, block_s: float) -> Estimate | None:
    """Slope of idle power over temperature while a device cools: least squares over blocks, with its t-interval.

    None where the temperature falls by less than 4 °C, or the slope does not differ from 0.
    """
    at_s, values_c = temperatures(trace)
    blocks = Blocks.of(moves, block_s)
    if at_s.size < _FEWEST_SAMPLES or blocks.energy_j.size < _BLOCKS:
        return None
    middle_c = np.interp((blocks.start_s + blocks.end_s) / 2, at_s, values_c)
    away_c = middle_c - middle_c.mean()
    if np.ptp(middle_c) < _LEAST_FALL_C:
        return None
    powers_w = blocks.power_w
    slope = float(away_c @ powers_w / (away_c @ away_c))
    left_w = powers_w - powers_w.mean() - slope * away_c
    degrees = powers_w.size - 2
    half = student_t(degrees) * math.sqrt(float(left_w @ left_w) / degrees / float(away_c @ away_c))
    return Estimate(value=slope, ci95=half) if abs(slope) > half else None


def time_constant_s(trace: Trace, ended_s: float) -> float | None:
    """Time constant of cooling: T(t) = T_end + A e^(−t/τ), by least squares, T_end and A solved for exactly.

    None where the temperature falls by less than 4 °C, or less than one time constant was seen.
    """
    at_s, values_c = temperatures(trace)
    chosen = at_s >= ended_s
    times_s, values_c = at_s[chosen] - ended_s, values_c[chosen]
    if times_s.size < _BLOCKS or values_c[:_FEWEST_SAMPLES].mean() - values_c[-1] < _LEAST_FALL_C:
        return None
    seen_s = float(times_s[-1])

    def left(log_tau: float) -> float:
        basis = np.stack([np.ones_like(times_s), np.exp(-times_s / math.exp(log_tau))], axis=1)
        rest = values_c - basis @ np.linalg.lstsq(basis, values_c, rcond=None)[0]
        return float(rest @ rest)

    found = minimize_scalar(left, bounds=(math.log(seen_s / 100), math.log(seen_s * 3)), method="bounded")
    tau_s = math.exp(float(found.x))
    return tau_s if tau_s <= seen_s else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A stretch in which the load beats at one phase against the counter, with idling before and after."""

    started_s: float
    ended_s: float


def aliasing(
    moves: Moves, trace: Trace, pattern: Pattern, answer: Response, phases: Sequence[Phase], load_period_s: float
) -> Aliasing | None:
    """How far the counter's energy depends on the phase at which a load beats against it.

    Per phase, from a move before the load to one after it: e = (E − E₀)/E₁, with E₀ = low·D + (high − low)·on what the
    load's on-time and the powers of long bursts give, and E₁ the same from the load's first to its last moment.
    ``bias`` is the mean of e over the phases, ``worst`` the largest deviation from it.
    ``resolution`` = 1.96 √(2 (blur·low)² + σ² T D)/E₁, with σ the rms deviation of single periods from the answer
    fitted to long bursts, which holds blur and noise. None where fewer than half of the phases could be read.
    """
    found = [_beat_errors(moves, _powers(trace), pattern, answer, phase) for phase in phases]
    read = [one for one in found if one is not None]
    if len(read) < max(2, len(phases) // 2):
        return None
    errors, resolutions = array([one.counter for one in read]), array([one.resolution for one in read])
    polled = array([one.polled for one in read if one.polled is not None])
    return Aliasing(
        load_period_s=load_period_s,
        phases=len(read),
        worst=float(np.abs(errors - errors.mean()).max()),
        resolution=float(resolutions.mean()),
        bias=float(errors.mean()),
        polled_worst=float(np.abs(polled - polled.mean()).max()) if polled.size > 1 else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _BeatErrors:
    """Errors of one phase, relative to the energy of the load's time."""

    counter: float
    resolution: float
    polled: float | None


def _beat_errors(
    moves: Moves, powers: "_Powers | None", pattern: Pattern, answer: Response, phase: Phase
) -> _BeatErrors | None:
    inside = moves.between(phase.started_s, phase.ended_s)
    if inside.at_s.size < _FEWEST_SAMPLES:
        return None
    start_s, end_s = float(inside.at_s[0]), float(inside.at_s[-1])
    edges_s = pattern.edges_s[(pattern.edges_s >= phase.started_s) & (pattern.edges_s <= phase.ended_s)]
    load_j = _expected_j(pattern, answer, float(edges_s[0]), float(edges_s[-1]))
    expected_j = _expected_j(pattern, answer, start_s - answer.lag_s, end_s - answer.lag_s)
    period_s = (end_s - start_s) / (inside.at_s.size - 1)
    sigma_w = answer.misfit * abs(answer.high_w - answer.low_w)
    noise_j = math.hypot(2**0.5 * inside.blur_s * answer.low_w, sigma_w * math.sqrt(period_s * (end_s - start_s)))
    polled = None
    if powers is not None and powers.at_s[0] <= start_s < end_s <= powers.at_s[-1]:
        first_j, last_j = integral_j(powers.at_s, powers.power_w, array([start_s, end_s])).tolist()
        polled = (last_j - first_j - _expected_j(pattern, answer, start_s, end_s)) / load_j
    return _BeatErrors(
        counter=(float(inside.value[-1] - inside.value[0]) - expected_j) / load_j,
        resolution=_NORMAL_95 * noise_j / load_j,
        polled=polled,
    )


def _expected_j(pattern: Pattern, answer: Response, start_s: float, end_s: float) -> float:
    on_s = float(np.diff(pattern.on_s(array([start_s, end_s])))[0])
    return answer.low_w * (end_s - start_s) + (answer.high_w - answer.low_w) * on_s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Powers:
    """Samples of instant power, [N]."""

    at_s: FloatArray
    power_w: FloatArray


def _powers(trace: Trace) -> _Powers | None:
    """Those that a trace holds; None for too few."""
    known = [
        (at_s, one.power_w)
        for at_s, one in zip(trace.conditions_at_s, trace.conditions, strict=True)
        if one.power_w is not None
    ]
    if len(known) < _FEWEST_SAMPLES:
        return None
    return _Powers(at_s=array([at_s for at_s, _ in known]), power_w=array([power_w for _, power_w in known]))


def _half_width(values: FloatArray) -> float:
    """Half width of the 95 % interval of the mean of independent values."""
    return student_t(values.size - 1) * float(values.std(ddof=1)) / math.sqrt(values.size) if values.size > 1 else 0.0
