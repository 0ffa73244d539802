"""DuckDB for importers: memory that is bounded, two threads, and the one place that translates its errors."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from harness.errors import CorruptFile

_MEMORY = "1GB"
_THREADS = 2


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills to a folder of its own, and whose errors are ``CorruptFile``."""
    with tempfile.TemporaryDirectory(prefix="joulegraph-import-") as spill:
        connection = duckdb.connect(
            config={
                "memory_limit": _MEMORY,
                "threads": _THREADS,
                "temp_directory": spill,
                "autoinstall_known_extensions": False,
                "preserve_insertion_order": False,
            }
        )
        try:
            yield connection
        except duckdb.Error as error:
            raise CorruptFile(
                f"A file cannot be read as the measurements it should hold: {str(error).splitlines()[0][:300]}.\n"
                f"Fetch it again from where it came; if it is intact, its layout is newer than this importer."
            ) from error
        finally:
            connection.close()


def file_sql(path: Path) -> str:
    """A path as SQL text; glob patterns in it mean themselves."""
    escaped = "".join(f"[{character}]" if character in "*?[" else character for character in str(path))
    return "'" + escaped.replace("'", "''") + "'"
