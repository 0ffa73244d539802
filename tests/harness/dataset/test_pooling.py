"""Which runs may be pooled."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import duckdb
import pytest

from harness.dataset.pooling import POOL_SQL, pool_of
from harness.dataset.rows import arrow_table
from harness.dataset.schema import Table
from harness.records import Measurement, Provenance, Quality, Workload


@pytest.fixture
def measurement(example_measurements: Callable[..., tuple[Measurement, ...]]) -> Measurement:
    return example_measurements(n_runs=1, failures=False)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"provenance": Provenance.MEASURED},
        {"workload": Workload.SERVER},
        {"quality": Quality.STANDARD},
        {"quality": None},
        {"method": "another"},
        {"method": None},
    ],
    ids=str,
)
def test_runs_that_were_made_in_another_way_are_not_pooled(measurement: Measurement, changes: dict[str, Any]) -> None:
    run = replace(measurement.run, provenance=Provenance.SIMULATED, quality=Quality.QUICK, method="one")

    assert pool_of(replace(run, **changes), measurement.environment) != pool_of(run, measurement.environment)


def test_the_source_parts_imported_runs_only(measurement: Measurement) -> None:
    own, imported = (replace(measurement.run, provenance=one) for one in (Provenance.MEASURED, Provenance.IMPORTED))

    assert pool_of(replace(own, source="joulegraph 0.2.0"), None) == pool_of(own, None)
    assert pool_of(replace(imported, source="somebody else"), None) != pool_of(imported, None)


def test_a_calibrated_gain_is_not_pooled_with_one_that_is_only_stated(measurement: Measurement) -> None:
    assert measurement.environment is not None
    calibrated = replace(measurement.environment, calibration="{}")

    assert pool_of(measurement.run, calibrated) != pool_of(measurement.run, measurement.environment)


def test_other_models_and_machines_may_be_pooled(measurement: Measurement) -> None:
    other = replace(measurement.run, model="another", gpu="another", batch_size=64)

    assert pool_of(other, measurement.environment) == pool_of(measurement.run, measurement.environment)


@pytest.mark.parametrize("provenance", Provenance)
@pytest.mark.parametrize("calibration", [None, "{}"])
def test_the_text_of_a_query_is_that_of_the_record(
    measurement: Measurement, provenance: Provenance, calibration: str | None
) -> None:
    assert measurement.environment is not None
    run = replace(measurement.run, provenance=provenance, quality=None)
    environment = replace(measurement.environment, calibration=calibration)
    with duckdb.connect() as database:
        database.register("runs", arrow_table(Table.RUNS, [run]))
        database.register("environments", arrow_table(Table.ENVIRONMENTS, [environment]))
        query = f"SELECT {POOL_SQL} FROM runs LEFT JOIN environments USING (environment_id)"

        assert database.execute(query).fetchall() == [(pool_of(run, environment).title,)]
