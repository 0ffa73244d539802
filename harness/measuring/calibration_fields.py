"""The power fields of one calibration: when each is renewed, what it averages over, and whether that is known by now.

A field's response is fitted to the values of its renewals, placed on its beat. A sweep whose edges met no renewal while
the field rose or fell says little about how long it does: then the fields need a sweep over their own period.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np

from harness.measuring.calibration_beats import Beat, Moves, beat_of
from harness.measuring.calibration_records import Estimate, FieldTraits
from harness.measuring.calibration_response import Pattern, Response, Values, answer_of_field
from harness.measuring.calibration_watch import FloatArray, Trace, Watcher, array
from harness.meters.base import Conditions

_FEWEST_MET: Final = 4
_KNOWN: Final = 0.1  # relative half width from which a window counts as known
_LONGEST_S: Final = 2.0  # windows longer than that are not looked for
_LATE: Final = 0.5  # of a period after a renewal, its value is taken


class Field(StrEnum):
    """A power that the driver gives beside the counter."""

    INSTANT = "instant"
    REPORTED = "reported"
    AVERAGE = "average"

    def of(self, conditions: Conditions) -> float | None:
        """Its value."""
        if self is Field.INSTANT:
            return conditions.power_w
        return conditions.reported_power_w if self is Field.REPORTED else conditions.average_power_w


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldFit:
    """A field as one sweep shows it."""

    beat: Beat
    response: Response
    resolution_s: float  # longest stretch of the answer into which no value fell
    met: int  # values that fell into the answer to an edge

    @property
    def window_s(self) -> Estimate:
        """What a value averages over."""
        response = self.response
        fitted_s = response.looks * response.spacing95_s
        return Estimate(value=response.window_s, ci95=min(fitted_s, max(self.resolution_s, 1e-6)))

    @property
    def known(self) -> bool:
        """Whether the window is known well."""
        return self.met >= _FEWEST_MET and (self.window_s.ci95 or 0.0) <= _KNOWN * self.window_s.value


class Fields:
    """The power fields of all devices, over the sweeps so far; fits are made when they are asked for, once."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = list(watchers)
        self._fits: dict[tuple[int, int, tuple[float | None, ...]], FieldFit | None] = {}

    def add(self, watcher: Watcher) -> None:
        """One more sweep."""
        self._watchers.append(watcher)

    def has(self, device: int, field: Field) -> bool:
        """Whether the device gave the field at all."""
        return any(field.of(one) is not None for watcher in self._watchers for one in watcher.traces[device].conditions)

    @property
    def any(self) -> bool:
        """Whether any device gave any field."""
        return any(self.has(device, field) for device in range(len(self._watchers[0].traces)) for field in Field)

    def best(self, device: int, field: Field) -> FieldFit | None:
        """The first sweep that makes the field known, else the one that leaves the least open; None: none shows it."""
        found: list[FieldFit] = []
        for fit in self._each(device, field):
            if fit.known:
                return fit
            found.append(fit)
        return min(found, key=lambda fit: fit.window_s.ci95 or math.inf, default=None)

    def unknown_period_s(self) -> float | None:
        """The period of a field whose window is not known yet; None where all are."""
        for device in range(len(self._watchers[0].traces)):
            for field in Field:
                fit = self.best(device, field) if self.has(device, field) else None
                if fit is not None and not fit.known:
                    return fit.beat.period_s
        return None

    def _each(self, device: int, field: Field) -> Iterator[FieldFit]:
        for number, watcher in enumerate(self._watchers):
            said = tuple(field.of(one) for one in watcher.traces[device].conditions)
            key = (number, device, said)  # two fields that say the same are one field under two names
            if key not in self._fits:
                self._fits[key] = _fitted(watcher, device, field)
            fit = self._fits[key]
            if fit is not None:
                yield fit


def traits(fit: FieldFit | None) -> FieldTraits | None:
    """What is written down of a field; None where nothing shows.

    ``sampled_share`` is the part of all time that goes into some value: 1 for a mean over a period or more without
    pauses, o/T for one that lasts o of a period T, o/Δ for one that looks several times.
    """
    if fit is None:
        return None
    response, beat = fit.response, fit.beat
    share = min(1.0, response.open_s / beat.period_s) if response.looks == 1 else response.share
    return FieldTraits(
        period_s=beat.period_s,
        jitter_s=beat.jitter_s,
        window_s=fit.window_s,
        looks=response.looks,
        sampled_share=share,
        lag_s=Estimate(value=response.lag_s, ci95=response.lag95_s if math.isfinite(response.lag95_s) else None),
        rise_s=response.rise_s,
        misfit=response.misfit,
    )


def _fitted(watcher: Watcher, device: int, field: Field) -> FieldFit | None:
    trace = watcher.traces[device]
    moves = Moves.of(trace.conditions_at_s, [field.of(one) for one in trace.conditions])
    beat = beat_of(moves)
    if beat is None:
        return None
    values, pattern = _renewals(trace, field, beat), Pattern(watcher.bursts)
    blur_s = max(2 * moves.blur_s / math.sqrt(moves.at_s.size), beat.jitter_s or 0.0)  # of a line, at its ends
    response = answer_of_field(values, pattern, longest_s=_LONGEST_S, blur_s=blur_s)
    if response is None:
        return None
    delays_s = _delays_s(values.at_s, pattern) - response.lag_s
    return FieldFit(
        beat=beat,
        response=response,
        resolution_s=_resolution_s(delays_s, response.window_s),
        met=int(np.count_nonzero((delays_s > 0) & (delays_s < response.window_s))),
    )


def _renewals(trace: Trace, field: Field, beat: Beat) -> Values:
    """The value of each renewal: that of a look about half a period later."""
    known = [
        (at_s, value)
        for at_s, one in zip(trace.conditions_at_s, trace.conditions, strict=True)
        if (value := field.of(one)) is not None
    ]
    at_s, power_w = array([at for at, _ in known]), array([value for _, value in known])
    renewals_s = beat.times_s(float(at_s[0]), float(at_s[-1]))
    index = np.minimum(np.searchsorted(at_s, renewals_s + _LATE * beat.period_s), at_s.size - 1)
    seen = (at_s[index] > renewals_s) & (at_s[index] < renewals_s + 0.95 * beat.period_s)
    return Values(at_s=renewals_s[seen], power_w=power_w[index[seen]])


def _delays_s(at_s: FloatArray, pattern: Pattern) -> FloatArray:
    """Time since the last edge of the load, of those that come after one."""
    edge = np.searchsorted(pattern.edges_s, at_s, side="right") - 1
    return np.asarray((at_s - pattern.edges_s[np.maximum(edge, 0)])[edge >= 0], dtype=np.float64)


def _resolution_s(delays_s: FloatArray, window_s: float) -> float:
    """The longest stretch of the answer to an edge, from just before to just after, without any value in it."""
    before_s = delays_s[delays_s < 0].max(initial=-window_s)
    after_s = delays_s[delays_s > window_s].min(initial=2 * window_s)
    inside_s = np.sort(delays_s[(delays_s >= 0) & (delays_s <= window_s)])
    return float(np.diff(np.concatenate([[before_s], inside_s, [after_s]])).max())
