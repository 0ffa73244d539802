"""Reading a dataset folder: whole, in batches, or as typed rows; also while a campaign is writing it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from harness.dataset.files import damaged, file_sha256, read_batches
from harness.dataset.layout import Contents, files_of, survey
from harness.dataset.manifest import Manifest
from harness.dataset.rows import rows_from_values
from harness.dataset.schema import RowT, Table, arrow_schema, table_of
from harness.errors import CorruptFile, DatasetError


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """One Parquet file of a dataset."""

    table: Table
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The committed content of a dataset folder at the moment it was opened."""

    folder: Path
    manifest: Manifest | None  # None: a campaign has not closed it yet
    files: tuple[TableFile, ...]

    @property
    def complete(self) -> bool:
        """Whether the manifest covers every file: a campaign closes its dataset when all its runs are made."""
        listed = set() if self.manifest is None else {self.folder / file.path for file in self.manifest.files}
        return self.manifest is not None and all(file.path in listed for file in self.files)

    def paths(self, table: Table) -> tuple[Path, ...]:
        """Files of a table, for readers of Parquet; none where the table is empty."""
        return tuple(file.path for file in self.files if file.table is table)

    def batches(self, table: Table, columns: tuple[str, ...] | None = None) -> Iterator[pa.RecordBatch]:
        """Stream a table, or some columns of it; raises ``CorruptFile`` and ``NewerSchema``."""
        for path in self.paths(table):
            yield from read_batches(path, table, None if columns is None else list(columns))

    def table(self, table: Table, columns: tuple[str, ...] | None = None) -> pa.Table:
        """A table, or some columns of it, in memory; raises as ``batches`` does."""
        schema = arrow_schema(table)
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
        return pa.Table.from_batches(self.batches(table, columns), schema=schema)

    def rows(self, row_class: type[RowT]) -> Iterator[RowT]:
        """Stream a table as typed rows; raises as ``batches`` does."""
        for path in self.paths(table_of(row_class)):
            for batch in read_batches(path, table_of(row_class)):
                yield from _typed_rows(path, row_class, batch)

    def faults(self) -> tuple["Fault", ...]:
        """Every file that is damaged or is not what the manifest promises. Reads all of the dataset."""
        promised = {self.folder / file.path: file.sha256 for file in self.manifest.files} if self.manifest else {}
        errors = ((file, _fault(file, promised.get(file.path))) for file in self.files)
        return tuple(Fault(file=file, error=error) for file, error in errors if error is not None)

    def without(self, faults: tuple["Fault", ...]) -> "Dataset":
        """What can still be read."""
        damaged_paths = {fault.file.path for fault in faults}
        return replace(self, files=tuple(file for file in self.files if file.path not in damaged_paths))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A file of the dataset that cannot be used, and the error that says why and what to do."""

    file: TableFile
    error: CorruptFile


def open_dataset(folder: Path) -> Dataset:
    """Open a folder for reading; what no run has committed is not seen.

    Raises ``CorruptFile``, ``NewerSchema``, and ``DatasetError`` for a folder that holds no dataset.
    """
    contents = survey(folder)
    if contents.manifest is None and not contents.parts:
        raise DatasetError(
            f"{folder} holds no dataset: it has no manifest.json and no finished run.\n"
            f"Check the path; `python -m harness.run --out {folder}` makes one."
        )
    return dataset_of(folder, contents)


def dataset_of(folder: Path, contents: Contents) -> Dataset:
    """The dataset that a surveyed folder holds; it may be empty."""
    files = [TableFile(table=table, path=path) for table in Table for path in files_of(folder, contents, table)]
    return Dataset(folder=folder, manifest=contents.manifest, files=tuple(files))


def read_rows(folder: Path, row_class: type[RowT]) -> Iterator[RowT]:
    """Rows of the table that holds this class; raises as ``open_dataset`` and ``Dataset.batches`` do."""
    return open_dataset(folder).rows(row_class)


def read_table(folder: Path, table: Table) -> pa.Table:
    """One table in memory; raises as ``open_dataset`` and ``Dataset.batches`` do."""
    return open_dataset(folder).table(table)


def _typed_rows(path: Path, row_class: type[RowT], batch: pa.RecordBatch) -> tuple[RowT, ...]:
    try:
        return rows_from_values(row_class, [column.to_pylist() for column in batch.columns])
    except DatasetError as error:
        raise damaged(path, f"holds a value that is not allowed: {error}") from error


def _fault(file: TableFile, promised_sha256: str | None) -> CorruptFile | None:
    try:
        if promised_sha256 is not None and file_sha256(file.path) != promised_sha256:
            return damaged(file.path, "is not the file that manifest.json lists (its sha256 differs)")
        for _ in read_batches(file.path, file.table):
            pass
    except CorruptFile as error:
        return error
    return None
