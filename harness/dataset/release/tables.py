"""Writing the tables of a release: sorted, one file per GPU (and word), in memory that does not grow with the rows."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import duckdb
import pyarrow as pa

from harness.dataset.compaction import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from harness.dataset.disk import Disk, publish
from harness.dataset.files import Written, parquet_sink
from harness.dataset.layout import COMPACTED, table_folder
from harness.dataset.manifest import ListedFile
from harness.dataset.schema import Table, arrow_schema, columns_of

# A row group is at most 64 MiB in memory and smaller in the file, so a file ends below 256 MiB.
FULL_FILE_BYTES = 192 * 1024**2
# Row groups are put together from pieces of this many rows, so that they end at the same rows in every build.
PIECE_ROWS = 2048
BATCH_ROWS = 65_536

# What sorts the rows within a file; together with the run, unique.
_ORDER = {
    Table.RUNS: "model, batch_size, prompt_tokens, output_tokens, run_id",
    Table.PHASES: "run_id, phase DESC",
    # Kernels of a graph in its order. Others, whose ids are hashes, by what they are: by id they take 60 % more space.
    Table.KERNELS: "run_id, phase DESC, rank, graph_kernel, kind, op, dtype, variant, shape, kernel_id",
    Table.KERNEL_ENERGIES: "run_id, phase DESC, rank, kernel_id, method",
    Table.READINGS: "run_id, part, trial, rank, meter, started_s, kernels, energy_j",
    Table.RANK_TIMES: "run_id, part, trial, rank",
    Table.POWER_TRACES: "run_id, rank, t_s",
}
# Rows that several runs share are in one file, and only if a run of the release needs them.
_NEEDED = {
    Table.GRAPHS: "SELECT graph_id FROM all_phases JOIN chosen USING (run_id, folder)",
    Table.ENVIRONMENTS: "SELECT environment_id FROM chosen",
    Table.SOURCES: "SELECT source FROM chosen",
}


def write_tables(connection: duckdb.DuckDBPyConnection, disk: Disk, out: Path) -> tuple[ListedFile, ...]:
    """Write the rows of the runs in ``chosen`` (see ``selection``) of every table; raises ``OSError``."""
    stems = dict(connection.execute("SELECT DISTINCT file_part, '-' || stem FROM chosen").fetchall())
    listed: list[ListedFile] = []
    for table in Table:
        for part, batches in groupby(_parts(_batches(connection, table)), key=lambda found: found[0]):
            groups = row_groups(batch for _, batch in batches)
            listed += _write_files(disk, out, table, stems.get(part, ""), groups)
    return tuple(listed)


def _batches(connection: duckdb.DuckDBPyConnection, table: Table) -> Iterator[pa.RecordBatch]:
    """The rows in the order of the files; the first column is the part, 0 for what is in one file."""
    columns = ", ".join(f"rows.{column.name}" for column in columns_of(table))
    if table.shared_key is None:
        query = f"""
            SELECT file_part, {columns} FROM all_{table.title} AS rows JOIN chosen USING (run_id, folder)
            ORDER BY file_part, {_ORDER[table]}
        """  # noqa: S608  names of the schema, and nothing else
    else:
        key = table.shared_key
        query = f"""
            SELECT 0 AS file_part, {columns} FROM all_{table.title} AS rows
            WHERE {key} IN ({_NEEDED[table]})
            QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY folder) = 1
            ORDER BY {key}
        """  # noqa: S608
    yield from connection.sql(query).to_arrow_reader(BATCH_ROWS)


def _parts(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches, cut where the part changes, without their first column."""
    for batch in batches:
        parts = batch.column(0).to_pylist()
        start = 0
        for part, rows in groupby(parts):
            length = sum(1 for _ in rows)
            cut = batch.slice(start, length)
            yield part, pa.RecordBatch.from_arrays(cut.columns[1:], names=cut.schema.names[1:])
            start += length


def row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches of any size as row groups that depend on the rows alone: at most 262,144 of them, or about 64 MiB."""
    held: list[pa.Table] = []
    rows = size_bytes = 0
    for piece in _pieces(batches):
        held.append(piece)
        rows += piece.num_rows
        size_bytes += piece.nbytes
        if rows >= ROW_GROUP_ROWS or size_bytes >= ROW_GROUP_BYTES:
            yield pa.concat_tables(held)
            held, rows, size_bytes = [], 0, 0
    if held:
        yield pa.concat_tables(held)


def _pieces(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows, so many at a time; only the last piece is shorter."""
    waiting: pa.Table | None = None
    for batch in batches:
        arrow = pa.Table.from_batches([batch])
        arrow = arrow if waiting is None else pa.concat_tables([waiting, arrow])
        whole = arrow.num_rows // PIECE_ROWS * PIECE_ROWS
        for start in range(0, whole, PIECE_ROWS):
            yield arrow.slice(start, PIECE_ROWS).combine_chunks()
        waiting = arrow.slice(whole)
    if waiting is not None and waiting.num_rows:
        yield waiting.combine_chunks()


def _write_files(disk: Disk, out: Path, table: Table, stem: str, groups: Iterator[pa.Table]) -> Iterator[ListedFile]:
    home = table_folder(out, table)
    for number, group in enumerate(groups):
        disk.make_folder(home)
        path = home / f"{COMPACTED.rstrip('-')}{stem}-{number:05d}.parquet"
        done = _write_file(disk, path, table, group, groups)
        publish(disk, path)
        yield ListedFile(
            table=table,
            path=path.relative_to(out).as_posix(),
            sha256=done.sha256,
            size_bytes=done.size_bytes,
            rows=done.rows,
        )


def _write_file(disk: Disk, path: Path, table: Table, first: pa.Table, rest: Iterator[pa.Table]) -> Written:
    with parquet_sink(disk, path, table, lasting=True) as sink:
        sink.write(_fitted(table, first))
        while sink.size_bytes < FULL_FILE_BYTES and (group := next(rest, None)) is not None:
            sink.write(_fitted(table, group))
        return sink.finish()


def _fitted(table: Table, arrow: pa.Table) -> pa.Table:
    """In the types of the schema: DuckDB has text types of its own and knows no column that is never null."""
    schema = arrow_schema(table)
    return pa.Table.from_arrays([arrow.column(field.name).cast(field.type) for field in schema], schema=schema)
