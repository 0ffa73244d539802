"""A release that continues another one: no run of it may be gone or changed."""

from dataclasses import dataclass
from pathlib import Path

import duckdb

from harness.dataset.reading import open_dataset
from harness.dataset.release.database import opened
from harness.dataset.release.record import ReleaseRecord, read_record
from harness.dataset.schema import Table, columns_of
from harness.errors import DatasetError

# The one column of a recorded run that may be filled in later: by it, a correction points at itself.
_MAY_FOLLOW = "superseded_by"

_GONE = """
SELECT old.run_id FROM (SELECT * FROM all_runs WHERE folder = 0) AS old
ANTI JOIN (SELECT * FROM all_runs WHERE folder = 1) AS new USING (run_id)
ORDER BY old.run_id
"""

_ADDED = """
SELECT gpu, model, count(*) AS runs FROM (SELECT * FROM all_runs WHERE folder = 1) AS new
ANTI JOIN (SELECT * FROM all_runs WHERE folder = 0) AS old USING (run_id)
GROUP BY ALL
ORDER BY ALL
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """Runs that a release has and the one before had not."""

    gpu: str
    model: str | None  # null: kernels alone
    runs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """From one release to the next."""

    old: ReleaseRecord
    additions: tuple[Addition, ...]


def step_from(old: Path, new: Path) -> Step:
    """What the tables in ``new`` add to those of the release ``old``.

    Raises ``DatasetError`` where a run of ``old`` is gone or is another one now, and as ``read_record`` and
    ``open_dataset`` do.
    """
    record = read_record(old)
    with opened((open_dataset(old), open_dataset(new))) as connection:
        gone = [row[0] for row in connection.execute(_GONE).fetchall()]
        if gone:
            raise _broken(old, f"{len(gone)} of its runs are not in this one, the first is {gone[0]}", "gone")
        if (changed := _changed(connection)) is not None:
            raise _broken(old, f"run {changed} differs", "rewritten")
        found = connection.execute(_ADDED).fetchall()
    additions = tuple(Addition(gpu=gpu, model=model, runs=runs) for gpu, model, runs in found)
    return Step(old=record, additions=additions)


def _changed(connection: duckdb.DuckDBPyConnection) -> str | None:
    """A run that is another one than before."""
    columns = [column.name for column in columns_of(Table.RUNS) if column.name != _MAY_FOLLOW]
    differs = " OR ".join(f"old.{name} IS DISTINCT FROM new.{name}" for name in columns)
    query = f"""
        SELECT old.run_id
        FROM (SELECT * FROM all_runs WHERE folder = 0) AS old
        JOIN (SELECT * FROM all_runs WHERE folder = 1) AS new USING (run_id)
        WHERE {differs} OR (old.{_MAY_FOLLOW} IS NOT NULL AND old.{_MAY_FOLLOW} IS DISTINCT FROM new.{_MAY_FOLLOW})
        ORDER BY old.run_id
        LIMIT 1
    """  # noqa: S608  names of the schema, and nothing else
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _broken(old: Path, what: str, how: str) -> DatasetError:
    return DatasetError(
        f"This release would not continue {old}: {what}.\nRows of a release are never {how}: name all its dataset "
        f"folders and its --include words again; a correction adds a row and fills {_MAY_FOLLOW}."
    )
