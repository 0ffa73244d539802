"""``python -m harness.run`` from the command line to the files, on a tiny model with random weights on the CPU."""

import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from harness import run
from harness.dataset.reading import read_rows
from harness.kernels import KernelKind, Phase
from harness.records import (
    EnvironmentRow,
    KernelEnergyRow,
    KernelRow,
    Part,
    PhaseRow,
    Provenance,
    Quality,
    RankTimeRow,
    ReadingRow,
    RunRow,
    Status,
    Weights,
)

ROOT = Path(__file__).resolve().parents[2]
TINY = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny-llama") / "config.json"
    path.write_text(json.dumps(TINY))
    return path


@pytest.fixture(scope="module")
def dataset(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder written by the command itself: a request with a decode and one without."""
    out = tmp_path_factory.mktemp("campaign") / "out"
    command = [sys.executable, "-m", "harness.run", "--device", "cpu", "--models", str(config), "--random-weights"]
    command += ["--quality", "quick", "--requests", "2x24x6", "1x16x1", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    (out / "console.txt").write_text(done.stdout)
    return out


@pytest.fixture(scope="module")
def on_ranks(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder written by the command itself: one request on two ranks of the CPU."""
    out = tmp_path_factory.mktemp("campaign") / "out"
    command = [sys.executable, "-m", "harness.run", "--device", "cpu", "--gpus", "2", "--models", str(config)]
    command += ["--random-weights", "--quality", "quick", "--requests", "2x24x6", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    return out


def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "harness.run", *arguments], cwd=ROOT, capture_output=True, text=True)


def test_every_run_says_what_it_is_and_how_its_energy_came_about(dataset: Path) -> None:
    runs = {row.output_tokens: row for row in read_rows(dataset, RunRow)}

    assert set(runs) == {6, 1}
    for row in runs.values():
        assert row.status is Status.OK
        assert row.quality is Quality.QUICK
        assert row.weights is Weights.RANDOM
        assert row.provenance in {Provenance.ESTIMATED, Provenance.MEASURED}
        assert row.method in {"codecarbon-cpu-load", "rapl"}
        assert row.gpu.startswith("cpu: ")
        assert row.n_gpus == 0
        assert row.trials == 3
        assert row.energy_j is not None
        assert row.energy_j > 0
        assert row.residual_j is None, "no method independent of the phase's energy ran"
        assert json.loads(row.configuration or "")["quality"] == "quick"


def test_the_runs_own_window_is_not_the_sum_of_its_phases(dataset: Path) -> None:
    run_row = next(row for row in read_rows(dataset, RunRow) if row.output_tokens == 6)
    phases = [row for row in read_rows(dataset, PhaseRow) if row.run_id == run_row.run_id]

    assert {row.phase for row in phases} == {Phase.PREFILL, Phase.DECODE}
    assert run_row.energy_j != pytest.approx(sum(row.energy_j or 0 for row in phases), rel=1e-9)
    windows = {row.part for row in read_rows(dataset, ReadingRow) if row.run_id == run_row.run_id}
    assert windows == {Part.PREFILL, Part.DECODE, Part.RUN, Part.IDLE}


def test_a_request_of_one_token_is_a_prefill_alone(dataset: Path) -> None:
    run_row = next(row for row in read_rows(dataset, RunRow) if row.output_tokens == 1)

    assert [row.phase for row in read_rows(dataset, PhaseRow) if row.run_id == run_row.run_id] == [Phase.PREFILL]


def test_decode_steps_and_contexts_are_as_asked(dataset: Path) -> None:
    decode = next(row for row in read_rows(dataset, PhaseRow) if row.phase is Phase.DECODE)

    assert (decode.steps, decode.context_start_tokens, decode.context_end_tokens) == (5, 24, 29)


def test_apportioned_kernels_and_host_gaps_fill_each_phase(dataset: Path) -> None:
    spent: dict[tuple[str, Phase | None], float] = defaultdict(float)
    for row in read_rows(dataset, KernelEnergyRow):
        assert row.energy_j is not None
        spent[row.run_id, row.phase] += row.energy_j
    phases = list(read_rows(dataset, PhaseRow))

    assert len(phases) == 3
    for phase in phases:
        assert phase.host_gap_energy_j is not None
        assert phase.energy_j == pytest.approx(spent[phase.run_id, phase.phase] + phase.host_gap_energy_j, rel=1e-9)


def test_a_kernels_energy_is_its_active_energy_and_idle_power_times_its_time(dataset: Path) -> None:
    idle_w = {row.run_id: row.idle_power_w for row in read_rows(dataset, RunRow)}
    energies = {(row.run_id, row.phase, row.kernel_id): row for row in read_rows(dataset, KernelEnergyRow)}
    kernels = list(read_rows(dataset, KernelRow))

    assert kernels
    for kernel in kernels:
        energy = energies[kernel.run_id, kernel.phase, kernel.kernel_id]
        assert energy.energy_j is not None
        assert energy.active_energy_j is not None
        idle_j = (idle_w[kernel.run_id] or math.nan) * (kernel.duration_s or 0)
        assert energy.energy_j == pytest.approx(energy.active_energy_j + idle_j, rel=1e-9, abs=1e-12)


def test_matrix_products_have_the_flop_of_the_model(dataset: Path) -> None:
    run_row = next(row for row in read_rows(dataset, RunRow) if row.output_tokens == 6)
    kernels = [row for row in read_rows(dataset, KernelRow) if row.run_id == run_row.run_id]
    per_token = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128) * 2  # q, o; k, v; gated MLP; two layers
    head = 2 * 64 * 300  # logits of the last position only

    def flop(phase: Phase) -> int:
        return sum(row.flop or 0 for row in kernels if row.phase is phase and row.kind == "gemm")

    assert flop(Phase.PREFILL) == 2 * (24 * per_token + head)
    assert flop(Phase.DECODE) == 2 * 5 * (per_token + head)


def test_the_environment_is_recorded_once_and_named_by_each_run(dataset: Path) -> None:
    environments = list(read_rows(dataset, EnvironmentRow))

    assert {row.environment_id for row in read_rows(dataset, RunRow)} == {row.environment_id for row in environments}
    assert all(row.meter and row.torch and row.transformers and row.cpu_cores for row in environments)


def test_readings_keep_every_trial_of_every_part(dataset: Path) -> None:
    run_row = next(row for row in read_rows(dataset, RunRow) if row.output_tokens == 6)
    readings = [row for row in read_rows(dataset, ReadingRow) if row.run_id == run_row.run_id]

    for part in (Part.PREFILL, Part.DECODE, Part.RUN):
        assert sorted(row.trial for row in readings if row.part is part) == [0, 1, 2]
    assert sorted(row.trial for row in readings if row.part is Part.IDLE) == [0, 1]
    assert all(
        row.counter_start_j is not None
        and row.counter_end_j == pytest.approx(row.counter_start_j + (row.energy_j or 0))
        for row in readings
    )


def test_the_console_says_where_things_are_and_that_nothing_was_measured(dataset: Path) -> None:
    console = (dataset / "console.txt").read_text()

    assert "report.html" in console
    assert "2 runs: 2 ok" in console
    estimated = any(row.provenance is Provenance.ESTIMATED for row in read_rows(dataset, RunRow))
    assert ("estimated by a power model, not measured" in console) == estimated


def test_the_folder_loads_with_datasets(dataset: Path) -> None:
    code = (
        "import datasets, sys; "
        "print([datasets.load_dataset(sys.argv[1], name)['train'].num_rows for name in "
        "('runs', 'phases', 'kernels', 'kernel_energies', 'readings', 'environments')])"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(dataset.parent / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(dataset)], env=environment, capture_output=True, text=True, cwd=dataset.parent
    )

    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert rows[:2] == [2, 3]
    assert all(rows)


def test_a_run_on_ranks_says_how_many_there_are_and_that_no_gpu_was_used(on_ranks: Path) -> None:
    (row,) = read_rows(on_ranks, RunRow)

    assert row.status is Status.OK, row.status_detail
    assert (row.n_gpus, row.nodes, row.parallelism, row.tensor_parallel) == (0, 1, "tensor", 2)
    assert row.energy_j is not None


def test_the_machine_is_metered_once_however_many_ranks_it_has(on_ranks: Path) -> None:
    readings = list(read_rows(on_ranks, ReadingRow))

    assert {(row.rank, row.meter) for row in readings} == {(0, readings[0].meter)}


def test_every_rank_has_its_time_in_every_window(on_ranks: Path) -> None:
    windows = {(row.part, row.trial) for row in read_rows(on_ranks, ReadingRow) if row.part is not Part.IDLE}
    times = list(read_rows(on_ranks, RankTimeRow))

    assert {(row.part, row.trial, row.rank) for row in times} == {
        (*window, rank) for window in windows for rank in (0, 1)
    }
    for window in windows:
        waits_s = [row.wait_s for row in times if (row.part, row.trial) == window]
        assert min(waits_s) == 0, "the last rank waits for nobody"
    assert all(row.duration_s > 0 and row.device == "cpu" and row.node == 0 for row in times)


def test_every_rank_has_its_all_reduces_with_their_bytes(on_ranks: Path) -> None:
    kernels = [row for row in read_rows(on_ranks, KernelRow) if row.kind is KernelKind.ALL_REDUCE]
    of_layers = [row for row in kernels if row.module and ".layers." in row.module]
    hidden_bytes = 4 * 64 * 2  # float32, hidden size, sequences: one token of each

    for phase, tokens, passes in ((Phase.PREFILL, 24, 1), (Phase.DECODE, 1, 5)):
        for rank in (0, 1):
            found = [row for row in of_layers if (row.phase, row.rank) == (phase, rank)]
            assert {row.module for row in found} == {"model.layers.*.self_attn.o_proj", "model.layers.*.mlp.down_proj"}
            assert [row.launches for row in found] == [2 * passes] * 2, "one per layer and pass"
            assert [row.link_bytes for row in found] == [2 * passes * tokens * hidden_bytes] * 2, "2 (N - 1)/N S"
    for row in kernels:
        assert row.wait_s is not None
        assert 0 <= row.wait_s <= (row.duration_s or 0) * (1 + 1e-9)


def test_kernels_and_host_gaps_of_all_ranks_fill_each_phase(on_ranks: Path) -> None:
    spent: dict[Phase | None, float] = defaultdict(float)
    for row in read_rows(on_ranks, KernelEnergyRow):
        spent[row.phase] += row.energy_j or math.nan
    phases = list(read_rows(on_ranks, PhaseRow))

    assert len(phases) == 2
    for phase in phases:
        assert phase.host_gap_energy_j is not None
        assert phase.energy_j == pytest.approx(spent[phase.phase] + phase.host_gap_energy_j, rel=1e-9)


def test_matrix_products_of_all_ranks_have_the_flop_of_the_model(on_ranks: Path) -> None:
    per_token = 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128) * 2
    kernels = [row for row in read_rows(on_ranks, KernelRow) if row.kind is KernelKind.GEMM]
    in_layers = [row for row in kernels if row.phase is Phase.PREFILL and ".layers." in (row.module or "")]

    assert sum(row.flop or 0 for row in in_layers) == 2 * 24 * per_token


def test_a_dry_run_prints_every_run_and_writes_nothing(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--device", "cpu", "--models", str(config), "--random-weights", "--requests", "1x8x4", "3x16x8"]

    done = command(*arguments, "--dry-run", "--out", str(out))

    assert done.returncode == 0, done.stderr
    assert "Planned runs (estimates)" in done.stdout
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpus", "4"], "--device cpu"),
        (["--models", "no/such-model-anywhere"], "no/such-model-anywhere"),
        (["--batchsizes", "3"], "--batch-sizes"),
        (["--requests", "0x8x4"], "is out of range"),
        (["--plan", "/no/such/plan.toml"], "cannot be read"),
        (["--device", "cpu", "--gpus", "2", "--parallelism", "layers"], "splits a model over GPUs"),
        (["--device", "cpu", "--gpus", "2", "--nodes", "2"], "--rendezvous"),
        (["--requests", ""], "is empty"),
        (["--models", "a" * 3000], "There is no model"),
        (["--models", "~nosuchuser/x"], "~nosuchuser/x"),
        (["--device", "cpu", "--hardware", "/no/such/file.toml"], "/no/such/file.toml"),
        (["--plan", "/dev/null/x"], "cannot be read"),
        (["--plan", "/dev/zero"], "it is no file"),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(arguments: list[str], message: str, tmp_path: Path) -> None:
    if "--gpus" in arguments and Path("/dev/nvidia0").exists():
        pytest.skip("this machine has NVIDIA GPUs")

    done = command(*arguments, "--out", str(tmp_path / "out"))

    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "out").exists(), "a command that cannot be done leaves no folder behind"


def test_lengths_over_the_context_are_an_error_and_not_shortened_silently(config: Path, tmp_path: Path) -> None:
    arguments = ["--device", "cpu", "--models", str(config), "--random-weights", "--requests", "1x250x8"]

    done = command(*arguments, "--out", str(tmp_path / "out"))

    assert done.returncode == 2
    assert "need a context of 257" in done.stderr
    assert "ends at 256" in done.stderr


def test_a_config_without_a_causal_language_model_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "clip", "architectures": ["CLIPModel"]}))

    done = command("--models", str(config), "--random-weights", "--device", "cpu", "--out", str(tmp_path / "out"))

    assert done.returncode == 2
    assert "causal" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_neither_torch_nor_arrow() -> None:
    code = "import sys, harness.run as run\ntry: run.main(['--help'])\nexcept SystemExit: pass\n"
    code += "print('heavy:', sorted({'torch', 'transformers', 'pyarrow', 'numpy', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)

    assert "heavy: []" in done.stdout


def test_an_interrupt_keeps_what_is_finished_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_run", interrupted)

    assert run.main([]) == 130
    assert "the same command goes on" in capsys.readouterr().err
