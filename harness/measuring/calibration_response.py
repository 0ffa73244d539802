"""How a sensor answers to a load that is switched on and off: what it averages over, how late, and what it leaves out.

*Model.* A value shown at t is a mean over L equal looks, the k-th of which (k = 0 … L − 1) lasts from
t − d − kΔ − o to t − d − kΔ: open for o in every Δ, the last one d before the value is shown. With u(t) = 1 while the
load runs, the value is

    p(t) = low + (high − low) · f(t),     f(t) = 1/(L o) Σ_k ∫ u over look k

A plain trailing mean of W seconds is L = 1, o = W: its answer to a step is a ramp of length W. A counter that moves at
t shows the mean power since its last move: L Δ = the time between, and its *sampled share* is s = o/Δ (1: it sees
everything). low and high may drift in proportion to time, which heat makes them do.

*Fit.* Least squares over all values in a stretch with many edges: low, high and their drift are linear and solved for
exactly (variable projection); o, Δ and d by a grid and Nelder-Mead. L > 1, and s < 1, are only believed where they
explain the values significantly better: n ln(SSE_plain/SSE) > 5 ln n + 10, a Bayesian information criterion with a
margin, since nobody is hurt by a response called plain that is nearly so.

Half widths are those of the linearised fit: 1.96 √(σ² (JᵀJ)⁻¹), and what the looks blur.

Assumed: the load's power rises and falls within a time that is short against o. A slower rise is read as a longer o,
and slower on the way up than down as misfit. Source of the method: step response of a box filter; of its use on
NVIDIA GPUs, "Part-time power measurements" (arXiv 2312.02741).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from harness.measuring.calibration_watch import Busy, FloatArray

_MOST_LOOKS: Final = 12
_MOST_LOOKS_OF_A_COUNTER: Final = 6
_NORMAL_95: Final = 1.96
_SEEN: Final = 4.0  # standard deviations of a value that the load must make in power to be called seen
_FEWEST: Final = 12  # values that a fit needs
_MARGIN: Final = 10.0
_PLAIN: Final = 3e-3  # … and below that, not worth looking for looks
_NOTHING: Final = 1e-4  # of the values' range: what a fit leaves below that is nothing
_ILL: Final = 1e8  # condition number from which a fit's parameters are not told apart
_STARTS: Final = 3  # of the places where a search may start, the best so many are followed


class Pattern:
    """When a load was on."""

    def __init__(self, bursts: Sequence[Busy]) -> None:
        edges_s = [edge for burst in bursts for edge in (burst.started_s, burst.ended_s)]
        lengths_s = [length for burst in bursts for length in (burst.ended_s - burst.started_s, 0.0)]
        self.edges_s = np.array(edges_s)  # [2 M]
        self._on_s = np.concatenate([[0.0], np.cumsum(lengths_s)[:-1]])

    def after_an_end(self, times_s: FloatArray, within_s: float) -> NDArray[np.bool_]:
        """Which times come so soon after an end of the load, [N]."""
        edge = np.searchsorted(self.edges_s, times_s) - 1
        since_s = times_s - self.edges_s[np.maximum(edge, 0)]
        return np.asarray((edge % 2 == 1) & (edge >= 0) & (since_s <= within_s))

    def on_s(self, times_s: FloatArray) -> FloatArray:
        """Time that the load has been on before each of these times."""
        return np.asarray(np.interp(times_s, self.edges_s, self._on_s), dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What a sensor said, and over what time: all [N]. ``span_s``: since its last value, where it means that."""

    at_s: FloatArray
    power_w: FloatArray
    span_s: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A sensor's answer to a load. Half widths at 95 %, times in seconds."""

    looks: int
    spacing_s: float  # Δ; of a plain mean its length
    spacing95_s: float  # infinite: nothing was seen while the answer rose or fell
    open_s: float  # o
    open95_s: float
    lag_s: float
    lag95_s: float
    low_w: float
    high_w: float
    misfit: float  # rms of what is left, relative to high − low
    left_w: FloatArray  # [N] what is left of each value

    @property
    def share(self) -> float:
        """Of the time that a value stands for, the part that it sees."""
        return self.open_s / self.spacing_s

    @property
    def window_s(self) -> float:
        """From the first to the last moment that goes into a value, and the pause before the first."""
        return self.looks * self.spacing_s

    @property
    def rise_s(self) -> float:
        """Time in which the answer to a step goes from 10 % to 90 %."""
        return self._reached_s(0.9) - self._reached_s(0.1)

    def _reached_s(self, level: float) -> float:
        looks = min(self.looks - 1, math.floor(level * self.looks))
        return looks * self.spacing_s + (level * self.looks - looks) * self.open_s


def answer_of_field(values: Values, pattern: Pattern, *, longest_s: float, blur_s: float) -> Response | None:
    """The response of a power field; None where the load does not show in it.

    ``longest_s`` bounds what is looked for, ``blur_s`` is the standard deviation of the values' times.
    """

    def shares(looks: int, spacing_s: float, open_s: float, lag_s: float) -> FloatArray:
        return _seen(pattern, values.at_s, looks, spacing_s, open_s / spacing_s, lag_s)

    if values.at_s.size < _FEWEST:
        return None
    fit = _Fit(values, shares)
    opens_s = np.geomspace(longest_s / 300, longest_s, 24)
    lags_s = [0.0, *np.geomspace(longest_s / 1000, longest_s / 2, 14)]
    plain = fit.best([(math.log(open_s), lag_s) for open_s in opens_s for lag_s in lags_s], _plain_setting)
    whole_s, lag_s = plain.setting[1], plain.setting[3]
    if plain.sse <= values.at_s.size * (_PLAIN * float(np.ptp(values.power_w))) ** 2:
        return fit.response(plain, blur_s)
    # Steps of many looks only fit where their spacing is right within a few percent, so starts lie close together.
    starts = {
        looks: [
            (math.log(whole_s * stretch / (looks - 1 + share)), _logit(share), lag_s * kept)
            for share in (0.15, 0.3, 0.5, 0.75)
            for stretch in np.linspace(0.92, 1.08, 9).tolist()
            for kept in (0.0, 1.0)
        ]
        for looks in range(2, _MOST_LOOKS + 1)
    }
    return fit.response(fit.chosen([plain, *fit.followed(starts, _looking_setting)]), blur_s)


def answer_of_counter(values: Values, pattern: Pattern, *, blur_s: float) -> Response | None:
    """The response of a counter, whose values are mean powers since its last move; None as for fields.

    Power that lingers after the load would pass for lag. So lag and levels are fitted once more without the values that
    come less than two periods after the load: lag is that of the edges on which it begins. ``left_w`` is what is then
    left of all values, those after the load included.
    """
    span_s = values.span_s
    if span_s is None or values.at_s.size < _FEWEST:
        return None
    usual_s = float(np.median(span_s))

    def shares(looks: int, _: float, open_s: float, lag_s: float) -> FloatArray:
        return _seen(pattern, values.at_s, looks, span_s / looks, open_s * looks / usual_s, lag_s)

    fit = _Fit(values, shares)
    lags_s = (np.linspace(-0.05, 1.5, 63) * usual_s).tolist()
    plain = fit.best([(lag_s,) for lag_s in lags_s], lambda theta: (1, usual_s, usual_s, theta[0]))
    starts = {
        looks: [(_logit(share), lag_s) for share in (0.1, 0.25, 0.5, 0.8) for lag_s in lags_s[::2]]
        for looks in range(1, _MOST_LOOKS_OF_A_COUNTER + 1)
    }
    chosen = fit.chosen([plain, *fit.followed(starts, partial(_counter_setting, usual_s))])
    begins = _Fit(values, shares, fitted=~pattern.after_an_end(values.at_s, 2 * usual_s))
    looks, spacing_s, open_s, lag_s = chosen.setting
    lagging = begins.best([(lag_s,)], lambda theta: (looks, spacing_s, open_s, theta[0]))
    answer, both = begins.response(lagging, blur_s), fit.response(chosen, blur_s)
    if answer is None or both is None:
        return None
    return replace(answer, spacing95_s=both.spacing95_s, open95_s=both.open95_s)


_Setting = tuple[int, float, float, float]  # looks, spacing, open, lag


def _plain_setting(theta: Sequence[float]) -> _Setting:
    return 1, math.exp(theta[0]), math.exp(theta[0]), theta[1]


def _looking_setting(looks: int, theta: Sequence[float]) -> _Setting:
    spacing_s = math.exp(theta[0])
    return looks, spacing_s, spacing_s * _expit(theta[1]), theta[2]


def _counter_setting(usual_s: float, looks: int, theta: Sequence[float]) -> _Setting:
    spacing_s = usual_s / looks
    return looks, spacing_s, spacing_s * _expit(theta[0]), theta[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    theta: FloatArray
    setting: _Setting
    sse: float
    setting_of: Callable[[Sequence[float]], _Setting]


class _Fit:
    """Least squares with the linear part projected out."""

    def __init__(
        self,
        values: Values,
        shares: Callable[[int, float, float, float], FloatArray],
        *,
        fitted: NDArray[np.bool_] | None = None,
    ) -> None:
        self._power_w, self._shares = values.power_w, shares
        self._fitted = np.ones(values.at_s.shape) if fitted is None else fitted.astype(np.float64)  # [N] weights 0, 1
        span_s = float(np.ptp(values.at_s)) or 1.0
        self._drift = (values.at_s - values.at_s.mean()) / span_s
        self._basis = np.stack([np.ones_like(self._drift), self._drift, self._drift, self._drift], axis=1)  # [N, 4]

    def chosen(self, found: "Sequence[_Found]") -> "_Found":
        """The best of several responses, if it explains much more than the first, which is a plain one."""
        plain, best = found[0], min(found, key=lambda one: one.sse)
        count = float(self._fitted.sum())
        least = count * (_NOTHING * float(np.ptp(self._power_w))) ** 2 + 1e-30
        gain = count * math.log(max(plain.sse, least) / max(best.sse, least))
        return best if gain > 5 * math.log(count) + _MARGIN else plain

    def sse(self, setting: _Setting) -> float:
        """What a response leaves unexplained: the sum of squares."""
        left_w = self._left_w(setting) * self._fitted
        return float(left_w @ left_w)

    def followed(
        self, starts: Mapping[int, Sequence[tuple[float, ...]]], setting_of: Callable[[int, Sequence[float]], _Setting]
    ) -> "list[_Found]":
        """The best responses with several numbers of looks: those are followed whose best start is among the best."""

        def sse(looks: int, theta: Sequence[float]) -> float:
            return self.sse(setting_of(looks, theta))

        first = {looks: min(thetas, key=partial(sse, looks)) for looks, thetas in starts.items()}
        chosen = sorted(first, key=lambda looks: sse(looks, first[looks]))[:_STARTS]
        return [self.best([first[looks]], partial(setting_of, looks)) for looks in chosen]

    def best(self, grid: Sequence[tuple[float, ...]], setting_of: Callable[[Sequence[float]], _Setting]) -> "_Found":
        """The best place of a grid, and from there the best there is."""

        def sse(theta: Sequence[float]) -> float:
            return self.sse(setting_of(theta))

        start = min(grid, key=sse)
        done = minimize(sse, start, method="Nelder-Mead", options={"maxiter": 150, "xatol": 1e-5, "fatol": 1e-9})
        theta = np.asarray(done.x, dtype=np.float64)
        return _Found(theta=theta, setting=setting_of(theta.tolist()), sse=float(done.fun), setting_of=setting_of)

    def response(self, found: "_Found", blur_s: float) -> Response | None:
        """What was found, with its intervals; None where the load does not stand out."""
        left_w = self._left_w(found.setting)
        low_w, high_w = self._levels_w(found.setting)
        count = float(self._fitted.sum())
        sigma_w = math.sqrt(self.sse(found.setting) / max(1.0, count - found.theta.size - 4))
        if not abs(high_w - low_w) > max(_SEEN * sigma_w, 1e-6):
            return None
        spacing95_s, open95_s, lag95_s = self._half_widths_s(found, sigma_w)
        looks, spacing_s, open_s, lag_s = found.setting
        return Response(
            looks=looks,
            spacing_s=spacing_s,
            spacing95_s=math.hypot(spacing95_s, 2 * blur_s),
            open_s=open_s,
            open95_s=math.hypot(open95_s, 2 * blur_s),
            lag_s=lag_s,
            lag95_s=math.hypot(lag95_s, blur_s),
            low_w=low_w,
            high_w=high_w,
            misfit=math.sqrt(self.sse(found.setting) / count) / abs(high_w - low_w),
            left_w=left_w,
        )

    def _half_widths_s(self, found: "_Found", sigma_w: float) -> tuple[float, float, float]:
        """Of spacing, open and lag, from the curvature of the fit; infinite where the values do not bear on them."""
        steps = [1e-3 * max(abs(value), 1e-2) for value in found.theta]
        moved = [found.theta + step * unit for step, unit in zip(steps, np.eye(found.theta.size), strict=True)]
        base_w, base = self._left_w(found.setting), np.array(found.setting)
        settings = [found.setting_of(theta) for theta in moved]
        slopes = np.stack([(self._left_w(each) - base_w) / step for each, step in zip(settings, steps, strict=True)])
        slopes *= self._fitted
        rows = np.stack([(np.array(each) - base) / step for each, step in zip(settings, steps, strict=True)])
        information = slopes @ slopes.T  # [θ, θ]
        scale = np.sqrt(np.diag(information))
        if scale.min() <= 0 or np.linalg.cond(information / np.outer(scale, scale)) > _ILL:
            return math.inf, math.inf, math.inf
        covariance = sigma_w**2 * np.linalg.inv(information)
        deviations = np.sqrt(np.maximum(0.0, np.einsum("is,ij,js->s", rows, covariance, rows)))
        spacing95_s, open95_s, lag95_s = (_NORMAL_95 * deviations[1:]).tolist()
        return spacing95_s, open95_s, lag95_s

    def _projected(self, setting: _Setting) -> FloatArray:
        """Low, step and their drifts that fit best, [4]; the basis is left filled."""
        shares, basis = self._shares(*setting), self._basis
        basis[:, 1] = shares
        np.multiply(self._drift, shares, out=basis[:, 3])
        weighted = basis * self._fitted[:, None]
        normal = weighted.T @ basis
        normal.flat[::5] += 1e-9 * shares.size  # never singular, though the load may be on all the time
        return np.asarray(np.linalg.solve(normal, weighted.T @ self._power_w), dtype=np.float64)

    def _left_w(self, setting: _Setting) -> FloatArray:
        coefficients = self._projected(setting)
        return np.asarray(self._power_w - self._basis @ coefficients, dtype=np.float64)

    def _levels_w(self, setting: _Setting) -> tuple[float, float]:
        low_w, step_w, _, _ = self._projected(setting).tolist()
        return low_w, low_w + step_w


def _seen(
    pattern: Pattern, at_s: FloatArray, looks: int, spacing_s: FloatArray | float, share: float, lag_s: float
) -> FloatArray:
    """Share of its looks that each value spent with the load on, [N]."""
    open_s = np.maximum(spacing_s * share, 1e-6)
    edges_s = np.empty((2 * looks, at_s.size))
    for look in range(looks):
        edges_s[look] = at_s - lag_s - look * spacing_s
        edges_s[looks + look] = edges_s[look] - open_s
    on_s = pattern.on_s(edges_s)
    return np.asarray((on_s[:looks] - on_s[looks:]).sum(axis=0) / (looks * open_s))


def _expit(value: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, value))))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))
