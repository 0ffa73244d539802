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
from tests.native.nvml_file import NvmlFile

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "tests" / "native" / "nvml_stub.c"

# The library is found when a process starts, so the code under test runs in a process of its own: it evaluates one
# line at a time and answers in JSON.
_CHILD = """
import dataclasses, functools, json, os, sys, time
from harness.errors import *
from harness.meters import gpus, nvml, nvml_device, nvml_power, sampler, selection
from harness.meters.base import *
from harness.meters.gpus import *
from harness.meters.nvml import *
from harness.meters.nvml_power import *
from harness.meters.power import *
from harness.meters.sampler import *
from harness.meters.selection import *

class StubClock:  # the time that the stand-in has been given, else the machine's
    def now_s(self):
        with open(os.environ["NVML_STUB_FILE"]) as file:
            told = [line[6:] for line in file if line.startswith("now_s=")]
        return float(told[-1]) if told else time.perf_counter()

RealNvmlMeter = NvmlMeter
NvmlMeter = functools.partial(RealNvmlMeter, clock=StubClock())

def plain(value):
    if dataclasses.is_dataclass(value):
        return dataclasses.asdict(value)
    return list(value) if isinstance(value, frozenset | tuple) else str(value)

def cause(read):
    try:
        return read()
    except MeterError as error:
        return error.cause and error.cause.name

for line in sys.stdin:
    try:
        answer = {"value": eval(line)}
    except Exception as error:
        answer = {"error": type(error).__name__, "text": str(error), "cause": getattr(error, "cause", None)}
    print(json.dumps(answer, default=plain), flush=True)
"""


class NvmlMachine:
    """A process that sees the GPUs described to it, and can be asked for the value of an expression."""

    def __init__(self, library: Path, gpus: Path, **environ: str) -> None:
        self.file = NvmlFile(gpus)
        self.file.write()
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "LD_LIBRARY_PATH": str(library),
            "NVML_STUB_FILE": str(gpus),
            **environ,
        }
        self._process: subprocess.Popen[str] | None = None

    def describe(self, **keys: object) -> None:
        """Change what the driver says; ``_1_power_mw=5`` is the key ``1.power_mw``, ``error__f=3`` is ``error.f``."""
        for key, value in keys.items():
            number = key.split("_")[1] if key.startswith("_") else ""
            plain = key.removeprefix(f"_{number}_") if number else key
            self.file.key(plain.replace("__", "."), value, gpu=int(number) if number else None)
        self.file.write()

    def ask(self, expression: str) -> Any:
        """The expression's value; the harness's errors are raised again here."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(expression + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        if "error" in answer:
            kind = getattr(errors, answer["error"], AssertionError)
            if isinstance(kind, type) and issubclass(kind, errors.MeterError):
                raise kind(answer["text"], cause=answer["cause"] and errors.MeterCause(answer["cause"]))
            raise kind(answer["text"])
        return answer["value"]

    @property
    def pid(self) -> int:
        """The process."""
        return self._started().pid

    def kill(self) -> None:
        """End the process at once."""
        self._started().kill()

    def close(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CHILD],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environ,
            )
        return self._process


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the stand-in library, built once."""
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        pytest.skip("the stand-in for libnvidia-ml.so.1 is built with gcc on Linux, which is not here")
    return built(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_nvml_library(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a stand-in that lacks what newer drivers brought."""
    return built(tmp_path_factory.mktemp("old-nvml"), "-DOLD_DRIVER")


def built(folder: Path, *flags: str) -> Path:
    """Compile the stand-in into a folder."""
    fixed = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", *fixed, *flags, "-o", folder / "libnvidia-ml.so.1", STUB, "-lm"], check=True)
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


@pytest.fixture(scope="session")
def _long_lived_machine(nvml_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NvmlMachine]:
    machine = NvmlMachine(nvml_library, tmp_path_factory.mktemp("machine") / "gpus.txt")
    yield machine
    machine.close()


@pytest.fixture
def shared_nvml_machine(_long_lived_machine: NvmlMachine) -> NvmlMachine:
    """A machine of one default GPU whose process other tests used before: starting one takes a fifth of a second."""
    _long_lived_machine.file.clear()
    _long_lived_machine.file.write()
    return _long_lived_machine


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
