"""Validation and waiting for the disk are slow and have tests of their own: few tests of releases need them."""

from pathlib import Path

import pytest

from harness.dataset.disk import Disk
from harness.dataset.release import releasing
from harness.dataset.validation.findings import ValidationReport


@pytest.fixture
def real_validation() -> None:
    """Ask for it, and a release is validated as it is for everybody."""


@pytest.fixture(autouse=True)
def _validation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found(folder: Path) -> ValidationReport:
        return ValidationReport(folder=folder, rows=(), findings=())

    if "real_validation" not in request.fixturenames:
        monkeypatch.setattr(releasing, "validate", nothing_found)
    monkeypatch.setattr(Disk, "sync", lambda _disk, _paths: None)
