"""The command, in process, on files made by hand."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from harness import convert
from harness.dataset.importers.table_example import EXAMPLE
from tests import commands
from tests.harness.dataset.importers.aiconfigurator_examples import GEMM, PLACE, rows_of, write_kernels

printed, refused = partial(commands.printed, convert.main), partial(commands.refused, convert.main)

CSV = """\
gpu,model,batch,input_tokens,output_tokens,energy_wh,latency_ms,ttft_ms,limit,iteration
h100,meta-llama/Llama-2-7b-hf,8,512,128,0.5,2000,100,700,0
h100,meta-llama/Llama-2-7b-hf,8,512,128,0.4,2010,101,700,1
"""


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys, runpy; sys.argv = ['convert', '--help']\n"
        "try: runpy.run_module('harness.convert', run_name='__main__')\n"
        "except SystemExit as end: print(end.code, {'torch', 'pyarrow', 'duckdb', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "0 set()"
    assert "reference-data" in done.stdout


def test_the_account_balances_and_says_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kernels(tmp_path, PLACE, [GEMM, GEMM, {**GEMM, "latency": 0.05}])

    text = printed(capsys, "aiconfigurator", str(tmp_path), "--out", str(tmp_path / "out"))

    assert "3 rows read = 2 kept + 1 rejected" in text
    assert "1  equal in every value to a row before it (first: h200_sxm/gemm/vllm/0.22.0/gemm_perf.parquet" in text
    assert "flagged" in text
    assert "1 runs added" in text
    assert "licence: Apache-2.0" in text
    assert len(rows_of(tmp_path / "out", "kernels")) == 2


def test_importing_again_adds_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kernels(tmp_path, PLACE, [GEMM])
    line = ("aiconfigurator", str(tmp_path), "--out", str(tmp_path / "out"), "--json")
    printed(capsys, *line)

    again = json.loads(printed(capsys, *line))

    (source,) = again["sources"]
    assert (source["rows_in"], source["rows_kept"], source["rows_rejected"]) == (1, 1, 0)
    assert (source["runs_added"], source["runs_there"]) == (0, 1)
    assert len(rows_of(tmp_path / "out", "kernels")) == 1


def test_the_list_names_sources_and_licences(capsys: pytest.CaptureFixture[str]) -> None:
    listed = {each["source"]: each["licence"] for each in json.loads(printed(capsys, "--list", "--json"))}

    assert listed["aiconfigurator"] == "Apache-2.0"
    assert listed["energy-inference"] is None
    assert "energy-inference" in printed(capsys, "--list")


def test_both_installed_packages_are_imported_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = tmp_path / "site-packages"
    write_kernels(site / "aiconfigurator_core", PLACE, [GEMM])
    models = site / "leadgreen_mcp/data/models"
    models.mkdir(parents=True)
    (site / "leadgreen_mcp/data/manifest.json").write_text('{"source_version": "v3"}')
    for package in ("aiconfigurator_core", "leadgreen_mcp"):
        (site / package / "__init__.py").write_text("raise SystemExit('the code of a package of data ran')\n")
        (site / f"{package}-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(site))
    read: list[Path] = []
    from harness.dataset.importers.importing import ImportedBatch
    from harness.dataset.importers.leadgreen import LeadGreen

    def note(_: LeadGreen, path: Path) -> Iterator[ImportedBatch]:
        read.append(path)
        return iter(())

    monkeypatch.setattr(LeadGreen, "read", note)

    text = printed(capsys, "reference-data", "--out", str(tmp_path / "out"))

    assert "aiconfigurator → " in text
    assert "leadgreen-mcp → " in text
    assert read == [site / "leadgreen_mcp"]


def test_reference_data_that_is_not_installed_is_an_error_that_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from harness.dataset.importers import reference_data

    monkeypatch.setattr(reference_data, "find_spec", lambda _: None)

    complaint = refused(capsys, "reference-data", "--out", str(tmp_path / "out"))

    assert "pip install 'joulegraph[reference-data]'" in complaint
    assert not (tmp_path / "out").exists()


def test_any_table_is_imported_by_a_mapping(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.csv").write_text(CSV)
    (tmp_path / "map.toml").write_text(printed(capsys, "--example-mapping"))
    line = ("table", str(tmp_path / "runs.csv"), "--mapping", str(tmp_path / "map.toml"))

    text = printed(capsys, *line, "--out", str(tmp_path / "out"))

    assert "2 rows read = 1 kept + 1 rejected" in text
    assert "a warm-up pass (first: runs.csv, line 2)" in text
    (run,) = rows_of(tmp_path / "out", "runs")
    assert (run["energy_j"], run["duration_s"]) == (pytest.approx(1440), 2.01)


def test_a_path_that_is_not_there_makes_no_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"

    assert "is not there" in refused(capsys, "splitwise", str(tmp_path / "nowhere"), "--out", str(out))
    assert not out.exists()


def test_what_a_source_writes_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = "model,hardware,prompt_size,batch_size,token_size,peak_power,average_power,prompt_time,token_time"
    (tmp_path / "perf_model.csv").write_text(f"{columns},e2e_time,tensor_parallel\n\x1b[2Jx,a,1,1,1,0,0,1,1,1,1\n")

    text = printed(capsys, "splitwise", str(tmp_path), "--out", str(tmp_path / "out"))

    assert "first: �[2Jx" in text
    assert "\x1b" not in text


def test_a_source_without_a_licence_comes_with_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs.csv").write_text(CSV)
    (tmp_path / "map.toml").write_text(EXAMPLE.replace("licence = ", "# licence = "))

    text = printed(
        capsys,
        "table",
        str(tmp_path / "runs.csv"),
        "--mapping",
        str(tmp_path / "map.toml"),
        "--out",
        str(tmp_path / "o"),
    )

    assert "licence: none is stated" in text


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ((), "Say what to import"),
        (("splitwise", "x"), "Say what to import"),
        (("splitwise", "--out", "o"), "needs the PATH"),
        (("reference-data", "x", "--out", "o"), "finds its packages itself"),
        (("table", "x.csv", "--out", "o"), "--mapping"),
        (("splitwise", "x", "--out", "o", "--mapping", "m"), "--mapping"),
        (("nowhere", "x", "--out", "o"), "no source that can be imported"),
    ],
)
def test_a_command_line_that_cannot_be_is_refused(
    capsys: pytest.CaptureFixture[str], line: tuple[str, ...], complaint: str
) -> None:
    assert complaint in refused(capsys, *line)
