"""Grams of CO2 equivalent: known answers, honest intervals, and nothing where something is not known."""

import contextlib
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.carbon import (
    AVERAGE_PUE,
    CarbonFactors,
    Embodied,
    GridIntensity,
    Pue,
    Stated,
    embodied_carbon,
    embodied_of,
    operational_carbon,
    parse_stated,
)
from harness.errors import UsageError

KWH_J = 3.6e6


def factors(intensity: Stated, pue: Stated = Stated(value=1.2)) -> CarbonFactors:  # noqa: B008  frozen
    return CarbonFactors(grid=GridIntensity(g_per_kwh=intensity, source="test"), pue=Pue(ratio=pue, source="test"))


def hardware(relative95: float | None) -> Embodied:
    """A GPU of 100 kg and 50 kg of its server, at work for all of a year."""
    return Embodied(
        gpu="test",
        gpu_kg=100.0,
        server_share_kg=50.0,
        lifetime_years=1.0,
        utilisation=1.0,
        source="test",
        relative95=relative95,
    )


def test_a_kilowatt_hour_at_pue_1_2_and_50_grams_is_60_grams() -> None:
    grams = operational_carbon(energy_j=KWH_J, ci95_j=None, systematic95_j=None, factors=factors(Stated(value=50.0)))

    assert grams.value_g == pytest.approx(60.0)


def test_relative_half_widths_of_energy_pue_and_intensity_add_in_quadrature() -> None:
    grams = operational_carbon(
        energy_j=KWH_J,
        ci95_j=0.02 * KWH_J,
        systematic95_j=0.0,
        factors=factors(Stated(value=50.0, half_width=3.0), Stated(value=1.2, half_width=0.036)),
    )

    assert grams.ci95_g == pytest.approx(60.0 * math.sqrt(0.02**2 + 0.06**2 + 0.03**2))
    assert grams.common95_g == pytest.approx(60.0 * math.sqrt(0.06**2 + 0.03**2))


def test_what_a_meter_gets_wrong_in_every_reading_is_common_to_all_runs() -> None:
    grams = operational_carbon(
        energy_j=KWH_J,
        ci95_j=0.05 * KWH_J,
        systematic95_j=0.04 * KWH_J,
        factors=factors(Stated(value=50.0, half_width=0.0)),
    )

    assert grams.ci95_g == pytest.approx(3.0)
    assert grams.common95_g == pytest.approx(2.4)


@pytest.mark.parametrize(("ci95_j", "half_width"), [(None, 5.0), (1.0, None)])
def test_an_energy_or_an_intensity_without_interval_leaves_the_grams_without_one(
    ci95_j: float | None, half_width: float | None
) -> None:
    grams = operational_carbon(
        energy_j=KWH_J, ci95_j=ci95_j, systematic95_j=0.0, factors=factors(Stated(value=50.0, half_width=half_width))
    )

    assert (grams.ci95_g, grams.common95_g) == (None, None)


def test_electricity_without_carbon_still_has_the_interval_of_its_intensity() -> None:
    grams = operational_carbon(
        energy_j=0.0, ci95_j=KWH_J, systematic95_j=0.0, factors=factors(Stated(value=50.0, half_width=5.0))
    )

    assert (grams.value_g, grams.ci95_g) == pytest.approx((0.0, 60.0))


def test_two_gpus_for_a_thousandth_of_their_year_are_a_thousandth_of_what_they_took() -> None:
    year_s = 365.25 * 86400

    grams = embodied_carbon(duration_s=year_s / 1000, ci95_s=year_s / 1e5, n_gpus=2, embodied=hardware(0.1))

    assert grams.value_g == pytest.approx(300.0)
    assert grams.ci95_g == pytest.approx(math.hypot(3.0, 30.0))
    assert grams.common95_g == pytest.approx(30.0)


def test_a_server_at_work_half_of_its_life_costs_twice_as_much_per_second() -> None:
    half = Embodied(gpu="test", gpu_kg=100.0, server_share_kg=50.0, lifetime_years=1.0, utilisation=0.5, source="test")

    assert half.g_per_s == pytest.approx(2 * hardware(None).g_per_s)


def test_hardware_without_a_stated_interval_has_embodied_carbon_without_one() -> None:
    assert embodied_carbon(duration_s=1.0, ci95_s=0.0, n_gpus=1, embodied=hardware(None)).ci95_g is None


def test_the_published_figures_of_the_h100_are_kept_with_their_sources() -> None:
    h100 = embodied_of("NVIDIA H100 80GB HBM3")

    assert h100 is not None
    assert (h100.gpu_kg, h100.server_share_kg, h100.lifetime_years) == (164.0, 712.5, 3.0)
    assert h100.relative95 is None
    for word in ("NVIDIA product carbon footprint", "Boavizta", "EcoLogits", "assumption"):
        assert word in h100.source


@pytest.mark.parametrize("gpu", ["H100", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "cpu: Xeon", ""])
def test_a_gpu_of_which_nothing_is_published_has_no_embodied_carbon(gpu: str) -> None:
    assert embodied_of(gpu) is None


@pytest.mark.parametrize("pue", [0.9, 11.0, math.nan])
def test_a_pue_that_cannot_be_is_an_error_that_says_what_it_is(pue: float) -> None:
    with pytest.raises(UsageError, match="energy of the data centre"):
        Pue(ratio=Stated(value=pue), source="test")


@pytest.mark.parametrize("intensity", [-1.0, 5001.0, math.inf])
def test_an_intensity_that_cannot_be_is_an_error_with_its_unit(intensity: float) -> None:
    with pytest.raises(UsageError, match="gCO2e per kWh"):
        GridIntensity(g_per_kwh=Stated(value=intensity), source="test")


@pytest.mark.parametrize("half_width", [-1.0, 57.0, math.nan])
def test_a_half_width_that_cannot_be_is_an_error(half_width: float) -> None:
    with pytest.raises(UsageError, match="half width"):
        GridIntensity(g_per_kwh=Stated(value=56.0, half_width=half_width), source="test")


def test_the_average_pue_names_its_survey() -> None:
    assert AVERAGE_PUE.ratio.value == 1.56
    assert "Uptime" in AVERAGE_PUE.source


@pytest.mark.parametrize("text", ["56±10", "56 ± 10", "56+-10", "56+/-10", " 56.0±1e1 "])
def test_a_number_with_its_half_width_is_read_in_all_spellings(text: str) -> None:
    assert parse_stated(text) == Stated(value=56.0, half_width=10.0)


@pytest.mark.parametrize("text", ["", "±", "56±", "±10", "56±10±2", "56 g/kWh", "a±b"])
def test_anything_else_is_an_error_that_shows_how_to_write_it(text: str) -> None:
    with pytest.raises(ValueError, match="56±10"):
        parse_stated(text)


@given(st.text())
def test_reading_never_fails_otherwise(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse_stated(text), Stated)


@given(
    st.floats(min_value=0, max_value=5000),
    st.one_of(st.none(), st.floats(min_value=0, max_value=5000)),
)
def test_what_is_written_out_is_read_back(value: float, half_width: float | None) -> None:
    text = f"{value!r}" if half_width is None else f"{value!r}±{half_width!r}"

    assert parse_stated(text) == Stated(value=value, half_width=half_width)
