"""What is simulated says so everywhere, and nothing else does."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from harness.dataset.summary import summarise
from harness.records import Measurement, Provenance
from harness.report import provenance
from harness.report.page import write_report
from harness.report.setups import Scene
from tests.harness.report.report_examples import page_of, rows, simulated

Examples = Callable[..., tuple[Measurement, ...]]
DatasetOf = Callable[..., Path]
WORDS = "SIMULATED: every number comes from a virtual GPU; nothing here is measured."


def test_a_simulated_page_says_so_in_its_title_at_its_head_in_every_section_and_on_every_sheet(
    virtual: Path, tmp_path: Path
) -> None:
    text = write_report(virtual, tmp_path / "report.html").read_text(encoding="utf-8")
    header, *sections = re.split(r"<section id=", text)
    last, footer = sections[-1].split("<footer>")

    assert "<title>SIMULATED: Energy of" in header
    assert "<h1>SIMULATED: Energy of" in header
    assert f'<p class="sheet" aria-hidden="true">{WORDS}</p>' in header
    assert len(sections) > 12
    for part in (header.split("<header>")[1], *sections[:-1], last, footer):
        assert f'<p class="mark" role="note">{WORDS}</p>' in part


def test_measured_and_estimated_pages_carry_no_mark(mixed: Path, tmp_path: Path) -> None:
    text = write_report(mixed, tmp_path / "report.html").read_text(encoding="utf-8")

    assert "SIMULATED" not in text
    assert 'class="mark"' not in text
    assert 'class="sheet"' not in text


def test_a_page_that_is_simulated_in_part_says_how_much_of_it_and_where(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    first, *others = example_measurements(n_runs=3, failures=False)

    page = page_of(dataset_of(simulated(first), *others))

    assert page.title.startswith("PARTLY SIMULATED: Energy of")
    assert page.mark.startswith(
        "PARTLY SIMULATED: 1 of 3 runs come from a virtual GPU, and nothing about them is measured."
    )


def test_a_simulated_run_without_an_energy_is_marked_all_the_same(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    one = simulated(example_measurements(n_runs=1)[0])
    bare = Measurement(run=replace(one.run, energy_j=None, energy_ci95_j=None))

    assert page_of(dataset_of(bare)).mark == WORDS


def test_a_simulated_reading_in_a_run_that_claims_otherwise_is_marked(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    one = example_measurements(n_runs=1)[0]
    readings = tuple(replace(row, provenance=Provenance.SIMULATED) for row in one.readings)

    assert provenance.mark(summarise(dataset_of(replace(one, readings=readings)))).startswith("PARTLY SIMULATED")


def test_a_dataset_without_runs_carries_no_mark(dataset_of: DatasetOf) -> None:
    assert page_of(dataset_of()).mark == ""


def test_where_provenances_meet_every_run_is_named_with_its_own(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    measurements = example_measurements(n_runs=3, failures=False)
    alone = Scene.of(summarise(dataset_of(measurements[0])))
    scene = Scene.of(summarise(dataset_of(simulated(measurements[0]), *measurements[1:])))

    assert [alone.run_name(run) for run in alone.summary.runs] == ["#1 · 1 × 64 → 16"]
    assert [scene.run_name(run) for run in scene.summary.runs] == [
        "#1 · 1 × 64 → 16 · simulated",
        "#2 · 4 × 256 → 64 · measured",
        "#3 · 2 × 128 → 32 · estimated",
    ]


def test_the_spread_of_repeats_is_told_for_each_provenance_apart(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    found = rows(page_of(dataset_of(*example_measurements(n_runs=3, failures=False))), "repeats", "Relative standard")

    assert [row[:2] for row in found if row[0] == "Whole request"] == [
        ["Whole request", "measured"],
        ["Whole request", "estimated"],
    ]
