"""One energy window: the span between two reads of every counter in use.

    counter  ──┐        ┌────────┐      ┌────────┐        ┌──
    steps      └────────┘        └ ···· ┘        └────────┘
               ↑ start: just after a step        ↑ end: the first step after the work
                 [ work ······················ ][tail]

A counter moves every ``step_s`` seconds, so both reads wait for its next step; the wait at the end, the *tail*, is
spent idle and its idle energy is taken out when the energy of a pass is computed. Windows of several GPUs are aligned
on the first GPU's counter, once all the others have moved too: what those have yet to show is idle power then, so that
no load is missed at the end or taken over at the start. The state of the devices is asked for at the beginning of the
tail, before their clocks fall.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from harness.errors import MeterFailed, WindowTooShort
from harness.meters.base import Clock, Conditions, MonotonicClock
from harness.meters.selection import CounterRead, MeterBank
from harness.records import Provenance

_Read = Callable[[], tuple[CounterRead, ...]]

_POLL_S = 0.001
_PATIENCE_STEPS = 20
_PATIENCE_MIN_S = 2.0
_ESTIMATE_S = 0.001  # an estimate is computed at its read: only the time of the read is uncertain
_UNALIGNED_95 = 1.96 / 6**0.5  # two stale reads, each uniform in 0…T: σ = T/√6
_TAIL_POWER_95 = 0.25  # the load's power may linger for a part of the tail


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
class Window:
    """What the counters said around a piece of work. Tuples have one entry per device."""

    energies_j: tuple[float, ...]
    uncertainties_j: tuple[float, ...]  # half widths of the 95 % interval, from the counter alone
    counters_start_j: tuple[float, ...]
    counters_end_j: tuple[float, ...]
    started_s: float
    duration_s: float
    tail_s: float
    before: tuple[Conditions, ...]
    after: tuple[Conditions, ...]

    @property
    def work_s(self) -> float:
        """Time the work itself took."""
        return self.duration_s - self.tail_s

    @property
    def energy_j(self) -> float:
        """Energy over all devices."""
        return sum(self.energies_j)

    @property
    def uncertainty_j(self) -> float:
        """Half width over all devices, whose errors are independent."""
        return float(sum(half_width**2 for half_width in self.uncertainties_j) ** 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edge:
    """The counters just after the first one moved."""

    reads: tuple[CounterRead, ...]
    late_s: float  # that move came at most this long before the read


class WindowTaker:
    """Takes windows with one bank of meters and one monotonic clock."""

    def __init__(self, bank: MeterBank, clock: PausingClock, *, shortest_s: float) -> None:
        self._bank = bank
        self._clock = clock
        self._shortest_s = shortest_s
        # An estimate is computed when it is read, so it is never stale; a hardware counter is.
        self._aligned = bank.provenance is not Provenance.ESTIMATED

    def conditions(self) -> tuple[Conditions, ...]:
        """Clocks, temperature and the like of each device, now."""
        return self._bank.conditions()

    def take(self, work: Callable[[], None]) -> Window:
        """Run ``work``, which returns only when the device is done, inside one window.

        Raises ``MeterFailed`` for a counter that stands still or goes back and ``WindowTooShort`` where the work took
        less than the shortest window the counter resolves.
        """
        before = self._bank.conditions()
        start = self._edge(self._bank.read_start)
        work()
        work_end_s = self._clock.now_s()
        if self._aligned:
            after = self._bank.conditions()
            end = self._edge(self._bank.read_end)
        else:
            end = _Edge(reads=self._bank.read_end(), late_s=0.0)
            after = self._bank.conditions()
        work_s = work_end_s - start.reads[0].at_s
        if work_s < self._shortest_s:
            raise WindowTooShort(self._bank.name, work_s, self._shortest_s)
        return self._window(start, end, work_end_s, before, after)

    def _window(
        self,
        start: _Edge,
        end: _Edge,
        work_end_s: float,
        before: tuple[Conditions, ...],
        after: tuple[Conditions, ...],
    ) -> Window:
        duration_s = end.reads[0].at_s - start.reads[0].at_s
        tail_s = end.reads[0].at_s - work_end_s
        energies_j = tuple(last.energy_j - first.energy_j for first, last in zip(start.reads, end.reads, strict=True))
        for meter, energy_j in zip(self._bank.meters, energies_j, strict=True):
            if energy_j <= 0:
                raise MeterFailed(
                    f"{meter.name}: the counter moved by {energy_j:.6g} J in a window of {duration_s:.3g} s.\n"
                    "A device under power always uses energy, so the reading is lost. See `python -m harness.doctor`."
                )
        late_s = start.late_s + end.late_s
        return Window(
            energies_j=energies_j,
            uncertainties_j=tuple(
                energy_j / duration_s * self._stale_s(device, late_s, tail_s)
                for device, energy_j in enumerate(energies_j)
            ),
            counters_start_j=tuple(read.energy_j for read in start.reads),
            counters_end_j=tuple(read.energy_j for read in end.reads),
            started_s=start.reads[0].at_s,
            duration_s=duration_s,
            tail_s=tail_s,
            before=before,
            after=after,
        )

    def _stale_s(self, device: int, late_s: float, tail_s: float) -> float:
        """Time for which the device's power is uncertain: half width of the energy ÷ power."""
        if not self._aligned:
            return _ESTIMATE_S
        if device == 0:
            return late_s + _TAIL_POWER_95 * tail_s
        # Both reads are stale in idle time; how much less that is than the mean power is not known here.
        return math.hypot(_UNALIGNED_95 * self._bank.meters[device].step_s, _TAIL_POWER_95 * tail_s)

    def _edge(self, read: _Read) -> _Edge:
        """The first read after the first device's counter moved and those of all others have, at least once."""
        if not self._aligned:
            self._clock.pause(self._bank.step_s)
            return _Edge(reads=read(), late_s=0.0)
        poll_s = min(_POLL_S, self._bank.meters[0].step_s / 10)
        patience_s = max(_PATIENCE_MIN_S, _PATIENCE_STEPS * self._bank.step_s)
        first = last = read()
        while True:
            self._clock.pause(poll_s)
            reads = read()
            still = self._unmoved(first, reads)
            if not still and reads[0].energy_j > last[0].energy_j:
                return _Edge(reads=reads, late_s=reads[0].at_s - last[0].at_s)
            last = reads
            if still and last[0].at_s - first[0].at_s > patience_s:
                raise MeterFailed(
                    f"{still[0]}: the energy counter has not moved for {patience_s:.3g} s.\n"
                    "A counter that stands still would read as 0 J. Check it with `python -m harness.doctor`."
                )

    def _unmoved(self, first: tuple[CounterRead, ...], reads: tuple[CounterRead, ...]) -> list[str]:
        """Meters that have not moved since the first read; raises ``MeterFailed`` for one that went back."""
        still = []
        for meter, before, now in zip(self._bank.meters, first, reads, strict=True):
            if now.energy_j < before.energy_j:
                raise MeterFailed(
                    f"{meter.name}: the counter went from {before.energy_j:.6g} J back to {now.energy_j:.6g} J.\n"
                    "It was reset, by a driver that was reloaded perhaps. Run the same command again."
                )
            if now.energy_j == before.energy_j:
                still.append(meter.name)
        return still
