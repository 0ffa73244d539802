"""How long the stages of a calibration last: three minutes in all, or half a minute."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """How long each stage lasts."""

    idle_s: float
    idle_periods: int  # … and at least so many periods of the counter
    slow_bursts: int
    slow_rest_s: float  # longer than what a power field averages over
    fast_bursts: int
    beats: tuple[float, ...]  # periods of the beating load, in periods of the counter
    beat_s: float  # at each phase
    beat_periods: int
    load_s: float
    cool_s: float


STANDARD_LENGTHS: Final = Lengths(
    idle_s=10.0,
    idle_periods=50,
    slow_bursts=4,
    slow_rest_s=2.5,
    fast_bursts=16,
    beats=(0.5, 1.0, 2.0),
    beat_s=1.0,
    beat_periods=10,
    load_s=30.0,
    cool_s=45.0,
)
QUICK_LENGTHS: Final = Lengths(
    idle_s=2.0,
    idle_periods=20,
    slow_bursts=2,
    slow_rest_s=2.0,
    fast_bursts=8,
    beats=(1.0,),
    beat_s=0.5,
    beat_periods=8,
    load_s=6.0,
    cool_s=6.0,
)
