"""From a campaign to the public dataset: run, validate, release, load, submit, accept, with real files."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import datasets
import duckdb
import polars
import pytest

from harness import accept, release, run, submit, validate
from harness.dataset.reading import open_dataset
from harness.dataset.schema import Table
from harness.records import RunRow

PACK = ("--reference-pack", "--device", "virtual:a100-sxm", "--quality", "quick")
REHEARSAL = ("--include", "simulated,quick")


def done(main: Callable[[list[str]], int], *arguments: str | Path) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def hashes(folder: Path) -> dict[str, str]:
    """Every file of rows, by its name."""
    files = (path for path in folder.glob("data/*/*.parquet"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def runs_by_datasets(folder: Path) -> int:
    loaded = datasets.load_dataset(str(folder), "runs", split="train", cache_dir=str(folder.parent / "cache"))
    return len(loaded)


def test_a_campaign_becomes_a_release_and_another_lab_adds_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    campaign, pack, public, bundle = (tmp_path / name for name in ("campaign", "pack", "public", "bundle.zip"))
    done(run.main, "--requests", "2x64x8", "--device", "virtual:h100-sxm", "--quality", "quick", "--out", campaign)
    done(run.main, *PACK, "--out", pack)
    done(validate.main, campaign)
    done(release.main, campaign, "--version", "1.0.0", "--out", public, *REHEARSAL)
    done(validate.main, public)
    before = hashes(public)
    own = list(open_dataset(campaign).rows(RunRow))
    assert [row.run_id for row in open_dataset(public).rows(RunRow)] == [row.run_id for row in own]
    _check_loads(public, 1)

    done(submit.main, pack, "--lab", "another-lab", "--offline", "--out", bundle, *REHEARSAL)
    done(accept.main, bundle, "--into", public, *REHEARSAL)

    done(validate.main, public)
    after = hashes(public)
    assert {name: after[name] for name in before} == before, "a file of rows was rewritten"
    contributed = [row for row in open_dataset(public).rows(RunRow) if row.lab == "another-lab"]
    assert len(contributed) == len(list(open_dataset(pack).rows(RunRow))) == 4
    _check_loads(public, 5)


def _check_loads(folder: Path, runs: int) -> None:
    assert runs_by_datasets(folder) == runs
    assert polars.scan_parquet(folder / "data/runs/*.parquet").select(polars.len()).collect().item() == runs
    with duckdb.connect() as database:
        found = database.execute(f"SELECT count(*) FROM '{folder}/data/runs/*.parquet'").fetchall()
    assert found == [(runs,)]
    manifest = open_dataset(folder).manifest
    assert manifest is not None
    assert sum(file.rows for file in manifest.files_of(Table.RUNS)) == runs
