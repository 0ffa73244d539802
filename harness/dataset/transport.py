"""A measurement as text, from the worker process that made it to the campaign that stores it.

The text is JSON: the schema version, and for each table its columns as lists, in the names of the schema. Columns
rather than rows, because a list of one type is checked at the speed of C.
"""

import json
import math
from types import NoneType
from typing import Any, NoReturn

from harness.dataset.rows import column_values, rows_from_values
from harness.dataset.schema import Column, RowT, Scalar, Table, columns_of, table_of
from harness.errors import CorruptFile, DatasetError, NewerSchema
from harness.records import (
    SCHEMA_VERSION,
    EnvironmentRow,
    GraphRow,
    KernelEnergyRow,
    KernelRow,
    Measurement,
    PhaseRow,
    PowerTraceRow,
    RankTimeRow,
    ReadingRow,
    RunRow,
    SourceRow,
)

_KEYS = ("schema_version", "tables")
_TITLES = tuple(table.title for table in Table)
_LEAST_INT64, _LARGEST_INT64 = -(2**63), 2**63 - 1


def measurement_to_json(measurement: Measurement) -> str:
    """Write a measurement on one line; raises ``DatasetError`` where a number is infinite or not a number."""
    tables = {}
    for table in Table:
        columns = zip(columns_of(table), column_values(table, table.rows_of(measurement)), strict=True)
        tables[table.title] = {column.name: values for column, values in columns}
    try:
        return json.dumps({"schema_version": SCHEMA_VERSION, "tables": tables}, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise DatasetError(
            f"run {measurement.run.run_id} has a value that cannot be stored: {error}.\n"
            f"A number that is not known is None; find where this one was computed."
        ) from error


def measurement_from_json(text: str) -> Measurement:
    """Inverse of ``measurement_to_json``.

    Raises ``CorruptFile`` for anything else: missing, unknown or repeated keys, wrong types, numbers that are not
    finite, columns of different lengths; and ``NewerSchema``.
    """
    try:
        return _measurement(json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse))
    except NewerSchema:
        raise
    except (ValueError, RecursionError, OverflowError, DatasetError) as error:
        raise CorruptFile(
            f"A worker handed over something that is no measurement: {error}\n"
            f"Nothing of it was stored. Run the same command again to repeat the run."
        ) from error


def _measurement(fields: Any) -> Measurement:
    _expect(isinstance(fields, dict) and "schema_version" in fields, "it has no schema_version")
    version = fields["schema_version"]
    if type(version) is int and version > SCHEMA_VERSION:
        raise NewerSchema(
            f"A worker handed over a measurement of schema version {version}; this harness reads up to "
            f"{SCHEMA_VERSION}.\nInstall the same version for the campaign and its workers."
        )
    _expect(type(version) is int and version >= 1, f"schema_version is {version!r}")
    _expect_keys(fields, _KEYS, "the measurement")
    tables = fields["tables"]
    _expect_keys(tables, _TITLES, "tables")
    runs = _rows(RunRow, tables)
    environments = _rows(EnvironmentRow, tables)
    sources = _rows(SourceRow, tables)
    _expect(
        len(runs) == 1 and len(environments) <= 1 and len(sources) <= 1,
        "a measurement is of one run in at most one environment, from at most one source",
    )
    return Measurement(
        run=runs[0],
        environment=environments[0] if environments else None,
        source=sources[0] if sources else None,
        phases=_rows(PhaseRow, tables),
        kernels=_rows(KernelRow, tables),
        kernel_energies=_rows(KernelEnergyRow, tables),
        graphs=_rows(GraphRow, tables),
        readings=_rows(ReadingRow, tables),
        rank_times=_rows(RankTimeRow, tables),
        power_traces=_rows(PowerTraceRow, tables),
    )


def _rows(row_class: type[RowT], tables: dict[str, Any]) -> tuple[RowT, ...]:
    table = table_of(row_class)
    columns = columns_of(table)
    given = tables[table.title]
    _expect_keys(given, tuple(column.name for column in columns), table.title)
    values = [_values(table, column, given[column.name]) for column in columns]
    _expect(len({len(column) for column in values}) == 1, f"the columns of {table.title} differ in length")
    return rows_from_values(row_class, values)


def _values(table: Table, column: Column, values: Any) -> list[Scalar]:
    """The values of a column, once all have its type and can be stored."""
    where = f"{column.name} of {table.title}"
    _expect(isinstance(values, list), f"{where} is no list")
    found = set(map(type, values))
    if column.scalar is float and int in found:  # a whole number is a number too
        values = [float(value) if type(value) is int else value for value in values]
        found = set(map(type, values))
    wrong = found - {column.scalar} - ({NoneType} if column.nullable else set())
    _expect(not wrong, f"{where} holds {', '.join(sorted(kind.__name__ for kind in wrong))}")
    known = values if NoneType not in found else [value for value in values if value is not None]
    if column.scalar is float:
        _expect(all(map(math.isfinite, known)), f"{where} holds a number that is not finite")
    elif column.scalar is int and known:
        _expect(min(known) >= _LEAST_INT64 and max(known) <= _LARGEST_INT64, f"{where} holds more than 64 bits")
    elif column.scalar is str:
        "".join(known).encode()  # raises ValueError for halves of surrogate pairs, which no file can hold
    return values  # type: ignore[no-any-return]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    _expect(len(fields) == len(pairs), "a key is there twice")
    return fields


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number that can be stored")


def _expect_keys(fields: Any, keys: tuple[str, ...], what: str) -> None:
    _expect(isinstance(fields, dict), f"{what} is no JSON object")
    wrong = sorted(set(fields) ^ set(keys))
    _expect(not wrong, f"missing or unknown keys in {what}: {', '.join(wrong)}")


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)
