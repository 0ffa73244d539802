"""Results on a model's page: read back with the Hub's own reader."""

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset.export.eval_results import TASK, Benchmark, export_eval_results
from harness.dataset.export.leaving import leaving_runs
from harness.dataset.reading import open_dataset
from harness.dataset.release.terms import Inclusion
from harness.errors import DatasetError
from harness.records import Quality
from tests.harness.dataset.release.releasable import BOARD, dataset, known, own_run, per_token_j, served_run

yaml = pytest.importorskip("yaml")
BENCHMARK = Benchmark(repository="joulegraph/energy", revision="a" * 40)


def test_every_device_of_a_model_is_a_file_that_the_hub_reads(tmp_path: Path) -> None:
    from huggingface_hub import parse_eval_result_entries

    runs = [own_run(0), own_run(1), own_run(2, cuda=False), own_run(4, quality=Quality.QUICK), served_run(0)]
    leaving = leaving_runs(open_dataset(dataset(tmp_path / "a", runs)), {Inclusion.ESTIMATED, Inclusion.QUICK})

    paths = export_eval_results(leaving, BENCHMARK, tmp_path / "out")

    entries = {}
    for path in paths:
        assert path.parent.name == ".eval_results"
        (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text(encoding="utf-8")))
        assert (entry.dataset_id, entry.task_id, entry.dataset_revision) == ("joulegraph/energy", TASK, "a" * 40)
        assert entry.source_url == "https://huggingface.co/datasets/joulegraph/energy"
        entries[path.relative_to(tmp_path / "out").as_posix()] = entry
    smol, llama = "HuggingFaceTB/SmolLM2-135M-Instruct/.eval_results", "meta-llama/Llama-3.1-8B-Instruct/.eval_results"
    a100 = f"{smol}/joulegraph-nvidia-a100-sxm4-80gb-1x-float32-hf-batch-joulegraph-0-1-0"
    cpu = f"{smol}/joulegraph-cpu-example-cpu-2-00ghz-1x-float32-hf-batch-joulegraph-0-1-0"
    h100 = f"{llama}/joulegraph-nvidia-h100-80gb-hbm3-1x-dtype-unknown-vllm-server-example-board"
    assert set(entries) == {
        f"{a100}-measured.yaml",
        f"{a100}-quick.yaml",
        f"{cpu}-estimated.yaml",
        f"{h100}-imported.yaml",
    }
    measured = entries[f"{a100}-measured.yaml"]
    rows = [own_run(0).run, own_run(1).run]
    expected = statistics.median(map(per_token_j, rows))
    assert measured.value == pytest.approx(expected, rel=1e-5)
    assert measured.date == "2026-11-23"
    for text in ("Median of 2 requests", "measured by a hardware energy counter", "batch 1 to 4"):
        assert text in known(measured.notes)


def test_an_estimate_says_so_in_its_name_its_source_and_its_notes(tmp_path: Path) -> None:
    leaving = leaving_runs(open_dataset(dataset(tmp_path / "a", [own_run(0, cuda=False)])), {Inclusion.ESTIMATED})

    (path,) = export_eval_results(leaving, Benchmark(repository="me/energy"), tmp_path / "out")

    (entry,) = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert path.stem.endswith("-estimated")
    assert entry["source"]["name"] == "Joulegraph dataset (estimated)"
    assert "estimated by a power model, not measured" in entry["notes"]
    assert "Released as estimated." in entry["notes"]
    assert "revision" not in entry["dataset"]


def test_the_source_of_an_imported_value_is_named_with_its_licence(tmp_path: Path) -> None:
    other = replace(BOARD, source="other-board", title="Other: board", licence="MIT")
    runs = [served_run(0), served_run(1, source=other)]
    leaving = leaving_runs(open_dataset(dataset(tmp_path / "a", runs)), ())

    paths = export_eval_results(leaving, BENCHMARK, tmp_path / "out")

    notes = [yaml.safe_load(path.read_text(encoding="utf-8"))[0]["notes"] for path in paths]
    assert ["Source: The Example | Leaderboard, Apache-2.0." in note for note in notes].count(True) == 1
    assert ["Source: Other: board, MIT." in note for note in notes].count(True) == 1


def test_a_model_of_ones_own_has_no_page_to_tell_it_on(tmp_path: Path) -> None:
    leaving = leaving_runs(open_dataset(dataset(tmp_path / "a", [own_run(0, model="../../etc/my-model")])), ())

    with pytest.raises(DatasetError, match="nothing to tell on a model's page"):
        export_eval_results(leaving, BENCHMARK, tmp_path / "out")
