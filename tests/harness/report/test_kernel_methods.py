"""Kernels by three methods on the page, and what collectives cost."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.records import EnergyMethod, Measurement
from tests.examples import tensor_parallel_measurement
from tests.harness.report.report_examples import (
    figures,
    names,
    notes,
    page_of,
    rows,
    section,
    simulated,
    table,
    with_methods,
)

Examples = Callable[..., tuple[Measurement, ...]]
DatasetOf = Callable[..., Path]


def test_without_an_independent_method_the_section_is_not_there(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    page = page_of(dataset_of(example_measurements(n_runs=1)[0]))

    assert "methods-of-kernels" not in names(page)
    assert names(page).index("kernels") > 0


def test_methods_come_right_after_the_breakdown_that_apportions(virtual: Path) -> None:
    found = names(page_of(virtual))

    assert found.index("methods-of-kernels") == found.index("kernels") + 1


def test_every_method_stands_beside_the_others_per_pass_and_per_launch(virtual: Path) -> None:
    shown = table(page_of(virtual), "methods-of-kernels", "Kernels of the prefill")
    titles = [column.title for column in shown.columns]
    first = shown.rows[0]
    launches = first[titles.index("launches")].key or 0.0
    replay, replay_launch, regressed, regressed_launch, disagreement, apportioned, apportioned_launch = first[5:]

    assert titles[5:] == [
        "replay",
        "per launch",
        "regressed",
        "per launch",
        "disagree",
        "apportioned",
        "per launch",
    ]
    assert replay.text.endswith("± 10 %")
    assert regressed.text.endswith("± 10 %")
    assert "±" not in apportioned.text
    assert (replay.key or 0.0) / (regressed.key or 1.0) == pytest.approx(0.8)
    assert apportioned.key == pytest.approx(regressed.key)
    assert disagreement.text == "−20 %"
    for whole, single in ((replay, replay_launch), (regressed, regressed_launch), (apportioned, apportioned_launch)):
        assert single.key == pytest.approx((whole.key or 0.0) / launches)
    assert replay_launch.note.endswith("± 10 %")


def test_kernels_are_sorted_by_energy(virtual: Path) -> None:
    energies = [
        row[5].key or 0.0 for row in table(page_of(virtual), "methods-of-kernels", "Kernels of the decode").rows
    ]

    assert energies == sorted(energies, reverse=True)
    assert len(energies) > 5


def test_the_chart_has_one_bar_per_method_with_the_interval_where_there_is_one(virtual: Path) -> None:
    prefill, decode = figures(page_of(virtual), "methods-of-kernels")

    for spec in (prefill, decode):
        assert spec["layout"]["barmode"] == "group"
        assert [trace["meta"] for trace in spec["data"]] == ["replay", "regressed", "apportioned"]
        assert ["error_x" in trace for trace in spec["data"]] == [True, True, False]
        assert all("simulated" in note for trace in spec["data"] for note in trace["hovertext"])
        per_pass, per_launch = (view["data"][0][0] for view in spec["views"])
        assert per_launch < per_pass
    assert len(set(prefill["layout"]["yaxis"]["categoryarray"])) == len(prefill["data"][0]["y"])


def test_the_disagreement_is_summed_up_by_median_and_95th_percentile(virtual: Path) -> None:
    found = rows(page_of(virtual), "methods-of-kernels", "How far replay and regression disagree")

    assert [row[0] for row in found] == ["prefill", "prefill", "decode", "decode"]
    assert [row[1] for row in found] == ["all", "large", "all", "large"]
    assert {tuple(row[3:]) for row in found} == {("20 %", "20 %", "−20 %")}


def test_a_method_that_did_not_run_is_a_dash_and_the_page_says_why(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    one = with_methods(example_measurements(n_runs=1)[0])
    energies = tuple(row for row in one.kernel_energies if row.method is not EnergyMethod.REGRESSED)
    alone = tuple(replace(row, disagreement=None) for row in energies)

    page = page_of(dataset_of(replace(one, kernel_energies=alone)))

    assert rows(page, "methods-of-kernels", "Kernels of the prefill")[0][7:10] == ["–", "–", "–"]
    assert "A dash: that method has no value" in notes(page, "methods-of-kernels")
    assert "how far they disagree is not known" in notes(page, "methods-of-kernels")


def test_collectives_are_told_by_size_and_ranks_with_moving_and_waiting_apart(virtual: Path) -> None:
    shown = table(page_of(virtual), "collectives", "One collective")
    replayed = [row for row in shown.rows if row[3].text == "replay"]

    assert {row[3].text for row in shown.rows} == {"replay", "regressed"}
    assert {row[2].text for row in shown.rows} == {"3"}
    assert {row[0].text for row in shown.rows} == {"all_reduce", "all_gather"}
    for row in replayed:
        energy, moving, waiting = (cell.key or 0.0 for cell in row[5:8])
        assert (moving, waiting) == pytest.approx((0.8 * energy, 0.2 * energy))
        assert row[7].text.endswith(", 20 %")
        assert row[9].key == pytest.approx((row[8].key or 0.0) / 4)  # as the examples wait
    assert "series" not in [column.title for column in shown.columns]


def test_waiting_that_a_method_cannot_tell_is_a_dash_and_said(virtual: Path) -> None:
    page = page_of(virtual)
    regressed = [row for row in rows(page, "collectives", "One collective") if row[3] == "regressed"]

    assert {(row[6], row[7], row[10]) for row in regressed} == {("–", "–", "–")}
    assert "Only replay tells waiting from moving" in notes(page, "collectives")


def test_a_point_per_message_is_drawn_from_replay_and_named_with_its_provenance(virtual: Path) -> None:
    specs = figures(page_of(virtual), "collectives")

    assert len(specs) == 4
    for spec in specs:
        assert len(spec["data"]) == 1
        assert all("simulated" in note and "by replay" in note for note in spec["data"][0]["hovertext"])
    assert specs[1]["data"][0]["y"] == pytest.approx([20.0, 20.0])


def test_ranks_of_different_provenance_are_series_of_their_own(dataset_of: DatasetOf) -> None:
    page = page_of(
        dataset_of(
            with_methods(tensor_parallel_measurement(2)), simulated(with_methods(tensor_parallel_measurement(3)))
        )
    )

    shown = table(page, "collectives", "One collective")
    assert shown.columns[-1].title == "series"
    assert {row[-1].text.split(" · ")[0] for row in shown.rows} == {"estimated", "simulated"}
    for spec in figures(page, "collectives"):
        assert len({trace["meta"] for trace in spec["data"]}) == len(spec["data"])


def test_without_collectives_the_section_is_not_there(dataset_of: DatasetOf, example_measurements: Examples) -> None:
    assert "collectives" not in names(page_of(dataset_of(with_methods(example_measurements(n_runs=1)[0]))))


def test_collectives_without_energies_keep_their_times(dataset_of: DatasetOf) -> None:
    page = page_of(dataset_of(replace(tensor_parallel_measurement(2), kernel_energies=())))

    assert {tuple(row[3:4] + row[5:8]) for row in rows(page, "collectives", "One collective")} == {("–",) * 4}
    assert "not every one of these collectives has an energy" in notes(page, "collectives")
    assert all(row[8] != "–" for row in rows(page, "collectives", "One collective"))
    assert section(page, "collectives").groups[0].figures == ()
