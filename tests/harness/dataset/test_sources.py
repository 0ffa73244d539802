"""The table of sources: what is in it, and that text of others stays text."""

from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset.importers.aiconfigurator import Aiconfigurator
from harness.dataset.importers.blank import BLANK_ENVIRONMENT, BLANK_RUN, identified
from harness.dataset.importers.importing import bulk, carry_over
from harness.dataset.reading import open_dataset
from harness.dataset.sources import main, sources_text
from harness.dataset.store import DatasetStore
from harness.records import SourceRow
from harness.words import Workload
from tests.harness.dataset.importers.aiconfigurator_examples import GEMM, PLACE, write_kernels

SERVED = SourceRow(
    source="served",
    title="a | title <script>",
    url=None,
    version=None,
    licence=None,
    citation=None,
    measured="tpot",
    derived=None,
)


def line_of(text: str, start: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_kernels(tmp_path, PLACE, [GEMM, {**GEMM, "m": 8, "power": None}])
    environment = identified(replace(BLANK_ENVIRONMENT, gpu="NVIDIA H200", device_name="x", meter="y"))
    run = replace(
        BLANK_RUN,
        run_id="r",
        gpu="NVIDIA H200",
        source="served",
        model="a/model",
        workload=Workload.SERVER,
        tpot_s=0.01,
        environment_id=environment.environment_id,
    )
    with DatasetStore.open(tmp_path / "out") as store:
        carry_over(Aiconfigurator().read(tmp_path), store)
        store.append_tables(bulk(runs=[run], environments=[environment], sources=[SERVED]))
    return tmp_path / "out"


def test_each_source_and_gpu_has_a_line_with_rows_quantities_and_licence(folder: Path) -> None:
    text = sources_text(open_dataset(folder))

    kernels, served = line_of(text, "aiconfigurator"), line_of(text, "served")
    assert kernels[1:7] == ["NVIDIA H200", "–", "1", "–", "2", "time, energy (1)"]
    assert kernels[7:] == ["kernel", "imported", "Apache-2.0"]
    assert served[1:] == ["NVIDIA H200", "a/model", "1", "–", "–", "TPOT", "server", "imported", "none stated"]


def test_text_of_others_cannot_break_out_of_its_place(folder: Path) -> None:
    text = sources_text(open_dataset(folder))

    assert "a \\| title &lt;script&gt;" in text


def test_several_folders_make_one_table(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), str(folder)]) == 0

    assert line_of(capsys.readouterr().out, "served")[3] == "2"


def test_no_folder_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "python -m harness.dataset.sources" in capsys.readouterr().err
