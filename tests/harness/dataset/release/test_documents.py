"""What is beside the tables: the card loads as it says, and every document says what the tables hold."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.release.documents import write_documents
from harness.dataset.release.record import read_record
from harness.dataset.release.releasing import release
from harness.dataset.release.terms import Inclusion
from harness.dataset.schema import Table, arrow_schema, columns_of
from harness.errors import DatasetError
from harness.records import Quality, Status
from tests.harness.dataset.release.releasable import BOARD, dataset, own_run, served_run, wanted

yaml = pytest.importorskip("yaml")
NASTY = "me/[x](http://y) | <script>`a`\n---\nlicense: mit\n# Title"


@pytest.fixture(scope="module")
def rel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with measured, estimated, quick and imported runs; its validation has tests of its own."""
    home = tmp_path_factory.mktemp("documents")
    runs = [
        *(own_run(index) for index in range(3)),
        own_run(3, cuda=False),
        own_run(4, cuda=False, quality=Quality.QUICK),
        own_run(5, model=NASTY, lab="Lab & <b>Co</b>"),
        own_run(6, status=Status.OOM),
        *(served_run(index) for index in range(2)),
    ]
    folder = dataset(home / "dataset", runs)
    url = "https://huggingface.co/datasets/joulegraph/energy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.dataset.release.releasing._refuse_faulty", lambda _folder: None)
        release(wanted([folder], home / "rel", Inclusion.ESTIMATED, Inclusion.QUICK, url=url))
    return home / "rel"


def front_matter(folder: Path) -> dict[str, Any]:
    _, head, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def test_the_front_matter_names_licences_tags_and_size(rel: Path) -> None:
    head = front_matter(rel)

    assert head["license"] == ["cc-by-4.0", "apache-2.0"]
    assert {"energy", "llm", "estimated", "quick"} <= set(head["tags"])
    assert "failed" not in head["tags"]
    assert head["size_categories"] == ["n<1K"]
    assert head["pretty_name"].endswith("with estimated and quick runs")
    titles = [config["config_name"] for config in head["configs"]]
    assert titles[0] == "runs"
    assert [config.get("default") for config in head["configs"]].count(True) == 1
    assert "graphs" not in titles  # it has no rows


def test_datasets_loads_every_table_and_finds_the_columns_that_the_card_declares(
    rel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    head = front_matter(rel)
    infos = {info["config_name"]: info for info in head["dataset_info"]}
    for config in head["configs"]:
        name = config["config_name"]
        declared = datasets.load_dataset(str(rel), name, split="train", cache_dir=str(tmp_path / "declared"))
        files = str(rel / config["data_files"][0]["path"])
        inferred = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "bare"))
        table = next(table for table in Table if table.title == name)
        assert declared.features == inferred.features
        assert declared.num_rows == inferred.num_rows == infos[name]["splits"][0]["num_examples"]
        assert declared.column_names == arrow_schema(table).names
        assert declared.to_list() == inferred.to_list()


def test_the_code_on_the_card_runs_as_it_stands_there(rel: Path, tmp_path: Path) -> None:
    card = (rel / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    assert [re.findall(r"^import (\w+)", snippet, re.MULTILINE)[0] for snippet in snippets] == [
        "datasets",
        "polars",
        "duckdb",
    ]

    found = "print('found', current.num_rows, per_phase.shape, len(per_token.fetchall()))"
    program = "\n".join([*snippets, found])
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=rel, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "Ignoring" not in done.stderr  # of what the card declares
    # Eight runs; prefill and decode of four sets of model, device and quality; those four and a server.
    assert done.stdout.splitlines()[-1] == "found 8 (8, 7) 5"


def test_croissant_is_valid_without_a_warning_and_reads_every_record(rel: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")

    croissant = mlcroissant.Dataset(str(rel / "croissant.json"))

    assert croissant.metadata.ctx.issues.report() == ""
    assert croissant.metadata.conforms_to == [
        "http://mlcommons.org/croissant/1.1",
        "http://mlcommons.org/croissant/RAI/1.0",
    ]
    runs = list(croissant.records("runs"))
    assert len(runs) == 8
    assert {record["runs/provenance"] for record in runs} == {b"measured", b"estimated", b"imported"}
    assert {record["runs/batch_size"] for record in runs if record["runs/gpu"] == b"NVIDIA H100 80GB HBM3"} == {64, 65}
    kernels = list(croissant.records("kernels"))
    assert all(record["kernels/duration_s"] == 0.4 for record in kernels)
    metadata = croissant.metadata
    assert metadata.data_limitations
    assert metadata.data_biases
    assert metadata.personal_sensitive_information
    assert set(metadata.data_collection_type) == {
        "Direct measurement",
        "Others (estimated with a power model)",
        "Secondary Data analysis",
    }


def test_croissant_describes_every_column_with_its_unit_and_every_file_with_its_hash(rel: Path) -> None:
    document = json.loads((rel / "croissant.json").read_text(encoding="utf-8"))
    manifest = json.loads((rel / "manifest.json").read_text(encoding="utf-8"))

    fields = {field["@id"]: field for records in document["recordSet"] for field in records["field"]}
    for records in document["recordSet"]:
        table = next(table for table in Table if table.title == records["name"])
        assert [field["name"] for field in records["field"]] == [column.name for column in columns_of(table)]
    assert fields["runs/energy_j"]["unitCode"] == "JOU"
    assert fields["runs/duration_s"]["unitText"] == "second"
    assert fields["readings/sm_clock_mhz"]["unitCode"] == "MHZ"
    assert fields["environments/peak_bytes_per_s"]["unitCode"] == "P93"
    assert "unitCode" not in fields["runs/batch_size"]
    assert fields["runs/kv_cache"]["dataType"] == "sc:Boolean"
    hashes = {entry["@id"]: entry["sha256"] for entry in document["distribution"] if entry["@type"] == "cr:FileObject"}
    assert hashes == {file["path"]: file["sha256"] for file in manifest["files"]}
    assert document["license"] == [
        "https://creativecommons.org/licenses/by/4.0/",
        "https://www.apache.org/licenses/LICENSE-2.0",
    ]


def test_the_tables_of_the_card_are_made_from_the_data(rel: Path) -> None:
    card = (rel / "README.md").read_text(encoding="utf-8")

    assert "8 runs of 3 language models on 3 devices; 12 phases; 12 kernels; 12 energies of kernels." in card
    assert "| measured | read from a hardware energy counter | standard | joulegraph 0.1.0 | CC-BY-4.0 | 4 |" in card
    assert (
        "| example-board | NVIDIA H100 80GB HBM3 | 1 | 2 | 0 | 0 | energy (2), time (2), power (2) | run | Apache-2.0 |"
        in card
    )
    assert "| failed | 1 |" in card  # left out
    assert "**example-board** (2 runs): The Example \\| Leaderboard, <https://example.org/board>, v3." in card
    assert "Derived: energy\\_j = joules per token × mean output tokens. Cite: Example et al., 2025" in card


def test_text_from_data_does_nothing_in_any_document(rel: Path) -> None:
    for name in ("README.md", "datasheet.md", "CHANGELOG.md", "CITATION.cff", "figures/coverage.svg"):
        text = (rel / name).read_text(encoding="utf-8")
        assert "<script>" not in text.replace("\\<script\\>", ""), name
        assert "\n# Title" not in text, name
        assert "<b>Co" not in text.replace("\\<b\\>", "").replace('"Lab & <b>Co</b>"', ""), name
    assert front_matter(rel)["license"] == ["cc-by-4.0", "apache-2.0"]


def test_the_citation_is_a_citation_file_of_a_dataset(rel: Path) -> None:
    citation = yaml.safe_load((rel / "CITATION.cff").read_text(encoding="utf-8"))

    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "dataset"
    assert (citation["version"], citation["date-released"], citation["license"]) == ("1.0.0", "2026-11-30", "CC-BY-4.0")
    assert [author["name"] for author in citation["authors"]] == ["The Joulegraph developers", "Lab & <b>Co</b>"]
    (reference,) = citation["references"]
    assert reference["title"] == BOARD.title
    assert {"type", "title", "authors"} <= set(reference)


def test_the_datasheet_answers_with_numbers_of_the_tables(rel: Path) -> None:
    sheet = (rel / "datasheet.md").read_text(encoding="utf-8")

    assert "$" not in sheet
    assert "Left out of this version were runs released only when asked for by name: 1 (failed)." in sheet
    assert "Of 8 runs with an energy 75 % have its 95 % interval. 8 of\n8 runs ended `ok`." in sheet
    assert "Runs whose time is known were made from 2026-11-23 to 2026-11-23." in sheet
    assert re.findall(r"^## (.*)$", sheet, re.MULTILINE) == [
        "Motivation",
        "Composition",
        "Collection process",
        "Preprocessing, cleaning, labelling",
        "Uses",
        "Distribution",
        "Maintenance",
    ]


def test_licence_texts_go_along(rel: Path) -> None:
    licence = (rel / "LICENSE").read_text(encoding="utf-8")

    assert licence.startswith("Attribution 4.0 International\n")
    assert "Section 8 -- Interpretation." in licence
    assert {path.name for path in (rel / "LICENSES").iterdir()} == {"Apache-2.0.txt"}


def test_documents_are_written_again_from_what_is_there(rel: Path) -> None:
    before = {path: path.read_bytes() for path in rel.rglob("*") if path.is_file()}
    (rel / "README.md").write_text("old")
    (rel / "figures" / "older.svg").write_text("<svg/>")

    write_documents(rel)

    assert {path: path.read_bytes() for path in rel.rglob("*") if path.is_file()} == before


def test_a_folder_that_is_no_release_gets_no_documents(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "a", [own_run(0)])

    with pytest.raises(DatasetError, match="is no release"):
        write_documents(folder)


def test_unknown_and_missing_licences_are_said_plainly(tmp_path: Path) -> None:
    none = replace(BOARD, source="no-licence", licence=None)
    odd = replace(BOARD, source="odd-licence", licence="My-Own-1.0")
    folder = dataset(tmp_path / "a", [served_run(0, source=none), served_run(1, source=odd)])

    release(wanted([folder], tmp_path / "rel", Inclusion.UNLICENSED))

    card = (tmp_path / "rel" / "README.md").read_text(encoding="utf-8")
    assert front_matter(tmp_path / "rel")["license"] == ["cc-by-4.0", "other", "unknown"]
    assert "no licence stated: do not redistribute" in card
    assert "with unlicensed runs" in card
    assert read_record(tmp_path / "rel").included == (Inclusion.UNLICENSED,)
