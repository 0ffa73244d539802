"""The synthetic measurements keep the promises that other tests lean on."""

from collections.abc import Callable

import pytest

from harness.records import EnergyMethod, Measurement, Provenance, Status

Examples = Callable[..., tuple[Measurement, ...]]


def test_apportioned_kernels_and_host_gaps_fill_each_phase(example_measurements: Examples) -> None:
    checked = 0
    for measurement in example_measurements(n_runs=8):
        for phase in measurement.phases:
            kernels_j = [
                row.energy_j or 0.0
                for row in measurement.kernel_energies
                if row.phase == phase.phase and row.method is EnergyMethod.APPORTIONED
            ]
            assert phase.host_gap_energy_j is not None
            assert sum(kernels_j) + phase.host_gap_energy_j == pytest.approx(phase.energy_j)
            checked += 1
    assert checked == 10


def test_the_window_of_a_run_is_not_the_sum_of_its_phases(example_measurements: Examples) -> None:
    for measurement in example_measurements(failures=False):
        assert measurement.run.energy_j != pytest.approx(
            sum(row.energy_j or 0.0 for row in measurement.phases), rel=1e-6
        )


def test_failures_come_last_with_a_reason_and_no_energy(example_measurements: Examples) -> None:
    *_, oom, failed, skipped = example_measurements(n_runs=6)

    assert [row.run.status for row in (oom, failed, skipped)] == [Status.OOM, Status.FAILED, Status.SKIPPED]
    assert all(row.run.status_detail and row.run.energy_j is None for row in (oom, failed, skipped))


def test_both_a_measured_gpu_and_an_estimated_cpu_occur(example_measurements: Examples) -> None:
    assert {row.run.provenance for row in example_measurements()} == {Provenance.MEASURED, Provenance.ESTIMATED}


def test_the_same_seed_gives_the_same_measurements(example_measurements: Examples) -> None:
    assert example_measurements(seed=3) == example_measurements(seed=3)
    assert {row.run.run_id for row in example_measurements(seed=3)}.isdisjoint(
        row.run.run_id for row in example_measurements(seed=4)
    )
