"""Measure one run: warm-up, idle floor, repeated windows of each work in random order, idle floor again.

    warm-up │ idle │ windows in random order, each at a phase of its own │ idle │ … │ idle
            └──────┴───────────────── at most ``idle_every_s`` ──────────┴──────┘

Works are the parts of the run and, where kernels are measured too, kernels looped alone, in mixtures, or waiting. They
share the rounds, so that drift of any kind falls on all alike. Loops have a window in each round that every run has;
mixtures, of which there are many and each of which is an equation of its own, have one window, and are dealt out evenly
over these rounds.

Windows are repeated until the 95 % half width of every part is small enough. Whoever stops there stops too often at a
spread that is small by chance, so intervals of more windows than the fewest are widened (``statistics.mean_of``).
Within a step of the counter, the works of successive trials start in different eighths, halves and quarters first, so
that the first few trials are spread over the step too, whatever their number (van der Corput's sequence); which eighth
is the first is drawn for each run.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from harness.errors import WindowTooShort
from harness.measuring.protocol import Protocol as WindowProtocol
from harness.measuring.rejection import reason_to_reject, reject_changed_limits, reject_drifting_clocks
from harness.measuring.results import PHASES_AND_RUN, IdleFloor, PartResult, SessionResult, TakenWindow, Work, results
from harness.measuring.windows import PausingClock, Window, WindowTaker
from harness.meters.base import Conditions
from harness.records import Part

_LOOPS = frozenset({Part.REPLAY, Part.WAITING})
_SLOPE_SPAN_S = 5.0
_SHORT = 0.5  # a window of less than this share of what was wanted is taken again
_LONG = 4  # passes of so many windows need not be timed twice
_TAKES = 4  # each take learns from the last how long a pass is
_EIGHTHS = (0, 4, 2, 6, 1, 5, 3, 7)  # of a counter's step, in which the works of successive trials start
_TIMED_S = 0.02  # passes are timed together until they last so long …
_MOST_TIMED = 100_000  # … or are so many


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
        self._first_eighth = rng.randrange(len(_EIGHTHS))
        self._idle: list[Window] = []

    def measure(self, works: Sequence[Work]) -> SessionResult:
        """Warm up, then idle, windows in random order until every part is known well enough, idle.

        Raises ``MeterFailed`` for a dead counter and ``WindowTooShort`` for a work that no number of passes makes long
        enough.
        """
        begun_s = self._clock.now_s()
        repeated = self._warm_up(works)
        self._idle = [self._idle_window()]
        taken: list[TakenWindow] = []
        for trial in range(self._protocol.trials_max):
            for each in self._round(repeated, trial):
                self._rest()
                taken.extend(self._filled(each, trial))
            if trial + 1 < self._protocol.trials_min:
                continue
            hopeless = all(window.rejected is not None for window in taken)
            late = self._clock.now_s() - begun_s >= self._limit_s
            if hopeless or late or self._settled(works, taken):
                break
        self._idle.append(self._idle_window())
        floor = IdleFloor(windows=tuple(self._idle))
        windows = _numbered(self._checked(taken))
        return SessionResult(
            windows=windows,
            idle=floor,
            parts=self._results(works, windows, floor),
            precision=self._taker.precision,
            step_s=self._taker.step_s,
            planned=self._protocol.trials_min,
        )

    def _round(self, repeated: Sequence[_Repeated], trial: int) -> list[_Repeated]:
        """The works of a round in random order; kernels only in the rounds that every run has, mixtures in one."""
        due = [each for each in repeated if each.work.part in PHASES_AND_RUN]
        if trial < self._protocol.trials_min:
            mixtures = [each for each in repeated if each.work.part is Part.MIXTURE]
            due += [each for each in repeated if each.work.part in _LOOPS]
            due += mixtures[trial :: self._protocol.trials_min]
        return self._rng.sample(due, k=len(due))

    def _rest(self) -> None:
        """Look at the idle floor again where the last look is long ago."""
        if self._clock.now_s() - self._idle[-1].middle_s >= self._protocol.idle_every_s:
            self._idle.append(self._idle_window())

    def _idle_window(self) -> Window:
        return self._taker.take(lambda: self._clock.pause(self._protocol.idle_s))

    def _checked(self, taken: Sequence[TakenWindow]) -> tuple[TakenWindow, ...]:
        return reject_changed_limits(reject_drifting_clocks(taken, self._protocol.clock_drift_max))

    def _results(
        self, works: Sequence[Work], windows: Sequence[TakenWindow], idle: IdleFloor
    ) -> tuple[PartResult, ...]:
        return results(
            works,
            windows,
            idle,
            self._taker.precision,
            step_s=self._taker.step_s,
            planned=self._protocol.trials_min,
        )

    def _jitter_s(self, trial: int) -> float:
        """Where in a step of the counter the work starts: another eighth of it in every trial, at random in it."""
        eighths = len(_EIGHTHS)
        eighth = (_EIGHTHS[trial % eighths] + self._first_eighth) % eighths
        return (eighth + self._rng.random()) / eighths * self._taker.step_s

    def _window_for(self, work: Work) -> float:
        """Length of a window of a work: kernels make do with less, since there are many."""
        if work.part in PHASES_AND_RUN:
            return self._window_s
        return self._window_s * self._protocol.kernel_window_share

    def _filled(self, each: _Repeated, trial: int) -> Iterator[TakenWindow]:
        """A window long enough, after any that were too short because passes got faster: those are not used."""
        window_s = self._window_for(each.work)
        for attempt in range(_TAKES):
            try:
                taken = self._take(each, self._jitter_s(trial))
            except WindowTooShort:
                if attempt + 1 == _TAKES:
                    raise
                each.passes = max(2 * each.passes, self._passes(each.pass_s, window_s))
                continue
            work_s = taken.window.work_s
            if work_s < window_s:
                each.passes = self._passes(work_s / each.passes, window_s)
            if work_s >= _SHORT * window_s:
                yield taken
                return
            yield replace(taken, rejected=f"lasted {work_s:.3g} s of the {window_s:.3g} s wanted")

    def _take(self, each: _Repeated, jitter_s: float) -> TakenWindow:
        def run() -> None:
            each.pass_s = self._timed_s(lambda: each.work.run(each.passes)) / each.passes

        work, passes = each.work, each.passes
        work.prepare(passes)
        try:
            window = self._taker.take(run, jitter_s=jitter_s)
        finally:
            work.release()
        return TakenWindow(
            part=work.part,
            trial=0,
            passes=passes * work.share,
            context_start_tokens=work.context_start_tokens,
            mean_context_tokens=work.mean_context_tokens,
            kernels=work.kernels,
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
        """Time passes until they stop getting faster by more than a tenth: the first pays for allocations.

        A pass of several windows is timed once: one of them fills a window even if the others are a good deal faster.
        """
        window_s = self._window_for(work)
        fastest_s = self._timed_pass_s(work)
        while fastest_s < _LONG * window_s:
            pass_s = self._timed_pass_s(work)
            settled, fastest_s = pass_s >= 0.9 * fastest_s, min(fastest_s, pass_s)
            if settled:
                break
        return _Repeated(work=work, pass_s=fastest_s, passes=self._passes(fastest_s, window_s))

    def _timed_pass_s(self, work: Work) -> float:
        """Time of one pass, from so many that the clock and the first launch do not matter."""
        passes = 1
        while True:
            work.prepare(passes)
            try:
                duration_s = self._timed_s(partial(work.run, passes))
            finally:
                work.release()
            if duration_s >= _TIMED_S or passes >= _MOST_TIMED:
                return duration_s / passes
            passes *= 10

    def _timed_s(self, run: Callable[[], None]) -> float:
        begun_s = self._clock.now_s()
        run()
        return self._clock.now_s() - begun_s

    def _passes(self, pass_s: float, window_s: float) -> int:
        """Passes that fill a window, with a margin of a tenth: inside a window they are often faster than alone."""
        return max(1, math.ceil(1.1 * window_s / max(pass_s, 1e-9)))

    def _temperature_settled(self, temperatures: Sequence[tuple[float, float]]) -> bool:
        if not temperatures:
            return False
        last_s, last_c = temperatures[-1]
        earlier = [(at_s, value) for at_s, value in temperatures if last_s - at_s >= _SLOPE_SPAN_S]
        if not earlier:
            return False
        at_s, value = earlier[-1]
        return abs(last_c - value) / (last_s - at_s) < self._protocol.settled_c_per_s

    def _settled(self, works: Sequence[Work], taken: Sequence[TakenWindow]) -> bool:
        """Every work has its trials, windows not used left out, and every part its half width."""
        windows = self._checked(taken)
        used = Counter(_place(window) for window in windows if window.rejected is None)
        if any(used[_place(work)] < self._protocol.trials_min for work in works if work.part in PHASES_AND_RUN):
            return False
        found = self._results(works, windows, IdleFloor(windows=tuple(self._idle)))
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
