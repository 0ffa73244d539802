"""What independent kernel methods add up to: known answers, and null where a row says nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset import summary as summary_module
from harness.dataset.ledger_queries import SHOWN_KERNELS
from harness.dataset.ledger_summary import CollectiveEnergySummary
from harness.dataset.store import DatasetStore
from harness.dataset.summary import Summary, summarise
from harness.kernels import KernelKind, Phase
from harness.records import EnergyMethod, KernelEnergyRow, KernelRow, Measurement, RunRow, Status
from tests.examples import tensor_parallel_measurement

Examples = Callable[..., tuple[Measurement, ...]]
APPORTIONED, REPLAY, REGRESSED = EnergyMethod.APPORTIONED, EnergyMethod.REPLAY, EnergyMethod.REGRESSED


@pytest.fixture
def one(example_measurements: Examples) -> Measurement:
    return example_measurements(n_runs=1)[0]


@pytest.fixture(scope="module")
def two_ranks() -> Measurement:
    return tensor_parallel_measurement(2)


def summary_of(folder: Path, *measurements: Measurement) -> Summary:
    with DatasetStore.open(folder) as store:
        for measurement in measurements:
            store.append(measurement)
    return summarise(folder)


def with_run(measurement: Measurement, **changes: object) -> Measurement:
    run: RunRow = replace(measurement.run, **changes)  # type: ignore[arg-type]
    return replace(measurement, run=run)


def with_ledger(measurement: Measurement, **changes: object) -> Measurement:
    """A run of 100 J with a ledger that leaves 1 J ± 2 J."""
    ledger = {
        "energy_j": 100.0,
        "ledger_idle_j": 60.0,
        "ledger_kernels_j": 30.0,
        "ledger_gaps_j": 9.0,
        "residual_j": 1.0,
        "residual_ci95_j": 2.0,
        "ledger_method": REPLAY,
    }
    return with_run(measurement, **(ledger | changes))


def kernel(measurement: Measurement, kernel_id: str = "a", **changes: object) -> KernelRow:
    row = replace(measurement.kernels[0], kernel_id=kernel_id, phase=Phase.PREFILL, rank=0, op="aten::mm", module="m")
    return replace(row, **changes)  # type: ignore[arg-type]


def energy(row: KernelRow, method: EnergyMethod, energy_j: float | None, **changes: object) -> KernelEnergyRow:
    found = KernelEnergyRow(
        run_id=row.run_id,
        phase=row.phase,
        rank=row.rank,
        kernel_id=row.kernel_id,
        method=method,
        energy_j=energy_j,
        active_energy_j=energy_j,
        energy_ci95_j=None if energy_j is None or method is APPORTIONED else 0.1 * energy_j,
    )
    return replace(found, **changes)  # type: ignore[arg-type]


def with_kernels(
    measurement: Measurement, rows: tuple[KernelRow, ...], energies: tuple[KernelEnergyRow, ...]
) -> Measurement:
    return replace(measurement, kernels=rows, kernel_energies=energies)


def test_a_ledger_explains_idle_kernels_and_gaps_and_closes_inside_its_interval(
    tmp_path: Path, one: Measurement
) -> None:
    (found,) = summary_of(tmp_path, with_ledger(one)).ledgers

    assert found.explained_j == pytest.approx(99.0)
    assert (found.residual_share, found.residual_share_ci95) == pytest.approx((0.01, 0.02))
    assert found.closes is True


@pytest.mark.parametrize(
    ("residual_j", "ci95_j", "closes"), [(-2.0, 2.0, True), (-2.1, 2.0, False), (0.0, 0.0, True), (1.0, None, None)]
)
def test_a_residual_of_either_sign_is_held_against_its_interval(
    tmp_path: Path, one: Measurement, residual_j: float, ci95_j: float | None, closes: bool | None
) -> None:
    (found,) = summary_of(tmp_path, with_ledger(one, residual_j=residual_j, residual_ci95_j=ci95_j)).ledgers

    assert found.closes is closes


def test_a_run_that_did_not_finish_has_no_entry_and_one_without_a_ledger_has_nothing_in_it(
    tmp_path: Path, example_measurements: Examples
) -> None:
    measurements = example_measurements(n_runs=6)
    finished = [each.run.run_id for each in measurements if each.run.status is Status.OK]

    ledgers = summary_of(tmp_path, *measurements).ledgers

    assert sorted(found.run_id for found in ledgers) == sorted(finished)
    assert {found.explained_j for found in ledgers} == {None}


def test_how_many_kernels_each_method_covers_is_counted(tmp_path: Path, one: Measurement) -> None:
    rows = (kernel(one, "a"), kernel(one, "b"))
    energies = (
        *(energy(row, APPORTIONED, 1.0) for row in rows),
        *(energy(row, REPLAY, 1.0) for row in rows),
        energy(rows[0], REGRESSED, 1.0),
    )

    (found,) = summary_of(tmp_path, with_kernels(one, rows, energies)).ledgers

    assert (found.traced, found.replayed_kernels, found.regressed_kernels) == (True, 2, 1)


def test_a_run_whose_kernels_were_not_traced_says_so(tmp_path: Path, one: Measurement) -> None:
    assert summary_of(tmp_path, with_kernels(one, (), ())).ledgers[0].traced is False


def test_methods_stand_side_by_side_added_over_ranks(tmp_path: Path, two_ranks: Measurement) -> None:
    rows = (kernel(two_ranks, launches=10), kernel(two_ranks, launches=10, rank=1))
    energies = tuple(
        energy(row, method, energy_j * (1 + row.rank))
        for row in rows
        for method, energy_j in ((APPORTIONED, 4.0), (REPLAY, 3.0), (REGRESSED, 2.0))
    )

    (found,) = summary_of(tmp_path, with_kernels(two_ranks, rows, energies)).methods

    assert (found.phase, found.op, found.runs, found.launches) == (Phase.PREFILL, "aten::mm", 1, 20)
    assert (found.apportioned_j, found.replay_j, found.regressed_j) == pytest.approx((12.0, 9.0, 6.0))
    assert (found.replay_ci95_j, found.regressed_ci95_j) == pytest.approx((0.9, 0.6))
    assert found.disagreement == pytest.approx(0.5)


def test_a_method_that_lacks_one_rank_is_unknown_rather_than_smaller(tmp_path: Path, two_ranks: Measurement) -> None:
    rows = (kernel(two_ranks), kernel(two_ranks, rank=1))
    energies = (energy(rows[0], REPLAY, 3.0), energy(rows[1], REPLAY, 3.0), energy(rows[0], REGRESSED, 3.0))

    (found,) = summary_of(tmp_path, with_kernels(two_ranks, rows, energies)).methods

    assert found.replay_j == pytest.approx(6.0)
    assert (found.apportioned_j, found.regressed_j, found.regressed_ci95_j, found.disagreement) == (None,) * 4


def test_over_runs_energies_and_launches_are_those_of_the_mean_run(tmp_path: Path, one: Measurement) -> None:
    row = kernel(one, launches=10)
    other = with_run(one, run_id="other")
    other_row = replace(row, run_id="other", launches=30)
    other = replace(other, phases=(), readings=(), graphs=(), rank_times=(), power_traces=())

    (found,) = summary_of(
        tmp_path,
        with_kernels(one, (row,), (energy(row, REPLAY, 2.0),)),
        with_kernels(other, (other_row,), (energy(other_row, REPLAY, 4.0),)),
    ).methods

    assert (found.runs, found.launches) == (2, 20)
    assert (found.replay_j, found.replay_ci95_j) == pytest.approx((3.0, 0.3))


def test_kernels_of_different_shapes_are_kernels_of_their_own_and_the_most_energy_comes_first(
    tmp_path: Path, one: Measurement
) -> None:
    rows = tuple(kernel(one, f"k{number:02d}", shape=f'{{"m":{number}}}') for number in range(SHOWN_KERNELS + 5))
    energies = tuple(energy(row, REPLAY, 1.0 + number) for number, row in enumerate(rows))

    methods = summary_of(tmp_path, with_kernels(one, rows, energies)).methods

    assert [found.replay_j for found in methods] == [float(SHOWN_KERNELS + 5 - place) for place in range(SHOWN_KERNELS)]


def test_where_no_independent_method_ran_no_methods_are_compared(tmp_path: Path, one: Measurement) -> None:
    summary = summary_of(tmp_path, one)

    assert (summary.methods, summary.disagreements) == ((), ())


def test_adding_up_a_few_rows_at_a_time_changes_nothing_about_the_methods(
    tmp_path: Path, example_measurements: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = summary_of(tmp_path, *example_measurements(n_runs=9, failures=False)).methods

    monkeypatch.setattr(summary_module, "KERNEL_ROWS_AT_ONCE", 30)
    in_batches = summarise(tmp_path).methods

    assert len(at_once) > 20
    assert [found.replay_j for found in in_batches] == pytest.approx([found.replay_j for found in at_once])
    assert [found.runs for found in in_batches] == [found.runs for found in at_once]


def test_disagreement_is_told_by_its_median_95th_percentile_and_bias(tmp_path: Path, one: Measurement) -> None:
    rows = tuple(kernel(one, f"k{number:03d}") for number in range(101))
    energies = tuple(
        energy(row, REPLAY, 1.0, disagreement=-number / 100) for number, row in enumerate(rows)
    )  # 0, −0.01 … −1

    found = summary_of(tmp_path, with_kernels(one, rows, energies)).disagreements[0]

    assert (found.phase, found.large_only, found.kernels) == (Phase.PREFILL, False, 101)
    assert (found.median, found.percentile95, found.bias) == pytest.approx((0.5, 0.95, -0.5))


def test_large_kernels_are_those_of_a_hundredth_of_their_ranks_part_of_the_phase(
    tmp_path: Path, two_ranks: Measurement
) -> None:
    rows = (kernel(two_ranks, "small"), kernel(two_ranks, "large", rank=1))
    phases = tuple(replace(phase, energy_j=200.0) for phase in two_ranks.phases)
    energies = (energy(rows[0], REPLAY, 0.99, disagreement=9.0), energy(rows[1], REPLAY, 1.0, disagreement=0.5))

    found = summary_of(tmp_path, replace(with_kernels(two_ranks, rows, energies), phases=phases)).disagreements

    assert [(one.large_only, one.kernels) for one in found] == [(False, 2), (True, 1)]
    assert found[1].median == pytest.approx(0.5)


def collective(measurement: Measurement, rank: int, **changes: object) -> KernelRow:
    """Four launches of a message of 1 kB, of which each rank sends 1 kB; it takes 3 s, and one of them is waiting."""
    row = kernel(measurement, kind=KernelKind.ALL_REDUCE, rank=rank, launches=4, duration_s=12.0, wait_s=4.0)
    return replace(row, **({"read_bytes": 4000, "link_bytes": 4000} | changes))  # type: ignore[arg-type]


def collectives_of(
    folder: Path, measurement: Measurement, *methods: EnergyMethod, waits_j: tuple[float | None, float | None]
) -> tuple[CollectiveEnergySummary, ...]:
    """Both ranks use 20 J in four launches by every method, of it so much for waiting."""
    rows = tuple(collective(measurement, rank, wait_s=0.0 if waits_j[rank] == 0 else 4.0) for rank in range(2))
    energies = tuple(
        energy(row, method, 20.0, wait_energy_j=waits_j[row.rank] if method is REPLAY else None)
        for row in rows
        for method in methods
    )
    return summary_of(folder, with_kernels(measurement, rows, energies)).collective_energies


def test_moving_and_waiting_are_told_apart_for_one_collective_of_all_ranks(
    tmp_path: Path, two_ranks: Measurement
) -> None:
    (found,) = collectives_of(tmp_path, two_ranks, REPLAY, waits_j=(8.0, 4.0))

    assert (found.kind, found.message_bytes, found.ranks, found.method) == (KernelKind.ALL_REDUCE, 1000, 2, REPLAY)
    assert (found.runs, found.collectives) == (1, 4)
    assert (found.energy_j, found.energy_ci95_j) == pytest.approx((10.0, 1.0))
    assert (found.waiting_j, found.transfer_j) == pytest.approx((3.0, 7.0))
    assert (found.waiting_s, found.transfer_s) == pytest.approx((1.0, 2.0))
    assert found.link_bytes == pytest.approx(2000.0)
    assert found.transfer_j_per_byte == pytest.approx(7.0 / 2000)
    assert found.transfer_ci95_j_per_byte == pytest.approx(1.0 / 2000)
    assert found.waiting_share == pytest.approx(0.3)


def test_an_energy_of_waiting_that_one_rank_lacks_leaves_both_parts_unknown(
    tmp_path: Path, two_ranks: Measurement
) -> None:
    (found,) = collectives_of(tmp_path, two_ranks, REPLAY, waits_j=(8.0, None))

    assert found.energy_j == pytest.approx(10.0)
    assert (found.waiting_j, found.transfer_j, found.transfer_j_per_byte) == (None, None, None)


def test_where_nobody_waited_waiting_used_nothing_by_any_method(tmp_path: Path, two_ranks: Measurement) -> None:
    replayed, regressed = collectives_of(tmp_path, two_ranks, REGRESSED, REPLAY, waits_j=(0.0, 0.0))

    assert [replayed.method, regressed.method] == [REPLAY, REGRESSED]
    assert (regressed.waiting_j, regressed.transfer_j) == pytest.approx((0.0, 10.0))


def test_shares_are_told_of_collectives_only_where_no_other_method_ran(tmp_path: Path, two_ranks: Measurement) -> None:
    both = collectives_of(tmp_path / "both", two_ranks, APPORTIONED, REPLAY, waits_j=(8.0, 4.0))
    shares = collectives_of(tmp_path / "shares", two_ranks, APPORTIONED, waits_j=(8.0, 4.0))

    assert [found.method for found in both] == [REPLAY]
    assert [(found.method, found.transfer_j) for found in shares] == [(APPORTIONED, None)]


def test_collectives_without_any_energy_keep_their_times(tmp_path: Path, two_ranks: Measurement) -> None:
    (found,) = collectives_of(tmp_path, two_ranks, waits_j=(8.0, 4.0))

    assert (found.method, found.energy_j, found.transfer_j_per_byte) == (None, None, None)
    assert found.transfer_s == pytest.approx(2.0)


def test_messages_of_different_size_are_not_added(tmp_path: Path, two_ranks: Measurement) -> None:
    rows = (collective(two_ranks, 0), replace(collective(two_ranks, 0, read_bytes=8000), kernel_id="b"))

    found = summary_of(tmp_path, with_kernels(two_ranks, rows, ())).collective_energies

    assert [one.message_bytes for one in found] == [1000, 2000]


def test_a_dataset_without_collectives_has_none(tmp_path: Path, one: Measurement) -> None:
    assert summary_of(tmp_path, one).collective_energies == ()


def test_gain_and_offset_are_taken_out_of_the_interval_of_a_run(tmp_path: Path, one: Measurement) -> None:
    measurement = with_run(one, energy_j=100.0, energy_ci95_j=5.0, energy_systematic95_j=4.0, batch_size=4)

    (found,) = summary_of(tmp_path, measurement).runs

    assert found.energy_repeat95_j == pytest.approx(3.0)
    assert (found.energy_per_sequence_j, found.energy_per_sequence_ci95_j) == pytest.approx((25.0, 1.25))


def test_an_interval_that_is_all_gain_leaves_nothing_for_the_repeats_even_where_it_was_rounded(
    tmp_path: Path, one: Measurement
) -> None:
    measurement = with_run(one, energy_j=100.0, energy_ci95_j=0.1, energy_systematic95_j=0.1 + 1e-16)

    assert summary_of(tmp_path, measurement).runs[0].energy_repeat95_j == 0.0


def test_what_a_meter_gets_wrong_alike_adds_up_over_phases_and_cancels_in_the_difference(
    tmp_path: Path, one: Measurement
) -> None:
    prefill, decode = one.phases
    phases = (
        replace(prefill, energy_j=30.0, energy_ci95_j=5.0, energy_systematic95_j=3.0),  # 4 beside it
        replace(decode, energy_j=60.0, energy_ci95_j=10.0, energy_systematic95_j=8.0),  # 6 beside it
    )
    measurement = with_run(one, energy_j=100.0, energy_ci95_j=13.0, energy_systematic95_j=12.0)  # 5 beside it

    (found,) = summary_of(tmp_path, replace(measurement, phases=phases)).runs

    assert found.phases_energy_ci95_j == pytest.approx((4**2 + 6**2 + 11**2) ** 0.5)
    assert found.window_difference_ci95_j == pytest.approx((4**2 + 6**2 + 5**2 + 1**2) ** 0.5)
