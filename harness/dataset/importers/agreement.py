"""Whether what is imported agrees with what a dataset folder holds. Rows are never rewritten, so it has to."""

from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from harness.dataset.layout import survey
from harness.dataset.reading import Dataset, dataset_of
from harness.dataset.schema import Table
from harness.dataset.store import BulkTables
from harness.errors import DatasetError
from harness.words import Provenance

# What tells one reading of a run from another one.
_FIGURES: Final = {
    Table.RUNS: ("run_id", "energy_j", "duration_s", "ttft_s", "tpot_s", "mean_power_w", "trials"),
    Table.PHASES: ("run_id", "phase", "energy_j", "duration_s", "trials"),
}


def refuse_other_provenance(folder: Path) -> None:
    """Raises ``DatasetError`` where a folder holds runs that were not imported: their campaign could not go on."""
    found = set(_held(folder).table(Table.RUNS, ("provenance",)).column(0).to_pylist())
    if others := found - {Provenance.IMPORTED}:
        raise DatasetError(
            f"{folder} holds runs that are {' and '.join(sorted(others))}, not imported ones.\n"
            f"Import into a folder of its own with --out; reports and releases take several folders."
        )


def refuse_another_version(tables: BulkTables, folder: Path) -> None:
    """Raises ``DatasetError`` where a folder holds the same source in another version; an unknown one may be any."""
    if tables.sources is None:
        return
    held = _versions(_held(folder).table(Table.SOURCES, ("source", "version")))
    for source, version in _versions(tables.sources).items():
        if version and held.get(source) not in (None, version):
            raise DatasetError(
                f"{folder} holds {source} of version {held[source]}, and this is version {version}.\n"
                f"Both together would count measurements twice: import this one into a folder of its own with --out."
            )


def refuse_other_figures(tables: BulkTables, run_ids: list[str], folder: Path) -> None:
    """Raises ``DatasetError`` where runs that are there already have other figures now: the data changed since."""
    dataset, wanted = _held(folder), pa.array(run_ids, pa.string())
    for table, columns in _FIGURES.items():
        given: pa.Table | None = getattr(tables, table.title)
        changed = _rows(given, columns, wanted) - _rows(dataset.table(table, columns), columns, wanted)
        if changed:
            raise DatasetError(
                f"{folder} holds {len({row[0] for row in changed}):,} of these runs with other figures: they were made "
                f"from other files, or the data changed since.\n"
                f"Rows are never rewritten: import into a new folder with --out."
            )


def _held(folder: Path) -> Dataset:
    return dataset_of(folder, survey(folder))


def _versions(table: pa.Table) -> dict[str, str | None]:
    return dict(zip(table.column("source").to_pylist(), table.column("version").to_pylist(), strict=True))


def _rows(table: pa.Table | None, columns: tuple[str, ...], run_ids: pa.Array) -> set[tuple[object, ...]]:
    if table is None:
        return set()
    chosen = table.filter(pc.is_in(table.column("run_id"), run_ids))
    return set(zip(*(chosen.column(name).to_pylist() for name in columns), strict=True))
