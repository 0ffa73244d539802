"""The stand-in for NVML's library (``tests/native/nvml_stub.c``), built, and a plan written for it."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from benchmarks.zeus_records import Plan
from harness.errors import UsageError
from harness.virtual.gpu import Sensor
from tests.native.nvml_file import NvmlFile

_SOURCE: Final = Path(__file__).resolve().parents[1] / "tests" / "native" / "nvml_stub.c"
_HOPPER: Final = 9
# Variables that would make a tool look at other GPUs, or ask a daemon.
_HIDDEN: Final = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "ZEUSD_SOCK_PATH", "NVML_STUB_FILE")


def build_library(folder: Path) -> None:
    """Compile the library into a folder, and put an ``nvidia-smi`` beside it; raises ``UsageError`` without gcc.

    codecarbon takes a machine for one of NVIDIA's where ``nvidia-smi --help`` succeeds; it reads through pynvml.
    """
    if not sys.platform.startswith("linux") or shutil.which("gcc") is None:
        raise UsageError(
            "The stand-in for libnvidia-ml.so.1 is built with gcc on Linux, which is not here.\n"
            "Install gcc, or run this on Linux."
        )
    fixed = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", *fixed, "-o", str(folder / "libnvidia-ml.so.1"), str(_SOURCE), "-lm"], check=True)
    command = folder / "nvidia-smi"
    command.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    command.chmod(0o755)


@contextmanager
def library_first(folder: Path, gpus: Path) -> Iterator[None]:
    """Processes that start meanwhile find this library before any other, with the GPUs of that file."""
    before = dict(os.environ)
    for name in _HIDDEN:
        os.environ.pop(name, None)
    for name in ("LD_LIBRARY_PATH", "PATH"):
        os.environ[name] = os.pathsep.join(filter(None, (str(folder), before.get(name))))
    os.environ["NVML_STUB_FILE"] = str(gpus)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def describe(file: NvmlFile, plan: Plan, *, origin_s: float) -> None:
    """Say what the GPUs of a plan are, and that they rest; time 0 is ``origin_s`` on the monotonic clock."""
    file.set(gpus=plan.scenario.gpus, origin_s=repr(origin_s), name=plan.gpu_name, arch=_HOPPER, pids="")
    describe_sensor(file, plan.sensor)
    for gpu, (phase_s, profile) in enumerate(zip(plan.phases_s, plan.profiles, strict=True)):
        file.set(gpu=gpu, phase_ms=phase_s * 1e3, power_mw=float(profile.powers_w[0]) * 1e3)


def begin(file: NvmlFile, plan: Plan, *, at_s: float) -> None:
    """Say what happens on each GPU when the plan begins ``at_s`` after the file's time 0."""
    for gpu, profile in enumerate(plan.profiles):
        starts_s = (profile.edges_s[:-1] + at_s).tolist()
        file.segments(gpu, zip(starts_s, profile.powers_w.tolist(), strict=True))


def describe_sensor(file: NvmlFile, sensor: Sensor) -> None:
    """A virtual GPU's sensor in the library's words.

    Two things differ from ``harness.virtual``: noise reaches the counter only where it sums looks, and a call takes the
    mean of the read latencies.
    """
    latency_s = sensor.read_latency_s + sensor.read_latency_jitter_s / 2
    file.set(
        step_ms=sensor.counter_period_s * 1e3,
        step_jitter_ms=sensor.counter_jitter_s * 1e3,
        quantum_mj=sensor.counter_quantum_j * 1e3,
        duty_ms=sensor.duty_period_s * 1e3 if sensor.duty_cycle < 1 or sensor.noise_w else 0,
        duty=sensor.duty_cycle,
        counter_sampled=int(sensor.counter_sampled),
        gain=sensor.gain,
        offset_mw=sensor.offset_w * 1e3,
        noise_mw=sensor.noise_w * 1e3,
        average_ms=sensor.average_window_s * 1e3,
        average_step_ms=sensor.average_period_s * 1e3,
        instant_ms=sensor.instant_period_s * 1e3,
        latency_us=latency_s * 1e6,
        missing=",".join(sensor.missing),
    )
