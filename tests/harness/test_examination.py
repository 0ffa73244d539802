import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from harness import examination
from harness.examination import Package, Torch, ask_torch, examine, find_packages

ROOT = Path(__file__).resolve().parents[2]


def python_that(tmp_path: Path, script: str) -> str:
    """A stand-in for the interpreter that torch is asked through."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return str(program)


def test_the_machine_of_the_tests_is_looked_at_without_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(examination, "ask_torch", lambda: Torch(version="2.13.0"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    machine = examine(tmp_path)

    assert machine.writable
    assert machine.offline
    assert machine.disk_free_bytes > 0
    assert machine.memory_free_bytes > 0
    assert (machine.rapl.step_s is None) == (machine.rapl.problem is not None)
    assert (machine.estimate.basis is None) == (machine.estimate.problem is not None)
    assert bool(machine.gpus) == (machine.no_gpu is None)
    assert machine.models[0].name == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_gpus_are_tried_one_by_one(nvml_machine: Callable[..., Any]) -> None:
    machine = nvml_machine()
    machine.describe(
        gpus=2,
        step_ms=20,
        driver="580.65",
        _0_name="NVIDIA H100 80GB HBM3",
        _1_name="NVIDIA Abacus",
        _1_error__nvmlDeviceGetTotalEnergyConsumption=3,
    )
    machine.ask("globals().update(examination=__import__('harness.examination').examination)")
    known, unknown = machine.ask("[examination._gpu(gpu, i) for i, gpu in enumerate(visible_gpus())]")

    assert known["driver"] == "580.65"
    assert known["counter"]["step_s"] == pytest.approx(0.02, rel=0.5)
    assert known["counter"]["problem"] is None
    assert known["unknown"] is None
    assert "Volta" in unknown["counter"]["problem"]
    assert "Abacus" in unknown["unknown"]


def test_a_counter_that_stands_still_is_a_problem(nvml_machine: Callable[..., Any]) -> None:
    machine = nvml_machine()
    machine.describe(power_mw=0, energy_mj=5)
    machine.ask("globals().update(examination=__import__('harness.examination').examination)")

    (gpu,) = machine.ask("[examination._gpu(gpu, 0) for gpu in visible_gpus()]")
    assert "stood still" in gpu["counter"]["problem"]


def test_torch_answers_from_a_process_of_its_own(tmp_path: Path) -> None:
    answer = '{"version": "2.13.0", "cuda": "13.0", "gpus": 4, "nccl": "2.28.3"}'

    found = ask_torch(python_that(tmp_path, f"echo a warning; echo '{answer}'"))

    assert found == Torch(version="2.13.0", cuda="13.0", gpus=4, nccl="2.28.3")


def test_a_torch_that_does_not_start_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    broken = ask_torch(python_that(tmp_path, "echo 'ImportError: libcudart.so' >&2; exit 1"))

    assert broken.problem == "torch does not start: ImportError: libcudart.so"
    assert "torch does not start" in (ask_torch(str(tmp_path / "nowhere")).problem or "")
    assert "ended with 3" in (ask_torch(python_that(tmp_path, "exit 3")).problem or "")


def test_packages_are_held_against_what_the_distribution_states(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = ["rich>=1", "torch>=99; python_version > '3'", "nowhere-to-be-found", "pytest; extra == 'test'"]
    monkeypatch.setattr(metadata, "requires", lambda _name: stated)

    rich, torch, nowhere = find_packages()

    assert rich.fits
    assert not torch.fits
    assert torch.requirement == "torch>=99"
    assert nowhere == Package(requirement="nowhere-to-be-found", version=None, fits=False)


def test_without_the_distribution_the_packages_it_needs_must_at_least_be_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", unknown)

    assert {package.requirement for package in find_packages()} >= {"torch", "transformers", "nvidia-ml-py"}


def test_help_is_light() -> None:
    script = "import sys, harness.doctor; print([m for m in sys.modules if m in ('torch', 'transformers', 'psutil')])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
