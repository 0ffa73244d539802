"""Writing a dataset folder: run by run, each wholly or not at all, whatever interrupts it.

A run is written as one part file per table under temporary names. All but the one in ``runs`` get their names, all are
waited for until they are on the disk, and only then the one in ``runs`` gets its name: with that name the run is in.
``close`` compacts the parts into a few large files and replaces ``manifest.json``: from then on those files count, not
the parts. ``layout`` says what a crash at any of these steps leaves behind; ``open`` removes it. One process writes a
folder at a time; the campaign's lock sees to that.
"""

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from harness import __version__
from harness.dataset.card import CARD_MARK, PartPattern, RunFacts, card_text, run_facts
from harness.dataset.compaction import ROW_GROUP_ROWS, compact
from harness.dataset.disk import Disk, refusals, temporary, write_text
from harness.dataset.files import parquet_sink
from harness.dataset.layout import BULK, CARD, PART, Contents, files_of, survey, table_folder
from harness.dataset.manifest import MANIFEST, Manifest, manifest_text
from harness.dataset.reading import Dataset, dataset_of, open_dataset
from harness.dataset.rows import arrow_table, conformed, rows_from_values, unfit
from harness.dataset.schema import Table
from harness.errors import CannotWrite, OtherCampaign
from harness.records import SCHEMA_VERSION, Measurement, RunRow

_SMALL_BYTES = 1024**2  # room for the card and the manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class BulkTables:
    """Whole tables from elsewhere, in the columns of the schema: runs and everything that belongs to them."""

    runs: pa.Table
    phases: pa.Table | None = None
    kernels: pa.Table | None = None
    kernel_energies: pa.Table | None = None
    graphs: pa.Table | None = None
    readings: pa.Table | None = None
    rank_times: pa.Table | None = None
    power_traces: pa.Table | None = None
    environments: pa.Table | None = None
    sources: pa.Table | None = None


class DatasetStore:
    """A dataset folder being written; get one from ``open``. As a context manager it closes unless an error leaves."""

    def __init__(self, folder: Path, disk: Disk, campaign_id: str | None, dataset: Dataset) -> None:
        self.folder = folder
        self._disk = disk
        self._campaign_id = campaign_id
        self._manifest = dataset.manifest
        self._facts: Counter[RunFacts] = Counter()
        self._run_ids: set[str] = set()
        self._patterns: set[PartPattern] = set()
        self._shared_ids: dict[Table, set[str]] = {}
        self._take_stock(dataset)

    @classmethod
    def open(cls, folder: Path, *, campaign_id: str | None = None, disk: Disk | None = None) -> Self:
        """Open a folder for writing, new or not, and remove what a crash left over.

        With ``campaign_id`` the folder may hold runs of that campaign only. Raises ``OtherCampaign``, ``CannotWrite``,
        ``CorruptFile`` and ``NewerSchema``; nothing that was there is touched then.
        """
        disk = disk or Disk()
        with refusals(disk, folder, _SMALL_BYTES):
            disk.make_folder(folder)
        contents = survey(folder)
        _spare_a_foreign_card(folder, contents)
        store = cls(folder, disk, campaign_id, dataset_of(folder, contents))
        with refusals(disk, folder, _SMALL_BYTES):
            _make_folders(disk, folder)
            for path in contents.leftovers:
                disk.remove(path)
            store._write_card()
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def contains(self, run_id: str) -> bool:
        """Whether this run is recorded, in whatever way it ended."""
        return run_id in self._run_ids

    def finished_run_ids(self) -> frozenset[str]:
        """All runs recorded, in whatever way they ended."""
        return frozenset(self._run_ids)

    def append(self, measurement: Measurement) -> None:
        """Record a run, wholly or not at all; when this returns it survives a power cut.

        Raises ``CannotWrite``, and ``DatasetError`` for a run that is there already or a value no column can hold.
        After ``CannotWrite`` the run is there only if ``contains`` says so: then just the card could not be renewed.
        """
        rows = {table: table.rows_of(measurement) for table in Table}
        tables = {table: arrow_table(table, found) for table, found in rows.items() if found}
        run_id = measurement.run.run_id
        if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", run_id) is None:
            raise unfit(Table.RUNS, "run_id", f"{run_id!r} cannot be part of a file name")
        self._commit(PART, run_id, tables, [measurement.run])

    def append_tables(self, tables: BulkTables) -> None:
        """Record many runs at once, all or none; for importers. Raises as ``append`` does."""
        given = {table: getattr(tables, table.title) for table in Table}
        fitted = {table: conformed(table, arrow) for table, arrow in given.items() if arrow is not None}
        runs = rows_from_values(RunRow, [column.to_pylist() for column in fitted[Table.RUNS].columns])
        name = sha256("\n".join(sorted(row.run_id for row in runs)).encode()).hexdigest()[:32]
        self._commit(BULK, name, fitted, list(runs))

    def close(self) -> Dataset:
        """Compact what was appended and write the manifest; the folder can be opened and appended to again.

        Raises ``CannotWrite`` and ``CorruptFile``; every recorded run is still there then.
        """
        contents = survey(self.folder)
        with refusals(self._disk, self.folder, _compaction_bytes(self.folder, contents)):
            if contents.parts or contents.manifest is None:
                self._seal(contents)
            # The card names the files, so it changes before the parts it named go.
            self._write_card()
            for path in survey(self.folder).leftovers:
                self._disk.remove(path)
        return open_dataset(self.folder)

    def _take_stock(self, dataset: Dataset) -> None:
        for row in dataset.rows(RunRow):
            self._check_campaign(row.campaign_id)
            self._facts[run_facts(row)] += 1
            self._run_ids.add(row.run_id)
        for table in Table:
            if table.shared_key is not None:
                self._shared_ids[table] = set(dataset.table(table, (table.shared_key,)).column(0).to_pylist())
        for file in dataset.files:
            prefixes = [prefix for prefix in (PART, BULK) if file.path.name.startswith(prefix)]
            self._patterns.update(PartPattern(table=file.table, prefix=prefix) for prefix in prefixes)
        if dataset.manifest is not None:
            self._check_campaign(dataset.manifest.campaign_id)

    def _check_campaign(self, found: str | None) -> None:
        if self._campaign_id is not None and found not in (None, self._campaign_id):
            raise OtherCampaign(
                f"{self.folder} holds campaign {found}, not {self._campaign_id}: the plan is another one.\n"
                f"Choose another folder with --out, or use the plan this folder was made with."
            )

    def _commit(self, prefix: str, name: str, tables: Mapping[Table, pa.Table], runs: list[RunRow]) -> None:
        self._check_runs(runs)
        new = {table: self._unshared(table, arrow) for table, arrow in tables.items()}
        new = {table: arrow for table, arrow in new.items() if arrow.num_rows}
        _check_references(new, [row.run_id for row in runs])
        needed_bytes = _SMALL_BYTES + sum(arrow.nbytes for arrow in new.values())
        with refusals(self._disk, self.folder, needed_bytes):
            self._write_part(f"{prefix}{name}.parquet", new)
        self._facts.update(run_facts(row) for row in runs)
        self._run_ids.update(row.run_id for row in runs)
        patterns = {PartPattern(table=table, prefix=prefix) for table in new}
        renew_card = not patterns <= self._patterns
        self._patterns |= patterns
        for table in new.keys() & self._shared_ids.keys():
            self._shared_ids[table].update(new[table].column(table.shared_key).to_pylist())
        if renew_card:
            with refusals(self._disk, self.folder, needed_bytes):
                self._write_card()

    def _check_runs(self, runs: list[RunRow]) -> None:
        run_ids = [row.run_id for row in runs]
        if len(set(run_ids)) < len(run_ids) or not self._run_ids.isdisjoint(run_ids) or not run_ids:
            raise unfit(Table.RUNS, "run_id", "no run, or a run that is there already; runs are recorded once")
        for row in runs:
            self._check_campaign(row.campaign_id)

    def _unshared(self, table: Table, arrow: pa.Table) -> pa.Table:
        """Rows that are not stored yet, of a table whose rows several runs share."""
        if table.shared_key is None:
            return arrow
        keys = arrow.column(table.shared_key).to_pylist()
        first_places = {key: place for place, key in reversed(list(enumerate(keys)))}
        new = sorted(place for key, place in first_places.items() if key not in self._shared_ids[table])
        return arrow.take(pa.array(new, pa.int64()))

    def _write_part(self, name: str, tables: Mapping[Table, pa.Table]) -> None:
        paths = {table: table_folder(self.folder, table) / name for table in tables}
        *others, runs = sorted(tables, key=lambda table: table is Table.RUNS)
        try:
            for table in tables:
                with parquet_sink(self._disk, paths[table], table, lasting=False) as sink:
                    for start in range(0, tables[table].num_rows, ROW_GROUP_ROWS):
                        sink.write(tables[table].slice(start, ROW_GROUP_ROWS))
                    sink.finish()
            # Names of other tables mean nothing before the one in runs: they are waited for with the content.
            for table in others:
                self._disk.replace(temporary(paths[table]), paths[table])
            content = [*(paths[table] for table in others), temporary(paths[runs])]
            self._disk.sync([*content, *(paths[table].parent for table in others)])
            self._disk.replace(temporary(paths[runs]), paths[runs])
            self._disk.sync([paths[runs].parent])
        except OSError:
            self._discard([paths[runs], *(paths[table] for table in others)])
            raise

    def _discard(self, paths: list[Path]) -> None:
        for path in paths:
            with suppress(OSError):
                self._disk.remove(path)
                self._disk.remove(temporary(path))

    def _write_card(self) -> None:
        write_text(self._disk, self.folder / CARD, card_text(self._facts, self._manifest, self._patterns))

    def _seal(self, contents: Contents) -> None:
        manifest = Manifest(
            schema_version=SCHEMA_VERSION,
            campaign_id=self._campaign_id,
            harness=__version__,
            created_utc=contents.manifest.created_utc if contents.manifest else datetime.now(UTC).isoformat(),
            files=compact(self._disk, self.folder, contents),
        )
        write_text(self._disk, self.folder / MANIFEST, manifest_text(manifest))
        self._manifest = manifest
        self._patterns.clear()


def _spare_a_foreign_card(folder: Path, contents: Contents) -> None:
    """A folder that is no dataset yet may be somebody's project, whose README.md is not ours to replace."""
    card = folder / CARD
    if contents.manifest or contents.parts or not card.exists():
        return
    if CARD_MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise CannotWrite(
            f"{card} is there and is no card of a dataset; writing a dataset here would replace it.\n"
            f"Choose an empty folder."
        )


def _make_folders(disk: Disk, folder: Path) -> None:
    missing = [home for home in (table_folder(folder, table) for table in Table) if not home.is_dir()]
    for home in missing:
        disk.make_folder(home)
    if missing:
        disk.sync([missing[0].parent, folder])


def _check_references(tables: Mapping[Table, pa.Table], run_ids: list[str]) -> None:
    known = pa.array(run_ids, pa.string())
    for table, arrow in tables.items():
        if "run_id" in arrow.column_names and not pc.all(pc.is_in(arrow.column("run_id"), known)).as_py():
            raise unfit(table, "run_id", "a row belongs to a run that is not recorded with it")


def _compaction_bytes(folder: Path, contents: Contents) -> int:
    sizes = [path.stat().st_size for table in Table for path in files_of(folder, contents, table)]
    return _SMALL_BYTES + sum(sizes)
