import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import MeterFailed, MeterUnavailable
from harness.meters.base import ManualClock
from harness.meters.estimate import EstimateMeter, PowerModel, codecarbon_model

ROOT = Path(__file__).resolve().parents[3]


def meter_with(clock: ManualClock, powers_w: list[float]) -> EstimateMeter:
    model = PowerModel(tdp_w=50, tdp_known=False, ram_w=10, cpu_power_w=lambda: powers_w.pop(0))
    return EstimateMeter(model, clock)


def test_the_counter_waits_for_a_span_in_which_load_means_something() -> None:
    clock = ManualClock()
    meter = meter_with(clock, [30.0])
    clock.advance(0.099)
    assert meter.read_j() == 0.0
    clock.advance(0.001)
    assert meter.read_j() == pytest.approx(4.0)


def test_no_time_is_lost_or_counted_twice_between_moves() -> None:
    clock = ManualClock()
    meter = meter_with(clock, [30.0, 50.0])
    clock.advance(1.0)
    first_j = meter.read_j()
    clock.advance(0.05)
    assert meter.read_j() == first_j
    clock.advance(1.95)

    assert meter.read_j() == pytest.approx(1 * 40.0 + 2 * 60.0)


@pytest.mark.parametrize("power_w", [0.0, -1.0, float("nan"), float("inf")])
def test_a_power_that_no_machine_draws_is_a_failure(power_w: float) -> None:
    clock = ManualClock()
    meter = meter_with(clock, [power_w])
    clock.advance(1)

    with pytest.raises(MeterFailed, match="no running machine draws"):
        meter.read_j()


def test_the_name_says_whether_the_tdp_is_this_cpus_own() -> None:
    def power_w() -> float:
        return 1.0

    generic = PowerModel(tdp_w=8, tdp_known=False, ram_w=20, cpu_power_w=power_w)
    known = PowerModel(tdp_w=350, tdp_known=True, ram_w=20, cpu_power_w=power_w)

    assert EstimateMeter(generic, ManualClock()).name == "codecarbon-cpu-load (generic TDP 8 W, RAM 20 W)"
    assert EstimateMeter(known, ManualClock()).name == "codecarbon-cpu-load (TDP 350 W, RAM 20 W)"


def test_codecarbon_s_power_follows_the_formula_in_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    from codecarbon.external.hardware import SystemCPULoadMeter

    model = codecarbon_model()
    for load, share in ((0.0, 0.1), (50.0, 0.1 + 0.9 * 0.125), (100.0, 1.0)):
        monkeypatch.setattr(SystemCPULoadMeter, "percent", lambda _self, load=load: load)
        assert model.cpu_power_w() == pytest.approx(model.tdp_w * share)
    assert model.ram_w > 0


def test_a_cpu_that_codecarbon_knows_has_its_own_tdp(monkeypatch: pytest.MonkeyPatch) -> None:
    import codecarbon.core.cpu as tables

    monkeypatch.setattr(tables, "detect_cpu_model", lambda: "AMD EPYC 7763 64-Core Processor")
    known = codecarbon_model()
    monkeypatch.setattr(tables, "detect_cpu_model", lambda: "Abacus of Unknown Make")
    unknown = codecarbon_model()

    assert (known.tdp_w, known.tdp_known) == (280.0, True)
    assert not unknown.tdp_known


def test_memory_of_unknown_size_is_unavailable_and_not_zero_watts(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    def fail() -> None:
        raise OSError("no /proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", fail)

    with pytest.raises(MeterUnavailable, match="no memory size"):
        codecarbon_model()


def test_an_error_inside_codecarbon_is_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    model = codecarbon_model()
    monkeypatch.setattr(psutil, "cpu_times", lambda: (_ for _ in ()).throw(OSError("no /proc/stat")))

    with pytest.raises(MeterFailed, match="read the CPU load: OSError: no /proc/stat"):
        model.cpu_power_w()


def test_opening_the_estimate_prints_nothing_and_leaves_no_file_and_no_silenced_log(tmp_path: Path) -> None:
    script = """
import json, logging
from harness.meters.estimate import EstimateMeter
meter = EstimateMeter.of_this_machine()
print(json.dumps([meter.read_j(), logging.getLogger("codecarbon").disabled, meter.provenance]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr == ""
    assert json.loads(done.stdout) == [0.0, False, "estimated"]
    assert list(tmp_path.iterdir()) == []
    assert logging.getLogger("codecarbon").disabled is False
