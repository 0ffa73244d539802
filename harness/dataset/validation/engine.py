"""Asking rules of a dataset through DuckDB: one pass over a relation for all its rules, then examples of what broke.

Memory is bounded: DuckDB streams the files, and what does not fit spills into a temporary folder.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from harness.dataset.queries import ROOT
from harness.dataset.schema import Table, arrow_schema, columns_of
from harness.dataset.validation.devices import MOST_NAMES, hardware_table, peaks_table
from harness.dataset.validation.facts import FactTable
from harness.dataset.validation.files import DAMAGED, NOT_COMPUTED, TOO_LARGE, DataFile, file_finding
from harness.dataset.validation.findings import Finding, Severity
from harness.dataset.validation.limits import Limits
from harness.dataset.validation.rules import Relation, Rule, Test, quoted
from harness.errors import DatasetError

EXAMPLES = 20  # findings of one kind
_THREADS = 2  # every thread buffers columns of its own
_LONGEST_VALUE, _LONGEST_REASON = 200, 500  # characters
_LEAST_BYTES = 100 * 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """A test as it is asked: of some of the rows, with the severity that it has for them."""

    rule: Rule
    test: Test
    severity: Severity
    condition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A file that cannot be read to the end, or must not be."""

    file: DataFile
    rule: Rule
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Problem:
    rule: Rule
    reason: str

    def of(self, file: DataFile) -> Unreadable:
        return Unreadable(file=file, rule=self.rule, reason=self.reason)


class Inspection:
    """An open DuckDB with views of a dataset's tables; get one from ``inspecting``."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, workplace: Path) -> None:
        self.connection = connection
        self._workplace = workplace
        self._full: set[Table] = set()

    def show(self, folder: Path, files: Sequence[DataFile], prefix: str = "") -> None:
        """Make a view of every table of a dataset, named like it behind ``prefix``, with ``file`` and ``row``."""
        # By way of a link, since a folder may be called anything and DuckDB expands `*`. A view of a view would write
        # out every text as often as it occurs, before anybody knows how long it is.
        link = self._workplace / f"{prefix}dataset"
        with suppress(FileExistsError):
            link.symlink_to(folder.resolve(), target_is_directory=True)
        for table in Table:
            names = [quoted(str(link / file.name)) for file in files if file.table is table and file.rows]
            view = f"{prefix}{table.title}"
            self.connection.execute(f"DROP VIEW IF EXISTS {view}")
            if not names:
                self._full -= set() if prefix else {table}
                _empty_view(self.connection, view, table)
                continue
            if not prefix:
                self._full.add(table)
            self.connection.execute(
                f"CREATE VIEW {view} AS SELECT * EXCLUDE (filename, file_row_number), "  # noqa: S608
                f"substr(filename, {len(str(link)) + 2}) AS file, file_row_number AS row "
                f"FROM read_parquet([{', '.join(names)}], filename = true, file_row_number = true, "
                "hive_partitioning = false)"
            )

    def unreadable(self, folder: Path, files: Sequence[DataFile], limits: Limits) -> tuple["Unreadable", ...]:
        """Read everything that is in some files; those that cannot be read to the end or hold too much, and why."""
        try:
            self.show(folder, files)
            suspected = [table for table in self._full if self._problem(table, limits) is not None]
        except duckdb.Error:  # a footer that only the other reader of Parquet accepts
            suspected = list(Table)
        found: list[Unreadable] = []
        for file in (file for file in files if file.table in suspected and file.rows):
            problem = self._problem_of(folder, file, limits)
            if problem is not None:
                found.append(problem.of(file))
        return tuple(found)

    def _problem_of(self, folder: Path, file: DataFile, limits: Limits) -> "_Problem | None":
        try:
            self.show(folder, [file])
        except duckdb.Error as error:
            return _Problem(rule=DAMAGED, reason=_first_line(error))
        return self._problem(file.table, limits)

    def _problem(self, table: Table, limits: Limits) -> "_Problem | None":
        """Texts are measured before anything is computed from them, which would write out what is stored once."""
        columns = columns_of(table)
        texts = [column.name for column in columns if column.scalar is str]
        sizes = ", ".join(f"coalesce(sum(strlen({name})), 0)" for name in texts)
        everything = ", ".join(column.name for column in columns)
        try:
            row = self.connection.execute(f"SELECT {sizes} FROM {table.title}").fetchone()  # noqa: S608
            for name, size_bytes in zip(texts, row or (), strict=True):
                if size_bytes > limits.text_column_bytes:
                    most = f"at most {limits.text_column_bytes} are read"
                    reason = f"column {name} written out takes {size_bytes} bytes, and {most}"
                    return _Problem(rule=TOO_LARGE, reason=reason)
            self.connection.execute(f"SELECT bit_xor(hash({everything})) FROM {table.title}").fetchone()  # noqa: S608
        except duckdb.Error as error:  # damage, text that is no UTF-8, or more memory than a file may need
            return _Problem(rule=DAMAGED, reason=_first_line(error))
        return None

    def ask_together(self, tables: Sequence[FactTable], rules: Sequence[Rule]) -> Iterator[Finding]:
        """What rules find that need tables of facts."""
        try:
            self._describe_devices()
            for table in tables:
                self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {table.name} AS {table.query}")
            yield from self.ask(rules)
        except duckdb.DataError as error:  # a count near 2⁶³, say: no rule about other rows can be asked then
            yield file_finding(NOT_COMPUTED, None, _first_line(error))

    def _describe_devices(self) -> None:
        """Make ``hardware`` and ``peaks``, what the hardware table knows of the devices of this dataset."""
        gpus = self._words("SELECT DISTINCT gpu FROM runs ORDER BY gpu")
        dtypes = self._words("SELECT DISTINCT dtype FROM kernels ORDER BY dtype")
        _temp_table(self.connection, "hardware", hardware_table(gpus))
        _temp_table(self.connection, "peaks", peaks_table(gpus, dtypes))

    def ask(self, rules: Sequence[Rule]) -> Iterator[Finding]:
        """What rules find, at most ``EXAMPLES`` findings of one kind; raises ``duckdb.Error`` for unreadable files."""
        by_relation: dict[str, list[_Question]] = {}
        for question in _questions(rules):
            if question.test.of.table in self._full:
                by_relation.setdefault(question.test.of.name, []).append(question)
        for questions in by_relation.values():
            yield from self._answers(questions[0].test.of, questions)

    def _answers(self, relation: Relation, questions: Sequence[_Question]) -> Iterator[Finding]:
        counts = ", ".join(f"count_if({question.condition})" for question in questions)
        row = self.connection.execute(f"SELECT {counts} FROM ({relation.query})").fetchone()  # noqa: S608
        for question, count in zip(questions, row or (), strict=True):
            if count:
                yield from self._examples(relation, question, int(count))

    def _examples(self, relation: Relation, question: _Question, count: int) -> Iterator[Finding]:
        test = question.test
        value = f"left(CAST({test.value or test.column} AS VARCHAR), {_LONGEST_VALUE})"
        found = self.connection.execute(
            f"SELECT file, row, {value}, left({test.reason}, {_LONGEST_REASON}) FROM ({relation.query}) "  # noqa: S608
            f"WHERE {question.condition} ORDER BY file, row LIMIT {EXAMPLES}"
        )
        for file, place, text, reason in found.fetchall():
            yield Finding(
                severity=question.severity,
                rule=question.rule.name,
                table=relation.table,
                file=file,
                row=place,
                column=test.column,
                value=text,
                reason=reason or "a value in it is null",
                remedy=question.rule.remedy,
                count=count,
            )

    def _words(self, query: str) -> list[str]:
        found = self.connection.execute(f"{query} LIMIT {MOST_NAMES}").fetchall()
        return [word for (word,) in found if word is not None]


@contextmanager
def inspecting(memory_bytes: int) -> Iterator[Inspection]:
    """Open a DuckDB that holds at most about ``memory_bytes``.

    Errors of DuckDB that nobody explained better become ``DatasetError`` here.
    """
    with tempfile.TemporaryDirectory(prefix="joulegraph-") as workplace:
        config: dict[str, str | bool | int | float | list[str]] = {
            "autoinstall_known_extensions": "false",  # never the network
            "autoload_known_extensions": "false",
            "memory_limit": f"{max(memory_bytes, _LEAST_BYTES) // 10**6}MB",
            "preserve_insertion_order": "false",
            "temp_directory": f"{workplace}/spilled",
            "threads": str(_THREADS),
        }
        try:
            with duckdb.connect(config=config) as connection:
                connection.execute("SET enable_progress_bar = false")  # it would be written to standard output
                connection.execute(ROOT)
                yield Inspection(connection, Path(workplace))
        except duckdb.OutOfMemoryException as error:
            raise DatasetError(
                f"Validation ran out of memory: {_first_line(error)}\n"
                "Give it more with --memory, and space for temporary files with TMPDIR."
            ) from error
        except duckdb.Error as error:
            raise DatasetError(
                f"The dataset cannot be validated: {_first_line(error)}\nThis should not happen; please report it with "
                "the dataset."
            ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:_LONGEST_REASON]


def _questions(rules: Sequence[Rule]) -> Iterator[_Question]:
    for rule in rules:
        strata = [(rule.severity, "true")]
        if rule.softer_for_imports:
            strata = [
                (rule.severity, "NOT coalesce(imported, false)"),
                (Severity.WARNING, "imported AND NOT flagged"),
                (Severity.NOTE, "imported AND flagged"),
            ]
        for test in rule.tests:
            for severity, rows in strata:
                condition = f"coalesce(({test.broken}) AND {rows}, false)"
                yield _Question(rule=rule, test=test, severity=severity, condition=condition)


def _empty_view(connection: duckdb.DuckDBPyConnection, view: str, table: Table) -> None:
    schema = pa.schema([*arrow_schema(table), ("file", pa.string()), ("row", pa.int64())])
    connection.register(f"none_of_{view}", schema.empty_table())
    connection.execute(f"CREATE VIEW {view} AS SELECT * FROM none_of_{view}")  # noqa: S608


def _temp_table(connection: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    connection.register(f"given_{name}", rows)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM given_{name}")  # noqa: S608
    connection.unregister(f"given_{name}")
