"""Datasets of every version of the schema are read, value for value."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.dataset.reading import open_dataset
from harness.dataset.schema import Table, columns_of
from harness.records import SCHEMA_VERSION
from tests.golden import EXPECTED, GOLDEN

FOLDERS = sorted(GOLDEN.glob("schema-*"))


def test_there_is_a_folder_of_every_version() -> None:
    assert [folder.name for folder in FOLDERS] == [f"schema-{version + 1}" for version in range(SCHEMA_VERSION)]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("table", Table, ids=lambda table: table.title)
def test_every_value_of_a_dataset_of_any_version_is_read(folder: Path, table: Table) -> None:
    expected = json.loads((folder / EXPECTED).read_text())[table.title]

    row_class: Any = table.row_class
    rows = list(open_dataset(folder).rows(row_class))

    read = [{name: getattr(row, name) for name in expected[0]} for row in rows]
    assert sorted(read, key=json.dumps) == sorted(expected, key=json.dumps)


@pytest.mark.parametrize("table", Table, ids=lambda table: table.title)
def test_the_columns_of_this_version_are_those_of_its_folder(table: Table) -> None:
    """A column that comes, goes or changes its name makes a new version, once this one is released."""
    written = json.loads((GOLDEN / f"schema-{SCHEMA_VERSION}" / EXPECTED).read_text())[table.title]

    assert [list(row) for row in written] == [[column.name for column in columns_of(table)]] * len(written)


def test_no_file_of_a_folder_was_damaged() -> None:
    assert [open_dataset(folder).faults() for folder in FOLDERS] == [()] * len(FOLDERS)
