"""How batches get into a dataset: nothing twice, nothing lost."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.importers.account import Account, Flagged, Rejection, total
from harness.dataset.importers.blank import BLANK_ENVIRONMENT, BLANK_RUN, identified
from harness.dataset.importers.importing import ImportedBatch, bulk, carry_over, content_id
from harness.dataset.importers.registry import IMPORTERS, importer_named
from harness.dataset.reading import read_rows
from harness.dataset.store import DatasetStore
from harness.errors import DatasetError, UsageError
from harness.records import Measurement, Provenance, RunRow, SourceRow

SOURCE = SourceRow(
    source="s", title="t", url=None, version=None, licence=None, citation=None, measured="m", derived=None
)


def batch(*run_ids: str, source: SourceRow = SOURCE, **figures: Any) -> ImportedBatch:
    environment = identified(replace(BLANK_ENVIRONMENT, gpu="NVIDIA H200", device_name="x", meter="y"))
    blank = replace(BLANK_RUN, gpu="NVIDIA H200", source="s", environment_id=environment.environment_id, **figures)
    return ImportedBatch(
        tables=bulk(
            runs=[replace(blank, run_id=run_id) for run_id in run_ids], environments=[environment], sources=[source]
        ),
        account=Account(rows_in=len(run_ids), rows_kept=len(run_ids)),
    )


def test_runs_that_are_there_stay_and_only_the_others_are_added(tmp_path: Path) -> None:
    with DatasetStore.open(tmp_path) as store:
        carry_over([batch("a", "b")], store)

    with DatasetStore.open(tmp_path) as store:
        again = carry_over([batch("a", "b"), batch("c")], store)
        mixed = carry_over([batch("a", "d")], store)

    assert (again.runs_new, again.runs_there) == (1, 2)
    assert (mixed.runs_new, mixed.runs_there) == (1, 1)
    assert sorted(row.run_id for row in read_rows(tmp_path, RunRow)) == ["a", "b", "c", "d"]
    assert [row.source for row in read_rows(tmp_path, SourceRow)] == ["s"]


@pytest.mark.parametrize("change", [{"energy_j": 2.0}, {"trials": 3}, {"energy_j": None}])
def test_runs_that_are_there_with_other_figures_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with DatasetStore.open(tmp_path) as store:
        carry_over([batch("a", "b", energy_j=1.0)], store)

    with DatasetStore.open(tmp_path) as store, pytest.raises(DatasetError, match="2 of these runs with other figures"):
        carry_over([batch("a", "b", **{"energy_j": 1.0, **change})], store)

    assert [row.energy_j for row in read_rows(tmp_path, RunRow)] == [1.0, 1.0]


@pytest.mark.parametrize(("held", "version", "fits"), [("1", "2", False), (None, "2", True), ("1", None, True)])
def test_another_version_of_a_source_is_refused_and_an_unknown_one_may_be_the_same(
    tmp_path: Path, held: str | None, version: str | None, fits: bool
) -> None:
    with DatasetStore.open(tmp_path) as store:
        carry_over([batch("a", source=replace(SOURCE, version=held))], store)

    with DatasetStore.open(tmp_path) as store, nullcontext() if fits else pytest.raises(DatasetError, match="version"):
        carry_over([batch("b", source=replace(SOURCE, version=version))], store)

    assert len(list(read_rows(tmp_path, RunRow))) == (2 if fits else 1)


def test_a_folder_with_runs_of_a_campaign_takes_no_imported_ones(tmp_path: Path) -> None:
    measured = replace(BLANK_RUN, run_id="a", gpu="NVIDIA H200", source="s", provenance=Provenance.MEASURED)
    with DatasetStore.open(tmp_path, campaign_id="c") as store:
        store.append(Measurement(run=replace(measured, campaign_id="c"), source=SOURCE))

    with pytest.raises(DatasetError, match="holds runs that are measured"):
        carry_over([batch("b")], DatasetStore.open(tmp_path))

    with DatasetStore.open(tmp_path, campaign_id="c") as store:
        assert store.finished_run_ids() == {"a"}


def test_an_example_is_shown_without_what_a_terminal_would_obey() -> None:
    assert Rejection(rule="r", rows=1, example="a\x1b[2J\nb é").shown == "a�[2J�b é"


def test_a_batch_of_rejected_rows_only_counts(tmp_path: Path) -> None:
    account = Account(rows_in=2, rows_kept=0, rejections=(Rejection(rule="r", rows=2, example="e"),))

    with DatasetStore.open(tmp_path) as store:
        carried = carry_over([ImportedBatch(tables=None, account=account), batch("a")], store)

    assert (carried.account.rows_in, carried.account.rows_kept, carried.runs_new) == (3, 1, 1)


def test_an_account_that_loses_rows_is_refused() -> None:
    with pytest.raises(DatasetError, match="the rest was lost"):
        Account(rows_in=3, rows_kept=1, rejections=(Rejection(rule="r", rows=1, example="e"),))


def test_accounts_add_up_rule_by_rule() -> None:
    rejection, flag = Rejection(rule="r", rows=1, example="first"), Flagged(rule="f", rows=2)
    parts = [Account(rows_in=4, rows_kept=3, rejections=(rejection,), flagged=(flag,))] * 2

    found = total(parts)

    assert (found.rows_in, found.rows_kept) == (8, 6)
    assert found.rejections == (Rejection(rule="r", rows=2, example="first"),)
    assert found.flagged == (Flagged(rule="f", rows=4),)


def test_ids_tell_values_apart_that_look_alike() -> None:
    assert len({content_id("1"), content_id(1), content_id(1.0), content_id(True), content_id("1", None)}) == 5


def test_every_importer_has_a_name_of_its_own() -> None:
    assert len({importer.name for importer in IMPORTERS}) == len(IMPORTERS)
    assert importer_named("aiconfigurator").licence == "Apache-2.0"


def test_an_unknown_importer_is_an_error_that_names_the_others() -> None:
    with pytest.raises(UsageError, match=r"aiconfigurator, .*table"):
        importer_named("aiconfig")
