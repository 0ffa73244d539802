"""The export command: each format by its name, and what it refuses."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from harness import export
from tests import commands
from tests.harness.dataset.release.releasable import dataset, own_run, served_run

printed, refused = partial(commands.printed, export.main), partial(commands.refused, export.main)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    runs = [own_run(0), own_run(1, cuda=False), served_run(0)]
    return str(dataset(tmp_path_factory.mktemp("export") / "a", runs))


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, runpy; sys.argv = ['export', '--help']\n"
        "try: runpy.run_module('harness.export', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, {'torch', 'pyarrow', 'duckdb', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "0 set()"
    assert "--grid-intensity G" in done.stdout


@pytest.mark.parametrize("lines", ["csv", "jsonl"])
def test_tables_are_written_whole_or_by_name(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], lines: str
) -> None:
    out = tmp_path / "all"
    text = printed(capsys, folder, "--format", lines, "--out", str(out))
    assert f"{out}/runs.{lines}: 3 rows\n" in text
    assert {path.name for path in out.iterdir()} == {
        f"{name}.{lines}"
        for name in ("runs", "phases", "kernels", "kernel_energies", "readings", "environments", "sources")
    }

    text = printed(capsys, folder, "--format", lines, "--out", str(tmp_path / "one"), "--table", "phases")
    assert text == f"{tmp_path}/one/phases.{lines}: 4 rows\n"


def test_reports_leave_out_what_was_not_asked_for_and_say_so(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    text = printed(capsys, folder, "--format", "boamps", "--out", str(out), "--publisher", "A lab")

    assert text == f"{out}: 2 reports\n  left out: 1 runs: needs --include estimated\n"
    publishers = {json.loads(path.read_text())["header"]["publisher"]["name"] for path in out.iterdir()}
    assert publishers == {"A lab"}


def test_the_score_states_its_factors(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"

    text = printed(
        capsys, folder, "--format", "sci", "--out", str(out), "--include", "estimated", "--grid-intensity", "50±5",
        "--grid-source", "A grid", "--pue", "1.2", "--embodied-kg", "300±30", "--unit", "1000-output-tokens",
    )  # fmt: skip

    assert text.startswith(f"{out}/sci.json: 3 scores per 1000-output-tokens\n")
    document = json.loads((out / "sci.json").read_text())
    assert document["carbon_intensity"] == {
        "value": 50.0,
        "half_width": 5.0,
        "unit": "gCO2e/kWh",
        "source": "A grid",
        "date": None,
    }
    assert document["pue"]["value"] == 1.2
    assert document["embodied"][0]["device_kgco2e"] == 300.0


def test_results_of_models_are_written(folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"

    text = printed(capsys, folder, "--format", "eval-results", "--out", str(out), "--benchmark", "me/energy")

    assert text.startswith(f"{out}: 2 results\n")
    assert len(list(out.rglob(".eval_results/*.yaml"))) == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--format", "sci"), "which is not guessed"),
        (("--format", "sci", "--grid-intensity", "much"), "not a number"),
        (("--format", "sci", "--grid-intensity", "9999"), "grid intensity cannot be"),
        (("--format", "sci", "--grid-intensity", "50", "--embodied-kg", "nan"), "--embodied-kg"),
        (("--format", "eval-results"), "Add --benchmark"),
        (("--format", "csv", "--table", "rums"), "no table 'rums'"),
        (("--format", "boamps", "--table", "runs"), "is for csv and jsonl"),
        (("--format", "boamps", "--include", "everything"), "no such word"),
        (("--format", "excel"), "invalid choice"),
    ],
)
def test_what_cannot_be_is_refused(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str
) -> None:
    assert why in refused(capsys, folder, "--out", str(tmp_path / "out"), *arguments)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("")

    assert "not an empty folder" in refused(capsys, folder, "--format", "csv", "--out", str(tmp_path))
