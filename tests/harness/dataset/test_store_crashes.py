"""Whatever step a crash or a full disk hits, no recorded run is lost, none is half there, none is there twice."""

import errno
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pytest

from harness.dataset.disk import Disk
from harness.dataset.layout import survey
from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.rows import arrow_table
from harness.dataset.schema import Table
from harness.dataset.store import DatasetStore
from harness.errors import CannotWrite, DatasetError
from harness.records import Measurement

Examples = Callable[..., tuple[Measurement, ...]]


class PowerCut(BaseException):
    """The process is gone: nothing after this touches the disk."""


class FaultyFile(io.FileIO):
    """A file the second write of which is a step: by then something of it is on the disk, and not all."""

    def __init__(self, path: Path, disk: "FaultyDisk") -> None:
        super().__init__(path, "w")
        self._disk = disk
        self._writes = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._writes += 1
        if self._writes == 2:
            self._disk.step()
        return super().write(data)


class FaultyDisk(Disk):
    """Counts steps and stops at one of them.

    With an error it raises that once. Without, it is dead from then on, what was not synced is lost: files keep half
    of their content, and if ``forgetful`` names made, replaced or removed are as they were when last synced.
    """

    def __init__(self, stop_at: int = 0, error: OSError | None = None, *, forgetful: bool = False) -> None:
        self.steps = 0
        self._stop_at = stop_at
        self._error = error
        self._forgetful = forgetful
        self._dead = False
        self._unsynced: set[Path] = set()
        self._undo: list[tuple[Path, Path, bytes | None]] = []  # folder, path, content before

    def step(self) -> None:
        if self._dead:
            raise PowerCut
        self.steps += 1
        if self.steps != self._stop_at:
            return
        if self._error is not None:
            raise self._error
        self._dead = True
        self._lose()
        raise PowerCut

    def make_folder(self, path: Path) -> None:
        self.step()
        super().make_folder(path)

    def open_new(self, path: Path) -> BinaryIO:
        self.step()
        self._unsynced.add(path)
        return cast("BinaryIO", FaultyFile(path, self))

    def sync(self, paths: Sequence[Path]) -> None:
        for path in paths:
            self.step()
            self._unsynced.discard(path)
            self._undo = [entry for entry in self._undo if entry[0] != path]

    def replace(self, source: Path, target: Path) -> None:
        self.step()
        self._remember(source)
        self._remember(target)
        if source in self._unsynced:
            self._unsynced.add(target)
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self.step()
        self._remember(path)
        super().remove(path)

    def free_bytes(self, path: Path) -> int:
        return 12 * 1024**2

    def _remember(self, path: Path) -> None:
        self._undo.append((path.parent, path, path.read_bytes() if path.exists() else None))

    def _lose(self) -> None:
        for path in self._unsynced:
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        for _, path, content in reversed(self._undo if self._forgetful else []):
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.write_bytes(content)


Content = dict[str, list[str]]


def content_of(dataset: Dataset) -> Content:
    """Every row of every table, in an order of its own."""
    return {table.title: sorted(map(repr, dataset.table(table).to_pylist())) for table in Table}


def content_of_measurements(*measurements: Measurement) -> Content:
    """What a dataset with just these measurements must hold."""
    content = {}
    for table in Table:
        arrow = [arrow_table(table, table.rows_of(measurement)) for measurement in measurements]
        rows = [repr(row) for row in pa.concat_tables(arrow).to_pylist()] if arrow else []
        content[table.title] = sorted(set(rows) if table.shared_key else rows)
    return content


class Session:
    """What a campaign does that is resumed once: a run, closing, another run, closing."""

    def __init__(self, folder: Path, measurements: tuple[Measurement, ...]) -> None:
        self.folder = folder
        self.measurements = measurements
        self.recorded: set[str] = set()
        self.attempted: set[str] = set()

    def carry_out(self, disk: FaultyDisk) -> None:
        """Record what is missing, as a resumed campaign would."""
        for batch in (self.measurements[:1], self.measurements[1:]):
            store = DatasetStore.open(self.folder, disk=disk)
            for measurement in batch:
                if not store.contains(measurement.run.run_id):
                    self.attempted.add(measurement.run.run_id)
                    store.append(measurement)
                    self.recorded.add(measurement.run.run_id)
            store.close()


@pytest.fixture
def two_runs(example_measurements: Examples) -> tuple[Measurement, ...]:
    """In one environment, with graphs in common, and with few tables, because every step is tried."""
    first, second = (example_measurements(kernels_per_phase=2)[number] for number in (0, 2))
    return tuple(
        replace(measurement, phases=(), kernel_energies=(), readings=(), rank_times=(), power_traces=())
        for measurement in (first, second)
    )


def run_ids_of(folder: Path) -> list[str]:
    """Runs that a reader sees, in files as they are."""
    try:
        dataset = open_dataset(folder)
    except DatasetError:  # nothing is recorded yet
        return []
    return list(dataset.table(Table.RUNS, ("run_id",)).column(0).to_pylist())


def test_a_power_cut_at_any_step_loses_nothing_and_doubles_nothing(
    tmp_path: Path, two_runs: tuple[Measurement, ...]
) -> None:
    undisturbed = FaultyDisk()
    Session(tmp_path / "undisturbed", two_runs).carry_out(undisturbed)
    by_id = {measurement.run.run_id: measurement for measurement in two_runs}
    assert undisturbed.steps > 80

    for stop_at in range(1, undisturbed.steps + 1):
        session = Session(tmp_path / str(stop_at), two_runs)
        with pytest.raises(PowerCut):
            session.carry_out(FaultyDisk(stop_at, forgetful=bool(stop_at % 2)))
        with suppress(PowerCut):  # the recovery is cut too, at some step of it
            session.carry_out(FaultyDisk(1 + stop_at % 23))

        run_ids = run_ids_of(session.folder)
        assert session.recorded <= set(run_ids) <= session.attempted, stop_at
        if run_ids:
            assert content_of(open_dataset(session.folder)) == content_of_measurements(
                *map(by_id.__getitem__, run_ids)
            ), stop_at
        session.carry_out(FaultyDisk())
        assert content_of(open_dataset(session.folder)) == content_of_measurements(*two_runs), stop_at
        assert survey(session.folder).leftovers == (), stop_at


def test_a_full_disk_at_any_step_is_an_error_after_which_the_same_store_goes_on(
    tmp_path: Path, two_runs: tuple[Measurement, ...]
) -> None:
    undisturbed = FaultyDisk()
    Session(tmp_path / "undisturbed", two_runs).carry_out(undisturbed)

    for stop_at in range(1, undisturbed.steps + 1):
        session = Session(tmp_path / str(stop_at), two_runs)
        disk = FaultyDisk(stop_at, OSError(errno.ENOSPC, "No space left on device"))
        # A failed clean-up of something else is no error; a full disk that stops the work is.
        with suppress(CannotWrite):
            session.carry_out(disk)
        assert session.recorded <= set(run_ids_of(session.folder)) <= session.attempted, stop_at
        session.carry_out(disk)
        assert content_of(open_dataset(session.folder)) == content_of_measurements(*two_runs), stop_at
        assert survey(session.folder).leftovers == (), stop_at


def test_a_full_disk_while_a_run_is_written_leaves_nothing_of_it_and_says_what_to_do(
    tmp_path: Path, two_runs: tuple[Measurement, ...]
) -> None:
    first, second = two_runs
    counting = FaultyDisk()
    with DatasetStore.open(tmp_path / "counted", disk=counting) as store:
        store.append(first)
        until_second = counting.steps
    store = DatasetStore.open(
        tmp_path / "full", disk=FaultyDisk(until_second + 2, OSError(errno.ENOSPC, "No space left on device"))
    )
    store.append(first)

    with pytest.raises(
        CannotWrite, match=r"needs up to 0\.00 GiB, and 0\.01 GiB are free(.|\n)*same command"
    ) as caught:
        store.append(second)

    assert isinstance(caught.value.__cause__, OSError)
    assert run_ids_of(tmp_path / "full") == [first.run.run_id]
    assert not list(tmp_path.glob("full/data/*/*.tmp"))
    assert not store.contains(second.run.run_id)
    store.append(second)
    assert store.close().table(Table.RUNS).num_rows == 2


KILLED = """
import pickle, sys
from pathlib import Path
from harness.dataset.store import DatasetStore

measurements = pickle.load(sys.stdin.buffer)
with DatasetStore.open(Path(sys.argv[1])) as store:
    for measurement in measurements:
        store.append(measurement)
        print(measurement.run.run_id, flush=True)
print("closed", flush=True)
"""


@pytest.mark.parametrize("lines", [1, 4, 9, 10])
def test_a_process_killed_outright_leaves_every_run_it_reported(
    tmp_path: Path, example_measurements: Examples, lines: int
) -> None:
    measurements = example_measurements(n_runs=9)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(pickle.dumps(measurements))
        process.stdin.close()
        reported = [process.stdout.readline().decode().strip() for _ in range(lines)]
        process.kill()

    store = DatasetStore.open(tmp_path)

    assert set(reported) - {"closed"} <= store.finished_run_ids()
    for measurement in measurements:
        if not store.contains(measurement.run.run_id):
            store.append(measurement)
    assert content_of(store.close()) == content_of_measurements(*measurements)
