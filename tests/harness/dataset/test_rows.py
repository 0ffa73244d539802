"""Rows become columns and come back; what a column cannot hold is refused by name."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from harness.dataset.rows import arrow_table, column_values, conformed, rows_from_values
from harness.dataset.schema import Table
from harness.errors import DatasetError
from harness.records import Measurement, RunRow

Examples = Callable[..., tuple[Measurement, ...]]


def test_rows_survive_the_way_through_arrow(example_measurements: Examples) -> None:
    for measurement in example_measurements():
        for table in Table:
            rows = table.rows_of(measurement)
            columns = [column.to_pylist() for column in arrow_table(table, rows).columns]
            back: Any = rows_from_values(table.row_class, columns)
            assert back == rows
            assert list(map(repr, back)) == list(map(repr, rows))  # enumerations are members again, not text


def test_columns_stand_in_the_order_of_the_schema(example_measurements: Examples) -> None:
    run = example_measurements()[0].run

    assert column_values(Table.RUNS, [run])[0] == [run.run_id]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"energy_j": float("nan")}, "energy_j of runs: a value is infinite or not a number"),
        ({"energy_j": float("inf")}, "energy_j of runs"),
        ({"gpu": None}, "gpu of runs: a value is null"),
        ({"batch_size": "many"}, "batch_size of runs"),
        ({"batch_size": 2**63}, "batch_size of runs"),
        ({"model": "half a pair: \ud800"}, "model of runs"),
        ({"status": "fine"}, "status of runs: 'fine' is none of ok, oom, failed, skipped"),
    ],
)
def test_a_value_no_column_can_hold_is_refused_by_name(
    example_measurements: Examples, changes: dict[str, Any], complaint: str
) -> None:
    row = replace(example_measurements()[0].run, **changes)

    with pytest.raises(DatasetError, match=complaint):
        arrow_table(Table.RUNS, [row])


def test_a_table_from_elsewhere_is_brought_into_order_and_types(example_measurements: Examples) -> None:
    fitting = arrow_table(Table.KERNELS, example_measurements()[0].kernels)
    index = fitting.schema.get_field_index("rank")
    shuffled = fitting.set_column(index, "rank", fitting.column("rank").cast(pa.int8())).select(
        list(reversed(fitting.column_names))
    )

    assert conformed(Table.KERNELS, shuffled).equals(fitting)


def test_a_table_with_missing_unknown_or_unfit_columns_is_refused(example_measurements: Examples) -> None:
    fitting = arrow_table(Table.KERNELS, example_measurements()[0].kernels)
    index = fitting.schema.get_field_index("rank")
    fractions = pa.array([0.5] * fitting.num_rows)

    with pytest.raises(DatasetError, match="column rank of kernels: missing, unknown or there twice"):
        conformed(Table.KERNELS, fitting.drop_columns(["rank"]))
    with pytest.raises(DatasetError, match="column colour of kernels"):
        conformed(Table.KERNELS, fitting.append_column("colour", fractions))
    with pytest.raises(DatasetError, match="column rank of kernels"):
        conformed(Table.KERNELS, fitting.set_column(index, "rank", fractions))


def test_text_that_is_no_choice_is_refused_when_rows_are_built(example_measurements: Examples) -> None:
    columns = [list(values) for values in column_values(Table.RUNS, [example_measurements()[0].run])]
    columns[4] = ["guessed"]

    with pytest.raises(DatasetError, match="'guessed' is none of measured, estimated, simulated, imported"):
        rows_from_values(RunRow, columns)
