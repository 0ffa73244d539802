"""End-to-end latencies: what a row becomes, and which rows say too little or repeat another."""

import csv
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.dataset.importers import silicon
from harness.errors import CorruptFile
from tests.harness.dataset.importers.aiconfigurator_examples import flagged, imported, imported_to, rejected, rows_of

TOGETHER = {
    "id": "one",
    "silicon_data_source": "db-dump; silicon_concurrency=16; measured=2026-03-25T00:00:00.000Z; someone's/own/path",
    "backend": "sglang",
    "backend_version": "0.5.9",
    "model_path": "zhipuai/GLM-5",
    "system": "h200_sxm",
    "precision": "fp8",
    "mode": "agg",
    "isl": "1024",
    "osl": "512",
    "gemm_quant_mode": "fp8_block",
    "batch_size": "8",
    "tp_size": "4",
    "pp_size": "1",
    "attention_dp_size": "2",
    "moe_tp_size": "1",
    "moe_ep_size": "8",
    "prefill_num_workers": "",
    "prefill_tp_size": "",
    "decode_num_workers": "",
    "decode_tp_size": "",
    "silicon_ttft_ms": "250.5",
    "silicon_tpot_ms": "12.5",
}
APART = {
    **TOGETHER,
    "id": "two",
    "mode": "disagg",
    "system": "gb200",
    "batch_size": "",
    "tp_size": "",
    "attention_dp_size": "",
    "prefill_num_workers": "2",
    "prefill_tp_size": "4",
    "decode_num_workers": "1",
    "decode_tp_size": "8",
}


def write(folder: Path, *rows: Mapping[str, str], name: str = "silicon_sample.csv") -> Path:
    path = folder / "systems" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(TOGETHER))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_row_is_a_server_with_its_request_degrees_and_times(tmp_path: Path) -> None:
    write(tmp_path, TOGETHER)

    account = imported_to(tmp_path, tmp_path / "out")

    (run,) = rows_of(tmp_path / "out", "runs")
    assert account.rows_kept == 1
    assert (run["workload"], run["model"], run["gpu"]) == ("server", "zai-org/GLM-5", "NVIDIA H200")
    assert (run["n_gpus"], run["tensor_parallel"], run["data_parallel"], run["expert_parallel"]) == (8, 4, 2, 8)
    assert (run["batch_size"], run["prompt_tokens"], run["output_tokens"]) == (16, 1024, 512)
    assert (run["quantization"], run["dtype"]) == ("fp8_block", None)
    assert (run["ttft_s"], run["tpot_s"]) == (pytest.approx(0.2505), pytest.approx(0.0125))
    assert (run["energy_j"], run["duration_s"], run["status_detail"]) == (None, None, None)
    assert run["started_at_utc"] == "2026-03-25T00:00:00.000Z"
    assert not any("own/path" in str(value) for value in run.values())


def test_prefill_and_decode_apart_add_up_their_gpus(tmp_path: Path) -> None:
    write(tmp_path, APART)
    (tmp_path / "systems/gb200.yaml").write_text("node:\n  num_gpus_per_node: 4\n")

    account = imported_to(tmp_path, tmp_path / "out")

    (run,) = rows_of(tmp_path / "out", "runs")
    assert (run["n_gpus"], run["nodes"], run["tensor_parallel"], run["parallelism"]) == (16, 4, None, "mixed")
    assert flagged(account) == {silicon.DISAGGREGATED: 1}


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"system": "z900"}, silicon.NO_GPU),
        ({"silicon_ttft_ms": "0", "silicon_tpot_ms": "nan"}, silicon.NO_TIMES),
        ({"isl": ""}, silicon.NO_REQUEST),
        ({"tp_size": "0"}, silicon.NO_DEGREE),
        ({"mode": "disagg"}, silicon.NO_WORKERS),
        ({}, silicon.SAME_TIMES),
    ],
)
def test_a_row_that_says_too_little_is_left_out_by_a_rule(tmp_path: Path, change: dict[str, str], rule: str) -> None:
    write(tmp_path, TOGETHER, {**TOGETHER, "id": "other", **change})

    assert rejected(imported(tmp_path)) == {rule: 1}


def test_a_zero_stands_for_unknown(tmp_path: Path) -> None:
    write(tmp_path, {**TOGETHER, "attention_dp_size": "0", "silicon_ttft_ms": "0"})

    imported_to(tmp_path, tmp_path / "out")

    (run,) = rows_of(tmp_path / "out", "runs")
    assert (run["n_gpus"], run["data_parallel"], run["ttft_s"]) == (4, None, None)


def test_a_long_wait_is_flagged(tmp_path: Path) -> None:
    write(tmp_path, {**TOGETHER, "silicon_ttft_ms": "61000"})

    assert flagged(imported(tmp_path)) == {silicon.QUEUED: 1}


def test_a_pointer_beside_real_data_is_counted(tmp_path: Path) -> None:
    write(tmp_path, TOGETHER)
    refs = tmp_path / "tools/accuracy_tracking/silicon_refs.csv"
    refs.parent.mkdir(parents=True)
    refs.write_text("version https://git-lfs.github.com/spec/v1\n")

    assert rejected(imported(tmp_path)) == {silicon.POINTER: 1}


def test_a_file_with_other_columns_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, TOGETHER).write_text("a,b\n1,2\n")

    with pytest.raises(CorruptFile, match="lacks the columns backend"):
        imported(tmp_path)
