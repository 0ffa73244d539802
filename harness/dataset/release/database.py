"""DuckDB over dataset folders: one view per table, all folders together, in bounded memory."""

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from harness.dataset.files import check_file
from harness.dataset.importers.duck import file_sql
from harness.dataset.reading import Dataset
from harness.dataset.schema import Table, arrow_schema
from harness.errors import CorruptFile

MEMORY_LIMIT = "1GB"  # of DuckDB's buffers; with Arrow and Python the process stays below 2 GiB
MAX_THREADS = 4  # every thread buffers columns of its own


@contextmanager
def opened(datasets: Sequence[Dataset], spill: Path | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield a connection with a view ``all_<table>`` per table: its columns and ``folder``, the number of the dataset.

    What does not fit into memory goes to ``spill`` (default: the system's folder for temporary files). DuckDB's errors
    are translated here, and only here: raises ``CorruptFile``, ``OSError`` for a full disk and, from opening files,
    ``NewerSchema``.
    """
    with tempfile.TemporaryDirectory(prefix="joulegraph-", dir=spill) as spill_folder:
        try:
            with duckdb.connect(config=_settings(spill_folder)) as connection:
                for table in Table:
                    _create_view(connection, table, datasets)
                yield connection
        except duckdb.Error as error:
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), spill_folder) from error
            folders = ", ".join(str(dataset.folder) for dataset in datasets)
            raise CorruptFile(
                f"{folders} cannot be read: {str(error).splitlines()[0]}\n"
                "Restore the damaged file from a copy of the dataset. Nothing was changed in the folder."
            ) from error


def number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """The one number that a query asks for."""
    row = connection.execute(query).fetchone()
    return int(row[0]) if row and row[0] is not None else 0


def _settings(spill_folder: str) -> dict[str, str | bool | int | float | list[str]]:
    return {
        "autoinstall_known_extensions": "false",  # never the network
        "autoload_known_extensions": "false",
        "memory_limit": MEMORY_LIMIT,
        "preserve_insertion_order": "false",
        "temp_directory": spill_folder,
        "threads": str(min(MAX_THREADS, os.cpu_count() or 1)),
    }


def _create_view(connection: duckdb.DuckDBPyConnection, table: Table, datasets: Sequence[Dataset]) -> None:
    """One scan of all files: sorting a union of a scan for each folder took more memory than the limit allows."""
    placed = [(file, position) for position, dataset in enumerate(datasets) for file in dataset.paths(table)]
    for file, _ in placed:
        check_file(file, table)  # DuckDB would fill the columns that a foreign file lacks with nulls
    if not placed:
        connection.register(f"no_{table.title}", arrow_schema(table).empty_table())
        connection.execute(f"CREATE VIEW all_{table.title} AS SELECT *, -1 AS folder FROM no_{table.title}")  # noqa: S608
        return
    names = pa.array([str(file) for file, _ in placed], pa.string())
    places = pa.table({"filename": names, "folder": pa.array([position for _, position in placed], pa.int32())})
    connection.register(f"places_of_{table.title}", places)
    files = ", ".join(file_sql(file) for file, _ in placed)
    connection.execute(
        f"CREATE VIEW all_{table.title} AS SELECT * EXCLUDE (filename) "  # noqa: S608  paths are quoted
        f"FROM read_parquet([{files}], filename = true, hive_partitioning = false) "
        f"JOIN places_of_{table.title} USING (filename)"
    )
