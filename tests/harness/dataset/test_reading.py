"""Reading gives back what was stored, while it is written and afterwards, and names what is damaged."""

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.dataset.reading import open_dataset, read_rows, read_table
from harness.dataset.schema import Table, arrow_schema
from harness.dataset.store import DatasetStore
from harness.errors import CorruptFile, DatasetError
from harness.records import KernelEnergyRow, KernelRow, Measurement, PhaseRow, ReadingRow, RunRow

Examples = Callable[..., tuple[Measurement, ...]]


@pytest.fixture
def stored(tmp_path: Path, example_measurements: Examples) -> Path:
    with DatasetStore.open(tmp_path) as store:
        for measurement in example_measurements():
            store.append(measurement)
    return tmp_path


def test_rows_come_back_typed(stored: Path, example_measurements: Examples) -> None:
    measurements = sorted(example_measurements(), key=lambda measurement: measurement.run.run_id)

    assert list(read_rows(stored, RunRow)) == [measurement.run for measurement in measurements]
    assert list(read_rows(stored, PhaseRow)) == [row for measurement in measurements for row in measurement.phases]
    assert list(read_rows(stored, KernelRow)) == [row for measurement in measurements for row in measurement.kernels]
    assert set(read_rows(stored, ReadingRow)) == {row for measurement in measurements for row in measurement.readings}


def test_a_table_can_be_read_whole_or_by_column(stored: Path, example_measurements: Examples) -> None:
    energies_j = [row.energy_j for measurement in example_measurements() for row in measurement.kernel_energies]
    whole = read_table(stored, Table.KERNEL_ENERGIES)
    column = open_dataset(stored).table(Table.KERNEL_ENERGIES, ("energy_j",))

    assert whole.schema.equals(arrow_schema(Table.KERNEL_ENERGIES), check_metadata=True)
    assert sorted(whole.column("energy_j").to_pylist()) == sorted(value for value in energies_j if value is not None)
    assert column.column_names == ["energy_j"]
    assert column.column(0) == whole.column("energy_j")


def test_a_table_without_rows_is_read_as_empty(tmp_path: Path, example_measurements: Examples) -> None:
    *_, skipped = example_measurements()
    DatasetStore.open(tmp_path).append(skipped)

    assert read_table(tmp_path, Table.KERNELS).num_rows == 0
    assert list(read_rows(tmp_path, KernelEnergyRow)) == []
    assert open_dataset(tmp_path).paths(Table.POWER_TRACES) == ()


def test_of_a_dataset_being_written_only_committed_runs_are_seen(
    tmp_path: Path, example_measurements: Examples
) -> None:
    first, second, *_ = example_measurements()
    store = DatasetStore.open(tmp_path)
    store.append(first)
    store.append(second)
    (tmp_path / "data" / "runs" / f"part-{second.run.run_id}.parquet").unlink()

    assert open_dataset(tmp_path).manifest is None
    assert list(read_rows(tmp_path, RunRow)) == [first.run]
    assert {row.run_id for row in read_rows(tmp_path, KernelRow)} == {first.run.run_id}


def test_reading_changes_nothing_in_the_folder(stored: Path) -> None:
    (stored / "data" / "kernels" / "part-x.parquet.tmp").write_text("left over")
    before = {path: path.stat().st_mtime_ns for path in stored.rglob("*")}

    assert read_table(stored, Table.RUNS).num_rows == 6
    assert {path: path.stat().st_mtime_ns for path in stored.rglob("*")} == before


@pytest.mark.parametrize("name", [".", "missing"])
def test_a_folder_without_a_dataset_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"holds no dataset(.|\n)*harness\.run --out"):
        open_dataset(tmp_path / name)


@pytest.mark.parametrize(
    "damage", [lambda content: content[: len(content) // 2], lambda content: b"", lambda _: b"PAR1"]
)
def test_a_damaged_file_is_named_and_the_others_can_still_be_read(
    stored: Path, damage: Callable[[bytes], bytes]
) -> None:
    (path,) = stored.glob("data/kernels/*")
    path.write_bytes(damage(path.read_bytes()))
    dataset = open_dataset(stored)

    with pytest.raises(CorruptFile, match=f"{path.name}(.|\n)*Restore it from a copy"):
        dataset.table(Table.KERNELS)
    assert len(list(dataset.rows(RunRow))) == 6
    (fault,) = dataset.faults()
    assert fault.file.path == path
    assert dataset.without((fault,)).table(Table.KERNELS).num_rows == 0


def test_a_changed_byte_is_found_by_its_hash_also_where_the_file_still_reads(stored: Path) -> None:
    (path,) = stored.glob("data/runs/*")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)

    (fault,) = open_dataset(stored).faults()

    assert "sha256 differs" in str(fault.error)


def test_a_missing_file_is_an_error_that_names_it(stored: Path) -> None:
    (path,) = stored.glob("data/phases/*")
    path.unlink()

    with pytest.raises(CorruptFile, match=rf"{path.name} is listed in manifest\.json and missing"):
        open_dataset(stored)


def test_a_file_of_another_table_is_refused(stored: Path) -> None:
    (kernels,), (phases,) = stored.glob("data/kernels/*"), stored.glob("data/phases/*")
    kernels.write_bytes(phases.read_bytes())

    with pytest.raises(CorruptFile, match="does not hold the columns of kernels"):
        read_table(stored, Table.KERNELS)
