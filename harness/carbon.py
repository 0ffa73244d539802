"""Carbon: grams of CO2 equivalent from joules and device time, each with its interval; operational and embodied apart.

    operational = energy × PUE × grid intensity
    embodied    = (GPU + its share of the server) × (time × GPUs) / (lifetime × utilisation)

Location-based: the average of the grid where and when the energy was used, no certificates. Operational carbon covers
the energy it is given: that of GPUs alone leaves out the rest of the server. The formula is LLMCarbon's (arXiv
2309.14393) and LLMCO2's (arXiv 2410.02950).

Intervals follow the GUM (JCGM 100:2008, 5.1.2): the factors are independent of each other, so the half widths of a
product, each carried through with the other factors fixed, add in quadrature; where no factor is 0 that is the
quadrature of the relative half widths. Intensity, PUE, the hardware and what a meter gets wrong in all readings are the
same for every run of a dataset: that part (``common95_g``) does not average out, adds up over runs as it is, and
cancels where two runs are compared. Half widths are those of 95 % intervals throughout.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from harness.errors import UsageError
from harness.units import J_PER_KWH

G_PER_KG: Final = 1e3
S_PER_YEAR: Final = 365.25 * 86400
_HIGHEST_G_PER_KWH: Final = 5000.0  # burning the dirtiest fuel with the least of efficiencies stays below
_HIGHEST_PUE: Final = 10.0
_PLUS_MINUS = re.compile(r"±|\+/-|\+-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stated:
    """A number as somebody states it; ``half_width`` is None where no interval is stated."""

    value: float
    half_width: float | None = None


def _check(name: str, stated: Stated, lowest: float, highest: float, meaning: str) -> None:
    if not lowest <= stated.value <= highest:  # false for what is no number
        raise UsageError(f"{name} cannot be {stated.value:g}.\nIt is {meaning}, from {lowest:g} to {highest:g}.")
    if stated.half_width is not None and not 0 <= stated.half_width <= stated.value:
        raise UsageError(
            f"{name} cannot be {stated.value:g} ± {stated.half_width:g}.\n"
            f"The half width of its 95 % interval is from 0 to the value itself, since it is never negative."
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GridIntensity:
    """Average gCO2e per kWh of the electricity used; raises ``UsageError`` for a number that cannot be."""

    g_per_kwh: Stated
    source: str
    date: str | None = None  # what it is the average of: a year, a day, an hour

    def __post_init__(self) -> None:
        _check("The grid intensity", self.g_per_kwh, 0.0, _HIGHEST_G_PER_KWH, "gCO2e per kWh")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pue:
    """Power usage effectiveness: energy of the data centre over that of its machines; raises as ``GridIntensity``."""

    ratio: Stated
    source: str

    def __post_init__(self) -> None:
        _check("The PUE", self.ratio, 1.0, _HIGHEST_PUE, "energy of the data centre over that of its machines")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embodied:
    """What it took to make a GPU and its share of the server, and how long both serve."""

    gpu: str  # name in the hardware table
    gpu_kg: float  # kgCO2e
    server_share_kg: float  # kgCO2e of the server without its GPUs, over its GPUs
    lifetime_years: float
    utilisation: float  # share of its lifetime that the server works
    source: str
    relative95: float | None = None  # half width of all of it, relative; None: the sources state none

    @property
    def g_per_s(self) -> float:
        """Grams that one second of one GPU stands for."""
        in_service_s = self.lifetime_years * S_PER_YEAR * self.utilisation
        return (self.gpu_kg + self.server_share_kg) * G_PER_KG / in_service_s


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonFactors:
    """What turns the joules of a dataset into grams."""

    grid: GridIntensity
    pue: Pue


@dataclass(frozen=True, slots=True, kw_only=True)
class Grams:
    """gCO2e with the half width of its interval, None where one of its factors has none."""

    value_g: float
    ci95_g: float | None
    common95_g: float | None  # part of ci95_g that all runs have alike


AVERAGE_PUE: Final = Pue(
    ratio=Stated(value=1.56),
    source="Uptime Institute Global Data Center Survey 2024, average; large clouds: 1.1 to 1.2",
)
EMBODIED_SERVER_KG: Final = 5700.0  # Boavizta, Amazon p5.48xlarge, without its 8 GPUs
GPUS_PER_SERVER: Final = 8
LIFETIME_YEARS: Final = 3.0  # EcoLogits; LLMCarbon takes 5
H100: Final = Embodied(
    gpu="NVIDIA H100 80GB HBM3",
    gpu_kg=164.0,
    server_share_kg=EMBODIED_SERVER_KG / GPUS_PER_SERVER,
    lifetime_years=LIFETIME_YEARS,
    utilisation=1.0,  # the least carbon per second: the server never stands idle
    source="GPU: NVIDIA product carbon footprint of HGX H100, 1,312 kg for 8 GPUs; server: Boavizta, Amazon "
    "p5.48xlarge, 5,700 kg without its 8 GPUs; lifetime of 3 years: EcoLogits (LLMCarbon takes 5); utilisation of "
    "1: an assumption, the lowest figure there is",
)
_EMBODIED: Final[Mapping[str, Embodied]] = {H100.gpu: H100}


def embodied_of(gpu: str) -> Embodied | None:
    """What is published of a GPU, by its name in the hardware table; None where nothing is: no GPU stands in for it."""
    return _EMBODIED.get(gpu)


def operational_carbon(
    *, energy_j: float, ci95_j: float | None, systematic95_j: float | None, factors: CarbonFactors
) -> Grams:
    """Operational gCO2e of an energy; ``systematic95_j`` is the part of ``ci95_j`` that all readings have alike.

    The interval is None where the energy or the intensity has none; a PUE without one counts as exact. A systematic
    part that is not known counts as none, so that all of ``ci95_j`` counts as different from run to run.

    >>> grid = GridIntensity(g_per_kwh=Stated(value=50, half_width=5), source="example")
    >>> factors = CarbonFactors(grid=grid, pue=Pue(ratio=Stated(value=1.2), source="example"))
    >>> grams = operational_carbon(energy_j=3.6e6, ci95_j=0.0, systematic95_j=0.0, factors=factors)
    >>> round(grams.value_g, 6), round(grams.ci95_g, 6)
    (60.0, 6.0)
    """
    energy_kwh, pue, grid = energy_j / J_PER_KWH, factors.pue.ratio, factors.grid.g_per_kwh
    per_j = pue.value * grid.value / J_PER_KWH
    value_g = energy_j * per_j
    if ci95_j is None or grid.half_width is None:
        return Grams(value_g=value_g, ci95_g=None, common95_g=None)
    of_pue_g = energy_kwh * grid.value * (pue.half_width or 0.0)
    of_grid_g = energy_kwh * pue.value * grid.half_width
    return Grams(
        value_g=value_g,
        ci95_g=math.hypot(ci95_j * per_j, of_pue_g, of_grid_g),
        common95_g=math.hypot((systematic95_j or 0.0) * per_j, of_pue_g, of_grid_g),
    )


def embodied_carbon(*, duration_s: float, ci95_s: float | None, n_gpus: int, embodied: Embodied) -> Grams:
    """Embodied gCO2e of ``n_gpus`` GPUs held for a time; without an interval where time or hardware have none.

    >>> h100 = embodied_of("NVIDIA H100 80GB HBM3")
    >>> round(embodied_carbon(duration_s=3600, ci95_s=0.0, n_gpus=1, embodied=h100).value_g, 2)
    33.33
    """
    per_s = embodied.g_per_s * n_gpus
    value_g = duration_s * per_s
    if ci95_s is None or embodied.relative95 is None:
        return Grams(value_g=value_g, ci95_g=None, common95_g=None)
    of_hardware_g = embodied.relative95 * value_g
    return Grams(value_g=value_g, ci95_g=math.hypot(ci95_s * per_s, of_hardware_g), common95_g=of_hardware_g)


def parse_stated(text: str) -> Stated:
    """Read ``56`` or ``56±10`` (also ``56+-10`` and ``56+/-10``); raises ``ValueError`` for anything else.

    >>> parse_stated("56 ± 10"), parse_stated("1.2")
    (Stated(value=56.0, half_width=10.0), Stated(value=1.2, half_width=None))
    """
    parts = _PLUS_MINUS.split(text)
    try:
        value, *half_widths = [float(part) for part in parts]
    except ValueError:
        raise ValueError(f"{text!r} is not a number: write 56, or 56±10 with the half width of its interval") from None
    if len(half_widths) > 1:
        raise ValueError(f"{text!r} has more than one ±: write 56±10")
    return Stated(value=value, half_width=half_widths[0] if half_widths else None)
