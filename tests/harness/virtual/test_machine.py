"""A virtual machine: energies that add up, temperature, leakage, the power limit, and a clock of its own."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.virtual import machine as machine_module
from harness.virtual.gpu import read_virtual_gpu, shipped_virtual_gpus
from harness.virtual.machine import VirtualMachine
from harness.virtual.program import Segments, joined
from tests.harness.virtual.virtual_examples import COMPUTE, MEMORY, REDUCE, a_machine, energy_j, work

LEAKY: dict[str, Any] = {"leakage_w": 20.0, "leakage_reference_c": 50.0, "leakage_per_c": 0.02}


def layers(count: int = 1) -> Segments:
    return work(*[COMPUTE, REDUCE, MEMORY, REDUCE] * count, launches=20, collective=("reduce",))


# ---- energies ----


def test_idling_draws_the_idle_power_with_and_without_a_context() -> None:
    machine = a_machine()

    machine.clock.pause(10)
    machine.load_context()
    machine.clock.pause(10)
    machine.unload_context()
    machine.clock.pause(10)

    assert energy_j(machine) == pytest.approx(600 + 1000 + 600)
    assert machine.truth.energy_between_j(0, 9, 11) == pytest.approx(160)


def test_the_energy_of_a_run_is_idle_power_and_what_each_kernel_adds() -> None:
    machine = a_machine()
    program = machine.compile(work(COMPUTE, MEMORY))

    ran = machine.run(program, 500, label="mix")

    assert ran.duration_s == pytest.approx(10.0)
    assert machine.clock.now_s() == pytest.approx(10.0)
    assert energy_j(machine) == pytest.approx(10 * 100 + 500 * (1.58 + 1.4))
    assert machine.truth.energy_between_j(0, 0.02, 0.03) == pytest.approx(2.58)
    assert machine.truth.energy_between_j(0, 0.025, 0.035) == pytest.approx((2.58 + 2.4) / 2)


@pytest.mark.parametrize("name", shipped_virtual_gpus())
def test_kernels_gaps_and_idle_add_up_to_the_integral_of_power_exactly(name: str) -> None:
    machine = VirtualMachine(read_virtual_gpu(name), gpus=4, seed=3, host_s_per_launch=1e-4)
    start_s = machine.clock.now_s()

    machine.run(machine.compile(layers(40)), 3, label="long passes")
    machine.run(machine.compile(layers()), 200, label="short passes")

    truths = [machine.truth.of(label) for label in machine.truth.labels]
    for gpu in range(4):
        whole_j = machine.truth.energy_between_j(gpu, start_s, machine.clock.now_s())
        gross_j = sum(truth.kernel_energy_j[gpu].sum() + truth.gap_energy_j[gpu] for truth in truths)
        active_j = sum(
            truth.idle_energy_j[gpu] + truth.kernel_active_energy_j[gpu].sum() + truth.gap_active_energy_j[gpu]
            for truth in truths
        )
        times_s = sum(truth.kernel_duration_s[gpu].sum() + truth.gap_s[gpu] for truth in truths)
        assert whole_j == pytest.approx(sum(truth.energy_j[gpu] for truth in truths), rel=1e-12)
        assert gross_j == pytest.approx(whole_j, rel=1e-12)
        assert active_j == pytest.approx(whole_j, rel=1e-12)
        assert times_s == pytest.approx(machine.clock.now_s(), rel=1e-12)
    assert all((truth.wait_energy_j <= truth.kernel_energy_j).all() for truth in truths)


def test_a_request_takes_what_its_phases_take() -> None:
    prefill, decode = work(COMPUTE), work(*[MEMORY] * 30)
    machine = a_machine()

    machine.run(machine.compile(prefill), 1, label="prefill")
    machine.run(machine.compile(decode), 1, label="decode")
    machine.run(machine.compile(joined([prefill, decode])), 1, label="request")

    request = machine.truth.of("request")
    assert request.energy_j[0] == pytest.approx(
        machine.truth.of("prefill").energy_j[0] + machine.truth.of("decode").energy_j[0]
    )
    assert request.kernel_energy_j[0].tolist() == pytest.approx([2.58, 30 * 2.4])


def test_long_passes_follow_each_other_whole() -> None:
    machine = a_machine()

    machine.run(machine.compile(work(*[COMPUTE] * 30, *[MEMORY] * 30)), 2, label="work")

    power_w = machine.truth.mean_power_w(0, np.arange(5.0) * 0.3)
    assert power_w.tolist() == pytest.approx([258, 240, 258, 240])


def test_a_tracer_sees_the_same_times_as_the_truth_and_no_time_passes() -> None:
    machine = a_machine(gpus=3, rank_spread=0.1, host_s_per_launch=4e-4)
    program = machine.compile(layers())

    seen = machine.timeline(program)
    before_s = machine.clock.now_s()
    ran = machine.run(program, 1, label="pass")

    truth = machine.truth.of("pass")
    assert before_s == 0
    assert seen.launches.tolist() == [20, 40, 20]
    assert seen.pass_s == pytest.approx(ran.duration_s)
    assert seen.duration_s == pytest.approx(truth.kernel_duration_s)
    assert seen.wait_s == pytest.approx(truth.wait_s)
    assert seen.gap_s == pytest.approx(truth.gap_s)
    assert seen.wait_s[:, 1].min() == 0
    assert (seen.wait_s[:, 1] > 0).sum() == 2


def test_work_can_be_launched_without_the_host_in_between() -> None:
    machine = a_machine(host_s_per_launch=2e-3)
    segments = work(COMPUTE, launches=10)

    eager = machine.timeline(machine.compile(segments))
    as_graph = machine.timeline(machine.compile(segments, host_s_per_launch=0.0))

    assert (eager.pass_s, as_graph.pass_s) == pytest.approx((20e-3, 10e-3))
    assert as_graph.gap_s[0] == 0


def test_a_late_rank_makes_the_others_wait_and_idles_itself() -> None:
    machine = a_machine(gpus=2)
    program = machine.compile(work(COMPUTE, REDUCE, collective=("reduce",)), late_s=5e-3)

    machine.run(program, 100, label="waiting")

    truth = machine.truth.of("waiting")
    assert truth.wait_s[:, 1].tolist() == pytest.approx([0.5, 0])
    assert truth.wait_active_energy_j[:, 1].tolist() == pytest.approx([0.5 * 30, 0])
    assert truth.gap_active_energy_j.tolist() == pytest.approx([0, 0.5 * 20])


# ---- temperature and clocks ----


def test_temperature_goes_exponentially_to_where_the_power_leads() -> None:
    machine = a_machine()
    machine.load_context()
    machine.clock.pause(0)
    # at rest 30 + 0.05 · 60 W; with a context 30 + 0.05 · 100 W, with a time constant of 20 s
    for after_s in (5, 10, 40):
        machine.clock.pause(after_s - machine.clock.now_s())
        wanted_c = 35 - 2 * math.exp(-after_s / 20)
        assert machine._evolution._temperatures_at(after_s)[0] == pytest.approx(wanted_c)


def test_how_long_a_pause_is_cut_makes_no_difference() -> None:
    whole, in_parts = a_machine(**LEAKY), a_machine(**LEAKY)
    for machine in (whole, in_parts):
        machine.run(machine.compile(work(COMPUTE)), 6000, label="warm")

    whole.clock.pause(100)
    for _ in range(1000):
        in_parts.clock.pause(0.1)

    assert energy_j(in_parts) == pytest.approx(energy_j(whole), rel=1e-9)


def test_leakage_settles_where_heat_and_power_agree() -> None:
    machine = a_machine(**LEAKY)
    machine.run(machine.compile(work(COMPUTE)), 60_000, label="warm")  # ten minutes at 258 W and leakage

    power_w = machine.truth.energy_between_j(0, 590, 591)
    settled_c = 30 + 0.05 * power_w
    assert power_w == pytest.approx(258 + 20 * math.exp(0.02 * (settled_c - 50)), rel=1e-4)
    cold_w = machine.truth.energy_between_j(0, 0, 0.1) * 10
    assert cold_w < power_w - 1.5


def test_the_power_limit_lowers_the_clock_and_the_mean_power_stays_just_below_it() -> None:
    machine = a_machine(power_limit_w=230.0)
    program = machine.compile(work(COMPUTE))

    ran = machine.run(program, 1000, label="capped")
    seen = machine.meters()[0].conditions()

    power_w = machine.truth.of("capped").energy_j[0] / ran.duration_s
    assert 228 < power_w <= 230
    assert seen.sm_clock_mhz is not None
    assert seen.sm_clock_mhz < 1950
    assert ran.duration_s == pytest.approx(10 * 2000 / seen.sm_clock_mhz)
    assert seen.throttle_reasons == 0x4


def test_below_the_limit_nothing_is_throttled() -> None:
    machine = a_machine(power_limit_w=260.0)

    machine.run(machine.compile(work(COMPUTE)), 100, label="free")
    seen = machine.meters()[0].conditions()

    assert (seen.sm_clock_mhz, seen.throttle_reasons) == (2000, 0)


def test_phases_of_one_pass_are_capped_one_by_one() -> None:
    machine = a_machine(power_limit_w=230.0)
    prefill, decode = work(*[COMPUTE] * 100), work(*[("step", 0.0, 1e9, 0.0)] * 1000)

    machine.run(machine.compile(joined([prefill, decode])), 1, label="request")

    truth = machine.truth.of("request")
    assert truth.kernel_duration_s[0, 0] > 1.1
    assert truth.kernel_duration_s[0, 1] == pytest.approx(1.0)


def test_a_gpu_that_leaks_more_and_more_slows_down_at_the_limit() -> None:
    machine = a_machine(power_limit_w=240.0, **LEAKY)
    program = machine.compile(work(COMPUTE))

    first = machine.run(program, 100, label="cold")
    machine.run(program, 20_000, label="between")
    last = machine.run(program, 100, label="hot")

    assert last.duration_s > first.duration_s * 1.005
    for label in machine.truth.labels:
        truth = machine.truth.of(label)
        assert truth.energy_j[0] / truth.duration_s <= 240 + 1e-9


# ---- behaviour ----


def test_the_same_seed_is_the_same_machine_and_another_seed_is_another() -> None:
    def counters(seed: int) -> list[float]:
        machine = VirtualMachine(read_virtual_gpu("a100-pcie"), gpus=2, seed=seed)
        levels = []
        for _ in range(5):
            machine.run(machine.compile(layers()), 7, label="work")
            levels += [meter.read_j() for meter in machine.meters()]
        return levels

    assert counters(5) == counters(5)
    assert counters(5) != counters(6)


def test_ranks_differ_in_speed_by_no_more_than_the_spread() -> None:
    machine = a_machine(gpus=8, rank_spread=0.05)
    own_s = machine.timeline(machine.compile(work(COMPUTE))).duration_s[:, 0]

    assert len(set(own_s.tolist())) == 8
    assert own_s.min() >= 10e-3
    assert own_s.max() <= 10e-3 / 0.95


def test_somebody_can_watch_the_meters_while_the_gpus_work() -> None:
    machine = a_machine()
    (meter,) = machine.meters()
    seen_w: list[float] = []

    def watch() -> None:
        seen_w.append(meter.instant_power_w())

    ran = machine.run(machine.compile(work(COMPUTE)), 990, label="work", meanwhile=watch, every_s=0.25)

    assert ran.duration_s == pytest.approx(9.9)
    assert machine.clock.now_s() == pytest.approx(9.9)
    assert seen_w == pytest.approx([258] * 39, rel=1e-5)


def none(_: object) -> None:
    """Whatever it was."""


def test_nothing_else_starts_while_the_gpus_work() -> None:
    machine = a_machine()
    program = machine.compile(work(COMPUTE))

    with pytest.raises(ValueError, match="at work"):
        machine.run(program, 1000, label="outer", meanwhile=lambda: none(machine.run(program, 1, label="inner")))
    with pytest.raises(ValueError, match="at work"):
        machine.run(program, 1000, label="outer", meanwhile=machine.unload_context)


def test_what_has_been_launched_runs_to_its_end_though_the_watcher_fails() -> None:
    machine = a_machine()
    program = machine.compile(work(COMPUTE))

    def fail() -> None:
        raise RuntimeError("the watcher fell asleep")

    with pytest.raises(RuntimeError, match="asleep"):
        machine.run(program, 100, label="work", meanwhile=fail)
    machine.run(program, 100, label="work")

    assert machine.clock.now_s() == pytest.approx(2)
    assert energy_j(machine) == pytest.approx(516)


def test_what_cannot_be_run_is_refused() -> None:
    machine = a_machine()
    program = machine.compile(work(COMPUTE))

    with pytest.raises(ValueError, match="at least once"):
        machine.run(program, 0, label="never")
    with pytest.raises(ValueError, match="another machine"):
        a_machine().run(program, 1, label="elsewhere")
    for duration_s in (-1, math.inf, math.nan):
        with pytest.raises(ValueError, match="goes on by a finite time"):
            machine.clock.pause(duration_s)
    with pytest.raises(ValueError, match="at least 1 GPU"):
        a_machine(gpus=0)


def test_one_label_stands_for_the_same_kernels_always() -> None:
    machine = a_machine()
    machine.run(machine.compile(work(COMPUTE)), 1, label="work")

    with pytest.raises(ValueError, match="'work'"):
        machine.run(machine.compile(work(MEMORY)), 1, label="work")
    assert machine.clock.now_s() == pytest.approx(10e-3), "nothing has been run"


def test_the_mean_power_between_times_is_the_truth_as_a_trace() -> None:
    machine = a_machine()
    machine.run(machine.compile(work(COMPUTE)), 100, label="work")
    machine.clock.pause(1)

    assert machine.truth.mean_power_w(0, np.array([0.0, 0.5, 1.0, 2.0])).tolist() == pytest.approx([258, 258, 100])
    with pytest.raises(ValueError, match="rise"):
        machine.truth.mean_power_w(0, np.array([0.0, 0.0]))
    with pytest.raises(ValueError, match="no span"):
        machine.truth.energy_between_j(0, 1.0, 0.5)


def test_a_long_past_is_forgotten_and_the_counters_do_not_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    def levels_j(kept: int) -> list[float]:
        monkeypatch.setattr(machine_module, "BLOCKS_KEPT", kept)
        machine = VirtualMachine(read_virtual_gpu("h100-sxm"), gpus=2, seed=9)
        program = machine.compile(layers(3))
        for _ in range(60):
            machine.run(program, 2, label="work")
        told = machine.meters()[1].conditions()
        assert told.reported_power_w is not None
        assert (machine.truth._timeline.start_s > 0) == (kept < 1000)
        return [machine.meters()[0].read_j(), machine.meters()[1].read_j(), told.reported_power_w]

    assert levels_j(40) == pytest.approx(levels_j(20_000), rel=1e-12)


# ---- any program, any times ----

AMOUNT = st.floats(0, 1e13)
KERNELS = st.lists(st.tuples(AMOUNT, st.floats(0, 1e10), st.booleans()), min_size=1, max_size=5)


@given(
    kernels=KERNELS,
    gpus=st.integers(1, 3),
    host_s=st.floats(0, 1e-4),
    limit_w=st.floats(150, 500),
    passes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    pause_s=st.floats(0, 5),
    shares=st.lists(st.floats(0, 1), min_size=2, max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_energy_adds_up_over_any_times_and_never_falls(
    kernels: list[tuple[float, float, bool]],
    gpus: int,
    host_s: float,
    limit_w: float,
    passes: list[int],
    pause_s: float,
    shares: list[float],
) -> None:
    names = [f"k{index}" for index in range(len(kernels))]
    segments = work(
        *[(name, flop, size, 1e8 * both) for name, (flop, size, both) in zip(names, kernels, strict=True)],
        launches=16,
        collective=[name for name, (_, _, both) in zip(names, kernels, strict=True) if both],
    )
    machine = a_machine(
        gpus=gpus, host_s_per_launch=host_s, power_limit_w=limit_w, rank_spread=0.1, launch_s=1e-6, **LEAKY
    )
    program = machine.compile(segments)
    for count in passes:
        machine.run(program, count, label="any")
        machine.clock.pause(pause_s)

    end_s = machine.clock.now_s()
    times_s = np.sort(np.array([0.0, *shares, 1.0]) * end_s)
    for gpu in range(gpus):
        parts_j = [machine.truth.energy_between_j(gpu, a, b) for a, b in pairwise(times_s)]
        whole_j = machine.truth.energy_between_j(gpu, 0.0, end_s)
        idle_j = len(passes) * pause_s * 60
        assert min(parts_j) >= -1e-12 * whole_j
        assert sum(parts_j) == pytest.approx(whole_j, rel=1e-9)
        assert whole_j >= (machine.truth.of("any").energy_j[gpu] + idle_j) * (1 - 1e-9)
