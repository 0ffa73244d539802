"""Releases to take bundles into."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from harness.dataset.release.releasing import Wanted, release
from harness.dataset.release.terms import Inclusion
from harness.dataset.release.version import Version
from harness.records import Measurement
from tests.harness.dataset.contributions.measured import write_dataset


def release_of(
    folder: Path, measurements: Sequence[Measurement], *, included: frozenset[Inclusion] = frozenset()
) -> Path:
    source = write_dataset(folder.with_name(f"{folder.name}-source"), measurements)
    wanted = Wanted(
        folders=(source,), out=folder, version=Version.read("1.0.0"), date=date(2026, 11, 30), included=included
    )
    release(wanted)
    return folder
