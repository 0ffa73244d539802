"""Measure one run: warm-up, idle floor, repeated windows of each part in random order, idle floor again."""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from harness.errors import WindowTooShort
from harness.measuring.protocol import Protocol as WindowProtocol
from harness.measuring.results import (
    IdleFloor,
    SessionResult,
    TakenWindow,
    Work,
    reason_to_reject,
    reject_drifting_clocks,
    results,
)
from harness.measuring.windows import PausingClock, Window, WindowTaker
from harness.meters.base import Conditions
from harness.records import Part

_SLOPE_SPAN_S = 5.0
_SHORT = 0.5  # a window of less than this share of what was wanted is taken again
_LONG = 4  # passes of so many windows need not be timed twice
_TAKES = 4  # each take learns from the last how long a pass is


@dataclass(slots=True, kw_only=True)
class _Repeated:
    """A work, how long one pass of it took last, and how many passes make a window."""

    work: Work
    pass_s: float
    passes: int


class Session:
    """Measures the works of one run by one protocol."""

    def __init__(
        self,
        taker: WindowTaker,
        clock: PausingClock,
        protocol: WindowProtocol,
        *,
        window_s: float,
        rng: random.Random,
        limit_s: float | None = None,
    ) -> None:
        """Trials beyond the fewest are made only until ``limit_s`` after the start; None: as many as it takes."""
        self._limit_s = math.inf if limit_s is None else limit_s
        self._taker = taker
        self._clock = clock
        self._protocol = protocol
        self._window_s = window_s
        self._rng = rng

    def measure(self, works: Sequence[Work]) -> SessionResult:
        """Warm up, then idle, windows in random order until every part is known well enough, idle.

        Raises ``MeterFailed`` for a dead counter and ``WindowTooShort`` for a work that no number of passes makes long
        enough.
        """
        begun_s = self._clock.now_s()
        repeated = self._warm_up(works)
        before = self._idle()
        taken: list[TakenWindow] = []
        for trial in range(self._protocol.trials_max):
            for each in self._rng.sample(repeated, k=len(repeated)):
                taken.extend(self._filled(each))
            if trial + 1 < self._protocol.trials_min:
                continue
            hopeless = all(window.rejected is not None for window in taken)
            late = self._clock.now_s() - begun_s >= self._limit_s
            if hopeless or late or self._settled(works, taken, before):
                break
        floor = IdleFloor(before=before, after=self._idle())
        windows = _numbered(reject_drifting_clocks(taken, self._protocol.clock_drift_max))
        return SessionResult(windows=windows, idle=floor, parts=results(works, windows, floor))

    def _idle(self) -> Window:
        return self._taker.take(lambda: self._clock.pause(self._protocol.idle_s))

    def _filled(self, each: _Repeated) -> Iterator[TakenWindow]:
        """A window long enough, after any that were too short because passes got faster: those are not used."""
        for attempt in range(_TAKES):
            try:
                taken = self._take(each)
            except WindowTooShort:
                if attempt + 1 == _TAKES:
                    raise
                each.passes = max(2 * each.passes, self._passes(each.pass_s))
                continue
            work_s = taken.window.work_s
            if work_s < self._window_s:
                each.passes = self._passes(work_s / each.passes)
            if work_s >= _SHORT * self._window_s:
                yield taken
                return
            yield replace(taken, rejected=f"lasted {work_s:.3g} s of the {self._window_s:.3g} s wanted")

    def _take(self, each: _Repeated) -> TakenWindow:
        def run() -> None:
            each.pass_s = self._timed_s(lambda: each.work.run(each.passes)) / each.passes

        work, passes = each.work, each.passes
        work.prepare(passes)
        try:
            window = self._taker.take(run)
        finally:
            work.release()
        return TakenWindow(
            part=work.part,
            trial=0,
            passes=passes * work.share,
            context_start_tokens=work.context_start_tokens,
            mean_context_tokens=work.mean_context_tokens,
            window=window,
            rejected=reason_to_reject(window),
        )

    def _warm_up(self, works: Sequence[Work]) -> list[_Repeated]:
        """Run every work at least once, on until the device has settled; returns passes that fill a window."""
        begun_s = self._clock.now_s()
        temperatures: list[tuple[float, float]] = []
        while True:
            repeated = [self._repeated(work) for work in works]
            now_s = self._clock.now_s()
            temperatures.extend((now_s, value) for value in _temperatures(self._taker.conditions())[:1])
            if now_s - begun_s >= self._protocol.warm_up_s or self._temperature_settled(temperatures):
                return repeated

    def _repeated(self, work: Work) -> _Repeated:
        """Time single passes until they stop getting faster by more than a tenth: the first pays for allocations.

        A pass of several windows is timed once: one of them fills a window even if the others are a good deal faster.
        """
        fastest_s = self._timed_pass_s(work)
        while fastest_s < _LONG * self._window_s:
            pass_s = self._timed_pass_s(work)
            settled, fastest_s = pass_s >= 0.9 * fastest_s, min(fastest_s, pass_s)
            if settled:
                break
        return _Repeated(work=work, pass_s=fastest_s, passes=self._passes(fastest_s))

    def _timed_pass_s(self, work: Work) -> float:
        work.prepare(1)
        try:
            return self._timed_s(lambda: work.run(1))
        finally:
            work.release()

    def _timed_s(self, run: Callable[[], None]) -> float:
        begun_s = self._clock.now_s()
        run()
        return self._clock.now_s() - begun_s

    def _passes(self, pass_s: float) -> int:
        """Passes that fill a window, with a margin of a tenth: inside a window they are often faster than alone."""
        return max(1, math.ceil(1.1 * self._window_s / max(pass_s, 1e-9)))

    def _temperature_settled(self, temperatures: Sequence[tuple[float, float]]) -> bool:
        if not temperatures:
            return False
        last_s, last_c = temperatures[-1]
        earlier = [(at_s, value) for at_s, value in temperatures if last_s - at_s >= _SLOPE_SPAN_S]
        if not earlier:
            return False
        at_s, value = earlier[-1]
        return abs(last_c - value) / (last_s - at_s) < self._protocol.settled_c_per_s

    def _settled(self, works: Sequence[Work], taken: Sequence[TakenWindow], idle: Window) -> bool:
        """Every work has its trials, windows not used left out, and every part its half width."""
        windows = reject_drifting_clocks(taken, self._protocol.clock_drift_max)
        used = Counter(_place(window) for window in windows if window.rejected is None)
        if any(used[_place(work)] < self._protocol.trials_min for work in works):
            return False
        found = results(works, windows, IdleFloor(before=idle, after=idle))
        return all(
            result.energy_j is not None and result.energy_j.relative <= self._protocol.half_width_target
            for result in found
        )


def _place(each: Work | TakenWindow) -> tuple[Part, float | None]:
    return each.part, each.mean_context_tokens


def _numbered(windows: Sequence[TakenWindow]) -> tuple[TakenWindow, ...]:
    counts = {part: itertools.count() for part in Part}
    return tuple(replace(taken, trial=next(counts[taken.part])) for taken in windows)


def _temperatures(conditions: Sequence[Conditions]) -> list[float]:
    return [each.temperature_c for each in conditions if each.temperature_c is not None]
