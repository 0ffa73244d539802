"""The ML.ENERGY leaderboard: servers at steady state, rows that stand in two files, checks of balance and Roofline."""

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.importers.ml_energy import NO_LANGUAGE_MODEL, SAME_ROW, MlEnergy
from harness.dataset.importers.ml_energy_rows import (
    HOST_BOUND,
    IMAGES,
    NO_BALANCE,
    NO_GPU,
    NO_PRODUCT,
    NOT_POSITIVE,
    TOO_MUCH_POWER,
    VIDEO,
    Deployment,
    ServerSample,
    least_step_s,
)
from harness.errors import CorruptFile, DatasetError
from harness.hardware import find
from harness.words import Part, Workload
from tests.harness.dataset.importers.run_examples import Imported, assert_sound, imported, shared

MODEL = {
    "model_id": "Qwen/Qwen3-8B",
    "task": "lm-arena-chat",
    "weight_precision": "bfloat16",
    "total_params_billions": 8.0,
    "activated_params_billions": 8.0,
}


def configuration(**changes: object) -> dict[str, Any]:
    """600 W at 2000 tokens a second: 0.3 J a token, 150 J for 500 tokens."""
    usual = {
        "gpu_model": "H100",
        "num_gpus": 1,
        "max_num_seqs": 32,
        "avg_batch_size": 31.5,
        "avg_output_len": 500.0,
        "avg_power_watts": 600.0,
        "output_throughput_tokens_per_sec": 2000.0,
        "energy_per_token_joules": 0.3,
        "energy_per_request_joules": 150.0,
        "median_itl_ms": 8.0,
        "p99_itl_ms": 20.0,
        "parallelization": {"tensor_parallel": 1, "expert_parallel": 1, "data_parallel": 1, "notes": ""},
    }
    return usual | changes


def degrees(tensor: int = 1, expert: int = 1, data: int = 1) -> dict[str, int]:
    return {"tensor_parallel": tensor, "expert_parallel": expert, "data_parallel": data}


def write(folder: Path, *rows: Mapping[str, object], name: str = "models/one.json", **changes: object) -> Path:
    file = folder / "public" / "data" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(MODEL | changes | {"configurations": rows}).encode()
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return folder


def test_a_configuration_becomes_a_server_with_joules_of_one_sequence(tmp_path: Path) -> None:
    found = imported(MlEnergy(), write(tmp_path, configuration()))

    (run,), (reading,) = found.runs, found.readings
    assert (run.workload, run.model, run.prompts, run.runtime) == (
        Workload.SERVER,
        "Qwen/Qwen3-8B",
        "lm-arena-chat",
        "vllm",
    )
    assert (run.gpu, run.n_gpus, run.parallelism) == ("NVIDIA H100 80GB HBM3", 1, "none")
    assert (run.dtype, run.quantization) == ("bfloat16", None)
    assert (run.batch_size, run.mean_batch_size, run.mean_output_tokens) == (32, 31.5, 500.0)
    assert (run.energy_j, run.mean_power_w, run.output_tokens_per_s, run.tpot_s) == (150.0, 600.0, 2000.0, 0.008)
    assert (run.duration_s, run.prompt_tokens, run.output_tokens, run.status_detail) == (None, None, None, None)
    assert (reading.part, reading.energy_j, reading.duration_s) == (Part.RUN, 150.0, None)
    assert "99th percentile" in (found.sources[0].derived or "")


def test_the_rows_that_files_by_task_repeat_count_once(tmp_path: Path) -> None:
    flat = configuration(energy_per_request_joules=150.0) | MODEL | degrees()
    del flat["parallelization"], flat["task"]
    write(tmp_path, configuration())

    found = imported(MlEnergy(), write(tmp_path, flat, name="tasks/lm-arena-chat.json.gz"))

    assert (len(found.runs), found.rejected) == (1, {SAME_ROW: 1})


def test_a_folder_with_the_files_by_task_alone_gives_the_same_runs(tmp_path: Path) -> None:
    flat = configuration() | MODEL | degrees()
    del flat["parallelization"], flat["task"]
    by_model, by_task = tmp_path / "model", tmp_path / "task"

    one = imported(MlEnergy(), write(by_model, configuration()))
    two = imported(MlEnergy(), write(by_task, flat, name="tasks/lm-arena-chat.json"))

    assert one.runs == two.runs


def test_two_steady_states_of_one_deployment_are_repeats(tmp_path: Path) -> None:
    other = configuration(energy_per_request_joules=152.0, avg_power_watts=610.0)

    found = imported(MlEnergy(), write(tmp_path, configuration(), other))

    (run,) = found.runs
    assert (run.energy_j, run.mean_power_w, run.trials) == (151.0, 605.0, 2)
    assert [reading.energy_j for reading in found.readings] == [150.0, 152.0]


def test_degrees_of_parallelism_and_precisions_are_kept_as_published(tmp_path: Path) -> None:
    spread = {"avg_power_watts": 4800.0, "energy_per_token_joules": 2.4, "energy_per_request_joules": 1200.0}
    write(tmp_path, configuration(num_gpus=8, parallelization=degrees(tensor=8), **spread))
    write(
        tmp_path,
        configuration(num_gpus=8, parallelization=degrees(expert=8, data=8), gpu_model="B200", **spread),
        name="models/two.json",
        weight_precision="fp8",
    )

    tensor, expert = imported(MlEnergy(), tmp_path).runs

    assert (tensor.parallelism, tensor.tensor_parallel, tensor.expert_parallel) == ("tensor", 8, None)
    assert (expert.parallelism, expert.expert_parallel, expert.data_parallel) == ("mixed", 8, 8)
    assert (expert.dtype, expert.quantization, expert.gpu) == ("bfloat16", "fp8", "NVIDIA B200")


def test_models_that_make_images_or_video_are_left_out(tmp_path: Path) -> None:
    picture = {"gpu_model": "H100", "energy_per_image_joules": 300.0}

    found = imported(MlEnergy(), write(tmp_path, picture, picture, task="text-to-image"))

    assert (found.runs, found.rejected) == ((), {NO_LANGUAGE_MODEL: 2})


@pytest.mark.parametrize(("task", "flag"), [("image-chat", IMAGES), ("video-chat", VIDEO)])
def test_prompts_that_hold_more_than_text_are_flagged(tmp_path: Path, task: str, flag: str) -> None:
    found = imported(MlEnergy(), write(tmp_path, configuration(), task=task))

    assert (found.runs[0].prompts, found.runs[0].status_detail, found.flagged) == (task, flag, {flag: 1})


@pytest.mark.parametrize(
    ("changes", "flags"),
    [
        ({"output_throughput_tokens_per_sec": 2090.0}, None),
        ({"output_throughput_tokens_per_sec": 2110.0}, NO_BALANCE),
        ({"energy_per_request_joules": 160.0}, NO_PRODUCT),
        ({"avg_power_watts": 730.0, "output_throughput_tokens_per_sec": 2433.0}, TOO_MUCH_POWER),
    ],
)
def test_figures_that_contradict_each_other_or_the_gpu_are_flagged(
    tmp_path: Path, changes: dict[str, object], flags: str | None
) -> None:
    found = imported(MlEnergy(), write(tmp_path, configuration(**changes)))

    assert found.runs[0].status_detail == flags


def _sample(**changes: object) -> ServerSample:
    deployment: dict[str, Any] = {
        "model": "m",
        "prompts": "p",
        "gpu": "H100",
        "n_gpus": 2,
        "tensor_parallel": 2,
        "expert_parallel": 1,
        "data_parallel": 1,
        "batch_size": 32,
        "precision": "bfloat16",
        "parameters": 8e9,
        "active_parameters": 8e9,
    }
    return ServerSample(
        deployment=Deployment(**(deployment | changes)),
        energy_per_request_j=150.0,
        energy_per_token_j=0.3,
        mean_power_w=600.0,
        tokens_per_s=2000.0,
        median_step_s=0.008,
        mean_batch_size=2.0,
        mean_output_tokens=500.0,
    )


def test_the_roofline_of_a_step_is_that_of_the_weights_it_reads() -> None:
    h100 = find("NVIDIA H100 80GB HBM3")

    assert least_step_s(_sample(), h100) == pytest.approx(8e9 * 2 / 3.35e12 / 2)
    assert least_step_s(_sample(precision="fp8"), h100) == pytest.approx(8e9 / 3.35e12 / 2)
    # a quarter is active: two sequences miss (3/4)² of the rest
    expected = (2e9 + 6e9 * (1 - 0.75**2)) * 2 / 3.35e12 / 2
    assert least_step_s(_sample(active_parameters=2e9), h100) == pytest.approx(expected)
    assert least_step_s(_sample(precision="int3"), h100) is None


def test_a_server_that_waits_for_its_host_is_flagged(tmp_path: Path) -> None:
    # Weights of 16 GB at 3.35 TB/s take 4.78 ms: 1.8 times that is 8.6 ms. 0.55 of 700 W is 385 W.
    idle = {"avg_power_watts": 380.0, "output_throughput_tokens_per_sec": 1266.7}
    write(tmp_path, configuration(**idle, median_itl_ms=8.5), configuration(**idle, median_itl_ms=8.7, max_num_seqs=8))
    write(tmp_path, configuration(median_itl_ms=8.7, max_num_seqs=16), name="models/two.json")

    found = imported(MlEnergy(), tmp_path)

    assert {run.batch_size: run.status_detail for run in found.runs} == {32: None, 8: HOST_BOUND, 16: None}


def test_a_gpu_that_is_not_known_and_figures_of_nothing_are_left_out_by_a_rule(tmp_path: Path) -> None:
    rows = (configuration(gpu_model="A100"), configuration(gpu_model="TPU v9"), configuration(avg_power_watts=0.0))

    found = imported(MlEnergy(), write(tmp_path, *rows))

    assert (found.runs, found.rejected) == ((), {NO_GPU: 2, NOT_POSITIVE: 1})


def test_a_gpu_with_one_name_in_the_hardware_table_is_found_without_a_rule_of_its_own(tmp_path: Path) -> None:
    found = imported(MlEnergy(), write(tmp_path, configuration(gpu_model="H200")))

    assert found.runs[0].gpu == "NVIDIA H200"


@pytest.mark.parametrize("key", ["energy_per_token_joules", "max_num_seqs", "parallelization"])
def test_a_missing_figure_is_an_error_that_names_it(tmp_path: Path, key: str) -> None:
    broken = configuration()
    del broken[key]

    with pytest.raises(CorruptFile, match=key if key != "parallelization" else "tensor_parallel"):
        imported(MlEnergy(), write(tmp_path, broken))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "much", None, True, [1]])
def test_a_figure_that_is_no_finite_number_is_an_error(tmp_path: Path, value: object) -> None:
    with pytest.raises(CorruptFile, match=r"one\.json"):
        imported(MlEnergy(), write(tmp_path, configuration(avg_power_watts=value)))


def test_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, *[configuration(max_num_seqs=number) for number in range(1, 50)], name="models/one.json.gz")
    file = tmp_path / "public/data/models/one.json.gz"
    file.write_bytes(file.read_bytes()[:-12])

    with pytest.raises(CorruptFile, match="cannot be unpacked"):
        imported(MlEnergy(), tmp_path)


def test_a_folder_without_data_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="public/data/models"):
        imported(MlEnergy(), tmp_path)


@pytest.fixture(scope="module")
def public() -> Imported:
    return imported(MlEnergy(), shared("ml-energy-leaderboard-v3"))


@pytest.mark.shared_data
def test_the_public_rows_are_all_accounted_for(public: Imported) -> None:
    assert_sound(public)
    assert (public.account.rows_in, public.account.rows_kept, len(public.runs)) == (3716, 838, 835)
    assert public.rejected == {NO_LANGUAGE_MODEL: 2040, SAME_ROW: 838}
    assert {run.gpu for run in public.runs} == {"NVIDIA H100 80GB HBM3", "NVIDIA B200"}
    assert len({run.model for run in public.runs}) == 34
    assert (public.flagged[IMAGES], public.flagged[VIDEO]) == (173, 100)


@pytest.mark.shared_data
def test_the_public_repeats_are_three(public: Imported) -> None:
    assert sorted(run.prompts or "" for run in public.runs if run.trials == 2) == [
        "gpqa",
        "lm-arena-chat",
        "lm-arena-chat",
    ]


@pytest.mark.shared_data
def test_the_public_figures_balance_and_their_data_parallel_rows_are_sixteen(public: Imported) -> None:
    assert not {NO_BALANCE, NO_PRODUCT, TOO_MUCH_POWER} & set(public.flagged)
    assert sum(run.data_parallel is not None for run in public.runs) == 16


@pytest.mark.shared_data
def test_public_servers_bound_by_the_host_are_a_minority_with_little_power(public: Imported) -> None:
    bound = [run for run in public.runs if HOST_BOUND in (run.status_detail or "")]

    limits_w = {"NVIDIA H100 80GB HBM3": 700, "NVIDIA B200": 1000}
    assert 0 < len(bound) < len(public.runs) / 5
    assert all((run.mean_power_w or 0.0) < 0.55 * limits_w[run.gpu] * run.n_gpus for run in bound)
