"""All public sources in one folder: nothing lost, nothing invalid, and the published table is that of today."""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness import convert, validate
from harness.dataset.reading import Dataset, open_dataset
from harness.dataset.schema import Table
from harness.dataset.sources import sources_text
from harness.records import Provenance, RunRow

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared/data"
PAGE = ROOT / "dataset_card/sources.md"
SOURCES = {  # the word on the command line, and the folder
    "aiconfigurator": "aiconfigurator",
    "energaizer": "energaizer",
    "energy-inference": "energy-inference",
    "ml-energy": "ml-energy-leaderboard-v3",
    "splitwise": "splitwise-sim",
    "co2-meter": "co2-meter",
}
pytestmark = [
    pytest.mark.shared_data,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"the public measurements are not at {SHARED}"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Public:
    """Everything imported, and what validating it says."""

    dataset: Dataset
    validated: int  # exit code
    report: str


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Public:
    folder = tmp_path_factory.mktemp("public") / "imported"
    for name, place in SOURCES.items():
        assert convert.main([name, str(SHARED / place), "--out", str(folder)]) == 0
    printed = io.StringIO()
    with redirect_stdout(printed):
        validated = validate.main([str(folder)])
    return Public(dataset=open_dataset(folder), validated=validated, report=printed.getvalue())


def rows_of(dataset: Dataset, table: Table) -> int:
    return sum(pq.read_metadata(path).num_rows for path in dataset.paths(table))


def test_no_rule_is_broken(public: Public) -> None:
    assert public.validated == 0, public.report
    assert "ERROR" not in public.report


def test_kernels_and_runs_are_as_many_as_the_sources_hold(public: Public) -> None:
    assert rows_of(public.dataset, Table.KERNELS) >= 1_500_000
    assert rows_of(public.dataset, Table.KERNEL_ENERGIES) >= 850_000
    assert rows_of(public.dataset, Table.RUNS) >= 2_500


def test_all_of_it_is_imported_from_a_source_that_is_described(public: Public) -> None:
    runs = list(public.dataset.rows(RunRow))

    assert {run.provenance for run in runs} == {Provenance.IMPORTED}
    described = public.dataset.table(Table.SOURCES).column("source").to_pylist()
    assert {run.source for run in runs} == set(described)
    assert len(described) == len(SOURCES)


def test_the_published_table_is_that_of_these_sources(public: Public) -> None:
    assert PAGE.read_text(encoding="utf-8") == sources_text(public.dataset), (
        "import all sources into one folder DIR and write it anew: "
        "python -m harness.dataset.sources DIR > dataset_card/sources.md"
    )
