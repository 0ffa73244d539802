"""Tables written by their suffix, batch after batch: CSV, Parquet, JSON (one array) or JSON lines.

A file appears whole or not at all. Nothing is rounded; what is not known is an empty cell in CSV and null elsewhere.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import CannotWrite, UsageError

_GROUP_ROWS: Final = 65_536
SUFFIXES: Final = (".csv", ".parquet", ".pq", ".json", ".jsonl")


class TableWriter(Protocol):
    """Takes batches of one schema."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Add rows. Raises ``UsageError`` for a column that the format cannot hold."""
        ...

    def close(self) -> None:
        """End the file; there has been at least one batch."""
        ...


def check_out(path: Path) -> None:
    """Raise ``UsageError`` for a name that says no format, ``CannotWrite`` for a place where no file can be."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path} says no format.\nName a file that ends in {', '.join(SUFFIXES)}.")
    if path.is_dir() or not path.parent.is_dir():
        raise CannotWrite(f"{path} cannot be written: it is a folder, or its folder does not exist.\nName a file.")


@contextmanager
def writing(path: Path) -> Iterator[TableWriter]:
    """A writer whose file takes its place at the end, if nothing was raised. Raises as ``check_out``."""
    check_out(path)
    unfinished = path.with_name(path.name + ".tmp")
    try:
        with unfinished.open("wb") as file:
            writer = _writer(path.suffix.lower(), file)
            yield writer
            writer.close()
        unfinished.replace(path)
    except OSError as error:
        raise CannotWrite(
            f"{path} cannot be written: {error.strerror or error}.\nName a file in a folder that has space and may be "
            "written."
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _writer(suffix: str, file: IO[bytes]) -> TableWriter:
    if suffix in (".parquet", ".pq"):
        return _ParquetWriter(file)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    return CsvWriter(text) if suffix == ".csv" else JsonWriter(text, lines=suffix == ".jsonl")


class CsvWriter:
    """Comma-separated values."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._csv = csv.writer(_Lines(file), lineterminator=_Lines.END)
        self._started = False

    def write(self, rows: pa.RecordBatch) -> None:
        """Add rows."""
        if not self._started:
            self._csv.writerow(rows.schema.names)
            self._started = True
        columns = [_texts(name, column) for name, column in zip(rows.schema.names, rows.columns, strict=True)]
        self._csv.writerows(zip(*columns, strict=True))

    def close(self) -> None:
        """Hand over what was written."""
        self._file.flush()


class _Lines:
    r"""Ends rows with ``\n``. The csv module quotes a cell with ``\r`` only if rows end with that too."""

    END: Final = "\r\n"

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, row: str) -> int:
        """Take one row, as the csv module hands them over."""
        return self._file.write(row.removesuffix(self.END) + "\n")


class JsonWriter:
    """One object per row: an array of them, or one on each line."""

    def __init__(self, file: IO[str], *, lines: bool) -> None:
        self._file = file
        self._before, self._between, self._after = ("", "\n", "\n") if lines else ("[\n", ",\n", "\n]\n")
        self._started = False

    def write(self, rows: pa.RecordBatch) -> None:
        """Add rows."""
        names = rows.schema.names
        columns = [_plain_column(name, column) for name, column in zip(names, rows.columns, strict=True)]
        for row in zip(*columns, strict=True):
            self._file.write(self._between if self._started else self._before)
            self._file.write(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False))
            self._started = True

    def close(self) -> None:
        """End the array."""
        self._file.write(self._after if self._started else self._before + self._after)
        self._file.flush()


class _ParquetWriter:
    """Row groups of a size that readers like."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.RecordBatch] = []

    def write(self, rows: pa.RecordBatch) -> None:
        """Add rows."""
        self._waiting.append(rows)
        if sum(batch.num_rows for batch in self._waiting) >= _GROUP_ROWS:
            self._write_group()

    def close(self) -> None:
        """Write the rest and the footer."""
        self._write_group()
        if self._writer is not None:
            self._writer.close()

    def _write_group(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting)
        self._waiting = []
        try:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._file, table.schema)
            self._writer.write_table(table)
        except pa.ArrowException as error:
            raise UsageError(f"Parquet cannot hold the table: {error}.\nWrite it as .csv or .jsonl.") from error


# ---- cells ----


def _texts(name: str, column: pa.Array) -> Sequence[str]:
    """Cells of CSV: text as it is, numbers with all their digits, what is nested as JSON."""
    if pa.types.is_string(column.type):
        return ["" if cell is None else cell for cell in column.to_pylist()]
    if pa.types.is_floating(column.type):
        return ["" if cell is None else repr(cell) for cell in column.to_pylist()]
    return [_text(cell) for cell in _plain_column(name, column)]


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return json.dumps(cell, ensure_ascii=False) if isinstance(cell, dict | list) else str(cell)


def _plain_column(name: str, column: pa.Array) -> list[Any]:
    """Cells as JSON knows them. Raises ``UsageError`` for bytes."""
    make = _plain_of(name)
    return [make(cell) for cell in column.to_pylist()]


def _plain_of(name: str) -> Callable[[object], Any]:
    def make(cell: object) -> Any:
        if cell is None or isinstance(cell, str | int):  # a bool too
            return cell
        if isinstance(cell, float):
            return cell if math.isfinite(cell) else None
        if isinstance(cell, dict):
            return {str(key): make(value) for key, value in cell.items()}
        if isinstance(cell, list | tuple):
            return [make(value) for value in cell]
        if isinstance(cell, bytes):
            raise UsageError(f"Column {name} holds bytes, which only Parquet can hold.\nWrite a .parquet file.")
        return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)

    return make
