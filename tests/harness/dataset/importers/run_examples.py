"""What tests of the importers of runs share: everything an importer gives, as rows, and where the public data lie."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from harness.dataset.importers.account import Account, total
from harness.dataset.importers.importing import Importer
from harness.dataset.rows import rows_from_values
from harness.dataset.schema import RowT
from harness.records import EnvironmentRow, PhaseRow, ReadingRow, RunRow, SourceRow

SHARED = Path(__file__).resolve().parents[5] / "shared" / "data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """All rows of all batches, and the account of them all."""

    runs: tuple[RunRow, ...]
    phases: tuple[PhaseRow, ...]
    readings: tuple[ReadingRow, ...]
    environments: tuple[EnvironmentRow, ...]
    sources: tuple[SourceRow, ...]
    account: Account

    @property
    def rejected(self) -> Mapping[str, int]:
        """Rows by the rule that left them out."""
        return {rejection.rule: rejection.rows for rejection in self.account.rejections}

    @property
    def flagged(self) -> Mapping[str, int]:
        """Rows by the rule that flags them."""
        return {flag.rule: flag.rows for flag in self.account.flagged}

    def readings_of(self, run: RunRow) -> list[ReadingRow]:
        """Readings of one run, in order."""
        return [reading for reading in self.readings if reading.run_id == run.run_id]

    def environment_of(self, run: RunRow) -> EnvironmentRow:
        """The set-up of one run."""
        return next(row for row in self.environments if row.environment_id == run.environment_id)


def imported(importer: Importer, path: Path) -> Imported:
    """Everything an importer finds at a path."""
    batches = list(importer.read(path))
    tables = [batch.tables for batch in batches if batch.tables is not None]
    return Imported(
        runs=_rows(RunRow, [found.runs for found in tables]),
        phases=_rows(PhaseRow, [found.phases for found in tables]),
        readings=_rows(ReadingRow, [found.readings for found in tables]),
        environments=_rows(EnvironmentRow, [found.environments for found in tables]),
        sources=_rows(SourceRow, [found.sources for found in tables]),
        account=total(batch.account for batch in batches),
    )


def _rows(row_class: type[RowT], tables: list[pa.Table | None]) -> tuple[RowT, ...]:
    return tuple(
        row
        for arrow in tables
        if arrow is not None
        for row in rows_from_values(row_class, [column.to_pylist() for column in arrow.columns])
    )


def shared(folder: str) -> Path:
    """A folder of the public measurements; skips the test where it is not there."""
    path = SHARED / folder
    if not path.is_dir():
        pytest.skip(f"{path} is not there: public measurements are no part of the repository")
    return path


def assert_sound(found: Imported) -> None:
    """What holds for every source: the account closes, ids are unique, nothing refers to what is not there."""
    run_ids = [run.run_id for run in found.runs]
    assert found.account.rows_in == found.account.rows_kept + found.account.rows_rejected
    assert len(set(run_ids)) == len(run_ids)
    assert {phase.run_id for phase in found.phases} <= set(run_ids)
    assert {reading.run_id for reading in found.readings} <= set(run_ids)
    assert {run.environment_id for run in found.runs} == {row.environment_id for row in found.environments}
    assert {run.source for run in found.runs} == {row.source for row in found.sources}
    keys = [(row.run_id, row.part, row.trial, row.rank, row.meter) for row in found.readings]
    assert len(set(keys)) == len(keys)
    assert all(run.quality is None and run.configuration is None for run in found.runs)
    values = [value for rows in (found.runs, found.phases, found.readings) for value in _measured(rows)]
    assert all(value is None or value > 0 for value in values), "a missing value was written as 0"


def _measured(rows: Sequence[RunRow] | Sequence[PhaseRow] | Sequence[ReadingRow]) -> Iterator[float | None]:
    for row in rows:
        yield row.energy_j
        yield row.duration_s
