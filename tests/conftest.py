"""Synthetic measurements for every test that needs a dataset: coherent, seeded, made without torch."""

import hashlib
import json
import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import pytest

from harness.kernels import KernelKind, Phase, shape_text
from harness.records import (
    SCHEMA_VERSION,
    EnergyMethod,
    EnvironmentRow,
    GraphRow,
    KernelEnergyRow,
    KernelRow,
    Measurement,
    Part,
    PhaseRow,
    PowerTraceRow,
    Provenance,
    Quality,
    ReadingRow,
    RunRow,
    Status,
    Weights,
)

RowT = TypeVar("RowT", RunRow, EnvironmentRow, ReadingRow)

TRIALS = 3
STUDENT_T = 4.303  # two-sided 95 %, two degrees of freedom
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
CPU = "cpu: Example CPU @ 2.00GHz"
GPU = "NVIDIA A100-SXM4-80GB"
REQUESTS = ((1, 64, 16), (4, 256, 64), (2, 128, 32), (16, 2048, 8), (8, 512, 128), (32, 4096, 256), (1, 32, 1))
FAILURES = (
    (Status.OOM, "needs 31.2 GiB, the limit is 4.0 GiB"),
    (Status.FAILED, "RuntimeError: the device | stopped\nanswering"),
    (Status.SKIPPED, "a smaller request of the same shape ran out of memory"),
)
EXAMPLES_OF_KINDS = (
    (KernelKind.GEMM, "aten::mm", "model.layers.*.mlp.up_proj"),
    (KernelKind.ATTENTION, "aten::scaled_dot_product_attention", "model.layers.*.self_attn"),
    (KernelKind.NORM, "aten::mean", "model.layers.*.input_layernorm"),
    (KernelKind.ACTIVATION, "aten::silu", "model.layers.*.mlp.act_fn"),
    (KernelKind.ELEMENTWISE, "aten::add", "model.layers.*"),
    (KernelKind.EMBEDDING, "aten::embedding", "model.embed_tokens"),
    (KernelKind.COPY, "aten::copy_", None),
    (KernelKind.OTHER, "aten::argmax", None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleMachine:
    """A made-up machine: what differs between the CPU and the GPU of the examples."""

    environment: EnvironmentRow
    provenance: Provenance
    method: str
    idle_power_w: float
    load_power_w: float
    flop_per_s: float


def content_hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def row_of(row_class: type[RowT], **known: Any) -> RowT:
    """A row in which every column that is not given is null."""
    columns: dict[str, Any] = dict.fromkeys(field.name for field in fields(row_class))
    return row_class(**(columns | known))


def example_environment(*, cuda: bool) -> EnvironmentRow:
    return row_of(
        EnvironmentRow,
        environment_id=content_hash("environment", cuda),
        gpu=GPU if cuda else CPU,
        device_name=GPU if cuda else "Example CPU @ 2.00GHz",
        n_devices=1 if cuda else 0,
        cpu="Example CPU @ 2.00GHz",
        cpu_cores=2,
        memory_bytes=24 * 1024**3,
        virtual_machine=True,
        driver="580.65.06" if cuda else None,
        cuda="13.0" if cuda else None,
        power_limit_w=400.0 if cuda else None,
        ecc=True if cuda else None,
        mig=False if cuda else None,
        persistence_mode=True if cuda else None,
        os="Linux 6.12",
        python="3.11.7",
        torch="2.13.0",
        transformers="5.23.0",
        harness="0.1.0",
        threads=2,
        meter="nvml:0 (measured)" if cuda else "codecarbon-cpu-load (estimated)",
        meter_step_s=0.02 if cuda else None,
        peak_flop_per_s=312e12 if cuda else 1.1e11,
        peak_bytes_per_s=2.039e12 if cuda else 1.8e10,
    )


def example_machine(*, cuda: bool) -> ExampleMachine:
    return ExampleMachine(
        environment=example_environment(cuda=cuda),
        provenance=Provenance.MEASURED if cuda else Provenance.ESTIMATED,
        method="nvml-counter" if cuda else "codecarbon-cpu-load",
        idle_power_w=62.0 if cuda else 9.5,
        load_power_w=310.0 if cuda else 42.0,
        flop_per_s=9e13 if cuda else 6e10,
    )


def example_run(index: int, seed: int, machine: ExampleMachine) -> RunRow:
    """A run of which nothing is known yet but what was asked."""
    batch_size, prompt_tokens, output_tokens = REQUESTS[index % len(REQUESTS)]
    return row_of(
        RunRow,
        run_id=content_hash("run", seed, index),
        schema_version=SCHEMA_VERSION,
        campaign_id=content_hash("campaign", seed),
        environment_id=machine.environment.environment_id,
        provenance=machine.provenance,
        source="joulegraph 0.1.0",
        model=MODEL,
        model_revision="7e27bd9",
        weights=Weights.PRETRAINED,
        config_sha256=content_hash("config"),
        dtype="float32",
        runtime="hf",
        attention="sdpa",
        kv_cache=True,
        cuda_graphs=False,
        gpu=machine.environment.gpu,
        n_gpus=machine.environment.n_devices,
        parallelism="none",
        tensor_parallel=1,
        batch_size=batch_size,
        # Later rounds over the requests ask for more tokens, so that no request is asked for twice.
        prompt_tokens=prompt_tokens + index // len(REQUESTS),
        output_tokens=output_tokens,
        sampling_weight=1.0 + index / 8,
        clipped=None if index else "output: 900 → 16 tokens, for the time budget",
        status=Status.OK,
        quality=Quality.QUICK,
        started_at_utc=f"2026-11-23T10:{index // 60 % 60:02d}:{index % 60:02d}+00:00",
        configuration='{"quality":"quick"}',
    )


def example_shape(kind: KernelKind, tokens: int, context_tokens: int, batch_size: int) -> str:
    if kind is KernelKind.GEMM:
        return shape_text({"m": batch_size * tokens, "n": 1536, "k": 576})
    if kind is KernelKind.ATTENTION:
        sizes = {"heads": 9, "kv_heads": 3, "head_dim": 64}
        return shape_text({"batch": batch_size, "query_tokens": tokens, "context_tokens": context_tokens, **sizes})
    return shape_text({"rows": batch_size * tokens, "columns": 576})


def example_kernels(run: RunRow, phase: Phase, count: int, machine: ExampleMachine) -> tuple[KernelRow, ...]:
    prefill = phase is Phase.PREFILL
    tokens, steps = (run.prompt_tokens, 1) if prefill else (1, run.output_tokens - 1)
    rows = []
    for number in range(count):
        kind, op, module = EXAMPLES_OF_KINDS[number % len(EXAMPLES_OF_KINDS)]
        flop = (number + 1) * 2 * 30 * 576 * 1536 * run.batch_size * tokens * steps
        duration_s = flop / machine.flop_per_s
        row = KernelRow(
            run_id=run.run_id,
            phase=phase,
            rank=0,
            kernel_id=f"{phase}-{number:05d}",
            kind=kind,
            op=op,
            module=module,
            dtype="float32" if kind is not KernelKind.EMBEDDING else "int64",
            shape=example_shape(kind, tokens, run.prompt_tokens, run.batch_size),
            launches=30 * steps,
            flop=flop if kind is not KernelKind.OTHER else None,
            read_bytes=flop // 8,
            write_bytes=flop // 64,
            link_bytes=0 if run.n_gpus else None,
            duration_s=duration_s,
            traced_duration_s=duration_s * 1.4,
        )
        rows.append(row)
    return tuple(rows)


def example_readings(
    run: RunRow, part: Part, power_w: float, duration_s: float, draw: random.Random, machine: ExampleMachine
) -> tuple[ReadingRow, ...]:
    """Three windows of one pass each, with noise of about one per cent."""
    cuda = machine.provenance is Provenance.MEASURED
    rows = []
    for trial in range(TRIALS):
        energy_j = power_w * duration_s * draw.gauss(1.0, 0.01)
        started_s = 10.0 * list(Part).index(part) + 3.0 * trial
        row = row_of(
            ReadingRow,
            run_id=run.run_id,
            part=part,
            trial=trial,
            rank=0,
            device_sha256=content_hash("device") if cuda else None,
            meter="nvml:0" if cuda else "codecarbon-cpu-load",
            provenance=machine.provenance,
            energy_j=energy_j,
            uncertainty_j=0.004 * energy_j,
            duration_s=duration_s,
            tail_s=0.0,
            passes=0.0 if part is Part.IDLE else 1.0,
            context_start_tokens=run.prompt_tokens if part is Part.DECODE else None,
            started_s=started_s,
            counter_start_j=1000.0 + started_s,
            counter_end_j=1000.0 + started_s + energy_j,
            sm_clock_mhz=1410.0 if cuda else None,
            memory_clock_mhz=1593.0 if cuda else None,
            temperature_c=51.0 if cuda else None,
            throttle_reasons=0 if cuda else None,
        )
        rows.append(row)
    return tuple(rows)


def mean_and_ci95_j(readings: tuple[ReadingRow, ...]) -> tuple[float, float]:
    energies_j = [reading.energy_j for reading in readings]
    return statistics.fmean(energies_j), STUDENT_T * statistics.stdev(energies_j) / math.sqrt(len(energies_j))


def example_phase(
    run: RunRow, phase: Phase, kernels: tuple[KernelRow, ...], readings: tuple[ReadingRow, ...], machine: ExampleMachine
) -> PhaseRow:
    prefill = phase is Phase.PREFILL
    energy_j, energy_ci95_j = mean_and_ci95_j(readings)
    duration_s = readings[0].duration_s
    kernel_s = sum(kernel.duration_s or 0.0 for kernel in kernels)
    return PhaseRow(
        run_id=run.run_id,
        phase=phase,
        graph_id=content_hash("graph", MODEL, phase, len(kernels)),
        energy_j=energy_j,
        energy_ci95_j=energy_ci95_j,
        idle_energy_j=machine.idle_power_w * duration_s,
        host_gap_energy_j=energy_j * (1 - kernel_s / duration_s) if kernels else None,
        duration_s=duration_s,
        steps=1 if prefill else run.output_tokens - 1,
        context_start_tokens=0 if prefill else run.prompt_tokens,
        context_end_tokens=run.prompt_tokens if prefill else run.prompt_tokens + run.output_tokens - 1,
        measured_contexts=None,
        trials=TRIALS,
        method=machine.method,
    )


def kernel_energy(kernel: KernelRow, method: EnergyMethod, energy_j: float, idle_power_w: float) -> KernelEnergyRow:
    return KernelEnergyRow(
        run_id=kernel.run_id,
        phase=kernel.phase,
        rank=kernel.rank,
        kernel_id=kernel.kernel_id,
        method=method,
        energy_j=energy_j,
        active_energy_j=energy_j - idle_power_w * (kernel.duration_s or 0.0),
        energy_ci95_j=None if method is EnergyMethod.APPORTIONED else 0.05 * energy_j,
    )


def example_kernel_energies(
    phase: PhaseRow, kernels: tuple[KernelRow, ...], draw: random.Random, machine: ExampleMachine
) -> tuple[KernelEnergyRow, ...]:
    """Apportioned by time, so that kernels and host gaps fill the phase; replayed too on the GPU."""
    total_s = sum(kernel.duration_s or 0.0 for kernel in kernels)
    filled_j = (phase.energy_j or 0.0) - (phase.host_gap_energy_j or 0.0)
    rows = []
    for kernel in kernels:
        energy_j = filled_j * (kernel.duration_s or 0.0) / total_s
        rows.append(kernel_energy(kernel, EnergyMethod.APPORTIONED, energy_j, machine.idle_power_w))
        if machine.provenance is Provenance.MEASURED:
            replayed_j = energy_j * draw.gauss(0.97, 0.02)
            rows.append(kernel_energy(kernel, EnergyMethod.REPLAY, replayed_j, machine.idle_power_w))
    return tuple(rows)


def residual_j(
    run: RunRow, phases: tuple[PhaseRow, ...], energies: tuple[KernelEnergyRow, ...], machine: ExampleMachine
) -> float | None:
    """The ledger: run − idle − active energy of replayed kernels − active host gaps; null without replay."""
    replayed = [row.active_energy_j or 0.0 for row in energies if row.method is EnergyMethod.REPLAY]
    if not replayed:
        return None
    idle_j = machine.idle_power_w * (run.duration_s or 0.0)
    gaps_j = sum(phase.host_gap_energy_j or 0.0 for phase in phases)
    return (run.energy_j or 0.0) - idle_j - sum(replayed) - gaps_j * (1 - machine.idle_power_w / machine.load_power_w)


def example_graph(phase: Phase, kernels: tuple[KernelRow, ...]) -> GraphRow:
    described = [{"kind": kernel.kind, "op": kernel.op, "module": kernel.module} for kernel in kernels]
    return GraphRow(
        graph_id=content_hash("graph", MODEL, phase, len(kernels)),
        model=MODEL,
        phase=phase,
        kernels=json.dumps(described, separators=(",", ":")),
        edges=json.dumps([[number, number + 1] for number in range(len(kernels) - 1)], separators=(",", ":")),
    )


def example_power_trace(run: RunRow, machine: ExampleMachine) -> tuple[PowerTraceRow, ...]:
    return tuple(
        PowerTraceRow(
            run_id=run.run_id,
            rank=0,
            t_s=0.1 * sample,
            power_w=machine.load_power_w - sample,
            clock_mhz=1410.0,
            temperature_c=50.0 + sample / 10,
        )
        for sample in range(5)
    )


def failed_measurement(run: RunRow, machine: ExampleMachine, status: Status, detail: str) -> Measurement:
    if status is Status.SKIPPED:
        run = replace(run, environment_id=None)
        return Measurement(run=replace(run, status=status, status_detail=detail))
    return Measurement(run=replace(run, status=status, status_detail=detail), environment=machine.environment)


def finished_measurement(run: RunRow, kernels_per_phase: int, seed: int, machine: ExampleMachine) -> Measurement:
    draw = random.Random(f"{seed} {run.run_id}")
    phases: list[PhaseRow] = []
    kernels: list[KernelRow] = []
    energies: list[KernelEnergyRow] = []
    graphs: list[GraphRow] = []
    readings = list(example_readings(run, Part.IDLE, machine.idle_power_w, 2.0, draw, machine))
    for phase in Phase if run.output_tokens > 1 else (Phase.PREFILL,):
        traced = example_kernels(run, phase, kernels_per_phase, machine)
        duration_s = 1.15 * sum(kernel.duration_s or 0.0 for kernel in traced) or 0.5
        windows = example_readings(run, Part(phase.value), machine.load_power_w, duration_s, draw, machine)
        row = example_phase(run, phase, traced, windows, machine)
        phases.append(row)
        kernels.extend(traced)
        readings.extend(windows)
        energies.extend(example_kernel_energies(row, traced, draw, machine))
        graphs.append(example_graph(phase, traced))
    duration_s = 1.02 * sum(phase.duration_s or 0.0 for phase in phases)
    windows = example_readings(run, Part.RUN, machine.load_power_w, duration_s, draw, machine)
    energy_j, energy_ci95_j = mean_and_ci95_j(windows)
    run = replace(
        run,
        energy_j=energy_j,
        energy_ci95_j=energy_ci95_j,
        duration_s=duration_s,
        idle_power_w=machine.idle_power_w,
        trials=TRIALS,
        method=machine.method,
        peak_memory_bytes=3 * 1024**3,
    )
    left_j = residual_j(run, tuple(phases), tuple(energies), machine)
    return Measurement(
        run=replace(run, residual_j=left_j, residual_ci95_j=None if left_j is None else 0.03 * energy_j),
        environment=machine.environment,
        phases=tuple(phases),
        kernels=tuple(kernels),
        kernel_energies=tuple(energies),
        graphs=tuple(graphs),
        readings=tuple(readings + list(windows)),
        power_traces=example_power_trace(run, machine) if machine.provenance is Provenance.MEASURED else (),
    )


def make_measurements(
    n_runs: int = 6, kernels_per_phase: int = 12, seed: int = 0, failures: bool = True
) -> tuple[Measurement, ...]:
    """Every third run is on a GPU, the others estimated on a CPU; the last three end as oom, failed and skipped."""
    machines = {cuda: example_machine(cuda=cuda) for cuda in (False, True)}
    finished = max(min(n_runs, 1), n_runs - len(FAILURES)) if failures else n_runs
    measurements = []
    for index in range(n_runs):
        machine = machines[index % 3 == 1]
        run = example_run(index, seed, machine)
        if index < finished:
            measurements.append(finished_measurement(run, kernels_per_phase, seed, machine))
        else:
            measurements.append(failed_measurement(run, machine, *FAILURES[index - finished]))
    return tuple(measurements)


@pytest.fixture(scope="session")
def example_measurements() -> Callable[..., tuple[Measurement, ...]]:
    """Call it as ``example_measurements(n_runs=6, kernels_per_phase=12, seed=0, failures=True)``."""
    return make_measurements
