"""Carbon: grams of CO2 equivalent from joules and device time, operational and embodied apart.

    operational = energy × PUE × grid intensity
    embodied    = (GPU + its share of the server) × (time × GPUs) / (lifetime × utilisation)

Location-based (the average grid, no certificates). Operational carbon covers the energy it is given: the energy of
the GPUs alone leaves out the rest of the server. The method is LLMCarbon's (arXiv 2309.14393) and LLMCO2's
(arXiv 2410.02950).
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version

from harness.carbon import (
    AVERAGE_PUE,
    EMBODIED_SERVER_KG,
    G_PER_KG,
    GPUS_PER_SERVER,
    H100,
    LIFETIME_YEARS,
    S_PER_YEAR,
)
from harness.errors import MissingExtra, UsageError
from harness.units import J_PER_KWH

EMBODIED_GPU_KG: Mapping[str, float] = {
    H100.gpu: H100.gpu_kg,
    "NVIDIA B200": 284.0,  # NVIDIA HGX B200 product carbon footprint, 2025: 2,274 kg for 8 GPUs
}
PUE = AVERAGE_PUE.ratio.value


@dataclass(frozen=True, slots=True, kw_only=True)
class GridIntensity:
    """Average carbon intensity of one country's electricity."""

    region: str  # ISO 3166 alpha-3
    country: str
    intensity_g_per_kwh: float
    year: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonFactors:
    """Everything that turns joules and seconds into gCO2e. None: not known, and then neither is what needs it.

    Raises ``UsageError`` for a factor that cannot be.
    """

    intensity_g_per_kwh: float
    intensity_source: str
    intensity_date: str
    pue: float = PUE
    embodied_gpu_kg: float | None = None
    embodied_server_kg: float = EMBODIED_SERVER_KG  # without GPUs
    gpus_per_server: int = GPUS_PER_SERVER
    lifetime_years: float = LIFETIME_YEARS
    utilisation: float = 1.0  # share of its lifetime the server works; 1 gives the least embodied carbon per second

    def __post_init__(self) -> None:
        for name, (low, high, meaning) in _BOUNDS.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UsageError(f"{name} = {value} cannot be.\nIt is {meaning}, from {low:g} to {high:g}.")

    @property
    def embodied_kg_per_gpu(self) -> float | None:
        """A GPU and its share of the server, kgCO2e."""
        if self.embodied_gpu_kg is None:
            return None
        return self.embodied_gpu_kg + self.embodied_server_kg / self.gpus_per_server


_BOUNDS: Mapping[str, tuple[float, float, str]] = {
    "intensity_g_per_kwh": (0, 5000, "gCO2e per kWh"),
    "pue": (1, 10, "energy of the data centre over energy of the machines"),
    "embodied_gpu_kg": (0, 1e6, "kgCO2e to make one GPU"),
    "embodied_server_kg": (0, 1e6, "kgCO2e to make a server without GPUs"),
    "gpus_per_server": (1, 1024, "GPUs in a server"),
    "lifetime_years": (0.01, 100, "years in service"),
    "utilisation": (0.001, 1, "the share of its lifetime that the server works"),
}


def operational_gco2e(*, energy_j: float, factors: CarbonFactors) -> float:
    """Operational gCO2e of ``energy_j`` joules.

    >>> factors = CarbonFactors(intensity_g_per_kwh=50, intensity_source="example", intensity_date="2026", pue=1.2)
    >>> round(operational_gco2e(energy_j=3.6e6, factors=factors), 6)
    60.0
    """
    return energy_j / J_PER_KWH * factors.pue * factors.intensity_g_per_kwh


def embodied_gco2e(*, duration_s: float, n_gpus: int, factors: CarbonFactors) -> float | None:
    """Embodied gCO2e of ``n_gpus`` GPUs held for ``duration_s`` seconds; None where the GPU's share is not known."""
    if factors.embodied_kg_per_gpu is None:
        return None
    lifetime_s = factors.lifetime_years * S_PER_YEAR * factors.utilisation
    return factors.embodied_kg_per_gpu * G_PER_KG * duration_s * n_gpus / lifetime_s


def carbon_factors(region: str, gpu: str | None = None) -> CarbonFactors:
    """Default factors for a country and a GPU (a name of the hardware table); ``dataclasses.replace`` changes them.

    Raises as ``grid_intensity`` does.
    """
    grid = grid_intensity(region)
    return CarbonFactors(
        intensity_g_per_kwh=grid.intensity_g_per_kwh,
        intensity_source=grid.source,
        intensity_date=str(grid.year),
        embodied_gpu_kg=None if gpu is None else EMBODIED_GPU_KG.get(gpu),
    )


def grid_intensity(region: str) -> GridIntensity:
    """Yearly average intensity of a country, by ISO 3166 code of two or three letters; no network is used.

    Raises ``UsageError`` naming near codes for an unknown region, ``MissingExtra`` without codecarbon, whose data
    these are.
    """
    code = _alpha_3(region)
    entry = _grid_table().get(code)
    if entry is None:
        raise UsageError(
            f"There is no grid intensity for the region {region[:60]!r}.\n{_near_text(region)}"
            f"A region is a country by its ISO 3166 code, FR or FRA; for any other grid state the intensity itself."
        )
    return entry


@cache
def _grid_table() -> Mapping[str, GridIntensity]:
    """Countries that codecarbon has a figure for, by alpha-3 code."""
    try:
        from codecarbon.input import DataSource
    except ImportError as error:
        raise MissingExtra("the carbon intensity of a region", "codecarbon", "pip install codecarbon") from error
    path = DataSource().global_energy_mix_data_path  # type: ignore[no-untyped-call]
    source = f"codecarbon {version('codecarbon')}, {path.name}"
    return {
        code: GridIntensity(
            region=code,
            country=entry["country_name"],
            intensity_g_per_kwh=float(entry["carbon_intensity"]),
            year=int(entry["year"]),
            source=source,
        )
        for code, entry in json.loads(path.read_text(encoding="utf-8")).items()
        if entry.get("carbon_intensity") and entry.get("year")  # one country has 0: no figure, since none is that clean
    }


def _alpha_3(region: str) -> str:
    """Turn a two-letter code into the three-letter one; leave anything else as it is, in capitals."""
    code = region.strip().upper()
    if len(code) != 2:
        return code
    import pycountry

    country = pycountry.countries.get(alpha_2="GB" if code == "UK" else code)  # UK is reserved for GB in ISO 3166
    return code if country is None else str(country.alpha_3)


def _near_text(region: str) -> str:
    labels = {entry.country.casefold(): f"{code} ({entry.country})" for code, entry in _grid_table().items()}
    labels |= {code.casefold(): f"{code} ({entry.country})" for code, entry in _grid_table().items()}
    near = difflib.get_close_matches(region.strip().casefold(), labels, n=6, cutoff=0.5)
    return f"Near it: {', '.join(dict.fromkeys(labels[name] for name in near))}.\n" if near else ""
