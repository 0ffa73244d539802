"""Random virtual machines with random requests: the cases of ``benchmarks.joules``.

Ranges are those of real boards and sensors, as far as they are known: counters that move every 10–200 ms (arXiv
2312.02741, Zeus), trailing means of 25–1000 ms, a quarter of the time looked at or all of it, idle power of 30–250 W.
"""

import json
import math
import random
from dataclasses import dataclass, replace

from harness.campaign.jobs import Job
from harness.campaign.site import VIRTUAL_PREFIX
from harness.campaign.task import Task
from harness.measuring.attribution import Ceilings
from harness.models.source import resolve
from harness.records import EnergyMethod, Provenance, Quality
from harness.requests import Deployment, Request
from harness.virtual.gpu import Load, Sensor, VirtualGpu, read_virtual_gpu
from harness.virtual.machine import VirtualMachine

BASES = ("h100-sxm", "a100-sxm", "l40s")
MODELS = ("Qwen/Qwen3-8B", "meta-llama/Llama-3.2-1B", "mistralai/Mixtral-8x7B-v0.1")
GPU_COUNTS = (1, 2, 4, 8)
STATED_GAIN95 = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One machine with one request."""

    number: int
    seed: int
    exact: bool  # the sensor's gain and offset have no error

    @property
    def rng(self) -> random.Random:
        """The same dice for the same case, whether exact or not."""
        return random.Random(f"{self.seed} {self.number}")  # noqa: S311  a simulation


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A case made ready."""

    machine: VirtualMachine
    task: Task


def bench_of(case: Case) -> Bench:
    """The machine and the task of a case."""
    rng = case.rng
    base = read_virtual_gpu(rng.choice(BASES))
    load = _load(base.load, rng)
    sensor = _sensor(rng)
    if case.exact:
        sensor = replace(sensor, gain=1.0, offset_w=0.0, stated_gain_95=0.0)
    gpus = rng.choice(GPU_COUNTS)
    host_s = rng.uniform(4e-6, 2e-5)
    machine = VirtualMachine(
        VirtualGpu(name=f"random-{case.number}", load=load, sensor=sensor),
        gpus=gpus,
        seed=rng.randrange(2**31),
        host_s_per_launch=host_s,
    )
    return Bench(machine=machine, task=_task(case, base, gpus, rng))


def _load(base: Load, rng: random.Random) -> Load:
    """Powers that range from a board that is never at its limit to one that always is."""
    hardware = base.hardware
    board_w = hardware.board_power_w or 400.0
    flop_efficiency, bytes_efficiency = rng.uniform(0.4, 0.8), rng.uniform(0.6, 0.9)
    peak = hardware.peak_flop_per_s_for("bfloat16")
    rate = hardware.peak_bytes_per_s or 1e12
    idle_w = rng.uniform(30, 250) * min(1.0, board_w / 700)
    return replace(
        base,
        flop_efficiency=flop_efficiency,
        bytes_efficiency=bytes_efficiency,
        link_efficiency=rng.uniform(0.5, 0.9),
        launch_s=rng.uniform(1e-6, 3e-6),
        link_latency_s=rng.uniform(5e-6, 3e-5),
        idle_power_w=idle_w,
        bare_idle_power_w=idle_w * rng.uniform(0.4, 0.9),
        busy_w=board_w * rng.uniform(0.03, 0.12),
        pj_per_flop=1e12 * board_w * rng.uniform(0.3, 0.8) / (peak * flop_efficiency),
        pj_per_byte=1e12 * board_w * rng.uniform(0.15, 0.45) / (rate * bytes_efficiency),
        pj_per_link_byte=rng.uniform(20, 120),
        wait_w=board_w * rng.uniform(0.03, 0.2),
        gap_w=board_w * rng.uniform(0.01, 0.12),
        leakage_w=board_w * rng.uniform(0.01, 0.06),
        leakage_per_c=rng.uniform(0.005, 0.02),
        ambient_c=rng.uniform(20, 40),
        c_per_w=rng.uniform(25, 45) / board_w,
        time_constant_s=rng.uniform(8, 60),
        rank_spread=rng.uniform(0, 0.03),
    )


def _sensor(rng: random.Random) -> Sensor:
    period_s = math.exp(rng.uniform(math.log(0.01), math.log(0.2)))
    duty_cycle = rng.choice((1.0, 0.25, rng.uniform(0.25, 1.0)))
    return Sensor(
        counter_period_s=period_s,
        counter_jitter_s=period_s * rng.uniform(0, 0.05),
        counter_quantum_j=10 ** rng.uniform(-3, -1),
        duty_cycle=duty_cycle,
        duty_period_s=rng.choice((0.1, period_s)),
        counter_sampled=rng.random() < 0.5,
        gain=1 + rng.gauss(0, STATED_GAIN95 / 1.96),
        offset_w=rng.gauss(0, 0.5),
        stated_gain_95=STATED_GAIN95,
        noise_w=rng.uniform(0, 10),
        average_window_s=rng.uniform(0.025, 1.0),
        average_period_s=rng.uniform(0.02, 0.1),
        instant_period_s=rng.uniform(0.02, 0.1),
        read_latency_s=10 ** rng.uniform(-5, -3.3),
        read_latency_jitter_s=rng.uniform(0, 2e-4),
    )


def _task(case: Case, base: VirtualGpu, gpus: int, rng: random.Random) -> Task:
    hardware = base.load.hardware
    model = rng.choice(MODELS)
    request = Request(
        model=model,
        batch_size=rng.choice((1, 2, 4, 8, 16, 32)),
        prompt_tokens=rng.choice((64, 128, 256, 512, 1024, 2048)),
        output_tokens=rng.choice((2, 8, 32, 128, 512)),
        dtype="bfloat16",
    )
    deployment = Deployment(
        device=f"virtual:{base.name}",
        n_gpus=gpus,
        ranks=gpus,
        parallelism="tensor" if gpus > 1 else "none",
    )
    job = Job(
        run_id=f"case-{case.number}",
        request=request,
        deployment=deployment,
        sampling_weight=None,
        clipped=None,
        estimate_s=0.0,
    )
    return Task(
        job=job,
        source=resolve(model, random_weights=True, download=False),
        gpu=f"{VIRTUAL_PREFIX}{hardware.name}",
        ceilings=Ceilings(flop_per_s=hardware.peak_flop_per_s_for("bfloat16"), bytes_per_s=hardware.peak_bytes_per_s),
        gpu_uuids=(),
        provenance=Provenance.SIMULATED,
        campaign_id="benchmark",
        configuration=json.dumps({}),
        quality=Quality.STANDARD,
        limit_s=None,
        seed=case.number,
        cpu_threads=0,
        collective_timeout_s=600.0,
        trace_kernels=True,
        kernel_energy=(EnergyMethod.REPLAY, EnergyMethod.REGRESSED),
    )
