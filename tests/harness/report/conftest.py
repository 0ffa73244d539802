"""Datasets to make pages of."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset.store import DatasetStore
from harness.records import Measurement, Status
from tests.examples import tensor_parallel_measurement
from tests.harness.report.report_examples import simulated, with_ledger, with_methods

HOSTILE = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>{{7*7}}%{x}"
DatasetOf = Callable[..., Path]


def hostile(measurement: Measurement) -> Measurement:
    """The same measurement with markup in every text that may come from elsewhere."""
    run = measurement.run
    run = replace(run, model=HOSTILE, gpu=f"cpu: {HOSTILE}", clipped=HOSTILE, dtype=HOSTILE, method=HOSTILE)
    run = replace(run, runtime=HOSTILE, attention=HOSTILE, model_revision=HOSTILE, quantization=HOSTILE)
    run = replace(run, status_detail=HOSTILE, source=HOSTILE, started_at_utc=HOSTILE, parallelism=HOSTILE)
    environment = measurement.environment
    if environment is not None:
        environment = replace(environment, device_name=HOSTILE, cpu=HOSTILE, calibration=HOSTILE, topology=HOSTILE)
    return replace(
        measurement,
        run=run,
        environment=environment,
        phases=tuple(replace(row, method=HOSTILE) for row in measurement.phases),
        kernels=tuple(replace(row, op=HOSTILE, module=HOSTILE) for row in measurement.kernels),
        rank_times=tuple(replace(row, device=HOSTILE) for row in measurement.rank_times),
        readings=tuple(
            replace(row, meter=HOSTILE, rejected=HOSTILE if row.trial == 1 else None) for row in measurement.readings
        ),
    )


@pytest.fixture(scope="session")
def dataset_of(tmp_path_factory: pytest.TempPathFactory) -> DatasetOf:
    """Call it with measurements to get the folder of a dataset that holds them."""

    def write(*measurements: Measurement) -> Path:
        folder = tmp_path_factory.mktemp("dataset")
        with DatasetStore.open(folder) as store:
            for measurement in measurements:
                store.append(measurement)
        return folder

    return write


@pytest.fixture(scope="session")
def mixed(dataset_of: DatasetOf, example_measurements: Callable[..., tuple[Measurement, ...]]) -> Path:
    """Measured and estimated runs, and one failure of each kind."""
    return dataset_of(*example_measurements(n_runs=9))


@pytest.fixture(scope="session")
def hostile_dataset(dataset_of: DatasetOf, example_measurements: Callable[..., tuple[Measurement, ...]]) -> Path:
    """Markup in every text."""
    return dataset_of(*map(hostile, (*example_measurements(n_runs=6), tensor_parallel_measurement(2))))


@pytest.fixture(scope="session")
def parallel(dataset_of: DatasetOf, example_measurements: Callable[..., tuple[Measurement, ...]]) -> Path:
    """The same request on one rank, on three, and on four that are spread over two machines."""
    one = example_measurements(n_runs=1)
    return dataset_of(*one, tensor_parallel_measurement(3), tensor_parallel_measurement(4, nodes=2))


@pytest.fixture(scope="session")
def virtual(dataset_of: DatasetOf) -> Path:
    """A simulated run on three ranks, with a ledger and every kernel by three methods."""
    return dataset_of(with_ledger(with_methods(simulated(tensor_parallel_measurement(3))), residual_j=1.0))


@pytest.fixture(scope="session")
def failed(dataset_of: DatasetOf, example_measurements: Callable[..., tuple[Measurement, ...]]) -> Path:
    """No run finished."""
    return dataset_of(*(one for one in example_measurements(n_runs=6) if one.run.status is not Status.OK))
