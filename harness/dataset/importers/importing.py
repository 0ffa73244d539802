"""What every importer is, and how its rows get into a dataset folder."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from harness.dataset.importers.account import Account, total
from harness.dataset.importers.agreement import (
    refuse_another_version,
    refuse_other_figures,
    refuse_other_provenance,
)
from harness.dataset.rows import arrow_table
from harness.dataset.schema import Row, Table
from harness.dataset.store import BulkTables, DatasetStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedBatch:
    """Runs with all that belongs to them, and the account of the source's rows they were made from."""

    tables: BulkTables | None  # None: every row was rejected
    account: Account


class Importer(Protocol):
    """Reads one public source. Class attributes or frozen fields do for the properties."""

    @property
    def name(self) -> str:
        """The word on the command line."""

    @property
    def summary(self) -> str:
        """One line: what it reads."""

    @property
    def licence(self) -> str | None:
        """SPDX identifier of the data's licence; None: none is stated, so what is imported stays on this machine."""

    def read(self, path: Path) -> Iterator[ImportedBatch]:
        """Read the upstream layout (a clone) or a folder with just the data files.

        A batch holds runs with all that belongs to them; a run comes in one batch only. Equal input gives equal
        run ids, whatever the machine and the path. Raises ``DatasetError`` where the source is not there, is damaged
        or has another layout.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What one import did to a dataset folder."""

    account: Account
    runs_new: int
    runs_there: int  # they were there already and were left as they are


def carry_over(batches: Iterable[ImportedBatch], store: DatasetStore) -> Carried:
    """Append to a dataset what it does not hold yet; the caller closes it.

    Raises as ``Importer.read`` and ``DatasetStore.append_tables`` do, and ``DatasetError`` where the dataset holds
    runs that were not imported, another version of the source, or the same runs with other figures.
    """
    refuse_other_provenance(store.folder)
    accounts, new, there = [], 0, 0
    for batch in batches:
        accounts.append(batch.account)
        if batch.tables is None:
            continue
        run_ids = batch.tables.runs.column("run_id").to_pylist()
        missing = [run_id for run_id in run_ids if not store.contains(run_id)]
        refuse_another_version(batch.tables, store.folder)
        if len(missing) < len(run_ids):
            refuse_other_figures(batch.tables, sorted(set(run_ids) - set(missing)), store.folder)
        if missing:
            store.append_tables(batch.tables if len(missing) == len(run_ids) else _only(batch.tables, missing))
        new += len(missing)
        there += len(run_ids) - len(missing)
    return Carried(account=total(accounts), runs_new=new, runs_there=there)


def _only(tables: BulkTables, run_ids: list[str]) -> BulkTables:
    """The rows of these runs. What several runs share stays: the store leaves out what it holds."""
    wanted = pa.array(run_ids, pa.string())
    kept: dict[str, pa.Table | None] = {}
    for field in fields(tables):
        arrow: pa.Table | None = getattr(tables, field.name)
        if arrow is not None and "run_id" in arrow.column_names:
            arrow = arrow.filter(pc.is_in(arrow.column("run_id"), wanted))
        kept[field.name] = arrow
    return BulkTables(**kept)


def bulk(**rows: Sequence[Row]) -> BulkTables:
    """Typed rows as tables; the words are the titles of the tables. Raises ``DatasetError``."""
    tables = {title: arrow_table(table_named(title), found) for title, found in rows.items() if found}
    return BulkTables(**tables)


def table_named(title: str) -> Table:
    """The table of this title."""
    return next(table for table in Table if table.title == title)


def content_id(*parts: str | float | bool | None) -> str:
    """Twenty hexadecimal digits that stand for these values and no others."""
    return sha256(json.dumps(parts, ensure_ascii=False, allow_nan=False).encode()).hexdigest()[:20]
