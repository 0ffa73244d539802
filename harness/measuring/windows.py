"""One energy window: what every counter in use says from just before a piece of work to just after it.

    counter  ──┐        ┌────────┐      ┌────────┐        ┌──
    steps      └────────┘        └ ···· ┘        └────────┘
               ↑ start: a step of this counter            ↑ end: its first step after the work
                 [lead][ work ····················· ][tail]

A counter moves every ``step_s`` seconds, so each device's energy is taken between two steps of its own counter, seen
by polling. Lead and tail are the times between those steps and the work: the device idles in them, and their idle
energy is taken out when the energy of a pass is computed. The lead is random where ``jitter_s`` asks for it, so that a
load that beats with the sensor is not met at the same phase in every window. The state of the devices is asked for at
the beginning of the tail, before their clocks fall.

Energy between two steps, less idle power × (lead + tail), is the work's. A counter that shows energy late, by
``precision.lag_s`` or the meter's own lag, is waited for: the first step must not show what ran before the window, the
last one must show all of the work. Assumed: the counter misses nothing between its steps, and the device idles in lead
and tail. When a counter stepped lies between two looks at it, anywhere alike: a rectangle of half width a at each end,
so the window's length has the 95 % half width 1.96·√((a₁² + a₂²)/3) (GUM, JCGM 100:2008, 4.3.7).
Source: edge alignment follows from the counters' step (zeus-ml; arXiv 2312.02741): read at random moments, a window of
W seconds is wrong by up to ±T/W.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.errors import MeterCause, MeterFailed, WindowTooShort
from harness.measuring.precision import Precision
from harness.meters.base import Clock, Conditions, CounterRead, MonotonicClock
from harness.meters.selection import MeterBank
from harness.records import Provenance

_Read = Callable[[], tuple[CounterRead, ...]]

_POLL_S = 0.001
_POLL_STEPS = 40  # polls in a step, where that is slower
_PATIENCE_STEPS = 20
_PATIENCE_MIN_S = 2.0
_EARLY = 0.06  # of a step before it is expected
_STEPS_FORESEEN = 500  # … unless it was seen so many steps ago
_ESTIMATE_S = 0.001  # an estimate is computed at its read: only the time of the read is uncertain
_RECTANGLE95 = 1.96 / 3**0.5


class PausingClock(Clock, Protocol):
    """A monotonic clock that can also wait."""

    def pause(self, duration_s: float) -> None:
        """Let time pass without using the device."""
        ...


class SteadyClock(MonotonicClock):
    """The machine's monotonic clock."""

    __slots__ = ()

    def pause(self, duration_s: float) -> None:
        """Sleep."""
        time.sleep(duration_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What one device's counter said, between two of its steps."""

    energy_j: float
    counter_start_j: float
    counter_end_j: float
    started_s: float
    duration_s: float
    lead_s: float  # idle before the work
    tail_s: float  # idle after it
    timing95_s: float  # half width of lead + tail: when exactly the counter stepped
    sampling95_j: float = 0.0  # half width of the energy of a meter that integrates samples of power

    @property
    def idle_s(self) -> float:
        """Time in the span in which the device idled."""
        return self.lead_s + self.tail_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What the counters said around a piece of work. Tuples have one entry per device."""

    spans: tuple[Span, ...]
    started_s: float  # of the work
    work_s: float  # time the work itself took
    before: tuple[Conditions, ...]
    after: tuple[Conditions, ...]

    @property
    def energy_j(self) -> float:
        """Energy over all devices, lead and tail included."""
        return sum(span.energy_j for span in self.spans)

    @property
    def middle_s(self) -> float:
        """Monotonic time in the middle of the work."""
        return self.started_s + self.work_s / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """A counter just after it moved."""

    energy_j: float
    at_s: float  # middle between the last look before and the first one after
    half_s: float  # it moved so long before or after that at most


class WindowTaker:
    """Takes windows with one bank of meters and one monotonic clock."""

    def __init__(
        self, bank: MeterBank, clock: PausingClock, *, shortest_s: float, precision: Precision | None = None
    ) -> None:
        self._bank = bank
        self._clock = clock
        self._shortest_s = shortest_s
        self.precision = Precision() if precision is None else precision
        # An estimate is computed when it is read, so it is never stale; a hardware counter is.
        self.aligned = bank.provenance is not Provenance.ESTIMATED
        self._lag_s = max(self.precision.lag_s, bank.lag_s)
        self._beats = [_Beat(meter.step_s) for meter in bank.meters]

    @property
    def step_s(self) -> float:
        """The step of the slowest counter."""
        return self._bank.step_s

    def conditions(self) -> tuple[Conditions, ...]:
        """Clocks, temperature and the like of each device, now."""
        return self._bank.conditions(powers=False)

    def take(self, work: Callable[[], None], *, jitter_s: float = 0.0) -> Window:
        """Run ``work``, which returns only when the device is done, inside one window.

        The work starts ``jitter_s`` after the counters are ready. Raises ``MeterFailed`` for a counter that stands
        still or goes back and ``WindowTooShort`` where the work took less than the shortest window resolved.
        """
        before = self._bank.conditions(powers=False)
        if not self.aligned:
            self._clock.pause(self._bank.step_s)
        # What ran until now must not show any more at the first step.
        starts = self._steps(self._bank.read_start, self._clock.now_s() + self._lag_s)
        if jitter_s > 0 and self.aligned:
            self._clock.pause(jitter_s)
        started_s = self._clock.now_s()
        work()
        ended_s = self._clock.now_s()
        if self.aligned:
            after = self._bank.conditions(powers=False)
            ends = self._steps(self._bank.read_end, ended_s + self._lag_s)
        else:
            ends = self._steps(self._bank.read_end, ended_s)
            after = self._bank.conditions(powers=False)
        if not self.aligned:  # read and worked without a pause: what lies between belongs to the work
            started_s, ended_s = starts[0].at_s, ends[0].at_s
        if ended_s - started_s < self._shortest_s:
            raise WindowTooShort(self._bank.name, ended_s - started_s, self._shortest_s)
        sampling95_j = self._sampling95_j(starts, ends)
        spans = tuple(
            self._span(meter.name, start, end, started_s, ended_s, half_j)
            for meter, start, end, half_j in zip(self._bank.meters, starts, ends, sampling95_j, strict=True)
        )
        return Window(spans=spans, started_s=started_s, work_s=ended_s - started_s, before=before, after=after)

    def _sampling95_j(self, starts: Sequence[_Step], ends: Sequence[_Step]) -> tuple[float, ...]:
        """What a meter that integrates samples misses between them; nothing for counters."""
        halves = self._bank.sampling95_j(min(step.at_s for step in starts), max(step.at_s for step in ends))
        if halves is None:
            return (0.0,) * len(starts)
        for meter, half_j in zip(self._bank.meters, halves, strict=True):
            if half_j is None:
                raise MeterFailed(
                    f"{meter.name}: the samples of power do not cover the window, so its energy is not known.\n"
                    "The sampler fell behind or stopped. Run the same command again.",
                    cause=MeterCause.SAMPLES_MISSING,
                )
        return tuple(half_j or 0.0 for half_j in halves)

    def _span(self, name: str, start: _Step, end: _Step, started_s: float, ended_s: float, sampling95_j: float) -> Span:
        energy_j, duration_s = end.energy_j - start.energy_j, end.at_s - start.at_s
        if energy_j <= 0:
            raise MeterFailed(
                f"{name}: the counter moved by {energy_j:.6g} J in a window of {duration_s:.3g} s.\n"
                "A device under power always uses energy, so the reading is lost. See `python -m harness.doctor`.",
                cause=MeterCause.COUNTER_WENT_BACK if energy_j < 0 else MeterCause.COUNTER_STOOD_STILL,
            )
        return Span(
            energy_j=energy_j,
            counter_start_j=start.energy_j,
            counter_end_j=end.energy_j,
            started_s=start.at_s,
            duration_s=duration_s,
            lead_s=max(0.0, started_s - start.at_s) if self.aligned else 0.0,
            tail_s=max(0.0, end.at_s - ended_s) if self.aligned else 0.0,
            timing95_s=_RECTANGLE95 * float((start.half_s**2 + end.half_s**2) ** 0.5),
            sampling95_j=sampling95_j,
        )

    def _steps(self, read: _Read, since_s: float) -> tuple[_Step, ...]:
        """The first step of each counter that surely came after ``since_s``."""
        if not self.aligned:
            return _at_once(read())
        watches = [
            _Watch(meter.name, first, self._beats[device], since_s)
            for device, (meter, first) in enumerate(zip(self._bank.meters, read(), strict=True))
        ]
        patience_s = max(_PATIENCE_MIN_S, _PATIENCE_STEPS * self._bank.step_s)
        deadline_s = max(self._clock.now_s(), since_s) + patience_s
        while waiting := [watch for watch in watches if watch.step is None]:
            watch = min(waiting, key=lambda each: each.due_s)
            self._clock.pause(max(0.0, watch.due_s - self._clock.now_s()))
            watch.look(self._bank.read(watches.index(watch)))
            if watch.step is None and watch.last.at_s > deadline_s:
                raise MeterFailed(
                    f"{watch.name}: the energy counter has not moved for {patience_s:.3g} s.\n"
                    "A counter that stands still would read as 0 J. Check it with `python -m harness.doctor`.",
                    cause=MeterCause.COUNTER_STOOD_STILL,
                )
        return tuple(watch.step for watch in watches if watch.step is not None)


def _at_once(reads: tuple[CounterRead, ...]) -> tuple[_Step, ...]:
    return tuple(_Step(energy_j=read.energy_j, at_s=read.at_s, half_s=_ESTIMATE_S) for read in reads)


class _Beat:
    """When a counter moves: seen once, it need not be polled until it is about to move again."""

    def __init__(self, step_s: float) -> None:
        self.step_s = step_s
        self.poll_s = min(max(_POLL_S, step_s / _POLL_STEPS), step_s / 10)
        self._seen_s: float | None = None

    def next_s(self, now_s: float) -> float | None:
        """When to expect the next step, a little early; None where it is not known, or was seen too long ago."""
        if self._seen_s is None:
            return None
        steps = max(1, math.ceil((now_s - self._seen_s) / self.step_s + _EARLY))
        return self._seen_s + (steps - _EARLY) * self.step_s if steps <= _STEPS_FORESEEN else None

    def seen(self, at_s: float) -> None:
        """A step was seen, and with an earlier one it tells how long steps are."""
        if self._seen_s is not None:
            steps = round((at_s - self._seen_s) / self.step_s)
            if 0 < steps <= _STEPS_FORESEEN:
                self.step_s = (at_s - self._seen_s) / steps
        self._seen_s = at_s

    def missed(self) -> None:
        """It moved when it was not expected to."""
        self._seen_s = None


def _step_between(last: CounterRead, now: CounterRead) -> _Step:
    """A step seen by two looks, each of which saw the counter at some time of its own read."""
    earliest_s, latest_s = last.at_s - last.latency_s / 2, now.at_s + now.latency_s / 2
    return _Step(energy_j=now.energy_j, at_s=(earliest_s + latest_s) / 2, half_s=(latest_s - earliest_s) / 2)


class _Watch:
    """Waits for one counter to move."""

    def __init__(self, name: str, first: CounterRead, beat: _Beat, since_s: float) -> None:
        self.name = name
        self.last = first
        self.step: _Step | None = None
        self._beat = beat
        self._since_s = since_s
        expected_s = beat.next_s(max(first.at_s, since_s))
        self._sleeps = expected_s is not None  # until the first look, a little before the step
        self.due_s = first.at_s + beat.poll_s if expected_s is None else expected_s

    def look(self, now: CounterRead) -> None:
        """Compare with the last look; raises ``MeterFailed`` for a counter that went back."""
        last, self.last = self.last, now
        slept, self._sleeps = self._sleeps, False
        self.due_s = now.at_s + self._beat.poll_s
        if now.energy_j < last.energy_j:
            raise MeterFailed(
                f"{self.name}: the counter went from {last.energy_j:.6g} J back to {now.energy_j:.6g} J.\n"
                "It was reset, by a driver that was reloaded perhaps. Run the same command again.",
                cause=MeterCause.COUNTER_WENT_BACK,
            )
        if now.energy_j == last.energy_j or last.at_s - last.latency_s / 2 < self._since_s:
            return
        if slept:  # it moved some time while nobody looked
            self._beat.missed()
        else:
            self.step = _step_between(last, now)
            self._beat.seen(self.step.at_s)
