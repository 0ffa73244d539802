"""What every test may use."""

from collections.abc import Callable

import pytest
from hypothesis import settings

from harness.records import Measurement
from tests.examples import make_measurements

# How long an example takes says something about the machine it shares, nothing about the code.
settings.register_profile("joulegraph", deadline=None)
settings.load_profile("joulegraph")


@pytest.fixture(scope="session")
def example_measurements() -> Callable[..., tuple[Measurement, ...]]:
    """Call it as ``example_measurements(n_runs=6, kernels_per_phase=12, seed=0, failures=True)``."""
    return make_measurements
