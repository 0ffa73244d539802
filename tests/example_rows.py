"""Synthetic rows of every table: coherent, seeded, made without torch."""

import hashlib
import json
import math
import random
import statistics
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from harness.kernels import KernelKind, Phase, shape_text
from harness.records import (
    SCHEMA_VERSION,
    EnergyMethod,
    EnvironmentRow,
    GraphRow,
    KernelEnergyRow,
    KernelRow,
    Part,
    PhaseRow,
    PowerTraceRow,
    Provenance,
    Quality,
    ReadingRow,
    RunRow,
    SourceRow,
    Status,
    Weights,
)
from harness.tracing.graph import Edge, GraphKernel, edges_json, kernels_json

KnownT = TypeVar("KnownT")
RowT = TypeVar("RowT", RunRow, EnvironmentRow, PhaseRow, PowerTraceRow, ReadingRow)

TRIALS = 3
STUDENT_T = 4.303  # two-sided 95 %, two degrees of freedom
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
# Columns that are the same in every example; those that are in none are null.
SAME_RUN = json.loads("""{
    "source": "joulegraph 0.1.0", "model_revision": "7e27bd9", "dtype": "float32", "runtime": "hf", "attention": "sdpa",
    "kv_cache": true, "cuda_graphs": false, "nodes": 1, "parallelism": "none", "tensor_parallel": 1,
    "configuration": "{\\"quality\\":\\"quick\\"}"
}""")
SAME_ENVIRONMENT = json.loads("""{
    "cpu": "Example CPU @ 2.00GHz", "cpu_cores": 2, "memory_bytes": 25769803776, "virtual_machine": true,
    "os": "Linux 6.12", "python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "harness": "0.1.0",
    "threads": 2
}""")
EXAMPLE_SOURCE = SourceRow(
    source="joulegraph 0.1.0",
    title="Joulegraph",
    url=None,
    version="0.1.0",
    licence="CC-BY-4.0",
    citation=None,
    measured="nothing: an example",
    derived=None,
)
CPU_ENVIRONMENT = json.loads("""{
    "gpu": "cpu: Example CPU @ 2.00GHz", "device_name": "Example CPU @ 2.00GHz", "n_devices": 0,
    "meter": "codecarbon-cpu-load (estimated)", "peak_flop_per_s": 1.1e11, "peak_bytes_per_s": 1.8e10
}""")
GPU_ENVIRONMENT = json.loads("""{
    "gpu": "NVIDIA A100-SXM4-80GB", "device_name": "NVIDIA A100-SXM4-80GB", "n_devices": 1, "driver": "580.65.06",
    "cuda": "13.0", "power_limit_w": 400.0, "ecc": true, "mig": false, "persistence_mode": true,
    "meter": "nvml:0 (measured)", "meter_step_s": 0.02, "peak_flop_per_s": 3.12e14, "peak_bytes_per_s": 2.039e12
}""")
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


def known(value: KnownT | None) -> KnownT:
    """A value that every example has, though rows from elsewhere may lack it."""
    assert value is not None
    return value


def content_hash(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def row_of(row_class: type[RowT], **values: Any) -> RowT:
    """A row in which every column that is not given is null."""
    columns: dict[str, Any] = dict.fromkeys(field.name for field in fields(row_class) if field.default is MISSING)
    return row_class(**(columns | values))


def example_machine(*, cuda: bool) -> ExampleMachine:
    given = SAME_ENVIRONMENT | (GPU_ENVIRONMENT if cuda else CPU_ENVIRONMENT)
    return ExampleMachine(
        environment=row_of(EnvironmentRow, environment_id=content_hash(given), **given),
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
        **SAME_RUN,
        run_id=content_hash("run", seed, index),
        schema_version=SCHEMA_VERSION,
        campaign_id=content_hash("campaign", seed),
        environment_id=machine.environment.environment_id,
        provenance=machine.provenance,
        model=MODEL,
        weights=Weights.PRETRAINED,
        config_sha256=content_hash("config"),
        gpu=machine.environment.gpu,
        n_gpus=machine.environment.n_devices,
        batch_size=batch_size,
        # Later rounds over the requests ask for more tokens, so that no request is asked for twice.
        prompt_tokens=prompt_tokens + index // len(REQUESTS),
        output_tokens=output_tokens,
        prompts="text",
        sampling_weight=1.0 + index / 8,
        clipped=None if index else "output: 900 → 16 tokens, for the time budget",
        status=Status.OK,
        quality=Quality.QUICK,
        started_at_utc=f"2026-11-23T10:{index // 60 % 60:02d}:{index % 60:02d}+00:00",
    )


def example_shape(kind: KernelKind, tokens: int, context_tokens: int, batch_size: int) -> str:
    if kind is KernelKind.GEMM:
        return shape_text({"m": batch_size * tokens, "n": 1536, "k": 576})
    if kind is KernelKind.ATTENTION:
        sizes = {"batch": batch_size, "query_tokens": tokens, "context_tokens": context_tokens}
        return shape_text(sizes | {"heads": 9, "kv_heads": 3, "head_dim": 64})
    return shape_text({"rows": batch_size * tokens, "columns": 576})


def example_kernels(run: RunRow, phase: Phase, count: int, machine: ExampleMachine) -> tuple[KernelRow, ...]:
    prefill = phase is Phase.PREFILL
    batch_size, prompt_tokens = known(run.batch_size), known(run.prompt_tokens)
    tokens, steps = (prompt_tokens, 1) if prefill else (1, known(run.output_tokens) - 1)
    rows: list[KernelRow] = []
    places = iter(range(count))
    for number in range(count):
        kind, op, module = EXAMPLES_OF_KINDS[number % len(EXAMPLES_OF_KINDS)]
        flop = (number + 1) * 2 * 30 * 576 * 1536 * batch_size * tokens * steps
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
            shape=example_shape(kind, tokens, prompt_tokens, batch_size),
            launches=30 * steps,
            flop=flop if kind is not KernelKind.OTHER else None,
            read_bytes=flop // 8,
            write_bytes=flop // 64,
            link_bytes=0 if run.n_gpus else None,
            duration_s=duration_s,
            traced_duration_s=duration_s * 1.4,
            graph_kernel=None if kind is KernelKind.COPY else next(places),
        )
        rows.append(row)
    return tuple(rows)


def example_readings(
    run: RunRow,
    part: Part,
    power_w: float,
    duration_s: float,
    draw: random.Random,
    machine: ExampleMachine,
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
            lead_s=0.0,
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
    energies_j = [reading.energy_j or 0.0 for reading in readings]
    return statistics.fmean(energies_j), STUDENT_T * statistics.stdev(energies_j) / math.sqrt(len(energies_j))


def example_phase(
    run: RunRow,
    phase: Phase,
    kernels: tuple[KernelRow, ...],
    readings: tuple[ReadingRow, ...],
    machine: ExampleMachine,
) -> PhaseRow:
    prefill = phase is Phase.PREFILL
    energy_j, energy_ci95_j = mean_and_ci95_j(readings)
    duration_s = known(readings[0].duration_s)
    kernel_s = sum(kernel.duration_s or 0.0 for kernel in kernels)
    return row_of(
        PhaseRow,
        run_id=run.run_id,
        phase=phase,
        graph_id=example_graph_id(run, phase, kernels),
        energy_j=energy_j,
        energy_ci95_j=energy_ci95_j,
        idle_energy_j=machine.idle_power_w * duration_s,
        host_gap_energy_j=energy_j * (1 - kernel_s / duration_s) if kernels else None,
        duration_s=duration_s,
        steps=1 if prefill else known(run.output_tokens) - 1,
        context_start_tokens=0 if prefill else run.prompt_tokens,
        context_end_tokens=known(run.prompt_tokens) + (0 if prefill else known(run.output_tokens) - 1),
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
    run: RunRow,
    phases: tuple[PhaseRow, ...],
    energies: tuple[KernelEnergyRow, ...],
    machine: ExampleMachine,
) -> float | None:
    """The ledger: run − idle − active energy of replayed kernels − active host gaps; null without replay."""
    replayed = [row.active_energy_j or 0.0 for row in energies if row.method is EnergyMethod.REPLAY]
    if not replayed:
        return None
    idle_j = machine.idle_power_w * (run.duration_s or 0.0)
    gaps_j = sum(phase.host_gap_energy_j or 0.0 for phase in phases)
    return (run.energy_j or 0.0) - idle_j - sum(replayed) - gaps_j * (1 - machine.idle_power_w / machine.load_power_w)


def example_graph_id(run: RunRow, phase: Phase, kernels: tuple[KernelRow, ...]) -> str:
    return content_hash("graph", MODEL, phase, run.tensor_parallel, [kernel.op for kernel in kernels])


def example_graph(run: RunRow, phase: Phase, kernels: tuple[KernelRow, ...]) -> GraphRow:
    """A chain of those kernels that have a place in the graph; it is one graph for requests of all sizes."""
    tokens = 1 if phase is Phase.DECODE else 64
    described = [
        GraphKernel(
            kind=kernel.kind,
            op=kernel.op,
            module=kernel.module,
            dtype=known(kernel.dtype),
            shape=example_shape(kernel.kind, tokens, 64, 2),
            launches=30,
            flop=30 * 2 * 2 * tokens * 576 * 1536,
            read_bytes=30 * 4 * 576 * 1536,
            write_bytes=30 * 4 * 2 * tokens * 1536,
            weight_bytes=0,
            link_bytes=30 * 4 * 2 * tokens * 576 if kernel.link_bytes else 0,
        )
        for kernel in kernels
        if kernel.graph_kernel is not None
    ]
    return GraphRow(
        graph_id=example_graph_id(run, phase, kernels),
        model=MODEL,
        phase=phase,
        batch_size=2,
        query_tokens=tokens,
        context_tokens=64,
        dtype="float32",
        attention="sdpa",
        tensor_parallel=known(run.tensor_parallel),
        kernels=kernels_json(described),
        edges=edges_json(Edge(source=number, target=number + 1) for number in range(len(described) - 1)),
    )


def example_power_trace(run: RunRow, power_w: float) -> tuple[PowerTraceRow, ...]:
    return tuple(
        row_of(
            PowerTraceRow,
            run_id=run.run_id,
            rank=0,
            t_s=0.1 * sample,
            power_w=power_w - sample,
            clock_mhz=1410.0,
        )
        for sample in range(5)
    )
