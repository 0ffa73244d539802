"""A small dataset folder of each version of the schema, kept so that every later version must read it.

``python -m tests.golden`` writes the folder of the present version, which is done once, when the version is released.
"""

import json
import shutil
import sys
from dataclasses import fields
from pathlib import Path

from harness.dataset.schema import Table
from harness.dataset.store import DatasetStore
from harness.records import SCHEMA_VERSION
from tests.examples import make_measurements, tensor_parallel_measurement

GOLDEN = Path(__file__).parent / "golden"
EXPECTED = "expected.json"  # every row of every table, as it was when the folder was written


def write_golden(folder: Path) -> None:
    """Write the folder of the present version: runs that ended in every way, on CPU and GPUs."""
    several = tensor_parallel_measurement(2, kernels_per_phase=3, seed=1)
    measurements = (*make_measurements(n_runs=5, kernels_per_phase=7, seed=1), several)
    shutil.rmtree(folder, ignore_errors=True)
    with DatasetStore.open(folder) as store:
        for measurement in measurements:
            store.append(measurement)
    rows = {table.title: [row for one in measurements for row in table.rows_of(one)] for table in Table}
    unique = {title: list(dict.fromkeys(found)) for title, found in rows.items()}  # rows that runs share are there once
    expected = {
        title: [{field.name: getattr(row, field.name) for field in fields(row)} for row in found]
        for title, found in unique.items()
    }
    (folder / EXPECTED).write_text(json.dumps(expected, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_golden(GOLDEN / f"schema-{SCHEMA_VERSION}")
    sys.stdout.write(f"{GOLDEN}/schema-{SCHEMA_VERSION} written\n")
