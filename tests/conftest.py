"""What every test may use."""

from collections.abc import Callable

import pytest

from harness.records import Measurement
from tests.examples import make_measurements


@pytest.fixture(scope="session")
def example_measurements() -> Callable[..., tuple[Measurement, ...]]:
    """Call it as ``example_measurements(n_runs=6, kernels_per_phase=12, seed=0, failures=True)``."""
    return make_measurements
