"""Look at a machine once, for ``harness.doctor``: what is installed, which meters answer, what room there is.

Imports of other packages are inside the functions: the doctor must also speak where they are missing.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import MeterError, UnknownHardware

if TYPE_CHECKING:
    from harness.meters.nvml import GpuHandle

DISTRIBUTION = "joulegraph"

# What every command needs, where the distribution itself is not installed and cannot say.
_NEEDED = (
    "codecarbon",
    "duckdb",
    "jinja2",
    "nvidia-ml-py",
    "plotly",
    "psutil",
    "pyarrow",
    "rich",
    "torch",
    "transformers",
)
_TORCH_SCRIPT = """
import json, torch, torch.distributed as dist
nccl = torch.cuda.nccl.version() if torch.cuda.is_available() and dist.is_nccl_available() else None
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "gpus": torch.cuda.device_count(),
                  "nccl": nccl and ".".join(map(str, nccl))}))
"""
_TORCH_WAIT_S = 120  # a cold disk can take most of a minute


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package the harness depends on."""

    requirement: str  # as the distribution states it, e.g. "transformers<6,>=5.20"
    version: str | None  # installed; null: not installed
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """What torch says of itself, asked in a process of its own."""

    version: str | None = None
    cuda: str | None = None  # CUDA version it was built for; null: a CPU build
    gpus: int = 0  # GPUs it can use
    nccl: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """An energy counter, tried."""

    step_s: float | None = None  # how often it moves
    problem: str | None = None  # why it cannot be used


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The estimate for machines without a counter, tried."""

    basis: str | None = None
    tdp_known: bool = False
    problem: str | None = None  # why it cannot be used


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One visible GPU."""

    name: str
    driver: str | None
    counter: Counter
    unknown: str | None  # why the hardware table does not know it; null: it does


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A default model, and where it would come from."""

    name: str
    place: str | None  # null: not on this machine
    remedy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """All that was found."""

    torch: Torch
    shadowed_nvml: str | None  # version of the deprecated package ``pynvml``
    gpus: tuple[Gpu, ...]
    no_gpu: str | None  # why there is no GPU
    rapl: Counter
    estimate: Estimate
    virtual_machine: bool | None
    folder: str
    writable: bool
    disk_free_bytes: int
    memory_free_bytes: int
    models: tuple[Model, ...]  # of the CPU, then of the GPUs if there are any
    offline: bool


def find_packages() -> tuple[Package, ...]:
    """What the distribution depends on, and what is there of it."""
    try:
        stated = [line for line in metadata.requires(DISTRIBUTION) or [] if "extra ==" not in line]
    except metadata.PackageNotFoundError:
        stated = list(_NEEDED)
    return tuple(_package(line.split(";")[0].strip()) for line in stated)


def examine(folder: Path) -> Machine:
    """Look at everything but the packages, which must be there. Takes a few seconds: torch starts, counters tick."""
    import psutil

    from harness.meters.host import host_facts
    from harness.meters.selection import find_gpus

    search = find_gpus()
    return Machine(
        torch=ask_torch(),
        shadowed_nvml=_version("pynvml"),
        gpus=tuple(_gpu(handle, index) for index, handle in enumerate(search.gpus)),
        no_gpu=search.why_none,
        rapl=_rapl(),
        estimate=_estimate(),
        virtual_machine=host_facts().virtual_machine,
        folder=str(folder.resolve()),
        writable=os.access(folder, os.W_OK | os.X_OK),
        disk_free_bytes=shutil.disk_usage(folder).free,
        memory_free_bytes=psutil.virtual_memory().available,
        models=tuple(_model(device) for device in (("cpu", "cuda") if search.gpus else ("cpu",))),
        offline=os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"},
    )


def ask_torch(python: str = sys.executable) -> Torch:
    """Import torch in a process of its own, so that a broken one breaks nothing here."""
    try:
        done = subprocess.run(
            [python, "-c", _TORCH_SCRIPT], capture_output=True, text=True, timeout=_TORCH_WAIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Torch(problem=f"torch does not start: {error}")
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"]
        return Torch(problem=f"torch does not start: {lines[-1]}")
    return Torch(**json.loads(done.stdout.splitlines()[-1]))


def _package(requirement: str) -> Package:
    match = re.match(r"[\w.-]+", requirement)
    version = _version(match[0]) if match else None
    return Package(requirement=requirement, version=version, fits=version is not None and _fits(requirement, version))


def _fits(requirement: str, version: str) -> bool:
    if util.find_spec("packaging") is None:  # comes with transformers
        return True
    from packaging.requirements import Requirement

    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpu(handle: "GpuHandle", index: int) -> Gpu:
    from harness import hardware
    from harness.meters.base import MonotonicClock
    from harness.meters.nvml import NvmlMeter
    from harness.meters.probe import probe

    found = probe(lambda: NvmlMeter(handle, index), MonotonicClock())
    try:
        hardware.find(handle.name)
        unknown = None
    except UnknownHardware as error:
        unknown = str(error)
    return Gpu(
        name=handle.name,
        driver=found.facts.driver if found.facts else None,
        counter=Counter(step_s=found.step_s, problem=found.problem),
        unknown=unknown,
    )


def _rapl() -> Counter:
    from harness.meters.base import MonotonicClock
    from harness.meters.probe import probe
    from harness.meters.rapl import RaplMeter

    found = probe(RaplMeter, MonotonicClock(), max_wait_s=0.2)
    return Counter(step_s=found.step_s, problem=found.problem)


def _estimate() -> Estimate:
    from harness.meters.estimate import codecarbon_model

    try:
        model = codecarbon_model()
    except MeterError as error:
        return Estimate(problem=str(error))
    return Estimate(basis=str(model), tdp_known=model.tdp_known)


def _model(device: str) -> Model:
    from harness.models import hub, smollm
    from harness.models.checkpoint import weights_problem
    from harness.models.source import DEFAULT_CPU_MODEL, default_model

    name = default_model(device)
    cached = hub.cached_snapshot(name, None)
    if isinstance(cached, Path) and weights_problem(cached) is None:
        return Model(name=name, place=hub.CACHE)
    package = smollm.installed() if name == DEFAULT_CPU_MODEL else None
    if package is None:
        return Model(name=name, place=None)
    if util.find_spec("gguf") is None:
        return Model(name=name, place=None, remedy="pip install 'gguf>=0.19,<0.20'")
    return Model(name=name, place=f"the package {package.revision}")
