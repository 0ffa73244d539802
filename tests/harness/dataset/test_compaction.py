"""Compaction makes few files of many, in bounded memory, and leaves large ones alone."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.dataset import compaction
from harness.dataset.compaction import row_groups
from harness.dataset.reading import read_table
from harness.dataset.rows import arrow_table
from harness.dataset.schema import Table
from harness.dataset.store import DatasetStore
from harness.records import Measurement

Examples = Callable[..., tuple[Measurement, ...]]


def batches_of(sizes: list[int], drawn: list[int]) -> Iterator[pa.RecordBatch]:
    for size in sizes:
        drawn.append(size)
        yield pa.record_batch({"number": pa.array(range(size), pa.int64())})


def test_small_batches_are_gathered_into_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 10)

    groups = list(row_groups(batches_of([4, 4, 4, 1, 25, 3], [])))

    assert [group.num_rows for group in groups] == [12, 26, 3]
    assert groups[0].column("number").to_pylist() == [0, 1, 2, 3] * 3


def test_no_more_is_read_than_a_row_group_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP_BYTES", 100 * 8)
    drawn: list[int] = []
    groups = row_groups(batches_of([60] * 1000, drawn))

    assert next(groups).num_rows == 120
    assert len(drawn) == 2


def test_no_rows_make_no_group() -> None:
    assert list(row_groups(iter(()))) == []


def test_large_files_stay_as_they_are_and_small_ones_are_merged(
    tmp_path: Path, example_measurements: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third, *_ = example_measurements(n_runs=6, kernels_per_phase=300)
    folder = tmp_path / "data" / "kernels"

    def closed_with(measurement: Measurement) -> list[str]:
        with DatasetStore.open(tmp_path) as store:
            store.append(measurement)
        return sorted(path.name for path in folder.iterdir())

    assert closed_with(first) == ["data-00000.parquet"]
    assert closed_with(second) == ["data-00001.parquet"]
    monkeypatch.setattr(compaction, "MERGE_BELOW_BYTES", 1000)
    untouched = (folder / "data-00001.parquet").read_bytes()
    assert closed_with(third) == ["data-00001.parquet", "data-00002.parquet"]

    assert (folder / "data-00001.parquet").read_bytes() == untouched
    assert read_table(tmp_path, Table.KERNELS).num_rows == 1800


def test_a_file_that_is_large_enough_is_finished_and_the_next_begun(
    tmp_path: Path, example_measurements: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 50)
    monkeypatch.setattr(compaction, "FULL_FILE_BYTES", 5000)
    measurements = example_measurements(n_runs=6, kernels_per_phase=50, failures=False)
    with DatasetStore.open(tmp_path) as store:
        for measurement in measurements:
            store.append(measurement)
    files = sorted((tmp_path / "data" / "kernels").iterdir())

    assert len(files) > 2
    assert all(pq.read_metadata(file).row_group(0).num_rows <= 100 for file in files)
    expected = [arrow_table(Table.KERNELS, row.kernels) for row in sorted(measurements, key=lambda row: row.run.run_id)]
    assert read_table(tmp_path, Table.KERNELS).equals(pa.concat_tables(expected))
