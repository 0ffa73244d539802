"""The package leadgreen-mcp: its JSON files alone, and the same figures as its source where both are there."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.importers.leadgreen import NO_REPEAT, LeadGreen
from harness.dataset.importers.ml_energy_rows import NO_BALANCE
from harness.errors import CorruptFile, DatasetError
from harness.words import Workload
from tests.harness.dataset.importers.run_examples import Imported, assert_sound, imported


def configuration(**changes: object) -> dict[str, Any]:
    """1200 W at 400 tokens a second: 3 J a token, 1500 J for 500 tokens."""
    usual = {
        "gpu": "B200",
        "num_gpus": 2,
        "tensor_parallel": 2,
        "data_parallel": 1,
        "expert_parallel": 1,
        "precision": "FP8",
        "max_num_seqs": 16,
        "avg_running_batch": 15.5,
        "joules_per_output_token": 3.0,
        "median_itl_ms": 12.0,
        "tokens_per_second": 400.0,
        "gpu_power_watts_total": 1200,
        "avg_output_tokens": 500,
        "row_id": "example/B200/2/16",
        "repeat": 1,
    }
    return usual | changes


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    data = folder / "leadgreen_mcp" / "data"
    (data / "models").mkdir(parents=True)
    model = {"model_id": "example/model", "params_b": 70.0, "active_params_b": 70.0, "configurations": rows}
    (data / "models" / "example.json").write_text(json.dumps(model))
    sources = [{"method": "Measured with Zeus under vLLM 0.11.1 on servers."}, {"name": "another"}]
    (data / "manifest.json").write_text(json.dumps({"data_version": "2026-01-02", "sources": sources}))
    (folder / "leadgreen_mcp-9.8.7.dist-info").mkdir()
    (folder / "leadgreen_mcp" / "__init__.py").write_text("raise SystemExit('no code of the package may run')")
    return folder


def test_joules_per_token_become_joules_of_a_request_by_its_output_length(tmp_path: Path) -> None:
    found = imported(LeadGreen(), write(tmp_path, configuration()))

    (run,), (source,) = found.runs, found.sources
    assert (run.workload, run.model, run.gpu, run.n_gpus) == (Workload.SERVER, "example/model", "NVIDIA B200", 2)
    assert (run.energy_j, run.mean_output_tokens, run.mean_power_w) == (1500.0, 500.0, 1200.0)
    assert (run.output_tokens_per_s, run.tpot_s, run.mean_batch_size) == (400.0, 0.012, 15.5)
    assert (run.dtype, run.quantization, run.runtime_version) == ("bfloat16", "fp8", "0.11.1")
    assert (run.prompts, run.parallelism) == ("lm-arena-chat", "tensor")
    assert (source.licence, source.version) == ("CC-BY-4.0", "9.8.7, data of 2026-01-02")
    assert "do not count both" in (source.derived or "")


def test_the_package_is_found_from_its_own_folder_and_its_data_too(tmp_path: Path) -> None:
    write(tmp_path, configuration())

    places = (tmp_path, tmp_path / "leadgreen_mcp", tmp_path / "leadgreen_mcp" / "data")
    first, second, third = (imported(LeadGreen(), place) for place in places)

    assert first.runs == second.runs == third.runs


def test_numbered_repeats_are_trials_and_a_row_that_stands_twice_counts_once(tmp_path: Path) -> None:
    again = configuration(repeat=2, joules_per_output_token=3.2, gpu_power_watts_total=1280)

    found = imported(LeadGreen(), write(tmp_path, configuration(), again, configuration()))

    assert (found.runs[0].trials, found.runs[0].energy_j, found.rejected) == (2, 1550.0, {NO_REPEAT: 1})


def test_figures_that_contradict_each_other_are_flagged(tmp_path: Path) -> None:
    found = imported(LeadGreen(), write(tmp_path, configuration(tokens_per_second=500.0)))

    assert found.runs[0].status_detail == NO_BALANCE


def test_another_precision_is_kept_under_its_name_and_no_type_is_guessed(tmp_path: Path) -> None:
    found = imported(LeadGreen(), write(tmp_path, configuration(precision="INT4")))

    assert (found.runs[0].dtype, found.runs[0].quantization) == (None, "int4")


@pytest.mark.parametrize("key", ["joules_per_output_token", "avg_output_tokens", "row_id", "avg_running_batch"])
def test_a_missing_figure_is_an_error_that_names_it(tmp_path: Path, key: str) -> None:
    broken = configuration()
    del broken[key]

    with pytest.raises(CorruptFile, match=key):
        imported(LeadGreen(), write(tmp_path, broken))


def test_a_file_far_too_large_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, configuration())
    with (tmp_path / "leadgreen_mcp" / "data" / "models" / "huge.json").open("wb") as file:
        file.truncate(20 * 1024**2)

    with pytest.raises(DatasetError, match="more than 16,777,216 bytes"):
        imported(LeadGreen(), tmp_path)


def test_a_folder_without_the_package_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"manifest\.json"):
        imported(LeadGreen(), tmp_path)


@pytest.fixture(scope="module")
def installed() -> Imported:
    from importlib.util import find_spec

    spec = find_spec("leadgreen_mcp")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package leadgreen-mcp is not installed")
    return imported(LeadGreen(), Path(spec.submodule_search_locations[0]))


@pytest.mark.shared_data
def test_the_rows_of_the_package_are_all_accounted_for(installed: Imported) -> None:
    assert_sound(installed)
    assert (installed.account.rows_in, installed.account.rows_kept, len(installed.runs)) == (328, 328, 326)
    assert sum(run.trials == 2 for run in installed.runs) == 2
    assert all(run.energy_j is not None for run in installed.runs)
