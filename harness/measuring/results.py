"""What the windows of a run add up to: which of them are used, the idle floor, energy and time of each part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Protocol

from harness.kernels import KernelCount
from harness.measuring.precision import Precision
from harness.measuring.statistics import Mean, Trial, line_at, mean_of
from harness.measuring.windows import Window
from harness.records import Part

_NORMAL95 = 1.96  # half width of a normal distribution's 95 % in standard deviations
PHASES_AND_RUN = frozenset({Part.PREFILL, Part.DECODE, Part.RUN})


class Placed(Protocol):
    """What has a place among the parts of a run."""

    @property
    def part(self) -> Part:
        """Which part of a run it is."""
        ...

    @property
    def mean_context_tokens(self) -> float | None:
        """Decode: mean context over the steps."""
        ...


class Work(Protocol):
    """What can be repeated: a prefill, decode steps from one context, a whole request, some of their kernels."""

    @property
    def part(self) -> Part:
        """Which part of a run it is."""
        ...

    @property
    def share(self) -> float:
        """Passes of the whole part in one pass of this work; 1 unless only some decode steps are run."""
        ...

    @property
    def context_start_tokens(self) -> int | None:
        """Decode: tokens in the context at the first step."""
        ...

    @property
    def mean_context_tokens(self) -> float | None:
        """Decode: mean context over the steps."""
        ...

    @property
    def kernels(self) -> tuple[KernelCount, ...]:
        """Kernels looped alone, in mixtures or waiting: what one pass launches; empty for the parts of a run."""
        ...

    def prepare(self, passes: int) -> None:
        """Set up what ``passes`` passes need, outside any window."""

    def run(self, passes: int) -> None:
        """Run them, and wait for the device."""

    def release(self) -> None:
        """Give back the memory they held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenWindow:
    """A window with what was in it, and why it was not used if it was not."""

    part: Part
    trial: int  # in the order taken, per part
    passes: float  # of the whole part
    context_start_tokens: int | None
    mean_context_tokens: float | None
    window: Window
    kernels: tuple[KernelCount, ...] = ()  # kernels looped alone, in mixtures or waiting: what one pass launches
    rejected: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleFloor:
    """Power with the model resident and nothing running: windows in order of time, linear between their middles."""

    windows: tuple[Window, ...]

    def device_power_w(self, device: int, at_s: float) -> float:
        """Idle power of one device at a monotonic time."""
        middles = [window.spans[device].started_s + window.spans[device].duration_s / 2 for window in self.windows]
        powers_w = self._powers_w(device)
        if at_s <= middles[0]:
            return powers_w[0]
        for (first_s, first_w), (last_s, last_w) in pairwise(zip(middles, powers_w, strict=True)):
            if at_s <= last_s:
                return first_w + (at_s - first_s) / (last_s - first_s) * (last_w - first_w)
        return powers_w[-1]

    def power_w(self, at_s: float) -> float:
        """Idle power of all devices at a monotonic time."""
        return sum(self.device_power_w(device, at_s) for device in range(len(self.windows[0].spans)))

    @property
    def mean_powers_w(self) -> tuple[float, ...]:
        """Idle power of each device over the run."""
        return tuple(fmean(self._powers_w(device)) for device in range(len(self.windows[0].spans)))

    @property
    def mean_power_w(self) -> float:
        """Idle power of the run."""
        return sum(self.mean_powers_w)

    def _powers_w(self, device: int) -> list[float]:
        return [window.spans[device].energy_j / window.spans[device].duration_s for window in self.windows]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """Energy and time of one pass of a part; None where every window was rejected."""

    part: Part
    energy_j: Mean | None
    duration_s: Mean | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionResult:
    """Everything one run's windows gave."""

    windows: tuple[TakenWindow, ...]
    idle: IdleFloor
    parts: tuple[PartResult, ...]
    precision: Precision
    step_s: float  # of the slowest counter
    planned: int | None = None  # windows of each work that were sure before the first

    def part(self, part: Part) -> PartResult | None:
        """The result of one part; None where the request has no such part."""
        return next((result for result in self.parts if result.part is part), None)


def results(
    works: Sequence[Placed],
    windows: Sequence[TakenWindow],
    idle: IdleFloor,
    precision: Precision = Precision(),  # noqa: B008  frozen
    *,
    step_s: float = 0.0,
    planned: int | None = None,
) -> tuple[PartResult, ...]:
    """Energy and time of one pass of each part, from the windows that were not rejected.

    One pass = mean over the windows of (counter − idle power × (lead + tail)) / passes; where a decode is run in
    segments, a line over their context, read in its middle. Intervals are those of ``mean_of`` and ``line_at`` with
    the readings' own from ``reading95_of_device``, and gain and offset on top. ``planned`` is the number of windows of
    each work that was sure before the first.
    """
    parts = dict.fromkeys(work.part for work in works if work.part in PHASES_AND_RUN)
    found = []
    for part in parts:
        contexts = {work.mean_context_tokens for work in works if work.part is part}
        used = [taken for taken in windows if taken.part is part and taken.rejected is None]
        energies = [_energy_trial(taken, idle, precision, step_s) for taken in used]
        sure = None if planned is None else planned * len(contexts)
        found.append(_result(part, used, energies, len(contexts), precision, sure))
    return tuple(found)


def _result(
    part: Part,
    used: Sequence[TakenWindow],
    energies: Sequence[Trial],
    contexts: int,
    precision: Precision,
    planned: int | None,
) -> PartResult:
    places = {trial.at for trial in energies}
    if len(places) < contexts or not used:  # where a context lost all its windows, the line would be a guess
        return PartResult(part=part, energy_j=None, duration_s=None)
    durations = [Trial(value=taken.window.work_s / taken.passes, at=taken.mean_context_tokens or 0.0) for taken in used]
    if contexts == 1:
        energy, duration_s = mean_of(energies, planned=planned), mean_of(durations, planned=planned)
    else:  # first and last segment lie symmetrically around the middle of the decode
        middle = (min(places) + max(places)) / 2
        energy = line_at(energies, middle, planned=planned)
        duration_s = line_at(durations, middle, planned=planned)
    systematic_j = systematic95(used, precision, range(len(used[0].window.spans))) * abs(energy.value)
    return PartResult(part=part, energy_j=energy.with_systematic(systematic_j), duration_s=duration_s)


def work_energy_j(window: Window, idle: IdleFloor, device: int) -> float:
    """Energy of the work in a window on one device: what its counter says, less idle power before and after."""
    span = window.spans[device]
    return span.energy_j - idle.device_power_w(device, window.middle_s) * span.idle_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading95:
    """Half widths of one reading, by whether they differ from reading to reading."""

    random_j: float
    common_j: float

    @property
    def all_j(self) -> float:
        """Both."""
        return math.hypot(self.random_j, self.common_j)


def reading95_of_device(
    window: Window, idle: IdleFloor, precision: Precision, device: int, *, step_s: float
) -> Reading95:
    """What one device's counter may get wrong in one window, gain and offset apart.

    Random, in quadrature: when the counter stepped, as idle energy, idle power × ``timing95_s``; two readings rounded
    down to a quantum q, 1.96·q/√6; what lies between samples of power, where power is integrated; and, where the
    sensor looks only for a share d of each step, that the steps in which the work begins and ends are partly work: the
    sample falls on either side, with a standard deviation of at most half the step's energy above idle, so
    1.96·√2·½·(1 − d)·P·step. Common: power that lingers above idle in the tail, ``tail95``·P·tail. P is the work's
    power above idle. Assumed: the window's start falls on any phase of the sensor's cycle alike (start jitter).
    """
    span, idle_w = window.spans[device], idle.device_power_w(device, window.middle_s)
    active_w = max(0.0, span.energy_j - idle_w * span.duration_s) / window.work_s
    sampled_j = _NORMAL95 * 2**0.5 * 0.5 * (1 - precision.sampled_share) * active_w * step_s
    quantum_j = _NORMAL95 * precision.quantum_j / 6**0.5
    return Reading95(
        random_j=math.hypot(idle_w * span.timing95_s, quantum_j, span.sampling95_j, sampled_j),
        common_j=precision.tail95 * active_w * span.tail_s,
    )


def reading95_j(
    window: Window, idle: IdleFloor, precision: Precision, *, step_s: float, devices: Sequence[int] | None = None
) -> Reading95:
    """The same over several devices, all if None.

    Their counters err independently, so what is random adds in quadrature. Power lingers on all of them for one
    reason, so what is common adds up.
    """
    counted = range(len(window.spans)) if devices is None else devices
    each = [reading95_of_device(window, idle, precision, device, step_s=step_s) for device in counted]
    return Reading95(
        random_j=math.hypot(*(half.random_j for half in each)), common_j=math.fsum(half.common_j for half in each)
    )


def systematic95(used: Sequence[TakenWindow], precision: Precision, devices: Sequence[int]) -> float:
    """Relative half width that gain and offset give the energy of these windows.

    What is stated of a kind of meter may be the same error in every one of them, and nothing is known of how much it
    differs from board to board, so it adds up over the devices (GUM, JCGM 100:2008, 5.2.2: correlation 1).
    """
    energies_j = [sum(taken.window.spans[device].energy_j for taken in used) for device in devices]
    durations_s = [sum(taken.window.spans[device].duration_s for taken in used) for device in devices]
    return math.fsum(map(precision.systematic95_j, energies_j, durations_s)) / sum(energies_j)


def _energy_trial(taken: TakenWindow, idle: IdleFloor, precision: Precision, step_s: float) -> Trial:
    window = taken.window
    energy_j = sum(work_energy_j(window, idle, device) for device in range(len(window.spans)))
    half = reading95_j(window, idle, precision, step_s=step_s)
    return Trial(
        value=energy_j / taken.passes,
        random95=half.random_j / taken.passes,
        common95=half.common_j / taken.passes,
        at=taken.mean_context_tokens or 0.0,
    )
