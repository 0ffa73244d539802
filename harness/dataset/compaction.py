"""Many small part files into few large ones, in bounded memory.

Nothing that exists is changed: the rows go into files of new names, which count only once a manifest lists them.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from harness.dataset.disk import Disk, publish, temporary
from harness.dataset.files import Written, damaged, file_sha256, parquet_sink, read_batches
from harness.dataset.layout import COMPACTED, Contents, files_of, table_folder
from harness.dataset.manifest import ListedFile
from harness.dataset.schema import Table

ROW_GROUP_ROWS = 262_144
ROW_GROUP_BYTES = 64 * 1024**2  # in memory
FULL_FILE_BYTES = 256 * 1024**2  # a file this large is finished
MERGE_BELOW_BYTES = 32 * 1024**2  # a smaller one is merged with what comes later


def compact(disk: Disk, folder: Path, contents: Contents) -> tuple[ListedFile, ...]:
    """Files that a new manifest should list: large ones as they are, small ones and parts merged into new ones.

    Raises ``OSError`` where the disk refuses, after removing what was written, and ``CorruptFile``.
    """
    written: list[Path] = []
    try:
        # Runs come last: a compacted file of runs then never stands without its other tables.
        tables = sorted(Table, key=lambda table: table is Table.RUNS)
        found = {table: _compact_table(disk, folder, contents, table, written) for table in tables}
    except Exception:
        for path in written:
            with suppress(OSError):
                disk.remove(temporary(path))
                disk.remove(path)
        raise
    return tuple(file for table in Table for file in found[table])


def _compact_table(
    disk: Disk, folder: Path, contents: Contents, table: Table, written: list[Path]
) -> tuple[ListedFile, ...]:
    listed = contents.manifest.files_of(table) if contents.manifest else ()
    parts = files_of(folder, contents, table)[len(listed) :]
    if not parts:
        return listed
    kept = tuple(file for file in listed if file.size_bytes >= MERGE_BELOW_BYTES)
    merged = [_intact(folder, file) for file in listed if file.size_bytes < MERGE_BELOW_BYTES]
    groups = _ahead(row_groups(batch for path in (*merged, *parts) for batch in read_batches(path, table)))
    new = tuple(_write_files(disk, folder, table, groups, written))
    return (*kept, *new)


def _intact(folder: Path, file: ListedFile) -> Path:
    """Path of a listed file, once its content is what the manifest promises: damage must not get a new hash."""
    path = folder / file.path
    if file_sha256(path) != file.sha256:
        raise damaged(path, "is not the file that manifest.json lists (its sha256 differs)")
    return path


def row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches of any size as tables of about one row group each."""
    held: list[pa.RecordBatch] = []
    rows = size_bytes = 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        size_bytes += batch.nbytes
        if rows >= ROW_GROUP_ROWS or size_bytes >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held, rows, size_bytes = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


def _ahead(groups: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same groups, each read while the one before is written."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, groups, None)
        while (group := coming.result()) is not None:
            coming = reader.submit(next, groups, None)
            yield group


def _write_files(
    disk: Disk, folder: Path, table: Table, groups: Iterator[pa.Table], written: list[Path]
) -> Iterator[ListedFile]:
    for group in groups:
        path = _next_path(folder, table)
        written.append(path)
        done = _write_file(disk, path, table, group, groups)
        publish(disk, path)
        yield ListedFile(
            table=table,
            path=path.relative_to(folder).as_posix(),
            sha256=done.sha256,
            size_bytes=done.size_bytes,
            rows=done.rows,
        )


def _write_file(disk: Disk, path: Path, table: Table, first: pa.Table, rest: Iterator[pa.Table]) -> Written:
    with parquet_sink(disk, path, table, lasting=True) as sink:
        sink.write(first)
        while sink.size_bytes < FULL_FILE_BYTES and (group := next(rest, None)) is not None:
            sink.write(group)
        return sink.finish()


def _next_path(folder: Path, table: Table) -> Path:
    """A name that no file here has, listed or not."""
    home = table_folder(folder, table)
    numbers = [path.stem.removeprefix(COMPACTED) for path in home.glob(f"{COMPACTED}*.parquet")]
    number = 1 + max((int(text) for text in numbers if text.isdigit()), default=-1)
    return home / f"{COMPACTED}{number:05d}.parquet"
