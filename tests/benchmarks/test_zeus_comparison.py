"""The comparison with Zeus: what its page says, what its tables compute, and the way from a machine to the driver."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import zeus_comparison
from benchmarks.zeus_comparison import carry_out, zeus_is_here
from benchmarks.zeus_driver import begin, build_library, describe, library_first
from benchmarks.zeus_machine import plan_of, profiles_of, sensor_of
from benchmarks.zeus_records import (
    CODECARBON,
    LENGTHS_S,
    OURS,
    SCENARIOS,
    WINDOWS,
    ZEUS,
    Comparison,
    Load,
    Plan,
    Profile,
    Reading,
    Scenario,
)
from benchmarks.zeus_table import COMMAND, PACKAGES, page_of, places_of, read_places, read_versions, rows_of
from harness.errors import UsageError
from harness.virtual.gpu import read_virtual_gpu
from harness.virtual.machine import Program, VirtualMachine
from harness.virtual.program import Segments
from tests.harness.conftest import NvmlMachine
from tests.harness.virtual.virtual_examples import a_machine

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "zeus.md"
STALE = f"docs/zeus.md is stale: run `tox -e zeus`, or `{COMMAND}`"
TWO = Scenario(gpus=2, counter_period_s=0.1)


def pinned(package: str) -> str:
    """The version that an installation for the comparison gets."""
    text = (ROOT / "constraints.txt").read_text() + (ROOT / "tox.ini").read_text()
    found = re.search(rf"(?m)(?:^|\s){package}==(\S+)", text)
    assert found is not None, f"{package} is not pinned"
    return found[1]


def streams(traffic_bytes: float) -> Segments:
    """One kernel that moves so many bytes: constant power while it runs."""
    one = np.ones(1)
    return Segments(
        kernels=("stream",),
        collective=(False,),
        kernel=np.zeros(1, dtype=np.int64),
        launches=one,
        flop=0 * one,
        traffic_bytes=traffic_bytes * one,
        link_bytes=0 * one,
    )


def short_programs(machine: VirtualMachine, length_s: float) -> tuple[Program, int]:
    program = machine.compile(streams(1e10))
    return program, round(length_s / machine.timeline(program).pass_s)


def a_plan(*, jitter_s: float = 0.0, counter_period_s: float = 0.1, idle_s: float = 0.0) -> tuple[Plan, VirtualMachine]:
    """Two GPUs rest, work for 1 s, rest, work for 0.4 s, rest, from 0 on by the machine's clock."""
    machine = a_machine(gpus=2, rank_spread=0.0)
    machine.load_context()
    program = machine.compile(streams(1e10))
    pass_s = machine.timeline(program).pass_s
    loads = []
    for length_s in (1.0, 0.4):
        machine.clock.pause(1.0 + 2 * idle_s)
        ran = machine.run(program, round(length_s / pass_s), label="work")
        loads.append(Load(length_s=length_s, start_s=ran.started_s, end_s=ran.started_s + ran.duration_s))
    machine.clock.pause(1.0 + 4 * idle_s)
    sensor = replace(machine.gpu.sensor, counter_period_s=counter_period_s, counter_jitter_s=jitter_s)
    plan = Plan(
        scenario=replace(TWO, counter_period_s=counter_period_s),
        gpu_name="NVIDIA H100 80GB HBM3",
        sensor=sensor,
        phases_s=(0.03, 0.07),
        profiles=profiles_of(machine, loads, begun_s=0.0),
        loads=tuple(loads),
        idle_s=idle_s,
    )
    return plan, machine


# ---- the page ----


def test_the_page_has_every_scenario_length_and_tool() -> None:
    assert read_places(PAGE.read_text(encoding="utf-8")) == places_of(SCENARIOS), STALE


def test_the_page_is_of_the_versions_that_are_pinned() -> None:
    assert read_versions(PAGE.read_text(encoding="utf-8")) == {each: pinned(each) for each in PACKAGES}, STALE


def test_the_page_says_how_it_came_about() -> None:
    text = PAGE.read_text(encoding="utf-8")

    assert COMMAND in text
    assert "**simulated**" in text
    assert "nothing about a real GPU" in text


def test_zeus_is_a_dependency_of_nothing_but_its_own_environment() -> None:
    assert "zeus" not in (ROOT / "pyproject.toml").read_text().lower()
    environments = (ROOT / "tox.ini").read_text().split("[testenv")
    assert [each.split("]")[0] for each in environments if "zeus==" in each] == [":zeus"]


# ---- the table ----


def reading(tool: str, energy_j: float, half_j: float | None = None, length_s: float = 1.0) -> Reading:
    return Reading(
        tool=tool,
        length_s=length_s,
        energy_j=energy_j,
        truth_j=100.0,
        random95_j=None if half_j is None else 0.6 * half_j,
        common95_j=None if half_j is None else 0.8 * half_j,
    )


def a_comparison(*readings: Reading) -> Comparison:
    return Comparison(scenario=TWO, readings=readings, missed=1, periods_s=(0.1, 0.1))


def test_a_row_has_median_worst_bias_and_what_is_stated() -> None:
    ours, zeus = rows_of(
        a_comparison(
            *(reading(OURS, energy_j, half_j=2.0) for energy_j in (99.0, 101.0, 103.0)),
            *(reading(ZEUS, energy_j) for energy_j in (90.0, 95.0, 105.0)),
        )
    )

    assert (zeus.median_error, zeus.worst_error, zeus.bias) == pytest.approx((0.05, -0.10, -0.10 / 3))
    assert (zeus.half_width, zeus.held, zeus.mean_half_width, zeus.mean_held) == (None, None, None, None)
    assert zeus.mean_error == pytest.approx(-0.10 / 3)
    assert ours.half_width == pytest.approx(0.02)
    assert ours.held == 2, "103 ± 2 does not hold 100"
    # Student's t of two degrees × 2 J of spread / √3, and what all windows have in common.
    assert ours.mean_half_width == pytest.approx(np.hypot(4.303 * 2 / 3**0.5, 1.6) / 100, rel=1e-3)
    assert ours.mean_held is True


def test_a_single_window_has_no_interval_of_the_mean() -> None:
    (row,) = rows_of(a_comparison(reading(OURS, 103.0, half_j=2.0)))

    assert (row.windows, row.held, row.mean_half_width, row.mean_held) == (1, 0, None, None)


def test_a_page_is_read_back() -> None:
    readings = [
        reading(tool, 99.0, half_j=2.0 if tool == OURS else None, length_s=length_s)
        for length_s in LENGTHS_S
        for tool in (OURS, ZEUS, CODECARBON)
    ]
    page = page_of([a_comparison(*readings)], trials=1, seed=0, version_of=lambda package: f"1.{len(package)}.0")

    assert read_places(page) == places_of([TWO])
    assert read_versions(page) == {"zeus": "1.4.0", "codecarbon": "1.10.0", "nvidia-ml-py": "1.12.0"}
    assert "loads missed: 1" in page
    assert f"| {TWO.name} | 1.0 × | 1.0 × | 1.0 × | 1.0 × |" in page


def test_without_zeus_it_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(zeus_comparison, "zeus_is_here", lambda: False)

    assert zeus_comparison.main([]) == 2
    assert "tox -e zeus" in capsys.readouterr().err


def test_without_gcc_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(UsageError, match="gcc"):
        build_library(tmp_path)


def test_the_environment_is_as_it_was_once_the_library_is_no_longer_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    before = dict(os.environ)
    with library_first(tmp_path, tmp_path / "gpus.txt"):
        assert os.environ["LD_LIBRARY_PATH"] == str(tmp_path)
        assert "CUDA_VISIBLE_DEVICES" not in os.environ

    assert dict(os.environ) == before


# ---- from a machine to the driver ----


def test_a_profile_has_the_energy_of_each_load_and_each_rest() -> None:
    plan, machine = a_plan()
    first, second = plan.loads
    truth = machine.truth

    for start_s, end_s in ((0.0, first.start_s), (first.start_s, first.end_s), (first.end_s, second.start_s)):
        for gpu, profile in enumerate(plan.profiles):
            assert profile.energy_j(start_s, end_s) == pytest.approx(truth.energy_between_j(gpu, start_s, end_s))
    whole_j = sum(truth.of("work").energy_j)
    assert sum(plan.energy_j(load.start_s, load.end_s) for load in plan.loads) == pytest.approx(whole_j)


def test_a_profile_knows_nothing_outside_its_edges() -> None:
    profile = Profile(edges_s=np.array([0.0, 1.0, 3.0]), powers_w=np.array([100.0, 50.0]))

    assert profile.energy_j(0.5, 2.0) == 100.0
    with pytest.raises(ValueError, match="is not within 0 to 3"):
        profile.energy_j(2.0, 3.1)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_plan_has_its_windows_with_rests_long_enough_for_the_counter(scenario: Scenario) -> None:
    plan = plan_of(scenario, short_programs, trials=1, seed=5)
    counts = {length_s: sum(load.length_s == length_s for load in plan.loads) for length_s in LENGTHS_S}

    assert counts == dict(WINDOWS)
    assert len(plan.profiles) == scenario.gpus
    assert all(load.end_s - load.start_s == pytest.approx(load.length_s, abs=0.02) for load in plan.loads)
    ends_s = [plan.idle_s, *(load.end_s for load in plan.loads)]
    starts_s = [*(load.start_s for load in plan.loads), plan.duration_s - plan.idle_s]
    assert all(
        start_s - end_s >= 6 * scenario.counter_period_s for end_s, start_s in zip(ends_s, starts_s, strict=True)
    )
    assert {load.start_s for load in plan.loads} <= set(plan.profiles[0].edges_s)
    assert [plan.sensor.gain, plan.sensor.offset_w] == [1.0, 0.0]


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    first, again, other = (plan_of(SCENARIOS[0], short_programs, trials=1, seed=seed).loads for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_a_counter_that_looks_moves_when_a_look_ends() -> None:
    shipped = read_virtual_gpu("h100-sxm").sensor
    sampled = sensor_of(Scenario(gpus=1, counter_period_s=0.1, counter_sampled=True), shipped)

    assert (sampled.counter_sampled, sampled.counter_jitter_s) == (True, 0.0)
    assert sensor_of(Scenario(gpus=1, counter_period_s=0.02), shipped).counter_jitter_s == pytest.approx(4e-4)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    try:
        build_library(folder)
    except UsageError as error:
        pytest.skip(str(error))
    return folder


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> Iterator[NvmlMachine]:
    machine = NvmlMachine(library, tmp_path / "gpus.txt")
    yield machine
    machine.close()


def counters_j(driver: NvmlMachine, plan: Plan, times_s: list[float]) -> list[list[float]]:
    """What our meter of each GPU reads at times of the plan, through the unmodified nvidia-ml-py."""
    describe(driver.file, plan, origin_s=0.0)
    begin(driver.file, plan, at_s=0.0)
    driver.describe(now_s=repr(times_s[0]))
    driver.ask("globals().update(meters=[NvmlMeter(gpu, i) for i, gpu in enumerate(visible_gpus({}))])")
    found = []
    for now_s in times_s:
        driver.describe(now_s=repr(now_s))
        found.append(driver.ask("[meter.read_j() for meter in meters]"))
    return [list(gpu) for gpu in zip(*found, strict=True)]


def test_our_meter_reads_the_machine_s_energy_between_two_moves_of_the_counter(driver: NvmlMachine) -> None:
    plan, machine = a_plan()
    for gpu, phase_s in enumerate(plan.phases_s):
        moves_s = [phase_s + 0.1 * step for step in (3, 8, 14, 18, 24, 28)]  # in rests and in loads
        read_j = counters_j(driver, plan, [move_s + 1e-6 for move_s in moves_s])[gpu]
        for place, end_s in enumerate(moves_s[1:], start=1):
            truth_j = machine.truth.energy_between_j(gpu, moves_s[0], end_s)
            assert read_j[place] - read_j[0] == pytest.approx(truth_j, abs=2e-3)


def test_our_meter_reads_the_energy_of_any_span_within_a_move_of_the_counter(driver: NvmlMachine) -> None:
    jitter_s = 0.01
    plan, machine = a_plan(jitter_s=jitter_s)
    times_s = np.linspace(0.4, 4.0, 25).tolist()
    most_w = max(float(profile.powers_w.max()) for profile in plan.profiles)
    for gpu, read_j in enumerate(counters_j(driver, plan, times_s)):
        errors_j = [
            read_j[place] - read_j[0] - machine.truth.energy_between_j(gpu, times_s[0], now_s)
            for place, now_s in enumerate(times_s)
        ]
        assert max(map(abs, errors_j)) <= most_w * (0.1 + 2 * jitter_s)
        assert max(map(abs, errors_j)) > 1.0, "a counter that moves now and then is not exact"


def test_the_driver_presents_the_sensor_of_the_virtual_gpu(driver: NvmlMachine) -> None:
    plan, _ = a_plan()
    plan = replace(plan, sensor=replace(plan.sensor, gain=1.5, offset_w=10.0, missing=("instant",)))
    describe(driver.file, plan, origin_s=0.0)
    driver.describe(now_s="0.5")
    driver.ask("globals().update(meter=NvmlMeter(visible_gpus({})[1], 1))")
    told = driver.ask("meter.conditions()")

    rest_w = float(plan.profiles[1].powers_w[0])
    assert told["average_power_w"] == pytest.approx(1.5 * rest_w + 10)
    assert told["power_w"] is None
    assert driver.ask("meter.facts().name") == plan.gpu_name


@pytest.mark.skipif(not zeus_is_here(), reason="Zeus is not installed; `tox -e zeus` installs it")
def test_all_three_tools_measure_the_same_loads_in_real_time(library: Path) -> None:
    plan, _ = a_plan(counter_period_s=0.02, idle_s=0.3)
    found = carry_out(plan, library)

    assert len(found.readings) + 3 * found.missed == 6
    for each in found.readings:
        most = 0.02 if each.tool == OURS else 0.15  # a period of 20 ms in 0.4 s, at both ends, and a busy machine
        assert abs(each.error) <= most, each
