"""What is published with the first release: its pages say the numbers of its manifest and of its record."""

import json
import re
from pathlib import Path

import pytest

from harness.dataset.manifest import Manifest, parse_manifest
from harness.dataset.release.record import ReleaseRecord, read_record
from harness.dataset.schema import Table

CARD = Path(__file__).resolve().parents[1] / "dataset_card"
ANEW = "build it anew: tox -e first-release"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    path = CARD / "manifest.json"
    return parse_manifest(path.read_bytes(), path)


@pytest.fixture(scope="module")
def record() -> ReleaseRecord:
    return read_record(CARD)


@pytest.mark.parametrize("table", Table, ids=lambda table: table.title)
def test_the_card_counts_the_rows_of_the_manifest(manifest: Manifest, table: Table) -> None:
    name = table.title.replace("_", r"\\_")
    found = re.search(rf"^\| {name} \| .* \| ([\d,]+) \| (\d+) \|$", (CARD / "README.md").read_text(), re.MULTILINE)

    assert found is not None, ANEW
    files = manifest.files_of(table)
    assert int(found[1].replace(",", "")) == sum(file.rows for file in files), ANEW
    assert int(found[2]) == len(files), ANEW


def test_croissant_has_the_hashes_of_the_manifest(manifest: Manifest) -> None:
    croissant = json.loads((CARD / "croissant.json").read_text())
    listed = {entry["contentUrl"]: entry["sha256"] for entry in croissant["distribution"] if "sha256" in entry}

    assert {file.path: file.sha256 for file in manifest.files}.items() <= listed.items(), ANEW


@pytest.mark.parametrize("page", ["README.md", "datasheet.md", "CITATION.cff", "CHANGELOG.md"])
def test_every_page_is_of_the_recorded_version(record: ReleaseRecord, page: str) -> None:
    assert str(record.version) in (CARD / page).read_text(), ANEW
