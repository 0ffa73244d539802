"""The command that writes the page again."""

import subprocess
import sys
from pathlib import Path

import pytest

from harness.report.__main__ import main


def test_the_page_is_written_into_the_folder_of_the_dataset(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(mixed)]) == 0

    assert (mixed / "report.html").is_file()
    assert capsys.readouterr().out.strip() == str(mixed / "report.html")


def test_another_place_can_be_named(mixed: Path, tmp_path: Path) -> None:
    assert main([str(mixed), "--out", str(tmp_path / "page.html")]) == 0
    assert (tmp_path / "page.html").is_file()


def test_a_folder_without_a_dataset_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 1

    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert str(tmp_path) in captured.err
    assert captured.out == ""


def test_help_loads_none_of_the_heavy_packages() -> None:
    code = (
        "import sys, contextlib\n"
        "from harness.report.__main__ import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print(sorted({'torch', 'duckdb', 'plotly', 'pyarrow', 'jinja2'} & set(sys.modules)))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert finished.stdout.strip().endswith("[]")
    assert "DIR/report.html" in finished.stdout
