"""How fast ten million kernel rows are summarised: ``pytest benchmarks/test_summary_speed.py --benchmark-enable -s``.

The dataset is simulated, and has the shape of 2,000 runs on 8 GPUs: 8 ranks with about 312 kernel classes in each of
two phases. Time and peak memory are those of a fresh process that imports the summary and makes it. For comparison,
the same process kind lets DuckDB alone add up the kernels by run and phase.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from harness.dataset.rows import arrow_table
from harness.dataset.schema import Row, Table, arrow_schema, columns_of
from harness.dataset.store import BulkTables, DatasetStore
from harness.kernels import KernelKind, Phase
from harness.records import EnergyMethod, PhaseRow, Provenance, RunRow, Status
from harness.units import BYTES_PER_GIB

RUNS = 2_000
RANKS = 8
CLASSES = 313  # kernels of one rank in one phase
RUNS_AT_ONCE = 100
PHASE_ENERGY_J = 1_000.0

BAR_S = 5.0
BAR_BYTES = BYTES_PER_GIB

SUMMARISE = """
from harness.dataset.summary import summarise
summary = summarise(Path(sys.argv[1]))
count = len(summary.kinds)
"""
DUCKDB_ALONE = """
import duckdb
query = "SELECT run_id, phase, sum(launches), sum(flop), sum(duration_s) FROM read_parquet(?) GROUP BY ALL"
connection = duckdb.connect(config={"threads": "2"})
count = len(connection.execute(query, [sys.argv[1] + "/data/kernels/*.parquet"]).fetchall())
"""
# getrusage would count the parent's memory too: its peak survives fork and exec.
PROCESS = """
import json, re, sys, time
from pathlib import Path
start_s = time.perf_counter()
{work}
peak_bytes = 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([time.perf_counter() - start_s, peak_bytes, count]))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a process took, imports included."""

    duration_s: float
    peak_bytes: int
    groups: int


@pytest.fixture(scope="module")
def ten_million_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset folder, compacted as a campaign leaves it."""
    folder = tmp_path_factory.mktemp("dataset")
    with DatasetStore.open(folder) as store:
        for first in range(0, RUNS, RUNS_AT_ONCE):
            store.append_tables(simulated_runs(first, RUNS_AT_ONCE))
    return folder


def simulated_runs(first: int, count: int) -> BulkTables:
    """Runs ``first`` to ``first + count - 1`` with their phases, kernels and apportioned energies."""
    run_ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(first, first + count)]
    kernels = kernel_table(run_ids)
    return BulkTables(
        runs=arrow_table(Table.RUNS, [any_run(run_id) for run_id in run_ids]),
        phases=arrow_table(Table.PHASES, [any_phase(run_id, phase) for run_id in run_ids for phase in Phase]),
        kernels=kernels,
        kernel_energies=energy_table(kernels),
    )


def any_row(table: Table) -> dict[str, Any]:
    """Something of the right type in every column."""
    values = {str: "text", int: 2, float: 1.0, bool: False}
    return {
        column.name: next(iter(column.choices)) if column.choices else values[column.scalar]
        for column in columns_of(table)
    }


def any_run(run_id: str) -> Row:
    """A run that is marked as simulated."""
    return replace(
        RunRow(**any_row(Table.RUNS)),
        run_id=run_id,
        source="simulated for a benchmark",
        provenance=Provenance.SIMULATED,
        status=Status.OK,
        superseded_by=None,
    )


def any_phase(run_id: str, phase: Phase) -> Row:
    """A phase of known energy."""
    row = PhaseRow(**any_row(Table.PHASES))
    return replace(row, run_id=run_id, phase=phase, energy_j=PHASE_ENERGY_J, host_gap_energy_j=0.0)


def kernel_table(run_ids: list[str]) -> pa.Table:
    """Kernels in which text repeats and numbers differ, as they do in real runs."""
    draw = np.random.default_rng(len(run_ids))
    of_run = len(Phase) * RANKS * CLASSES
    rows = len(run_ids) * of_run
    kinds = list(KernelKind)
    classes = np.tile(np.arange(CLASSES), rows // CLASSES)
    columns: dict[str, Any] = {
        "run_id": np.repeat(run_ids, of_run),
        "phase": np.tile(np.repeat([phase.value for phase in Phase], RANKS * CLASSES), len(run_ids)),
        "rank": np.tile(np.repeat(np.arange(RANKS), CLASSES), len(Phase) * len(run_ids)),
        "kernel_id": texts([f"k{number:05d}" for number in range(CLASSES)], classes),
        "kind": texts([kinds[number % 8].value for number in range(CLASSES)], classes),
        "op": texts([f"aten::op{number % 20}" for number in range(CLASSES)], classes),
        "module": texts([f"model.layers.*.part{number % 30}" for number in range(CLASSES)], classes),
        "dtype": texts(["bfloat16"], np.zeros(rows, dtype=np.int64)),
        "shape": texts([f'{{"m":{number},"n":4096,"k":4096}}' for number in range(CLASSES)], classes),
        "launches": draw.integers(1, 100, rows),
        "flop": draw.integers(1, 10**12, rows),
        "read_bytes": draw.integers(1, 10**9, rows),
        "write_bytes": draw.integers(1, 10**9, rows),
        "link_bytes": np.zeros(rows, dtype=np.int64),
        "duration_s": draw.random(rows),
        "traced_duration_s": draw.random(rows),
    }
    schema = arrow_schema(Table.KERNELS)
    return filled(columns, schema, rows)


def filled(columns: Mapping[str, Any], schema: pa.Schema, rows: int) -> pa.Table:
    """Columns that are not given are null."""
    return pa.table(
        {
            field.name: pa.array(columns[field.name]).cast(field.type)
            if field.name in columns and not isinstance(columns[field.name], pa.ChunkedArray)
            else columns.get(field.name, pa.nulls(rows, field.type))
            for field in schema
        },
        schema,
    )


def texts(words: list[str], indices: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Array:
    """The words at these indices."""
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(words)).cast(pa.string())


def energy_table(kernels: pa.Table) -> pa.Table:
    """Energies that fill each phase."""
    rows = kernels.num_rows
    shares = np.random.default_rng(rows).random((rows // (RANKS * CLASSES), RANKS * CLASSES))  # [phases, kernels]
    energy_j = (PHASE_ENERGY_J * shares / shares.sum(axis=1, keepdims=True)).ravel()
    columns: dict[str, Any] = {
        **{name: kernels.column(name) for name in ("run_id", "phase", "rank", "kernel_id")},
        "method": pa.array([EnergyMethod.APPORTIONED.value] * rows),
        "energy_j": energy_j,
        "active_energy_j": energy_j / 2,
        "energy_ci95_j": pa.nulls(rows, pa.float64()),
    }
    return filled(columns, arrow_schema(Table.KERNEL_ENERGIES), rows)


def in_a_fresh_process(work: str, folder: Path) -> Cost:
    """Run a few lines on a folder, and say what they took."""
    code = PROCESS.format(work=work.strip())
    finished = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    duration_s, peak_bytes, groups = json.loads(finished.stdout[finished.stdout.index("[") :].splitlines()[0])
    return Cost(duration_s=duration_s, peak_bytes=peak_bytes, groups=groups)


def told(name: str, cost: Cost) -> str:
    """One line about a cost."""
    return f"{name:<14}{cost.duration_s:6.2f} s {cost.peak_bytes / BYTES_PER_GIB:6.2f} GiB  {cost.groups} groups"


def test_ten_million_kernels_are_summarised_in_five_seconds_and_one_gibibyte(
    ten_million_kernels: Path, benchmark: Any
) -> None:
    """Time and peak memory against the bar."""
    alone = in_a_fresh_process(DUCKDB_ALONE, ten_million_kernels)
    cost = benchmark.pedantic(in_a_fresh_process, args=(SUMMARISE, ten_million_kernels), rounds=1)

    rows = RUNS * len(Phase) * RANKS * CLASSES
    print(f"\n{rows:,} simulated kernel rows in {RUNS:,} runs, imports included")
    print(told("DuckDB alone", alone))
    print(told("summary", cost))
    print(f"{'bar':<14}{BAR_S:6.2f} s {BAR_BYTES / BYTES_PER_GIB:6.2f} GiB")
    benchmark.extra_info.update(duration_s=cost.duration_s, peak_bytes=cost.peak_bytes, rows=rows)
    assert rows >= 10_000_000
    assert cost.groups == RUNS * len(Phase) * 8
    assert cost.duration_s <= BAR_S
    assert cost.peak_bytes <= BAR_BYTES
