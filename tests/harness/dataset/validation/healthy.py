"""A dataset that breaks no rule: runs on the CPU, on one and two GPUs, a failed one, imported ones. Round numbers.

A GPU draws 60 W at rest and 250 W in a kernel, a CPU 10 and 40 W. Every phase is a product (and, on two ranks, an
all-reduce) and a gap; every window holds whole passes, and windows scatter by 1 %.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

from harness.dataset.importers.blank import BLANK_ENVIRONMENT, BLANK_RUN
from harness.kernels import KernelKind, Phase, shape_text
from harness.records import (
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
    RankTimeRow,
    ReadingRow,
    RunRow,
    SourceRow,
    Status,
    Weights,
    Workload,
)
from harness.tracing.graph import Edge, GraphKernel, KernelGraph, edges_json, kernels_json

NOISE = (-0.01, -0.005, 0.0, 0.005, 0.01)
MODEL = "someone/some-model"
OUTPUT_TOKENS = 9
GPU = "NVIDIA A100-SXM4-80GB"
OWN = SourceRow(
    source="joulegraph 0.1.0",
    title="Joulegraph",
    url=None,
    version="0.1.0",
    licence="CC-BY-4.0",
    citation=None,
    measured="energy and time",
    derived=None,
)
OTHERS = replace(OWN, source="somebody", title="Somebody's measurements", version="commit 1234")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What differs between the CPU and the GPUs."""

    environment: EnvironmentRow
    provenance: Provenance
    method: str
    meter: str
    gpu: bool
    idle_w: float  # of one rank
    busy_w: float


GPU_MACHINE = Machine(
    environment=replace(
        BLANK_ENVIRONMENT,
        environment_id="a100",
        gpu=GPU,
        device_name=GPU,
        n_devices=8,
        power_limit_w=400.0,
        meter="nvml:0 (measured); NVML's energy counter, one per GPU",
    ),
    provenance=Provenance.MEASURED,
    method="nvml-counter",
    meter="nvml",
    gpu=True,
    idle_w=60.0,
    busy_w=250.0,
)
CPU_MACHINE = Machine(
    environment=replace(
        BLANK_ENVIRONMENT,
        environment_id="cpu",
        gpu="cpu: Example CPU",
        device_name="Example CPU",
        n_devices=0,
        memory_bytes=16 * 1024**3,
        meter="codecarbon-cpu-load (estimated); estimated, because no counter can be read",
    ),
    provenance=Provenance.ESTIMATED,
    method="codecarbon-cpu-load",
    meter="codecarbon-cpu-load",
    gpu=False,
    idle_w=10.0,
    busy_w=40.0,
)


def hashed(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def own_run(name: str, machine: Machine, *, ranks: int, prompt_tokens: int) -> RunRow:
    return replace(
        BLANK_RUN,
        run_id=name,
        campaign_id="campaign",
        environment_id=machine.environment.environment_id,
        provenance=machine.provenance,
        source=OWN.source,
        workload=Workload.BATCH,
        model=MODEL,
        weights=Weights.PRETRAINED,
        dtype="bfloat16",
        runtime="hf",
        attention="sdpa",
        kv_cache=True,
        cuda_graphs=False,
        gpu=machine.environment.gpu,
        n_gpus=ranks if machine.gpu else 0,
        parallelism="tensor" if ranks > 1 else "none",
        tensor_parallel=ranks,
        batch_size=1,
        prompt_tokens=prompt_tokens,
        output_tokens=OUTPUT_TOKENS,
        method=machine.method,
        quality=Quality.STANDARD,
        peak_memory_bytes=2 * 1024**3,
        started_at_utc="2026-11-23T10:00:00+00:00",
        configuration='{"device":"auto","dtype":"auto","gpus":[1,2],"quality":"standard"}',
    )


def graph_of(run: RunRow, phase: Phase) -> KernelGraph:
    product = GraphKernel(
        kind=KernelKind.GEMM,
        op="aten::mm",
        module="model.layers.*.mlp.up_proj",
        dtype="bfloat16",
        shape=shape_text({"m": run.prompt_tokens or 1, "n": 64, "k": 64}),
        launches=4,
        flop=10**9,
        read_bytes=10**6,
        write_bytes=10**5,
        weight_bytes=0,
        link_bytes=0,
    )
    reduction = replace(product, kind=KernelKind.ALL_REDUCE, op="c10d::allreduce_", flop=0, link_bytes=10**5)
    several = (run.tensor_parallel or 1) > 1
    return KernelGraph(
        model=MODEL,
        phase=phase,
        batch_size=1,
        query_tokens=(run.prompt_tokens or 1) if phase is Phase.PREFILL else 1,
        context_tokens=run.prompt_tokens or 1,
        dtype="bfloat16",
        attention="sdpa",
        tensor_parallel=run.tensor_parallel or 1,
        kernels=(product, reduction) if several else (product,),
        edges=(Edge(source=0, target=1),) if several else (),
    )


def graph_row(graph: KernelGraph) -> GraphRow:
    return GraphRow(
        graph_id=graph.graph_id,
        model=graph.model,
        phase=graph.phase,
        batch_size=graph.batch_size,
        query_tokens=graph.query_tokens,
        context_tokens=graph.context_tokens,
        dtype=graph.dtype,
        attention=graph.attention,
        tensor_parallel=graph.tensor_parallel,
        kernels=kernels_json(graph.kernels),
        edges=edges_json(graph.edges),
    )


def kernels_of(run: RunRow, graph: KernelGraph, rank: int) -> Iterator[KernelRow]:
    """The product takes 20 ms in the prefill and 40 ms in the decode, the all-reduce 5 ms, 1 ms of it waiting."""
    prefill = graph.phase is Phase.PREFILL
    steps = 1 if prefill else OUTPUT_TOKENS - 1
    for number, kernel in enumerate(graph.kernels):
        product = kernel.kind is KernelKind.GEMM
        duration_s = (0.02 if prefill else 0.04) if product else 0.005
        yield KernelRow(
            run_id=run.run_id,
            phase=graph.phase,
            rank=rank,
            kernel_id=f"k{number}",
            kind=kernel.kind,
            op=kernel.op,
            module=kernel.module,
            dtype=kernel.dtype,
            shape=kernel.shape,
            variant=None,
            launches=kernel.launches * steps,
            flop=kernel.flop * steps,
            read_bytes=kernel.read_bytes * steps,
            write_bytes=kernel.write_bytes * steps,
            link_bytes=kernel.link_bytes * steps,
            duration_s=duration_s,
            traced_duration_s=1.2 * duration_s,
            wait_s=None if product else 0.001,
            graph_kernel=number,
        )


def energies_of(kernel: KernelRow, machine: Machine) -> Iterator[KernelEnergyRow]:
    """Apportioned, and on a GPU replayed too: 1 % less active energy."""
    duration_s = kernel.duration_s or 0.0
    methods = (EnergyMethod.APPORTIONED, EnergyMethod.REPLAY) if machine.gpu else (EnergyMethod.APPORTIONED,)
    for method in methods:
        share = 0.99 if method is EnergyMethod.REPLAY else 1.0
        active_j = share * (machine.busy_w - machine.idle_w) * duration_s
        yield KernelEnergyRow(
            run_id=kernel.run_id,
            phase=kernel.phase,
            rank=kernel.rank,
            kernel_id=kernel.kernel_id,
            method=method,
            energy_j=active_j + machine.idle_w * duration_s,
            active_energy_j=active_j,
            energy_ci95_j=None if method is EnergyMethod.APPORTIONED else 0.02 * active_j,
        )


def phase_of(run: RunRow, graph: KernelGraph, kernels: tuple[KernelRow, ...], machine: Machine, ranks: int) -> PhaseRow:
    """The kernels of a rank and a gap of 5 ms."""
    prefill = graph.phase is Phase.PREFILL
    kernels_s = sum(kernel.duration_s or 0.0 for kernel in kernels if kernel.rank == 0)
    duration_s = kernels_s + 0.005
    gap_j = ranks * machine.idle_w * 0.005
    energy_j = ranks * machine.busy_w * kernels_s + gap_j
    prompt_tokens = run.prompt_tokens or 0
    return PhaseRow(
        run_id=run.run_id,
        phase=graph.phase,
        graph_id=graph.graph_id,
        energy_j=energy_j,
        energy_ci95_j=0.02 * energy_j,
        energy_systematic95_j=0.01 * energy_j,
        idle_energy_j=ranks * machine.idle_w * duration_s,
        host_gap_energy_j=gap_j,
        duration_s=duration_s,
        steps=1 if prefill else OUTPUT_TOKENS - 1,
        context_start_tokens=0 if prefill else prompt_tokens,
        context_end_tokens=prompt_tokens if prefill else prompt_tokens + OUTPUT_TOKENS - 1,
        measured_contexts=None,
        trials=len(NOISE),
        method=machine.method,
    )


def readings_of(
    run: RunRow, part: Part, pass_j: float, pass_s: float, machine: Machine, ranks: int
) -> Iterator[ReadingRow]:
    """Windows of 100 passes (idle: 10 s), counted from an origin of their own for every run, part and trial."""
    idle = part is Part.IDLE
    origin_j = 1e3 + int(hashed(run.run_id, part)[:6], 16)
    for trial, off in enumerate((0.0, 0.0) if idle else NOISE):
        duration_s = 10.0 if idle else 100 * pass_s
        energy_j = machine.idle_w * 10.0 if idle else 100 * pass_j / ranks * (1 + off)
        for rank in range(ranks):
            yield ReadingRow(
                run_id=run.run_id,
                part=part,
                trial=trial,
                rank=rank,
                device_sha256=hashed("device", rank) if machine.gpu else None,
                meter=f"{machine.meter}:{rank}" if machine.gpu else machine.meter,
                provenance=machine.provenance,
                energy_j=energy_j,
                uncertainty_j=0.001 * energy_j,
                duration_s=duration_s,
                lead_s=0.0,
                tail_s=0.0,
                passes=0.0 if idle else 100.0,
                context_start_tokens=run.prompt_tokens if part is Part.DECODE else None,
                started_s=20.0 * trial,
                counter_start_j=origin_j + 1000 * trial,
                counter_end_j=origin_j + 1000 * trial + energy_j,
                sm_clock_mhz=1410.0 if machine.gpu else None,
                memory_clock_mhz=1593.0 if machine.gpu else None,
                temperature_c=51.0 if machine.gpu else None,
                throttle_reasons=0 if machine.gpu else None,
                rejected=None,
            )


def rank_times_of(readings: tuple[ReadingRow, ...]) -> Iterator[RankTimeRow]:
    for reading in readings:
        if reading.part is not Part.IDLE:
            yield RankTimeRow(
                run_id=reading.run_id,
                part=reading.part,
                trial=reading.trial,
                rank=reading.rank,
                node=0,
                device=f"cuda:{reading.rank}",
                passes=reading.passes,
                duration_s=0.98 * (reading.duration_s or 0.0),
                wait_s=0.02 * (reading.duration_s or 0.0),
            )


def own(name: str, machine: Machine = GPU_MACHINE, *, ranks: int = 1, prompt_tokens: int = 64) -> Measurement:
    """A run of the harness's own, with everything that it records."""
    blank = own_run(name, machine, ranks=ranks, prompt_tokens=prompt_tokens)
    graphs = [graph_of(blank, phase) for phase in Phase]
    kernels = tuple(kernel for graph in graphs for rank in range(ranks) for kernel in kernels_of(blank, graph, rank))
    phases = tuple(
        phase_of(blank, graph, tuple(each for each in kernels if each.phase is graph.phase), machine, ranks)
        for graph in graphs
    )
    energies = tuple(energy for kernel in kernels for energy in energies_of(kernel, machine))
    # No two runs are equal to the last digit.
    energy_j = sum(phase.energy_j or 0.0 for phase in phases) * (1 + 1e-4 * int(hashed(name)[:2], 16) / 256)
    duration_s = sum(phase.duration_s or 0.0 for phase in phases)
    run = _with_ledger(blank, energies, energy_j, duration_s, ranks * machine.idle_w)
    parts = [(Part.IDLE, 0.0, 0.0), *((Part(each.phase.value), each.energy_j, each.duration_s) for each in phases)]
    parts.append((Part.RUN, energy_j, duration_s))
    readings = tuple(
        row
        for part, pass_j, pass_s in parts
        for row in readings_of(run, part, pass_j or 0, pass_s or 0, machine, ranks)
    )
    return Measurement(
        run=run,
        environment=machine.environment,
        source=OWN,
        phases=phases,
        kernels=kernels,
        kernel_energies=energies,
        graphs=tuple(map(graph_row, graphs)),
        readings=readings,
        rank_times=tuple(rank_times_of(readings)) if ranks > 1 else (),
        power_traces=tuple(_trace(run, machine)) if machine.gpu else (),
    )


def _with_ledger(
    run: RunRow, energies: tuple[KernelEnergyRow, ...], energy_j: float, duration_s: float, idle_w: float
) -> RunRow:
    replayed = [row.active_energy_j or 0.0 for row in energies if row.method is EnergyMethod.REPLAY]
    run = replace(
        run,
        energy_j=energy_j,
        energy_ci95_j=0.02 * energy_j,
        energy_systematic95_j=0.01 * energy_j,
        duration_s=duration_s,
        duration_ci95_s=0.01 * duration_s,
        idle_power_w=idle_w,
        trials=len(NOISE),
    )
    if not replayed:
        return run
    return replace(
        run,
        ledger_idle_j=idle_w * duration_s,
        ledger_kernels_j=sum(replayed),
        ledger_gaps_j=0.0,
        ledger_method=EnergyMethod.REPLAY,
        residual_j=energy_j - idle_w * duration_s - sum(replayed),
        residual_ci95_j=0.05 * energy_j,
    )


def _trace(run: RunRow, machine: Machine) -> Iterator[PowerTraceRow]:
    for sample in range(3):
        yield PowerTraceRow(
            run_id=run.run_id, rank=0, t_s=0.1 * sample, power_w=machine.busy_w, clock_mhz=1410.0, temperature_c=50.0
        )


def failed() -> Measurement:
    run = own_run("failed", GPU_MACHINE, ranks=1, prompt_tokens=4096)
    detail = "needs 91 GiB, the device has 80 GiB"
    run = replace(run, status=Status.OOM, status_detail=detail, environment_id=None, peak_memory_bytes=None)
    return Measurement(run=run, source=OWN)


def imported_run(name: str, **values: object) -> RunRow:
    known = {
        "campaign_id": "import",
        "environment_id": "theirs",
        "source": OTHERS.source,
        "gpu": GPU,
        "runtime": "vllm",
    }
    return replace(BLANK_RUN, run_id=name, **(known | values))  # type: ignore[arg-type]


THEIR_ENVIRONMENT = replace(GPU_MACHINE.environment, environment_id="theirs", n_devices=None, meter="NVML (imported)")


def imported_server() -> Measurement:
    run = imported_run(
        "server",
        workload=Workload.SERVER,
        model=MODEL,
        dtype="bfloat16",
        energy_j=90.0,
        mean_output_tokens=300.0,
        mean_power_w=350.0,
        mean_batch_size=20.5,
        batch_size=32,
        tpot_s=0.02,
        output_tokens_per_s=1000.0,
        prompts="chat",
        method="nvml-counter",
    )
    return Measurement(run=run, environment=THEIR_ENVIRONMENT, source=OTHERS)


def imported_prefill() -> Measurement:
    """Three repeats of a forward pass of others."""
    values = {
        "model": MODEL,
        "batch_size": 1,
        "prompt_tokens": 128,
        "output_tokens": 1,
        "trials": 3,
        "dtype": "float16",
    }
    run = imported_run("prefill", workload=Workload.BATCH, energy_j=2.0, duration_s=0.01, **values)
    phase = replace(
        own("any").phases[0],
        run_id=run.run_id,
        graph_id=None,
        energy_j=2.0,
        energy_ci95_j=None,
        energy_systematic95_j=None,
        idle_energy_j=None,
        host_gap_energy_j=None,
        duration_s=0.01,
        context_end_tokens=128,
        trials=3,
        method=None,
    )
    blank = own("any").readings[-1]
    repeats = tuple(
        replace(
            blank,
            run_id=run.run_id,
            part=part,
            trial=trial,
            device_sha256=None,
            meter="NVML (imported)",
            provenance=Provenance.IMPORTED,
            energy_j=energy_j,
            uncertainty_j=None,
            duration_s=0.01,
            passes=1.0,
            started_s=None,
            counter_start_j=None,
            counter_end_j=None,
        )
        for part in (Part.PREFILL, Part.RUN)
        for trial, energy_j in enumerate((1.98, 2.0, 2.02))
    )
    return Measurement(run=run, environment=THEIR_ENVIRONMENT, source=OTHERS, phases=(phase,), readings=repeats)


def imported_kernels() -> Measurement:
    """A kernel that others measured alone."""
    run = imported_run("kernels", workload=Workload.KERNELS)
    kernel = replace(
        own("any").kernels[0],
        run_id=run.run_id,
        phase=None,
        variant='{"library":"cublas","scale":1.5}',
        graph_kernel=None,
        traced_duration_s=None,
        link_bytes=None,
    )
    energy = KernelEnergyRow(
        run_id=run.run_id,
        phase=None,
        rank=0,
        kernel_id=kernel.kernel_id,
        method=EnergyMethod.IMPORTED,
        energy_j=300 * (kernel.duration_s or 0.0),
        active_energy_j=None,
        energy_ci95_j=None,
        how="power × latency",
    )
    return Measurement(
        run=run, environment=THEIR_ENVIRONMENT, source=OTHERS, kernels=(kernel,), kernel_energies=(energy,)
    )


def healthy() -> tuple[Measurement, ...]:
    """One measurement of every kind."""
    return (
        own("cpu", CPU_MACHINE),
        own("one"),
        own("two", ranks=2),
        failed(),
        imported_server(),
        imported_prefill(),
        imported_kernels(),
    )
