"""One Parquet file: written durably under a temporary name, read in batches, its damage told in words."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness.dataset.disk import Disk, HashingFile, temporary
from harness.dataset.schema import VERSION_KEY, Table, arrow_schema
from harness.errors import CorruptFile, DatasetError, NewerSchema
from harness.records import SCHEMA_VERSION

BATCH_ROWS = 131_072
_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a finished file holds."""

    sha256: str
    size_bytes: int
    rows: int


class ParquetSink:
    """A Parquet file being written. Use ``parquet_sink``."""

    def __init__(self, file: HashingFile, table: Table, *, lasting: bool) -> None:
        self._file = file
        self._buffer = pa.BufferedOutputStream(pa.PythonFile(file, mode="w"), _BUFFER_BYTES)
        schema = arrow_schema(table)
        # Text repeats from row to row; numbers seldom do, and trying a dictionary on them costs half the time.
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self._writer = pq.ParquetWriter(
            self._buffer,
            schema,
            compression="zstd" if lasting else "lz4",
            compression_level=1 if lasting else None,
            use_dictionary=texts if lasting else False,
            write_statistics=lasting,
        )
        self.rows = 0

    @property
    def size_bytes(self) -> int:
        """Bytes in the file so far."""
        return self._file.size_bytes

    def write(self, arrow: pa.Table) -> None:
        """Append one row group."""
        self._writer.write_table(arrow, row_group_size=max(1, arrow.num_rows))
        self._buffer.flush()
        self.rows += arrow.num_rows

    def finish(self) -> Written:
        """Write the footer."""
        self._writer.close()
        self._buffer.close()
        return Written(sha256=self._file.sha256, size_bytes=self._file.size_bytes, rows=self.rows)

    def drop(self) -> None:
        """Give the file up; what is on the disk is incomplete."""
        self._file.abandon()
        self._writer.close()
        self._buffer.close()


@contextmanager
def parquet_sink(disk: Disk, path: Path, table: Table, *, lasting: bool) -> Iterator[ParquetSink]:
    """Write the temporary file of ``path``, quickly or, if it is ``lasting``, small; and renamed by the caller."""
    with disk.open_new(temporary(path)) as file:
        sink = ParquetSink(HashingFile(file), table, lasting=lasting)
        try:
            yield sink
        except BaseException:
            sink.drop()
            raise


def read_batches(path: Path, table: Table, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    """Stream a file of the dataset.

    Raises ``CorruptFile`` (also for a file that is gone), ``NewerSchema``, and ``DatasetError`` where it may not
    be read.
    """
    with _damage(path), pq.ParquetFile(path) as file:
        _check_schema(path, table, file.schema_arrow)
        yield from file.iter_batches(batch_size=BATCH_ROWS, columns=columns)


def check_file(path: Path, table: Table) -> None:
    """Whether a file is Parquet with the columns of its table; raises ``CorruptFile`` and ``NewerSchema``."""
    with _damage(path):
        found = pq.read_schema(path)
    _check_schema(path, table, found)


def file_sha256(path: Path) -> str:
    """Hash of a file; raises as ``read_batches`` does."""
    digest = hashlib.sha256()
    with _damage(path), path.open("rb") as file:
        while chunk := file.read(_BUFFER_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def newer_schema(path: Path, version: int) -> NewerSchema:
    """The error for a file that a later version of the harness wrote."""
    return NewerSchema(
        f"{path} is of schema version {version}; this harness reads versions up to {SCHEMA_VERSION}.\n"
        f"Update the harness (git pull in its clone), or choose another folder."
    )


def damaged(path: Path, why: str) -> CorruptFile:
    """The error for a file of the dataset that cannot be used, with the remedy for its kind of file."""
    if path.name.startswith("part-"):
        remedy = (
            f"Delete it and {path.parents[1] / 'runs' / path.name}, and run the same command again: "
            f"this run is then measured anew. All other runs are kept."
        )
    else:
        remedy = "Restore it from a copy of the dataset. The other files are intact and can still be read."
    return CorruptFile(f"{path} {why}.\n{remedy}")


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """The one place where errors of reading become errors of the harness."""
    try:
        yield
    except FileNotFoundError as error:
        raise damaged(path, "is missing") from error
    except OSError as error:
        if error.errno is None:  # pyarrow: pages that do not decompress
            raise damaged(path, f"is damaged: {error}") from error
        raise DatasetError(f"{path} cannot be read: {error.strerror}.\nCheck its permissions and the disk.") from error
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise damaged(path, f"is no intact Parquet file: {error}") from error


def _check_schema(path: Path, table: Table, found: pa.Schema) -> None:
    version = (found.metadata or {}).get(VERSION_KEY, b"")
    if version.isdigit() and int(version) > SCHEMA_VERSION:
        raise newer_schema(path, int(version))
    if found.equals(arrow_schema(table)):
        return
    wrong = sorted({str(field) for field in found} ^ {str(field) for field in arrow_schema(table)})
    raise damaged(path, f"does not hold the columns of {table.title} (differing: {', '.join(wrong[:5])})")
