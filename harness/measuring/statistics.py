"""Means with 95 % intervals: spread of the repeats (type A) and what the counter may get wrong (type B)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """A mean and the half width of its 95 % interval; None for a single sample, whose spread is not known."""

    value: float
    ci95: float | None
    samples: int

    @property
    def relative(self) -> float:
        """Half width relative to the value; infinite where it is not known or the value is 0."""
        return math.inf if self.ci95 is None or self.value == 0 else self.ci95 / abs(self.value)

    def times(self, factor: float) -> "Mean":
        """The mean of the quantity multiplied by a constant."""
        return Mean(
            value=self.value * factor,
            ci95=None if self.ci95 is None else self.ci95 * abs(factor),
            samples=self.samples,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One repeat: its value, the half width that its own reading carries, and where it was taken."""

    value: float
    ci95: float = 0.0
    at: float = 0.0  # decode: mean context of the steps


def student_t(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t.

    >>> round(student_t(4), 3)
    2.776
    """
    return float(stdtrit(degrees, 0.5 + _CONFIDENCE / 2))


def mean_of(trials: Sequence[Trial]) -> Mean:
    """Mean of independent repeats; raises ``ValueError`` without any.

    Half width² = (t·s/√n)² + (Σu/n)², with u the half width of each reading: GUM (JCGM 100:2008), 4.2 and 5.2. What is
    random in the readings shows in their spread s; u is for what every reading gets wrong alike, which no number of
    repeats averages out.
    """
    count = len(trials)
    if count == 0:
        raise ValueError("a mean needs at least one trial")
    value = math.fsum(trial.value for trial in trials) / count
    if count == 1:
        return Mean(value=value, ci95=None, samples=1)
    variance = math.fsum((trial.value - value) ** 2 for trial in trials) / (count - 1)
    type_a = student_t(count - 1) * math.sqrt(variance / count)
    return Mean(value=value, ci95=math.hypot(type_a, _type_b(trials, [1 / count] * count)), samples=count)


def line_at(trials: Sequence[Trial], at: float) -> Mean:
    """Least-squares line through ``(trial.at, trial.value)``, read at one place, with its 95 % interval.

    Needs two different places and three trials. Half width = t(n−2)·s·√(1/n + (x−x̄)²/Sxx), the textbook interval of
    a regression's mean response; the readings' own half widths join in as they do in ``mean_of``.
    """
    count = len(trials)
    centre = math.fsum(trial.at for trial in trials) / count
    spread = math.fsum((trial.at - centre) ** 2 for trial in trials)
    if count < 3 or spread == 0:
        raise ValueError("a line needs three trials at two different places")
    weights = [1 / count + (at - centre) * (trial.at - centre) / spread for trial in trials]
    value = math.fsum(weight * trial.value for weight, trial in zip(weights, trials, strict=True))
    mean = math.fsum(trial.value for trial in trials) / count
    slope = math.fsum((trial.at - centre) * trial.value for trial in trials) / spread
    residual = math.fsum((trial.value - mean - slope * (trial.at - centre)) ** 2 for trial in trials)
    leverage = 1 / count + (at - centre) ** 2 / spread
    type_a = student_t(count - 2) * math.sqrt(residual / (count - 2) * leverage)
    return Mean(value=value, ci95=math.hypot(type_a, _type_b(trials, weights)), samples=count)


def _type_b(trials: Sequence[Trial], weights: Sequence[float]) -> float:
    return abs(math.fsum(weight * trial.ci95 for weight, trial in zip(weights, trials, strict=True)))
