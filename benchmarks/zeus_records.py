"""What is measured in the comparison with Zeus: scenarios, loads at fixed times, the power they draw, readings."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from harness.virtual.gpu import Sensor

FloatArray = NDArray[np.float64]

LENGTHS_S: Final = (0.2, 1.0, 5.0, 10.0)
# Windows of a length in each trial: short ones cost little time, and what they read depends most on chance.
WINDOWS: Final[Mapping[float, int]] = MappingProxyType({0.2: 4, 1.0: 2, 5.0: 1, 10.0: 1})
TRIALS: Final = 5
OURS, ZEUS, CODECARBON = "Joulegraph", "Zeus", "codecarbon"
TOOLS: Final = (OURS, ZEUS, CODECARBON)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One machine with one kind of sensor."""

    gpus: int
    counter_period_s: float
    counter_sampled: bool = False  # the counter looks only as often as the power fields do: a quarter of the time

    @property
    def name(self) -> str:
        """As a heading says it."""
        gpus = "1 GPU" if self.gpus == 1 else f"{self.gpus} GPUs"
        looks = " that looks a quarter of the time" if self.counter_sampled else ""
        return f"{gpus}, counter of {self.counter_period_s * 1e3:.0f} ms{looks}"


SCENARIOS: Final = (
    Scenario(gpus=1, counter_period_s=0.1),
    Scenario(gpus=2, counter_period_s=0.1),
    Scenario(gpus=1, counter_period_s=0.02),
    Scenario(gpus=1, counter_period_s=0.1, counter_sampled=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The GPUs work from one time to another and rest before and after; times since the plan's beginning."""

    length_s: float  # one of LENGTHS_S; what is left of it after whole decode steps is in start_s and end_s
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The exact power of one GPU: constant between neighbouring edges, the first and the last one for ever."""

    edges_s: FloatArray  # [N + 1] from 0
    powers_w: FloatArray  # [N]

    def energy_j(self, start_s: float, end_s: float) -> float:
        """Energy between two times within the edges; ``ValueError`` for others."""
        if not self.edges_s[0] <= start_s <= end_s <= self.edges_s[-1]:
            raise ValueError(f"{start_s} to {end_s} s is not within 0 to {self.edges_s[-1]} s")
        sums_j = np.concatenate([[0.0], np.cumsum(self.powers_w * np.diff(self.edges_s))])
        return float(np.diff(np.interp([start_s, end_s], self.edges_s, sums_j))[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that happens on the GPUs of one scenario, known before it happens."""

    scenario: Scenario
    gpu_name: str
    sensor: Sensor
    phases_s: tuple[float, ...]  # by GPU: when, within its period, a counter moves
    profiles: tuple[Profile, ...]  # by GPU
    loads: tuple[Load, ...]  # in order of time
    idle_s: float  # rest before the first and after the last load, for looking at the idle floor

    @property
    def duration_s(self) -> float:
        """From the beginning to the end of the last rest."""
        return float(self.profiles[0].edges_s[-1])

    def energy_j(self, start_s: float, end_s: float) -> float:
        """True energy of all GPUs between two times."""
        return sum(profile.energy_j(start_s, end_s) for profile in self.profiles)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one tool said of one load, all GPUs together, and what was true between its own beginning and end."""

    tool: str
    length_s: float
    energy_j: float
    truth_j: float
    random95_j: float | None = None  # half widths that the window states for itself, gain apart; null: it states none
    common95_j: float | None = None

    @property
    def error(self) -> float:
        """Relative to the truth."""
        return self.energy_j / self.truth_j - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One scenario, carried out."""

    scenario: Scenario
    readings: tuple[Reading, ...]
    missed: int  # loads that had begun before the process was ready for them: not used for any tool
    periods_s: tuple[float, ...]  # by GPU: the counter's period as measured
