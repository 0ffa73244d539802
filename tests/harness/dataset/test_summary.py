"""A dataset adds up to what its rows say, and to nothing where a row says nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset import summary as summary_module
from harness.dataset.store import DatasetStore
from harness.dataset.summary import Summary, summarise
from harness.errors import CorruptFile, DatasetError
from harness.kernels import KernelKind, Phase
from harness.records import (
    EnergyMethod,
    KernelEnergyRow,
    KernelRow,
    Measurement,
    Part,
    PhaseRow,
    Provenance,
    ReadingRow,
    RunRow,
    Status,
    Workload,
)

Examples = Callable[..., tuple[Measurement, ...]]


@pytest.fixture
def one(example_measurements: Examples) -> Measurement:
    return example_measurements(n_runs=1)[0]


def summary_of(folder: Path, measurements: Sequence[Measurement]) -> Summary:
    with DatasetStore.open(folder) as store:
        for measurement in measurements:
            store.append(measurement)
    return summarise(folder)


def run_of(measurement: Measurement, **changes: object) -> RunRow:
    return replace(measurement.run, **changes)  # type: ignore[arg-type]


def phases_of(measurement: Measurement, *energies: tuple[float | None, float | None]) -> tuple[PhaseRow, ...]:
    """The phases of a measurement with these energies and half widths."""
    return tuple(
        replace(row, energy_j=energy_j, energy_ci95_j=ci95_j)
        for row, (energy_j, ci95_j) in zip(measurement.phases, energies, strict=True)
    )


def kernel(measurement: Measurement, kernel_id: str, **changes: object) -> KernelRow:
    row = replace(measurement.kernels[0], kernel_id=kernel_id, phase=Phase.PREFILL, rank=0, op="aten::mm", module="m")
    return replace(row, **changes)  # type: ignore[arg-type]


def energy(row: KernelRow, energy_j: float | None, method: EnergyMethod = EnergyMethod.APPORTIONED) -> KernelEnergyRow:
    return KernelEnergyRow(
        run_id=row.run_id,
        phase=row.phase,
        rank=row.rank,
        kernel_id=row.kernel_id,
        method=method,
        energy_j=energy_j,
        active_energy_j=None,
        energy_ci95_j=None,
    )


def reading(measurement: Measurement, part: Part, trial: int, energy_j: float, **changes: object) -> ReadingRow:
    row = replace(
        measurement.readings[0],
        part=part,
        trial=trial,
        energy_j=energy_j,
        uncertainty_j=0.0,
        duration_s=1.0,
        tail_s=0.0,
        passes=0.0 if part is Part.IDLE else 1.0,
        context_start_tokens=None,
        rejected=None,
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def test_joules_per_token_count_the_tokens_of_all_sequences(tmp_path: Path, one: Measurement) -> None:
    run = run_of(one, energy_j=60.0, energy_ci95_j=6.0, duration_s=3.0, batch_size=4, prompt_tokens=10, output_tokens=5)

    found = summary_of(tmp_path, [replace(one, run=run)]).runs[0]

    assert found.energy_per_output_token_j == pytest.approx(3.0)
    assert found.energy_per_output_token_ci95_j == pytest.approx(0.3)
    assert found.energy_per_prompt_token_j == pytest.approx(1.5)
    assert found.energy_per_prompt_token_ci95_j == pytest.approx(0.15)
    assert found.average_power_w == pytest.approx(20.0)
    assert found.run == run


def test_the_energy_of_a_server_is_that_of_one_sequence(tmp_path: Path, one: Measurement) -> None:
    run = run_of(
        one,
        workload=Workload.SERVER,
        batch_size=64,
        output_tokens=None,
        mean_output_tokens=200.5,
        energy_j=401.0,
        energy_ci95_j=None,
        duration_s=None,
        mean_power_w=500.0,
    )
    found = summary_of(tmp_path, [Measurement(run=run, environment=one.environment)]).runs[0]

    assert found.energy_per_output_token_j == pytest.approx(2.0)
    assert found.energy_per_sequence_j == pytest.approx(401.0)
    assert found.average_power_w == pytest.approx(500.0)


def test_a_request_without_output_has_no_joules_per_output_token(tmp_path: Path, one: Measurement) -> None:
    run = run_of(one, output_tokens=0)

    assert (
        summary_of(tmp_path, [replace(one, run=run, phases=one.phases[:1])]).runs[0].energy_per_output_token_j is None
    )


def test_the_difference_to_the_phases_carries_the_intervals_of_all_three_windows(
    tmp_path: Path, one: Measurement
) -> None:
    run = run_of(one, energy_j=100.0, energy_ci95_j=2.0)
    phases = phases_of(one, (30.0, 3.0), (60.0, 6.0))

    found = summary_of(tmp_path, [replace(one, run=run, phases=phases)]).runs[0]

    assert found.phases_energy_j == pytest.approx(90.0)
    assert found.phases_energy_ci95_j == pytest.approx(45**0.5)
    assert found.window_difference_j == pytest.approx(10.0)
    assert found.window_difference_ci95_j == pytest.approx(7.0)


def test_a_phase_without_energy_leaves_the_sum_unknown_rather_than_smaller(tmp_path: Path, one: Measurement) -> None:
    found = summary_of(tmp_path, [replace(one, phases=phases_of(one, (30.0, 3.0), (None, None)))]).runs[0]

    assert found.phases_energy_j is None
    assert found.window_difference_j is None


def test_a_missing_decode_leaves_the_sum_unknown(tmp_path: Path, one: Measurement) -> None:
    assert summary_of(tmp_path, [replace(one, phases=one.phases[:1])]).runs[0].phases_energy_j is None


def test_a_request_for_one_token_is_compared_with_its_prefill_alone(tmp_path: Path, one: Measurement) -> None:
    prefill = replace(one.phases[0], energy_j=9.0)
    found = summary_of(
        tmp_path, [replace(one, run=run_of(one, output_tokens=1, energy_j=10.0), phases=(prefill,))]
    ).runs[0]

    assert found.window_difference_j == pytest.approx(1.0)


def test_phases_count_their_own_tokens(tmp_path: Path, one: Measurement) -> None:
    run = run_of(one, batch_size=4, prompt_tokens=10, output_tokens=6)
    prefill, decode = phases_of(one, (80.0, 8.0), (100.0, None))
    phases = (replace(prefill, duration_s=2.0), replace(decode, steps=5))

    first, second = summary_of(tmp_path, [replace(one, run=run, phases=phases)]).phases

    assert (first.tokens, second.tokens) == (40, 20)
    assert first.energy_per_token_j == pytest.approx(2.0)
    assert first.energy_per_token_ci95_j == pytest.approx(0.2)
    assert first.average_power_w == pytest.approx(40.0)
    assert second.energy_per_token_j == pytest.approx(5.0)
    assert second.energy_per_token_ci95_j is None


def test_kernels_add_up_by_kind_over_ranks_by_the_apportioned_method_only(tmp_path: Path, one: Measurement) -> None:
    gemm = {"kind": KernelKind.GEMM, "launches": 3, "flop": 10, "read_bytes": 4, "write_bytes": 1, "duration_s": 0.5}
    rows = (kernel(one, "a", **gemm), kernel(one, "a", **gemm, rank=1), kernel(one, "b", kind=KernelKind.NORM))
    energies = [energy(row, 2.0 + index) for index, row in enumerate(rows)]
    energies.append(energy(rows[0], 1000.0, EnergyMethod.REPLAY))

    kinds = summary_of(tmp_path, [replace(one, kernels=rows, kernel_energies=tuple(energies))]).kinds

    found = next(kind for kind in kinds if kind.kind is KernelKind.GEMM)
    assert (found.launches, found.flop, found.traffic_bytes) == (6, 20, 10)
    assert found.energy_j == pytest.approx(5.0)
    assert found.duration_s == pytest.approx(1.0)
    assert len(kinds) == 2


def test_one_kernel_without_flop_or_energy_leaves_the_total_of_its_kind_unknown(
    tmp_path: Path, one: Measurement
) -> None:
    rows = (kernel(one, "a", flop=10), kernel(one, "b", flop=None))

    found = summary_of(tmp_path, [replace(one, kernels=rows, kernel_energies=(energy(rows[0], 2.0),))]).kinds[0]

    assert found.flop is None
    assert found.energy_j is None
    assert found.duration_s is not None


def test_shares_of_kernels_are_of_the_phases_gaps_included(tmp_path: Path, one: Measurement) -> None:
    rows = (kernel(one, "a", flop=100, read_bytes=15, write_bytes=5), kernel(one, "b", op="aten::add", flop=None))
    measurement = replace(
        one,
        phases=phases_of(one, (10.0, 1.0), (50.0, 1.0)),
        kernels=rows,
        kernel_energies=(energy(rows[0], 6.0), energy(rows[1], 1.0)),
    )

    first, second = summary_of(tmp_path, [measurement]).kernels

    assert (first.op, first.runs) == ("aten::mm", 1)
    assert first.energy_share == pytest.approx(0.6)
    assert first.intensity_flop_per_byte == pytest.approx(5.0)
    assert second.intensity_flop_per_byte is None


def test_kinds_and_host_gaps_fill_the_phases_of_the_examples(tmp_path: Path, example_measurements: Examples) -> None:
    summary = summary_of(tmp_path, example_measurements(n_runs=6))

    assert summary.phases
    for phase in summary.phases:
        kinds_j = [
            kind.energy_j or 0.0
            for kind in summary.kinds
            if (kind.run_id, kind.phase) == (phase.row.run_id, phase.row.phase)
        ]
        assert sum(kinds_j) + (phase.row.host_gap_energy_j or 0.0) == pytest.approx(phase.row.energy_j)


def test_joining_a_few_rows_at_a_time_changes_nothing(
    tmp_path: Path, example_measurements: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = summary_of(tmp_path, example_measurements(n_runs=8))
    monkeypatch.setattr(summary_module, "KERNEL_ROWS_AT_ONCE", 30)
    in_batches = summarise(tmp_path)

    assert [kind.energy_j for kind in in_batches.kinds] == pytest.approx([kind.energy_j for kind in at_once.kinds])
    assert [one.launches for one in in_batches.kernels] == [one.launches for one in at_once.kernels]


def test_windows_are_rated_against_the_mean_of_the_used_ones(tmp_path: Path, one: Measurement) -> None:
    readings = (
        reading(one, Part.RUN, 0, 90.0),
        reading(one, Part.RUN, 1, 110.0),
        reading(one, Part.RUN, 2, 200.0, rejected="another process"),
    )

    summary = summary_of(tmp_path, [replace(one, readings=readings)])

    assert [window.deviation for window in summary.windows] == pytest.approx([-0.1, 0.1, 1.0])
    assert [window.rejected for window in summary.windows] == [None, None, "another process"]
    assert (summary.parts[0].windows_used, summary.parts[0].windows_rejected) == (2, 1)
    assert summary.parts[0].spread == pytest.approx(0.02**0.5)


def test_a_single_window_has_no_spread(tmp_path: Path, one: Measurement) -> None:
    assert summary_of(tmp_path, [replace(one, readings=(reading(one, Part.RUN, 0, 9.0),))]).parts[0].spread is None


def test_a_window_on_two_devices_adds_their_energies_and_takes_the_longer_time(
    tmp_path: Path, one: Measurement
) -> None:
    readings = (
        reading(one, Part.RUN, 0, 30.0, uncertainty_j=3.0, meter="nvml:0"),
        reading(one, Part.RUN, 0, 40.0, uncertainty_j=4.0, meter="nvml:1", rank=1, duration_s=2.0),
    )

    window = summary_of(tmp_path, [replace(one, readings=readings)]).windows[0]

    assert window.energy_j == pytest.approx(70.0)
    assert window.uncertainty_j == pytest.approx(5.0)
    assert window.duration_s == pytest.approx(2.0)
    assert window.meter == "nvml:0, nvml:1"


def test_the_idle_tail_of_a_window_is_not_counted_as_work(tmp_path: Path, one: Measurement) -> None:
    run = run_of(one, idle_power_w=10.0)
    window_with_tail = reading(one, Part.PREFILL, 0, 45.0, duration_s=2.5, tail_s=0.5, passes=4.0)

    window = summary_of(tmp_path, [replace(one, run=run, readings=(window_with_tail,))]).windows[0]

    assert window.energy_per_pass_j == pytest.approx(10.0)
    assert window.average_power_w == pytest.approx(20.0)
    assert window.energy_j == pytest.approx(45.0)


def test_decode_windows_at_different_contexts_are_rated_apart(tmp_path: Path, one: Measurement) -> None:
    readings = tuple(
        reading(one, Part.DECODE, trial, energy_j, context_start_tokens=context)
        for trial, (energy_j, context) in enumerate([(10.0, 64), (10.0, 64), (30.0, 512), (30.0, 512)])
    )

    summary = summary_of(tmp_path, [replace(one, readings=readings)])

    assert [window.deviation for window in summary.windows] == pytest.approx([0.0] * 4)
    assert summary.parts[0].spread == pytest.approx(0.0)


def test_runs_of_different_provenance_never_share_a_setup(tmp_path: Path, example_measurements: Examples) -> None:
    summary = summary_of(tmp_path, example_measurements(n_runs=6))

    provenances = {setup.setup: setup.provenance for setup in summary.setups}
    assert set(provenances.values()) == {Provenance.MEASURED, Provenance.ESTIMATED}
    assert all(run.run.provenance is provenances[run.setup] for run in summary.runs)
    assert {total.provenance for total in summary.window_totals} == {Provenance.MEASURED, Provenance.ESTIMATED}


def test_every_ending_is_counted(tmp_path: Path, example_measurements: Examples) -> None:
    counts = {found.status: found.runs for found in summary_of(tmp_path, example_measurements(n_runs=6)).status_counts}

    assert counts == {Status.OK: 3, Status.OOM: 1, Status.FAILED: 1, Status.SKIPPED: 1}


def test_a_corrected_run_is_counted_and_left_out(tmp_path: Path, example_measurements: Examples) -> None:
    first, second = example_measurements(n_runs=2, failures=False)
    old = replace(first, run=replace(first.run, superseded_by=second.run.run_id))

    summary = summary_of(tmp_path, [old, second])

    assert summary.superseded_runs == 1
    assert [run.run.run_id for run in summary.runs] == [second.run.run_id]
    assert {row.row.run_id for row in summary.phases} == {second.run.run_id}
    assert {row.run_id for row in summary.kinds} == {second.run.run_id}
    assert {row.run_id for row in summary.windows} == {second.run.run_id}


def test_runs_that_all_failed_add_up_to_nothing_known(tmp_path: Path, example_measurements: Examples) -> None:
    failed = [one for one in example_measurements(n_runs=6) if one.run.status is not Status.OK]

    summary = summary_of(tmp_path, failed)

    assert len(summary.runs) == 3
    assert all(run.energy_per_output_token_j is None and run.average_power_w is None for run in summary.runs)
    assert (summary.phases, summary.kinds, summary.kernels, summary.windows, summary.window_totals) == ((),) * 5


@pytest.mark.parametrize("name", ["it's", 'say "x"', "x'); DROP VIEW runs; --", "a[1]*?", "key=value", "{a,b} $1 %s"])
def test_a_folder_may_be_called_anything(tmp_path: Path, one: Measurement, name: str) -> None:
    assert len(summary_of(tmp_path / name, [one]).runs) == 1


def test_a_folder_without_a_dataset_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=str(tmp_path)):
        summarise(tmp_path)


def test_a_damaged_file_is_an_error_that_names_it(tmp_path: Path, one: Measurement) -> None:
    summary_of(tmp_path, [one])
    damaged = next((tmp_path / "data" / "kernels").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:200])

    with pytest.raises(CorruptFile, match=damaged.name):
        summarise(tmp_path)
