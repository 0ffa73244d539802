"""The schema of the dataset, derived from the row classes of ``harness.records``.

``Table`` is the one place that says which table holds which row class and where a measurement carries those rows.
``python -m harness.dataset.schema`` prints the documentation of all columns as Markdown.
"""

import sys
from dataclasses import dataclass, fields
from enum import Enum, StrEnum
from functools import cache
from types import NoneType
from typing import Annotated, TypeVar, get_args, get_origin, get_type_hints

import pyarrow as pa

from harness.dataset.pooling import __doc__ as pooling_text
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

Row = (
    RunRow
    | PhaseRow
    | KernelRow
    | KernelEnergyRow
    | GraphRow
    | ReadingRow
    | RankTimeRow
    | PowerTraceRow
    | EnvironmentRow
    | SourceRow
)
RowT = TypeVar(
    "RowT",
    RunRow,
    PhaseRow,
    KernelRow,
    KernelEnergyRow,
    GraphRow,
    ReadingRow,
    RankTimeRow,
    PowerTraceRow,
    EnvironmentRow,
    SourceRow,
)
Scalar = str | int | float | bool | None

_ARROW_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
VERSION_KEY = b"joulegraph_schema_version"


class Table(Enum):
    """Every table: its name, the class of its rows, the attribute of ``Measurement`` that carries them, its key."""

    RUNS = ("runs", RunRow, "run", None)
    PHASES = ("phases", PhaseRow, "phases", None)
    KERNELS = ("kernels", KernelRow, "kernels", None)
    KERNEL_ENERGIES = ("kernel_energies", KernelEnergyRow, "kernel_energies", None)
    GRAPHS = ("graphs", GraphRow, "graphs", "graph_id")
    READINGS = ("readings", ReadingRow, "readings", None)
    RANK_TIMES = ("rank_times", RankTimeRow, "rank_times", None)
    POWER_TRACES = ("power_traces", PowerTraceRow, "power_traces", None)
    ENVIRONMENTS = ("environments", EnvironmentRow, "environment", "environment_id")
    SOURCES = ("sources", SourceRow, "source", "source")

    def __init__(self, title: str, row_class: type[Row], attribute: str, shared_key: str | None) -> None:
        self.title = title
        self.row_class = row_class
        self.attribute = attribute
        self.shared_key = shared_key  # column by which rows are stored once, however many runs bring them

    def rows_of(self, measurement: Measurement) -> tuple[Row, ...]:
        """Rows that a measurement adds to this table."""
        found: Row | tuple[Row, ...] | None = getattr(measurement, self.attribute)
        if found is None:
            return ()
        return found if isinstance(found, tuple) else (found,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column as its row class declares it."""

    name: str
    scalar: (
        type[str] | type[int] | type[float] | type[bool]
    )  # what the values are once enumerations are written as text
    choices: type[StrEnum] | None
    nullable: bool
    description: str


def table_of(row_class: type[Row]) -> Table:
    """The table that holds rows of this class."""
    return next(table for table in Table if table.row_class is row_class)


@cache
def columns_of(table: Table) -> tuple[Column, ...]:
    """Columns of a table, in order."""
    hints = get_type_hints(table.row_class, include_extras=True)
    return tuple(_column(field.name, hints[field.name]) for field in fields(table.row_class))


@cache
def arrow_schema(table: Table) -> pa.Schema:
    """Arrow schema of a table: types, which columns may be null, each column's text as ``description``."""
    columns = [
        pa.field(
            column.name, _ARROW_TYPES[column.scalar], column.nullable, {"description": column.description.encode()}
        )
        for column in columns_of(table)
    ]
    return pa.schema(columns, metadata={VERSION_KEY: str(SCHEMA_VERSION).encode()})


def markdown() -> str:
    """The documentation of all tables and columns, as published with the data."""
    sections = [_table_markdown(table) for table in Table]
    pooling = f"## Pooling\n\n{pooling_text}"
    return "\n".join([_HEADER.format(version=SCHEMA_VERSION), *sections, pooling])


_HEADER = """# Schema, version {version}

Written by `python -m harness.dataset.schema > dataset_card/schema.md`; do not edit.

Energies are joules summed over the GPUs in use unless a column says otherwise. Null means "not known" and is never
written as 0. Units are part of the column names: `_j` joules, `_s` seconds, `_w` watts, `_bytes` bytes,
`_mhz` megahertz, `_c` degrees Celsius, `flop` floating-point operations.
"""


def _column(name: str, hint: object) -> Column:
    if get_origin(hint) is not Annotated:
        raise TypeError(f"column {name} has no description: annotate it as Annotated[type, 'text']")
    declared, description = get_args(hint)
    kinds = [kind for kind in get_args(declared) or (declared,) if kind is not NoneType]
    choices = kinds[0] if issubclass(kinds[0], StrEnum) else None
    return Column(
        name=name,
        scalar=str if choices else kinds[0],
        choices=choices,
        nullable=NoneType in get_args(declared),
        description=description,
    )


def _table_markdown(table: Table) -> str:
    lines = [f"## `{table.title}`\n", (table.row_class.__doc__ or "") + "\n", "| column | type | null | meaning |"]
    lines.append("|---|---|---|---|")
    for column in columns_of(table):
        kind = " · ".join(f"`{choice}`" for choice in column.choices) if column.choices else column.scalar.__name__
        meaning = column.description.replace("|", "\\|")
        lines.append(f"| `{column.name}` | {kind} | {'yes' if column.nullable else 'no'} | {meaning} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.stdout.write(markdown())
