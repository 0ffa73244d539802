"""A store keeps what it is given, and refuses the rest in words."""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.dataset.disk import Disk
from harness.dataset.reading import open_dataset, read_rows
from harness.dataset.rows import arrow_table
from harness.dataset.schema import VERSION_KEY, Table
from harness.dataset.store import BulkTables, DatasetStore
from harness.errors import CannotWrite, CorruptFile, DatasetError, NewerSchema, OtherCampaign
from harness.records import EnvironmentRow, GraphRow, Measurement, RunRow

Examples = Callable[..., tuple[Measurement, ...]]


class RefusingDisk(Disk):
    """A file system that refuses to make anything."""

    def __init__(self, number: int, text: str) -> None:
        self._error = OSError(number, text)

    def make_folder(self, path: Path) -> None:
        raise self._error


def stored(folder: Path, measurements: tuple[Measurement, ...]) -> Path:
    """A closed dataset of these."""
    with DatasetStore.open(folder) as store:
        for measurement in measurements:
            store.append(measurement)
    return folder


def test_a_run_is_there_as_soon_as_append_returns(tmp_path: Path, example_measurements: Examples) -> None:
    first, second, *_ = example_measurements()
    store = DatasetStore.open(tmp_path)
    store.append(first)

    assert store.contains(first.run.run_id)
    assert not store.contains(second.run.run_id)
    assert store.finished_run_ids() == {first.run.run_id}
    assert list(read_rows(tmp_path, RunRow)) == [first.run]
    assert not (tmp_path / "manifest.json").exists()


def test_closing_leaves_one_file_per_table_and_a_manifest_that_lists_them(
    tmp_path: Path, example_measurements: Examples
) -> None:
    measurements = example_measurements()
    dataset = DatasetStore.open(stored(tmp_path, measurements)).close()

    assert dataset.manifest is not None
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("data/*/*"))
    assert files == sorted(file.path for file in dataset.manifest.files)
    assert len(files) == len(Table)
    rows = {file.table: file.rows for file in dataset.manifest.files}
    assert rows[Table.KERNELS] == sum(len(measurement.kernels) for measurement in measurements)
    assert dataset.faults() == ()


def test_failures_are_recorded_like_any_run(tmp_path: Path, example_measurements: Examples) -> None:
    measurements = example_measurements()
    rows = {row.run_id: row for row in read_rows(stored(tmp_path, measurements), RunRow)}

    assert rows == {measurement.run.run_id: measurement.run for measurement in measurements}


def test_environments_and_graphs_are_stored_once_also_across_sessions(
    tmp_path: Path, example_measurements: Examples
) -> None:
    measurements = example_measurements(n_runs=8, failures=False)
    stored(tmp_path, measurements[:3])
    stored(tmp_path, measurements[3:])

    assert len(list(read_rows(tmp_path, EnvironmentRow))) == 2
    assert {row.graph_id for row in read_rows(tmp_path, GraphRow)} == {
        graph.graph_id for measurement in measurements for graph in measurement.graphs
    }
    assert len(list(read_rows(tmp_path, GraphRow))) == 2


def test_a_closed_dataset_can_be_appended_to_and_closed_again(tmp_path: Path, example_measurements: Examples) -> None:
    measurements = example_measurements()
    first = DatasetStore.open(stored(tmp_path, measurements[:2])).close()
    second = DatasetStore.open(stored(tmp_path, measurements[2:])).close()

    assert first.manifest is not None
    assert second.manifest is not None
    assert second.manifest.created_utc == first.manifest.created_utc
    assert {row.run_id for row in second.rows(RunRow)} == {measurement.run.run_id for measurement in measurements}
    assert second.faults() == ()


def test_an_error_inside_the_block_leaves_the_runs_and_no_manifest(
    tmp_path: Path, example_measurements: Examples
) -> None:
    first, *_ = example_measurements()

    def interrupted() -> None:
        with DatasetStore.open(tmp_path) as store:
            store.append(first)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert DatasetStore.open(tmp_path).finished_run_ids() == {first.run.run_id}
    assert not (tmp_path / "manifest.json").exists()


def test_a_run_is_recorded_once(tmp_path: Path, example_measurements: Examples) -> None:
    first, *_ = example_measurements()
    store = DatasetStore.open(tmp_path)
    store.append(first)

    with pytest.raises(DatasetError, match="recorded once"):
        store.append(first)


def test_a_measurement_with_a_bad_value_is_refused_whole(tmp_path: Path, example_measurements: Examples) -> None:
    first, second, *_ = example_measurements()
    store = DatasetStore.open(tmp_path)

    with pytest.raises(DatasetError, match="energy_j"):
        store.append(replace(first, run=replace(first.run, energy_j=float("nan"))))
    with pytest.raises(DatasetError, match="belongs to a run that is not recorded with it"):
        store.append(replace(first, kernels=second.kernels))
    with pytest.raises(DatasetError, match="cannot be part of a file name"):
        store.append(Measurement(run=replace(first.run, run_id="../../runs/x")))
    assert not list(tmp_path.glob("data/*/*"))


def test_whole_tables_from_elsewhere_are_recorded_together(tmp_path: Path, example_measurements: Examples) -> None:
    measurements = example_measurements(n_runs=4, failures=False)
    tables = {
        table: pa.concat_tables([arrow_table(table, table.rows_of(measurement)) for measurement in measurements])
        for table in Table
    }
    bulk = BulkTables(runs=tables[Table.RUNS], kernels=tables[Table.KERNELS], environments=tables[Table.ENVIRONMENTS])
    store = DatasetStore.open(tmp_path / "bulk")
    store.append_tables(bulk)

    assert store.finished_run_ids() == {measurement.run.run_id for measurement in measurements}
    assert DatasetStore.open(tmp_path / "bulk").finished_run_ids() == store.finished_run_ids()
    assert open_dataset(tmp_path / "bulk").table(Table.KERNELS).equals(tables[Table.KERNELS])
    dataset = store.close()
    assert dataset.table(Table.KERNELS).equals(tables[Table.KERNELS])
    assert dataset.table(Table.ENVIRONMENTS).num_rows == 2
    with pytest.raises(DatasetError, match="recorded once"):
        store.append_tables(bulk)


def test_a_path_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")

    with pytest.raises(CannotWrite, match="taken is no folder"):
        DatasetStore.open(tmp_path / "taken")
    with pytest.raises(CannotWrite, match="is no folder"):
        DatasetStore.open(tmp_path / "taken" / "deeper")


def test_the_readme_of_a_folder_that_is_no_dataset_is_not_replaced(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# My project")

    with pytest.raises(CannotWrite, match=r"README\.md is there(.|\n)*Choose an empty folder"):
        DatasetStore.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert readme.read_text() == "# My project"


def test_a_dataset_without_runs_can_be_opened_again(tmp_path: Path) -> None:
    DatasetStore.open(tmp_path)

    assert DatasetStore.open(tmp_path).finished_run_ids() == frozenset()


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.EACCES, "make this one writable"), (errno.EROFS, "make this one writable"), (errno.EIO, "Check the disk")],
)
def test_a_folder_that_cannot_be_written_is_refused_with_the_remedy(tmp_path: Path, number: int, remedy: str) -> None:
    with pytest.raises(CannotWrite, match=f"cannot be written: reason(.|\n)*{remedy}"):
        DatasetStore.open(tmp_path / "dataset", disk=RefusingDisk(number, "reason"))


def test_a_disk_that_is_full_before_the_folder_exists_is_told_with_the_space_left(tmp_path: Path) -> None:
    with pytest.raises(CannotWrite, match=r"the disk is full(.|\n)*GiB are free"):
        DatasetStore.open(tmp_path / "deep" / "dataset", disk=RefusingDisk(errno.ENOSPC, "No space left on device"))


def test_a_folder_of_another_campaign_is_refused(tmp_path: Path, example_measurements: Examples) -> None:
    first, *_ = example_measurements(seed=1)
    mine, other = first.run.campaign_id, example_measurements(seed=2)[0]

    with DatasetStore.open(tmp_path, campaign_id=mine) as store:
        store.append(first)
        with pytest.raises(OtherCampaign, match="Choose another folder"):
            DatasetStore.open(tmp_path, campaign_id=other.run.campaign_id)
        with pytest.raises(OtherCampaign):
            store.append(other)
    with pytest.raises(OtherCampaign, match=mine):
        DatasetStore.open(tmp_path, campaign_id=other.run.campaign_id)
    assert DatasetStore.open(tmp_path, campaign_id=mine).finished_run_ids() == {first.run.run_id}


def test_a_dataset_of_a_later_version_is_refused_unchanged(tmp_path: Path, example_measurements: Examples) -> None:
    stored(tmp_path, example_measurements())
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"schema_version": 2}))

    with pytest.raises(NewerSchema, match="version 2"):
        DatasetStore.open(tmp_path)
    assert len(list(tmp_path.glob("data/*/*"))) == len(Table)


def test_a_part_of_a_later_version_is_refused(tmp_path: Path, example_measurements: Examples) -> None:
    first, *_ = example_measurements()
    DatasetStore.open(tmp_path).append(first)
    (part,) = tmp_path.glob("data/runs/part-*")
    arrow = pq.read_table(part)
    pq.write_table(arrow.replace_schema_metadata({VERSION_KEY: b"2"}).append_column("new", pa.nulls(1)), part)

    with pytest.raises(NewerSchema, match="version 2"):
        DatasetStore.open(tmp_path)


def test_a_damaged_part_stops_closing_by_name_and_its_remedy_works(
    tmp_path: Path, example_measurements: Examples
) -> None:
    first, second, *_ = example_measurements()
    store = DatasetStore.open(tmp_path)
    store.append(first)
    store.append(second)
    damaged = tmp_path / "data" / "kernels" / f"part-{first.run.run_id}.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])

    with pytest.raises(
        CorruptFile, match=rf"{damaged.name} is no intact Parquet(.|\n)*Delete it and .*/data/runs/part"
    ):
        store.close()

    damaged.unlink()
    (tmp_path / "data" / "runs" / damaged.name).unlink()
    resumed = DatasetStore.open(tmp_path)
    assert resumed.finished_run_ids() == {second.run.run_id}
    resumed.append(first)
    assert resumed.close().table(Table.KERNELS).num_rows == len(first.kernels) + len(second.kernels)


def test_damage_in_a_compacted_file_is_not_merged_into_a_new_one(
    tmp_path: Path, example_measurements: Examples
) -> None:
    first, second, *_ = example_measurements()
    stored(tmp_path, (first,))
    (kernels,) = tmp_path.glob("data/kernels/*")
    pq.write_table(pq.read_table(kernels).slice(1), kernels)
    store = DatasetStore.open(tmp_path)
    store.append(second)

    with pytest.raises(CorruptFile, match=rf"{kernels.name} is not the file that manifest.json lists"):
        store.close()
    assert DatasetStore.open(tmp_path).finished_run_ids() == {first.run.run_id, second.run.run_id}


def test_a_removed_manifest_is_noticed_before_anything_is_tidied_away(
    tmp_path: Path, example_measurements: Examples
) -> None:
    stored(tmp_path, example_measurements())
    (tmp_path / "manifest.json").unlink()
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(CorruptFile, match=r"manifest\.json was removed(.|\n)*Restore it"):
        DatasetStore.open(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_others_put_beside_the_data_is_left_alone(tmp_path: Path, example_measurements: Examples) -> None:
    stored(tmp_path, example_measurements())
    notes = [tmp_path / "notes.txt", tmp_path / "data" / "runs" / "mine.parquet"]
    for note in notes:
        note.write_text("mine")

    assert DatasetStore.open(tmp_path).close().table(Table.RUNS).num_rows == 6
    assert all(note.read_text() == "mine" for note in notes)
