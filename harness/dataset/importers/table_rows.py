"""Rows of a CSV or Parquet file that nobody has checked yet: bounded in size, each with its place."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from harness.dataset.importers.table_values import Cell
from harness.errors import CorruptFile, DatasetError, UsageError

_MOST_BYTES: Final = 1024**3  # of the file
_MOST_UNPACKED_BYTES: Final = 8 * 1024**3  # of all columns of a Parquet file, as its own footer counts them
_MOST_ROWS: Final = 500_000  # each takes 5 kB of memory until all are sorted into runs
_MOST_COLUMNS: Final = 2000
_BATCH_ROWS: Final = 65_536
_LONGEST_CELL: Final = 131_072  # characters, as csv allows


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """One row and where it stands. ``cells`` is None where the row has another number of cells than the header."""

    place: str
    cells: Mapping[str, Cell] | None


def read_table_file(path: Path, wanted: Iterable[str]) -> Iterator[FileRow]:
    """Stream a file; raises ``UsageError`` for a wanted column it lacks, ``DatasetError`` for a file it cannot be."""
    with _translated(path):
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is larger than 1 GiB.\nSplit it, or import a part of it.")
        if path.suffix.lower() == ".parquet":
            yield from _parquet_rows(path, sorted(set(wanted)))
        elif path.suffix.lower() == ".csv":
            yield from _csv_rows(path, sorted(set(wanted)))
        else:
            raise UsageError(f"{path} is neither .csv nor .parquet.\nConvert it first.")


def _csv_rows(path: Path, wanted: Sequence[str]) -> Iterator[FileRow]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        _check_columns(path, header, wanted)
        for number, row in enumerate(reader, start=1):
            _check_rows(path, number)
            if row:
                cells = dict(zip(header, row, strict=True)) if len(row) == len(header) else None
                yield FileRow(place=f"line {reader.line_num}", cells=cells)


def _parquet_rows(path: Path, wanted: Sequence[str]) -> Iterator[FileRow]:
    with pq.ParquetFile(path, read_dictionary=_texts(path)) as file:
        _check_rows(path, file.metadata.num_rows)
        groups = range(file.metadata.num_row_groups)
        if sum(file.metadata.row_group(place).total_byte_size for place in groups) > _MOST_UNPACKED_BYTES:
            raise UsageError(f"{path} unpacks to more than 8 GiB.\nSplit it, or import a part of it.")
        names = file.schema_arrow.names
        _check_columns(path, names, wanted)
        for name in wanted:
            if pa.types.is_nested(file.schema_arrow.field(name).type):
                raise UsageError(f"{path}: column {name!r} is nested.\nA mapping takes plain values; unnest it first.")
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=names):
            columns = [_plain(path, column) for column in batch.columns]
            for values in zip(*columns, strict=True):
                number += 1
                yield FileRow(place=f"row {number}", cells=dict(zip(batch.schema.names, values, strict=True)))


def _texts(path: Path) -> list[str]:
    """Columns of text, to be read as dictionaries: a long text in every row is then in memory once."""
    schema = pq.read_schema(path)
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return [field.name for field in schema if any(check(field.type) for check in kinds)]


def _plain(path: Path, column: pa.Array) -> list[Cell]:
    """Numbers, texts and truths as they are; dates and the like as text."""
    if pa.types.is_dictionary(column.type):
        words = _plain(path, column.dictionary)
        return [None if place is None else words[place] for place in column.indices.to_pylist()]
    values: list[Cell] = column.to_pylist()
    if any(check(column.type) for check in (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)):
        return values
    texts: list[Cell] = [None if value is None else str(value) for value in values]
    if any(isinstance(text, str) and len(text) > _LONGEST_CELL for text in texts):
        raise UsageError(
            f"{path} has a cell of more than {_LONGEST_CELL:,} characters.\nIs it the file that was meant?"
        )
    return texts


def _check_columns(path: Path, names: Sequence[str], wanted: Iterable[str]) -> None:
    if len(set(names)) < len(names) or len(names) > _MOST_COLUMNS:
        raise UsageError(f"{path} has a column name twice, or more than {_MOST_COLUMNS} columns.\nRename them.")
    if missing := [name for name in wanted if name not in names]:
        raise UsageError(
            f"{path} has no column {', '.join(map(repr, missing))}.\nIt has: {', '.join(map(repr, names[:40]))}."
        )


def _check_rows(path: Path, rows: int) -> None:
    if rows > _MOST_ROWS:
        raise UsageError(f"{path} has more than {_MOST_ROWS:,} rows.\nSplit it, or import a part of it.")


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # pyarrow: pages that do not decompress
            raise CorruptFile(f"{path} is damaged: {error}.\nGet it again.") from error
        raise DatasetError(f"{path} cannot be read: {error.strerror}.\nCheck the path and its permissions.") from error
    except (csv.Error, pa.ArrowException, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} is no intact {path.suffix[1:]} file: {error}.\nGet it again.") from error
