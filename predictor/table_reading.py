"""Tables of requests as batches of rows: CSV, Parquet, or columns in memory. Nothing in them is trusted.

Cells of a CSV file are text, as they are written. Where they go into a file that has types, a column becomes one of
numbers or truths only if every cell of it reads back as the same text: 512 does, 007 and 1.50 stay text.
"""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import UsageError

BATCH_ROWS: Final = 4096
_MOST_BYTES: Final = 4 * 1024**3  # of the file; it is streamed
_MOST_UNPACKED_BYTES: Final = 32 * 1024**3  # of all columns of a Parquet file, as its own footer counts them
_MOST_GROUP_BYTES: Final = 2 * 1024**3  # of one row group, which is unpacked in memory
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}", re.ASCII)
_TRUTHS: Final = (frozenset({"true", "false"}), frozenset({"True", "False"}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some rows of a table, with what is wrong with the form of any of them, by their place in the batch."""

    rows: pa.RecordBatch
    problems: Mapping[int, str] = field(default_factory=dict)


class RequestTable(Protocol):
    """A table of requests that can be read once, from its start."""

    label: str  # as messages call it
    names: Sequence[str]

    def batches(self) -> Iterator[Batch]:
        """All rows in order; raises ``UsageError`` for a file that is not what its name promises."""
        ...


def open_table(path: Path, *, typed: bool) -> RequestTable:
    """A file by its suffix; ``typed``: cells of a CSV file shall have types. Raises ``UsageError``."""
    readers = {".csv": CsvTable, ".parquet": ParquetTable, ".pq": ParquetTable}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is neither .csv nor .parquet.\nSave the requests as one of them.")
    with _translated(path):
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_BYTES >> 30} GiB.\nSplit it.")
        if path.stat().st_size == 0:
            raise UsageError(f"{path} is empty.\nIts first line names the columns; --help shows which there are.")
    return CsvTable(path, typed=typed) if reader is CsvTable else ParquetTable(path)


class CsvTable:
    """Comma-separated values in UTF-8, with a header."""

    def __init__(self, path: Path, *, typed: bool) -> None:
        self.label = str(path)
        self._path = path
        with _translated(path), path.open(newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file, strict=True), [])
        self.names: Sequence[str] = header
        self._typed = typed

    def batches(self) -> Iterator[Batch]:
        """All rows in order."""
        kinds = self._kinds() if self._typed else [pa.string()] * len(self.names)
        for rows, problems in self._pieces():
            columns = [_typed(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
            yield Batch(rows=pa.RecordBatch.from_arrays(columns, names=list(self.names)), problems=problems)

    def _kinds(self) -> list[pa.DataType]:
        """The type of each column, from a first pass over all rows."""
        kinds = [_Kind() for _ in self.names]
        for rows, _ in self._pieces():
            for kind, column in zip(kinds, zip(*rows, strict=True), strict=True):
                kind.see(column)
        return [kind.kind for kind in kinds]

    def _pieces(self) -> Iterator[tuple[list[list[str]], dict[int, str]]]:
        """Rows of as many cells as the header has, and which of them had another number."""
        with _translated(self._path), self._path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            next(reader, None)
            lines = (line for line in reader if line)  # an empty line is no row
            width = len(self.names)
            while rows := list(islice(lines, BATCH_ROWS)):
                ragged = [place for place, row in enumerate(rows) if len(row) != width]
                problems = {
                    place: f"the row has {len(rows[place])} cells, the header {width}; a cell with a comma needs quotes"
                    for place in ragged
                }
                for place in ragged:
                    rows[place] = [*rows[place], *[""] * width][:width]
                yield rows, problems


class _Kind:
    """What all cells of a column seen so far can be."""

    def __init__(self) -> None:
        self._whole = self._number = True
        self._truths = list(_TRUTHS)
        self._seen = False

    def see(self, cells: Sequence[str]) -> None:
        """Take more cells into account; empty ones are nothing of any type."""
        stated = set(cells) - {""}
        self._seen = self._seen or bool(stated)
        self._whole = self._whole and all(map(_WHOLE.fullmatch, stated))
        self._number = self._number and all(map(_reads_back, stated))
        self._truths = [words for words in self._truths if stated <= words]

    @property
    def kind(self) -> pa.DataType:
        """The narrowest type; text where nothing was stated."""
        if not self._seen:
            return pa.string()
        if self._whole:
            return pa.int64()
        return pa.float64() if self._number else pa.bool_() if self._truths else pa.string()


def _reads_back(text: str) -> bool:
    """Whether a number says all that the text does.

    >>> [_reads_back(text) for text in ("0.5", "3", "0.50", "007", "1e3", "nan")]
    [True, True, False, False, False, False]
    """
    if _WHOLE.fullmatch(text):
        return len(text) < 16
    try:
        return repr(float(text)) == text and text.lstrip("-")[0].isdigit()
    except ValueError:
        return False


def _typed(cells: Sequence[str], kind: pa.DataType) -> pa.Array:
    if kind == pa.string():
        return pa.array(cells, pa.string())
    if kind == pa.bool_():
        return pa.array([None if cell == "" else cell in ("true", "True") for cell in cells], kind)
    number = int if kind == pa.int64() else float
    return pa.array([None if cell == "" else number(cell) for cell in cells], kind)


class ParquetTable:
    """A Parquet file. Columns that are passed through may be of any type."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._path = path
        with _translated(path), pq.ParquetFile(path) as file:
            self.names: Sequence[str] = file.schema_arrow.names
            sizes = [file.metadata.row_group(place).total_byte_size for place in range(file.metadata.num_row_groups)]
            if sum(sizes) > _MOST_UNPACKED_BYTES or max(sizes, default=0) > _MOST_GROUP_BYTES:
                raise UsageError(
                    f"{path} unpacks to more than {_MOST_UNPACKED_BYTES >> 30} GiB, or one row group of it to more "
                    f"than {_MOST_GROUP_BYTES >> 30} GiB.\nSplit it."
                )

    def batches(self) -> Iterator[Batch]:
        """All rows in order."""
        with _translated(self._path), pq.ParquetFile(self._path) as file:
            for rows in file.iter_batches(batch_size=BATCH_ROWS):
                yield Batch(rows=rows)


class MemoryTable:
    """A pyarrow table, or columns of which one can be made."""

    label = "the table"

    def __init__(self, columns: pa.Table | Mapping[str, Sequence[object]]) -> None:
        """Raises ``UsageError`` for columns of different lengths or of mixed types."""
        try:
            self._table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise UsageError(
                f"The columns make no table: {error}.\nGive each as many cells, and of one type."
            ) from error
        self.names: Sequence[str] = self._table.column_names

    def batches(self) -> Iterator[Batch]:
        """All rows in order."""
        for rows in self._table.to_batches(max_chunksize=BATCH_ROWS):
            yield Batch(rows=rows)


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # pyarrow: pages that do not decompress
            raise UsageError(f"{path} is damaged: {error}.\nGet it again.") from error
        raise UsageError(f"{path} cannot be read: {error.strerror}.\nCheck the path and its permissions.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not in UTF-8: {error}.\nSave it in UTF-8.") from error
    except (csv.Error, pa.ArrowException) as error:
        raise UsageError(f"{path} is no intact {path.suffix[1:]} file: {error}.\nSave it again.") from error
