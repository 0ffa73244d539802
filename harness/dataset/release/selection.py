"""Which runs of the dataset folders are in a release, and under which file name."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from harness.dataset.reading import Dataset
from harness.dataset.release.database import number, opened
from harness.dataset.release.record import LeftOut
from harness.dataset.release.terms import WORDS_SQL, Inclusion, in_order
from harness.dataset.schema import Table, columns_of
from harness.errors import DatasetError

_LONGEST_SLUG = 80
_CHILDREN = tuple(table for table in Table if table.shared_key is None and table is not Table.RUNS)

# A run that several folders hold is judged, and later read, in the first of them.
_JUDGED = f"""
CREATE TEMP TABLE judged AS
SELECT runs.run_id, runs.folder, gpu, environment_id, runs.source, {WORDS_SQL} AS words
FROM all_runs AS runs
LEFT JOIN (
    SELECT source, folder, any_value(licence) AS licence FROM all_sources GROUP BY source, folder
) AS sources ON sources.source = runs.source AND sources.folder = runs.folder
QUALIFY row_number() OVER (PARTITION BY runs.run_id ORDER BY runs.folder) = 1
"""  # noqa: S608

_CHOSEN = """
CREATE TEMP TABLE chosen AS
SELECT run_id, folder, environment_id, source, stem, dense_rank() OVER (ORDER BY stem) AS file_part
FROM (
    SELECT judged.*, slug || coalesce('-' || nullif(array_to_string(words, '-'), ''), '') AS stem
    FROM judged JOIN slugs USING (gpu)
    WHERE list_has_all($asked, words)
)
"""

_LEFT_OUT = """
SELECT [word FOR word IN words IF NOT list_contains($asked, word)] AS needs, count(*) AS runs
FROM judged
WHERE NOT list_has_all($asked, words)
GROUP BY needs
ORDER BY runs DESC, needs
"""


def choose(connection: duckdb.DuckDBPyConnection, asked: Collection[Inclusion]) -> tuple[LeftOut, ...]:
    """Make the table ``chosen`` (run_id, folder, stem of its file names, file_part); returns what was left out.

    Raises ``DatasetError`` where nothing is chosen.
    """
    words = [str(word) for word in in_order(asked)]
    connection.execute(_JUDGED)
    gpus = [row[0] for row in connection.execute("SELECT DISTINCT gpu FROM judged").fetchall()]
    connection.register("slugs", pa.table({"gpu": pa.array(gpus, pa.string()), "slug": [slug(gpu) for gpu in gpus]}))
    connection.execute(_CHOSEN, {"asked": words})
    found = connection.execute(_LEFT_OUT, {"asked": words}).fetchall()
    left_out = tuple(LeftOut(needs=in_order(map(Inclusion, needs)), runs=runs) for needs, runs in found)
    if not number(connection, "SELECT count(*) FROM chosen"):
        raise _nothing_left(left_out)
    return left_out


def words_of_runs(dataset: Dataset) -> Mapping[str, tuple[Inclusion, ...]]:
    """Under which names each run of a dataset may leave it; none: it may leave as it is. Raises as ``opened`` does."""
    with opened((dataset,)) as connection:
        connection.execute(_JUDGED)
        found = connection.execute("SELECT run_id, words FROM judged").fetchall()
    return {run_id: in_order(map(Inclusion, words)) for run_id, words in found}


def slug(gpu: str) -> str:
    """A device in a file name.

    >>> slug("NVIDIA A100-SXM4-80GB"), slug("cpu: Example CPU @ 2.00GHz"), slug("???")
    ('nvidia-a100-sxm4-80gb', 'cpu-example-cpu-2-00ghz', 'unnamed')
    """
    text = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")[:_LONGEST_SLUG].strip("-")
    return text or "unnamed"


def refuse_conflicts(connection: duckdb.DuckDBPyConnection, folders: Sequence[Path]) -> None:
    """Rows with one key in several folders must be one row; raises ``DatasetError`` naming both folders."""
    if len(folders) < 2:
        return
    connection.execute(
        "CREATE TEMP TABLE shared_runs AS SELECT run_id FROM all_runs GROUP BY run_id HAVING count(DISTINCT folder) > 1"
    )
    if number(connection, "SELECT count(*) FROM shared_runs"):
        for table in (Table.RUNS, *_CHILDREN):
            _refuse_conflict(connection, table, "run_id", folders)
    for table in Table:
        if table.shared_key is not None:
            _refuse_conflict(connection, table, table.shared_key, folders)


def _refuse_conflict(connection: duckdb.DuckDBPyConnection, table: Table, key: str, folders: Sequence[Path]) -> None:
    """Compare what each folder holds under a key, by the sum of the hashes of its rows."""
    columns = ", ".join(column.name for column in columns_of(table))
    only = "SEMI JOIN shared_runs USING (run_id)" if table.shared_key is None else ""
    conflict = f"""
        SELECT key, arg_min(folder, content), arg_max(folder, content)
        FROM (
            SELECT {key} AS key, folder, sum(hash({columns})::HUGEINT) AS content
            FROM all_{table.title} {only}
            GROUP BY ALL
        )
        GROUP BY key
        HAVING count(DISTINCT content) > 1
        ORDER BY key
        LIMIT 1
    """  # noqa: S608  names of the schema, and nothing else
    found = connection.execute(conflict).fetchone()
    if found is not None:
        name, *places = found
        first, second = sorted(places)
        raise DatasetError(
            f"{folders[first]} and {folders[second]} both have rows of {table.title} for {key} {name!r}, and they "
            f"differ.\nOne of the folders was changed, or two sources bear one name: release them apart, or make one "
            f"of the folders anew."
        )


def _nothing_left(left_out: Sequence[LeftOut]) -> DatasetError:
    if not left_out:
        return DatasetError("There is no run in these folders.\nName the folder of a campaign or an import.")
    listed = "\n".join(f"  {left.runs} runs need --include {','.join(left.needs)}" for left in left_out)
    return DatasetError(
        f"Nothing is left to release: every run would have to be asked for by name.\n{listed}\n"
        "A release says these words in its title, on its card and in its file names."
    )
