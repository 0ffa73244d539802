"""The command: what it prints, and what its exit code says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.dataset.schema import Table
from harness.validate import main, parse
from tests.commands import printed, refused
from tests.harness.dataset.validation.healthy import healthy
from tests.harness.dataset.validation.mutating import Edit, change, write


@pytest.fixture(scope="module")
def healthy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("command") / "dataset", healthy())


@pytest.fixture
def warned_folder(tmp_path: Path) -> Path:
    folder = write(tmp_path / "dataset", healthy())
    change(folder, Edit(table=Table.RUNS, where={"run_id": "server"}, values={"lab": "Somebody"}))
    return folder


def test_a_healthy_dataset_is_said_to_be_one(healthy_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(main, capsys, str(healthy_folder), "--fail-on", "note")

    assert "7 runs" in text
    assert "Nothing is wrong" in text


def test_the_exit_code_follows_severity(warned_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(warned_folder)]) == 0
    assert main([str(warned_folder), "--fail-on", "warning"]) == 1
    assert "WARNING import-with-own-columns: runs.lab" in capsys.readouterr().out


def test_json_is_one_object(warned_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = json.loads(printed(main, capsys, str(warned_folder), "--json"))

    assert report["rows"]["runs"] == 7
    assert [finding["rule"] for finding in report["findings"]] == ["import-with-own-columns"]


def test_rules_are_printed_without_a_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    assert "faster-than-roofline" in printed(main, capsys, "--rules")
    assert printed(main, capsys, "--rules", "--markdown").startswith("# What validation checks")


def test_a_folder_without_a_dataset_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1
    assert "holds no dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("somewhere", "--rules"),
        ("somewhere", "--markdown"),
        ("--rules", "--json"),
        ("somewhere", "--fail-on", "everything"),
        ("somewhere", "--memory", "much"),
        ("somewhere", "--memory", "0MB"),
    ],
)
def test_a_command_line_without_sense_is_refused(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(main, capsys, *arguments)


def test_memory_is_read_with_its_unit() -> None:
    assert parse(["somewhere", "--memory", "500MB"]).memory_bytes == 500_000_000
    assert parse(["somewhere", "--memory", "2GiB"]).memory_bytes == 2 * 1024**3
    assert parse(["somewhere"]).memory_bytes is None


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\nfrom harness.validate import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "assert not {'torch', 'pyarrow', 'duckdb', 'numpy'} & set(sys.modules), sys.modules"
    )

    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
