"""What a calibration looks at, and what it lets the devices do: traces, beside a load that is on and off as planned.

Everything is looked at from one thread, so that all times are of one clock; a load calls back while it runs.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from harness.errors import MeterUnavailable
from harness.measuring.windows import PausingClock
from harness.meters.base import Conditions
from harness.meters.selection import MeterBank

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Busy:
    """When a load ran, on the bank's clock."""

    started_s: float
    ended_s: float


class Load(Protocol):
    """Something that keeps all devices busy, the same way each time."""

    name: str
    """For the record: what it computes."""

    has_context: bool
    """Whether ``prepare`` leaves something on the device that draws power at rest, as a CUDA context does."""

    def prepare(self) -> None:
        """Set everything up; before it, nothing of this process is on the devices."""
        ...

    def run(self, duration_s: float, look: Callable[[], None], every_s: float) -> Busy:
        """Keep the devices busy for about that long, and call ``look`` about every ``every_s`` meanwhile.

        Returns when the devices are done. Times are those of the work on the devices, as well as the host knows them.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Trace:
    """What one device said. Times are those in the middle of each look."""

    counter_at_s: list[float] = field(default_factory=list)
    energy_j: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)  # of the looks at the counter
    conditions_at_s: list[float] = field(default_factory=list)
    conditions: list[Conditions] = field(default_factory=list)


class Watcher:
    """Looks at the counters of a bank every ``poll_s``, and at powers and temperatures every ``conditions_s``."""

    def __init__(
        self,
        bank: MeterBank,
        clock: PausingClock,
        *,
        poll_s: float,
        conditions_s: float,
        counters: bool = True,
    ) -> None:
        self.traces = tuple(Trace() for _ in bank.meters)
        self.bursts: list[Busy] = []
        self._bank, self._clock = bank, clock
        self.poll_s, self._conditions_s = poll_s, conditions_s
        self._counters = counters
        self._due_s = clock.now_s()

    def look(self) -> None:
        """Look once at everything that is due."""
        if self._counters:
            for trace, read in zip(self.traces, self._bank.read_start(), strict=True):
                trace.counter_at_s.append(read.at_s)
                trace.energy_j.append(read.energy_j)
                trace.latency_s.append(read.latency_s)
        before_s = self._clock.now_s()
        if before_s < self._due_s:
            return
        self._due_s = before_s + self._conditions_s
        for trace, meter in zip(self.traces, self._bank.meters, strict=True):
            conditions = meter.conditions()
            after_s = self._clock.now_s()
            trace.conditions_at_s.append((before_s + after_s) / 2)
            trace.conditions.append(conditions)
            before_s = after_s

    def idle(self, duration_s: float) -> None:
        """Look while nothing runs."""
        self.idle_until(self._clock.now_s() + duration_s)

    def idle_until(self, end_s: float) -> None:
        """Look while nothing runs, up to a time."""
        while True:
            self.look()
            left_s = end_s - self._clock.now_s()
            if left_s <= 0:
                return
            self._clock.pause(min(self.poll_s, left_s))

    def load(self, load: Load, duration_s: float) -> Busy:
        """Look while a load runs."""
        busy = load.run(duration_s, self.look, self.poll_s)
        self.bursts.append(busy)
        return busy

    def sweep(self, load: Load, *, period_s: float, bursts: int, rest_s: float, rng: random.Random) -> None:
        """Switch the load on and off so that its beginnings, and its ends, fall evenly over the phases of a period.

        At least ``rest_s`` lie between two edges. They come in random order, each at random in its share of the
        period, so that nothing else can keep step with them.
        """
        begins, ends = ([(n + rng.random()) / bursts for n in rng.sample(range(bursts), bursts)] for _ in range(2))
        origin_s = self._clock.now_s()

        def next_s(phase: float) -> float:
            periods = (self._clock.now_s() + rest_s - origin_s) / period_s - phase
            return origin_s + (math.ceil(periods) + phase) * period_s

        for begin, end in zip(begins, ends, strict=True):
            self.idle_until(next_s(begin))
            self.load(load, next_s(end) - self._clock.now_s())
        self.idle(rest_s)

    def square(self, load: Load, *, on_s: float, off_s: float, cycles: int) -> None:
        """Switch the load on and off in a steady beat."""
        begun_s = self._clock.now_s()
        for cycle in range(cycles):
            self.load(load, on_s)
            self.idle_until(begun_s + (cycle + 1) * (on_s + off_s))


def has_counters(bank: MeterBank) -> bool:
    """Whether the energy of this bank can be read at all."""
    try:
        bank.read_start()
    except MeterUnavailable:
        return False
    return True


def array(values: Sequence[float]) -> FloatArray:
    """Numbers as an array, [N]."""
    return np.asarray(values, dtype=np.float64)
