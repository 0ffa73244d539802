"""Files of a source as text, rows and numbers: bounded in size; errors name the file, the line and the column."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from zipfile import BadZipFile, ZipFile

from harness.errors import CorruptFile, DatasetError

MOST_BYTES: Final = 256 * 1024**2  # of one file, unpacked; the largest of these sources has 5 MiB
_LARGEST: Final = 1e100  # no measured figure is larger, and squares of it are still finite
_LARGEST_WHOLE: Final = 2**53  # beyond, a float is no longer exact
_LONGEST_LINE: Final = 1024**2
_COMMIT: Final = re.compile(r"\b[0-9a-f]{40}\b")
_BRANCH: Final = re.compile(r"refs/[\w./-]{1,200}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """One row of a CSV file or one JSON object: names and values, and where they stand."""

    where: str
    values: Mapping[str, object]

    @property
    def place(self) -> str:
        """Where it stands, without the folders."""
        return self.where.rpartition("/")[2]

    def text(self, name: str) -> str:
        """A text; raises ``CorruptFile`` where it is missing or is none."""
        value = self._value(name)
        return value if isinstance(value, str) else self._refuse(name, value, "text")

    def number(self, name: str) -> float:
        """A finite number; raises ``CorruptFile``."""
        value = self._value(name)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or "_" in str(value):
            self._refuse(name, value, "a number")
        try:
            number = float(value)
        except (ValueError, OverflowError):
            self._refuse(name, value, "a number")
        return number if abs(number) < _LARGEST else self._refuse(name, value, "a finite number")

    def whole(self, name: str) -> int:
        """A whole number; raises ``CorruptFile``."""
        number = self.number(name)
        exact = number.is_integer() and abs(number) < _LARGEST_WHOLE
        return int(number) if exact else self._refuse(name, number, "a whole number")

    def positive(self, name: str) -> float:
        """A number above zero; raises ``CorruptFile``."""
        number = self.number(name)
        return number if number > 0 else self._refuse(name, number, "a number above zero")

    def count(self, name: str) -> int:
        """A whole number from 1 on; raises ``CorruptFile``."""
        number = self.whole(name)
        return number if number >= 1 else self._refuse(name, number, "a whole number above zero")

    def inside(self, name: str) -> "Fields":
        """An object in this one; raises ``CorruptFile``."""
        return _fields(f"{self.where}, {name}", self._value(name))

    def listed(self, name: str) -> tuple["Fields", ...]:
        """A list of objects in this one; raises ``CorruptFile``."""
        value = self._value(name)
        if not isinstance(value, list):
            self._refuse(name, value, "a list")
        return tuple(_fields(f"{self.where}, {name}[{place}]", entry) for place, entry in enumerate(value))

    def _value(self, name: str) -> object:
        if name not in self.values:
            raise CorruptFile(
                f"{self.where}: there is no {name!r}. It has {', '.join(map(repr, list(self.values)[:20]))}.\n"
                f"This is another layout than the one this importer reads, or the file is damaged."
            )
        return self.values[name]

    def _refuse(self, name: str, value: object, wanted: str) -> NoReturn:
        raise CorruptFile(
            f"{self.where}: {name!r} is {str(value)[:60]!r}, which is not {wanted}.\n"
            f"Nothing was imported; correct the file or get it again."
        )


def read_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """A file, unpacked if it is a .gz. Raises ``CorruptFile`` for a damaged one, ``DatasetError`` for one too big."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path) as file:
                content = file.read(most_bytes + 1)
        else:
            with path.open("rb") as file:
                content = file.read(most_bytes + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise CorruptFile(
            f"{path} cannot be unpacked: {error}.\nThe download was cut off; get the file again."
        ) from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error
    return _within(content, str(path), most_bytes)


def read_csv(path: Path, columns: Sequence[str] | None = None) -> Iterator[Fields]:
    """Rows of a CSV file, .gz or not; ``columns`` names them where the file has no header. Raises ``CorruptFile``."""
    yield from csv_rows(read_bytes(path), str(path), columns)


def csv_rows(content: bytes, name: str, columns: Sequence[str] | None = None) -> Iterator[Fields]:
    """Rows of a CSV file that was read already; raises ``CorruptFile``."""
    try:
        text = content.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = list(columns) if columns is not None else next(reader, [])
        if len(set(header)) < len(header) or not header:
            raise CorruptFile(f"{name}: its first line does not name columns.\nIs it the file that was meant?")
        for cells in reader:
            if len(cells) != len(header):
                raise CorruptFile(
                    f"{name}, line {reader.line_num}: {len(cells)} cells where there should be {len(header)}.\n"
                    f"The file is cut off or has another layout; get it again."
                )
            yield Fields(where=f"{name}, line {reader.line_num}", values=dict(zip(header, cells, strict=True)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise CorruptFile(f"{name} is no CSV file in UTF-8: {error}.\nGet it again.") from error


def header_of(path: Path) -> tuple[str, ...]:
    """First line of a CSV file as cells; raises ``DatasetError`` where it cannot be read."""
    try:
        with path.open("rb") as file:
            first = file.readline(_LONGEST_LINE)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error
    return tuple(first.decode("utf-8-sig", errors="replace").strip().split(","))


def read_json(path: Path, most_bytes: int = MOST_BYTES) -> Fields:
    """A JSON file that holds one object, .gz or not; raises ``CorruptFile``, ``DatasetError`` if it is too big."""
    content = read_bytes(path, most_bytes)
    try:
        value = json.loads(content, parse_constant=_no_constant)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is no JSON file: {error}.\nGet it again.") from error
    return _fields(str(path), value)


def zip_members(path: Path, suffix: str, most_bytes: int = MOST_BYTES) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the files in an archive that end in ``suffix``; nothing is written to the disk.

    Raises ``CorruptFile``, and ``DatasetError`` where a member is too big.
    """
    try:
        with ZipFile(path) as archive:
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                if member.filename.endswith(suffix) and not member.filename.startswith("__MACOSX/"):
                    with archive.open(member) as file:
                        content = file.read(most_bytes + 1)
                    yield member.filename, _within(content, f"{path}, {member.filename}", most_bytes)
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise CorruptFile(f"{path} cannot be unpacked: {error}.\nGet it again.") from error
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}.") from error


def commit_of(path: Path) -> str | None:
    """The commit a folder was taken from: that of a clone, or the one its SOURCE.txt names; None: not known."""
    if (path / ".git").is_dir():
        return head_of(path / ".git")
    return _first_commit(_small(path / "SOURCE.txt"))


def head_of(git: Path) -> str | None:
    """The commit that a clone stands at, from git's own files; None: not known."""
    head = _small(git / "HEAD").strip()
    branch = head.removeprefix("ref: ")
    if branch == head:
        return _first_commit(head)
    if _BRANCH.fullmatch(branch) is None or ".." in branch:
        return None
    packed = re.search(rf"^([0-9a-f]{{40}}) {re.escape(branch)}$", _small(git / "packed-refs"), re.MULTILINE)
    return _first_commit(_small(git / branch)) or (packed[1] if packed else None)


def nothing_to_read(path: Path, wanted: str) -> DatasetError:
    """The error for a folder without the files of a source, or for none."""
    if not path.exists():
        return DatasetError(f"{path} is not there.\nCheck the path.")
    return DatasetError(
        f"{path} does not hold {wanted}.\nGive a clone of the source's repository, or a folder with its data files."
    )


def _first_commit(text: str) -> str | None:
    found = _COMMIT.search(text)
    return found[0] if found else None


def _small(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST_LINE).decode(errors="replace")
    except OSError:
        return ""


def _within(content: bytes, name: str, most_bytes: int) -> bytes:
    if len(content) > most_bytes:
        raise DatasetError(
            f"{name} holds more than {most_bytes:,} bytes, far more than any file of this source.\n"
            f"It was not read; is it the file that was meant?"
        )
    return content


def _fields(where: str, value: object) -> Fields:
    if not isinstance(value, dict):
        raise CorruptFile(f"{where}: here should be a JSON object.\nThis is another layout, or the file is damaged.")
    return Fields(where=where, values=value)


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
