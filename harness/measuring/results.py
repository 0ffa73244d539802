"""What the windows of a run add up to: which of them are used, the idle floor, energy and time of each part."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from harness.measuring.statistics import Mean, Trial, line_at, mean_of
from harness.measuring.windows import Window
from harness.records import Part

# NVML clocks-event reasons that mean the device could not hold its clocks: hardware slowdown, software thermal
# slowdown, hardware thermal slowdown, power brake (nvml.h, nvmlClocksEventReason*). A power cap (0x4) is normal load.
THROTTLE_BITS = 0x08 | 0x20 | 0x40 | 0x80


class Work(Protocol):
    """One part of a run that can be repeated: a prefill, decode steps from one context, a whole request."""

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
    rejected: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleFloor:
    """Power with the model resident and nothing running, before and after; linear between."""

    before: Window
    after: Window

    def power_w(self, at_s: float) -> float:
        """Idle power at a monotonic time: that of the windows in their middles, linear between."""
        first_w, last_w = self.before.energy_j / self.before.duration_s, self.after.energy_j / self.after.duration_s
        first_s = self.before.started_s + self.before.duration_s / 2
        span_s = self.after.started_s + self.after.duration_s / 2 - first_s
        place = min(1.0, max(0.0, (at_s - first_s) / span_s)) if span_s > 0 else 0.0
        return first_w + place * (last_w - first_w)

    @property
    def mean_power_w(self) -> float:
        """Idle power of the run."""
        return (self.before.energy_j / self.before.duration_s + self.after.energy_j / self.after.duration_s) / 2


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

    def part(self, part: Part) -> PartResult | None:
        """The result of one part; None where the request has no such part."""
        return next((result for result in self.parts if result.part is part), None)


def reason_to_reject(window: Window) -> str | None:
    """Why a window cannot be used: a thermal or hardware slowdown, or somebody else on the GPU."""
    for each in (*window.before, *window.after):
        if each.throttle_reasons is not None and each.throttle_reasons & THROTTLE_BITS:
            return f"the device slowed down (clocks-event reasons 0x{each.throttle_reasons:x})"
        if each.other_processes:
            return f"{each.other_processes} other process(es) on the GPU"
    return None


def reject_drifting_clocks(windows: Sequence[TakenWindow], drift_max: float) -> tuple[TakenWindow, ...]:
    """Mark windows in which a device's SM clock is further than ``drift_max`` (relative) from its median in that part.

    Each device has a median of its own: two boards of one kind need not run at one clock.
    """
    clocks: dict[tuple[Part, int], list[float]] = {}
    for taken in windows:
        for device, clock_mhz in _clocks(taken) if taken.rejected is None else ():
            clocks.setdefault((taken.part, device), []).append(clock_mhz)
    usual = {place: median(values) for place, values in clocks.items()}

    def checked(taken: TakenWindow) -> TakenWindow:
        for device, clock_mhz in _clocks(taken) if taken.rejected is None else ():
            usual_mhz = usual[taken.part, device]
            if abs(clock_mhz - usual_mhz) > drift_max * usual_mhz:
                return replace(taken, rejected=f"SM clock {clock_mhz:.0f} MHz, usually {usual_mhz:.0f} MHz")
        return taken

    return tuple(checked(taken) for taken in windows)


def _clocks(taken: TakenWindow) -> list[tuple[int, float]]:
    return [
        (device, each.sm_clock_mhz) for device, each in enumerate(taken.window.after) if each.sm_clock_mhz is not None
    ]


def results(works: Sequence[Work], windows: Sequence[TakenWindow], idle: IdleFloor) -> tuple[PartResult, ...]:
    """Energy and time of one pass of each part, from the windows that were not rejected."""
    parts = dict.fromkeys(work.part for work in works)
    return tuple(_result(part, works, windows, idle) for part in parts)


def _result(part: Part, works: Sequence[Work], windows: Sequence[TakenWindow], idle: IdleFloor) -> PartResult:
    used = [taken for taken in windows if taken.part is part and taken.rejected is None]
    contexts = {work.mean_context_tokens for work in works if work.part is part}
    energies = [_energy_trial(taken, idle) for taken in used]
    durations = [Trial(value=taken.window.work_s / taken.passes, at=taken.mean_context_tokens or 0.0) for taken in used]
    places = {trial.at for trial in energies}
    if not used:
        return PartResult(part=part, energy_j=None, duration_s=None)
    if len(contexts) == 1:
        return PartResult(part=part, energy_j=mean_of(energies), duration_s=mean_of(durations))
    if len(places) < len(contexts):  # a context lost all its windows: the line would be a guess
        return PartResult(part=part, energy_j=None, duration_s=None)
    # First and last segment lie symmetrically around the middle of the decode.
    middle = (min(places) + max(places)) / 2
    return PartResult(part=part, energy_j=line_at(energies, middle), duration_s=line_at(durations, middle))


def _energy_trial(taken: TakenWindow, idle: IdleFloor) -> Trial:
    window = taken.window
    tail_j = idle.power_w(window.started_s + window.duration_s - window.tail_s / 2) * window.tail_s
    return Trial(
        value=(window.energy_j - tail_j) / taken.passes,
        ci95=window.uncertainty_j / taken.passes,
        at=taken.mean_context_tokens or 0.0,
    )
