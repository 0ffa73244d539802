"""aiconfigurator's kernels: known answers from a few rows made by hand, and the balance of the published ones."""

import json
import time
from pathlib import Path

import pytest

from harness.dataset.importers import aiconfigurator_groups as groups
from harness.dataset.importers import aiconfigurator_query as query
from harness.errors import CorruptFile, DatasetError
from tests.harness.dataset.importers.aiconfigurator_examples import (
    GEMM,
    H200,
    PLACE,
    flagged,
    imported,
    imported_to,
    rejected,
    rows_of,
    write_kernels,
)

SHARED = Path(__file__).resolve().parents[5] / "shared/data/aiconfigurator"


def one_kernel(tmp_path: Path, place: str, **columns: object) -> dict[str, object]:
    """The kernel that one row of a file becomes."""
    write_kernels(tmp_path, place, [columns])
    imported_to(tmp_path, tmp_path / "out")
    (kernel,) = rows_of(tmp_path / "out", "kernels")
    return kernel


def test_a_product_has_its_sizes_counts_time_and_energy(tmp_path: Path) -> None:
    write_kernels(tmp_path, PLACE, [GEMM])

    account = imported_to(tmp_path, tmp_path / "out")

    (run,), (kernel,), (energy,) = (rows_of(tmp_path / "out", name) for name in ("runs", "kernels", "kernel_energies"))
    assert (account.rows_in, account.rows_kept) == (1, 1)
    assert (run["gpu"], run["runtime"], run["runtime_version"], run["n_gpus"]) == (H200, "vllm", "0.22.0", 1)
    assert (run["workload"], run["provenance"], run["model"], run["quality"]) == ("kernels", "imported", None, None)
    assert (kernel["kind"], kernel["op"], kernel["dtype"], kernel["phase"]) == ("gemm", "gemm", "bfloat16", None)
    assert kernel["shape"] == '{"m":512,"n":1024,"k":2048}'
    assert kernel["variant"] == '{"gemm_dtype":"bfloat16","kernel_source":"cutlass"}'
    assert kernel["flop"] == 2 * 512 * 1024 * 2048
    assert kernel["read_bytes"] == 2 * (512 * 2048 + 1024 * 2048)
    assert kernel["write_bytes"] == 2 * 512 * 1024
    assert kernel["link_bytes"] == 0
    assert kernel["duration_s"] == pytest.approx(0.25e-3)
    assert (energy["energy_j"], energy["active_energy_j"]) == (pytest.approx(0.1), None)
    assert energy["method"] == "imported"
    assert kernel["flags"] is None


def test_weights_alone_may_be_small_and_their_inputs_are_not(tmp_path: Path) -> None:
    kernel = one_kernel(tmp_path, PLACE, **{**GEMM, "gemm_dtype": "int4_wo"})

    assert kernel["dtype"] == "bfloat16"
    assert kernel["read_bytes"] == 2 * 512 * 2048 + 1024 * 2048 * 4.125 / 8


def test_decode_reads_the_cache_in_its_own_dtype_and_no_further_than_the_window(tmp_path: Path) -> None:
    kernel = one_kernel(
        tmp_path,
        "h200_sxm/attention/vllm/0.22.0/generation_attention_perf",
        **{key: GEMM[key] for key in ("framework", "version", "device", "latency")},
        op_name="generation_attention",
        kernel_source="flash",
        batch_size=4,
        isl=1,
        num_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        attn_dtype="bfloat16",
        kv_cache_dtype="fp8",
        step=1000,
        window_size=128,
    )

    assert json.loads(str(kernel["shape"])) == {
        "batch": 4,
        "query_tokens": 1,
        "context_tokens": 1000,
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 64,
        "window_tokens": 128,
    }
    assert kernel["flop"] == 4 * 4 * 8 * 128 * 64
    assert kernel["read_bytes"] == 4 * 64 * (8 * 2 + 2 * 2 * 128)


def test_prefill_counts_the_full_square_and_is_not_too_fast_for_skipping_what_is_masked(tmp_path: Path) -> None:
    tokens, heads, width = 8192, 32, 128
    full = 4 * tokens**2 * heads * width
    columns = {
        **{key: GEMM[key] for key in ("framework", "version", "device")},
        "op_name": "context_attention",
        "kernel_source": "flash",
        "batch_size": 1,
        "isl": tokens,
        "num_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": width,
        "attn_dtype": "bfloat16",
        "kv_cache_dtype": "bfloat16",
        "step": 0,
    }
    place = "h200_sxm/attention/vllm/0.22.0/context_attention_perf"
    peak = 989e12
    at_half, faster = 0.6 * full / peak * 1e3, 0.25 * full / peak * 1e3
    write_kernels(
        tmp_path, place, [{**columns, "latency": at_half}, {**columns, "latency": faster, "kernel_source": "x"}]
    )
    imported_to(tmp_path, tmp_path / "out")

    first, second = rows_of(tmp_path / "out", "kernels")

    assert first["flop"] == full
    assert first["flags"] is None
    assert second["flags"] == "faster than the Roofline (× 2.0)"


@pytest.mark.parametrize(("distribution", "read"), [("balanced", True), ("power_law_1.2", False)])
def test_experts_are_read_as_often_as_an_even_load_touches_them_and_else_it_is_not_known(
    tmp_path: Path, distribution: str, read: bool
) -> None:
    kernel = one_kernel(
        tmp_path,
        "h200_sxm/moe/vllm/0.22.0/moe_perf",
        **{key: GEMM[key] for key in ("framework", "version", "device", "latency")},
        op_name="moe",
        kernel_source="fused",
        moe_dtype="bfloat16",
        num_tokens=2,
        hidden_size=1024,
        inter_size=512,
        topk=2,
        num_experts=8,
        moe_tp_size=1,
        moe_ep_size=1,
        distribution=distribution,
    )

    touched = 4  # two tokens to two experts each, all of them different
    assert kernel["kind"] == "moe_gemm"
    assert kernel["flop"] == 2 * 4 * 3 * 1024 * 512
    assert kernel["read_bytes"] == (2 * (2 * 1024 + touched * 3 * 1024 * 512) if read else None)


def test_a_collective_counts_elements_and_what_a_ring_sends(tmp_path: Path) -> None:
    kernel = one_kernel(
        tmp_path,
        "h200_sxm/comm/nccl/2.26.2/nccl_perf",
        framework="TRTLLM",
        version="2.29.2",
        device=H200,
        op_name="all_reduce",
        kernel_source="NCCL",
        nccl_dtype="half",
        num_gpus=8,
        message_size=1024,
        latency=0.02,
    )
    (run,) = rows_of(tmp_path / "out", "runs")

    assert (run["runtime"], run["runtime_version"], run["n_gpus"]) == ("nccl", "2.26.2", 8)
    assert (kernel["kind"], kernel["dtype"]) == ("all_reduce", "float16")
    assert kernel["shape"] == '{"elements":1024,"ranks":8}'
    assert (kernel["read_bytes"], kernel["link_bytes"]) == (2048, 2 * 2048 * 7 // 8)


def test_one_row_may_hold_a_dispatch_and_a_combine_and_0_is_no_time(tmp_path: Path) -> None:
    write_kernels(
        tmp_path,
        "h200_sxm/comm/sglang/0.5.12/wideep_deepep_normal_perf",
        [
            {
                "framework": "sglang",
                "version": "0.5.12",
                "device": H200,
                "op_name": "normal",
                "kernel_source": "deepep",
                "node_num": 2,
                "hidden_size": 7168,
                "num_token": 128,
                "num_topk": 8,
                "num_experts": 256,
                "dispatch_sms": 24,
                "dispatch_transmit_us": 50.0,
                "dispatch_notify_us": 0.0,
                "combine_sms": 20,
                "combine_transmit_us": 80.0,
                "combine_notify_us": 5.0,
            }
        ],
    )
    (tmp_path / "systems/h200_sxm.yaml").write_text("node:\n  num_gpus_per_node: 8\n")

    account = imported_to(tmp_path, tmp_path / "out")

    times = {row["op"]: row["duration_s"] for row in rows_of(tmp_path / "out", "kernels")}
    assert times == {
        "deepep_normal_dispatch": pytest.approx(50e-6),
        "deepep_normal_combine": pytest.approx(80e-6),
        "deepep_normal_combine_notify": pytest.approx(5e-6),
    }
    assert (account.rows_in, account.rows_kept) == (1, 1)
    assert rows_of(tmp_path / "out", "runs")[0]["n_gpus"] == 16


def test_repeats_stay_and_equal_rows_do_not(tmp_path: Path) -> None:
    write_kernels(tmp_path, PLACE, [GEMM, {**GEMM, "latency": 0.26}, GEMM])

    account = imported_to(tmp_path, tmp_path / "out")

    ids = [str(row["kernel_id"]) for row in rows_of(tmp_path / "out", "kernels")]
    assert ids[1] == f"{ids[0]}-2"
    assert rejected(account) == {query.TWIN: 1}
    assert account.rows_kept == 2


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"latency": 0.0}, query.NO_TIME),
        ({"latency": float("nan")}, query.NO_TIME),
        ({"latency": None}, query.NO_TIME),
        ({"m": 0}, query.NO_SIZE),
        ({"m": None}, query.NO_SIZE),
        ({"m": -8}, query.NO_SIZE),
        ({"device": "NVIDIA B200"}, query.OTHER_DEVICE),
    ],
)
def test_a_row_that_says_nothing_is_left_out_by_a_rule(tmp_path: Path, change: dict[str, object], rule: str) -> None:
    write_kernels(tmp_path, PLACE, [GEMM, {**GEMM, "kernel_source": "other", **change}])

    account = imported(tmp_path)

    assert rejected(account) == {rule: 1}
    assert account.rows_kept == 1


def test_a_size_that_is_a_fraction_is_left_out_and_not_rounded(tmp_path: Path) -> None:
    write_kernels(tmp_path, PLACE, [{**GEMM, "m": 1.5}, {**GEMM, "m": 2.0}])

    account = imported_to(tmp_path, tmp_path / "out")

    assert rejected(account) == {query.NO_SIZE: 1}
    (kernel,) = rows_of(tmp_path / "out", "kernels")
    assert kernel["shape"] == '{"m":2,"n":1024,"k":2048}'


def test_columns_may_have_any_name(tmp_path: Path) -> None:
    names = {"row": 7, "number": 8, "flags": "x", 'a "b"': 1, "it's": 2}
    write_kernels(tmp_path, PLACE, [{**GEMM, **names}, {**GEMM, **names, "row": 9}])

    account = imported_to(tmp_path, tmp_path / "out")

    kernels = rows_of(tmp_path / "out", "kernels")
    assert (account.rows_in, account.rows_kept) == (2, 2)
    assert [json.loads(str(kernel["variant"]))["row"] for kernel in kernels] == [7, 9]
    assert json.loads(str(kernels[0]["variant"]))['a "b"'] == 1


def test_what_is_no_file_is_counted_and_a_file_of_too_many_rows_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_kernels(tmp_path, PLACE, [GEMM, GEMM])
    path.with_name("moe_perf.parquet").symlink_to("nowhere")
    path.with_name("mla_bmm_perf.parquet").mkdir()
    path.with_name("scale_matrix_perf.parquet").symlink_to("/dev/zero")

    assert rejected(imported(tmp_path)) == {groups.NO_FILE: 3, query.TWIN: 1}

    monkeypatch.setattr(groups, "_MOST_ROWS", 1)
    with pytest.raises(CorruptFile, match="has 2 rows"):
        imported(tmp_path)


@pytest.mark.parametrize(("fast", "suspicious"), [(3, False), (10, True)])
def test_a_file_of_many_kernels_faster_than_memory_is_suspicious_wherever_reading_takes_time(
    tmp_path: Path, fast: int, suspicious: bool
) -> None:
    columns = {
        **{key: GEMM[key] for key in ("framework", "version", "device", "kernel_source")},
        "op_name": "generation_attention",
        "attn_dtype": "bfloat16",
        "kv_cache_dtype": "bfloat16",
        "isl": 1,
        "num_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "batch_size": 128,
    }
    bytes_per_token = 2 * 2 * 8 * 128 * 128
    at_peak_ms = [bytes_per_token * (4000 + place) / 4.8e12 * 1e3 for place in range(20)]
    rows = [
        {**columns, "step": 4000 + place, "latency": time_ms * (0.6 if place < fast else 1.1)}
        for place, time_ms in enumerate(at_peak_ms)
    ]
    rows.append({**columns, "step": 1, "latency": 0.02})  # all launch, no reading
    write_kernels(tmp_path, "h200_sxm/attention/vllm/0.22.0/generation_attention_perf", rows)

    account = imported_to(tmp_path, tmp_path / "out")

    assert flagged(account)[query.TOO_FAST] == fast
    assert flagged(account).get(query.UNREAD, 0) == (20 if suspicious else 0)
    assert rows_of(tmp_path / "out", "kernels")[-1]["flags"] is None


def test_power_that_is_0_or_missing_gives_no_energy(tmp_path: Path) -> None:
    rows = [{**GEMM, "m": size, "power": power} for size, power in ((1, 0.0), (2, None), (3, float("nan")), (4, 300.0))]
    write_kernels(tmp_path, PLACE, rows)

    imported_to(tmp_path, tmp_path / "out")

    assert len(rows_of(tmp_path / "out", "kernels")) == 4
    assert [row["energy_j"] for row in rows_of(tmp_path / "out", "kernel_energies")] == [pytest.approx(0.075)]


def test_suspicious_power_and_times_are_flagged_by_rule(tmp_path: Path) -> None:
    rows = [
        {**GEMM, "m": 1, "power": 771.0},
        {**GEMM, "m": 2, "latency": 0.09},
        {**GEMM, "m": 3, "latency": 0.0005},
        {**GEMM, "m": 4096, "n": 8192, "k": 8192, "latency": 0.1},
    ]
    write_kernels(tmp_path, PLACE, rows)

    account = imported(tmp_path)

    assert flagged(account) == {
        query.ABOVE_LIMIT: 1,
        query.BELOW_POLL: 2,
        query.TOO_SHORT: 1,
        query.TOO_FAST: 1,
    }


def test_rows_name_their_backend_and_version_and_a_copy_of_their_file_adds_nothing(tmp_path: Path) -> None:
    for place in ("h200_sxm/gemm/sglang/0.5.6/gemm_perf", "h200_sxm/gemm/vllm/0.22.0/gemm_perf"):
        write_kernels(tmp_path, place, [GEMM])

    account = imported_to(tmp_path, tmp_path / "out")

    (run,) = rows_of(tmp_path / "out", "runs")
    assert (run["runtime"], run["runtime_version"]) == ("vllm", "0.22.0")
    assert rejected(account) == {query.TWIN: 1}
    assert flagged(account) == {}  # the row of the folder that agrees with it was kept


def test_a_version_that_is_none_is_that_of_the_folder(tmp_path: Path) -> None:
    write_kernels(tmp_path, PLACE, [{**GEMM, "version": "kernel-level"}])

    imported_to(tmp_path, tmp_path / "out")

    assert rows_of(tmp_path / "out", "runs")[0]["runtime_version"] == "0.22.0"


def test_the_file_of_another_gpu_with_the_same_rows_is_flagged(tmp_path: Path) -> None:
    write_kernels(tmp_path, PLACE, [GEMM])
    write_kernels(tmp_path, PLACE.replace("h200_sxm", "h100_sxm"), [{**GEMM, "device": "NVIDIA H100 80GB HBM3"}])

    assert flagged(imported(tmp_path)) == {query.COPIED: 2}


def test_unknown_kinds_gpus_and_columns_are_counted_not_skipped(tmp_path: Path) -> None:
    write_kernels(tmp_path, PLACE, [GEMM])
    write_kernels(tmp_path, "h200_sxm/gemm/vllm/0.22.0/newest_perf", [GEMM, GEMM])
    write_kernels(tmp_path, "z900/gemm/vllm/0.22.0/gemm_perf", [GEMM] * 3)
    write_kernels(tmp_path, "h200_sxm/gemm/vllm/0.23.0/gemm_perf", [{"m": 1, "latency": 1.0}] * 4)

    account = imported(tmp_path)

    assert rejected(account) == {groups.UNKNOWN_KIND: 2, groups.UNKNOWN_GPU: 3, groups.OTHER_COLUMNS: 4}
    assert (account.rows_in, account.rows_kept) == (10, 1)


def test_an_operation_nobody_knows_is_counted(tmp_path: Path) -> None:
    row = {
        **{key: GEMM[key] for key in ("framework", "version", "device", "latency", "kernel_source")},
        "op_name": "all_shuffle",
        "nccl_dtype": "half",
        "num_gpus": 2,
        "message_size": 1024,
    }
    write_kernels(tmp_path, "h200_sxm/comm/nccl/2.26.2/nccl_perf", [row])

    assert rejected(imported(tmp_path)) == {query.NO_KERNEL: 1}


def test_text_in_a_file_cannot_become_sql_or_break_the_json(tmp_path: Path) -> None:
    kernel = one_kernel(tmp_path, PLACE, **{**GEMM, "kernel_source": """'"; DROP TABLE found; --\\"""})

    assert json.loads(str(kernel["variant"]))["kernel_source"] == """'"; DROP TABLE found; --\\"""


def test_a_file_that_is_no_parquet_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_kernels(tmp_path, PLACE, [GEMM]).write_bytes(b"PAR1 and nothing else")

    with pytest.raises(CorruptFile, match=r"gemm_perf\.parquet is no intact Parquet file"):
        imported(tmp_path)


def test_pointers_of_git_lfs_are_an_error_that_says_how_to_fetch_the_data(tmp_path: Path) -> None:
    write_kernels(tmp_path, PLACE, [GEMM]).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")

    with pytest.raises(DatasetError, match="lfs pull"):
        imported(tmp_path)


def test_a_folder_with_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no data of aiconfigurator"):
        imported(tmp_path)
    with pytest.raises(DatasetError, match="is not there"):
        imported(tmp_path / "nowhere")


@pytest.mark.parametrize("inner", [".", "systems", "systems/data"])
def test_the_clone_and_what_lies_in_it_give_the_same_runs(tmp_path: Path, inner: str) -> None:
    write_kernels(tmp_path / "clone", PLACE, [GEMM])

    imported_to(tmp_path / "clone" / inner, tmp_path / "out")
    imported_to(tmp_path / "clone", tmp_path / "again")

    first, second = (rows_of(tmp_path / name, "runs") for name in ("out", "again"))
    assert [row["run_id"] for row in first] == [row["run_id"] for row in second]


def test_the_commit_is_that_of_the_clone_and_not_of_a_folder_around_it(tmp_path: Path) -> None:
    write_kernels(tmp_path / "clone", PLACE, [GEMM])
    for folder, commit in ((tmp_path, "0" * 40), (tmp_path / "clone", "1" * 40)):
        (folder / ".git").mkdir()
        (folder / ".git/HEAD").write_text(f"{commit}\n")

    imported_to(tmp_path / "clone", tmp_path / "out")

    (source,) = rows_of(tmp_path / "out", "sources")
    assert (source["source"], source["version"], source["licence"]) == ("aiconfigurator", "1" * 40, "Apache-2.0")


def test_the_installed_package_is_a_source_of_its_own_with_its_version(tmp_path: Path) -> None:
    write_kernels(tmp_path / "aiconfigurator_core", PLACE, [GEMM])
    (tmp_path / "aiconfigurator_core-0.12.0.dist-info").mkdir()

    imported_to(tmp_path / "aiconfigurator_core", tmp_path / "out")

    (source,) = rows_of(tmp_path / "out", "sources")
    assert (source["source"], source["version"]) == ("aiconfigurator-core", "0.12.0")


@pytest.mark.shared_data
@pytest.mark.skipif(not SHARED.is_dir(), reason="the public measurements are not here")
def test_every_published_row_is_accounted_for() -> None:
    started = time.monotonic()

    account = imported(SHARED)

    print(f"{account.rows_in} rows in {time.monotonic() - started:.0f} s")
    kernels = 1_745_592
    assert account.rows_in == kernels + 5_221 + 35
    assert account.rows_kept >= kernels - 200 + 3_000
    assert rejected(account)[query.OTHER_DEVICE] == 23  # H100 rows in a file of the H200
    flags = flagged(account)
    assert flags[query.BELOW_POLL] == 453_698
    assert query.ABOVE_LIMIT not in flags  # 473 rows are above their limit, none by a tenth
    assert 0 < flags[query.TOO_FAST] < 0.002 * kernels
    assert flags[query.UNREAD] == 1_890 + 8_474  # decode attention of TensorRT-LLM on the A100 and on the B200
