"""Exports are untrusted: what is damaged, false, hostile or too large is refused with the reason and the remedy."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import CorruptFile, HarnessError, RunError, UsageError
from harness.tracing.nsys_export import read_export
from tests.harness.tracing.nsys_examples import EARLY, RECENT, HandMade, global_tid

MIB = 1024**2


def small(schema: str = RECENT) -> HandMade:
    made = HandMade(schema)
    made.range("phase:decode", 0, 1_000)
    made.launched("gemm", 1, call_at=50, start=200, length=10)
    return made


def changed(folder: Path, *statements: str) -> Path:
    """The small export after some SQL."""
    path = small().write(folder / "run.sqlite")
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


def test_a_file_is_known_by_what_is_in_it_and_stays_as_it_is(tmp_path: Path) -> None:
    path = small().write(tmp_path / "a report?&mode=rw#1 %41.sqlite3")
    before = path.read_bytes()
    path.chmod(0o444)

    (process,) = read_export(path).processes

    assert [kernel.name for kernel in process.trace.kernels] == ["gemm"]
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name], "no journal, no lock"


def test_a_file_that_is_still_written_is_read_as_it_is_on_the_disk(tmp_path: Path) -> None:
    path = small().write(tmp_path / "run.sqlite")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    writer.execute("DELETE FROM CUPTI_ACTIVITY_KIND_KERNEL")

    (process,) = read_export(path).processes
    writer.close()

    assert len(process.trace.kernels) == 1


def test_a_missing_file_and_a_folder_are_mistakes_of_the_command(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.sqlite", tmp_path):
        with pytest.raises(UsageError, match="There is no file"):
            read_export(path)


def test_what_is_no_sqlite_file_is_refused_and_a_report_must_be_exported_first(tmp_path: Path) -> None:
    for content in (b"", b"SQLite format 3", b"<?xml version='1.0'?>", b"\x93NSYS report"):
        path = tmp_path / "run.nsys-rep"
        path.write_bytes(content)
        with pytest.raises(CorruptFile, match=r"run.nsys-rep is no SQLite file.*\n.*nsys export --type sqlite"):
            read_export(path)


def test_a_large_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = small().write(tmp_path / "run.sqlite")
    with path.open("ab") as file:
        file.truncate(6 * 1024 * MIB)  # sparse: takes no room

    with pytest.raises(CorruptFile, match=r"has 6144 MiB, more than the 4096 MiB .*\n.*--largest-mib"):
        read_export(path)


def test_more_events_than_allowed_are_refused_with_the_way_to_record_less(tmp_path: Path) -> None:
    path = small().write(tmp_path / "run.sqlite")

    assert read_export(path, most_events=4).processes
    with pytest.raises(CorruptFile, match=r"more than 3 events.*\n.*--nvtx-capture=trace:decode@joulegraph.*--most-ev"):
        read_export(path, most_events=3)


def test_a_database_of_something_else_is_no_export(tmp_path: Path) -> None:
    path = tmp_path / "places.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE moz_places (id INTEGER PRIMARY KEY, url TEXT)")
    connection.close()

    with pytest.raises(CorruptFile, match=r"no export of Nsight Systems: it lacks the tables StringIds and"):
        read_export(path)


@pytest.mark.parametrize("schema", [RECENT, EARLY])
def test_without_kernels_calls_or_ranges_the_error_says_which_and_how_to_record_them(
    tmp_path: Path, schema: str
) -> None:
    cases = {
        "CUPTI_ACTIVITY_KIND_KERNEL": "holds no device kernel: CUDA was not traced",
        "CUPTI_ACTIVITY_KIND_RUNTIME": "holds device kernels but no call that launched one",
        "NVTX_EVENTS": "holds no NVTX range in a process that used a GPU: NVTX was not traced",
    }
    for table, reason in cases.items():
        empty, absent = small(schema), small(schema)
        empty.rows = [row for row in empty.rows if row[0] != table]
        absent.rows = list(empty.rows)
        del absent.tables[table]
        for made in (empty, absent):
            with pytest.raises(RunError, match=rf"run.sqlite {reason}.*\nRecord it again: nsys profile --trace=cuda"):
                made.read(tmp_path)


def test_ranges_of_others_alone_are_not_enough(tmp_path: Path) -> None:
    made = HandMade(domain=None)
    made.range("forward", 0, 1_000)
    made.launched("gemm", 1, call_at=50, start=200, length=10)

    with pytest.raises(RunError, match=r"no kernel that was launched inside a range of the harness.*like 'forward'"):
        made.read(tmp_path)


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("CUPTI_ACTIVITY_KIND_KERNEL", "demangledName"),
        ("CUPTI_ACTIVITY_KIND_KERNEL", "correlationId"),
        ("CUPTI_ACTIVITY_KIND_RUNTIME", "globalTid"),
        ("NVTX_EVENTS", "eventType"),
        ("NVTX_EVENTS", "globalTid"),
        ("StringIds", "value"),
    ],
)
def test_an_older_schema_names_the_column_it_lacks(tmp_path: Path, table: str, column: str) -> None:
    path = changed(tmp_path, f"ALTER TABLE {table} RENAME COLUMN {column} TO was_{column}")

    with pytest.raises(CorruptFile, match=rf"table {table} has no column {column}, .*\n.*a later version of nsys"):
        read_export(path)


def test_columns_and_tables_of_later_versions_change_nothing(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        "ALTER TABLE NVTX_EVENTS ADD COLUMN payloadOfTomorrow BLOB",
        "ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL ADD COLUMN clusterX INTEGER DEFAULT 4",
        'CREATE TABLE "CUPTI_ACTIVITY_KIND_KERNEL; DROP TABLE StringIds" (x)',
    )

    assert len(read_export(path).processes) == 1


WRONG: dict[str, tuple[str, str, Any, str]] = {
    "kernel without time": ("CUPTI_ACTIVITY_KIND_KERNEL", "start", "soon", "its start is no whole number"),
    "kernel backwards": ("CUPTI_ACTIVITY_KIND_KERNEL", "end", 100, "its end is before its start"),
    "kernel out of time": ("CUPTI_ACTIVITY_KIND_KERNEL", "end", 2**63 - 1, "its end is out of range"),
    "broken time": ("CUPTI_ACTIVITY_KIND_KERNEL", "start", 1.5, "its start is no whole number"),
    "device below 0": ("CUPTI_ACTIVITY_KIND_KERNEL", "deviceId", -1, "its deviceId is negative"),
    "name as bytes": ("CUPTI_ACTIVITY_KIND_KERNEL", "demangledName", b"\0\1", "its demangledName is no whole number"),
    "correlation as text": (
        "CUPTI_ACTIVITY_KIND_RUNTIME",
        "correlationId",
        "x",
        "its correlationId is no whole number",
    ),
    "thread as text": ("CUPTI_ACTIVITY_KIND_RUNTIME", "globalTid", "x", "its globalTid is no whole number"),
    "call backwards": ("CUPTI_ACTIVITY_KIND_RUNTIME", "end", 0, "its end is before its start"),
    "range backwards": ("NVTX_EVENTS", "end", -1, "its end is before its start"),
    "range of no type": ("NVTX_EVENTS", "eventType", "push", "its eventType is no whole number"),
    "range named by bytes": ("NVTX_EVENTS", "text", b"phase:decode", "its text is no text"),
    "string of bytes": ("StringIds", "value", b"gemm", "its value is no text"),
}


@pytest.mark.parametrize(("table", "column", "value", "reason"), WRONG.values(), ids=WRONG.keys())
def test_a_damaged_row_is_named(tmp_path: Path, table: str, column: str, value: object, reason: str) -> None:
    path = small().write(tmp_path / "run.sqlite")
    connection = sqlite3.connect(path)
    where = "WHERE eventType = 59" if table == "NVTX_EVENTS" else ""
    connection.execute(f'UPDATE {table} SET "{column}" = ? {where}', [value])
    connection.commit()
    connection.close()

    with pytest.raises(
        CorruptFile, match=rf"run.sqlite is damaged: {reason}, in row \d+ of {table}\.\nExport it again"
    ):
        read_export(path)


ENDLESS = "WITH RECURSIVE forever(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM forever)"
KERNEL = "CUPTI_ACTIVITY_KIND_KERNEL"
HOSTILE: dict[str, tuple[str, ...]] = {
    "a view that never ends": (
        f"DROP TABLE {KERNEL}",
        f"CREATE VIEW {KERNEL} AS {ENDLESS} SELECT n AS start, n + 1 AS end, 0 AS deviceId, 0 AS streamId, "
        "1 AS correlationId, 1 AS demangledName FROM forever",
    ),
    "a view in small letters": (
        f"DROP TABLE {KERNEL}",
        f"CREATE VIEW {KERNEL.lower()} AS {ENDLESS} SELECT n AS start FROM forever",
    ),
    "a virtual table": ("DROP TABLE StringIds", "CREATE VIRTUAL TABLE StringIds USING fts5(id, value)"),
}


@pytest.mark.parametrize("statements", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_would_run_code_of_the_file_is_not_read(tmp_path: Path, statements: tuple[str, ...]) -> None:
    with pytest.raises(CorruptFile, match="is no plain table"):
        read_export(changed(tmp_path, *statements))


def test_a_column_that_is_computed_does_not_count_as_there(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        "DROP TABLE StringIds",
        "CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT GENERATED ALWAYS AS (hex(zeroblob(1e8))) VIRTUAL)",
        "INSERT INTO StringIds VALUES (1)",
    )

    with pytest.raises(CorruptFile, match="StringIds has no column value"):
        read_export(path)


def test_triggers_and_indexes_of_the_file_do_nothing(tmp_path: Path) -> None:
    path = changed(
        tmp_path,
        f"CREATE TRIGGER boom AFTER INSERT ON {KERNEL} BEGIN DELETE FROM StringIds; END",
        f"CREATE INDEX slow ON {KERNEL} (hex(start))",
    )

    assert len(read_export(path).processes) == 1


def test_a_table_that_leads_in_circles_ends(tmp_path: Path) -> None:
    """An interior page whose children are all the same leaf has more rows than the file has room for."""
    made = small()
    for correlation in range(2, 12_000):
        made.kernel("k", 10 * correlation, 5, correlation)
    path = made.write(tmp_path / "run.sqlite")
    connection = sqlite3.connect(path)
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", [KERNEL]).fetchone()
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    page = (root - 1) * size
    assert content[page] == 5, "an interior page of a table"
    cells = int.from_bytes(content[page + 3 : page + 5], "big")
    for cell in range(cells):  # each cell: page of the child, key
        at = page + int.from_bytes(content[page + 12 + 2 * cell : page + 14 + 2 * cell], "big")
        content[at : at + 4] = root.to_bytes(4, "big")
    path.write_bytes(content)

    with pytest.raises(CorruptFile, match="damaged"):
        read_export(path)


def test_more_rows_than_the_file_has_room_for_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.tracing.nsys_file._FEWEST_ROW_BYTES", 10**9)

    with pytest.raises(CorruptFile, match="has no end"):
        read_export(small().write(tmp_path / "run.sqlite"))


def test_long_names_are_cut(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 1_000)
    made.range("x" * 2 * MIB, 10, 900, registered=False)
    made.launched("k" * 2 * MIB, 1, call_at=50, start=200, length=10)

    (kernel,) = made.kernels(tmp_path)

    assert (len(kernel.name), len(kernel.ranges[1])) == (4000, 4000)


def test_text_that_is_no_utf_8_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    path = changed(tmp_path, "UPDATE StringIds SET value = CAST(x'67ff656d6d' AS TEXT) WHERE value = 'gemm'")

    (process,) = read_export(path).processes

    assert [kernel.name for kernel in process.trace.kernels] == ["g\ufffdemm"]


def test_a_name_that_is_not_in_the_file_is_a_question_mark(tmp_path: Path) -> None:
    (process,) = read_export(changed(tmp_path, "DELETE FROM StringIds WHERE value = 'gemm'")).processes

    assert [kernel.name for kernel in process.trace.kernels] == ["?"]


def test_ranges_nested_deeper_than_any_program_are_refused(tmp_path: Path) -> None:
    made = small()
    for depth in range(300):
        made.range(f"r{depth}", depth // 10, 1_000 - depth)

    with pytest.raises(
        CorruptFile, match=r"more than 256 spans are open at once on thread 4711.\nRecord it again: nsys"
    ):
        made.read(tmp_path)


def test_several_processes_without_a_process_in_the_kernels_are_refused(tmp_path: Path) -> None:
    made = small()
    made.call(1, 50, pid=9, tid=9)
    made.kernel("whose", 300, 10, 1, globalPid=None)

    with pytest.raises(CorruptFile, match=r"holds 2 processes and does not say which.*\n.*a later version of nsys"):
        made.read(tmp_path)


def test_events_of_no_thread_are_left_out(tmp_path: Path) -> None:
    made = small()
    made.range("step:1", 10, 900, globalTid=None)
    made.row("CUPTI_ACTIVITY_KIND_RUNTIME", start=1, end=2, globalTid=None, correlationId=1, nameId=1)
    made.row("CUDA_GRAPH_NODE_EVENTS", start=1, end=2, globalTid=None, graphNodeId=1)
    made.row("CUDA_GRAPH_NODE_EVENTS", start=1, end=2, globalTid=global_tid(), graphNodeId=0)

    (kernel,) = made.kernels(tmp_path)

    assert kernel.ranges == ("phase:decode",)


def test_graphs_cloned_from_each_other_end_somewhere(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 1_000)
    made.launched("gemm", 1, call_at=50, start=200, length=10, graphNodeId=5)
    for node, original in ((5, 6), (6, 5)):
        values = {"graphNodeId": node, "originalGraphNodeId": original}
        made.row("CUDA_GRAPH_NODE_EVENTS", start=1, end=2, globalTid=global_tid(), **values)

    assert [kernel.module for kernel in made.kernels(tmp_path)] == [None]


def test_half_a_file_is_refused(tmp_path: Path) -> None:
    whole = small().write(tmp_path / "whole.sqlite").read_bytes()
    path = tmp_path / "half.sqlite"
    path.write_bytes(whole[: len(whole) // 2])

    with pytest.raises(CorruptFile, match=r"half.sqlite is a damaged SQLite file \(.*\)\.\nExport it again"):
        read_export(path)


def test_a_journal_beside_the_file_is_not_played_back(tmp_path: Path) -> None:
    path = small().write(tmp_path / "run.sqlite")
    shutil.copy(path, tmp_path / "run.sqlite-wal")
    (tmp_path / "run.sqlite-journal").write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + b"\0" * 1000)

    assert len(read_export(path).processes) == 1
    assert (tmp_path / "run.sqlite-journal").exists()


def test_a_complaint_of_sqlite_that_is_no_utf_8_is_damage(tmp_path: Path) -> None:
    path = small().write(tmp_path / "run.sqlite")
    path.write_bytes(path.read_bytes().replace(b"CREATE TABLE NVTX", b"CREATE \xff\xfe\xff\xfe\xff NVTX"))

    with pytest.raises(CorruptFile, match=r"run\.sqlite is a damaged SQLite file"):
        read_export(path)


def test_no_error_of_sqlite_gets_out(tmp_path: Path) -> None:
    """Damage in every page, one after the other."""
    whole = small().write(tmp_path / "whole.sqlite").read_bytes()
    path = tmp_path / "run.sqlite"
    for page in range(0, len(whole), 4096):
        path.write_bytes(whole[:page] + b"\xff" * 64 + whole[page + 64 :])
        attempt(lambda: read_export(path))


def attempt(work: Callable[[], object]) -> None:
    try:
        work()
    except HarnessError:
        return
