"""The page: whole, inert, and honest about where its numbers come from."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from plotly.offline import get_plotlyjs

from harness.dataset.summary import summarise
from harness.errors import CannotWrite, DatasetError
from harness.kernels import Phase
from harness.records import Measurement, Part, Provenance, Quality, Status, Weights
from harness.report.blocks import Page, Section
from harness.report.page import build_page, write_report

Examples = Callable[..., tuple[Measurement, ...]]
DatasetOf = Callable[..., Path]


class Elements(HTMLParser):
    """Start tags of a page, its scripts, and its text outside them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._inside = tag
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif not self._inside:
            self.text += data


def elements(page: Path) -> Elements:
    parser = Elements()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


def page_of(folder: Path) -> Page:
    return build_page(summarise(folder), ())


def section(page: Page, name: str) -> Section:
    return next(section for section in page.sections if section.name == name)


def cells(page: Page, name: str) -> list[list[str]]:
    return [
        [cell.text for cell in row]
        for group in section(page, name).groups
        for table in group.tables
        for row in table.rows
    ]


def notes(page: Page, name: str) -> str:
    return " ".join(note for group in section(page, name).groups for note in group.notes)


def figures(page: Page, name: str) -> list[dict[str, Any]]:
    return [json.loads(figure.spec) for group in section(page, name).groups for figure in group.figures]


@pytest.fixture(scope="session")
def mixed_page(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(mixed, tmp_path_factory.mktemp("page") / "report.html")


def test_the_page_refers_to_nothing_outside_itself(mixed_page: Path) -> None:
    found = elements(mixed_page)
    addresses = [
        (tag, name, value)
        for tag, attributes in found.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "poster", "data")
    ]

    assert all(value is not None and "//" not in value for _, _, value in addresses), addresses
    assert "://" not in mixed_page.read_text(encoding="utf-8").replace(get_plotlyjs(), "")
    assert not [tag for tag, _ in found.tags if tag in ("iframe", "object", "embed", "img", "base")]


def test_plotly_is_in_the_page_exactly_once(mixed_page: Path) -> None:
    assert mixed_page.read_text(encoding="utf-8").count(get_plotlyjs()) == 1


def test_the_policy_of_the_page_allows_its_own_scripts_and_no_others(mixed_page: Path) -> None:
    found = elements(mixed_page)
    policy = next(attributes["content"] for tag, attributes in found.tags if attributes.get("http-equiv"))
    kinds = [attributes.get("type") for tag, attributes in found.tags if tag in ("script", "style")]
    runnable = [text for text, kind in zip(found.scripts, kinds, strict=True) if kind is None and text]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in runnable]

    assert policy is not None
    assert "default-src 'none'" in policy
    assert sorted(re.findall(r"'sha256-([^']+)'", policy)) == sorted(digests)
    assert "unsafe" not in policy.split("script-src")[1].split(";")[0]


def test_markup_in_the_dataset_stays_text(hostile_dataset: Path, tmp_path: Path) -> None:
    found = elements(write_report(hostile_dataset, tmp_path / "report.html"))
    tags = [tag for tag, _ in found.tags]

    assert "img" not in tags
    assert tags.count("script") == tags.count("figure") + 2
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert "<img src=x onerror=" in found.text
    assert "{{7*7}}" in found.text


def test_labels_of_charts_are_escaped(hostile_dataset: Path) -> None:
    page = page_of(hostile_dataset)
    specs = [spec for part in page.sections for spec in figures(page, part.name)]

    assert len(specs) > 10
    for spec in specs:
        assert "<img" not in json.dumps(spec)
        assert "&lt;img" in json.dumps(spec["data"])


def test_every_provenance_and_the_quick_protocol_are_named_on_top(mixed: Path) -> None:
    assert [banner.kind for banner in page_of(mixed).banners] == ["measured", "estimated", "quick"]


def test_a_standard_measurement_has_no_warning(dataset_of: DatasetOf, example_measurements: Examples) -> None:
    measured = example_measurements(n_runs=2, failures=False)[1]
    run = replace(measured.run, quality=Quality.STANDARD)

    assert [banner.kind for banner in page_of(dataset_of(replace(measured, run=run))).banners] == ["measured"]


def test_simulated_energies_and_random_weights_are_marked(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    one = example_measurements(n_runs=1)[0]
    run = replace(one.run, provenance=Provenance.SIMULATED, weights=Weights.RANDOM)

    page = page_of(dataset_of(replace(one, run=run)))

    assert [banner.kind for banner in page.banners] == ["simulated", "quick", "random"]
    assert "not measured" in page.banners[0].title


def test_no_series_of_a_chart_mixes_provenances(mixed: Path) -> None:
    page = page_of(mixed)
    by_series = {entry.series: entry.text.split(" · ")[0] for entry in section(page, "phases").groups[0].legend}

    assert sorted(by_series.values()) == ["estimated", "measured"]
    for name in ("phases", "tokens", "agreement", "repeats"):
        for spec in figures(page, name):
            for trace in spec["data"]:
                assert all(by_series[trace["meta"]] in note for note in trace["hovertext"])
            symbols = [trace["marker"]["symbol"] for trace in spec["data"]]
            assert len(symbols) == len(set(symbols))


def test_total_energies_are_given_for_each_provenance_apart(mixed: Path) -> None:
    titles = [tile.title for tile in page_of(mixed).tiles]

    assert "Energy of the requests, measured" in titles
    assert "Energy of the requests, estimated" in titles


def test_the_bars_of_a_phase_add_up_to_its_energy(mixed: Path) -> None:
    summary = summarise(mixed)
    expected = sorted(phase.row.energy_j or 0.0 for phase in summary.phases)
    totals: dict[tuple[str, str], float] = {}
    for spec in figures(page_of(mixed), "kernels"):
        for trace in spec["data"]:
            for name, energy_j in zip(trace["y"], trace["x"], strict=True):
                phase = trace["hovertext"][0].split("<br>")[2].split(" ")[0]
                totals[name, phase] = totals.get((name, phase), 0.0) + energy_j

    assert sorted(totals.values()) == pytest.approx(expected)
    assert {trace["name"] for spec in figures(page_of(mixed), "kernels") for trace in spec["data"]} >= {"host gap"}


def test_a_phase_whose_kernels_were_not_traced_is_one_piece_that_says_so(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    one = example_measurements(n_runs=1)[0]
    phases = tuple(replace(phase, host_gap_energy_j=None) for phase in one.phases)

    page = page_of(dataset_of(replace(one, phases=phases, kernels=(), kernel_energies=())))

    for spec in figures(page, "kernels"):
        assert [trace["name"] for trace in spec["data"]] == ["not attributed"]
        assert "kernels were not traced" in spec["data"][0]["hovertext"][0]


def test_of_many_runs_forty_bars_are_shown_and_the_page_says_so(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    page = page_of(dataset_of(*example_measurements(n_runs=140, kernels_per_phase=2, failures=False)))

    assert "40 of" in notes(page, "kernels")
    for spec in figures(page, "kernels"):
        assert len(spec["layout"]["yaxis"]["categoryarray"]) <= 40


def test_a_rejected_window_is_shown_with_its_reason_and_apart_from_the_used_ones(
    dataset_of: DatasetOf, example_measurements: Examples
) -> None:
    one = example_measurements(n_runs=1)[0]
    readings = tuple(
        replace(row, rejected="clock drift") if (row.part, row.trial) == (Part.RUN, 1) else row for row in one.readings
    )

    page = page_of(dataset_of(replace(one, readings=readings)))

    whole = figures(page, "repeats")[0]
    assert {trace["meta"]: len(trace["y"]) for trace in whole["data"]} == {"setup 1": 2, "rejected": 1}
    assert any("rejected: clock drift" in trace["hovertext"][0] for trace in whole["data"])
    assert any(row[-1] == "clock drift" for row in cells(page, "repeats"))


def test_failures_and_clipped_requests_are_listed_with_their_reasons(mixed: Path) -> None:
    page = page_of(mixed)

    assert [row[1] for row in cells(page, "failures")] == ["out of memory", "failed", "skipped"]
    assert cells(page, "failures")[0][2] == "needs 31.2 GiB, the limit is 4.0 GiB"
    assert [row[1] for row in cells(page, "requests")] == ["output: 900 → 16 tokens, for the time budget"]


def test_what_a_failed_run_lacks_is_a_dash(mixed: Path) -> None:
    failed_row = next(row for row in cells(page_of(mixed), "runs") if row[1].startswith("failed"))

    assert failed_row[6:12] == ["–"] * 6


def test_where_no_run_finished_the_page_says_so_and_shows_no_energy(failed: Path, tmp_path: Path) -> None:
    page = page_of(failed)

    assert page.banners[0].title == "No energies"
    assert [tile.value for tile in page.tiles] == ["0 of 3"]
    assert [part.name for part in page.sections if figures(page, part.name)] == ["requests"]
    assert write_report(failed, tmp_path / "report.html").is_file()


def test_a_dataset_without_a_single_run_still_has_a_page(dataset_of: DatasetOf, tmp_path: Path) -> None:
    text = elements(write_report(dataset_of(), tmp_path / "report.html")).text

    assert "no runs yet" in text
    assert "This dataset holds no runs." in text


@pytest.mark.parametrize("phase", list(Phase))
def test_points_of_a_phase_carry_their_run_and_interval(mixed: Path, phase: Phase) -> None:
    summary = summarise(mixed)
    shown = figures(build_page(summary, ()), "phases")[2 * list(Phase).index(phase)]
    energies = sorted(one.row.energy_j or 0.0 for one in summary.phases if one.row.phase is phase)
    widths = sorted(one.row.energy_ci95_j or 0.0 for one in summary.phases if one.row.phase is phase)

    assert sorted(y for trace in shown["data"] for y in trace["y"]) == pytest.approx(energies)
    assert sorted(w for trace in shown["data"] for w in trace["error_y"]["array"]) == pytest.approx(widths)
    assert all("95" not in note and "run " in note for trace in shown["data"] for note in trace["hovertext"])


def test_links_lead_from_the_page_to_the_files(
    dataset_of: DatasetOf, example_measurements: Examples, tmp_path: Path
) -> None:
    folder = dataset_of(*example_measurements(n_runs=1))
    odd = folder.rename(tmp_path / "a b#1%")
    found = elements(write_report(odd, tmp_path / "report.html"))
    links = [attributes["href"] for tag, attributes in found.tags if tag == "a"]

    assert "a%20b%231%25/manifest.json" in links
    assert "a%20b%231%25/data/runs" in links


def test_a_page_that_cannot_be_written_is_an_error_with_a_remedy(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"python -m harness\.report"):
        write_report(mixed, tmp_path / "no such folder" / "report.html")


def test_a_folder_without_a_dataset_leaves_an_old_page_alone(tmp_path: Path) -> None:
    old = tmp_path / "report.html"
    old.write_text("old")

    with pytest.raises(DatasetError):
        write_report(tmp_path, old)

    assert old.read_text() == "old"


def test_writing_again_replaces_the_page_and_leaves_nothing_else(mixed: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("an older page")
    write_report(mixed, page)

    replaced = page.read_bytes()  # megabytes: compared by a flag, or a failure would be shown as a diff for minutes
    is_page = replaced.lower().startswith(b"<!doctype html>") and b"an older page" not in replaced
    assert is_page
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_statuses_are_all_named(example_measurements: Examples) -> None:
    from harness.report import requests

    assert set(requests._STATUS_NAMES) == set(Status)
