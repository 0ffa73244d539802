"""From a dataset folder to what is published of it: the rows of some runs, under public ids, without private text.

Streams one table after the other, so memory does not grow with the campaign.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from harness import __version__
from harness.dataset.compaction import row_groups
from harness.dataset.contributions.bundle import Bundle, BundledFile
from harness.dataset.contributions.choosing import Chosen
from harness.dataset.contributions.columns import Sort, shape_of
from harness.dataset.contributions.identity import Identity, Kind
from harness.dataset.contributions.ids import (
    graph_of,
    public_campaign_id,
    public_device_sha256,
    public_run_id,
)
from harness.dataset.contributions.scrubbing import Scrubber
from harness.dataset.disk import Disk, refusals, temporary
from harness.dataset.files import parquet_sink
from harness.dataset.reading import Dataset
from harness.dataset.rows import arrow_table
from harness.dataset.schema import Table, arrow_schema, columns_of
from harness.models.shipped import shipped_ids
from harness.records import EnvironmentRow, GraphRow, RunRow, SourceRow
from harness.setup_records import environment_content_id

SharedT = TypeVar("SharedT", EnvironmentRow, GraphRow)
_SHARED = (Table.ENVIRONMENTS, Table.GRAPHS, Table.SOURCES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Files of the tables in a folder, and what was removed from them."""

    bundle: Bundle
    folder: Path
    removed: Mapping[Kind, int]

    def path(self, table: Table) -> Path:
        """File of a table."""
        return self.folder / f"{table.title}.parquet"


def publish(
    datasets: Sequence[Dataset],
    chosen: Chosen,
    folder: Path,
    *,
    lab: str,
    contact: str | None,
    identity: Identity,
) -> Published:
    """Write the published form of the chosen runs into a folder; raises ``CannotWrite`` and what reading raises."""
    publisher = _Publisher(datasets, chosen.runs, lab, identity)
    folder.mkdir(parents=True, exist_ok=True)
    needed_bytes = sum(file.path.stat().st_size for dataset in datasets for file in dataset.files)
    with refusals(Disk(), folder, needed_bytes):
        files = [_written(folder, table, publisher.tables(table)) for table in Table]
    bundle = Bundle(
        harness=__version__,
        lab=lab,
        contact=contact,
        gpu=chosen.gpu,
        created_utc=max(run.started_at_utc or "" for run in chosen.runs),
        files=tuple(file for file in files if file is not None),
    )
    return Published(bundle=bundle, folder=folder, removed=+publisher.scrubber.removed)


def _written(folder: Path, table: Table, found: Iterator[pa.Table]) -> BundledFile | None:
    path, disk = folder / f"{table.title}.parquet", Disk()
    batches = (batch for arrow in found for batch in arrow.to_batches())
    with parquet_sink(disk, path, table, lasting=True) as sink:
        for group in row_groups(batches):
            sink.write(group)
        done = sink.finish()
    if not done.rows:
        disk.remove(temporary(path))
        return None
    disk.replace(temporary(path), path)
    return BundledFile(table=table, sha256=done.sha256, size_bytes=done.size_bytes, rows=done.rows)


@dataclass(slots=True)
class _Publisher:
    """What every table needs to know: which runs are published, and under which ids everything goes."""

    datasets: Sequence[Dataset]
    runs: Sequence[RunRow]
    lab: str
    identity: Identity
    scrubber: Scrubber = field(init=False)
    run_ids: dict[str, str] = field(init=False)
    environment_ids: dict[str, str] = field(init=False, default_factory=dict)
    graph_ids: dict[str, str] = field(init=False, default_factory=dict)
    _shared: dict[Table, tuple[EnvironmentRow | GraphRow | SourceRow, ...]] = field(init=False, default_factory=dict)
    _known: dict[tuple[Table, str], dict[str, str]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.scrubber = Scrubber(self.identity, names=shipped_ids(), hashed=self._device)
        self.run_ids = {run.run_id: public_run_id(run.run_id, self.lab, run.started_at_utc) for run in self.runs}
        self._shared[Table.ENVIRONMENTS] = tuple(self._environments())
        self._shared[Table.GRAPHS] = tuple(self._graphs())
        self._shared[Table.SOURCES] = tuple(self._sources())

    def tables(self, table: Table) -> Iterator[pa.Table]:
        """The published rows of a table."""
        if table in _SHARED:
            yield arrow_table(table, self._shared[table])
            return
        seen: set[str] = set()
        for dataset in self.datasets:
            wanted = pa.array(sorted(self.run_ids.keys() - seen), pa.string())
            for batch in dataset.batches(table):
                kept = batch.filter(pc.is_in(batch.column("run_id"), wanted))
                if kept.num_rows:
                    yield self._published(table, pa.Table.from_batches([kept]))
            seen |= {row.run_id for row in dataset.rows(RunRow)}

    def _published(self, table: Table, arrow: pa.Table) -> pa.Table:
        arrays = []
        for column in columns_of(table):
            values = arrow.column(column.name)
            if column.name == "lab":
                values = pa.array([self.lab] * len(values), pa.string())
            elif column.scalar is str and column.choices is None:
                known = self._known.setdefault((table, column.name), {})
                values = _mapped(values, self._rule(table, column.name), known)
            arrays.append(values)
        return pa.Table.from_arrays(arrays, schema=arrow_schema(table))

    def _rule(self, table: Table, column: str) -> Callable[[str], str]:
        rules: Mapping[str, Callable[[str], str]] = {
            "run_id": self.run_ids.__getitem__,
            "environment_id": lambda text: self.environment_ids.get(text) or self.scrubber.text(text),
            "graph_id": lambda text: self.graph_ids.get(text) or self.scrubber.text(text),
            "campaign_id": lambda text: public_campaign_id(text, self.lab),
            "device_sha256": self._device,
        }
        return rules.get(column) or (lambda text: self._text(table, column, text))

    def _text(self, table: Table, column: str, text: str) -> str:
        shape = shape_of(table, column)
        if shape.sort is Sort.ID and shape.problem(text) is None:
            return text  # a hash or a time: nothing private has that form
        return self.scrubber.document(text) if shape.sort is Sort.DOCUMENT else self.scrubber.text(text)

    def _device(self, device_sha256: str) -> str:
        return public_device_sha256(device_sha256, self.lab)

    def _environments(self) -> Iterator[EnvironmentRow]:
        wanted = {run.environment_id for run in self.runs}
        for dataset in self.datasets:
            for row in dataset.rows(EnvironmentRow):
                if row.environment_id not in wanted or row.environment_id in self.environment_ids:
                    continue
                public = self._scrubbed(Table.ENVIRONMENTS, row)
                public = replace(public, environment_id=environment_content_id(public))
                new = public.environment_id not in self.environment_ids.values()
                self.environment_ids[row.environment_id] = public.environment_id
                if new:
                    yield public

    def _graphs(self) -> Iterator[GraphRow]:
        for dataset in self.datasets:
            wanted = self._graphs_wanted(dataset)
            for row in dataset.rows(GraphRow):
                if row.graph_id not in wanted or row.graph_id in self.graph_ids:
                    continue
                public = self._scrubbed(Table.GRAPHS, row)
                if public != row:
                    public = replace(public, graph_id=graph_of(public).graph_id)
                self.graph_ids[row.graph_id] = public.graph_id
                yield public

    def _graphs_wanted(self, dataset: Dataset) -> set[str | None]:
        wanted = pa.array(sorted(self.run_ids), pa.string())
        batches = dataset.batches(Table.PHASES, ("run_id", "graph_id"))
        return {
            graph_id
            for batch in batches
            for graph_id in batch.filter(pc.is_in(batch.column("run_id"), wanted)).column("graph_id").to_pylist()
        }

    def _sources(self) -> Iterator[SourceRow]:
        wanted = {run.source for run in self.runs}
        for dataset in self.datasets:
            for row in dataset.rows(SourceRow):
                if row.source in wanted:
                    wanted.remove(row.source)
                    yield row  # written by the harness, the same for everybody

    def _scrubbed(self, table: Table, row: SharedT) -> SharedT:
        texts = [column.name for column in columns_of(table) if column.scalar is str and column.choices is None]
        given = {name: getattr(row, name) for name in texts}
        known: dict[str, Any] = {
            name: self._text(table, name, text) for name, text in given.items() if text is not None
        }
        return replace(row, **known)


def _mapped(values: pa.ChunkedArray, rule: Callable[[str], str], known: dict[str, str]) -> pa.Array:
    """A column of text by a rule, which is asked once for each text."""
    encoded = pc.dictionary_encode(values.combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    texts = encoded.dictionary.to_pylist()
    for text in texts:
        if text not in known:
            known[text] = rule(text)
    return pa.array([known[text] for text in texts], pa.string()).take(encoded.indices)
