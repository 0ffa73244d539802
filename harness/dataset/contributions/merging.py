"""New rows into a release, as new files; no file that is there is changed.

The same steps as those of a campaign's store (see ``harness.dataset.store``), so every reader understands what a crash
at any of them leaves behind:

    1. the rows are written as one part per table, under temporary names, and waited for
    2. the parts get their names, that of ``runs`` last: with it the rows are in, and before it they are not
    3. each part is copied to a file ``data-<gpu>-<number>.parquet`` beside the others
    4. ``manifest.json`` is replaced by one that lists those files too
    5. the parts are removed

A part that a crash left after step 2 is carried on with from step 3 by the next merge.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harness import __version__
from harness.dataset.compaction import row_groups
from harness.dataset.disk import Disk, publish, refusals, temporary, write_text
from harness.dataset.files import file_sha256, parquet_sink, read_batches
from harness.dataset.layout import BULK, COMPACTED, Contents, Part, survey, table_folder
from harness.dataset.manifest import MANIFEST, ListedFile, Manifest, manifest_text
from harness.dataset.reading import Dataset, dataset_of
from harness.dataset.release.selection import slug
from harness.dataset.release.terms import Inclusion, suffix
from harness.dataset.rows import rows_from_values
from harness.dataset.schema import Table
from harness.errors import DatasetError
from harness.records import Provenance, Quality, RunRow

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a merge added to a release."""

    files: tuple[ListedFile, ...]

    def rows_of(self, table: Table) -> int:
        """Rows added to a table."""
        return sum(file.rows for file in self.files if file.table is table)


def merge(dataset: Dataset, release: Path, name: str, disk: Disk) -> Merged:
    """Add the rows of a dataset to a release; ``name`` is that of its parts, letters and digits.

    The caller has made sure that no run is there already and that shared rows agree, and holds the release's lock.
    Raises ``CannotWrite`` and what reading the release raises. Until then all rows are in, or none.
    """
    needed_bytes = 3 * sum(file.path.stat().st_size for file in dataset.files)
    contents = tidy(release, disk)
    there = dataset_of(release, contents)
    with refusals(disk, release, needed_bytes):
        _commit(dataset, there, release, f"{BULK}{name}.parquet", disk)
        return Merged(files=_seal(release, survey(release), disk))


def tidy(release: Path, disk: Disk) -> Contents:
    """Finish what a crash interrupted, remove what it left over, and say what the release holds then."""
    contents = survey(release)
    if contents.manifest is None:
        raise DatasetError(f"{release} is no release: it has no {MANIFEST}.\nName the folder that release made.")
    with refusals(disk, release, sum(path.stat().st_size for path in contents.leftovers)):
        if contents.parts:
            _seal(release, contents, disk)
            contents = survey(release)
        for path in contents.leftovers:
            disk.remove(path)
    return contents if not contents.leftovers else survey(release)


def stem_of(run: RunRow) -> str:
    """What the file names of a run's rows say: its device, and the words without which it is not released."""
    return f"{slug(run.gpu)}{suffix(words_of(run))}"


def words_of(run: RunRow) -> frozenset[Inclusion]:
    """Words by which a release must have been asked to hold this run."""
    found = {
        Inclusion.SIMULATED: run.provenance is Provenance.SIMULATED,
        Inclusion.ESTIMATED: run.provenance is Provenance.ESTIMATED,
        Inclusion.QUICK: run.quality is Quality.QUICK,
    }
    return frozenset(word for word, applies in found.items() if applies)


def _commit(dataset: Dataset, there: Dataset, release: Path, name: str, disk: Disk) -> None:
    written: list[Path] = []
    try:
        for table in sorted(Table, key=lambda table: table is Table.RUNS):
            path = table_folder(release, table) / name
            disk.make_folder(path.parent)
            if _write_part(disk, path, table, _new_rows(table, dataset, there)):
                written.append(path)
        *others, runs = written
        disk.sync([temporary(path) for path in written])
        for path in others:
            disk.replace(temporary(path), path)
        disk.sync([path.parent for path in others])
        disk.replace(temporary(runs), runs)
        disk.sync([runs.parent])
    except OSError:
        for path in reversed(written):
            with suppress(OSError):
                disk.remove(path)
        raise


def _write_part(disk: Disk, path: Path, table: Table, batches: Iterator[pa.RecordBatch]) -> bool:
    with parquet_sink(disk, path, table, lasting=True) as sink:
        for group in row_groups(batches):
            sink.write(group)
        rows = sink.finish().rows
    if not rows:
        disk.remove(temporary(path))
    return rows > 0


def _new_rows(table: Table, dataset: Dataset, there: Dataset) -> Iterator[pa.RecordBatch]:
    if table.shared_key is None:
        yield from dataset.batches(table)
        return
    known = there.table(table, (table.shared_key,)).column(0).combine_chunks()
    for batch in dataset.batches(table):
        new = batch.filter(pc.invert(pc.is_in(batch.column(table.shared_key), known)))
        if new.num_rows:
            yield new


def _seal(release: Path, contents: Contents, disk: Disk) -> tuple[ListedFile, ...]:
    """Give committed parts their lasting names, list them, and remove the parts."""
    if contents.manifest is None:
        return ()
    files: list[ListedFile] = []
    for part in contents.parts:
        files += _lasting_files(release, part, disk)
    write_text(disk, release / MANIFEST, manifest_text(_continued(contents.manifest, files)))
    for part in contents.parts:
        for table in sorted(Table, key=lambda table: table is not Table.RUNS):
            disk.remove(table_folder(release, table) / part.name)
    return tuple(files)


def _lasting_files(release: Path, part: Part, disk: Disk) -> Iterator[ListedFile]:
    stem = _stem(table_folder(release, Table.RUNS) / part.name)
    for table in sorted(Table, key=lambda table: table is Table.RUNS):
        source = table_folder(release, table) / part.name
        if not source.is_file():
            continue
        target = _next_path(release, table, stem)
        with source.open("rb") as old, disk.open_new(temporary(target)) as new:
            while chunk := old.read(_CHUNK_BYTES):
                new.write(chunk)
        publish(disk, target)
        yield ListedFile(
            table=table,
            path=target.relative_to(release).as_posix(),
            sha256=file_sha256(target),
            size_bytes=target.stat().st_size,
            rows=pq.read_metadata(target).num_rows,
        )


def _stem(runs: Path) -> str:
    """The runs of a part are of one device; where they differ in other ways, the first one says how they are named."""
    batch = next(iter(read_batches(runs, Table.RUNS)))
    return min(stem_of(run) for run in rows_from_values(RunRow, [column.to_pylist() for column in batch.columns]))


def _next_path(release: Path, table: Table, stem: str) -> Path:
    """A name that no file here has, listed or not. Shared rows are of no device."""
    home = table_folder(release, table)
    start = COMPACTED if table.shared_key is not None else f"{COMPACTED}{stem}-"
    taken = [path.name.removeprefix(start).removesuffix(".parquet") for path in home.glob(f"{start}*.parquet")]
    number = 1 + max((int(text) for text in taken if text.isdigit()), default=-1)
    return home / f"{start}{number:05d}.parquet"


def _continued(manifest: Manifest, files: list[ListedFile]) -> Manifest:
    listed = {table: [*manifest.files_of(table), *(file for file in files if file.table is table)] for table in Table}
    return replace(manifest, harness=__version__, files=tuple(file for table in Table for file in listed[table]))
