"""Samples of a device's power, who may deliver them, and the energy under them.

A ``Sampler`` is anything that delivers ``PowerSample``s: the process that asks NVML (``harness.meters.sampler``), or a
simulation that computes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from statistics import pstdev
from typing import Protocol

from harness.errors import MeterCause

NORMAL_95 = 1.96  # half width of a 95 % interval in standard deviations


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSample:
    """One look at one device; ``None`` where it did not say."""

    device: int  # its place among those that are sampled
    at_s: float  # monotonic time in the middle of the look at its power
    latency_s: float  # how long that look took
    power_w: float | None  # instantaneous
    average_power_w: float | None = None  # NVML_FI_DEV_POWER_AVERAGE
    reported_power_w: float | None = None  # NVML's PowerUsage
    sm_clock_mhz: float | None = None
    temperature_c: float | None = None
    throttle_reasons: int | None = None  # NVML clocks-event bits
    power_limit_w: float | None = None  # in force
    problem: int | None = None  # NVML's code of the first call that failed, "not supported" and "no function" apart


class PowerField(StrEnum):
    """Which of a sample's powers."""

    INSTANT = "instant"
    REPORTED = "reported"
    AVERAGE = "average"

    def of(self, sample: PowerSample) -> float | None:
        """That power of a sample, in watts."""
        if self is PowerField.INSTANT:
            return sample.power_w
        return sample.reported_power_w if self is PowerField.REPORTED else sample.average_power_w


class SamplerState(StrEnum):
    """How a sampler is, or how it ended."""

    RUNNING = "running"
    FINISHED = "finished"  # asked to stop, it did
    SILENT = "silent"  # its process lives and delivers nothing: a call hangs
    FULL = "full"  # it wrote as much as it may
    KILLED = "killed"  # by a signal that did not come from here
    FAILED = "failed"  # it ended by itself


CAUSES = {
    SamplerState.SILENT: MeterCause.SAMPLER_SILENT,
    SamplerState.FULL: MeterCause.SAMPLER_FULL,
    SamplerState.KILLED: MeterCause.SAMPLER_KILLED,
    SamplerState.FAILED: MeterCause.SAMPLER_FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerReport:
    """What a sampler leaves behind: how it ended, and the samples nobody has taken yet."""

    state: SamplerState
    samples: tuple[PowerSample, ...]
    detail: str = ""  # for people, where it did not finish


class Sampler(Protocol):
    """Delivers samples of the power of some devices, from its start to its stop."""

    @property
    def period_s(self) -> float:
        """About how often each device is looked at."""
        ...

    @property
    def state(self) -> SamplerState:
        """How it is now."""
        ...

    def start(self) -> None:
        """Begin; returns once every device has been looked at. Raises ``MeterUnavailable``."""
        ...

    def take(self) -> tuple[PowerSample, ...]:
        """The samples since the last ``take``, in the order in which they were made."""
        ...

    def stop(self) -> SamplerReport:
        """End it, and say how it was. May be called again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledEnergy:
    """The energy under samples of power between two times."""

    energy_j: float
    sampling95_j: float  # half width of the 95 % interval, from sampling alone
    samples: int
    longest_gap_s: float


@dataclass(frozen=True, slots=True)
class _Point:
    at_s: float
    power_w: float


def integrate(
    samples: Sequence[PowerSample],
    start_s: float,
    end_s: float,
    *,
    field: PowerField = PowerField.INSTANT,
    averaging_s: float = 0.0,
    longest_gap_s: float = 0.5,
) -> SampledEnergy | None:
    """Energy of one device between two times; ``None`` where a gap is longer than ``longest_gap_s``.

        E = ∫ P dt by trapezoids, P being a trailing mean of ``averaging_s`` moved back by half of that

    Half width of its 95 % interval: 1.96 s √(Σ w²) with s the standard deviation of the samples and w the seconds each
    stands for (independent samples: true where the sampler's jitter exceeds the period of the load), plus
    (max − min) × averaging_s / 2 for the two edges that a trailing mean smears (of a step of ΔP half is seen inside,
    and each edge is wrong by ΔP × averaging_s / 8). What the sensor itself does not look at is not in it: A100 and H100
    look at a quarter of the time (arXiv 2312.02741).
    """
    powers = [(sample.at_s - averaging_s / 2, field.of(sample)) for sample in samples]
    points = [_Point(at_s, power_w) for at_s, power_w in powers if power_w is not None]
    inside = _cut(points, start_s, end_s)
    if inside is None:
        return None
    gaps_s = [later.at_s - earlier.at_s for earlier, later in pairwise(inside)]
    if max(gaps_s) > longest_gap_s:
        return None
    weights_s = [(before_s + after_s) / 2 for before_s, after_s in pairwise([0.0, *gaps_s, 0.0])]
    levels_w = [point.power_w for point in inside]
    spread_j = NORMAL_95 * pstdev(levels_w) * sum(weight_s**2 for weight_s in weights_s) ** 0.5
    return SampledEnergy(
        energy_j=sum(weight_s * level_w for weight_s, level_w in zip(weights_s, levels_w, strict=True)),
        sampling95_j=spread_j + (max(levels_w) - min(levels_w)) * averaging_s / 2,
        samples=sum(start_s <= point.at_s <= end_s for point in points),
        longest_gap_s=max(gaps_s),
    )


def _cut(points: Sequence[_Point], start_s: float, end_s: float) -> list[_Point] | None:
    """The points between two times, with one more at each of them; ``None`` if the samples do not reach that far."""
    if len(points) < 2 or not points[0].at_s <= start_s < end_s <= points[-1].at_s:
        return None
    inner = [point for point in points if start_s < point.at_s < end_s]
    return [_at(points, start_s), *inner, _at(points, end_s)]


def _at(points: Sequence[_Point], at_s: float) -> _Point:
    before, after = next((a, b) for a, b in pairwise(points) if a.at_s <= at_s <= b.at_s)
    share = 0.0 if after.at_s == before.at_s else (at_s - before.at_s) / (after.at_s - before.at_s)
    return _Point(at_s, before.power_w + share * (after.power_w - before.power_w))
