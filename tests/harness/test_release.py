"""The release command: what it prints, refuses and pushes."""

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness import release
from harness.dataset.release.record import read_record
from harness.errors import UsageError
from harness.release import parse
from tests import commands
from tests.harness.dataset.release.hub_stand_in import TOKEN, StandIn, stand_in
from tests.harness.dataset.release.releasable import BOARD, dataset, own_run, served_run

printed, refused = partial(commands.printed, release.main), partial(commands.refused, release.main)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return dataset(tmp_path / "a", [own_run(0), own_run(1, cuda=False), served_run(0)])


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with stand_in() as state:
        monkeypatch.setattr(constants, "ENDPOINT", state.url)
        yield state


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, runpy; sys.argv = ['release', '--help']\n"
        "try: runpy.run_module('harness.release', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print(end.code, {'torch', 'pyarrow', 'duckdb', 'huggingface_hub', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "0 set()"
    assert "--include WORDS" in done.stdout


def test_it_says_what_is_in_it_and_what_was_left_out(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rel"

    text = printed(capsys, str(folder), "--version", "1.0.0", "--out", str(out), "--date", "2026-11-30")

    lines = text.splitlines()
    assert lines[0] == f"{out}: Energy of LLM inference, per phase and per kernel, version 1.0.0"
    assert lines[1].startswith("  runs                        2 rows in 2 files, ")
    assert lines[-1] == "  left out: 1 runs that need --include estimated"
    assert read_record(out).date == "2026-11-30"


def test_without_a_name_the_folder_says_what_is_included(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    printed(capsys, str(folder), "--version", "1.0.0", "--include", "quick,estimated")

    assert (tmp_path / "joulegraph-dataset-1.0.0-estimated-quick" / "manifest.json").is_file()


def test_it_is_pushed_to_a_branch_of_its_version(
    folder: Path, tmp_path: Path, hub: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rel"

    assert release.main([str(folder), "--version", "1.0.0", "--out", str(out), "--push", "me/energy"]) == 0

    last = capsys.readouterr().out.splitlines()[-1]
    assert last.endswith(f"files pushed: {hub.url}/datasets/me/energy/tree/release-1.0.0")
    card = hub.repositories["me/energy"]["release-1.0.0"]["README.md"].decode()
    assert 'folder = "data"  # from the Hub: "hf://datasets/me/energy/data"' in card


def test_a_release_that_was_made_before_is_pushed_as_it_is(
    folder: Path, tmp_path: Path, hub: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rel"
    printed(capsys, str(folder), "--version", "1.0.0", "--out", str(out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    hub.repositories["others/energy"] = {"main": {}}

    pushed = [str(out), "--version", "1.0.0", "--push", "others/energy", "--pull-request"]
    assert release.main(pushed) == 0

    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert capsys.readouterr().out.endswith("/datasets/others/energy/discussions/1\n")
    assert len(hub.pull_requests) == 1


def test_rows_without_a_licence_are_not_published(
    tmp_path: Path, hub: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    from dataclasses import replace

    none = replace(BOARD, source="none", licence=None)
    folder, out = str(dataset(tmp_path / "a", [served_run(0, source=none)])), str(tmp_path / "rel")

    unlicensed = (folder, "--version", "1.0.0", "--include", "unlicensed", "--out", out)
    assert "states no licence" in refused(capsys, *unlicensed, "--push", "me/energy")
    assert not (tmp_path / "rel").exists()
    printed(capsys, *unlicensed)
    assert "states no licence" in refused(capsys, out, "--version", "1.0.0", "--push", "me/energy")
    assert release.main([out, "--version", "1.0.0", "--push", "me/energy", "--private"]) == 0
    assert hub.private == {"me/energy"}


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--version", "one"), "semantic versioning"),
        (("--version", "1.0.0", "--include", "all"), "no such word"),
        (("--version", "1.0.0", "--date", "today"), "no date"),
        (("--version", "1.0.0", "--branch", "b"), "Add --push"),
        (("--version", "1.0.0", "--push", "a/b", "--branch", "b", "--pull-request"), "exclude each other"),
        (("--version", "1.0.0", "--push", "a/b", "--branch", "main"), "is not pushed to main"),
        (("--version", "1.0.0", "--url", "example.org"), "no web address"),
        (("--verson", "1.0.0"), "--version"),
        ((), "--version"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str
) -> None:
    assert why in refused(capsys, str(folder), "--out", str(tmp_path / "rel"), *arguments)
    assert not (tmp_path / "rel").exists()


def test_a_dataset_folder_named_twice_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "named twice" in refused(capsys, str(folder), f"{folder}/", "--version", "1.0.0")


def test_a_folder_without_a_dataset_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert release.main([str(tmp_path), "--version", "1.0.0", "--out", str(tmp_path / "rel")]) == 1
    assert "holds no dataset" in capsys.readouterr().err


def test_words_may_not_be_abbreviated() -> None:
    with pytest.raises(UsageError):
        parse(["a", "--vers", "1.0.0"])
