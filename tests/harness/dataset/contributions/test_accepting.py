"""A bundle into a release: all of it or nothing, and no file that is there is changed."""

import fcntl
import hashlib
import operator
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pytest

from harness.dataset.contributions.accepting import Acceptance, Terms, accept
from harness.dataset.contributions.decoding import decode_here
from harness.dataset.contributions.merging import merge, tidy
from harness.dataset.contributions.opening import open_bundle
from harness.dataset.disk import Disk
from harness.dataset.reading import open_dataset, read_rows
from harness.dataset.release.record import read_record
from harness.dataset.release.terms import Inclusion
from harness.dataset.schema import Table
from harness.dataset.validation.check import validate
from harness.dataset.validation.findings import ValidationReport
from harness.errors import CannotWrite, DatasetError, FolderBusy, UsageError
from harness.records import Measurement, Provenance, Quality, RunRow
from tests.harness.dataset.contributions.bundles import Change, bundle_of, each, rebuilt, tables_of, with_column
from tests.harness.dataset.contributions.measured import (
    OTHER,
    campaign_measurements,
    environment,
    measurement,
    pack_measurements,
)
from tests.harness.dataset.contributions.releases import release_of

TODAY = date(2026, 12, 1)
TERMS = Terms(today=TODAY)


def nothing_found(folder: Path, reference: Path | None) -> ValidationReport:
    """Where a test is not about the rules that hold for any dataset."""
    return ValidationReport(folder=folder, rows=(), findings=())


def taken(bundle: Path, release: Path, terms: Terms = TERMS, disk: Disk | None = None) -> Acceptance:
    return accept(bundle, release, terms, decode=decode_here, validate=nothing_found, disk=disk)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return release_of(tmp_path_factory.mktemp("original") / "release", pack_measurements(seed=7, factor=1.02))


@pytest.fixture
def release(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "release"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_of(tmp_path, campaign_measurements())


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((folder / "data").rglob("*"))
        if path.is_file()
    }


def rows(folder: Path) -> dict[Table, int]:
    dataset = open_dataset(folder)
    return {table: dataset.table(table).num_rows for table in Table}


def test_the_rows_are_in_and_no_file_that_was_there_is_changed(release: Path, bundle: Path) -> None:
    before, rows_before = hashes(release), rows(release)

    done = accept(bundle, release, TERMS)

    assert done.refused == ()
    assert (done.already, done.version) == (False, "1.1.0")
    after, rows_after = hashes(release), rows(release)
    assert {name: after[name] for name in before} == before
    assert done.merged is not None
    assert set(after) - set(before) == {file.path for file in done.merged.files}
    for table in Table:
        assert rows_after[table] - rows_before[table] == done.merged.rows_of(table)
    assert (rows_after[Table.RUNS], rows_after[Table.ENVIRONMENTS]) == (9, 1), "the same machine is there once"
    assert {row.lab for row in read_rows(release, RunRow)} == {None, "green-lab"}
    assert open_dataset(release).complete
    assert open_dataset(release).faults() == ()


def test_new_files_are_named_after_the_device(release: Path, bundle: Path) -> None:
    done = taken(bundle, release)

    assert done.merged is not None
    assert {file.path for file in done.merged.files if file.table is Table.RUNS} == {
        "data/runs/data-nvidia-a100-sxm4-80gb-00001.parquet"
    }


def test_the_release_after_it_is_valid_and_its_documents_are_of_the_new_rows(release: Path, bundle: Path) -> None:
    accept(bundle, release, TERMS, decode=decode_here)

    assert validate(release).errors == ()
    assert "5 runs of green-lab (bundle " in (release / "CHANGELOG.md").read_text()
    assert "data-nvidia-a100-sxm4-80gb-00001.parquet" in (release / "croissant.json").read_text()
    assert "| NVIDIA A100-SXM4-80GB | Qwen/Qwen3-8B (random weights) | 8 (1) |" in (release / "coverage.md").read_text()
    record = read_record(release)
    assert (record.version, record.previous, record.date) == ("1.1.0", "1.0.0", "2026-12-01")


def test_taken_again_it_changes_nothing(release: Path, bundle: Path) -> None:
    taken(bundle, release)
    before = {path: path.read_bytes() for path in release.rglob("*") if path.is_file()}

    done = taken(bundle, release)

    assert (done.already, done.refused, done.merged, done.version) == (True, (), None, "1.1.0")
    assert {path: path.read_bytes() for path in release.rglob("*") if path.is_file()} == before


def test_a_dry_run_writes_nothing(release: Path, bundle: Path) -> None:
    before = {path: path.read_bytes() for path in release.rglob("*") if path.is_file()}

    done = taken(bundle, release, replace(TERMS, dry_run=True))

    assert (done.refused, done.merged, done.version) == ((), None, None)
    assert {path: path.read_bytes() for path in release.rglob("*") if path.is_file()} == before


def test_several_labs_one_after_the_other(release: Path, bundle: Path, tmp_path: Path) -> None:
    other = bundle_of(tmp_path, campaign_measurements(seed=3, factor=0.98), lab="blue-lab", name="blue")
    taken(bundle, release)
    before = hashes(release)

    done = taken(other, release)

    assert done.version == "1.2.0"
    assert {name: hashes(release)[name] for name in before} == before
    assert rows(release)[Table.RUNS] == 14
    assert [change.version for change in read_record(release).changes] == ["1.2.0", "1.1.0", "1.0.0"]


def test_the_same_windows_under_another_lab_are_refused(release: Path, bundle: Path, tmp_path: Path) -> None:
    taken(bundle, release)
    copied = bundle_of(tmp_path, campaign_measurements(), lab="copycat", name="copied")

    done = taken(copied, release)

    assert [each.rule for each in done.refused] == ["copied run"]
    assert rows(release)[Table.RUNS] == 9


def scaled_copy(bundle: Path, energy: float, time: float) -> bytes:
    """Somebody else's runs under another lab, all numbers times a factor, the windows in another order."""
    factors = {"_j": energy, "_s": time}
    others = {
        "run_id": each(lambda text: hashlib.sha256(text.encode()).hexdigest()[:20]),
        "lab": each(lambda _: "copycat"),
        "trial": each(lambda trial: 4 - trial if trial < 5 else trial),
        "idle_power_w": each(lambda value: value * energy / time),
    }

    def changed(table: Table) -> Change:
        def apply(arrow: pa.Table) -> pa.Table:
            for name in arrow.column_names:
                factor = factors.get(name[-2:])
                if factor is not None and name != "started_s":
                    arrow = with_column(name, each(partial(operator.mul, factor)))(arrow)
                elif name in others:
                    arrow = with_column(name, others[name])(arrow)
            return arrow

        return apply

    tables = [table for table in tables_of(bundle) if table.shared_key is None]
    return rebuilt(bundle, {table: changed(table) for table in tables}, lambda fields: fields | {"lab": "copycat"})


@pytest.mark.parametrize(("energy", "time"), [(1.0001, 1.0001), (0.97, 1.0), (1.0, 1.0002)])
def test_the_same_windows_times_a_number_are_refused(release: Path, bundle: Path, energy: float, time: float) -> None:
    taken(bundle, release)
    bundle.write_bytes(scaled_copy(bundle, energy, time))

    done = taken(bundle, release)

    assert [each.rule for each in done.refused] == ["copied run"]
    assert ", scaled" in done.refused[0].reason


def test_runs_that_are_in_come_again_in_another_file_and_the_change_log_tells_of_them_once(
    release: Path, bundle: Path
) -> None:
    taken(bundle, release)
    before = {path: path.read_bytes() for path in release.rglob("*") if path.is_file()}
    bundle.write_bytes(rebuilt(bundle, {Table.RUNS: lambda arrow: arrow}, compression="none"))

    done = taken(bundle, release)

    assert (done.already, done.merged, done.version) == (True, None, "1.1.0")
    assert {path: path.read_bytes() for path in release.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("table", "column", "value", "rule"),
    [
        (Table.KERNELS, "launches", 2**63 - 1, "launches"),
        (Table.KERNELS, "launches", 0, "launches"),
        (Table.KERNELS, "flags", "the numbers of other labs are wrong", "columns"),
        (Table.KERNELS, "variant", "{}", "columns"),
        (Table.PHASES, "flags", "x", "columns"),
        (Table.KERNEL_ENERGIES, "flags", "x", "columns"),
    ],
)
def test_what_no_trace_and_no_harness_gives_is_refused(
    release: Path, bundle: Path, table: Table, column: str, value: object, rule: str
) -> None:
    bundle.write_bytes(rebuilt(bundle, {table: with_column(column, lambda values: [value] * len(values))}))

    assert [each.rule for each in taken(bundle, release).refused] == [rule]


def test_a_count_near_the_end_of_its_type_breaks_no_rule_of_another_kind(release: Path, bundle: Path) -> None:
    """What it breaks is found by the rules about physics; that it adds up to too much is no damage of the release."""
    bundle.write_bytes(rebuilt(bundle, {Table.KERNELS: with_column("read_bytes", each(lambda _: 2**63 - 1))}))

    assert taken(bundle, release).refused == ()
    assert accept(bundle, release, replace(TERMS, dry_run=True), decode=decode_here).already


def test_other_numbers_under_an_id_that_is_there_are_refused(release: Path, bundle: Path) -> None:
    taken(bundle, release)
    before = hashes(release)
    changed = rebuilt(bundle, {Table.RUNS: with_column("energy_ci95_j", each(lambda value: value * 1.01))})
    bundle.write_bytes(changed)

    done = taken(bundle, release)

    assert [each.rule for each in done.refused] == ["repeated run"]
    assert hashes(release) == before


def test_what_is_far_from_comparable_runs_needs_a_reason(release: Path, tmp_path: Path) -> None:
    odd = bundle_of(tmp_path, campaign_measurements(factor=0.55), name="odd")

    refused = taken(odd, release)
    accepted = taken(odd, release, replace(TERMS, override="power limit of 250 W, confirmed by the lab"))

    assert [(each.rule, each.overridable) for each in refused.refused] == [("comparable runs", True)]
    assert "energy × 0.54" in refused.refused[0].reason
    assert (accepted.refused, [each.rule for each in accepted.overridden]) == ((), ["comparable runs"])
    assert "confirmed by the lab" in (release / "CHANGELOG.md").read_text()


def test_a_reason_does_not_help_where_a_rule_is_broken(release: Path, tmp_path: Path) -> None:
    without_pack = bundle_of(tmp_path, [measurement(OTHER)], name="without")

    done = taken(without_pack, release, replace(TERMS, override="they are nice people"))

    assert [each.rule for each in done.refused] == ["reference pack"]
    assert "32x128x256" in done.refused[0].reason or "1 more" in done.refused[0].reason


def simulated(made: Measurement) -> Measurement:
    machine = environment(
        gpu=f"virtual: {made.run.gpu}",
        device_name=f"VIRTUAL {made.run.gpu}",
        meter="virtual:0 (simulated); virtual GPUs: simulated, never measured",
    )
    run = replace(
        made.run,
        provenance=Provenance.SIMULATED,
        method="virtual-counter",
        gpu=machine.gpu,
        environment_id=machine.environment_id,
    )
    readings = tuple(replace(row, provenance=Provenance.SIMULATED, meter="virtual:0") for row in made.readings)
    phases = tuple(replace(row, method="virtual-counter") for row in made.phases)
    return replace(made, run=run, environment=machine, readings=readings, phases=phases)


def test_simulated_runs_are_taken_only_for_a_rehearsal_into_a_release_of_them(tmp_path: Path, release: Path) -> None:
    made = [simulated(each) for each in campaign_measurements()]
    bundle = bundle_of(tmp_path, made, name="simulated")
    rehearsal = replace(TERMS, include=frozenset({"simulated"}))
    of_them = release_of(
        tmp_path / "rehearsal",
        [simulated(each) for each in pack_measurements(seed=7, factor=1.02)],
        included=frozenset({Inclusion.SIMULATED}),
    )

    assert "it is simulated" in taken(bundle, release).refused[0].reason
    assert [each.rule for each in taken(bundle, release, rehearsal).refused] == ["kind of release"]
    done = taken(bundle, of_them, rehearsal)
    assert done.refused == ()
    assert done.merged is not None
    assert any("a100-sxm4-80gb-simulated-00001" in file.path for file in done.merged.files)


def test_quick_runs_are_refused(release: Path, tmp_path: Path) -> None:
    made = [replace(each, run=replace(each.run, quality=Quality.QUICK)) for each in campaign_measurements()]

    done = taken(bundle_of(tmp_path, made, name="quick"), release)

    assert {each.rule for each in done.refused} == {"quality", "reference pack", "kind of release"}


def test_a_version_that_cannot_follow_is_refused_before_anything_is_written(release: Path, bundle: Path) -> None:
    before = hashes(release)

    with pytest.raises(UsageError, match=r"Call it 1\.1\.0"):
        taken(bundle, release, replace(TERMS, version="1.0.1"))

    assert hashes(release) == before


def test_a_folder_that_is_no_release_is_refused(tmp_path: Path, bundle: Path) -> None:
    with pytest.raises(DatasetError, match="is no release"):
        taken(bundle, tmp_path / "data")


def test_two_at_once_are_refused(release: Path, bundle: Path) -> None:
    descriptor = os.open(release, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(FolderBusy, match="Another bundle"):
            taken(bundle, release)
    finally:
        os.close(descriptor)


class Crash(BaseException):
    """The power goes off."""


class FailingDisk(Disk):
    """A disk on which the step with this number is the last one, and does not happen."""

    def __init__(self, last: int, error: Callable[[], BaseException]) -> None:
        self.steps = 0
        self._last, self._error = last, error

    def _step(self) -> None:
        self.steps += 1
        if self.steps == self._last:
            raise self._error()

    def make_folder(self, path: Path) -> None:
        self._step()
        super().make_folder(path)

    def open_new(self, path: Path) -> BinaryIO:
        self._step()
        return super().open_new(path)

    def sync(self, paths: Sequence[Path]) -> None:
        self._step()

    def replace(self, source: Path, target: Path) -> None:
        self._step()
        super().replace(source, target)

    def remove(self, path: Path) -> None:
        self._step()
        super().remove(path)


def test_a_crash_at_any_step_of_a_merge_leaves_all_rows_in_or_none(
    original: Path, bundle: Path, tmp_path: Path
) -> None:
    before = hashes(original)
    (tmp_path / "opened").mkdir()
    given = open_bundle(bundle, tmp_path / "opened", decode_here)
    counted = FailingDisk(0, Crash)
    merge(given.dataset, Path(shutil.copytree(original, tmp_path / "counted")), "0123", counted)
    seen = []
    for last in range(1, counted.steps + 1):
        release = Path(shutil.copytree(original, tmp_path / f"crash-{last}"))
        with pytest.raises(Crash):
            merge(given.dataset, release, "0123", FailingDisk(last, Crash))

        found = rows(release)
        seen.append((found[Table.RUNS], found[Table.READINGS], found[Table.GRAPHS]))
        assert {name: hashes(release)[name] for name in before} == before
        assert open_dataset(release).faults() == ()

        tidy(release, Disk())
        assert rows(release) == found
        assert open_dataset(release).complete
        assert not list(release.rglob("*.tmp"))
        assert not list(release.rglob("bulk-*"))
        assert set(hashes(release)) >= set(before)
    assert set(seen) == {(4, 68, 8), (9, 153, 10)}
    assert seen == sorted(seen), "once they are in, they stay in"
    assert counted.steps > 40


@pytest.mark.parametrize("steps_left", [1, 3, 4, 8])
def test_a_crash_after_the_rows_are_in_is_made_good_by_the_next_try(
    original: Path, bundle: Path, tmp_path: Path, steps_left: int
) -> None:
    """The last steps write ``release.json``; those before it list the new files."""
    counted = FailingDisk(0, Crash)
    taken(bundle, Path(shutil.copytree(original, tmp_path / "counted")), disk=counted)
    release = Path(shutil.copytree(original, tmp_path / "release"))
    with pytest.raises(Crash):
        taken(bundle, release, disk=FailingDisk(counted.steps - steps_left + 1, Crash))
    assert rows(release)[Table.RUNS] == 9

    done = taken(bundle, release)

    assert (done.refused, done.already, done.version) == ((), True, "1.1.0")
    assert rows(release)[Table.RUNS] == 9
    assert (release / "CHANGELOG.md").read_text().count("green-lab") == 1


def test_documents_that_were_not_written_are_written_by_the_next_try(release: Path, bundle: Path) -> None:
    def crash(_: Path) -> None:
        raise Crash

    with pytest.raises(Crash):
        accept(bundle, release, TERMS, decode=decode_here, validate=nothing_found, write_documents=crash)
    assert "green-lab" not in (release / "CHANGELOG.md").read_text()

    taken(bundle, release)

    assert (release / "CHANGELOG.md").read_text().count("green-lab") == 1


def test_a_full_disk_is_told_and_leaves_the_release_as_it_was(release: Path, bundle: Path) -> None:
    before = hashes(release)

    with pytest.raises(CannotWrite, match="disk is full"):
        taken(bundle, release, disk=FailingDisk(6, lambda: OSError(28, "No space left on device")))

    assert rows(release)[Table.RUNS] == 4
    assert {name: hashes(release)[name] for name in before} == before


def test_what_stands_in_the_bundle_never_becomes_a_path(release: Path, bundle: Path, tmp_path: Path) -> None:
    outside = {path for path in tmp_path.rglob("*") if release not in path.parents}

    taken(bundle, release)

    assert {path for path in tmp_path.rglob("*") if release not in path.parents} == outside
