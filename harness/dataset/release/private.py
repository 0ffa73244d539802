"""A last look before publishing: no row of a release may name a user's folder.

Contributions are scrubbed of much more (``contributions.scrubbing``). A maintainer's own campaigns are released as
they are, since rows are never rewritten; this keeps the one slip that is likely, a path on the command line, out.
"""

import duckdb

from harness.dataset.schema import Table, columns_of
from harness.errors import DatasetError

_HOME = r"""(^|[\s"'=:(\[])(/home/|/Users/|/ro{2}t/|[A-Za-z]:\\+Users\\+)[^\s"'/\\]+"""
_LOOKED_AT = {
    Table.RUNS: "SELECT * FROM all_runs SEMI JOIN chosen USING (run_id, folder)",
    Table.ENVIRONMENTS: "SELECT * FROM all_environments SEMI JOIN chosen USING (environment_id)",
}


def refuse_private(connection: duckdb.DuckDBPyConnection) -> None:
    """Raise ``DatasetError`` where a chosen run or its environment names a user's folder."""
    for table, rows in _LOOKED_AT.items():
        texts = [column.name for column in columns_of(table) if column.scalar is str and column.choices is None]
        cases = " ".join(f"WHEN regexp_matches({name}, $home) THEN '{name}'" for name in texts)
        query = f"SELECT CASE {cases} END AS found FROM ({rows}) WHERE found IS NOT NULL LIMIT 1"  # noqa: S608
        found = connection.execute(query, {"home": _HOME}).fetchone()
        if found is not None:
            raise DatasetError(
                f"column {found[0]} of {table.title} names a user's folder, and a release is public.\n"
                "Publish these runs with `python -m harness.submit`, which takes such names out, and release what "
                "`python -m harness.accept` makes of the bundle."
            )
