"""Tables of requests answered: every column passes through, rows keep their order, and what is predicted is added."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa

from harness.errors import UsageError
from predictor.answers import Answer, Carbon, OutputColumn, answers, output_columns
from predictor.checks import kind_of, one_line
from predictor.requests import Predictor
from predictor.table_columns import Cell, check_header
from predictor.table_reading import Batch, RequestTable, open_table
from predictor.table_rows import Asked, RequestReader
from predictor.table_writing import TableWriter

_TYPES: Final = {float: pa.float64(), bool: pa.bool_(), str: pa.string()}
_MOST_REASONS: Final = 1000  # that are told apart
_LONGEST_REASON: Final = 200  # characters, in the tally


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the rows of a table."""

    rows: int = 0
    answered: int = 0
    warned: int = 0  # of the answered
    outside: int = 0  # of the answered, far from anything learned from
    errors: Counter[str] = field(default_factory=Counter)  # by kind: without their numbers
    first: dict[str, str] = field(default_factory=dict)  # of each kind of error, with its row; rows count from 1

    def add(self, answer: Answer) -> None:
        """Count one row."""
        self.rows += 1
        if answer.prediction is not None:
            self.answered += 1
            self.warned += bool(answer.warnings)
            self.outside += not answer.prediction.in_distribution
            return
        reason = one_line(answer.error or "")
        kind = kind_of(reason)
        if kind in self.errors or len(self.errors) < _MOST_REASONS:
            self.errors[kind] += 1
            self.first.setdefault(kind, f"{_short(reason)} (first: row {self.rows:,})")


def prepare(
    table: RequestTable,
    *,
    stated: Mapping[str, Cell],
    hardware: Path | None,
    carbon: Carbon | None,
    overwrite: bool = False,
) -> RequestReader:
    """See that a table can be answered, before any predictor is loaded; raises ``UsageError``."""
    outputs = [column.name for column in output_columns(carbon)]
    check_header(table.label, table.names, tuple(stated), outputs, overwrite=overwrite)
    return RequestReader(table.names, stated=stated, hardware=hardware)


def answered(
    table: RequestTable, reader: RequestReader, predictor: Predictor, carbon: Carbon | None, tally: Tally
) -> Iterator[pa.RecordBatch]:
    """The table with its output columns, batch after batch; raises ``UsageError`` for one without rows."""
    columns = output_columns(carbon)
    for batch in table.batches():
        if batch.rows.num_rows == 0:
            continue
        found = answers(_asked(batch, reader), predictor, carbon)
        for answer in found:
            tally.add(answer)
        yield with_outputs(batch.rows, found, columns)
    if tally.rows == 0:
        raise UsageError(f"{table.label} has a header and no rows.\nAdd a row for each request.")


def write_answers(batches: Iterator[pa.RecordBatch], writer: TableWriter) -> None:
    """All batches into one file."""
    for batch in batches:
        writer.write(batch)


def _asked(batch: Batch, reader: RequestReader) -> Iterator[Asked]:
    cells = {name: _cells(name, batch.rows.column(name)) for name in reader.names}
    for place, asked in enumerate(reader.read(cells, batch.rows.num_rows)):
        problem = batch.problems.get(place)
        yield asked if problem is None else Asked(request=None, error=problem)


def _cells(name: str, column: pa.Array) -> Sequence[Cell]:
    """Numbers, texts and truths as they are, all else as text. Raises ``UsageError`` for nested values."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        raise UsageError(f"Column {name} holds {kind}.\nIt takes plain numbers and texts.")
    cells: list[Cell] = column.to_pylist()
    plain = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_string)
    if any(is_plain(kind) for is_plain in plain):
        return cells
    return [None if cell is None else str(cell) for cell in cells]


def with_outputs(rows: pa.RecordBatch, found: Sequence[Answer], columns: Sequence[OutputColumn]) -> pa.RecordBatch:
    """Rows with their answers; a column of the same name gives way."""
    ours = {column.name for column in columns}
    kept = [place for place, name in enumerate(rows.schema.names) if name not in ours]
    fields = [rows.schema.field(place) for place in kept]
    arrays = [rows.column(place) for place in kept]
    for column in columns:
        kind = _TYPES[column.kind]
        fields.append(pa.field(column.name, kind))
        arrays.append(pa.array([column.value(answer) for answer in found], kind))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields, metadata=rows.schema.metadata))


def tally_text(tally: Tally, where: str, most: int = 5) -> str:
    """What became of the rows, for people; the commonest errors with the first row that has each."""
    noun = "row" if tally.rows == 1 else "rows"
    lines = [
        f"{tally.rows:,} {noun}: {tally.answered:,} answered ({tally.warned:,} with a warning, {tally.outside:,} "
        f"not in distribution), {tally.rows - tally.answered:,} without an answer → {where}"
    ]
    lines += [f"  {times:,} × {tally.first[kind]}" for kind, times in tally.errors.most_common(most)]
    if len(tally.errors) > most:
        lines.append(f"  and {len(tally.errors) - most:,} other reasons, in the column error")
    return "\n".join(lines) + "\n"


def _short(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"


__all__ = ["Tally", "answered", "open_table", "prepare", "tally_text", "with_outputs", "write_answers"]
