"""What is wrong with files is said of the file, and no file can make validation read more than its limits."""

import json
import os
import shutil
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.dataset.files import check_file
from harness.dataset.manifest import MANIFEST
from harness.dataset.schema import VERSION_KEY, Table, arrow_schema
from harness.dataset.store import DatasetStore
from harness.dataset.validation.check import validate
from harness.dataset.validation.findings import Finding, Severity
from harness.dataset.validation.limits import Limits
from harness.errors import DatasetError
from tests.harness.dataset.validation.healthy import healthy
from tests.harness.dataset.validation.mutating import data_file, state


def found(folder: Path, rule: str, limits: Limits = Limits()) -> Finding:  # noqa: B008
    report = validate(folder, limits=limits)
    return next(finding for finding in report.findings if finding.rule == rule)


def test_a_folder_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no dataset"):
        validate(tmp_path)


def test_a_campaign_that_is_still_at_work_is_validated(tmp_path: Path) -> None:
    store = DatasetStore.open(tmp_path)
    for measurement in healthy():
        store.append(measurement)

    report = validate(tmp_path)

    assert [finding.rule for finding in report.findings] == ["dataset-not-closed"]
    assert next(each.rows for each in report.rows if each.table is Table.RUNS) == 7


def test_what_an_interruption_left_over_is_not_looked_at(folder: Path) -> None:
    leftover = data_file(folder, Table.KERNELS).with_name("part-nobody.parquet")
    pq.write_table(pq.read_table(data_file(folder, Table.KERNELS)), leftover)

    assert validate(folder).findings == ()


def test_a_truncated_file_is_named_and_rules_that_need_it_are_not_asked(folder: Path) -> None:
    path = data_file(folder, Table.KERNELS)
    path.write_bytes(path.read_bytes()[:-100])
    state_without(folder, Table.KERNELS)

    report = validate(folder)

    damaged = next(finding for finding in report.errors if finding.rule == "file-damaged")
    assert (damaged.table, damaged.row) == (Table.KERNELS, None)
    assert damaged.file == path.relative_to(folder).as_posix()
    assert {finding.rule for finding in report.findings} == {"file-damaged", "rules-not-asked"}


def test_a_page_that_does_not_decompress_is_damage(folder: Path) -> None:
    path = data_file(folder, Table.READINGS)
    content = bytearray(path.read_bytes())
    content[200:1200] = bytes(1000)
    path.write_bytes(content)
    state(folder)

    assert found(folder, "file-damaged").table is Table.READINGS


def test_a_footer_that_one_reader_of_parquet_accepts_and_the_other_does_not_is_damage(folder: Path) -> None:
    path = data_file(folder, Table.POWER_TRACES)
    original = path.read_bytes()
    footer_bytes = int.from_bytes(original[-8:-4], "little")
    for position in range(len(original) - 8 - footer_bytes, len(original) - 8):
        changed = bytearray(original)
        changed[position] ^= 1
        path.write_bytes(changed)
        if accepted_by_arrow(path) and not accepted_by_duckdb(path):
            break
    else:
        pytest.skip("these versions of pyarrow and DuckDB agree on every footer")
    state(folder)

    report = validate(folder)

    assert {finding.rule for finding in report.findings} == {"file-damaged", "rules-not-asked"}
    assert report.errors[0].table is Table.POWER_TRACES


def accepted_by_arrow(path: Path) -> bool:
    try:
        check_file(path, Table.POWER_TRACES)
    except DatasetError:
        return False
    return True


def accepted_by_duckdb(path: Path) -> bool:
    try:
        duckdb.execute("SELECT * FROM read_parquet(?) LIMIT 0", [str(path)])
    except duckdb.Error:
        return False
    return True


def test_text_that_is_no_utf8_is_damage(folder: Path) -> None:
    path = data_file(folder, Table.RUNS)
    rows = pq.read_table(path)
    place = rows.schema.get_field_index("clipped")
    broken = pa.array([b"\xff\xfe"] * rows.num_rows, pa.binary()).view(pa.string())
    pq.write_table(rows.set_column(place, rows.schema.field(place), broken), path)
    state(folder)

    assert "UTF" in found(folder, "file-damaged").reason


def test_other_columns_are_no_table(folder: Path) -> None:
    path = data_file(folder, Table.RUNS)
    pq.write_table(pq.read_table(path).drop_columns(["model"]), path)
    state(folder)

    assert "columns of runs" in found(folder, "file-damaged").reason


def test_a_later_schema_asks_for_an_update(folder: Path) -> None:
    path = data_file(folder, Table.RUNS)
    pq.write_table(pq.read_table(path).replace_schema_metadata({VERSION_KEY: b"99"}), path)
    state(folder)

    assert "99" in found(folder, "newer-schema").reason


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(file_bytes=1000), "at most 1000 are read"),
        (Limits(footer_bytes=100), "a footer of"),
        (Limits(row_group_bytes=100), "a row group of"),
        (Limits(table_rows=5), "at most 5 are read"),
        (Limits(table_bytes=1000), "uncompressed"),
        (Limits(files=3), "more than 3 files"),
    ],
    ids=str,
)
def test_more_than_the_limits_is_refused_before_it_is_read(folder: Path, limits: Limits, reason: str) -> None:
    assert reason in found(folder, "file-too-large", limits).reason


def test_many_row_groups_are_refused(folder: Path) -> None:
    path = data_file(folder, Table.READINGS)
    pq.write_table(pq.read_table(path), path, row_group_size=1)
    state(folder)

    assert "row groups" in found(folder, "file-too-large", Limits(row_groups=10)).reason


def test_limits_that_let_nothing_through_are_refused() -> None:
    with pytest.raises(ValueError, match="files is 0"):
        Limits(files=0)


def test_a_text_that_is_too_long_is_refused_before_other_rules_hold_it(folder: Path) -> None:
    report = validate(folder, limits=Limits(text_bytes=20))

    assert {finding.rule for finding in report.findings} == {"text-too-long", "rules-not-asked"}


def test_a_text_that_is_written_once_and_meant_often_is_refused_before_it_is_held(folder: Path) -> None:
    path = data_file(folder, Table.SOURCES)
    rows = pq.read_table(path)
    place = rows.schema.get_field_index("title")
    many = rows.take(pa.array([0] * 10_000))
    title = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000, pa.int32()), pa.array(["x" * 1_000_000]))
    field = pa.field("title", title.type, nullable=False)
    bomb = many.set_column(place, field, title)
    pq.write_table(bomb, path, dictionary_pagesize_limit=2**24, store_schema=False)
    state(folder)

    assert path.stat().st_size < 1_000_000
    assert "written out takes 10000000000 bytes" in found(folder, "file-too-large").reason


def test_a_pipe_is_no_data_file(folder: Path) -> None:
    os.mkfifo(folder / "data" / "runs" / "data-00009.parquet")

    assert found(folder, "file-irregular").file == "data/runs/data-00009.parquet"


def test_a_link_is_told(folder: Path, tmp_path: Path) -> None:
    path = data_file(folder, Table.RUNS)
    shutil.move(path, tmp_path / "elsewhere.parquet")
    path.symlink_to(tmp_path / "elsewhere.parquet")

    report = validate(folder)

    assert [(finding.rule, finding.severity) for finding in report.findings] == [("file-linked", Severity.WARNING)]


def test_a_stray_file_is_noted(folder: Path) -> None:
    (folder / "data" / "runs" / "notes.txt").write_text("mine")
    (folder / "data" / "runs" / "data-[0].parquet").write_text("mine")

    noted = {finding.file for finding in validate(folder).findings if finding.rule == "file-unknown"}

    assert noted == {"data/runs/notes.txt", "data/runs/data-[0].parquet"}


@pytest.mark.parametrize(
    ("key", "value", "column"), [("sha256", "0" * 64, "sha256"), ("rows", 6, "rows"), ("bytes", 6, "bytes")]
)
def test_the_manifest_is_held_against_the_files(folder: Path, key: str, value: object, column: str) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][0][key] = value
    (folder / MANIFEST).write_text(json.dumps(manifest))

    contradicted = found(folder, "manifest-contradicted")

    assert (contradicted.table, contradicted.column) == (Table.RUNS, column)
    assert contradicted.file == manifest["files"][0]["path"]


def test_a_listed_file_that_is_gone_is_told(folder: Path) -> None:
    path = data_file(folder, Table.PHASES)
    path.unlink()

    report = validate(folder)

    assert {finding.rule for finding in report.findings} == {"manifest-contradicted", "rules-not-asked"}


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 1}', "[" * 100_000])
def test_a_manifest_that_is_none_is_told(folder: Path, text: str) -> None:
    (folder / MANIFEST).write_text(text)

    assert found(folder, "manifest-damaged").file == MANIFEST


def test_a_manifest_of_a_later_version_asks_for_an_update(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | {"schema_version": 99}
    (folder / MANIFEST).write_text(json.dumps(manifest))

    assert found(folder, "newer-schema").file == MANIFEST


def test_runs_that_the_manifest_forgot_are_told(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"files": []}))

    assert "does not list" in found(folder, "manifest-damaged").reason


def test_a_folder_may_be_called_anything(untouched: Path, tmp_path: Path) -> None:
    odd = tmp_path / "odd * [name] 'quoted' \"twice\" ü"
    shutil.copytree(untouched, odd)

    assert validate(odd).findings == ()


def test_an_empty_table_is_no_fault(folder: Path) -> None:
    path = data_file(folder, Table.POWER_TRACES)
    pq.write_table(arrow_schema(Table.POWER_TRACES).empty_table(), path)
    state(folder)

    assert validate(folder).findings == ()


def state_without(folder: Path, table: Table) -> None:
    """State the files as they are, but for one that cannot be read: its size and hash only."""
    path = data_file(folder, table)
    content = path.read_bytes()
    manifest = json.loads((folder / MANIFEST).read_text())
    for listed in manifest["files"]:
        if listed["table"] == table.title:
            listed["bytes"] = len(content)
    (folder / MANIFEST).write_text(json.dumps(manifest))
