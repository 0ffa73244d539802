"""Parquet files from a stranger, read in a process of their own that may use little memory and little time.

The reader of Parquet is a large program in C++; a file made to harm it must not meet it in the process that holds the
release. So the files are read by a child, ``python -m harness.dataset.contributions.decoding FOLDER``, which first
takes away its own right to much memory, time and disk; looks at footers before pages; takes only the columns and types
of the schema, in the compression that bundles have; and writes what it read into new files in our own form. The parent
reads those new files and nothing else.

The child prints one line: ``ok``, or why the files are refused.
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness.dataset.compaction import row_groups
from harness.dataset.contributions.bundle import Bundle, parse_header
from harness.dataset.contributions.columns import Sort, shape_of
from harness.dataset.contributions.identity import Identity
from harness.dataset.contributions.scrubbing import Scrubber
from harness.dataset.disk import Disk, temporary
from harness.dataset.files import parquet_sink
from harness.dataset.rows import conformed
from harness.dataset.schema import Table, arrow_schema, columns_of
from harness.errors import DatasetError
from harness.models.shipped import shipped_ids

_MEMORY_BYTES = 4 * 1024**3
_CPU_S = 1200
_DISK_BYTES = 4 * 1024**3  # of one file
_PATIENCE_S = 1800.0
_ROW_GROUP_BYTES = 512 * 1024**2  # uncompressed, as the footer states it
_MAX_ROW_GROUPS = 2_000
_MAX_METADATA_BYTES = 256 * 1024  # the descriptions of the columns take 10 KiB
_THRIFT_BYTES = 4 * 1024**2
_COMPRESSIONS = frozenset({"ZSTD", "UNCOMPRESSED"})
_ROW_GROUP_ROWS = 1_048_576
_BATCH_ROWS = 8192
_DOCUMENT_BATCH_ROWS = 64  # of graphs and environments, whose texts are long
_MOST_GRAPH_BYTES = 512 * 1024**2  # of all graphs: a megabyte of zstd can hold gigabytes of one letter
_CACHED_LENGTH = 1_000  # characters; the same names stand in every batch
# What the child sees of the parent's environment: tokens and keys are not for it.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT")
_ANSWER_BYTES = 4096
HEADER_COPY = "bundle.json"


class Undecodable(Exception):
    """Files that are refused; the text says which and why."""


Decode = Callable[[Path], None]
"""Read the files in FOLDER/given into FOLDER/data; raises ``Undecodable``."""


def decode_apart(folder: Path) -> None:
    """Read the files in a child process; raises ``Undecodable``."""
    package = str(Path(__file__).parents[3])
    places = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness.dataset.contributions.decoding", str(folder)],
            env=_environment() | {"PYTHONPATH": os.pathsep.join(places)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Undecodable(f"reading the tables took longer than {_PATIENCE_S:.0f} s") from None
    answer = done.stdout[:_ANSWER_BYTES].decode("utf-8", "replace").strip()
    if done.returncode or answer != "ok":
        raise Undecodable(
            answer or "the reader ran out of memory or time, or crashed: the tables are not what they say"
        )


def _environment() -> dict[str, str]:
    known = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return known | {"ARROW_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def decode_here(folder: Path) -> None:
    """Read the files in this process: what the child does, without its limits."""
    bundle = parse_header((folder / HEADER_COPY).read_bytes())
    for file in bundle.files:
        _decode(folder, bundle, file.table)


def _decode(folder: Path, bundle: Bundle, table: Table) -> None:
    given = folder / "given" / f"{table.title}.parquet"
    out = folder / "data" / table.title / "data-00000.parquet"
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with parquet_sink(Disk(), out, table, lasting=True) as sink:
            for group in row_groups(_batches(given, table, bundle.rows_of(table))):
                sink.write(group)
            rows = sink.finish().rows
        temporary(out).replace(out)
    except (pa.ArrowException, DatasetError, OSError, UnicodeDecodeError) as error:
        raise Undecodable(f"{table.title}: {_brief(error)}") from error
    if rows != bundle.rows_of(table):
        raise Undecodable(f"{table.title}: it holds {rows} rows, and the bundle promises {bundle.rows_of(table)}")


def _batches(path: Path, table: Table, promised_rows: int) -> Iterator[pa.RecordBatch]:
    texts = [field.name for field in arrow_schema(table) if pa.types.is_string(field.type)]
    limits = {"thrift_string_size_limit": _THRIFT_BYTES, "thrift_container_size_limit": 1_000_000}
    with pq.ParquetFile(path, **limits) as file:
        _check_footer(table, file, promised_rows)
    # As dictionaries: a text of a megabyte that stands in every row is then held once.
    with pq.ParquetFile(path, read_dictionary=texts, **limits) as file:
        rows = _DOCUMENT_BATCH_ROWS if table in {Table.GRAPHS, Table.ENVIRONMENTS} else _BATCH_ROWS
        graph_bytes = 0
        for batch in file.iter_batches(batch_size=rows, use_threads=False):
            arrow = pa.Table.from_batches([batch])
            _check_texts(table, arrow)
            if table is Table.GRAPHS:
                graph_bytes += _graph_bytes(arrow)
                if graph_bytes > _MOST_GRAPH_BYTES:
                    raise Undecodable(f"{table.title}: they take more than {_MOST_GRAPH_BYTES} bytes")
            yield from conformed(table, arrow).to_batches()


def _check_footer(table: Table, file: pq.ParquetFile, promised_rows: int) -> None:
    """Everything the footer says, before any page is read."""
    footer = file.metadata
    if footer.num_rows != promised_rows:
        raise Undecodable(f"{table.title}: it says it has {footer.num_rows} rows, the bundle promises {promised_rows}")
    if footer.num_row_groups > _MAX_ROW_GROUPS or footer.serialized_size > _THRIFT_BYTES:
        raise Undecodable(f"{table.title}: its footer is larger than any bundle's")
    if sum(len(key) + len(value) for key, value in (footer.metadata or {}).items()) > _MAX_METADATA_BYTES:
        raise Undecodable(f"{table.title}: it carries more metadata than a bundle's tables do")
    # The types that Parquet states and those that Arrow's own note in the metadata makes of them, extensions included.
    if not footer.schema.to_arrow_schema().equals(arrow_schema(table), check_metadata=False):
        raise Undecodable(f"{table.title}: its columns are not those of the schema, in their order and types")
    for index in range(footer.num_row_groups):
        _check_row_group(table, footer.row_group(index))


def _check_row_group(table: Table, group: pq.RowGroupMetaData) -> None:
    if group.total_byte_size > _ROW_GROUP_BYTES or not 0 < group.num_rows <= _ROW_GROUP_ROWS:
        raise Undecodable(f"{table.title}: a row group is larger than any bundle's")
    for index in range(group.num_columns):
        column = group.column(index)
        if column.compression not in _COMPRESSIONS or column.file_path:
            raise Undecodable(f"{table.title}: a column is compressed or stored otherwise than bundles are")


def _check_texts(table: Table, arrow: pa.Table) -> None:
    for column in columns_of(table):
        if column.scalar is not str or column.choices is not None:
            continue
        shape = shape_of(table, column.name)
        for chunk in arrow.column(column.name).chunks:
            longest = pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0
            if longest > 4 * shape.longest:  # before it is looked at: a letter has at most four bytes
                raise Undecodable(f"{table.title}: a text in {column.name} has {longest} bytes")
            for text in chunk.dictionary.to_pylist():
                if text is None:
                    continue
                problem = (_known_problem if len(text) < _CACHED_LENGTH else _problem)(table, column.name, text)
                if problem is not None:
                    raise Undecodable(f"{table.title}: a text in {column.name} {problem}: {text[:60]!a}")


def _problem(table: Table, column: str, text: str) -> str | None:
    """Why a text may not stand in a column; None where it may."""
    shape = shape_of(table, column)
    problem = shape.problem(text)
    if problem is not None or shape.sort is Sort.ID or table is Table.SOURCES or column == "lab":
        return problem
    scrubber = _scrubber()
    scrubbed = scrubber.document(text) if shape.sort is Sort.DOCUMENT else scrubber.text(text)
    return None if scrubbed == text else "tells whose machine it comes from, which submit removes"


_known_problem = lru_cache(maxsize=65_536)(_problem)


@cache
def _scrubber() -> Scrubber:
    """Scrubbing what was scrubbed changes nothing, whoever did it."""
    return Scrubber(Identity(words=()), names=shipped_ids())


def _graph_bytes(arrow: pa.Table) -> int:
    """Bytes of the documents, each as often as it stands there."""
    documents = (arrow.column(name).cast(pa.string()) for name in ("kernels", "edges"))
    return sum(pc.sum(pc.binary_length(column)).as_py() or 0 for column in documents)


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _give_up_rights() -> None:
    """Limits that no later code of this process can raise again."""
    limits = (
        (resource.RLIMIT_AS, _MEMORY_BYTES),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_FSIZE, _DISK_BYTES),
        (resource.RLIMIT_CORE, 0),
    )
    for kind, limit in limits:
        hard = resource.getrlimit(kind)[1]
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (most, most))


def _main(folder: Path) -> int:
    _give_up_rights()
    try:
        decode_here(folder)
    except Undecodable as error:
        sys.stdout.write(f"{error}\n")
        return 1
    sys.stdout.write("ok\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(Path(sys.argv[1])))
