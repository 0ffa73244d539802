"""Tables as CSV and JSON lines lose nothing, run nothing, and say how each number came about."""

import csv
import io
import json
from pathlib import Path

import pytest

from harness.dataset.export.tables import Lines, export_tables
from harness.dataset.export.writing import check_out
from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.schema import Table
from harness.errors import CannotWrite, UsageError
from tests.harness.dataset.release.releasable import dataset, own_run, served_run

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "＝1")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    runs = [own_run(0), own_run(1, cuda=False), served_run(0)]
    runs += [own_run(2 + place, model=text) for place, text in enumerate(FORMULAS)]
    runs.append(own_run(9, model='say "x", y\nz'))
    return open_dataset(dataset(tmp_path_factory.mktemp("export") / "a", runs))


def test_json_lines_are_the_rows_with_null_for_what_is_not_known(opened: Dataset, tmp_path: Path) -> None:
    written = export_tables(opened, [Table.RUNS, Table.GRAPHS], Lines.JSONL, tmp_path)

    assert [(table.path.name, table.rows) for table in written] == [("runs.jsonl", 10)]  # there are no graphs
    found = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert found == opened.table(Table.RUNS).to_pylist()


def test_csv_reads_back_and_null_is_empty_not_zero(opened: Dataset, tmp_path: Path) -> None:
    export_tables(opened, [Table.RUNS], Lines.CSV, tmp_path)

    found = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text(encoding="utf-8"), newline="")))
    rows = {row["run_id"]: row for row in opened.table(Table.RUNS).to_pylist()}
    assert len(found) == 10
    for line in found:
        row = rows[line["run_id"]]
        assert [line[name] == "" for name in row] == [value is None for value in row.values()]
        assert float(line["energy_j"]) == row["energy_j"]
        assert line["kv_cache"] == ("" if row["kv_cache"] is None else str(row["kv_cache"]).lower())
    assert 'say "x", y\nz' in {line["model"] for line in found}


def test_no_cell_of_a_csv_begins_like_a_formula(opened: Dataset, tmp_path: Path) -> None:
    export_tables(opened, [Table.RUNS], Lines.CSV, tmp_path)

    models = {line["model"] for line in csv.DictReader((tmp_path / "runs.csv").open(encoding="utf-8", newline=""))}
    assert {f"'{text}" for text in FORMULAS} <= models
    assert not models & set(FORMULAS)


@pytest.mark.parametrize("lines", list(Lines))
def test_rows_of_a_run_carry_its_provenance(opened: Dataset, tmp_path: Path, lines: Lines) -> None:
    tables = [Table.PHASES, Table.KERNELS, Table.KERNEL_ENERGIES, Table.READINGS]
    export_tables(opened, tables, lines, tmp_path)

    known = {row["run_id"]: row["provenance"] for row in opened.table(Table.RUNS).to_pylist()}
    for table in tables:
        path = tmp_path / f"{table.title}.{lines}"
        text = path.read_text(encoding="utf-8")
        rows = (
            list(csv.DictReader(io.StringIO(text))) if lines is Lines.CSV else list(map(json.loads, text.splitlines()))
        )
        assert len(rows) == opened.table(table).num_rows
        assert all(row["provenance"] == known[row["run_id"]] for row in rows)
        assert {"measured", "estimated"} == {row["provenance"] for row in rows}


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")

    with pytest.raises(UsageError, match="not an empty folder"):
        check_out(tmp_path)
    check_out(tmp_path / "new")


def test_a_path_that_cannot_be_written_is_told(opened: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(CannotWrite, match="cannot be written"):
        export_tables(opened, [Table.RUNS], Lines.CSV, tmp_path / "file")
