"""The card makes the folder a Hugging Face dataset at every moment, and says what the numbers are."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.card import escaped
from harness.dataset.schema import Table, arrow_schema
from harness.dataset.store import DatasetStore
from harness.errors import CannotWrite
from harness.records import Measurement, Provenance, RunRow

Examples = Callable[..., tuple[Measurement, ...]]
Load = Callable[[Path, str], Any]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load one table with the real ``datasets``, offline, with a cache of its own."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()

    def loaded(folder: Path, table: str) -> Any:
        return datasets.load_dataset(str(folder), table, cache_dir=str(tmp_path / "cache"))["train"]

    return loaded


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_folder_loads_from_the_first_run_on_and_at_every_later_moment(
    tmp_path: Path, example_measurements: Examples, load: Load
) -> None:
    folder, measurements = tmp_path / "dataset", example_measurements()
    store = DatasetStore.open(folder)
    store.append(measurements[0])
    assert load(folder, "runs")["run_id"][:] == [measurements[0].run.run_id]
    store.append(measurements[1])
    store.close()
    assert load(folder, "runs").num_rows == 2
    store = DatasetStore.open(folder)
    for measurement in measurements[2:]:
        store.append(measurement)
    assert load(folder, "runs").num_rows == 6  # some compacted, some not
    store.close()

    for table in Table:
        rows = {row for measurement in measurements for row in table.rows_of(measurement)}
        loaded = load(folder, table.title)
        assert loaded.num_rows == len(rows)
        assert loaded.column_names == arrow_schema(table).names
    assert load(folder, "runs")["energy_j"][:].count(None) == 3


def test_a_table_without_rows_has_no_entry_so_that_the_others_load(
    tmp_path: Path, example_measurements: Examples, load: Load
) -> None:
    folder = tmp_path / "dataset"
    with DatasetStore.open(folder) as store:
        store.append(example_measurements()[0])

    assert "config_name: kernels" in card_of(folder)
    assert "config_name: power_traces" not in card_of(folder)
    assert load(folder, "kernels").num_rows == 24


def test_provenance_quality_and_every_ending_are_in_plain_sight(tmp_path: Path, example_measurements: Examples) -> None:
    with DatasetStore.open(tmp_path) as store:
        for measurement in example_measurements(n_runs=8):
            store.append(measurement)
    card = card_of(tmp_path)

    assert "license: cc-by-4.0" in card
    assert "| **estimated** | a power model times time; no counter was read | quick | joulegraph 0.1.0 | 5 |" in card
    assert "| **measured** | read from a hardware energy counter | quick | joulegraph 0.1.0 | 3 |" in card
    assert "not for comparing" in card
    assert "| model | device | ok | oom | failed | skipped |" in card
    assert "| **all** | | 5 | 1 | 1 | 1 |" in card
    assert "| `runs` | One request on one deployment, in whatever way it ended. | 8 |" in card


def test_every_provenance_has_a_meaning(tmp_path: Path, example_measurements: Examples) -> None:
    first, *_ = example_measurements()
    with DatasetStore.open(tmp_path) as store:
        for number, provenance in enumerate(Provenance):
            row: RunRow = replace(first.run, run_id=f"run{number}", provenance=provenance)
            store.append(Measurement(run=row))

    assert all(f"| **{provenance}** |" in card_of(tmp_path) for provenance in Provenance)


def test_text_from_data_is_shown_and_does_nothing_else(
    tmp_path: Path, example_measurements: Examples, load: Load
) -> None:
    first, *_ = example_measurements()
    model = "me/[model](http://x) | <script>\n---\nconfigs: []\n# `Title` *_\u202e"
    folder = tmp_path / "dataset"
    with DatasetStore.open(folder) as store:
        store.append(Measurement(run=replace(first.run, model=model)))

    (line,) = [line for line in card_of(folder).splitlines() if "me/" in line]
    assert line.startswith(r"| me/\[model\](http\://x) \| \<script\> --- configs: \[\] # \`Title\` \*\_ | cpu: Example")
    assert load(folder, "runs")["model"][:] == [model]


def test_escaping_leaves_ordinary_names_as_they_are() -> None:
    assert escaped("NVIDIA A100-SXM4-80GB (2.0)") == "NVIDIA A100-SXM4-80GB (2.0)"


def test_a_run_is_kept_when_only_the_card_cannot_be_renewed(tmp_path: Path, example_measurements: Examples) -> None:
    first, *_ = example_measurements()
    store = DatasetStore.open(tmp_path)
    (tmp_path / "README.md.tmp").mkdir()

    with pytest.raises(CannotWrite):
        store.append(first)

    assert store.contains(first.run.run_id)
    (tmp_path / "README.md.tmp").rmdir()
    assert DatasetStore.open(tmp_path).finished_run_ids() == {first.run.run_id}
