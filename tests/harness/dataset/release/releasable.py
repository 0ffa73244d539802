"""Measurements that pass validation, so that they can be released: few rows, sane physics, made without torch."""

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from harness.dataset.release.releasing import Wanted
from harness.dataset.release.terms import Inclusion
from harness.dataset.release.version import Version
from harness.dataset.store import DatasetStore
from harness.kernels import KernelKind, Phase, shape_text
from harness.records import (
    EnergyMethod,
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
    Workload,
)
from tests.example_rows import (
    ExampleMachine,
    content_hash,
    example_machine,
    example_phase,
    example_readings,
    example_run,
    kernel_energy,
    mean_and_ci95_j,
    row_of,
)

T = TypeVar("T")
DAY = date(2026, 11, 30)
OWN = SourceRow(
    source="joulegraph 0.1.0",
    title="Joulegraph campaigns",
    url=None,
    version="0.1.0",
    licence="CC-BY-4.0",
    citation=None,
    measured="runs, phases and kernels",
    derived=None,
)
BOARD = SourceRow(
    source="example-board",
    title="The Example | Leaderboard",
    url="https://example.org/board",
    version="v3",
    licence="Apache-2.0",
    citation="Example et al., 2025",
    measured="joules per request of a server at steady state",
    derived="energy_j = joules per token × mean output tokens",
)


def own_run(index: int = 0, *, cuda: bool = True, quality: Quality = Quality.STANDARD, **changes: Any) -> Measurement:
    """A run of a campaign; every index is another request. On a CPU it is estimated."""
    machine = example_machine(cuda=cuda)
    run = replace(example_run(index, 0, machine), quality=quality, configuration=f'{{"quality":"{quality}"}}')
    run = replace(run, run_id=content_hash("releasable", index, cuda, quality)[:20], **changes)
    if run.status is not Status.OK:
        return Measurement(run=replace(run, status_detail="needs 99 GiB"), environment=machine.environment, source=OWN)
    draw = random.Random(run.run_id)
    wanted = Phase if (run.output_tokens or 0) > 1 else (Phase.PREFILL,)
    parts = [_phase(run, phase, draw, machine) for phase in wanted]
    duration_s = sum(phase.duration_s or 0.0 for phase, *_ in parts)
    windows = example_readings(run, Part.RUN, machine.load_power_w, duration_s, draw, machine)
    idle = _idle(run, machine)
    energy_j, energy_ci95_j = mean_and_ci95_j(windows)
    run = replace(run, energy_j=energy_j, energy_ci95_j=max(energy_ci95_j, 0.02 * energy_j), duration_s=duration_s)
    return Measurement(
        run=replace(run, trials=3, idle_power_w=machine.idle_power_w, method=machine.method),
        environment=machine.environment,
        source=OWN,
        phases=tuple(phase for phase, *_ in parts),
        kernels=tuple(kernel for _, kernel, *_ in parts),
        kernel_energies=tuple(energy for _, _, energy, _ in parts),
        readings=_of_its_own(run, (*idle, *(row for *_, readings in parts for row in readings), *windows)),
    )


def served_run(index: int = 0, *, source: SourceRow = BOARD, gpu: str = "NVIDIA H100 80GB HBM3") -> Measurement:
    """A server of an imported source: energy per sequence, no prompt length, no environment."""
    run = row_of(
        RunRow,
        run_id=content_hash("served", index, source.source, gpu)[:20],
        schema_version=1,
        campaign_id="import-example",
        provenance=Provenance.IMPORTED,
        source=source.source,
        workload=Workload.SERVER,
        model="meta-llama/Llama-3.1-8B-Instruct",
        runtime="vllm",
        gpu=gpu,
        n_gpus=1,
        nodes=1,
        batch_size=64 + index,
        mean_batch_size=50.0,
        mean_output_tokens=400.0,
        status=Status.OK,
        energy_j=200.0 + index,
        tpot_s=0.02,
        output_tokens_per_s=1250.0,
        mean_power_w=620.0,
        method="imported",
    )
    return Measurement(run=run, source=source)


def dataset(folder: Path, measurements: Iterable[Measurement]) -> Path:
    """A dataset folder of these runs."""
    with DatasetStore.open(folder) as store:
        for measurement in measurements:
            store.append(measurement)
    return folder


def known(value: T | None) -> T:
    """A value that the examples always have."""
    assert value is not None
    return value


def per_token_j(run: RunRow) -> float:
    """Energy per output token of a batch, by hand."""
    return known(run.energy_j) / (known(run.batch_size) * known(run.output_tokens))


def wanted(folders: Iterable[Path], out: Path, *include: Inclusion, version: str = "1.0.0", **more: Any) -> Wanted:
    """What a test wants released."""
    return Wanted(
        folders=tuple(folders),
        out=out,
        version=Version.read(version),
        date=DAY,
        included=frozenset(include),
        **more,
    )


def _idle(run: RunRow, machine: ExampleMachine) -> tuple[ReadingRow, ...]:
    """Windows at rest whose mean is exactly the idle power of the run."""
    windows = example_readings(run, Part.IDLE, machine.idle_power_w, 2.0, random.Random(run.run_id), machine)
    energy_j = 2.0 * machine.idle_power_w
    return tuple(
        replace(row, energy_j=energy_j, counter_end_j=(row.counter_start_j or 0) + energy_j) for row in windows
    )


def _of_its_own(run: RunRow, windows: Iterable[ReadingRow]) -> tuple[ReadingRow, ...]:
    """The counter of each run starts elsewhere: two runs with the same readings would be copies."""
    start_j = random.Random(run.run_id).uniform(0, 1e6)
    return tuple(
        replace(
            row, counter_start_j=(row.counter_start_j or 0) + start_j, counter_end_j=(row.counter_end_j or 0) + start_j
        )
        for row in windows
    )


def _phase(
    run: RunRow, phase: Phase, draw: random.Random, machine: ExampleMachine
) -> tuple[PhaseRow, KernelRow, KernelEnergyRow, tuple[ReadingRow, ...]]:
    """A phase with one kernel that fills it."""
    steps = 1 if phase is Phase.PREFILL else (run.output_tokens or 1) - 1
    flop = 2 * 30 * 576 * 1536 * steps
    kernel = KernelRow(
        run_id=run.run_id,
        phase=phase,
        rank=0,
        kernel_id=f"{phase}-00000",
        kind=KernelKind.GEMM,
        op="aten::mm",
        module="model.layers.*.mlp.up_proj",
        dtype="float32",
        shape=shape_text({"m": 1, "n": 1536, "k": 576}),
        launches=30 * steps,
        flop=flop,
        read_bytes=flop // 8,
        write_bytes=flop // 64,
        link_bytes=0,
        duration_s=0.4,
        traced_duration_s=0.5,
    )
    readings = example_readings(run, Part(phase.value), machine.load_power_w, 0.5, draw, machine)
    row = replace(example_phase(run, phase, (kernel,), readings, machine), graph_id=None)
    row = replace(row, energy_ci95_j=0.02 * (row.energy_j or 0.0))
    energy_j = (row.energy_j or 0.0) - (row.host_gap_energy_j or 0.0)
    return row, kernel, kernel_energy(kernel, EnergyMethod.APPORTIONED, energy_j, machine.idle_power_w), readings
