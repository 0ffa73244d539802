"""How fast kernel rows get into a dataset: ``pytest benchmarks/test_store_speed.py --benchmark-enable``.

The store's way is the campaign's: rows in memory, part files on the disk run by run, then compacted into the files that
the manifest lists. Beside it stands one plain ``pyarrow`` write of the same table, so that the ratio does not depend on
the machine.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.dataset.rows import arrow_table
from harness.dataset.schema import Row, Table, columns_of
from harness.dataset.store import BulkTables, DatasetStore
from harness.dataset.transport import measurement_from_json, measurement_to_json
from harness.kernels import KernelKind, Phase, shape_text
from harness.records import KernelRow, Measurement, RunRow

RUNS, KERNELS_PER_RUN = 50, 10_000
MODULES = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Rows per second of one way, taken once."""

    way: str
    rows_per_s: float


def any_run(run_id: str) -> RunRow:
    """A run whose columns hold something of the right type."""
    values = {str: "text", int: 1, float: 1.0, bool: False}
    row = {column.name: values[column.scalar] for column in columns_of(Table.RUNS)}
    row |= {column.name: next(iter(column.choices)) for column in columns_of(Table.RUNS) if column.choices}
    build: Callable[..., RunRow] = RunRow
    return build(**(row | {"run_id": run_id}))


def kernels(run_id: str) -> tuple[KernelRow, ...]:
    """Rows in which text repeats and numbers differ, as they do in real runs."""
    kinds = list(KernelKind)
    template = KernelRow(
        run_id=run_id,
        phase=Phase.DECODE,
        rank=0,
        kernel_id="",
        kind=KernelKind.GEMM,
        op="aten::mm",
        module=None,
        dtype="bfloat16",
        shape="",
        launches=30,
        flop=None,
        read_bytes=None,
        write_bytes=None,
        link_bytes=None,
        duration_s=None,
        traced_duration_s=None,
    )
    return tuple(
        replace(
            template,
            phase=Phase.PREFILL if number % 2 else Phase.DECODE,
            rank=number % 8,
            kernel_id=f"k{number:05d}",
            kind=kinds[number % len(kinds)],
            module=f"model.layers.*.{MODULES[number % len(MODULES)]}",
            shape=shape_text({"m": 1 + number % 100, "n": 4096, "k": 11008}),
            flop=number * 90_177_536,
            read_bytes=number * 4_099,
            write_bytes=number * 511,
            duration_s=number * 1.37e-6,
            traced_duration_s=number * 1.61e-6,
        )
        for number in range(KERNELS_PER_RUN)
    )


@pytest.fixture(scope="module")
def measurements() -> tuple[Measurement, ...]:
    """Runs of many kernels."""
    ids = [f"run{number:04d}" for number in range(RUNS)]
    return tuple(Measurement(run=any_run(run_id), kernels=kernels(run_id)) for run_id in ids)


def write_as_a_campaign(folder: Path, measurements: tuple[Measurement, ...]) -> None:
    """Run by run, each on the disk before the next, then compacted."""
    with DatasetStore.open(folder) as store:
        for measurement in measurements:
            store.append(measurement)


def rate(way: str, rows: int, work: Callable[[], object]) -> Rate:
    """Time ``work`` once."""
    started_s = time.perf_counter()
    work()
    return Rate(way=way, rows_per_s=rows / (time.perf_counter() - started_s))


def kernel_table(measurements: tuple[Measurement, ...]) -> pa.Table:
    """All kernels in one Arrow table."""
    return pa.concat_tables([arrow_table(Table.KERNELS, row.kernels) for row in measurements]).combine_chunks()


def test_kernel_rows_written_per_second_as_a_campaign_writes_them(
    benchmark: Any, tmp_path: Path, measurements: tuple[Measurement, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints rows per second, and the ratio to one plain write of the same table."""
    table, rows, number = kernel_table(measurements), RUNS * KERNELS_PER_RUN, count()
    bulk = BulkTables(runs=arrow_table(Table.RUNS, [row.run for row in measurements]), kernels=table)

    benchmark.pedantic(
        lambda: write_as_a_campaign(tmp_path / f"{next(number)}", measurements), rounds=5, warmup_rounds=1
    )

    rates = [
        rate("rows, as a campaign", rows, lambda: write_as_a_campaign(tmp_path / "rows", measurements)),
        rate("one Arrow table", rows, lambda: write_in_bulk(tmp_path / "bulk", bulk)),
        rate("plain pyarrow", rows, lambda: pq.write_table(table, tmp_path / "plain.parquet", compression="zstd")),
    ]
    with capsys.disabled():
        for entry in rates:
            print(
                f"\n{entry.way}: {entry.rows_per_s:,.0f} rows/s, {entry.rows_per_s / rates[-1].rows_per_s:.2f} ×",
                end="",
            )
    (written,) = (tmp_path / "rows" / "data" / "kernels").iterdir()
    assert pq.read_metadata(written).num_rows == rows


def write_in_bulk(folder: Path, tables: BulkTables) -> None:
    """As an importer writes."""
    with DatasetStore.open(folder) as store:
        store.append_tables(tables)


def test_a_measurement_of_ten_thousand_kernels_travels_as_text(
    benchmark: Any, measurements: tuple[Measurement, ...]
) -> None:
    """There and back."""
    travelled: Row = benchmark(lambda: measurement_from_json(measurement_to_json(measurements[0]))).run

    assert travelled == measurements[0].run
