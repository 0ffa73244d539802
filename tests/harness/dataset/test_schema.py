"""The Arrow schemas say what the row classes say."""

from dataclasses import fields
from pathlib import Path

import pyarrow as pa

from harness.dataset.schema import Table, arrow_schema, columns_of, markdown, table_of
from harness.records import KernelRow, Measurement, Provenance, RunRow

PUBLISHED = Path(__file__).resolve().parents[3] / "dataset_card" / "schema.md"


def test_every_part_of_a_measurement_has_a_table() -> None:
    assert {table.attribute for table in Table} == {field.name for field in fields(Measurement)}


def test_the_tables_are_those_of_the_published_schema() -> None:
    assert [table.title for table in Table] == [
        "runs",
        "phases",
        "kernels",
        "kernel_energies",
        "graphs",
        "readings",
        "rank_times",
        "power_traces",
        "environments",
        "sources",
    ]


def test_a_row_class_leads_to_its_table() -> None:
    assert [table_of(table.row_class) for table in Table] == list(Table)


def test_types_and_nulls_follow_the_annotations() -> None:
    schema = arrow_schema(Table.KERNELS)

    assert schema.names == [field.name for field in fields(KernelRow)]
    assert schema.field("run_id").equals(pa.field("run_id", pa.string(), nullable=False))
    assert schema.field("phase").equals(pa.field("phase", pa.string(), nullable=True))
    assert schema.field("launches").equals(pa.field("launches", pa.int64(), nullable=False))
    assert schema.field("duration_s").equals(pa.field("duration_s", pa.float64(), nullable=True))
    assert arrow_schema(Table.RUNS).field("kv_cache").equals(pa.field("kv_cache", pa.bool_(), nullable=True))


def test_the_text_beside_a_column_travels_in_the_schema() -> None:
    description = arrow_schema(Table.KERNELS).field("rank").metadata[b"description"]

    assert description.decode() == "0 … ranks − 1"


def test_an_enumeration_is_text_with_known_choices() -> None:
    column = next(column for column in columns_of(Table.RUNS) if column.name == "provenance")

    assert (column.scalar, column.choices, column.nullable) == (str, Provenance, False)
    assert table_of(RunRow) is Table.RUNS


def test_the_published_schema_page_is_up_to_date() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == markdown(), (
        "dataset_card/schema.md is stale; rewrite it with: python -m harness.dataset.schema > dataset_card/schema.md"
    )
