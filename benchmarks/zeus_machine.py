"""A virtual machine's exact power over a plan of loads and rests, as the stand-in for NVML's library takes it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.zeus_records import LENGTHS_S, WINDOWS, FloatArray, Load, Plan, Profile, Scenario
from harness.measuring.protocol import STANDARD
from harness.virtual.gpu import Sensor, VirtualGpu, read_virtual_gpu
from harness.virtual.machine import Program, VirtualMachine
from harness.virtual.truth import Truth

GPU = "h100-sxm"
_WARM_UP_S = 30.0  # of virtual time, before the plan begins
_LOAD_PIECE_S = 0.01  # resolution of the profile; exact in energy at the ends of pieces
_REST_PIECE_S = 0.25
_REST_STEPS = 6  # counter periods between two loads at least: three to end one window, three to begin the next
_REST_S = 0.1  # … and for the calls in between
_BEFORE_S = 2.0  # on either side of the time for the idle floor

Programs = Callable[[VirtualMachine, float], tuple[Program, int]]  # work that lasts about so long, and its passes


def plan_of(scenario: Scenario, programs: Programs, *, trials: int, seed: int) -> Plan:
    """Let a virtual machine do all loads of a scenario in virtual time; they come in random order and phase."""
    rng = random.Random(f"{seed} {scenario}")  # noqa: S311  a simulation
    gpu = _gpu(scenario)
    machine = VirtualMachine(gpu, gpus=scenario.gpus, seed=rng.randrange(2**31))
    work = {length_s: programs(machine, length_s) for length_s in LENGTHS_S}
    warm, passes = work[LENGTHS_S[-1]]
    machine.run(warm, max(1, round(_WARM_UP_S / LENGTHS_S[-1])) * passes, label="warm-up")
    begun_s = machine.clock.now_s()
    machine.clock.pause(STANDARD.idle_s + 2 * _BEFORE_S)
    loads = []
    for length_s in _order(trials, rng):
        machine.clock.pause((_REST_STEPS + rng.random()) * scenario.counter_period_s + _REST_S)
        program, passes = work[length_s]
        ran = machine.run(program, passes, label=f"load {length_s:g}")
        loads.append(Load(length_s=length_s, start_s=ran.started_s, end_s=ran.started_s + ran.duration_s))
    machine.clock.pause(STANDARD.idle_s + 2 * _BEFORE_S)
    return Plan(
        scenario=scenario,
        gpu_name=gpu.load.hardware.name,
        sensor=gpu.sensor,
        phases_s=tuple(_phase_s(scenario, rng) for _ in range(scenario.gpus)),
        profiles=profiles_of(machine, loads, begun_s=begun_s),
        loads=tuple(replace(load, start_s=load.start_s - begun_s, end_s=load.end_s - begun_s) for load in loads),
        idle_s=STANDARD.idle_s,
    )


def profiles_of(machine: VirtualMachine, loads: Sequence[Load], *, begun_s: float) -> tuple[Profile, ...]:
    """The power of each GPU from a time until now, in pieces that end where loads begin and end; times from 0 on."""
    edges_s = _edges_s(loads, begun_s, machine.clock.now_s())
    return tuple(_profile(machine.truth, gpu, edges_s) for gpu in range(machine.gpus))


def sensor_of(scenario: Scenario, sensor: Sensor) -> Sensor:
    """A sensor as a scenario has it, without errors of gain and offset: no software can see those.

    A counter that looks moves when a look ends, as in ``harness.virtual``: it has no lag, and so no jitter either.
    """
    jitter_s = sensor.counter_jitter_s * scenario.counter_period_s / sensor.counter_period_s
    return replace(
        sensor,
        counter_period_s=scenario.counter_period_s,
        counter_jitter_s=0.0 if scenario.counter_sampled else jitter_s,
        counter_sampled=scenario.counter_sampled,
        gain=1.0,
        offset_w=0.0,
    )


def _gpu(scenario: Scenario) -> VirtualGpu:
    gpu = read_virtual_gpu(GPU)
    return replace(gpu, sensor=sensor_of(scenario, gpu.sensor))


def _phase_s(scenario: Scenario, rng: random.Random) -> float:
    return 0.0 if scenario.counter_sampled else rng.random() * scenario.counter_period_s


def _order(trials: int, rng: random.Random) -> list[float]:
    lengths_s = [length_s for length_s in LENGTHS_S for _ in range(WINDOWS[length_s] * trials)]
    return rng.sample(lengths_s, k=len(lengths_s))


def _profile(truth: Truth, gpu: int, edges_s: FloatArray) -> Profile:
    return Profile(edges_s=edges_s - edges_s[0], powers_w=truth.mean_power_w(gpu, edges_s))


def _edges_s(loads: Sequence[Load], begun_s: float, ended_s: float) -> FloatArray:
    parts, now_s = [np.array([begun_s])], begun_s
    for load in loads:
        parts += [_cut(now_s, load.start_s, _REST_PIECE_S), _cut(load.start_s, load.end_s, _LOAD_PIECE_S)]
        now_s = load.end_s
    return np.concatenate([*parts, _cut(now_s, ended_s, _REST_PIECE_S)])


def _cut(start_s: float, end_s: float, piece_s: float) -> FloatArray:
    """Ends of equal pieces of a span, each at most so long; none where there is no span."""
    pieces = int(np.ceil((end_s - start_s) / piece_s - 1e-9))
    return np.linspace(start_s, end_s, pieces + 1)[1:] if pieces > 0 else np.empty(0)
