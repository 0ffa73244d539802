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


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8").split("<script>")[0]


def test_a_grid_intensity_on_the_command_line_gives_grams_with_source_and_date(mixed: Path) -> None:
    flags = [
        "--grid-intensity",
        "56±10",
        "--pue",
        "1.2",
        "--grid-source",
        "operator of the grid",
        "--grid-date",
        "2025",
    ]

    assert main([str(mixed), *flags]) == 0

    assert "Grid intensity: 56 ± 10 gCO2e/kWh; operator of the grid; 2025." in page(mixed)
    assert "PUE: 1.2; given on the command line; taken as exact." in page(mixed)


def test_a_source_that_was_not_given_is_said_not_to_be(mixed: Path) -> None:
    assert main([str(mixed), "--grid-intensity", "56+-10"]) == 0

    assert "56 ± 10 gCO2e/kWh; given on the command line, source not stated; date not stated." in page(mixed)
    assert "PUE: 1.56; Uptime Institute" in page(mixed)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--grid-intensity", "9000"], ["9000", "gCO2e per kWh, from 0 to 5000"]),
        (["--grid-intensity", "56±60"], ["56 ± 60", "half width"]),
        (["--grid-intensity", "56", "--pue", "0.8"], ["0.8", "from 1 to 10"]),
        (["--pue", "1.2"], ["--pue", "--grid-intensity 56±10"]),
        (["--grid-source", "x"], ["--grid-source", "--grid-intensity 56±10"]),
    ],
)
def test_a_factor_that_cannot_be_is_told_in_words(
    mixed: Path, capsys: pytest.CaptureFixture[str], flags: list[str], words: list[str]
) -> None:
    assert main([str(mixed), *flags]) == 2

    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert all(word in error for word in words)


@pytest.mark.parametrize("flag", ["--grid-intensity", "--pue"])
def test_what_is_no_number_is_refused_with_an_example(
    mixed: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([str(mixed), flag, "low"])

    assert stopped.value.code == 2
    assert "'low' is not a number: write 56, or 56±10" in capsys.readouterr().err


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
