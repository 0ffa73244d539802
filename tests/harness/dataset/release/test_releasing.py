"""Dataset folders become one release: the right rows, sorted, once, or nothing at all."""

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.dataset.disk import Disk
from harness.dataset.manifest import read_manifest
from harness.dataset.reading import open_dataset, read_rows
from harness.dataset.release.record import LeftOut, read_record
from harness.dataset.release.releasing import release
from harness.dataset.release.terms import Inclusion
from harness.dataset.schema import Table
from harness.dataset.validation.check import validate
from harness.errors import CannotWrite, DatasetError, UsageError
from harness.records import KernelRow, Measurement, Provenance, Quality, RunRow, SourceRow, Status
from tests.harness.dataset.release.releasable import BOARD, dataset, own_run, served_run, wanted

Examples = Callable[..., tuple[Measurement, ...]]


def mixed(tmp_path: Path) -> Path:
    """Three measured runs, two imported ones, and one of each kind that needs its name, but for simulated."""
    unlicensed = served_run(source=replace(BOARD, source="no-licence", licence=None), gpu="NVIDIA H200")
    return dataset(
        tmp_path / "mixed",
        [
            *(own_run(index) for index in range(3)),
            *(served_run(index) for index in range(2)),
            own_run(3, cuda=False),
            own_run(4, quality=Quality.QUICK),
            own_run(5, cuda=False, quality=Quality.QUICK),
            own_run(6, status=Status.OOM),
            unlicensed,
        ],
    )


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_measured_and_licensed_runs_leave_by_default_and_the_rest_is_counted(
    tmp_path: Path, real_validation: None
) -> None:
    folder, out = mixed(tmp_path), tmp_path / "rel"

    record = release(wanted([folder], out))

    rows = list(read_rows(out, RunRow))
    assert {row.provenance for row in rows} == {Provenance.MEASURED, Provenance.IMPORTED}
    assert {(row.status, row.quality) for row in rows} == {(Status.OK, Quality.STANDARD), (Status.OK, None)}
    assert len(rows) == 5
    assert record == read_record(out)
    assert set(record.left_out) == {
        LeftOut(needs=(Inclusion.ESTIMATED,), runs=1),
        LeftOut(needs=(Inclusion.ESTIMATED, Inclusion.QUICK), runs=1),
        LeftOut(needs=(Inclusion.QUICK,), runs=1),
        LeftOut(needs=(Inclusion.FAILED,), runs=1),
        LeftOut(needs=(Inclusion.UNLICENSED,), runs=1),
    }
    assert {row.source for row in read_rows(out, SourceRow)} == {"joulegraph 0.1.0", "example-board"}
    assert "with" not in (out / "README.md").read_text().split("\n# ")[1].splitlines()[0]
    assert not validate(out).errors


def test_what_is_asked_for_by_name_is_in_title_card_and_file_names(tmp_path: Path) -> None:
    folder, out = mixed(tmp_path), tmp_path / "rel"

    release(wanted([folder], out, Inclusion.ESTIMATED, Inclusion.QUICK, Inclusion.SIMULATED))

    names = {path.name for path in (out / "data" / "runs").iterdir()}
    assert names == {
        "data-nvidia-a100-sxm4-80gb-00000.parquet",
        "data-nvidia-a100-sxm4-80gb-quick-00000.parquet",
        "data-nvidia-h100-80gb-hbm3-00000.parquet",
        "data-cpu-example-cpu-2-00ghz-estimated-00000.parquet",
        "data-cpu-example-cpu-2-00ghz-estimated-quick-00000.parquet",
    }
    card = (out / "README.md").read_text()
    assert "\n# Energy of LLM inference, per phase and per kernel, with estimated and quick runs\n" in card
    assert "> **estimated**: 2 runs; energies of a power model" in card
    assert "simulated" not in card.split("## Load")[0]  # asked for, and there is none
    for path in (out / "data" / "runs").iterdir():
        found = {(row["provenance"], row["quality"]) for row in pq.read_table(path).to_pylist()}
        assert all((provenance == "estimated") == ("estimated" in path.name) for provenance, _ in found)
        assert all((quality == "quick") == ("quick" in path.name) for _, quality in found)


def test_every_row_of_a_chosen_run_is_there_once_and_no_other(tmp_path: Path) -> None:
    folder, out = mixed(tmp_path), tmp_path / "rel"

    release(wanted([folder], out))

    before, after = open_dataset(folder), open_dataset(out)
    run_ids = set(after.table(Table.RUNS, ("run_id",)).column(0).to_pylist())
    for table in Table:
        key = "run_id" if table.shared_key is None else table.shared_key
        old = [row for row in before.table(table).to_pylist() if key != "run_id" or row["run_id"] in run_ids]
        new = after.table(table).to_pylist()
        if table.shared_key is None:
            assert sorted(map(str, new)) == sorted(map(str, old))
        else:
            assert len(new) == len({row[key] for row in new})
            assert all(row in old for row in new)


def test_rows_are_sorted_with_statistics_in_small_row_groups_of_zstd(tmp_path: Path) -> None:
    out = tmp_path / "rel"
    release(wanted([dataset(tmp_path / "a", (own_run(index) for index in range(9)))], out))

    for path in (out / "data").rglob("*.parquet"):
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            columns = [metadata.row_group(0).column(index) for index in range(metadata.num_columns)]
        assert all(column.compression == "ZSTD" for column in columns)
        assert columns[0].is_stats_set
    kernels = list(read_rows(out, KernelRow))
    assert [row.run_id for row in kernels] == sorted(row.run_id for row in kernels)
    runs = list(read_rows(out, RunRow))
    keys = [(row.model, row.batch_size, row.prompt_tokens, row.output_tokens) for row in runs]
    assert keys == sorted(keys)


def test_the_same_folders_give_the_same_bytes_however_they_were_written(tmp_path: Path) -> None:
    runs = [own_run(index) for index in range(6)]
    one = dataset(tmp_path / "one", runs)
    other = dataset(tmp_path / "other", reversed(runs))

    release(wanted([one], tmp_path / "first"))
    release(wanted([one], tmp_path / "again"))
    release(wanted([other], tmp_path / "reversed"))

    assert files_in(tmp_path / "first") == files_in(tmp_path / "again") == files_in(tmp_path / "reversed")


def test_folders_are_merged_and_rows_that_both_hold_are_stored_once(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [own_run(0), own_run(1), served_run(0)])
    two = dataset(tmp_path / "two", [own_run(1), own_run(2), served_run(1)])

    release(wanted([one, two], tmp_path / "rel"))
    release(wanted([two, one], tmp_path / "turned"))

    assert sum(1 for _ in read_rows(tmp_path / "rel", RunRow)) == 5
    assert sum(1 for _ in read_rows(tmp_path / "rel", KernelRow)) == 6
    assert sum(1 for _ in read_rows(tmp_path / "rel", SourceRow)) == 2
    assert files_in(tmp_path / "rel") == files_in(tmp_path / "turned")


def test_a_run_that_differs_between_folders_is_an_error_that_names_both(tmp_path: Path) -> None:
    changed = own_run(1)
    changed = replace(changed, run=replace(changed.run, output_tokens=changed.run.output_tokens, prompts="random"))
    one = dataset(tmp_path / "one", [own_run(0), own_run(1)])
    two = dataset(tmp_path / "two", [changed])

    with pytest.raises(DatasetError, match=r"one and .*two both have rows of runs for run_id") as told:
        release(wanted([one, two], tmp_path / "rel"))

    assert changed.run.run_id in str(told.value)
    assert not (tmp_path / "rel").exists()


def test_a_kernel_that_differs_between_folders_is_an_error_too(tmp_path: Path) -> None:
    changed = own_run(1)
    changed = replace(changed, kernels=tuple(replace(row, op="aten::addmm") for row in changed.kernels))
    one = dataset(tmp_path / "one", [own_run(1)])
    two = dataset(tmp_path / "two", [changed])

    with pytest.raises(DatasetError, match="both have rows of kernels"):
        release(wanted([one, two], tmp_path / "rel"))


def test_two_sources_of_one_name_are_told_apart(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [served_run(0)])
    two = dataset(tmp_path / "two", [served_run(1, source=replace(BOARD, version="v4"))])

    with pytest.raises(DatasetError, match="both have rows of sources for source 'example-board'"):
        release(wanted([one, two], tmp_path / "rel"))


def test_nothing_left_is_an_error_that_says_what_to_include(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "a", [own_run(0, cuda=False), own_run(1, cuda=False, quality=Quality.QUICK)])

    with pytest.raises(DatasetError, match="Nothing is left") as told:
        release(wanted([folder], tmp_path / "rel"))

    assert "1 runs need --include estimated\n" in str(told.value)
    assert "1 runs need --include estimated,quick\n" in str(told.value)
    assert not (tmp_path / "rel").exists()


def test_a_dataset_that_validation_refuses_is_not_released(tmp_path: Path, real_validation: None) -> None:
    wrong = own_run(0)
    wrong = replace(wrong, run=replace(wrong.run, energy_j=1e-6))
    folder = dataset(tmp_path / "a", [wrong])

    with pytest.raises(DatasetError, match=r"has errors and is not released:\n  \w"):
        release(wanted([folder], tmp_path / "rel"))

    assert not (tmp_path / "rel").exists()


def test_a_row_that_names_a_users_folder_is_not_released(tmp_path: Path) -> None:
    configuration = '{"models":["/home/alice/llama"],"quality":"standard"}'
    folder = dataset(tmp_path / "a", [own_run(0, configuration=configuration)])

    with pytest.raises(DatasetError, match="column configuration of runs names a user's folder"):
        release(wanted([folder], tmp_path / "rel"))


def test_an_out_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "rel"
    out.mkdir()
    (out / "mine.txt").write_text("mine")

    with pytest.raises(UsageError, match="not an empty folder"):
        release(wanted([tmp_path], out))

    assert (out / "mine.txt").read_text() == "mine"


def test_an_empty_out_folder_is_used_and_left_empty_on_failure(tmp_path: Path) -> None:
    out = tmp_path / "rel"
    out.mkdir()
    folder = dataset(tmp_path / "a", [own_run(0, cuda=False)])

    with pytest.raises(DatasetError):
        release(wanted([folder], out))
    assert list(out.iterdir()) == []

    release(wanted([folder], out, Inclusion.ESTIMATED))
    assert (out / "manifest.json").is_file()


class FullDisk(Disk):
    """A disk that takes so many files and then is full."""

    def __init__(self, takes: int) -> None:
        self.left = takes

    def open_new(self, path: Path) -> BinaryIO:
        if self.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        self.left -= 1
        return super().open_new(path)


@pytest.mark.parametrize("takes", [0, 2, 7, 12])
def test_a_full_disk_is_told_and_nothing_is_left_behind(tmp_path: Path, takes: int) -> None:
    folder = dataset(tmp_path / "a", [own_run(0)])

    with pytest.raises(CannotWrite, match="disk is full"):
        release(wanted([folder], tmp_path / "rel"), FullDisk(takes))

    assert not (tmp_path / "rel").exists()


def test_a_release_can_be_released_again(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "a", [own_run(0)])
    release(wanted([folder], tmp_path / "rel"))

    release(wanted([tmp_path / "rel"], tmp_path / "copy"))

    first, second = files_in(tmp_path / "rel"), files_in(tmp_path / "copy")
    assert {name: first[name] for name in first if name.startswith("data/")} == {
        name: second[name] for name in second if name.startswith("data/")
    }


def test_a_release_that_continues_another_says_what_it_adds(tmp_path: Path) -> None:
    one = dataset(tmp_path / "one", [own_run(0)])
    two = dataset(tmp_path / "two", [own_run(1), served_run(0)])
    old, new = tmp_path / "old", tmp_path / "new"
    release(wanted([one], old, url="https://example.org/energy"))

    record = release(wanted([one, two], new, version="1.1.0", since=old, changes=("New hardware.",)))

    assert record.previous == "1.0.0"
    assert record.url == "https://example.org/energy"
    assert [change.version for change in record.changes] == ["1.1.0", "1.0.0"]
    assert record.changes[0].lines == (
        "New hardware.",
        "Added on NVIDIA A100-SXM4-80GB: HuggingFaceTB/SmolLM2-135M-Instruct, 1 runs.",
        "Added on NVIDIA H100 80GB HBM3: meta-llama/Llama-3.1-8B-Instruct, 1 runs.",
    )
    assert "## 1.1.0 (2026-11-30)\n\n- New hardware." in (new / "CHANGELOG.md").read_text()


def test_a_run_that_was_released_may_not_go_nor_change(tmp_path: Path) -> None:
    old = tmp_path / "old"
    release(wanted([dataset(tmp_path / "one", [own_run(0), own_run(1)])], old))
    changed = own_run(1)
    changed = replace(changed, run=replace(changed.run, prompts="random"))

    with pytest.raises(DatasetError, match="1 of its runs are not in this one"):
        release(wanted([dataset(tmp_path / "less", [own_run(0)])], tmp_path / "new", version="1.1.0", since=old))
    with pytest.raises(DatasetError, match=f"run {changed.run.run_id} differs"):
        release(
            wanted([dataset(tmp_path / "other", [own_run(0), changed])], tmp_path / "new", version="1.1.0", since=old)
        )
    assert not (tmp_path / "new").exists()


def test_a_correction_may_mark_the_run_that_it_supersedes(tmp_path: Path) -> None:
    old = tmp_path / "old"
    release(wanted([dataset(tmp_path / "one", [own_run(0)])], old))
    correct = own_run(1)
    marked = own_run(0, superseded_by=correct.run.run_id)

    record = release(
        wanted([dataset(tmp_path / "two", [marked, correct])], tmp_path / "new", version="1.1.0", since=old)
    )

    assert record.changes[0].lines[0].endswith("1 runs.")


def test_a_patch_that_adds_rows_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "old"
    release(wanted([dataset(tmp_path / "one", [own_run(0)])], old))

    with pytest.raises(UsageError, match=r"Call it 1\.1\.0"):
        release(
            wanted([dataset(tmp_path / "two", [own_run(0), own_run(1)])], tmp_path / "new", version="1.0.1", since=old)
        )


def test_the_manifest_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    out = tmp_path / "rel"
    release(wanted([dataset(tmp_path / "a", [own_run(0), served_run(0)])], out))

    manifest = read_manifest(out)

    assert manifest is not None
    assert {file.path for file in manifest.files} == {
        path.relative_to(out).as_posix() for path in (out / "data").rglob("*.parquet")
    }
    assert open_dataset(out).faults() == ()
    assert isinstance(open_dataset(out).table(Table.RUNS), pa.Table)
