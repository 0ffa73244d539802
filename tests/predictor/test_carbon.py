import math
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.carbon import S_PER_YEAR
from harness.errors import MissingExtra, UsageError
from predictor import carbon
from predictor.carbon import (
    CarbonFactors,
    carbon_factors,
    embodied_gco2e,
    grid_intensity,
    operational_gco2e,
)

FACTORS = CarbonFactors(
    intensity_g_per_kwh=400,
    intensity_source="example",
    intensity_date="2025",
    pue=1.25,
    embodied_gpu_kg=164,
    embodied_server_kg=5700,
    gpus_per_server=8,
    lifetime_years=3,
)


def test_a_kilowatt_hour_costs_the_intensity_times_pue() -> None:
    assert operational_gco2e(energy_j=3.6e6, factors=FACTORS) == pytest.approx(500)


def test_a_device_used_for_its_whole_lifetime_costs_all_it_embodies() -> None:
    grams = embodied_gco2e(duration_s=3 * S_PER_YEAR, n_gpus=8, factors=FACTORS)
    assert grams == pytest.approx((8 * 164 + 5700) * 1000)


def test_an_hour_of_one_h100_costs_33_grams_over_three_years() -> None:
    # (164 + 5700 / 8) kg = 876.5 kg over 26,298 h
    assert embodied_gco2e(duration_s=3600, n_gpus=1, factors=FACTORS) == pytest.approx(876_500 / 26_298)


def test_a_server_that_works_half_its_life_costs_twice_as_much_per_second() -> None:
    full = embodied_gco2e(duration_s=60, n_gpus=1, factors=FACTORS)
    half = embodied_gco2e(duration_s=60, n_gpus=1, factors=replace(FACTORS, utilisation=0.5))
    assert full is not None
    assert half == pytest.approx(2 * full)


def test_embodied_carbon_that_nobody_published_is_none_and_not_zero() -> None:
    assert embodied_gco2e(duration_s=60, n_gpus=1, factors=replace(FACTORS, embodied_gpu_kg=None)) is None


@given(energy_j=st.floats(0, 1e12), parts=st.integers(1, 10))
def test_operational_carbon_is_proportional_to_energy(energy_j: float, parts: int) -> None:
    whole = operational_gco2e(energy_j=energy_j, factors=FACTORS)
    assert parts * operational_gco2e(energy_j=energy_j / parts, factors=FACTORS) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("intensity_g_per_kwh", -1),
        ("intensity_g_per_kwh", math.nan),
        ("pue", 0.9),
        ("embodied_gpu_kg", -1),
        ("embodied_server_kg", math.inf),
        ("gpus_per_server", 0),
        ("lifetime_years", 0),
        ("utilisation", 0),
        ("utilisation", 1.1),
    ],
)
def test_a_factor_that_cannot_be_is_an_error_that_names_it(field: str, value: float) -> None:
    with pytest.raises(UsageError, match=field):
        CarbonFactors(**{**asdict(FACTORS), field: value})


@pytest.mark.parametrize("region", ["FR", "FRA", "fra", " fr "])
def test_a_region_is_found_by_either_iso_code(region: str) -> None:
    grid = grid_intensity(region)
    assert (grid.region, grid.country) == ("FRA", "France")
    assert 20 < grid.intensity_g_per_kwh < 120
    assert grid.year >= 2020
    assert "codecarbon" in grid.source


def test_grids_differ_as_they_do() -> None:
    clean, middle, dirty = (grid_intensity(region).intensity_g_per_kwh for region in ("NO", "DE", "PL"))
    assert clean < middle < dirty


def test_uk_is_the_united_kingdom() -> None:
    assert grid_intensity("UK") == grid_intensity("GBR")


@pytest.mark.parametrize(("region", "near"), [("France", "FRA (France)"), ("Germny", "DEU (Germany)")])
def test_an_unknown_region_is_an_error_with_near_ones(region: str, near: str) -> None:
    with pytest.raises(UsageError) as error:
        grid_intensity(region)
    assert near in str(error.value)


@pytest.mark.parametrize("region", ["", "XX", "ZZZZZZ", "\x00"])
def test_a_region_near_nothing_is_an_error_that_says_what_a_region_is(region: str) -> None:
    with pytest.raises(UsageError, match="ISO 3166"):
        grid_intensity(region)


def test_a_figure_of_zero_in_the_data_is_no_figure() -> None:
    with pytest.raises(UsageError, match="no grid intensity"):
        grid_intensity("CAF")
    assert all(entry.intensity_g_per_kwh > 0 for entry in carbon._grid_table().values())


def test_default_factors_say_where_and_when_the_intensity_comes_from() -> None:
    factors = carbon_factors("FR", gpu="NVIDIA H100 80GB HBM3")
    assert factors.intensity_date == str(grid_intensity("FR").year)
    assert factors.intensity_source == grid_intensity("FR").source
    assert factors.embodied_kg_per_gpu == pytest.approx(876.5)
    assert carbon_factors("FR", gpu="Tesla T4").embodied_kg_per_gpu is None


def test_without_codecarbon_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    carbon._grid_table.cache_clear()
    monkeypatch.setitem(sys.modules, "codecarbon.input", None)
    with pytest.raises(MissingExtra, match="codecarbon"):
        grid_intensity("FR")


def test_importing_carbon_loads_neither_codecarbon_nor_torch() -> None:
    heavy = {"codecarbon", "pycountry", "pandas", "torch"}
    code = f"import sys, predictor.carbon; print(*sorted({heavy} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == ""
