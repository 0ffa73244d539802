"""The command with one request, and the same from Python."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import predictor.predict as command
from harness.errors import UsageError
from harness.hardware import EXAMPLE_FILE
from predictor.api import predict
from predictor.predict import main
from tests.predictor.fake_predictor import FakePredictor

ONE = ("--model", "meta-llama/Llama-2-70b-hf", "--gpu", "A100-SXM4-80GB", "--gpus", "4")
SIZES = ("--batch", "8", "--prompt", "512", "--output", "128")
ROOT = Path(__file__).resolve().parents[2]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(arguments, predictor=FakePredictor())
    output = capsys.readouterr()
    assert (code, output.err) == (0, "")
    return output.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    fake = FakePredictor()
    assert main(arguments, predictor=fake) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    return output.err


def test_json_has_the_request_with_its_defaults_and_every_output_column(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, *ONE, *SIZES, "--region", "FR", "--json"))

    assert found["gpu"] == "NVIDIA A100-SXM4-80GB"
    assert (found["n_gpus"], found["dtype"], found["runtime"], found["kv_cache"]) == (4, "bfloat16", "hf", True)
    assert found["prefill_energy_j"] == pytest.approx(4.096)  # 8 × 512 mJ
    assert found["decode_energy_j"] == pytest.approx(127 * 2.08)
    assert found["energy_j"] == pytest.approx(4.096 + 127 * 2.08)
    assert (found["energy_low_j"], found["energy_high_j"]) == pytest.approx(
        (0.9 * found["energy_j"], 1.1 * found["energy_j"])
    )
    assert found["time_s"] == pytest.approx(found["prefill_time_s"] + found["decode_time_s"])
    assert found["energy_per_output_token_j"] == pytest.approx(found["energy_j"] / 1024)
    assert found["mean_power_w"] == pytest.approx(found["energy_j"] / found["time_s"])
    assert (found["in_distribution"], found["warning"], found["error"]) == (True, None, None)
    assert found["operational_gco2e"] == pytest.approx(
        found["energy_j"] / 3.6e6 * found["pue"] * found["intensity_g_per_kwh"]
    )
    assert found["embodied_gco2e"] is None  # nothing is published of an A100
    assert "codecarbon" in found["intensity_source"]


def test_without_a_region_there_are_no_grams(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gco2e" not in printed(capsys, *ONE, *SIZES, "--json")
    assert "gCO2e" not in printed(capsys, *ONE, *SIZES)


def test_people_read_phases_grams_and_trust(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--model", "gpt2", "--gpu", "H100-SXM", *SIZES, "--intensity", "100", "--pue", "1.2")

    assert text.splitlines() == [
        "gpt2 in bfloat16 on NVIDIA H100 80GB HBM3, hf",
        "8 × 512 prompt and 128 output tokens",
        "",
        "         energy    90 % interval    time      90 % interval  power",
        "prefill  8.19 J  7.37 J – 9.01 J  4.1 ms  3.69 ms – 4.51 ms   2 kW",
        "decode    528 J    475 J – 581 J  1.27 s     1.14 s – 1.4 s  416 W",
        "whole     537 J    483 J – 590 J  1.27 s     1.15 s – 1.4 s  421 W",
        "",
        "524 mJ per output token (1,024 of them)",
        "operational 17.9 mgCO2e, embodied 11.8 mgCO2e",
        "  100 gCO2e/kWh (given with the request), PUE 1.2; energy of the GPUs alone",
        "  hardware in service for 3 years at a utilisation of 1",
        "in distribution: yes, measurements like it were learned from",
        "predictor: fake",
    ]


def test_what_is_far_from_everything_learned_is_called_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *ONE, "--prompt", "3500", "--output", "2")

    assert "in distribution: no" in text
    assert "guess" in text


def test_prefill_alone_has_no_decode_and_no_output_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, *ONE, "--prompt", "512", "--output", "0")

    assert "decode" not in text
    assert "per output token" not in text


def test_the_flags_of_a_request_reach_the_predictor(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--dtype", "fp16", "--runtime", "TensorRT-LLM", "--parallelism", "tp", "--attention", "FA2")
    more = ("--no-kv-cache", "--cuda-graphs", "--sm-clock-mhz", "1200", "--power-limit-w", "300", "--server")
    found = json.loads(
        printed(capsys, *ONE, *SIZES, *flags, *more, "--host-us-per-launch", "3.5", "--expert-parallel", "2", "--json")
    )

    assert (found["dtype"], found["runtime"], found["parallelism"]) == ("float16", "trtllm", "tensor")
    assert (found["attention"], found["kv_cache"], found["cuda_graphs"]) == ("flash_attention_2", False, True)
    assert (found["sm_clock_mhz"], found["power_limit_w"], found["server"]) == (1200, 300, True)
    assert (found["host_us_per_launch"], found["expert_parallel"]) == (3.5, 2)


def test_a_gpu_without_bfloat16_is_asked_for_float16_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "--model", "gpt2", "--gpu", "V100-SXM2-32GB", *SIZES, "--json"))

    assert found["dtype"] == "float16"
    assert "no bfloat16" in found["warning"]


def test_a_dtype_that_the_gpu_emulates_is_answered_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    assert "warning: no native float8 on NVIDIA A100" in printed(capsys, *ONE, *SIZES, "--dtype", "fp8")


def test_narrow_weights_are_computed_with_in_sixteen_bits(capsys: pytest.CaptureFixture[str]) -> None:
    assert "warning" not in printed(capsys, *ONE, *SIZES, "--dtype", "awq")


def test_a_context_beyond_the_models_is_a_warning_where_the_runtime_computes_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    long = ("--prompt", "4090", "--output", "8")

    assert "longer than the 4,096" in printed(capsys, *ONE, *long)
    assert "vllm refuses it" in refused(capsys, *ONE, *long, "--runtime", "vllm")
    assert "warning" not in printed(capsys, *ONE, "--prompt", "4090", "--output", "7")


def test_learned_positions_end_at_the_context(capsys: pytest.CaptureFixture[str]) -> None:
    assert "positions end there" in refused(
        capsys, "--model", "gpt2", "--gpu", "H200", "--prompt", "1024", "--output", "2"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "A100"), "Say which:\n  NVIDIA A100-SXM4-40GB"),
        (("--gpu", "H20O"), "Closest: NVIDIA H200"),
        (("--gpu", "H200", "--model", "meta-llama/Llama-2-70b"), "Closest: meta-llama/Llama-2-70b-hf"),
        (("--gpu", "H200", "--batch", "0"), "batch_size: '0' is not a whole number from 1"),
        (("--gpu", "H200", "--batch", "1_000"), "batch_size: '1_000' is not a number"),
        (("--gpu", "H200", "--dtype", "int3"), "dtype: 'int3' is not known; it is one of float32"),
        (("--gpu", "H200", "--runtime", "ollama"), "runtime: 'ollama' is not known; it is one of hf, vllm"),
        (("--gpu", "H200", "--sm-clock-mhz", "9000"), "cannot run at 9000 MHz"),
        (("--gpu", "H200", "--power-limit-w", "701"), "701 W is above the 700 W"),
        (("--gpu", "H200", "--gpus", "4", "--expert-parallel", "3"), "3 ranks do not divide 4 GPUs"),
        (("--gpu", "H200", "--batch", "1001"), "Take a smaller batch."),
        (("--gpu", "H200", "--intensity", "-1"), "gCO2e per kWh"),
        (("--gpu", "H200", "--intensity", "nan"), "gCO2e per kWh"),
        (("--gpu", "H200", "--region", "FR", "--pue", "0.5"), "pue = 0.5 cannot be"),
        (("--gpu", "H200", "--region", "Frnce"), "no grid intensity"),
        (("--gpu", "H200", "--region", "FR", "--intensity", "3"), "Leave out one of them"),
        (("--gpu", "H200", "--pue", "1.1"), "Add --region FR"),
        (("--gpu", "H200", "--out", "x.csv"), "go with --requests"),
        (("--gpu", "H200", "--hardware", "nowhere.toml"), "is not a file"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    base = () if "--model" in arguments else ("--model", "Qwen/Qwen3-8B")
    assert said in refused(capsys, *base, "--prompt", "128", "--output", "16", *arguments)


def test_everything_that_is_missing_is_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--model, --gpu, --output" in refused(capsys, "--prompt", "128")


def test_a_wrong_request_loads_no_predictor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--model", "gpt2", "--gpu", "A100", "--prompt", "1", "--output", "1"]) == 2
    assert "Say which" in capsys.readouterr().err


def test_a_config_and_a_gpu_of_ones_own_are_known_by_their_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "llama", "max_position_embeddings": 64}')
    (tmp_path / "gpu.toml").write_text(EXAMPLE_FILE)
    flags = ("--gpu", "example", "--hardware", str(tmp_path / "gpu.toml"), "--prompt", "60", "--output", "9")

    for model in (config, tmp_path):
        assert "longer than the 64" in printed(capsys, "--model", str(model), *flags)
    assert "no model_type" not in printed(capsys, "--model", str(config), *flags)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"hidden_size": 4}', "\x00"])
def test_a_config_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)

    refused(capsys, "--model", str(path), "--gpu", "H200", "--prompt", "1", "--output", "1")


def test_known_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "meta-llama/Llama-2-70b-hf" in printed(capsys, "--list-models").splitlines()
    assert "NVIDIA A100-SXM4-80GB" in printed(capsys, "--list-gpus").splitlines()


def test_python_gets_the_same_in_three_lines() -> None:
    prediction = predict(
        model="gpt2", gpu="V100-SXM2-32GB", gpus=2, batch=8, prompt=512, output=128, predictor=FakePredictor()
    )

    assert prediction.prefill.energy_j == pytest.approx(4.096)
    assert prediction.decode.duration_s == pytest.approx(127 * 0.005)
    assert "float16" in prediction.warnings[0]


def test_python_raises_what_the_command_prints() -> None:
    with pytest.raises(UsageError, match="Take a smaller batch"):
        predict(model="gpt2", gpu="H200", batch=2000, prompt=5, output=1, predictor=FakePredictor())
    with pytest.raises(UsageError, match="There is no option 'gpu_count'"):
        predict(model="gpt2", gpu="H200", prompt=5, output=1, predictor=FakePredictor(), gpu_count=2)


def test_the_function_of_the_package_works_whether_or_not_the_command_was_imported() -> None:
    from predictor import predict as either  # the module of that name was imported above

    module: Any = command
    for called in (either, module):
        found = called(model="gpt2", gpu="H200", prompt=512, output=1, predictor=FakePredictor())
        assert found.whole.energy_j == pytest.approx(2 * 0.512)


def test_importing_the_package_and_asking_for_help_load_nothing_heavy() -> None:
    heavy = "{'torch', 'transformers', 'torch_geometric', 'pyarrow', 'numpy', 'pandas', 'plotly', 'duckdb'}"
    code = (
        "import sys, predictor; from predictor import predict; from predictor.predict_options import parse; "
        f"parse(['--model', 'gpt2']); import predictor.predict; print(sorted({heavy} & set(sys.modules)), predict)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stdout.startswith("[] <function predict")


def test_one_request_loads_neither_torch_nor_transformers_by_itself() -> None:
    code = (
        "import sys; from predictor import predict; from tests.predictor.fake_predictor import FakePredictor; "
        "predict(model='gpt2', gpu='H200', prompt=5, output=1, predictor=FakePredictor()); "
        "print(sorted({'torch', 'transformers', 'torch_geometric', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    assert done.stdout.strip() == "[]"
