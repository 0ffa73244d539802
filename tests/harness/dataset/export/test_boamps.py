"""BoAmps reports: the fields that the format asks for, in its units and words, and never more than is known."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.export.boamps import Reporting, boamps_report, export_boamps
from harness.dataset.export.leaving import LeavingRun, leaving_runs
from harness.dataset.reading import open_dataset
from harness.dataset.release.terms import Inclusion
from harness.errors import DatasetError
from tests.harness.dataset.release.releasable import dataset, own_run, served_run

REPORTING = Reporting(made_at=datetime(2026, 11, 30, 12, 0, tzinfo=UTC), publisher="A lab", country="france")
# What the schemas of the format require, and the words they allow.
REQUIRED = {
    "": {"task", "measures", "infrastructure"},
    "header": {"reportDatetime"},
    "header.publisher": {"confidentialityLevel"},
    "task": {"taskStage", "taskFamily", "algorithms", "dataset"},
    "task.dataset.": {"dataUsage", "dataType"},
    "measures.": {"measurementMethod", "powerConsumption"},
    "system": {"os"},
    "software": {"language"},
    "infrastructure": {"infraType", "components"},
    "infrastructure.components.": {"componentType", "nbComponent"},
    "environment": {"country"},
}
WORDS = {
    "header.reportStatus": {"draft", "final", "corrective", "other"},
    "header.publisher.confidentialityLevel": {"public", "internal", "confidential", "secret"},
    "task.dataset..dataUsage": {"input", "output"},
    "task.dataset..dataType": {
        "tabular",
        "audio",
        "boolean",
        "image",
        "video",
        "object",
        "text",
        "token",
        "word",
        "other",
    },
    "infrastructure.infraType": {"publicCloud", "privateCloud", "onPremise", "other"},
    "quality": {"high", "medium", "low"},
}
NUMBERS = {"nbRequest", "dataQuantity", "powerConsumption", "measurementDuration", "nbComponent", "memorySize", "share"}


def check(value: Any, path: str = "") -> None:
    """Hold a report against what the format requires."""
    assert value is not None, path
    if isinstance(value, dict):
        assert REQUIRED.get(path, set()) <= set(value), path
        for key, inner in value.items():
            assert isinstance(inner, dict | list | str) or key in NUMBERS, key
            assert not (key in NUMBERS and isinstance(inner, str | bool)), key
            check(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        assert value, path
        for inner in value:
            check(inner, f"{path}.")
    elif path in WORDS:
        assert value in WORDS[path], path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LeavingRun]:
    folder = dataset(
        tmp_path_factory.mktemp("boamps") / "a", [own_run(1), own_run(0, cuda=False), served_run(0), own_run(2)]
    )
    leaving = leaving_runs(open_dataset(folder), {Inclusion.ESTIMATED})
    first = {"measured": own_run(1).run.run_id, "estimated": own_run(0, cuda=False).run.run_id}
    by_id = {run.row.run_id: run for run in leaving.runs}
    return {name: by_id[run_id] for name, run_id in first.items()} | {
        "imported": by_id[served_run(0).run.run_id],
    }


@pytest.mark.parametrize("name", ["measured", "estimated", "imported"])
def test_a_report_is_what_the_format_asks_for(runs: dict[str, LeavingRun], name: str) -> None:
    check(boamps_report(runs[name], REPORTING))


def test_a_measured_batch_is_told_in_the_words_and_units_of_the_format(runs: dict[str, LeavingRun]) -> None:
    run = runs["measured"]
    report = boamps_report(run, REPORTING)

    measure = report["measures"][0]
    assert measure["powerConsumption"] == pytest.approx(run.energy_j / 3.6e6)
    assert measure["gpuTrackingMode"] == "nvml"
    assert measure["measurementDuration"] == run.row.duration_s
    assert measure["measurementDateTime"] == "2026-11-23 10:00:01"
    assert measure["measurementMethod"] == "nvml-counter (measured by a hardware energy counter)"
    assert report["task"]["nbRequest"] == run.row.batch_size == 4
    assert [data["dataQuantity"] for data in report["task"]["dataset"]] == [256, 64]
    assert report["infrastructure"]["components"][0] == {
        "componentName": "NVIDIA A100-SXM4-80GB",
        "componentType": "gpu",
        "nbComponent": 1,
        "manufacturer": "NVIDIA",
        "share": 1,
    }
    assert report["quality"] == "high"
    assert report["environment"] == {"country": "france"}
    assert report["header"]["reportDatetime"] == "2026-11-30 12:00:00"
    assert report["header"]["licensing"] == "CC-BY-4.0"


def test_an_estimate_is_never_called_measured_nor_rated(runs: dict[str, LeavingRun]) -> None:
    report = boamps_report(runs["estimated"], REPORTING)

    assert "quality" not in report
    assert "estimated by a power model, not measured" in report["measures"][0]["measurementMethod"]
    assert "estimated by a power model, not measured" in report["task"]["taskDescription"]
    assert "cpuTrackingMode" not in report["measures"][0]


def test_an_imported_server_is_one_sequence_with_its_source_and_licence(runs: dict[str, LeavingRun]) -> None:
    report = boamps_report(runs["imported"], REPORTING)

    assert report["task"]["nbRequest"] == 1
    assert "dataQuantity" not in report["task"]["dataset"][0]  # its prompt length was not published
    assert report["task"]["dataset"][1]["dataQuantity"] == 400
    assert report["header"]["licensing"] == "Apache-2.0"
    assert "The Example | Leaderboard (https://example.org/board)" in report["task"]["taskDescription"]
    (gpu,) = report["infrastructure"]["components"]
    assert gpu["componentName"] == "NVIDIA H100 80GB HBM3"
    assert "share" not in gpu


def test_each_run_is_a_file_of_a_stable_name(runs: dict[str, LeavingRun], tmp_path: Path) -> None:
    first = export_boamps(tuple(runs.values()), REPORTING, tmp_path / "a")
    again = export_boamps(tuple(runs.values()), REPORTING, tmp_path / "b")

    assert [path.name for path in first] == [path.name for path in again]
    assert len({path.name for path in first}) == 3
    for path, run in zip(first, runs.values(), strict=True):
        report = json.loads(path.read_text(encoding="utf-8"))
        assert report == boamps_report(run, REPORTING)
        assert path.stem.endswith(report["header"]["reportId"])


def test_what_needs_its_name_stays_unless_it_is_asked_for(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "a", [own_run(0, cuda=False), own_run(1, superseded_by="x"), own_run(2)])

    leaving = leaving_runs(open_dataset(folder), ())

    assert [run.row.run_id for run in leaving.runs] == [own_run(2).run.run_id]
    assert leaving.stayed == {"needs --include estimated": 1, "superseded by another row": 1}


def test_nothing_to_tell_is_an_error_that_says_why(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "a", [own_run(0, cuda=False)])

    with pytest.raises(DatasetError, match="1 runs: needs --include estimated"):
        leaving_runs(open_dataset(folder), ())


def test_a_model_that_is_no_id_of_the_hub_has_no_page(runs: dict[str, LeavingRun]) -> None:
    for model in ("my-model", "../x/y", "a/../b", "a/..", "a/b/c", "a/b c", ""):
        run = replace(runs["measured"], row=replace(runs["measured"].row, model=model))
        assert run.model_url is None, model
    assert runs["measured"].model_url == "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct"
