"""What only a machine with an NVIDIA GPU can check: ``tox -e gpu``. Elsewhere each test skips with the reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.dataset.reading import read_rows
from harness.hardware import find
from harness.kernels import KernelKind
from harness.measuring.calibration import Calibration
from harness.meters.selection import find_gpus, meters_for
from harness.records import (
    EnergyMethod,
    EnvironmentRow,
    KernelEnergyRow,
    KernelRow,
    PhaseRow,
    PowerTraceRow,
    Provenance,
    RankTimeRow,
    ReadingRow,
    RunRow,
    Status,
)

SEARCH = find_gpus()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not SEARCH.gpus, reason=f"no NVIDIA GPU here: {(SEARCH.why_none or '').splitlines()[:1]}"),
]
ROOT = Path(__file__).resolve().parents[2]
SMALL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
}


def test_the_energy_counter_moves_and_its_step_is_found() -> None:
    bank = meters_for("cuda")
    try:
        bank.measure_steps()
        assert bank.provenance is Provenance.MEASURED
        assert 0.001 < bank.step_s < 1
    finally:
        bank.close()


def test_clocks_temperature_and_facts_of_the_gpu_are_read() -> None:
    bank = meters_for("cuda")
    try:
        (conditions,), (facts,) = bank.conditions(), bank.facts()
    finally:
        bank.close()

    assert conditions.sm_clock_mhz
    assert conditions.temperature_c
    assert facts.driver
    assert facts.uuid_sha256


def test_every_gpu_here_is_in_the_hardware_table() -> None:
    for gpu in SEARCH.gpus:
        assert find(gpu.name).board_power_w


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    config = folder / "config.json"
    config.write_text(json.dumps(SMALL))
    command = [sys.executable, "-m", "harness.run", "--gpus", "1", "--models", str(config), "--random-weights"]
    command += ["--quality", "quick", "--requests", "4x512x32", "--out", str(folder / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "out"


def test_a_run_on_the_gpu_is_measured(dataset: Path) -> None:
    (row,) = read_rows(dataset, RunRow)
    (environment,) = read_rows(dataset, EnvironmentRow)

    assert row.status is Status.OK
    assert row.provenance is Provenance.MEASURED
    assert row.energy_j is not None
    assert row.duration_s is not None
    power_w = row.energy_j / row.duration_s
    assert environment.power_limit_w is not None
    assert 0 < power_w <= 1.1 * environment.power_limit_w


def test_kernels_on_the_gpu_are_traced_with_their_device_time(dataset: Path) -> None:
    kernels = list(read_rows(dataset, KernelRow))
    phases = {row.phase: row for row in read_rows(dataset, PhaseRow)}

    assert {row.kind.value for row in kernels} >= {"gemm", "attention"}
    for phase, row in phases.items():
        device_s = sum(kernel.duration_s or 0 for kernel in kernels if kernel.phase is phase)
        assert 0 < device_s <= (row.duration_s or 0)


@pytest.mark.skipif(len(SEARCH.gpus) < 2, reason="needs two GPUs")
def test_two_gpus_share_a_model_over_nccl_and_both_are_counted(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMALL))
    command = [sys.executable, "-m", "harness.run", "--gpus", "2", "--models", str(config), "--random-weights"]
    command += ["--quality", "quick", "--requests", "4x512x32", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + done.stdout

    (row,) = read_rows(tmp_path / "out", RunRow)
    kernels = list(read_rows(tmp_path / "out", KernelRow))
    readings = list(read_rows(tmp_path / "out", ReadingRow))
    reductions = [kernel for kernel in kernels if kernel.kind is KernelKind.ALL_REDUCE]

    assert (row.status, row.n_gpus, row.tensor_parallel) == (Status.OK, 2, 2), row.status_detail
    assert {(reading.rank, reading.meter) for reading in readings} == {(0, "nvml:0"), (1, "nvml:1")}
    assert {kernel.rank for kernel in reductions} == {0, 1}
    assert all(kernel.link_bytes and kernel.wait_s is not None for kernel in reductions)
    assert {time.device for time in read_rows(tmp_path / "out", RankTimeRow)} == {"cuda:0", "cuda:1"}


@pytest.mark.skipif(len(SEARCH.gpus) < 2, reason="needs two GPUs")
def test_two_gpus_can_take_turns_with_the_layers_of_a_model(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMALL))
    command = [sys.executable, "-m", "harness.run", "--gpus", "2", "--parallelism", "layers", "--models", str(config)]
    command += ["--random-weights", "--quality", "quick", "--requests", "4x512x8", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + done.stdout

    (row,) = read_rows(tmp_path / "out", RunRow)

    assert (row.n_gpus, row.parallelism, row.tensor_parallel) == (2, "layers", 1)
    assert {reading.meter for reading in read_rows(tmp_path / "out", ReadingRow)} == {"nvml:0", "nvml:1"}


def test_readings_hold_counter_values_clocks_and_temperature(dataset: Path) -> None:
    for row in read_rows(dataset, ReadingRow):
        assert row.meter == "nvml:0"
        assert row.sm_clock_mhz
        assert row.temperature_c


def test_polled_power_agrees_with_the_counter_and_traces_are_kept(dataset: Path) -> None:
    polled = [row for row in read_rows(dataset, ReadingRow) if row.polled_energy_j is not None]
    traces = list(read_rows(dataset, PowerTraceRow))

    assert polled, "the sampler delivered nothing"
    assert any(row.power_w for row in traces)
    ratio = sum(row.polled_energy_j or 0.0 for row in polled) / sum(row.energy_j or 0.0 for row in polled)
    assert ratio == pytest.approx(1, abs=0.25)  # quick windows are short; the report flags 5 %


def test_kernels_are_replayed_as_graphs_and_the_ledger_is_drawn_up(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(SMALL))
    command = [sys.executable, "-m", "harness.run", "--gpus", "1", "--models", str(config), "--random-weights"]
    command += ["--quality", "quick", "--requests", "4x512x32", "--kernel-energy", "replay"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout

    (row,) = read_rows(tmp_path / "out", RunRow)
    replayed = [
        energy for energy in read_rows(tmp_path / "out", KernelEnergyRow) if energy.method is EnergyMethod.REPLAY
    ]

    assert any("cuda_graph" in (energy.how or "") for energy in replayed), row.status_detail
    assert row.residual_j is not None, row.status_detail
    assert abs(row.residual_j) < 0.2 * (row.energy_j or 0.0)


def test_the_gpu_can_be_calibrated(tmp_path: Path) -> None:
    out = tmp_path / "calibration.json"
    command = [sys.executable, "-m", "harness.calibrate", "--device", "cuda", "--quick", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr + done.stdout

    calibration = Calibration.read(out)

    assert calibration.provenance is Provenance.MEASURED
    assert len(calibration.devices) == 1
