"""Row groups and files: cut by the rows alone, never by how they came."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.dataset.disk import Disk
from harness.dataset.reading import open_dataset
from harness.dataset.release import tables
from harness.dataset.release.database import opened
from harness.dataset.release.selection import choose, slug
from harness.dataset.release.tables import row_groups, write_tables
from harness.dataset.schema import Table
from tests.harness.dataset.release.releasable import dataset, own_run


def batches(arrow: pa.Table, cuts: list[int]) -> Iterator[pa.RecordBatch]:
    places = sorted({0, *(cut % arrow.num_rows for cut in cuts), arrow.num_rows})
    for start, end in pairwise(places):
        yield from arrow.slice(start, end - start).combine_chunks().to_batches()


@settings(max_examples=20)
@given(st.lists(st.integers(0, 10**6), max_size=12))
def test_row_groups_do_not_depend_on_how_the_rows_come(cuts: list[int]) -> None:
    rows = 9000
    arrow = pa.table({"n": pa.array(range(rows)), "text": pa.array([f"row {number}" for number in range(rows)])})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP_ROWS", 4096)
        groups = list(row_groups(batches(arrow, cuts)))

    assert [group.num_rows for group in groups] == [4096, 4096, 808]
    assert pa.concat_tables(groups).equals(arrow)


def test_rows_that_are_large_make_small_groups() -> None:
    arrow = pa.table({"text": pa.array(["x" * 1000] * 6144)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP_BYTES", 1_000_000)
        groups = list(row_groups(iter(arrow.to_batches())))

    assert [group.num_rows for group in groups] == [2048, 2048, 2048]


def test_no_rows_make_no_group() -> None:
    assert list(row_groups(iter(()))) == []


def test_a_full_file_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "PIECE_ROWS", 2)
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 2)
    monkeypatch.setattr(tables, "FULL_FILE_BYTES", 1)
    found = open_dataset(dataset(tmp_path / "a", (own_run(index) for index in range(5))))
    out = tmp_path / "out"
    with opened((found,)) as connection:
        choose(connection, ())
        listed = write_tables(connection, Disk(), out)

    runs = [file for file in listed if file.table is Table.RUNS]
    assert [(file.path.rpartition("/")[2], file.rows) for file in runs] == [
        ("data-nvidia-a100-sxm4-80gb-00000.parquet", 2),
        ("data-nvidia-a100-sxm4-80gb-00001.parquet", 2),
        ("data-nvidia-a100-sxm4-80gb-00002.parquet", 1),
    ]
    assert all(pq.read_metadata(out / file.path).num_rows == file.rows for file in listed)


@given(st.text(max_size=200))
def test_any_device_has_a_name_that_a_file_can_have(gpu: str) -> None:
    name = slug(gpu)

    assert name
    assert name.isascii()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(name) <= 80
