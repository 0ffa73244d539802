"""What the command makes of the GPUs of a machine, told by a stand-in driver behind the real NVML bindings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.campaign.plan import Plan
from harness.campaign.site import find_site
from harness.records import Provenance

ROOT = Path(__file__).resolve().parents[3]
TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 300,
}
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(nvml_library: Path, tmp_path: Path) -> Command:
    """Run ``harness.run`` on a machine with GPUs as described."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps(TINY))

    def run(*arguments: str, **machine: object) -> "subprocess.CompletedProcess[str]":
        described = tmp_path / "gpus.txt"
        described.write_text("".join(f"{key}={value}\n" for key, value in machine.items()))
        environment = os.environ | {"LD_LIBRARY_PATH": str(nvml_library), "NVML_STUB_FILE": str(described)}
        words = ["--models", str(config), "--random-weights", "--requests", "1x8x4", "--out", str(tmp_path / "out")]
        return subprocess.run(
            [sys.executable, "-m", "harness.run", *words, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_gpus_of_the_machine_are_used_without_being_asked_for(command: Command) -> None:
    done = command("--dry-run", gpus=1, name="NVIDIA H100 80GB HBM3")

    assert done.returncode == 0, done.stderr
    assert "Planned runs" in done.stdout


def test_more_gpus_than_there_are_is_an_error_that_says_how_many_there_are(command: Command) -> None:
    done = command("--dry-run", "--gpus", "8", gpus=2, name="NVIDIA H100 80GB HBM3")

    assert done.returncode == 2
    assert "at most --gpus 2" in done.stderr


def test_several_gpus_per_run_are_refused_clearly_until_they_work(command: Command) -> None:
    done = command("--dry-run", "--gpus", "1,2", gpus=4, name="NVIDIA H100 80GB HBM3")

    assert done.returncode == 2
    assert "one GPU only" in done.stderr


def test_an_unknown_gpu_is_an_error_that_says_how_to_add_it(command: Command) -> None:
    done = command("--dry-run", gpus=1, name="NVIDIA Z9000")

    assert done.returncode == 2
    assert "--hardware" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_gpu_without_energy_counter_is_an_error_and_not_zero_joules(command: Command) -> None:
    done = command("--dry-run", **{"gpus": 1, "name": "Tesla T4", "error.nvmlDeviceGetTotalEnergyConsumption": 3})

    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "energy" in done.stderr.lower()


def test_gpus_that_torch_cannot_use_are_an_error_naming_the_cpu(command: Command) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("torch can use a GPU here")

    done = command(gpus=1, name="NVIDIA H100 80GB HBM3")

    assert done.returncode == 2
    assert "--device cpu" in done.stderr


def test_a_cpu_is_probed_and_says_how_its_energy_comes_about() -> None:
    site = find_site(Plan.from_table({"device": "cpu", "requests": ["1x8x4"], "cpu_threads": 1}))

    assert site.gpu.startswith("cpu: ")
    assert site.gpu_counts == (0,)
    assert site.provenance in {Provenance.ESTIMATED, Provenance.MEASURED}
    assert site.ceilings.flop_per_s is not None
    assert site.ceilings.flop_per_s > 1e9
    assert site.load_power_w >= site.idle_power_w > 0
