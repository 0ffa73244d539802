"""What the page says of several ranks and of kernel graphs, and that it says nothing where there are none."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.summary import summarise
from harness.kernels import KernelKind, Phase
from harness.records import KernelRow, Measurement
from harness.report.blocks import Page
from harness.report.setups import Scene
from tests.examples import tensor_parallel_measurement
from tests.harness.report.report_examples import names, notes, page_of, rows, section, table

Examples = Callable[..., tuple[Measurement, ...]]
DatasetOf = Callable[..., Path]


@pytest.fixture(scope="session")
def three_page(dataset_of: DatasetOf) -> Page:
    return page_of(dataset_of(tensor_parallel_measurement(3)))


def without_graphs(measurement: Measurement) -> Measurement:
    phases = tuple(replace(row, graph_id=None) for row in measurement.phases)
    kernels = tuple(replace(row, graph_kernel=None) for row in measurement.kernels)
    return replace(measurement, phases=phases, kernels=kernels, graphs=())


def unmatched(measurement: Measurement, number: int) -> KernelRow:
    """The n-th of many kernels that are in no graph; the first lasts longest."""
    row = replace(measurement.kernels[0], kernel_id=f"u{number}", phase=Phase.PREFILL, kind=KernelKind.OTHER)
    row = replace(row, op=f"aten::op{number:02d}", traced_duration_s=0.1 / (number + 1), launches=2)
    return replace(row, graph_kernel=None)


def test_a_campaign_on_one_rank_without_graphs_gains_nothing(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    page = page_of(dataset_of(*map(without_graphs, example_measurements(n_runs=3, failures=False))))

    assert {"ranks", "graphs"}.isdisjoint(names(page))
    assert "rank" not in page.subtitle
    assert "ranks" not in [column.title for column in table(page, "runs", "All runs").columns]


def test_a_run_across_ranks_that_failed_gains_no_empty_section(dataset_of: DatasetOf) -> None:
    failed = Measurement(run=tensor_parallel_measurement(2).run)

    assert "ranks" not in names(page_of(dataset_of(failed)))


def test_series_of_different_rank_counts_have_names_of_their_own(parallel: Path) -> None:
    scene = Scene.of(summarise(parallel))

    assert list(scene.names.values()) == [
        "estimated · Example CPU @ 2.00GHz",
        "estimated · Example CPU @ 2.00GHz · tensor parallel, 3 ranks",
        "estimated · Example CPU @ 2.00GHz · tensor parallel, 4 ranks on 2 nodes",
    ]


def test_ranks_and_machines_are_told_on_top_with_the_setups_and_with_every_run(parallel: Path) -> None:
    page = page_of(parallel)

    assert "1, 3 and 4 ranks on 1 and 2 nodes" in page.subtitle
    assert [row[5] for row in rows(page, "setups", "Each row")] == [
        "hf, sdpa",
        "hf, sdpa, tensor parallel, 3 ranks",
        "hf, sdpa, tensor parallel, 4 ranks on 2 nodes",
    ]
    assert sorted(row[3:5] for row in rows(page, "runs", "All runs")) == [["1", "1"], ["3", "1"], ["4", "2"]]


def test_each_rank_is_told_with_its_time_its_spread_and_the_skew(three_page: Page) -> None:
    found = table(three_page, "ranks", "Time of each rank")
    whole = found.rows[0]

    assert [column.title for column in found.columns[3:6]] == ["rank 0", "rank 1", "rank 2"]
    assert found.columns[4].note == "rank 1 on cpu of node 0"
    assert [row[1].text for row in found.rows] == ["Whole request", "Prefill", "Decode"]
    first_s, middle_s, last_s = (cell.key or 0.0 for cell in whole[3:6])
    assert (middle_s / last_s, first_s / last_s) == pytest.approx((0.95 / 0.96, 0.94 / 0.96))
    assert "(spread 2.1 %)" in whole[4].text
    assert whole[6].key == pytest.approx(0.02 / 0.95)
    assert whole[7].key == pytest.approx(last_s / 0.96 * 0.02)


def test_collectives_are_told_by_message_with_what_is_sent_and_waited(three_page: Page) -> None:
    assert rows(three_page, "ranks", "Collectives")[:2] == [
        ["prefill", "all_gather", "3", "65.5 kB", "1", "131 kB", "164 µs", "32.8 µs, 20 %", "1 GB/s"],
        ["prefill", "all_reduce", "3", "147 kB", "60", "11.8 MB", "14.7 ms", "2.95 ms, 20 %", "1 GB/s"],
    ]


def test_communication_waiting_and_the_rest_fill_the_bar_of_a_phase(three_page: Page) -> None:
    figures = [figure for group in section(three_page, "ranks").groups for figure in group.figures]
    specs: list[dict[str, Any]] = [json.loads(figure.spec) for figure in figures]

    assert len(specs) == 2
    for spec in specs:
        pieces = {trace["name"]: trace["x"][0] for trace in spec["data"]}
        assert list(pieces) == ["moving data", "waiting for the last rank", "other kernels and host gaps"]
        assert sum(pieces.values()) == pytest.approx(100)
        assert pieces["waiting for the last rank"] == pytest.approx(pieces["moving data"] / 4)
    assert rows(three_page, "ranks", "Communication")[0][6] == "rank 0: 5.96 ms"


def test_an_unknown_wait_is_a_dash_and_a_piece_that_says_so(dataset_of: DatasetOf) -> None:
    one = tensor_parallel_measurement(2)
    page = page_of(dataset_of(replace(one, kernels=tuple(replace(row, wait_s=None) for row in one.kernels))))

    spec = json.loads(section(page, "ranks").groups[0].figures[0].spec)
    assert [trace["name"] for trace in spec["data"]] == [
        "communication, waiting not known",
        "other kernels and host gaps",
    ]
    assert rows(page, "ranks", "Communication")[0][4:] == ["–", "–", "–"]
    assert [row[7:] for row in rows(page, "ranks", "Collectives")] == [["–", "–"]] * 4


def test_what_was_not_traced_or_not_timed_is_said(dataset_of: DatasetOf) -> None:
    one = tensor_parallel_measurement(2)

    untraced = page_of(dataset_of(replace(one, kernels=(), kernel_energies=())))
    untimed = page_of(dataset_of(replace(one, rank_times=())))

    assert "No collective was traced" in notes(untraced, "ranks")
    assert "The time of each rank was not recorded" in notes(untimed, "ranks")


def test_the_matched_share_and_what_is_missing_are_told_for_each_phase(three_page: Page) -> None:
    shares = rows(three_page, "graphs", "Found in the graph")

    assert [(row[0], row[1], row[5], row[6]) for row in shares] == [
        ("prefill", "1", "1\u202f263", "1\u202f173"),
        ("decode", "1", "18\u202f945", "17\u202f595"),
    ]
    assert [row[7] for row in shares] == ["92.9 %", "92.9 %"]
    assert rows(three_page, "graphs", "Not in the graph of the prefill: all")[0][:4] == [
        "copy",
        "aten::copy_",
        "–",
        "90",
    ]
    assert "is a match if" in section(three_page, "graphs").lead


def test_of_many_unmatched_kernels_ten_are_shown_and_the_rest_is_counted(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    one = example_measurements(n_runs=1)[0]
    kernels = tuple(unmatched(one, number) for number in range(13))

    page = page_of(dataset_of(replace(one, kernels=kernels, kernel_energies=())))

    found = table(page, "graphs", "Not in the graph of the prefill")
    rest_s = 0.1 / 11 + 0.1 / 12 + 0.1 / 13
    assert [row[1].text for row in found.rows] == [f"aten::op{number:02d}" for number in range(10)]
    assert found.caption.endswith(f"of 13; the other 3 have 6 launches and {rest_s * 1e3:.1f} ms")


def test_a_trace_that_is_all_in_the_graph_says_so(dataset_of: DatasetOf, example_measurements: Examples) -> None:
    one = example_measurements(n_runs=1)[0]
    kernels = tuple(row for row in one.kernels if row.graph_kernel is not None)

    page = page_of(dataset_of(replace(one, kernels=kernels)))

    assert "Every traced kernel of the prefill is in the graph." in notes(page, "graphs")
    assert rows(page, "graphs", "Found in the graph")[0][4] == "100 %"
