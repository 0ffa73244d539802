"""How much memory and time validation takes: ``python -m benchmarks.validation_scale [--rows N] [--folder DIR]``.

Makes a simulated dataset that breaks no rule, with N kernel rows and as many energies (10 million by default: 2,000
runs on 4 GPUs with 1,250 kernels on each rank), validates it in a fresh process and prints rows/s and peak memory.
With ``--folder`` an existing dataset is validated instead. Bar: 10 million kernel rows in at most 2 GiB.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.campaign.rows import OWN_SOURCE
from harness.dataset.importers.blank import BLANK_ENVIRONMENT, BLANK_RUN
from harness.dataset.rows import arrow_table
from harness.dataset.schema import Table, arrow_schema
from harness.dataset.store import BulkTables, DatasetStore
from harness.kernels import KernelKind, Phase
from harness.records import EnergyMethod, Part, PhaseRow, Provenance, Quality, ReadingRow, RunRow, Weights, Workload
from harness.units import BYTES_PER_GIB

RANKS, CLASSES = 4, 1_250
RUNS_AT_ONCE = 100
GPU = "virtual: NVIDIA A100-SXM4-80GB"
IDLE_W, BUSY_W = 60.0, 150.0  # of one GPU
GAP_S = 0.01
NOISE = (-0.01, -0.005, 0.0, 0.005, 0.01)
BAR_BYTES = 2 * BYTES_PER_GIB
WORK = """
import json, re, sys, time
from pathlib import Path
start_s = time.perf_counter()
from harness.dataset.validation.check import validate
from harness.dataset.validation.findings import Severity
report = validate(Path(sys.argv[1]))
peak_bytes = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([time.perf_counter() - start_s, peak_bytes, sum(each.rows for each in report.rows),
    *(report.places(severity) for severity in Severity)]))
"""

DURATIONS_S = 1e-5 * (1 + np.arange(CLASSES) / CLASSES)  # [CLASSES]
PHASE_S = float(DURATIONS_S.sum()) + GAP_S
PHASE_J = RANKS * (float(DURATIONS_S.sum()) * BUSY_W + GAP_S * IDLE_W)
ENVIRONMENT = replace(
    BLANK_ENVIRONMENT,
    environment_id="scale",
    gpu=GPU,
    device_name="VIRTUAL NVIDIA A100-SXM4-80GB",
    n_devices=0,
    power_limit_w=400.0,
    meter="virtual:0 (simulated)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one validation took, and how many places of each severity it found."""

    seconds: float
    peak_bytes: int
    rows: int
    errors: int
    warnings: int
    notes: int


def run_row(number: int) -> RunRow:
    """One prefill of its own length."""
    return replace(
        BLANK_RUN,
        run_id=f"{number * 2654435761 % 2**64:020x}",
        campaign_id="scale",
        environment_id=ENVIRONMENT.environment_id,
        provenance=Provenance.SIMULATED,
        source=OWN_SOURCE.source,
        workload=Workload.BATCH,
        model="someone/some-model",
        weights=Weights.RANDOM,
        dtype="bfloat16",
        runtime="hf",
        attention="sdpa",
        kv_cache=True,
        cuda_graphs=False,
        gpu=GPU,
        n_gpus=RANKS,
        parallelism="tensor",
        tensor_parallel=RANKS,
        batch_size=1,
        prompt_tokens=number + 1,
        output_tokens=1,
        energy_j=PHASE_J,
        energy_ci95_j=0.02 * PHASE_J,
        duration_s=PHASE_S,
        idle_power_w=RANKS * IDLE_W,
        trials=len(NOISE),
        method="virtual-counter",
        quality=Quality.STANDARD,
        started_at_utc="2026-11-30T10:00:00+00:00",
        configuration='{"device":"virtual:a100-sxm","quality":"standard"}',
    )


def phase_row(run: RunRow) -> PhaseRow:
    """The prefill of a run."""
    return PhaseRow(
        run_id=run.run_id,
        phase=Phase.PREFILL,
        graph_id=None,
        energy_j=PHASE_J,
        energy_ci95_j=0.02 * PHASE_J,
        idle_energy_j=RANKS * IDLE_W * PHASE_S,
        host_gap_energy_j=RANKS * GAP_S * IDLE_W,
        duration_s=PHASE_S,
        steps=1,
        context_start_tokens=0,
        context_end_tokens=run.prompt_tokens,
        measured_contexts=None,
        trials=len(NOISE),
        method=run.method,
    )


def reading_rows(run: RunRow) -> Iterator[ReadingRow]:
    """Two idle windows, and five each of the prefill and the run; all ranks."""
    for part, noise in ((Part.IDLE, (0.0, 0.0)), (Part.PREFILL, NOISE), (Part.RUN, NOISE)):
        for trial, off in enumerate(noise):
            for rank in range(RANKS):
                passes = 0.0 if part is Part.IDLE else 100.0
                duration_s = 10.0 if part is Part.IDLE else passes * PHASE_S
                energy_j = IDLE_W * duration_s if part is Part.IDLE else passes * PHASE_J / RANKS * (1 + off)
                yield ReadingRow(
                    run_id=run.run_id,
                    part=part,
                    trial=trial,
                    rank=rank,
                    device_sha256=f"{rank:064x}",
                    meter=f"virtual:{rank}",
                    provenance=run.provenance,
                    energy_j=energy_j,
                    uncertainty_j=0.0,
                    duration_s=duration_s,
                    lead_s=0.0,
                    tail_s=0.0,
                    passes=passes,
                    context_start_tokens=None,
                    started_s=0.0,
                    counter_start_j=1000.0,
                    counter_end_j=1000.0 + energy_j,
                    sm_clock_mhz=1410.0,
                    memory_clock_mhz=1593.0,
                    temperature_c=50.0,
                    throttle_reasons=0,
                    rejected=None,
                )


def kernel_tables(run_ids: list[str], first: int) -> tuple[pa.Table, pa.Table]:
    """Kernels of some runs and their energies, counted from ``first``.

    No two rows of a dataset share a kernel_id or a shape: what repeats costs less, and would flatter the figures.
    """
    rows = len(run_ids) * RANKS * CLASSES
    number = np.arange(rows)
    text = pa.array(first + number).cast(pa.string())
    kernel = number % CLASSES
    duration_s = DURATIONS_S[kernel]
    where = {
        "run_id": pa.array(run_ids).take(pa.array(number // (RANKS * CLASSES))),
        "phase": _repeated(Phase.PREFILL, rows),
        "rank": pa.array(number // CLASSES % RANKS),
        "kernel_id": pc.binary_join_element_wise("kernel", text, "-"),
    }
    kernels = where | {
        "kind": _repeated(KernelKind.GEMM, rows),
        "op": _repeated("aten::mm", rows),
        "module": _repeated("model.layers.*.mlp.up_proj", rows),
        "dtype": _repeated("bfloat16", rows),
        "shape": pc.binary_join_element_wise('{"m":', text, ',"n":4096,"k":4096}', ""),
        "launches": pa.array(np.full(rows, 32)),
        "flop": pa.array(10**6 * (kernel + 1)),
        "read_bytes": pa.array(10**5 * (kernel + 1)),
        "write_bytes": pa.array(10**4 * (kernel + 1)),
        "link_bytes": pa.array(np.zeros(rows, np.int64)),
        "duration_s": pa.array(duration_s),
        "traced_duration_s": pa.array(duration_s),
    }
    energies = where | {
        "method": _repeated(EnergyMethod.APPORTIONED, rows),
        "energy_j": pa.array(BUSY_W * duration_s),
        "active_energy_j": pa.array((BUSY_W - IDLE_W) * duration_s),
    }
    return _filled(Table.KERNELS, kernels, rows), _filled(Table.KERNEL_ENERGIES, energies, rows)


def _repeated(word: str, rows: int) -> pa.Array:
    return pa.array([str(word)]).take(pa.array(np.zeros(rows, np.int64)))


def _filled(table: Table, columns: dict[str, pa.Array], rows: int) -> pa.Table:
    schema = arrow_schema(table)
    return pa.table([columns.get(field.name, pa.nulls(rows, field.type)) for field in schema], schema=schema)


def make(folder: Path, rows: int) -> None:
    """Write the dataset."""
    runs = [run_row(number) for number in range(max(1, rows // (RANKS * CLASSES)))]
    with DatasetStore.open(folder) as store:
        for first in range(0, len(runs), RUNS_AT_ONCE):
            some = runs[first : first + RUNS_AT_ONCE]
            kernels, energies = kernel_tables([run.run_id for run in some], first * RANKS * CLASSES)
            tables = BulkTables(
                runs=arrow_table(Table.RUNS, some),
                phases=arrow_table(Table.PHASES, [phase_row(run) for run in some]),
                kernels=kernels,
                kernel_energies=energies,
                readings=arrow_table(Table.READINGS, [row for run in some for row in reading_rows(run)]),
                environments=arrow_table(Table.ENVIRONMENTS, [ENVIRONMENT]),
                sources=arrow_table(Table.SOURCES, [OWN_SOURCE]),
            )
            store.append_tables(tables)


def cost(folder: Path) -> Cost:
    """Validate in a process of its own: its memory is nobody else's."""
    done = subprocess.run([sys.executable, "-c", WORK, str(folder)], check=True, capture_output=True, text=True)
    seconds, peak_bytes, rows, errors, warnings, notes = json.loads(done.stdout)
    return Cost(seconds=seconds, peak_bytes=peak_bytes, rows=rows, errors=errors, warnings=warnings, notes=notes)


def main() -> int:
    """Print what validation costs; 1 where the bar is missed or the simulated dataset is found wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validation_scale", description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000, help="kernel rows (default: 10 million)")
    parser.add_argument("--folder", type=Path, help="validate this dataset instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place) / "dataset"
        if options.folder is None:
            make(folder, options.rows)
        found = cost(folder)
    print(f"rows        {found.rows:,}")
    print(f"time        {found.seconds:.1f} s, {found.rows / found.seconds:,.0f} rows/s")
    print(f"peak memory {found.peak_bytes / BYTES_PER_GIB:.2f} GiB (bar: {BAR_BYTES / BYTES_PER_GIB:.0f} GiB)")
    print(f"findings    {found.errors} errors, {found.warnings} warnings, {found.notes} notes")
    wrong = options.folder is None and (found.errors or found.warnings)
    return int(found.peak_bytes > BAR_BYTES or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
