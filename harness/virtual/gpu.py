"""What a virtual GPU is: how it works and draws power (``Load``), and how that can be read (``Sensor``).

gpu = read_virtual_gpu("h100-sxm")        # a description that ships
gpu = read_virtual_gpu("my-gpu.toml")     # anybody's own; docstrings of the records below explain the keys
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from harness.errors import UsageError
from harness.hardware import Hardware

FEATURES = ("counter", "instant", "average", "temperature", "clocks", "processes", "throttle")
HOTTEST_C = 120.0
_SHIPPED = Path(__file__).parents[1] / "data" / "virtual"


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Speed and appetite of a GPU. The formulas are in ``harness.virtual``."""

    hardware: Hardware  # peaks and bandwidths
    flop_efficiency: float  # share of the peak that a kernel reaches
    bytes_efficiency: float  # share of the memory bandwidth
    link_efficiency: float = 0.8  # share of the link bandwidth
    launch_s: float  # device time that a launch costs beside its work
    link_latency_s: float = 10e-6  # of one launch of a collective
    idle_power_w: float  # with a context, without leakage
    bare_idle_power_w: float  # without a context, without leakage
    busy_w: float  # above idle while any kernel runs, at the full clock
    pj_per_flop: float  # of 16-bit matrix products, at the full clock
    pj_per_byte: float  # of memory traffic
    pj_per_link_byte: float = 0.0  # of bytes sent
    wait_w: float  # above idle while spinning in a collective
    gap_w: float  # above idle between two launches
    leakage_w: float = 0.0  # at the reference temperature
    leakage_reference_c: float = 50.0
    leakage_per_c: float = 0.0  # relative rise per °C
    power_limit_w: float
    clock_mhz: float  # the full clock
    lowest_clock_mhz: float
    clock_step_mhz: float = 15.0
    dynamic_exponent: float = 2.5  # busy_w goes with clock^exponent, pj_per_flop with clock^(exponent − 1)
    ambient_c: float = 30.0
    c_per_w: float = 0.06
    time_constant_s: float = 30.0
    rank_spread: float = 0.0  # the GPUs of one machine are up to this much slower than the nominal one

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for figures that contradict each other."""
        hottest_c = self.ambient_c + self.c_per_w * self.power_limit_w
        if self.lowest_clock_mhz > self.clock_mhz:
            raise ValueError(f"lowest_clock_mhz {self.lowest_clock_mhz:g} is above clock_mhz {self.clock_mhz:g}")
        if hottest_c > HOTTEST_C:
            raise ValueError(
                f"at its power limit it would reach {hottest_c:.0f} °C (ambient_c + c_per_w × power_limit_w), and no "
                f"GPU works above {HOTTEST_C:.0f} °C"
            )
        leakage_w = self.leakage_w * math.exp(self.leakage_per_c * (hottest_c - self.leakage_reference_c))
        if self.idle_power_w + leakage_w >= self.power_limit_w:  # or it would heat itself without end
            raise ValueError(
                f"idle_power_w and leakage, which is {leakage_w:.0f} W at {hottest_c:.0f} °C, leave nothing of "
                "power_limit_w to work with"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensor:
    """How the power of a GPU can be read. A perfect power meter but for what is said here."""

    counter_period_s: float = 0.1  # how often the energy counter moves
    counter_jitter_s: float = 0.0  # each move comes up to this much early or late
    counter_quantum_j: float = 1e-3
    duty_cycle: float = 1.0  # power is looked at only in the last part of each duty period
    duty_period_s: float = 0.1
    counter_sampled: bool = False  # whether the counter shares it; its period is then cut into whole duty periods
    gain: float = 1.0  # all powers and energies are read times this …
    offset_w: float = 0.0  # … plus this
    stated_gain_95: float = 0.05  # what the maker states of both: half width of the 95 % interval, relative
    noise_w: float = 0.0  # standard deviation of one look at the power, over one duty period
    average_window_s: float = 1.0  # NVML's PowerUsage: trailing mean
    average_period_s: float = 0.1  # how often it is renewed
    instant_period_s: float = 0.1  # how often POWER_INSTANT, clocks and temperature are renewed
    power_quantum_w: float = 1e-3
    read_latency_s: float = 1e-4  # that one call takes
    read_latency_jitter_s: float = 0.0  # up to this much more
    missing: tuple[str, ...] = ()  # of FEATURES

    def __post_init__(self) -> None:
        """Raise ``ValueError`` for figures that contradict each other."""
        if self.counter_jitter_s >= self.counter_period_s / 2:
            raise ValueError(
                "counter_jitter_s is half of counter_period_s or more, so that two moves could change places"
            )
        if not 0 < self.duty_cycle <= 1:
            raise ValueError(f"duty_cycle {self.duty_cycle:g} is no share above 0, up to 1")
        unknown = [feature for feature in self.missing if feature not in FEATURES]
        if unknown:
            raise ValueError(f"missing names {unknown[0]!r}; the features of a sensor are {', '.join(FEATURES)}")

    def has(self, feature: str) -> bool:
        """Whether one of ``FEATURES`` can be read."""
        return feature not in self.missing


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualGpu:
    """A GPU that does not exist, and its sensor."""

    name: str  # as in --device virtual:NAME
    load: Load
    sensor: Sensor


def shipped_virtual_gpus() -> tuple[str, ...]:
    """Names of the descriptions that ship."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def read_virtual_gpu(
    name_or_path: str | PathLike[str], *, hardware_table: Sequence[Hardware] | None = None
) -> VirtualGpu:
    """A shipped virtual GPU by its name, or the one that a TOML file describes.

    ``hardware_table`` replaces the built-in hardware table. Raises ``UsageError`` naming the key that is wrong.
    """
    from harness.virtual.gpu_file import parse_virtual_gpu  # with its TOML parser, only when one is wanted

    name = str(name_or_path)
    if name in shipped_virtual_gpus():
        return parse_virtual_gpu(_SHIPPED / f"{name}.toml", hardware_table)
    if not name.endswith(".toml"):
        raise UsageError(
            f"There is no virtual GPU {name[:100]!r}. The shipped ones: {', '.join(shipped_virtual_gpus())}.\n"
            "Choose one, or give the path of a TOML file that describes one; the shipped files show the format."
        )
    return parse_virtual_gpu(Path(name), hardware_table)
