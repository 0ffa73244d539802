"""One healthy dataset, written once, copied for every test that changes it."""

import shutil
from pathlib import Path

import pytest

from tests.harness.dataset.validation.healthy import healthy
from tests.harness.dataset.validation.mutating import write


@pytest.fixture(scope="session")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("healthy") / "dataset", healthy())


@pytest.fixture
def folder(untouched: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(untouched, tmp_path / "dataset"))
