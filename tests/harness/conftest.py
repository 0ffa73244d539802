"""NVML machines that do not exist: a C stand-in for the driver's library, driven through the unmodified pynvml."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import errors

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "tests" / "native" / "nvml_stub.c"

# The library is found when a process starts, so the code under test runs in a process of its own: it evaluates one
# line at a time and answers in JSON.
_CHILD = """
import dataclasses, json, sys
from harness.meters import nvml, selection
from harness.meters.base import *
from harness.meters.nvml import *
from harness.meters.selection import *

def plain(value):
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return list(value) if isinstance(value, frozenset | tuple) else str(value)

for line in sys.stdin:
    try:
        answer = {"value": eval(line)}
    except Exception as error:
        answer = {"error": type(error).__name__, "text": str(error)}
    print(json.dumps(answer, default=plain), flush=True)
"""


class NvmlMachine:
    """A process that sees the GPUs described to it, and can be asked for the value of an expression."""

    def __init__(self, library: Path, gpus: Path, **environ: str) -> None:
        self._gpus = gpus
        self._lines: dict[str, object] = {}
        self.describe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT),
                "LD_LIBRARY_PATH": str(library),
                "NVML_STUB_FILE": str(gpus),
                **environ,
            },
        )

    def describe(self, **keys: object) -> None:
        """Change what the driver says; ``_1_power_mw=5`` is the key ``1.power_mw``, ``error__f=3`` is ``error.f``."""
        for key, value in keys.items():
            number = key.split("_")[1] if key.startswith("_") else ""
            plain = key.removeprefix(f"_{number}_") if number else key
            self._lines[(f"{number}." if number else "") + plain.replace("__", ".")] = value
        text = "".join(f"{key}={value}\n" for key, value in self._lines.items())
        fresh = self._gpus.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(self._gpus)

    def ask(self, expression: str) -> Any:
        """The expression's value; the harness's errors are raised again here."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(expression + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise getattr(errors, answer["error"], AssertionError)(answer["text"])
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in library, built once."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("the stand-in for libnvidia-ml.so.1 is built with gcc on Linux, which is not here")
    folder = tmp_path_factory.mktemp("nvml")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", *flags, "-o", folder / "libnvidia-ml.so.1", STUB, "-lm"], check=True)
    return folder


@pytest.fixture
def nvml_machine(nvml_library: Path, tmp_path: Path) -> Iterator[Callable[..., NvmlMachine]]:
    """Start machines: ``nvml_machine(CUDA_VISIBLE_DEVICES="1")``."""
    machines: list[NvmlMachine] = []

    def start(**environ: str) -> NvmlMachine:
        machines.append(NvmlMachine(nvml_library, tmp_path / f"gpus-{len(machines)}.txt", **environ))
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()


@pytest.fixture
def powercap(tmp_path: Path) -> Callable[..., Path]:
    """Write a powercap tree: ``powercap({"intel-rapl:0": ("package-0", 5_000_000)})``, counters in microjoules."""

    def write(domains: dict[str, tuple[str, int]], range_uj: int = 262_143_328_850) -> Path:
        root = tmp_path / "powercap"
        for folder, (name, energy_uj) in domains.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            (root / folder / "name").write_text(f"{name}\n")
            (root / folder / "energy_uj").write_text(f"{energy_uj}\n")
            (root / folder / "max_energy_range_uj").write_text(f"{range_uj}\n")
        return root

    return write
