"""Tables as CSV or JSON lines: every row, in batches, with its provenance."""

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from harness.dataset.export.writing import new_file
from harness.dataset.reading import Dataset
from harness.dataset.schema import Table, arrow_schema

_KEY, _PROVENANCE = "run_id", "provenance"
# What a spreadsheet would take for a formula; their full-width forms too.
_FORMULA = r"^([=+\-@\t\r＝＋－＠])"


class Lines(StrEnum):
    """Formats of one row a line."""

    CSV = "csv"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedTable:
    """One file of an export."""

    path: Path
    rows: int


def export_tables(dataset: Dataset, tables: Collection[Table], lines: Lines, out: Path) -> tuple[ExportedTable, ...]:
    """Write ``out/<table>.<format>`` for each table that has rows; null is empty in CSV and null in JSON.

    Rows that belong to a run get its ``provenance`` beside ``run_id``. In CSV a text that a spreadsheet would run as a
    formula gets an apostrophe in front. Raises ``CannotWrite``, and what reading the dataset raises.
    """
    runs = dataset.table(Table.RUNS, (_KEY, _PROVENANCE))
    written = []
    for table in tables:
        if dataset.paths(table):
            path = out / f"{table.title}.{lines}"
            with new_file(path) as file:
                rows = _write(file, lines, _schema(table), _told(table, dataset, runs))
            written.append(ExportedTable(path=path, rows=rows))
    return tuple(written)


def _schema(table: Table) -> pa.Schema:
    schema = arrow_schema(table)
    if _KEY not in schema.names or _PROVENANCE in schema.names:
        return schema
    return schema.insert(schema.get_field_index(_KEY) + 1, pa.field(_PROVENANCE, pa.string()))


def _told(table: Table, dataset: Dataset, runs: pa.Table) -> Iterator[pa.Table]:
    """The batches of a table, with the provenance of their runs."""
    schema = _schema(table)
    for batch in dataset.batches(table):
        arrow = pa.Table.from_batches([batch])
        if _PROVENANCE not in arrow.column_names and _KEY in arrow.column_names:
            places = pc.index_in(arrow.column(_KEY), runs.column(_KEY).combine_chunks())
            provenance = runs.column(_PROVENANCE).take(places)
            arrow = arrow.add_column(arrow.schema.get_field_index(_KEY) + 1, _PROVENANCE, provenance)
        yield arrow.cast(schema)


def _write(file: BinaryIO, lines: Lines, schema: pa.Schema, batches: Iterator[pa.Table]) -> int:
    return _write_csv(file, schema, batches) if lines is Lines.CSV else _write_jsonl(file, schema, batches)


def _write_csv(file: BinaryIO, schema: pa.Schema, batches: Iterator[pa.Table]) -> int:
    rows = 0
    with pacsv.CSVWriter(file, schema) as writer:
        for arrow in batches:
            writer.write_table(_harmless(arrow))
            rows += arrow.num_rows
    return rows


def _harmless(arrow: pa.Table) -> pa.Table:
    columns = [
        pc.replace_substring_regex(column, _FORMULA, r"'\1") if pa.types.is_string(column.type) else column
        for column in arrow.columns
    ]
    return pa.Table.from_arrays(columns, schema=arrow.schema)


def _write_jsonl(file: BinaryIO, schema: pa.Schema, batches: Iterator[pa.Table]) -> int:
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
    rows = 0
    for arrow in batches:
        rows_of_values = zip(*(column.to_pylist() for column in arrow.columns), strict=True)
        file.writelines(
            encode(dict(zip(schema.names, values, strict=True))).encode() + b"\n" for values in rows_of_values
        )
        rows += arrow.num_rows
    return rows
