"""Every number with its interval, and grams of CO2 with theirs."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.carbon import AVERAGE_PUE, CarbonFactors, GridIntensity, Pue, Stated
from harness.records import Measurement
from harness.report.page import write_report
from tests.harness.report.report_examples import names, notes, page_of, rows, section, simulated, table, with_ledger

Examples = Callable[..., tuple[Measurement, ...]]
DatasetOf = Callable[..., Path]
FRANCE = CarbonFactors(
    grid=GridIntensity(g_per_kwh=Stated(value=50.0, half_width=5.0), source="operator of the grid", date="2025"),
    pue=Pue(ratio=Stated(value=1.2), source="given for a test"),
)


@pytest.fixture
def one(example_measurements: Examples) -> Measurement:
    """100 J ± 5 J, of which 4 J are gain and offset, in 16 output tokens of one sequence."""
    return with_ledger(example_measurements(n_runs=1)[0], 1.0)


def on(measurement: Measurement, gpu: str, **changes: object) -> Measurement:
    run = replace(measurement.run, gpu=gpu, n_gpus=2, **changes)  # type: ignore[arg-type]
    return replace(measurement, run=run)


def test_the_interval_of_an_energy_is_split_into_repeats_and_what_the_meter_gets_wrong_alike(
    dataset_of: DatasetOf, one: Measurement
) -> None:
    whole = rows(page_of(dataset_of(one)), "intervals", "Energies and times")[0]

    assert whole[1:5] == ["Whole request", "100 J ± 5 %", "± 3 %", "± 4 %"]
    assert whole[5].endswith("± 1 %")
    assert whole[6:] == ["100 J ± 5 %", "6.25 J ± 5 %"]


def test_phases_have_intervals_and_joules_per_token_too(dataset_of: DatasetOf, one: Measurement) -> None:
    phases = tuple(
        replace(row, energy_j=64.0, energy_ci95_j=6.4, energy_systematic95_j=6.4 * 0.6) for row in one.phases
    )

    found = rows(page_of(dataset_of(replace(one, phases=phases))), "intervals", "Energies and times")

    assert [row[1] for row in found] == ["Whole request", "Prefill", "Decode"]
    assert found[1][2:5] == ["64 J ± 10 %", "± 8 %", "± 6 %"]
    assert found[1][7] == "1 J ± 10 %"


def test_a_gain_that_nobody_states_is_not_shown_as_none(dataset_of: DatasetOf, one: Measurement) -> None:
    unstated = replace(one, run=replace(one.run, energy_systematic95_j=0.0))

    page = page_of(dataset_of(unstated))

    assert rows(page, "intervals", "Energies and times")[0][3:5] == ["± 5 %", "not stated"]
    assert "nobody says how far the gain of these meters is off (1 run)" in notes(page, "intervals")


def test_parts_of_an_interval_that_were_not_recorded_are_dashes(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    found = rows(page_of(dataset_of(example_measurements(n_runs=1)[0])), "intervals", "Energies and times")

    assert {tuple(row[3:5]) for row in found} == {("–", "–")}


def test_the_table_of_all_runs_says_what_an_interval_is_made_of_when_pointed_at(
    dataset_of: DatasetOf, one: Measurement
) -> None:
    notes_of_cells = [cell.note for cell in table(page_of(dataset_of(one)), "runs", "All runs").rows[0]]

    assert "repeats ± 3 %, gain and offset of the meter ± 4 %" in notes_of_cells


def test_without_an_intensity_the_page_has_no_grams_and_says_how_to_get_them(
    dataset_of: DatasetOf, one: Measurement
) -> None:
    page = page_of(dataset_of(one))

    assert "--grid-intensity 56±10" in notes(page, "carbon")
    assert section(page, "carbon").groups[0].tables == ()


def test_grams_carry_interval_source_date_and_formula(dataset_of: DatasetOf, one: Measurement) -> None:
    page = page_of(dataset_of(one), FRANCE)

    (found,) = table(page, "carbon", "gCO2e").rows
    grams = 100.0 / 3.6e6 * 1.2 * 50.0
    assert found[2].key == pytest.approx(grams)
    assert found[2].text == f"1.67 mg ± {100 * math.hypot(0.05, 0.1):.2g} %"
    assert found[3].text == f"± {100 * math.hypot(0.04, 0.1):.2g} %"
    assert found[5].key == pytest.approx(grams / 16)
    assert "Grid intensity: 50 ± 5 gCO2e/kWh; operator of the grid; 2025." in notes(page, "carbon")
    assert "PUE: 1.2; given for a test; taken as exact." in notes(page, "carbon")
    assert "Operational gCO2e = energy × PUE × grid intensity." in section(page, "carbon").lead
    assert "do not average out" in notes(page, "carbon")


def test_an_intensity_without_an_interval_gives_grams_without_one(dataset_of: DatasetOf, one: Measurement) -> None:
    grid = GridIntensity(g_per_kwh=Stated(value=50.0), source="somebody")

    page = page_of(dataset_of(one), CarbonFactors(grid=grid, pue=AVERAGE_PUE))

    assert rows(page, "carbon", "gCO2e")[0][2:4] == ["2.17 mg", "–"]
    assert "given without ±" in notes(page, "carbon")
    assert "somebody; date not stated" in notes(page, "carbon")
    assert "Uptime Institute" in notes(page, "carbon")


def test_embodied_carbon_is_told_apart_with_its_figures_and_sources(dataset_of: DatasetOf, one: Measurement) -> None:
    page = page_of(dataset_of(on(one, "NVIDIA H100 80GB HBM3", duration_s=3600.0)), FRANCE)

    found = rows(page, "carbon", "gCO2e")[0]
    assert found[6:] == ["2 h 0 min", "66.7 g"]
    assert "164 kgCO2e and 712.5 kgCO2e of the server" in notes(page, "carbon")
    assert "Boavizta" in notes(page, "carbon")
    assert "The sources state no interval." in notes(page, "carbon")


@pytest.mark.parametrize("gpu", ["NVIDIA A100-SXM4-80GB", "NVIDIA H100 PCIe", "virtual: my own"])
def test_a_gpu_of_which_nothing_is_published_has_no_embodied_carbon_and_the_page_says_so(
    dataset_of: DatasetOf, one: Measurement, gpu: str
) -> None:
    page = page_of(dataset_of(on(one, gpu)), FRANCE)

    assert rows(page, "carbon", "gCO2e")[0][7] == "–"
    assert f"Embodied carbon of {gpu} is not known, and no other device stands in for it." in notes(page, "carbon")


def test_a_virtual_gpu_has_the_embodied_carbon_of_what_it_simulates_under_the_mark(
    dataset_of: DatasetOf, one: Measurement
) -> None:
    page = page_of(dataset_of(simulated(on(one, "NVIDIA H100 80GB HBM3", duration_s=3600.0))), FRANCE)

    assert rows(page, "carbon", "gCO2e")[0][7] == "66.7 g"
    assert page.mark


def test_a_run_on_a_cpu_has_no_embodied_carbon(dataset_of: DatasetOf, one: Measurement) -> None:
    assert rows(page_of(dataset_of(one), FRANCE), "carbon", "gCO2e")[0][6:] == ["–", "–"]


def test_where_no_run_has_an_energy_there_are_no_grams(failed: Path, tmp_path: Path) -> None:
    assert "No run has an energy." in notes(page_of(failed, FRANCE), "carbon")
    assert write_report(failed, tmp_path / "report.html", FRANCE).is_file()


def test_a_source_with_markup_stays_text(dataset_of: DatasetOf, one: Measurement, tmp_path: Path) -> None:
    grid = GridIntensity(g_per_kwh=Stated(value=50.0), source="<img src=x>", date="<b>")

    text = write_report(dataset_of(one), tmp_path / "report.html", CarbonFactors(grid=grid, pue=AVERAGE_PUE))

    assert "<img" not in text.read_text(encoding="utf-8").split("<script>")[0]


def test_intervals_and_carbon_come_after_the_energies_they_belong_to(mixed: Path) -> None:
    found = names(page_of(mixed))

    assert found.index("tokens") < found.index("intervals") < found.index("carbon") < found.index("ledger")
