"""The ledger on the page: every term, the residual however small, and why there is none."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.records import Measurement
from tests.harness.report.report_examples import figures, notes, page_of, rows, section, with_ledger, with_methods

Examples = Callable[..., tuple[Measurement, ...]]
DatasetOf = Callable[..., Path]


@pytest.fixture
def one(example_measurements: Examples) -> Measurement:
    return with_methods(example_measurements(n_runs=1)[0])


def several(example_measurements: Examples, residuals_j: list[float]) -> list[Measurement]:
    """Runs of one setup, each with its residual; the interval is ± 2 J."""
    bare = replace(example_measurements(n_runs=1)[0], phases=(), kernels=(), kernel_energies=(), readings=(), graphs=())
    return [
        with_ledger(replace(bare, run=replace(bare.run, run_id=f"run-{number:03d}")), residual_j)
        for number, residual_j in enumerate(residuals_j)
    ]


def traces(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {trace["meta"]: trace for trace in spec["data"]}


@pytest.mark.parametrize("residual_j", [1.0, -1.5, 1e-9, -1e-9, 0.0, 40.0])
def test_the_residual_is_drawn_where_the_explained_part_ends_however_small_or_negative(
    dataset_of: DatasetOf, one: Measurement, residual_j: float
) -> None:
    stack, alone = figures(page_of(dataset_of(with_ledger(one, residual_j))), "ledger")

    pieces = traces(stack)
    assert list(pieces) == ["idle", "kernels", "host gaps", "residual"]
    residual = pieces["residual"]
    explained_j = sum(pieces[name]["x"][0] for name in ("idle", "kernels", "host gaps"))
    assert residual["x"] == [residual_j]
    assert residual["base"][0] == pytest.approx(explained_j) == pytest.approx(100.0 - residual_j)
    assert residual["error_x"]["array"] == [2.0]
    assert residual["marker"]["line"]["width"] > 0
    assert alone["data"][0]["x"] == [residual_j]
    assert alone["data"][0]["error_x"]["array"] == [2.0]
    assert alone["data"][0]["marker"]["line"]["width"] > 0


def test_every_piece_begins_where_the_one_before_ends_in_joules_and_in_percent(
    dataset_of: DatasetOf, one: Measurement
) -> None:
    measurement = with_ledger(one, 1.0)
    run = replace(measurement.run, energy_j=200.0, ledger_idle_j=120.0, ledger_kernels_j=60.0, ledger_gaps_j=19.0)

    stack, alone = figures(page_of(dataset_of(replace(measurement, run=run))), "ledger")

    in_joules, in_percent = stack["views"]
    assert [starts[0] for starts in in_joules["starts"]] == [0.0, 120.0, 180.0, 199.0]
    assert [lengths[0] for lengths in in_percent["data"]] == [60.0, 30.0, 9.5, 0.5]
    assert [starts[0] for starts in in_percent["starts"]] == [0.0, 60.0, 90.0, 99.5]
    assert in_percent["errors"][-1] == [1.0]
    assert alone["views"][1]["data"] == [[0.5]]
    assert stack["layout"]["barmode"] == "overlay"


def test_the_table_has_every_term_the_method_and_whether_it_closes(dataset_of: DatasetOf, one: Measurement) -> None:
    (found,) = rows(page_of(dataset_of(with_ledger(one, -1.0))), "ledger", "Every term")

    assert found == [
        "#1 · 1 × 64 → 16",
        "100 J ± 5 %",
        "60 J, 60 %",
        "30 J, 30 %",
        "11 J, 11 %",
        "−1 J ± 2 J",
        "−1 % ± 2 %",
        "replay",
        "yes",
        "–",
    ]


def test_a_residual_outside_its_interval_is_flagged_in_table_chart_and_tile(
    dataset_of: DatasetOf, one: Measurement
) -> None:
    measurement = with_ledger(one, 3.0)
    flagged = replace(measurement, run=replace(measurement.run, status_detail="the ledger does not close"))

    page = page_of(dataset_of(flagged))

    assert rows(page, "ledger", "Every term")[0][8:] == [
        "NO",
        "the ledger does not close",
    ]
    assert list(traces(figures(page, "ledger")[1])) == ["does not close"]
    assert ("Ledgers that close, estimated", "0 of 1") in [(tile.title, tile.value) for tile in page.tiles]
    assert "0 of 1 ledger close; residual: median size 3 % of the run" in notes(page, "ledger")


def test_a_residual_without_an_interval_is_said_to_have_none(dataset_of: DatasetOf, one: Measurement) -> None:
    page = page_of(dataset_of(with_ledger(one, 3.0, ci95_j=None)))

    assert rows(page, "ledger", "Every term")[0][5:9] == ["+3 J", "+3 %", "replay", "interval not known"]
    stack, alone = figures(page, "ledger")
    assert traces(stack)["residual"]["error_x"]["array"] == [None]
    assert list(traces(alone)) == ["interval not known"]


def test_without_an_independent_method_the_page_says_that_there_is_no_ledger_and_why(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    page = page_of(dataset_of(example_measurements(n_runs=1)[0]))

    assert "1 run without a ledger: no independent kernel method" in notes(page, "ledger")
    assert figures(page, "ledger") == []
    assert section(page, "ledger").views == ()
    assert not [tile for tile in page.tiles if "Ledger" in tile.title]


def test_each_reason_for_not_having_a_ledger_is_told_apart(dataset_of: DatasetOf, one: Measurement) -> None:
    untraced = replace(one, run=replace(one.run, run_id="untraced"), kernels=(), kernel_energies=(), graphs=())
    rejected = replace(untraced, run=replace(one.run, run_id="rejected", energy_j=None))
    bare = [replace(each, phases=(), readings=()) for each in (untraced, rejected)]
    closing = with_ledger(replace(bare[0], run=replace(one.run, run_id="closing")), 1.0)

    page = page_of(dataset_of(one, *bare, closing))

    reasons = {row[1] for row in rows(page, "ledger", "Runs without a ledger")}
    assert len(reasons) == 3
    assert any(reason.startswith("replay or regression ran, but did not cover") for reason in reasons)
    assert "its kernels were not traced" in reasons
    assert any(reason.startswith("every window of the request was rejected") for reason in reasons)


def test_a_ledger_whose_terms_are_not_known_is_in_the_table_with_dashes_and_not_drawn(
    dataset_of: DatasetOf, one: Measurement
) -> None:
    measurement = with_ledger(one, 1.0)
    run = replace(measurement.run, ledger_gaps_j=None)

    page = page_of(dataset_of(replace(measurement, run=run)))

    assert rows(page, "ledger", "Every term")[0][4] == "–"
    assert figures(page, "ledger") == []


def test_of_many_ledgers_none_that_is_open_is_left_out_of_the_charts(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    residuals_j = [9.0 if number % 30 == 7 else 0.5 for number in range(120)]

    page = page_of(dataset_of(*several(example_measurements, residuals_j)))

    stack, alone = figures(page, "ledger")
    assert len(stack["layout"]["yaxis"]["categoryarray"]) == 40
    assert len(traces(alone)["does not close"]["x"]) == 4
    assert "40 of 120 are drawn" in notes(page, "ledger")
    assert len(rows(page, "ledger", "Every term")) == 120


def test_where_no_run_finished_there_is_no_ledger(failed: Path) -> None:
    assert "No run of this dataset finished" in notes(page_of(failed), "ledger")
