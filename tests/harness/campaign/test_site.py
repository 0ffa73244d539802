"""What the command makes of the GPUs of a machine, told by a stand-in driver behind the real NVML bindings."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.campaign.plan import Plan
from harness.campaign.site import Site, find_site
from harness.records import Provenance
from harness.requests import Deployment

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


def test_several_counts_of_gpus_are_several_deployments_of_each_request(command: Command) -> None:
    done = command("--dry-run", "--gpus", "1,2", gpus=4, name="NVIDIA H100 80GB HBM3")

    assert done.returncode == 0, done.stderr
    rows = [line.split("│")[1:3] for line in done.stdout.splitlines() if line.startswith("│")]
    assert [cell.strip() for number, cell in rows if number.strip() in {"1", "2"}][:2] == ["1", "2"]


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


def test_on_the_cpu_counts_are_ranks_and_every_key_number_says_so() -> None:
    plan = Plan.from_table({"device": "cpu", "requests": ["1x8x4"], "gpus": [1, 3], "cpu_threads": 1})
    alone, three = find_site(plan).deployments(plan, "sdpa")

    assert (alone.n_gpus, alone.ranks, alone.parallelism) == (0, 1, "none")
    assert (three.n_gpus, three.ranks, three.parallelism) == (0, 3, "tensor")


@pytest.mark.parametrize(
    ("parallelism", "ranks"),
    [("tensor", 4), ("layers", 1)],
)
def test_gpus_share_a_model_by_ranks_or_take_turns_in_one_process(site: Site, parallelism: str, ranks: int) -> None:
    on_gpus = replace(site, device="cuda", gpu_counts=(1, 4))
    plan = Plan.from_table({"gpus": [1, 4], "parallelism": parallelism})
    alone, four = on_gpus.deployments(plan, "sdpa")

    assert (alone.n_gpus, alone.ranks, alone.parallelism) == (1, 1, "none")
    assert (four.n_gpus, four.ranks, four.parallelism) == (4, ranks, parallelism)


def test_gpus_that_take_turns_add_memory_and_idle_power_but_no_speed(site: Site) -> None:
    one = replace(site, device="cuda").machine(Deployment(device="cuda", n_gpus=1))
    four = replace(site, device="cuda").machine(Deployment(device="cuda", n_gpus=4, parallelism="layers"))

    assert four.peak_flop_per_s == one.peak_flop_per_s
    assert four.memory_bytes == 4 * one.memory_bytes
    assert four.load_power_w == pytest.approx(one.load_power_w + 3 * one.idle_power_w)


def test_ranks_on_a_cpu_share_it(site: Site) -> None:
    one, three = (site.machine(Deployment(device="cpu", n_gpus=0, ranks=ranks)) for ranks in (1, 3))

    assert (three.peak_flop_per_s, three.memory_bytes) == (one.peak_flop_per_s, one.memory_bytes)


def test_a_cpu_is_probed_and_says_how_its_energy_comes_about() -> None:
    site = find_site(Plan.from_table({"device": "cpu", "requests": ["1x8x4"], "cpu_threads": 1}))

    assert site.gpu.startswith("cpu: ")
    assert site.gpu_counts == (0,)
    assert site.provenance in {Provenance.ESTIMATED, Provenance.MEASURED}
    assert site.ceilings.flop_per_s is not None
    assert site.ceilings.flop_per_s > 1e9
    assert site.load_power_w >= site.idle_power_w > 0
