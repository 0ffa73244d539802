"""The SCI score by hand, and every reason for which a run has none."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.carbon import CarbonFactors, Embodied, GridIntensity, Pue, Stated, embodied_of
from harness.dataset.export.leaving import Leaving, leaving_runs
from harness.dataset.export.sci import Score, Scoring, Unit, export_sci, score_runs
from harness.dataset.reading import open_dataset
from harness.dataset.release.terms import Inclusion
from harness.errors import DatasetError
from tests.harness.dataset.release.releasable import dataset, known, own_run, served_run

GRID = GridIntensity(g_per_kwh=Stated(value=50.0, half_width=5.0), source="example", date="2026")
FACTORS = CarbonFactors(grid=GRID, pue=Pue(ratio=Stated(value=1.2), source="example"))
HARDWARE = Embodied(
    gpu="every device",
    gpu_kg=800.0,
    server_share_kg=200.0,
    lifetime_years=4.0,
    utilisation=0.5,
    source="example",
    relative95=0.1,
)


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory) -> Leaving:
    runs = [own_run(1), own_run(0, cuda=False), served_run(0)]
    folder = dataset(tmp_path_factory.mktemp("sci") / "a", runs)
    return leaving_runs(open_dataset(folder), {Inclusion.ESTIMATED})


def score_of(leaving: Leaving, run_id: str, scoring: Scoring) -> Score:
    return next(score for score in score_runs(leaving, scoring).scores if score.run.row.run_id == run_id)


@pytest.mark.parametrize(
    ("unit", "units"), [(Unit.REQUEST, 4), (Unit.OUTPUT_TOKEN, 256), (Unit.THOUSAND_OUTPUT_TOKENS, 0.256)]
)
def test_the_score_of_a_batch_is_that_of_the_formula(leaving: Leaving, unit: Unit, units: float) -> None:
    run = own_run(1).run
    score = score_of(leaving, run.run_id, Scoring(factors=FACTORS, unit=unit, embodied=HARDWARE))

    operational_g = known(run.energy_j) / 3.6e6 * 1.2 * 50.0
    embodied_g = 1_000_000.0 * known(run.duration_s) / (4.0 * 365.25 * 86400 * 0.5)
    assert score.units == units
    assert score.energy_kwh == pytest.approx(known(run.energy_j) / 3.6e6 * 1.2)
    assert score.embodied.value_g == pytest.approx(embodied_g)
    assert score.sci_g == pytest.approx((operational_g + embodied_g) / units)


def test_the_interval_is_that_of_its_terms_or_none(leaving: Leaving) -> None:
    row = replace(own_run(1).run, duration_ci95_s=0.0)
    run = next(run for run in leaving.runs if run.row.run_id == row.run_id)
    scoring = Scoring(factors=FACTORS, unit=Unit.REQUEST, embodied=HARDWARE)

    (exact,) = score_runs(Leaving(runs=(replace(run, row=row),), stayed={}), scoring).scores
    (unknown,) = score_runs(Leaving(runs=(run,), stayed={}), scoring).scores

    operational = known(row.energy_j) / 3.6e6 * 1.2
    of_energy, of_grid = known(row.energy_ci95_j) / 3.6e6 * 1.2 * 50.0, operational * 5.0
    of_hardware = 0.1 * exact.embodied.value_g
    expected = (of_energy**2 + of_grid**2 + of_hardware**2) ** 0.5 / 4
    assert exact.ci95_g == pytest.approx(expected)
    assert unknown.ci95_g is None  # how well its duration is known was not recorded


def test_a_sequence_of_a_server_holds_the_gpu_for_its_share_of_the_rate(leaving: Leaving) -> None:
    run = served_run(0).run

    score = score_of(leaving, run.run_id, Scoring(factors=FACTORS, unit=Unit.OUTPUT_TOKEN))

    hardware = embodied_of("NVIDIA H100 80GB HBM3")
    assert hardware is not None
    assert score.units == 400
    assert score.embodied.value_g == pytest.approx(hardware.g_per_s * 400 / 1250.0)


def test_what_is_not_known_is_not_guessed(leaving: Leaving) -> None:
    scored = score_runs(leaving, Scoring(factors=FACTORS, unit=Unit.OUTPUT_TOKEN))

    assert [score.run.row.gpu for score in scored.scores] == ["NVIDIA H100 80GB HBM3"]
    assert scored.without == {
        "the embodied carbon of NVIDIA A100-SXM4-80GB is not known: state it with --embodied-kg": 1,
        "the embodied carbon of cpu: Example CPU @ 2.00GHz is not known: state it with --embodied-kg": 1,
    }
    served = next(run for run in leaving.runs if run.row.run_id == served_run(0).run.run_id)
    no_rate = replace(served, row=replace(served.row, output_tokens_per_s=None))
    no_tokens = replace(served, row=replace(served.row, mean_output_tokens=None, duration_s=1.0))
    for run, why in ((no_rate, "the time its devices were held"), (no_tokens, "the time its devices were held")):
        with pytest.raises(DatasetError, match=f"1 runs: {why}"):
            score_runs(Leaving(runs=(run,), stayed={}), Scoring(factors=FACTORS, unit=Unit.OUTPUT_TOKEN))


def test_the_file_declares_unit_boundary_factors_and_provenance(leaving: Leaving, tmp_path: Path) -> None:
    export_sci(leaving, Scoring(factors=FACTORS, unit=Unit.REQUEST, embodied=HARDWARE), tmp_path)

    document = json.loads((tmp_path / "sci.json").read_text(encoding="utf-8"))

    assert document["specification"] == "ISO/IEC 21031:2024"
    assert document["functional_unit"] == "request"
    assert document["carbon_intensity"]["value"] == 50.0
    assert document["pue"]["source"] == "example"
    assert document["embodied"][0]["device_kgco2e"] == 800.0
    assert {entry["provenance"] for entry in document["scores"]} == {"measured", "estimated", "imported"}
    estimated = next(entry for entry in document["scores"] if entry["provenance"] == "estimated")
    assert estimated["how"] == "estimated by a power model, not measured"
    for entry in document["scores"]:
        expected = (entry["e_kwh"] * 50.0 + entry["m_gco2e"]) / entry["r"]
        assert entry["sci_gco2e_per_unit"] == pytest.approx(expected)
