"""An SQLite export of Nsight Systems as a file: untrusted, opened read-only, read within limits.

A database can hold code: views, virtual tables and generated columns run when they are read. Only plain tables and
stored columns are read here, with statements made of the names in ``harness.tracing.nsys_schema`` and nothing else.
A damaged file can lead SQLite in circles, so no table may have more rows than its file has room for.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from harness.errors import CorruptFile, UsageError
from harness.tracing.kineto_values import WrongEvent
from harness.tracing.nsys_schema import STRINGS, Table

LARGEST_FILE_BYTES = 4 * 1024**3
EXPORT_AGAIN = "Export it again: nsys export --type sqlite REPORT.nsys-rep"
_MAGIC = b"SQLite format 3\0"
_FEWEST_ROW_BYTES = 4  # of a table's row, its entry in the page included
_LARGEST_VALUE_BYTES = 256 * 1024**2  # exports also hold the output of processes, in the table of strings
_LONGEST_TEXT = 4000  # characters; names of kernels, with their templates, are the longest
_LARGEST = 2**62  # of times in nanoseconds
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table; whatever is of another type is a ``WrongEvent``."""

    places: Mapping[str, int]
    values: tuple[object, ...]

    def whole(self, column: str) -> int:
        """A whole number."""
        value = self.maybe(column)
        if value is None:
            raise WrongEvent(f"its {column} is missing")
        return value

    def maybe(self, column: str) -> int | None:
        """A whole number; None for null and where the schema has no such column."""
        place = self.places.get(column)
        value = None if place is None else self.values[place]
        if value is None or type(value) is int:
            return value
        raise WrongEvent(f"its {column} is no whole number")

    def time_ns(self, column: str) -> int:
        """A time that a recording can hold."""
        value = self.whole(column)
        if not -_LARGEST <= value <= _LARGEST:
            raise WrongEvent(f"its {column} is out of range")
        return value

    def identity(self, column: str) -> int | None:
        """A number that links rows; None for 0, which older versions write where there is none."""
        value = self.maybe(column)
        return value if value is not None and value > 0 else None

    def count(self, column: str) -> int:
        """A number of things."""
        value = self.whole(column)
        if value < 0:
            raise WrongEvent(f"its {column} is negative")
        return value

    def text(self, column: str) -> str | None:
        """Text; None for null and for none."""
        place = self.places.get(column)
        value = None if place is None else self.values[place]
        if value is None or isinstance(value, str):
            return value or None
        raise WrongEvent(f"its {column} is no text")


class Export:
    """An open export; made by ``opened``."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.name = path.name
        self._most_rows = path.stat().st_size // _FEWEST_ROW_BYTES

    def has(self, table: Table) -> bool:
        """Whether the table is there."""
        return bool(self._columns(table))

    def read(self, table: Table, make: Callable[[Row], T]) -> Iterator[T]:
        """What ``make`` makes of each row of a table; nothing if the table is not there.

        Raises CorruptFile where the table lacks a column that is needed, has more rows than the file has room for, or
        has one that is a ``WrongEvent`` to ``make``.
        """
        present = self._columns(table)
        missing = [column for column in table.required if column not in present]
        if present and missing:
            raise CorruptFile(
                f"{self.name}: its table {table.name} has no column {missing[0]}, which exports of Nsight Systems have "
                f"since 2020.1.\n{EXPORT_AGAIN}, with a later version of nsys."
            )
        columns = [column for column in table.columns if column in present]
        if not columns:
            return
        places = {column: place for place, column in enumerate(columns)}
        for number, values in enumerate(self._selected(table, columns)):
            if number > self._most_rows:
                raise CorruptFile(f"{self.name} is damaged: {table.name} has no end.\n{EXPORT_AGAIN}")
            try:
                yield make(Row(places, values))
            except WrongEvent as error:
                raise CorruptFile(
                    f"{self.name} is damaged: {error}, in row {number + 1} of {table.name}.\n{EXPORT_AGAIN}"
                ) from error

    def _selected(self, table: Table, columns: Sequence[str]) -> sqlite3.Cursor:
        texts = [column for column in columns if column in _TEXTS]
        listed = ", ".join(f'substr("{column}", 1, ?)' if column in texts else f'"{column}"' for column in columns)
        statement = f'SELECT {listed} FROM "{table.name}"'  # noqa: S608  names of the schema, none of the file
        return self._connection.execute(statement, [_LONGEST_TEXT] * len(texts))

    def strings(self, wanted: Collection[int]) -> dict[int, str]:
        """The strings with these numbers, as far as they are there."""

        def keep(row: Row) -> None:
            number = row.maybe("id")
            if number is not None and number in wanted and (text := row.text("value")) is not None:
                found[number] = text

        found: dict[int, str] = {}
        for _ in self.read(STRINGS, keep):
            pass
        return found

    def _columns(self, table: Table) -> frozenset[str]:
        """The stored columns of a plain table; none if there is no such table."""
        found = self._connection.execute(
            "SELECT type, rootpage FROM sqlite_master WHERE name = ? COLLATE NOCASE", [table.name]
        ).fetchall()
        if not found:
            return frozenset()
        if len(found) > 1 or found[0][0] != "table" or not found[0][1]:  # a virtual table has no page of its own
            raise CorruptFile(
                f"{self.name}: {table.name} is no plain table, as it is in every export of Nsight Systems; it could "
                f"run anything.\n{EXPORT_AGAIN}"
            )
        columns = self._connection.execute("SELECT name, hidden FROM pragma_table_xinfo(?)", [table.name])
        return frozenset(name for name, hidden in columns if not hidden)  # hidden: computed when it is read


_TEXTS = frozenset({"value", "text", "name"})


@contextmanager
def opened(path: Path, largest_bytes: int = LARGEST_FILE_BYTES) -> Iterator[Export]:
    """Open an export. SQLite's complaints about the file, here and while it is read, are CorruptFile.

    Raises UsageError where there is no such file or it may not be read, CorruptFile where it is no SQLite database
    or larger than ``largest_bytes``.
    """
    _look_at(path, largest_bytes)
    # Immutable: nothing is locked, and no journal beside the file is played back.
    address = path.resolve().as_uri() + "?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(address, uri=True, isolation_level=None)) as connection:
            connection.text_factory = _decoded
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE_BYTES)
            for setting in ("PRAGMA trusted_schema = OFF", "PRAGMA cell_size_check = ON", "PRAGMA mmap_size = 0"):
                connection.execute(setting)
            yield Export(connection, path)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # names of tables and columns are decoded by sqlite3 itself
        raise CorruptFile(f"{path.name} is a damaged SQLite file ({error}).\n{EXPORT_AGAIN}") from error


def _look_at(path: Path, largest_bytes: int) -> None:
    if not path.is_file():
        raise UsageError(f"There is no file {path}.\nName one that nsys export --type sqlite wrote.")
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(_MAGIC))
        size_bytes = path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}).\nCheck its permissions.") from error
    if begin != _MAGIC:
        raise CorruptFile(
            f"{path.name} is no SQLite file, which is the only form of Nsight Systems' reports that is read here.\n"
            f"{EXPORT_AGAIN}"
        )
    if size_bytes > largest_bytes:
        raise CorruptFile(
            f"{path.name} has {size_bytes / 1024**2:.0f} MiB, more than the {largest_bytes / 1024**2:.0f} MiB that are "
            "read without being asked to.\nRecord less, or allow more (--largest-mib) if you trust the file."
        )


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")
