"""What ranks, collectives and kernel graphs add up to: known answers, and null where a row says nothing."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.dataset.store import DatasetStore
from harness.dataset.summary import Summary, summarise
from harness.kernels import KernelKind, Phase
from harness.records import KernelRow, Measurement, Part, RankTimeRow
from tests.examples import tensor_parallel_measurement

Examples = Callable[..., tuple[Measurement, ...]]


@pytest.fixture(scope="module")
def three() -> Measurement:
    """A request on three ranks: the first waits half as long as its data move, the second a quarter, the last not."""
    return tensor_parallel_measurement(3)


def summary_of(folder: Path, *measurements: Measurement) -> Summary:
    with DatasetStore.open(folder) as store:
        for measurement in measurements:
            store.append(measurement)
    return summarise(folder)


def lap(measurement: Measurement, rank: int, trial: int, duration_s: float, **changes: object) -> RankTimeRow:
    row = replace(measurement.rank_times[0], part=Part.RUN, rank=rank, trial=trial, passes=1.0, wait_s=0.0)
    return replace(row, duration_s=duration_s, **changes)  # type: ignore[arg-type]


def kernel(measurement: Measurement, kernel_id: str, **changes: object) -> KernelRow:
    row = replace(measurement.kernels[0], kernel_id=kernel_id, phase=Phase.PREFILL, op="aten::mm", module="m", rank=0)
    return replace(row, **changes)  # type: ignore[arg-type]


def test_rank_counts_and_machine_counts_are_setups_of_their_own(tmp_path: Path, example_measurements: Examples) -> None:
    one = example_measurements(n_runs=1)[0]
    spread = (tensor_parallel_measurement(2), tensor_parallel_measurement(4), tensor_parallel_measurement(4, nodes=2))

    summary = summary_of(tmp_path, one, *spread)

    assert [(setup.tensor_parallel, setup.nodes) for setup in summary.setups] == [(1, 1), (2, 1), (4, 1), (4, 2)]
    assert len({run.setup for run in summary.runs}) == 4


def test_the_time_of_a_rank_is_the_median_of_a_pass_and_the_skew_is_counted_once_per_window(
    tmp_path: Path, three: Measurement
) -> None:
    laps = tuple(
        lap(three, 1, trial, duration_s, passes=10.0, wait_s=wait_s)
        for trial, (duration_s, wait_s) in enumerate([(9.0, 0.1), (10.0, 0.3), (11.0, 0.2)])
    )

    (found,) = summary_of(tmp_path, replace(three, rank_times=laps)).ranks

    assert (found.rank, found.windows, found.device) == (1, 3, "cpu")
    assert found.duration_s == pytest.approx(1.0)
    assert found.wait_s == pytest.approx(0.2)
    assert found.spread == pytest.approx(0.1)


def test_a_rejected_window_does_not_count_for_the_ranks(tmp_path: Path, three: Measurement) -> None:
    laps = (lap(three, 0, 0, 1.0), lap(three, 0, 1, 2.0))
    readings = tuple(
        replace(row, rejected="clock drift") if (row.part, row.trial) == (Part.RUN, 1) else row
        for row in three.readings
    )

    (found,) = summary_of(tmp_path, replace(three, rank_times=laps, readings=readings)).ranks

    assert (found.windows, found.duration_s, found.spread) == (1, 1.0, None)


def test_decode_windows_of_a_rank_are_compared_with_those_of_the_same_context(
    tmp_path: Path, three: Measurement
) -> None:
    template = next(row for row in three.readings if row.part is Part.DECODE)
    readings = tuple(
        replace(template, trial=trial, context_start_tokens=context) for trial, context in enumerate((64, 64, 512, 512))
    )
    laps = tuple(
        lap(three, 0, trial, duration_s, part=Part.DECODE) for trial, duration_s in enumerate((9.0, 11.0, 18.0, 22.0))
    )

    (found,) = summary_of(tmp_path, replace(three, rank_times=laps, readings=readings)).ranks

    assert found.duration_s == pytest.approx(14.5)
    assert found.spread == pytest.approx((4 * 0.1**2 / 2) ** 0.5)


def test_a_run_on_one_rank_has_no_ranks_to_compare(tmp_path: Path, example_measurements: Examples) -> None:
    on_gpu = example_measurements(n_runs=2, failures=False)[1]

    assert on_gpu.rank_times
    assert summary_of(tmp_path, on_gpu).ranks == ()


def test_collectives_are_told_by_message_size_and_are_means_of_the_ranks(tmp_path: Path, three: Measurement) -> None:
    found = [one for one in summary_of(tmp_path, three).collectives if one.phase is Phase.PREFILL]

    gather, reduce = found
    assert (gather.kind, reduce.kind) == (KernelKind.ALL_GATHER, KernelKind.ALL_REDUCE)
    assert (reduce.message_bytes, reduce.launches) == (4 * 64 * 576, 60)
    sent_bytes = 60 * 4 / 3 * 4 * 64 * 576
    assert reduce.link_bytes == pytest.approx(sent_bytes)
    assert reduce.duration_s == pytest.approx(1.25 * sent_bytes / 1e9)
    assert reduce.wait_s == pytest.approx(0.25 * sent_bytes / 1e9)
    assert reduce.rate_bytes_per_s == pytest.approx(1e9)
    assert gather.message_bytes == 4 * 49152 // 3


def test_collectives_of_several_runs_add_up_and_of_several_modules_are_one(tmp_path: Path, three: Measurement) -> None:
    collective = kernel(three, "a", kind=KernelKind.ALL_REDUCE, launches=2, read_bytes=200, link_bytes=300)
    rows = (
        replace(collective, duration_s=3.0, wait_s=1.0),
        replace(collective, kernel_id="b", module="n", duration_s=5.0, wait_s=2.0),
        replace(collective, rank=1, duration_s=6.0, wait_s=0.0),
        replace(collective, rank=1, kernel_id="b", module="n", duration_s=6.0, wait_s=0.0),
    )
    again = replace(tensor_parallel_measurement(3, seed=1), kernels=())
    again_rows = tuple(replace(row, run_id=again.run.run_id) for row in rows)
    again = replace(again, run=replace(again.run, campaign_id=three.run.campaign_id), kernels=again_rows)

    (found,) = summary_of(tmp_path, replace(three, kernels=rows), again).collectives

    assert (found.runs, found.launches, found.message_bytes) == (2, 8, 100)
    assert (found.link_bytes, found.duration_s, found.wait_s) == (1200, 20.0, 3.0)
    assert found.rate_bytes_per_s == pytest.approx(1200 / 17)


def test_communication_is_a_share_of_the_phase_and_names_who_waits_longest(tmp_path: Path, three: Measurement) -> None:
    rows = tuple(
        kernel(three, "a", kind=KernelKind.ALL_REDUCE, rank=rank, duration_s=duration_s, wait_s=wait_s)
        for rank, (duration_s, wait_s) in enumerate([(2.0, 0.0), (5.0, 3.0), (2.0, 0.0)])
    )
    phases = tuple(replace(row, duration_s=12.0) for row in three.phases)

    (found,) = summary_of(tmp_path, replace(three, kernels=rows, phases=phases)).communication

    assert (found.duration_s, found.wait_s) == (3.0, 1.0)
    assert found.share == pytest.approx(0.25)
    assert found.wait_share == pytest.approx(1 / 12)
    assert (found.longest_waiting_rank, found.longest_wait_s) == (1, 3.0)


def test_a_wait_that_one_rank_lacks_is_not_known_for_any(tmp_path: Path, three: Measurement) -> None:
    rows = tuple(
        kernel(three, "a", kind=KernelKind.ALL_REDUCE, rank=rank, duration_s=2.0, link_bytes=8, wait_s=wait_s)
        for rank, wait_s in enumerate((1.0, None, 0.0))
    )

    summary = summary_of(tmp_path, replace(three, kernels=rows))

    (collective,), (communication,) = summary.collectives, summary.communication
    assert (collective.duration_s, collective.wait_s, collective.rate_bytes_per_s) == (2.0, None, None)
    assert (communication.duration_s, communication.wait_share, communication.longest_wait_s) == (2.0, None, None)


def test_the_matched_share_counts_traced_time_and_launches_over_ranks(tmp_path: Path, three: Measurement) -> None:
    rows = (
        kernel(three, "a", traced_duration_s=6.0, launches=10, graph_kernel=0),
        kernel(three, "a", traced_duration_s=2.0, launches=10, graph_kernel=0, rank=1),
        kernel(three, "b", traced_duration_s=0.5, launches=3, graph_kernel=None, op="aten::cat", module=None),
        kernel(three, "c", traced_duration_s=1.5, launches=2, graph_kernel=None, op="aten::lt"),
    )

    summary = summary_of(tmp_path, replace(three, kernels=rows))

    (graph,) = summary.graphs
    assert (graph.phase, graph.runs, graph.launches, graph.matched_launches) == (Phase.PREFILL, 1, 25, 20)
    assert graph.matched_time_share == pytest.approx(0.8)
    assert graph.matched_launch_share == pytest.approx(0.8)
    assert [(one.op, one.module, one.launches) for one in summary.unmatched] == [
        ("aten::lt", "m", 2),
        ("aten::cat", None, 3),
    ]
    assert [one.time_share for one in summary.unmatched] == pytest.approx([0.15, 0.05])


def test_a_phase_without_a_graph_has_no_matched_share(tmp_path: Path, three: Measurement) -> None:
    prefill, decode = three.phases

    summary = summary_of(tmp_path, replace(three, phases=(prefill, replace(decode, graph_id=None))))

    assert [graph.phase for graph in summary.graphs] == [Phase.PREFILL]
    assert {one.phase for one in summary.unmatched} == {Phase.PREFILL}


def test_one_kernel_without_traced_time_leaves_the_share_of_time_unknown(tmp_path: Path, three: Measurement) -> None:
    rows = (
        kernel(three, "a", traced_duration_s=None, launches=1, graph_kernel=0),
        kernel(three, "b", traced_duration_s=1.0, launches=1, graph_kernel=None),
    )

    (graph,) = summary_of(tmp_path, replace(three, kernels=rows)).graphs

    assert (graph.matched_time_share, graph.matched_launch_share) == (None, 0.5)
