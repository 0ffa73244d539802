"""The command, and the public traces of real GPUs with the figures they give."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from harness.kernels import KernelKind
from harness.tracing.kineto import main, read_trace
from harness.tracing.kineto_records import DeviceTrace, Source, Why
from harness.tracing.kineto_summary import collective_groups, matching, stream_times, times_by_kind
from harness.tracing.launches import launches_of, traced_kernels
from tests.harness.tracing.kineto_examples import HandMade, only, real_trace


@pytest.fixture
def example(tmp_path: Path) -> Path:
    trace = HandMade(distributedInfo={"rank": 1, "world_size": 2})
    trace.op("aten::mm", 0, 100)
    trace.launched("gemm", 1, call_at=50, start=60, length=30)
    noted = {"Collective name": "allreduce", "In msg nelems": 500, "Out msg nelems": 500, "dtype": "Half"}
    trace.kernel("ncclDevKernel_AllReduce_Sum_f16_RING_LL", 70, 10, stream=20, **noted)
    return trace.write(tmp_path)


def test_the_tables_show_what_is_matched_and_what_is_not(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(example)]) == 0

    shown = " ".join(capsys.readouterr().out.split())
    assert "trace.json (rank 1 of 2): matching" in shown
    assert "with an operator 1 50.00%" in shown
    assert "ncclDevKernel_AllReduce_Sum_f16_RING_LL 1 10 µs it has no correlation id" in shown
    assert "gemm 1 30 µs 75.00%" in shown
    assert "allreduce 1 2 1 kB 1 10 µs 100 MB/s" in shown
    assert "0 / all 2 30 µs 10 µs 10 µs 100.00%" in shown


def test_the_same_as_json(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(example), "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert (found["trace"], found["rank"], found["world_size"]) == ("trace.json", 1, 2)
    assert (found["matching"]["kernels"], found["matching"]["with_operator"], found["matching"]["share"]) == (2, 1, 0.5)
    assert found["matching"]["unmatched"][0]["why"] == "it has no correlation id"
    (collective,) = found["collectives"]
    assert (collective["size_bytes"], collective["ranks"], collective["ranks_source"]) == (1000, 2, Source.WORLD)
    assert [(time["device"], time["stream"]) for time in found["streams"]] == [(0, None), (0, 7), (0, 20)]


def test_a_mistake_is_a_sentence_and_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "damaged.json"
    damaged.write_text("{")
    of_host = HandMade().write(tmp_path)

    assert main([str(tmp_path / "missing.json")]) == 2
    assert main([str(damaged)]) == 1
    assert main([str(of_host)]) == 1

    missing, corrupt, empty = capsys.readouterr().err.split("error: ")[1:]
    assert missing.startswith("There is no file ")
    assert "not valid JSON" in corrupt
    assert "ProfilerActivity.CUDA" in empty


def test_the_limit_can_be_raised_and_lowered(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example.write_bytes(example.read_bytes() + b" " * 2**20)

    assert main([str(example), "--largest-mib", "1"]) == 1
    assert "more than 1 MiB" in capsys.readouterr().err
    assert main([str(example), "--largest-mib", "2"]) == 0
    for wrong in ("0", "-1", "x", "²"):
        with pytest.raises(SystemExit):
            main([str(example), "--largest-mib", wrong])


def test_names_in_a_trace_cannot_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = HandMade()
    trace.kernel("\x1b]0;title\x07[red]kernel[/red]\ud800", 0, 5)

    assert main([str(trace.write(tmp_path))]) == 0

    shown = capsys.readouterr().out
    assert "?]0;title?[red]kernel[/red]?" in shown
    assert "\x1b" not in shown


def test_a_trace_is_read_without_torch(example: Path) -> None:
    code = (
        "import sys; from harness.tracing.kineto import main; from harness.tracing.launches import launches_of; "
        f"main([{str(example)!r}, '--json']); print(sorted({{'torch', 'transformers', 'numpy'}} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[3]

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="session")
def eight_ranks() -> DeviceTrace:
    """Rank 3 of a training with eight A100, torch 1.13: shapes are recorded, external ids are not usable."""
    return read_trace(real_trace("control.json.gz"))


@pytest.fixture(scope="session")
def two_ranks() -> DeviceTrace:
    """Rank 0 of a training with two A100, torch 2.3: no shapes, but torch notes what collectives move."""
    return read_trace(real_trace("nccl_data.json.gz"))


@pytest.mark.shared_data
def test_of_the_a100_trace_of_eight_ranks_all_but_one_optimiser_is_matched(eight_ranks: DeviceTrace) -> None:
    found = matching(eight_ranks)

    assert (eight_ranks.rank, eight_ranks.world_size) == (3, 8)
    assert (found.kernels, found.with_runtime, found.with_operator) == (9450, 9450, 9402)
    assert (found.by_external_id, found.by_nesting, found.collectives) == (0, 9402, 60)
    assert found.share == pytest.approx(0.99492, abs=1e-5)
    (adam,) = found.unmatched  # apex launches it from Python, below no operator
    assert (adam.name.partition("<")[0], adam.count) == ("void multi_tensor_apply_kernel", 48)
    assert (adam.why, adam.inside) == (Why.OUTSIDE, "Optimizer.step#FusedAdam.step")


@pytest.mark.shared_data
def test_of_the_a100_trace_of_two_ranks_everything_is_matched(two_ranks: DeviceTrace) -> None:
    found = matching(two_ranks)

    assert (two_ranks.rank, two_ranks.world_size) == (0, 2)
    assert (found.kernels, found.with_runtime, found.with_operator) == (3774, 3774, 3774)
    assert (found.by_external_id, found.by_nesting, found.collectives, found.unmatched) == (3774, 0, 21, ())


@pytest.mark.shared_data
def test_a_triton_kernel_is_launched_by_its_own_operator() -> None:
    kernel = only(read_trace(real_trace("triton_example.json.gz")))

    assert kernel.operator is not None
    assert kernel.operator.name == kernel.name == "triton_poi_fused_add_cos_sin_0"
    assert kernel.call is not None
    assert (kernel.call.name, kernel.kind) == ("cuLaunchKernel", KernelKind.OTHER)


@pytest.mark.shared_data
def test_external_ids_and_time_nesting_agree_where_both_are_recorded(tmp_path: Path, two_ranks: DeviceTrace) -> None:
    document = json.loads(gzip.decompress(real_trace("nccl_data.json.gz").read_bytes()))
    for event in document["traceEvents"]:
        if event.get("cat") in {"kernel", "gpu_memcpy", "gpu_memset", "cuda_runtime"}:
            event["args"].pop("External id", None)
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(document))

    nested = read_trace(path)

    assert matching(nested).by_nesting == 3774
    assert [place(kernel.operator) for kernel in nested.kernels] == [
        place(kernel.operator) for kernel in two_ranks.kernels
    ]


def place(operator: object) -> tuple[object, object]:
    return (getattr(operator, "name", None), getattr(operator, "start_s", None))


@pytest.mark.shared_data
def test_collectives_of_both_traces_have_bytes_and_ranks(eight_ranks: DeviceTrace, two_ranks: DeviceTrace) -> None:
    old = {
        group.name: (group.count, group.with_bytes, group.ranks, group.bytes_source, group.ranks_source)
        for group in collective_groups(eight_ranks)
    }
    new = {
        group.name: (group.count, group.with_bytes, group.ranks, group.bytes_source, group.ranks_source)
        for group in collective_groups(two_ranks)
    }

    assert old == {
        "all_to_all": (42, 42, 8, Source.RANGE, Source.WORLD),
        "all_reduce": (18, 18, 8, Source.RANGE, Source.WORLD),
    }
    assert new == {
        "allreduce": (15, 15, 2, Source.KERNEL, Source.KERNEL),
        "broadcast": (6, 6, 2, Source.KERNEL, Source.KERNEL),
    }
    gradients = 45_310_188 + 267_040 + 4_432_073  # elements of the three buckets, six steps each
    assert [group.size_bytes for group in collective_groups(eight_ranks) if group.name == "all_reduce"] == [
        6 * 4 * gradients
    ]


@pytest.mark.shared_data
def test_time_hidden_is_what_holistic_trace_analysis_computes(eight_ranks: DeviceTrace) -> None:
    # HolisticTraceAnalysis 0.5.0 leaves out what was launched from the last profiler step on, and gives for the rest
    # 321,285 µs busy, 132,510 µs of communication, 62,313 µs (47.03 %) of it while computing.
    launches = [(kernel, kernel.call.start_s, kernel.ranges) for kernel in eight_ranks.kernels if kernel.call]
    last_step_s = min(start_s for _, start_s, ranges in launches if "ProfilerStep#1014" in ranges)
    kept = tuple(kernel for kernel, start_s, _ in launches if start_s < last_step_s)

    whole = stream_times(replace(eight_ranks, kernels=kept))[0]

    assert len(kept) == 7875
    assert whole.busy_s == pytest.approx(321_285e-6)
    assert whole.communication_s == pytest.approx(132_510e-6)
    assert whole.hidden_s == pytest.approx(62_313e-6)


@pytest.mark.shared_data
def test_time_by_kind_is_that_of_all_kernels(eight_ranks: DeviceTrace, two_ranks: DeviceTrace) -> None:
    eight = {time.kind: (time.kernels, round(time.duration_s * 1e6)) for time in times_by_kind(eight_ranks)}
    two = {time.kind: (time.kernels, round(time.duration_s * 1e6)) for time in times_by_kind(two_ranks)}

    assert (sum(count for count, _ in eight.values()), sum(time_us for _, time_us in eight.values())) == (9450, 501_567)
    assert eight[KernelKind.GEMM] == (2604, 83_103)
    assert eight[KernelKind.ALL_TO_ALL] == (42, 130_655)
    assert eight[KernelKind.ALL_REDUCE] == (18, 32_880)
    assert eight[KernelKind.OTHER][1] < 0.04 * 501_567
    assert sum(count for count, _ in two.values()) == 3774
    assert two[KernelKind.NORM] == (318, 31_382)
    assert two[KernelKind.ALL_REDUCE] == (15, 46_762)


@pytest.mark.shared_data
def test_rows_of_the_real_traces_hold_all_kernels_and_no_more_flop_than_the_gpu_can_do(
    eight_ranks: DeviceTrace, two_ranks: DeviceTrace
) -> None:
    for trace in (eight_ranks, two_ranks):
        launches = launches_of(trace)
        assert sorted(id(kernel) for launch in launches for kernel in launch.kernels) == sorted(map(id, trace.kernels))
    rows = traced_kernels(eight_ranks)
    products = [row for row in rows if row.kind is KernelKind.GEMM]

    assert sum(row.traced_duration_s for row in rows) == pytest.approx(501_567e-6)
    assert all(row.flop is not None for row in products)
    flop_per_s = sum(row.flop or 0 for row in products) / sum(row.traced_duration_s for row in products)
    assert 5e12 < flop_per_s < 156e12  # dense TF32 of an A100
