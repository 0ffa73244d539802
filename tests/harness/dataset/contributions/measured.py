"""Measurements of a GPU that no lab has: coherent rows as a campaign would write them, made without torch."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.dataset.contributions.pack import PackRequest, reference_pack
from harness.dataset.store import DatasetStore
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
    Provenance,
    Quality,
    ReadingRow,
    RunRow,
    SourceRow,
    Status,
    Weights,
    Workload,
)
from harness.setup_records import environment_content_id
from harness.tracing.graph import Edge, GraphKernel, KernelGraph, edges_json, kernels_json
from tests.example_rows import content_hash, row_of

GPU = "NVIDIA A100-SXM4-80GB"
PEAK_FLOP_PER_S, PEAK_BYTES_PER_S = 3.12e14, 2.039e12
IDLE_W, LOAD_W, GAP_W = 62.0, 310.0, 95.0
TRIALS = 5
HALF_WIDTH = 0.004  # relative, of every energy
SOURCE = SourceRow(
    source="joulegraph 0.1.0",
    title="Joulegraph: energy of LLM inference, per phase and per kernel",
    url=None,
    version="0.1.0",
    licence="CC-BY-4.0",
    citation="The Joulegraph developers: Joulegraph.",
    measured="energy and time in windows",
    derived="kernel energies by apportioning",
)
CONFIGURATION = '{"calibration_file":null,"device":"cuda","models":[],"quality":"standard"}'
OTHER = PackRequest(model="Qwen/Qwen3-8B", batch_size=8, prompt_tokens=300, output_tokens=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What the made-up model computes in one pass: layers of one matrix product and one attention each."""

    layers: int
    width: int
    inner: int
    heads: int = 12
    kv_heads: int = 2
    head_dim: int = 128


SIZES = {
    "Qwen/Qwen2.5-1.5B": Sizes(layers=28, width=1536, inner=4 * 8960),
    "Qwen/Qwen3-8B": Sizes(layers=36, width=4096, inner=12 * 4096),
}


def environment(**other: object) -> EnvironmentRow:
    row = row_of(
        EnvironmentRow,
        environment_id="",
        gpu=GPU,
        device_name=GPU,
        n_devices=1,
        cpu="Example CPU @ 2.00GHz",
        cpu_cores=16,
        memory_bytes=128 * 1024**3,
        virtual_machine=False,
        driver="580.65.06",
        cuda="13.0",
        vbios="92.00.45.00.05",
        power_limit_w=400.0,
        ecc=True,
        mig=False,
        persistence_mode=True,
        os="Linux 6.12",
        python="3.11.7",
        torch="2.13.0",
        transformers="5.23.0",
        harness="0.1.0",
        threads=8,
        meter="nvml:0 (measured); NVML's energy counter",
        meter_step_s=0.02,
        peak_flop_per_s=PEAK_FLOP_PER_S,
        peak_bytes_per_s=PEAK_BYTES_PER_S,
    )
    row = replace(row, **other)  # type: ignore[arg-type]
    return replace(row, environment_id=environment_content_id(row))


def kernels_of(sizes: Sizes, batch: int, query: int, context: int) -> tuple[GraphKernel, ...]:
    """The kernels of one pass over ``query`` tokens of each sequence that see ``context``."""
    rows = batch * query
    product = 2 * rows * sizes.width * sizes.inner * sizes.layers
    attention = 4 * batch * query * context * sizes.heads * sizes.head_dim * sizes.layers
    cache = 2 * 2 * batch * context * sizes.kv_heads * sizes.head_dim * sizes.layers
    shared = {"batch": batch, "query_tokens": query, "context_tokens": context, "heads": sizes.heads}
    return (
        GraphKernel(
            kind=KernelKind.GEMM,
            op="aten::mm",
            module="model.layers.*.mlp.up_proj",
            dtype="bfloat16",
            shape=shape_text({"m": rows, "n": sizes.inner, "k": sizes.width}),
            launches=sizes.layers,
            flop=product,
            read_bytes=2 * sizes.layers * (rows * sizes.width + sizes.width * sizes.inner),
            write_bytes=2 * sizes.layers * rows * sizes.inner,
            weight_bytes=2 * sizes.layers * sizes.width * sizes.inner,
            link_bytes=0,
        ),
        GraphKernel(
            kind=KernelKind.ATTENTION,
            op="aten::scaled_dot_product_attention",
            module="model.layers.*.self_attn",
            dtype="bfloat16",
            shape=shape_text(shared | {"kv_heads": sizes.kv_heads, "head_dim": sizes.head_dim}),
            launches=sizes.layers,
            flop=attention,
            read_bytes=cache + 2 * sizes.layers * rows * sizes.heads * sizes.head_dim,
            write_bytes=2 * sizes.layers * rows * sizes.heads * sizes.head_dim,
            weight_bytes=0,
            link_bytes=0,
        ),
    )


def graph_of_pass(model: str, phase: Phase, batch: int, query: int, context: int) -> KernelGraph:
    return KernelGraph(
        model=model,
        phase=phase,
        batch_size=batch,
        query_tokens=query,
        context_tokens=context,
        dtype="bfloat16",
        attention="sdpa",
        tensor_parallel=1,
        kernels=kernels_of(SIZES[model], batch, query, context),
        edges=(Edge(source=0, target=1),),
    )


def kernel_rows(run_id: str, graph: KernelGraph, steps: int) -> tuple[KernelRow, ...]:
    rows = []
    for place, kernel in enumerate(graph.kernels):
        bound_s = max(kernel.flop / PEAK_FLOP_PER_S, kernel.traffic_bytes / PEAK_BYTES_PER_S)
        duration_s = steps * (bound_s / 0.6 + 4e-6 * kernel.launches)
        rows.append(
            KernelRow(
                run_id=run_id,
                phase=graph.phase,
                rank=0,
                kernel_id=f"k{place:04d}",
                kind=kernel.kind,
                op=kernel.op,
                module=kernel.module,
                dtype=kernel.dtype,
                shape=kernel.shape,
                launches=steps * kernel.launches,
                flop=steps * kernel.flop,
                read_bytes=steps * kernel.read_bytes,
                write_bytes=steps * kernel.write_bytes,
                link_bytes=0,
                duration_s=duration_s,
                traced_duration_s=1.2 * duration_s,
                graph_kernel=place,
            )
        )
    return tuple(rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadePhase:
    """What one phase of a run adds."""

    row: PhaseRow
    graph: GraphRow
    kernels: tuple[KernelRow, ...]
    energies: tuple[KernelEnergyRow, ...]


def made_phase(run: RunRow, phase: Phase, factor: float) -> MadePhase:
    """``factor`` times the energy of the machine as it is described above."""
    decode = phase is Phase.DECODE
    batch, prompt, output = run.batch_size or 0, run.prompt_tokens or 0, run.output_tokens or 0
    steps = output - 1 if decode else 1
    graph = graph_of_pass(
        run.model or "", phase, batch, 1 if decode else prompt, prompt + output // 2 if decode else prompt
    )
    kernels = kernel_rows(run.run_id, graph, steps)
    busy_s = sum(row.duration_s or 0.0 for row in kernels)
    gap_s = 0.1 * busy_s
    gap_j = GAP_W * gap_s * factor
    kernel_j = [LOAD_W * (row.duration_s or 0.0) * factor for row in kernels]
    energy_j = sum(kernel_j) + gap_j
    row = row_of(
        PhaseRow,
        run_id=run.run_id,
        phase=phase,
        graph_id=graph.graph_id,
        energy_j=energy_j,
        energy_ci95_j=HALF_WIDTH * energy_j,
        energy_systematic95_j=0.1 * HALF_WIDTH * energy_j,
        idle_energy_j=IDLE_W * (busy_s + gap_s),
        host_gap_energy_j=gap_j,
        duration_s=busy_s + gap_s,
        steps=steps,
        context_start_tokens=prompt if decode else 0,
        context_end_tokens=prompt + output - 1 if decode else prompt,
        trials=TRIALS,
        method="nvml-counter",
    )
    energies = tuple(
        KernelEnergyRow(
            run_id=run.run_id,
            phase=phase,
            rank=0,
            kernel_id=kernel.kernel_id,
            method=EnergyMethod.APPORTIONED,
            energy_j=joules,
            active_energy_j=joules - IDLE_W * (kernel.duration_s or 0.0),
            energy_ci95_j=None,
        )
        for kernel, joules in zip(kernels, kernel_j, strict=True)
    )
    stored = GraphRow(
        graph_id=graph.graph_id,
        model=graph.model,
        phase=graph.phase,
        batch_size=graph.batch_size,
        query_tokens=graph.query_tokens,
        context_tokens=graph.context_tokens,
        dtype=graph.dtype,
        attention=graph.attention,
        tensor_parallel=1,
        kernels=kernels_json(graph.kernels),
        edges=edges_json(graph.edges),
    )
    return MadePhase(row=row, graph=stored, kernels=kernels, energies=energies)


def windows(
    run_id: str, part: Part, energy_j: float, duration_s: float, draw: random.Random, start_s: float
) -> tuple[ReadingRow, ...]:
    """Windows of at least five seconds; their mean per pass is what the row says, to the last digits."""
    idle = part is Part.IDLE
    passes = 1 if idle else math.ceil(5.0 / duration_s)
    count = 2 if idle else TRIALS
    noise = [draw.gauss(0.0, 0.002) for _ in range(count)]
    mean = sum(noise) / count
    rows = []
    for trial in range(count):
        window_j = passes * energy_j * (1 + noise[trial] - mean)
        window_s = passes * duration_s * (1 + draw.uniform(-1e-4, 1e-4))
        window_j = IDLE_W * window_s if idle else window_j
        started_s = start_s + trial * 30.0
        rows.append(
            row_of(
                ReadingRow,
                run_id=run_id,
                part=part,
                trial=trial,
                rank=0,
                device_sha256=content_hash("device"),
                meter="nvml:0",
                provenance=Provenance.MEASURED,
                energy_j=window_j,
                uncertainty_j=0.001 * window_j,
                duration_s=window_s,
                lead_s=0.0,
                tail_s=0.0,
                passes=0.0 if idle else float(passes),
                context_start_tokens=None,
                started_s=started_s,
                counter_start_j=5_000.0 + started_s * 400,
                counter_end_j=5_000.0 + started_s * 400 + window_j,
                sm_clock_mhz=1410.0,
                memory_clock_mhz=1593.0,
                temperature_c=51.0,
                throttle_reasons=0,
            )
        )
    return tuple(rows)


def measurement(
    request: PackRequest,
    *,
    seed: int = 0,
    factor: float = 1.0,
    machine: EnvironmentRow | None = None,
    weights: Weights = Weights.RANDOM,
) -> Measurement:
    """One run of a request; ``factor`` scales its energies, as another chip of the kind would."""
    machine = machine or environment()
    draw = random.Random(f"{request} {seed}")
    run = row_of(
        RunRow,
        run_id=content_hash("run", str(request))[:20],
        schema_version=SCHEMA_VERSION,
        campaign_id=content_hash("campaign")[:16],
        environment_id=machine.environment_id,
        provenance=Provenance.MEASURED,
        source=SOURCE.source,
        workload=Workload.BATCH,
        model=request.model,
        model_revision="joulegraph 0.1.0 config",
        weights=weights,
        config_sha256=content_hash("config", request.model),
        dtype="bfloat16",
        runtime="hf",
        attention="sdpa",
        kv_cache=True,
        cuda_graphs=False,
        gpu=GPU,
        n_gpus=1,
        nodes=1,
        parallelism="none",
        tensor_parallel=1,
        batch_size=request.batch_size,
        prompt_tokens=request.prompt_tokens,
        output_tokens=request.output_tokens,
        prompts="random",
        status=Status.OK,
        quality=Quality.STANDARD,
        peak_memory_bytes=5 * 1024**3,
        started_at_utc=f"2026-11-30T10:{seed:02d}:{request.batch_size:02d}+00:00",
        configuration=CONFIGURATION,
    )
    phases = [made_phase(run, phase, factor) for phase in Phase]
    energy_j = 1.001 * sum(each.row.energy_j or 0.0 for each in phases)
    duration_s = 1.001 * sum(each.row.duration_s or 0.0 for each in phases)
    readings = [*windows(run.run_id, Part.IDLE, 10 * IDLE_W, 10.0, draw, 0.0)]
    for number, each in enumerate(phases):
        part, row = Part(each.row.phase.value), each.row
        readings += windows(run.run_id, part, row.energy_j or 0.0, row.duration_s or 0.0, draw, 200.0 * (number + 1))
    readings += windows(run.run_id, Part.RUN, energy_j, duration_s, draw, 800.0)
    run = replace(
        run,
        energy_j=energy_j,
        energy_ci95_j=HALF_WIDTH * energy_j,
        energy_systematic95_j=0.1 * HALF_WIDTH * energy_j,
        duration_s=duration_s,
        duration_ci95_s=1e-4 * duration_s,
        idle_power_w=IDLE_W,
        trials=TRIALS,
        method="nvml-counter",
    )
    return Measurement(
        run=run,
        environment=machine,
        source=SOURCE,
        phases=tuple(each.row for each in phases),
        kernels=tuple(row for each in phases for row in each.kernels),
        kernel_energies=tuple(row for each in phases for row in each.energies),
        graphs=tuple(each.graph for each in phases),
        readings=tuple(readings),
    )


def write_dataset(folder: Path, measurements: Sequence[Measurement]) -> Path:
    with DatasetStore.open(folder) as store:
        for each in measurements:
            store.append(each)
    return folder


def pack_measurements(*, seed: int = 0, factor: float = 1.0) -> tuple[Measurement, ...]:
    """The reference pack on the made-up machine."""
    return tuple(measurement(each, seed=seed, factor=factor) for each in reference_pack().on_gpu.requests)


def campaign_measurements(*, seed: int = 0, factor: float = 1.0) -> tuple[Measurement, ...]:
    """The reference pack and one more run."""
    return (*pack_measurements(seed=seed, factor=factor), measurement(OTHER, seed=seed, factor=factor))
