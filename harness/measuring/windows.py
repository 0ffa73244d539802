"""One energy window: the span between two reads of every counter in use.

    counter  ──┐        ┌────────┐      ┌────────┐        ┌──
    steps      └────────┘        └ ···· ┘        └────────┘
               ↑ start: just after a step        ↑ end: the first step after the work
                 [ work ······················ ][tail]

A counter moves every ``step_s`` seconds, so both reads wait for its next step; the wait at the end, the *tail*, is
spent idle and its idle energy is taken out when the energy of a pass is computed. Windows of several GPUs are aligned
on the first GPU's counter; the others carry the error of an unaligned read.
"""

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
        end = self._edge(self._bank.read_end) if self._aligned else self._bank.read_end()
        after = self._bank.conditions()
        work_s = work_end_s - start[0].at_s
        if work_s < self._shortest_s:
            raise WindowTooShort(self._bank.name, work_s, self._shortest_s)
        return self._window(start, end, work_end_s, before, after)

    def _window(
        self,
        start: tuple[CounterRead, ...],
        end: tuple[CounterRead, ...],
        work_end_s: float,
        before: tuple[Conditions, ...],
        after: tuple[Conditions, ...],
    ) -> Window:
        duration_s = end[0].at_s - start[0].at_s
        tail_s = end[0].at_s - work_end_s
        energies_j = tuple(last.energy_j - first.energy_j for first, last in zip(start, end, strict=True))
        for meter, energy_j in zip(self._bank.meters, energies_j, strict=True):
            if energy_j <= 0:
                raise MeterFailed(
                    f"{meter.name}: the counter moved by {energy_j:.6g} J in a window of {duration_s:.3g} s.\n"
                    "A device under power always uses energy, so the reading is lost. See `python -m harness.doctor`."
                )
        return Window(
            energies_j=energies_j,
            uncertainties_j=tuple(
                energy_j / duration_s * self._stale_s(device, tail_s) for device, energy_j in enumerate(energies_j)
            ),
            counters_start_j=tuple(read.energy_j for read in start),
            counters_end_j=tuple(read.energy_j for read in end),
            started_s=start[0].at_s,
            duration_s=duration_s,
            tail_s=tail_s,
            before=before,
            after=after,
        )

    def _stale_s(self, device: int, tail_s: float) -> float:
        """Time for which the device's power is uncertain: half width of the energy ÷ power."""
        if not self._aligned:
            return _POLL_S
        if device == 0:
            return 2 * _POLL_S + _TAIL_POWER_95 * tail_s
        return _UNALIGNED_95 * self._bank.meters[device].step_s

    def _edge(self, read: _Read) -> tuple[CounterRead, ...]:
        """The first read after the first device's counter moved."""
        if not self._aligned:
            self._clock.pause(self._bank.step_s)
            return read()
        step_s = self._bank.meters[0].step_s
        patience_s = max(_PATIENCE_MIN_S, _PATIENCE_STEPS * step_s)
        stale = read()[0]
        while True:
            self._clock.pause(min(_POLL_S, step_s / 10))
            edge = read()
            if edge[0].energy_j != stale.energy_j:
                return edge
            if edge[0].at_s - stale.at_s > patience_s:
                raise MeterFailed(
                    f"{self._bank.meters[0].name}: the energy counter has not moved for {patience_s:.3g} s.\n"
                    f"A counter that stands still would read as 0 J. Check it with `python -m harness.doctor`."
                )
