"""Changing a dataset behind the back of its store: single cells, rows and files, with a manifest that says so."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.dataset.manifest import MANIFEST, manifest_text, read_manifest
from harness.dataset.schema import Table, arrow_schema
from harness.dataset.store import DatasetStore
from harness.records import Measurement

Row = dict[str, Any]
Change = Callable[[list[Row]], list[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """New values for the rows of a table that have some values, or all; a function gets the old value."""

    table: Table
    values: Row
    where: Row = field(default_factory=dict)

    def __call__(self, rows: list[Row]) -> list[Row]:
        chosen = [row for row in rows if all(row[name] == value for name, value in self.where.items())]
        assert chosen, f"no row of {self.table.title} has {self.where}"
        for row in chosen:
            row.update({name: new(row[name]) if callable(new) else new for name, new in self.values.items()})
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """A row that is there once more, at the end, with some other values."""

    table: Table
    where: Row
    values: Row = field(default_factory=dict)

    def __call__(self, rows: list[Row]) -> list[Row]:
        chosen = [row for row in rows if all(row[name] == value for name, value in self.where.items())]
        assert chosen, f"no row of {self.table.title} has {self.where}"
        return [*rows, *(row | self.values for row in chosen)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """Rows that are taken away."""

    table: Table
    where: Row

    def __call__(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if not all(row[name] == value for name, value in self.where.items())]


def write(folder: Path, measurements: Iterable[Measurement]) -> Path:
    """A closed dataset."""
    with DatasetStore.open(folder) as store:
        for measurement in measurements:
            store.append(measurement)
    return folder


def data_file(folder: Path, table: Table) -> Path:
    """The one file of a table."""
    (path,) = (folder / "data" / table.title).glob("*.parquet")
    return path


def change(folder: Path, *edits: Edit | Again | Gone) -> None:
    """Apply edits, and state the new files in the manifest."""
    for edit in edits:
        path = data_file(folder, edit.table)
        rows = edit(pq.read_table(path).to_pylist())
        pq.write_table(pa.Table.from_pylist(rows, arrow_schema(edit.table)), path)
    state(folder)


def state(folder: Path) -> None:
    """Let the manifest say what the files are."""
    manifest = read_manifest(folder)
    assert manifest is not None
    files = []
    for listed in manifest.files:
        content = (folder / listed.path).read_bytes()
        rows = pq.read_metadata(folder / listed.path).num_rows
        sha256 = hashlib.sha256(content).hexdigest()
        files.append(replace(listed, sha256=sha256, size_bytes=len(content), rows=rows))
    (folder / MANIFEST).write_text(manifest_text(replace(manifest, files=tuple(files))))


def row_number(folder: Path, table: Table, **where: Any) -> int:
    """Where the first row with these values stands."""
    rows = pq.read_table(data_file(folder, table)).to_pylist()
    return next(place for place, row in enumerate(rows) if all(row[name] == value for name, value in where.items()))
