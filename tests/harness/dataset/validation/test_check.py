"""What validation says of rows as a whole: all columns, comparable runs, other datasets, any change at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.dataset.schema import Table, columns_of
from harness.dataset.validation.check import validate
from harness.dataset.validation.engine import EXAMPLES
from harness.dataset.validation.findings import Severity
from harness.errors import DatasetError
from harness.records import Measurement, Provenance
from tests.harness.dataset.validation.healthy import GPU, GPU_MACHINE, own
from tests.harness.dataset.validation.mutating import Edit, change, data_file, state, write


def test_what_is_not_finite_is_found_in_every_column(folder: Path) -> None:
    places = [(table, column.name) for table in Table for column in columns_of(table) if column.scalar is float]
    tables = {table for table, _ in places}
    change(
        folder,
        *(
            Edit(table=table, values={name: float("inf") for found, name in places if found is table})
            for table in tables
        ),
    )

    report = validate(folder)

    assert {(each.table, each.column) for each in report.findings if each.rule == "not-finite"} == set(places)


def test_unknown_words_are_found_in_every_column(folder: Path) -> None:
    places = [(table, column.name) for table in Table for column in columns_of(table) if column.choices]
    edits = [Edit(table=table, values={name: "new"}) for table, name in places]
    change(folder, *edits)

    report = validate(folder)

    assert {(each.table, each.column) for each in report.findings if each.rule == "unknown-word"} == set(places)


def test_examples_are_capped_and_places_counted(folder: Path) -> None:
    change(folder, Edit(table=Table.READINGS, values={"polled_energy_j": float("nan")}))

    found = [finding for finding in validate(folder).findings if finding.rule == "not-finite"]

    rows = pq.read_metadata(data_file(folder, Table.READINGS)).num_rows
    assert len(found) == EXAMPLES
    assert [finding.row for finding in found] == list(range(EXAMPLES))
    assert {finding.count for finding in found} == {rows}


def test_the_worst_comes_first(folder: Path) -> None:
    change(
        folder,
        Edit(table=Table.RUNS, where={"run_id": "server"}, values={"ttft_s": -1.0, "lab": "Somebody"}),
    )

    severities = [finding.severity for finding in validate(folder).findings]

    assert severities == sorted(severities, key=list(Severity).index)
    assert set(severities) == {Severity.ERROR, Severity.WARNING}


def test_a_phase_unlike_all_others_of_its_gpu_is_told(tmp_path: Path) -> None:
    runs = [own(f"run-{number}", prompt_tokens=64 + number) for number in range(12)]
    folder = write(tmp_path / "dataset", runs)
    assert validate(folder).findings == ()

    # Fewer FLOP than all others, in kernels whose time is the same.
    change(folder, Edit(table=Table.KERNELS, where={"run_id": "run-3"}, values={"flop": 10**6}))
    (found,) = {(each.rule, each.column) for each in validate(folder).findings}

    assert found == ("unlike-its-gpu", "energy_j")


def test_runs_are_compared_with_those_of_another_dataset(tmp_path: Path) -> None:
    reference = write(tmp_path / "reference", [own("theirs", prompt_tokens=80)])
    mine = own("mine", prompt_tokens=80)
    folder = write(tmp_path / "dataset", [mine])
    assert validate(folder, reference=reference).findings == ()

    change(reference, Edit(table=Table.RUNS, values={"energy_j": lambda value: 1.8 * value}))
    (found,) = validate(folder, reference=reference).findings

    assert (found.rule, found.severity, found.table) == ("unlike-comparable-runs", Severity.WARNING, Table.RUNS)
    assert validate(folder).findings == ()


def test_a_reference_that_cannot_be_read_is_an_error(untouched: Path, folder: Path) -> None:
    data_file(folder, Table.RUNS).write_bytes(b"nothing")

    with pytest.raises(DatasetError, match="cannot be compared with"):
        validate(untouched, reference=folder)


def test_runs_of_different_provenance_are_never_compared(tmp_path: Path) -> None:
    measured = own("measured", prompt_tokens=80)
    simulated = as_simulated(own("simulated", prompt_tokens=80))

    assert validate(write(tmp_path / "dataset", [measured, simulated])).findings == ()


def test_simulated_runs_may_be_equal_to_the_last_digit(tmp_path: Path) -> None:
    first = as_simulated(own("first", prompt_tokens=80))
    second = renamed(first, "second")
    runs = [first, replace(second, run=replace(second.run, campaign_id="another"))]

    assert validate(write(tmp_path / "dataset", runs)).findings == ()


def test_measured_runs_equal_to_the_last_digit_are_a_copy(tmp_path: Path) -> None:
    first = own("first", prompt_tokens=80)
    second = renamed(first, "second")
    runs = [first, replace(second, run=replace(second.run, campaign_id="another"))]

    rules = {finding.rule for finding in validate(write(tmp_path / "dataset", runs)).findings}

    assert rules == {"copied-run"}


def test_joules_that_are_watt_hours_are_told_as_a_matter_of_units(folder: Path) -> None:
    def in_wh(value: float | None) -> float | None:
        return None if value is None else value / 3600

    change(
        folder,
        Edit(table=Table.RUNS, where={"run_id": "prefill"}, values={"energy_j": in_wh}),
        Edit(table=Table.PHASES, where={"run_id": "prefill"}, values={"energy_j": in_wh}),
        Edit(table=Table.READINGS, where={"run_id": "prefill"}, values={"energy_j": in_wh}),
    )

    found = [finding for finding in validate(folder).findings if finding.rule == "power-implausibly-low"]

    assert {finding.table for finding in found} == {Table.RUNS, Table.PHASES, Table.READINGS}
    assert all("Wh" in finding.reason for finding in found)


def test_seconds_that_are_milliseconds_are_told_as_a_matter_of_units(folder: Path) -> None:
    def in_ms(value: float | None) -> float | None:
        return None if value is None else value * 1000

    change(folder, Edit(table=Table.KERNELS, where={"run_id": "one"}, values={"duration_s": in_ms}))

    assert "kernels-longer-than-phase" in {finding.rule for finding in validate(folder).findings}


def test_little_memory_gives_the_same_report(folder: Path) -> None:
    assert validate(folder, memory_bytes=100_000_000) == validate(folder)


def test_a_number_that_nothing_can_be_computed_with_is_an_error(folder: Path) -> None:
    change(folder, Edit(table=Table.RUNS, where={"run_id": "one"}, values={"output_tokens": -(2**63)}))

    assert {"negative-number", "number-out-of-range"} <= {finding.rule for finding in validate(folder).errors}


CELLS = [(table, column) for table in Table for column in columns_of(table)]
STRANGE = st.sampled_from([None, "", "\x00", "\u202e", "{", "[]", "NaN", "-1", "'; DROP TABLE runs; --", "x" * 10_000])
NUMBERS = st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 10**12])
FLOATS = st.sampled_from([0.0, -0.0, -1.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf")])


@given(
    changes=st.lists(
        st.tuples(st.sampled_from(CELLS), STRANGE, NUMBERS, FLOATS, st.booleans(), st.integers(0, 100)),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_a_cell_there_is_a_report(
    folder: Path, changes: list[tuple[tuple[Table, Any], str | None, int, float, bool, int]]
) -> None:
    for (table, column), text, number, real, truth, place in changes:
        path = data_file(folder, table)
        rows = pq.read_table(path)
        values = rows.column(column.name).to_pylist()
        new = {str: text, int: number, float: real, bool: truth}[column.scalar]
        values[place % len(values)] = new if new is not None or column.nullable else "x"
        index = rows.schema.get_field_index(column.name)
        array = pa.array(values, rows.schema.field(index).type)
        pq.write_table(rows.set_column(index, rows.schema.field(index), array), path)
    state(folder)

    report = validate(folder)

    assert all(finding.reason and finding.remedy for finding in report.findings)


@given(position=st.integers(0, 10**6), bits=st.integers(1, 255), table=st.sampled_from(list(Table)))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_to_a_byte_is_told(folder: Path, position: int, bits: int, table: Table) -> None:
    path = data_file(folder, table)
    original = path.read_bytes()
    changed = bytearray(original)
    changed[position % len(changed)] ^= bits
    path.write_bytes(changed)

    errors = validate(folder).errors

    path.write_bytes(original)
    assert errors


def renamed(measurement: Measurement, name: str) -> Measurement:
    """The same numbers under another id."""

    def all_of(rows: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(replace(row, run_id=name) for row in rows)

    return replace(
        measurement,
        run=replace(measurement.run, run_id=name),
        phases=all_of(measurement.phases),
        kernels=all_of(measurement.kernels),
        kernel_energies=all_of(measurement.kernel_energies),
        readings=all_of(measurement.readings),
        power_traces=all_of(measurement.power_traces),
    )


def as_simulated(measurement: Measurement) -> Measurement:
    """The same numbers, from a virtual GPU."""
    environment = replace(
        GPU_MACHINE.environment,
        environment_id="virtual",
        gpu=f"virtual: {GPU}",
        device_name=f"VIRTUAL {GPU}",
        meter="virtual:0 (simulated)",
    )
    configuration = '{"device":"virtual:a100-sxm","quality":"standard"}'
    run = replace(
        measurement.run,
        provenance=Provenance.SIMULATED,
        environment_id="virtual",
        gpu=environment.gpu,
        method="virtual-counter",
        configuration=configuration,
        energy_j=measurement.run.energy_j,
    )
    readings = tuple(replace(row, provenance=Provenance.SIMULATED, meter="virtual:0") for row in measurement.readings)
    return replace(measurement, run=run, environment=environment, readings=readings)
