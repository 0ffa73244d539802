"""A virtual GPU with round figures, so that times and energies can be worked out by hand."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.virtual.faults import Fault
from harness.virtual.gpu import Load, Sensor, VirtualGpu
from harness.virtual.machine import VirtualMachine
from harness.virtual.program import Segments
from tests.example_graphs import GPU

# No launch costs, no leakage, no limit that matters: a kernel draws 100 W idle + 50 W busy + what it does.
LOAD: dict[str, Any] = {
    "hardware": GPU,
    "flop_efficiency": 1.0,
    "bytes_efficiency": 1.0,
    "link_efficiency": 1.0,
    "launch_s": 0.0,
    "link_latency_s": 0.0,
    "idle_power_w": 100.0,
    "bare_idle_power_w": 60.0,
    "busy_w": 50.0,
    "pj_per_flop": 0.1,  # 100 W at the peak
    "pj_per_byte": 80.0,  # 80 W at the bandwidth
    "pj_per_link_byte": 200.0,  # 20 W at the link's bandwidth
    "wait_w": 30.0,
    "gap_w": 20.0,
    "power_limit_w": 1000.0,
    "clock_mhz": 2000.0,
    "lowest_clock_mhz": 200.0,
    "clock_step_mhz": 10.0,
    "dynamic_exponent": 2.0,
    "ambient_c": 30.0,
    "c_per_w": 0.05,
    "time_constant_s": 20.0,
}
SENSOR: dict[str, Any] = {"counter_period_s": 0.1, "read_latency_s": 1e-5}


def a_gpu(*, sensor: dict[str, Any] | None = None, **load: Any) -> VirtualGpu:
    return VirtualGpu(name="round", load=Load(**LOAD | load), sensor=Sensor(**SENSOR | (sensor or {})))


def a_machine(
    *,
    gpus: int = 1,
    seed: int = 1,
    host_s_per_launch: float = 0.0,
    faults: Sequence[Fault] = (),
    sensor: dict[str, Any] | None = None,
    **load: Any,
) -> VirtualMachine:
    gpu = a_gpu(sensor=sensor, **load)
    return VirtualMachine(gpu, gpus=gpus, seed=seed, host_s_per_launch=host_s_per_launch, faults=faults)


def work(
    *segments: tuple[str, float, float, float],
    launches: float = 1.0,
    collective: Sequence[str] = (),
    dtypes: dict[str, str] | None = None,
) -> Segments:
    """Segments as (kernel, FLOP, traffic bytes, link bytes)."""
    names = list(dict.fromkeys(name for name, *_ in segments))
    amounts = np.array([amount for _, *amount in segments], dtype=np.float64)
    return Segments(
        kernels=tuple(names),
        collective=tuple(name in collective for name in names),
        dtypes=tuple((dtypes or {}).get(name, "bfloat16") for name in names),
        kernel=np.array([names.index(name) for name, *_ in segments], dtype=np.int64),
        launches=np.full(len(segments), launches),
        flop=amounts[:, 0].copy(),
        traffic_bytes=amounts[:, 1].copy(),
        link_bytes=amounts[:, 2].copy(),
    )


COMPUTE = ("compute", 1e13, 1e9, 0.0)  # 10 ms at the peak: 150 W + 100 W for FLOP + 8 W for traffic
MEMORY = ("memory", 1e12, 1e10, 0.0)  # 10 ms at the bandwidth: 150 W + 10 W for FLOP + 80 W for traffic
REDUCE = ("reduce", 0.0, 0.0, 1e9)  # 10 ms over the link: 150 W + 20 W for link bytes


def energy_j(machine: VirtualMachine, gpu: int = 0) -> float:
    """Everything a GPU has drawn so far."""
    return machine.truth.energy_between_j(gpu, 0.0, machine.clock.now_s())
