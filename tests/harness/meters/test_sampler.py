"""The sampler's process, against the stand-in for the driver: what it delivers, and every way in which it can end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

import psutil
import pytest

from harness.errors import MeterCause, MeterUnavailable
from harness.meters.power import PowerSample, SamplerState
from harness.meters.sampler import PowerSampler
from harness.meters.sampler_records import SAMPLE_BYTES

ROOT = Path(__file__).resolve().parents[3]
PERIOD_S = 0.01
Start = Callable[..., PowerSampler]


@pytest.fixture
def machine(nvml_machine: Callable[..., Any]) -> Any:
    return nvml_machine()


@pytest.fixture
def started(machine: Any) -> Iterator[Start]:
    """Start samplers of the machine's GPUs."""
    samplers: list[PowerSampler] = []

    def start(*uuids: str, **options: Any) -> PowerSampler:
        options = {"period_s": PERIOD_S, **options}
        samplers.append(PowerSampler(uuids or ("GPU-stub-0",), environ=machine.environ, **options))
        samplers[-1].start()
        return samplers[-1]

    yield start
    for sampler in samplers:
        sampler.stop()


def until(holds: Callable[[], bool], within_s: float = 20.0) -> None:
    """Wait for something that another process does."""
    deadline_s = time.perf_counter() + within_s
    while not holds():
        assert time.perf_counter() < deadline_s, "it never happened"
        Event().wait(0.002)


def collect(sampler: PowerSampler, wanted: int) -> list[PowerSample]:
    found: list[PowerSample] = []
    until(lambda: len(found.__iadd__(sampler.take())) >= wanted)
    return found


def test_a_sample_holds_what_the_gpu_tells_in_the_units_of_the_names(machine: Any, started: Start) -> None:
    machine.describe(power_mw=345_600, sm_mhz=1755, temperature=61, reasons=0x44, limit_mw=650_000)
    machine.describe(average_ms=0, usage="average")
    sample, *_ = started().take()

    assert (sample.device, sample.problem) == (0, None)
    assert sample.power_w == pytest.approx(345.6)
    assert sample.average_power_w == pytest.approx(345.6)
    assert sample.reported_power_w == pytest.approx(345.6)
    assert (sample.sm_clock_mhz, sample.temperature_c, sample.throttle_reasons) == (1755.0, 61.0, 0x44)
    assert sample.power_limit_w == 650.0


def test_its_times_are_this_process_s(started: Start) -> None:
    begun_s = time.perf_counter()
    sampler = started()
    times_s = [sample.at_s for sample in collect(sampler, 20)]
    ended_s = time.perf_counter()

    assert time.get_clock_info("perf_counter").implementation == "clock_gettime(CLOCK_MONOTONIC)"
    assert begun_s < times_s[0] < times_s[-1] < ended_s
    assert times_s == sorted(times_s)


def test_it_looks_about_once_a_period_and_never_at_one_phase(started: Start) -> None:
    times_s = [sample.at_s for sample in collect(started(period_s=0.02), 40)]

    gaps_s = [later - earlier for earlier, later in pairwise(times_s)]
    assert (times_s[-1] - times_s[0]) / 39 >= 0.019, "a busy machine makes it later, never faster"
    assert max(gaps_s) - min(gaps_s) > 0.004


def test_gpus_are_found_by_name_and_keep_the_order_in_which_they_were_asked_for(machine: Any, started: Start) -> None:
    machine.describe(gpus=3, _0_power_mw=100_000, _1_power_mw=200_000, _2_power_mw=300_000)
    found = collect(started("GPU-stub-2", "GPU-stub-0"), 4)

    assert [(sample.device, sample.power_w) for sample in found[:4]] == [(0, 300.0), (1, 100.0)] * 2


def test_what_was_taken_is_not_given_again(started: Start) -> None:
    sampler = started()
    first = collect(sampler, 5)
    report = sampler.stop()

    assert all(sample.at_s > first[-1].at_s for sample in report.samples)
    assert (sampler.take(), sampler.stop()) == ((), report)


def test_one_that_is_told_to_stop_has_finished(started: Start) -> None:
    sampler = started()
    assert sampler.alive
    report = sampler.stop()

    assert (report.state, report.detail) == (SamplerState.FINISHED, "")
    assert (sampler.state, sampler.alive) == (SamplerState.FINISHED, False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_that_is_killed_says_so_and_leaves_its_samples(started: Start, number: signal.Signals) -> None:
    sampler = started()
    until(lambda: (sampler._reader.newest_s() or 0) > sampler._started_s)
    assert sampler.pid is not None
    os.kill(sampler.pid, number)
    until(lambda: not sampler.alive)
    report = sampler.stop()

    assert report.state is SamplerState.KILLED
    assert f"signal {number.value}" in report.detail
    assert report.samples


def test_one_whose_call_hangs_is_silent_and_is_ended(
    machine: Any, started: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.meters.sampler._SILENT_S", 0.1)
    monkeypatch.setattr("harness.meters.sampler._STOP_S", 0.2)
    sampler = started()
    machine.file.set(hang=["nvmlDeviceGetClockInfo"])
    machine.file.write()
    until(lambda: sampler.state is SamplerState.SILENT)
    pid = sampler.pid
    report = sampler.stop()

    assert report.state is SamplerState.SILENT
    assert "hangs" in report.detail
    assert report.samples
    assert pid is not None
    assert not psutil.pid_exists(pid)


def test_one_that_wrote_all_it_may_is_full(started: Start) -> None:
    sampler = started(most_bytes=5 * SAMPLE_BYTES + 1)
    until(lambda: not sampler.alive)
    report = sampler.stop()

    assert report.state is SamplerState.FULL
    assert len(report.samples) == 5


def test_one_that_dies_of_itself_has_failed_with_its_last_words(machine: Any, tmp_path: Path, started: Start) -> None:
    (tmp_path / "pynvml.py").write_text("raise RuntimeError('no such luck')")
    machine.environ["PYTHONPATH"] = str(tmp_path)  # ours comes before the installed one

    with pytest.raises(MeterUnavailable, match="no such luck") as failure:
        started()
    assert failure.value.cause is MeterCause.SAMPLER_FAILED


@pytest.mark.parametrize(
    ("faults", "cause"),
    [
        ({"nvmlInit": 9}, MeterCause.DRIVER_NOT_LOADED),
        ({"nvmlDeviceGetHandleByUUID": 15}, MeterCause.DEVICE_LOST),
    ],
)
def test_one_that_cannot_start_says_why(
    machine: Any, started: Start, faults: dict[str, int], cause: MeterCause
) -> None:
    machine.file.set(error=faults)
    machine.file.write()

    with pytest.raises(MeterUnavailable, match="The power sampler") as failure:
        started()
    assert failure.value.cause is cause


def test_a_gpu_that_does_not_exist_is_not_replaced_by_another(started: Start) -> None:
    with pytest.raises(MeterUnavailable, match="no GPU answers") as failure:
        started("GPU-elsewhere")
    assert failure.value.cause is MeterCause.DEVICE_NOT_FOUND


def test_a_driver_that_hangs_at_its_start_is_given_up(machine: Any, started: Start) -> None:
    machine.file.set(hang=["nvmlInit"])
    machine.file.write()

    with pytest.raises(MeterUnavailable, match="hangs") as failure:
        started(start_timeout_s=1.0)
    assert failure.value.cause is MeterCause.HUNG


def test_errors_of_the_driver_become_nulls_with_their_code_and_pass(machine: Any, started: Start) -> None:
    sampler = started()
    for code in (1, 2, 4, 6, 10, 15, 16, 17, 27, 999):
        machine.file.set(error={"nvmlDeviceGetFieldValues": code, "nvmlDeviceGetPowerUsage": code})
        machine.file.write()
        until(lambda code=code: any((each.problem, each.power_w) == (code, None) for each in sampler.take()))  # type: ignore[misc]
        machine.file.clear()
        machine.file.write()
        until(lambda: any((each.problem, each.power_w) == (None, 100.0) for each in sampler.take()))

    assert sampler.alive


def test_what_a_gpu_does_not_have_is_null_and_no_problem(machine: Any, started: Start) -> None:
    machine.describe(missing="instant,average,temperature,throttle")
    sample, *_ = started().take()

    assert (sample.power_w, sample.average_power_w, sample.temperature_c, sample.throttle_reasons) == (None,) * 4
    assert (sample.reported_power_w, sample.problem) == (100.0, None)


def test_power_polled_too_fast_is_null_and_not_zero(machine: Any, started: Start) -> None:
    machine.describe(fast_ms=60_000)
    first, second, *_ = collect(started(), 2)

    assert (first.power_w, second.power_w) == (100.0, None)


_PARENT = """
import sys
from harness.meters.sampler import PowerSampler
print("main runs", file=open({seen!r}, "a"))
sampler = PowerSampler(["GPU-stub-0"], period_s=0.01)
sampler.start()
print(sampler.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def parent(machine: Any, tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    """A main program that samples, and its sampler."""
    script = tmp_path / "main_program.py"
    script.write_text(_PARENT.format(seen=str(tmp_path / "seen.txt")))
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=machine.environ
    )
    assert process.stdout is not None
    assert process.stdin is not None
    yield process, psutil.Process(int(process.stdout.readline()))
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_it_ends_when_its_parent_is_killed(parent: tuple["subprocess.Popen[str]", psutil.Process]) -> None:
    process, sampler = parent
    assert sampler.is_running()
    process.kill()

    sampler.wait(timeout=20)


def test_it_ends_when_its_parent_is_killed_while_a_call_hangs(
    machine: Any, parent: tuple["subprocess.Popen[str]", psutil.Process]
) -> None:
    process, sampler = parent
    machine.file.set(hang=["nvmlDeviceGetClockInfo"])
    machine.file.write()
    process.kill()

    sampler.wait(timeout=20)


def test_it_ends_when_its_parent_is_killed_though_a_fork_of_the_parent_lives(machine: Any, tmp_path: Path) -> None:
    script = tmp_path / "main_program.py"
    fork = "import os, time\nif os.fork() == 0:\n    time.sleep(60)\n"
    script.write_text(
        _PARENT.format(seen=str(tmp_path / "seen.txt")).replace("print(sampler.pid", fork + "print(sampler.pid")
    )
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=machine.environ
    )
    assert process.stdout is not None
    assert process.stdin is not None
    sampler = psutil.Process(int(process.stdout.readline()))
    (fork_of_parent,) = [child for child in psutil.Process(process.pid).children() if child.pid != sampler.pid]
    process.kill()
    process.wait()

    sampler.wait(timeout=20)
    fork_of_parent.kill()
    process.stdin.close()
    process.stdout.close()


def test_it_does_not_run_the_main_program_again(
    parent: tuple["subprocess.Popen[str]", psutil.Process], tmp_path: Path
) -> None:
    assert (tmp_path / "seen.txt").read_text() == "main runs\n"
    assert parent[1].cmdline()[-2:] == ["-m", "harness.meters.sampler_main"]


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import json, sys, harness.meters.sampler_main; "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)

    heavy = {"torch", "numpy", "transformers", "pyarrow", "codecarbon", "multiprocessing", "psutil"}
    assert not heavy & set(json.loads(done.stdout))
