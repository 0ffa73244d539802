"""A measurement survives the way from the worker; anything else is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.dataset.schema import Column, Table, columns_of
from harness.dataset.transport import measurement_from_json, measurement_to_json
from harness.errors import CorruptFile, DatasetError, NewerSchema
from harness.records import Measurement

Examples = Callable[..., tuple[Measurement, ...]]
SCALARS: dict[type, st.SearchStrategy[Any]] = {
    str: st.text(st.characters(codec="utf-8")),
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
}


def values_of(column: Column) -> st.SearchStrategy[Any]:
    values = st.sampled_from(column.choices) if column.choices else SCALARS[column.scalar]
    return st.none() | values if column.nullable else values


def rows_in(table: Table) -> st.SearchStrategy[Any]:
    return st.builds(table.row_class, **{column.name: values_of(column) for column in columns_of(table)})


def tuples_in(table: Table) -> st.SearchStrategy[Any]:
    return st.lists(rows_in(table), max_size=2).map(tuple)


MEASUREMENTS = st.builds(
    Measurement,
    run=rows_in(Table.RUNS),
    environment=st.none() | rows_in(Table.ENVIRONMENTS),
    phases=tuples_in(Table.PHASES),
    kernels=tuples_in(Table.KERNELS),
    kernel_energies=tuples_in(Table.KERNEL_ENERGIES),
    graphs=tuples_in(Table.GRAPHS),
    readings=tuples_in(Table.READINGS),
    rank_times=tuples_in(Table.RANK_TIMES),
    power_traces=tuples_in(Table.POWER_TRACES),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(MEASUREMENTS)
def test_a_measurement_survives_the_way(measurement: Measurement) -> None:
    back = measurement_from_json(measurement_to_json(measurement))

    assert back == measurement
    assert repr(back.run) == repr(measurement.run)  # enumerations are members, numbers keep their type


def test_the_examples_survive_the_way_on_one_line(example_measurements: Examples) -> None:
    for measurement in example_measurements():
        text = measurement_to_json(measurement)
        assert "\n" not in text
        assert measurement_from_json(text) == measurement


def test_a_whole_number_in_a_column_of_floats_is_a_number(example_measurements: Examples) -> None:
    measurement = example_measurements()[0]
    whole = replace(measurement, run=replace(measurement.run, energy_j=7))

    back = measurement_from_json(measurement_to_json(whole))

    assert repr(back.run.energy_j) == "7.0"


@given(st.text() | JSON.map(json.dumps))
def test_no_other_text_does_more_than_be_refused(text: str) -> None:
    with pytest.raises(CorruptFile, match="same command again"):
        measurement_from_json(text)


@given(
    st.sampled_from([(table, column) for table in Table for column in columns_of(table)]),
    JSON | st.lists(JSON, max_size=3),
)
def test_a_column_of_anything_is_read_faithfully_or_refused(
    example_measurements: Examples, place: tuple[Table, Column], value: Any
) -> None:
    table, column = place
    fields = json.loads(measurement_to_json(example_measurements()[1]))
    fields["tables"][table.title][column.name] = value
    try:
        measurement = measurement_from_json(json.dumps(fields))
    except CorruptFile:
        return
    assert json.loads(measurement_to_json(measurement))["tables"][table.title][column.name] == value


def damage(measurement: Measurement, table: str, column: str, value: Any) -> str:
    fields = json.loads(measurement_to_json(measurement))
    fields["tables"][table][column] = value
    return json.dumps(fields)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("energy_j", [float("nan")], "NaN"),
        ("energy_j", [float("-inf")], "Infinity"),
        ("energy_j", ["12"], "energy_j of runs holds str"),
        ("energy_j", [True], "energy_j of runs holds bool"),
        ("batch_size", [1.0], "batch_size of runs holds float"),
        ("batch_size", [True], "batch_size of runs holds bool"),
        ("n_gpus", [None], "n_gpus of runs holds NoneType"),
        ("batch_size", [2**63], "batch_size of runs holds more than 64 bits"),
        ("batch_size", 4, "batch_size of runs is no list"),
        ("batch_size", [4, 4], "columns of runs differ in length"),
        ("status", ["fine"], "status of runs: 'fine' is none of"),
        ("model", ["\ud800"], "surrogates not allowed"),
        ("colour", ["blue"], "missing or unknown keys in runs: colour"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_name(
    example_measurements: Examples, column: str, value: Any, complaint: str
) -> None:
    with pytest.raises(CorruptFile, match=complaint):
        measurement_from_json(damage(example_measurements()[0], "runs", column, value))


def test_a_number_too_large_to_be_finite_is_refused(example_measurements: Examples) -> None:
    text = damage(example_measurements()[0], "runs", "energy_j", [1.5]).replace(
        '"energy_j": [1.5]', '"energy_j": [1e999]'
    )

    with pytest.raises(CorruptFile, match="energy_j of runs holds a number that is not finite"):
        measurement_from_json(text)


def test_missing_and_repeated_keys_are_refused(example_measurements: Examples) -> None:
    text = measurement_to_json(example_measurements()[0])
    fields = json.loads(text)
    del fields["tables"]["runs"]["gpu"]

    with pytest.raises(CorruptFile, match="missing or unknown keys in runs: gpu"):
        measurement_from_json(json.dumps(fields))
    with pytest.raises(CorruptFile, match="a key is there twice"):
        measurement_from_json(text.replace('{"schema_version":1', '{"schema_version":1,"schema_version":1', 1))


def test_two_runs_in_one_measurement_are_refused(example_measurements: Examples) -> None:
    fields = json.loads(measurement_to_json(example_measurements()[0]))
    fields["tables"]["runs"] = {name: values * 2 for name, values in fields["tables"]["runs"].items()}

    with pytest.raises(CorruptFile, match="one run"):
        measurement_from_json(json.dumps(fields))


def test_text_that_breaks_off_is_refused(example_measurements: Examples) -> None:
    text = measurement_to_json(example_measurements()[0])

    with pytest.raises(CorruptFile):
        measurement_from_json(text[: len(text) // 2])


def test_a_measurement_of_a_later_version_is_refused_by_version() -> None:
    with pytest.raises(NewerSchema, match="schema version 2"):
        measurement_from_json('{"schema_version": 2, "shards": {}}')


def test_a_number_that_is_none_at_all_is_not_sent(example_measurements: Examples) -> None:
    measurement = example_measurements()[0]

    with pytest.raises(DatasetError, match="None"):
        measurement_to_json(replace(measurement, run=replace(measurement.run, energy_j=float("nan"))))
