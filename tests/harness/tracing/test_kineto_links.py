"""Which operator launched which device kernel, on traces whose answer is known."""

from pathlib import Path

import pytest

from harness.errors import CorruptFile
from harness.tracing.kineto import read_trace
from harness.tracing.kineto_records import DeviceKernel, Link, Why, Work
from tests.harness.tracing.kineto_examples import HandMade, named, only, us


def operator_name(kernel: DeviceKernel) -> str | None:
    return None if kernel.operator is None else kernel.operator.name


def test_a_kernel_belongs_to_the_innermost_operator_around_its_launch(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::linear", 0, 100)
    trace.op("aten::t", 5, 10)
    trace.op("aten::addmm", 20, 70)
    trace.launched("gemm", 1, call_at=50, start=80, length=40)

    kernel = only(trace.read(tmp_path))

    assert operator_name(kernel) == "aten::addmm"
    assert kernel.operator is not None
    assert [operator.name for operator in kernel.operator.chain] == ["aten::linear", "aten::addmm"]
    assert (kernel.link, kernel.why) == (Link.NESTING, None)
    assert kernel.call is not None
    assert (kernel.call.name, us(kernel.call.start_s)) == ("cudaLaunchKernel", 50)
    assert (us(kernel.start_s), us(kernel.duration_s)) == (80, 40)


def test_times_count_from_the_first_event_of_the_host(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 1_661_203_462_598_738, 100)
    trace.launched("gemm", 1, call_at=1_661_203_462_598_750, start=1_661_203_462_598_800, length=7)

    kernel = only(trace.read(tmp_path))

    assert us(kernel.start_s) == 62


def test_what_the_profiler_states_outranks_the_clock(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 10, id=5)
    trace.op("aten::add", 11, 10, id=6)
    trace.call(1, 9, 5)  # by the clocks neither inside the one nor the other
    trace.kernel("gemm", 20, 3, 1, id=5)

    kernel = only(trace.read(tmp_path))

    assert (operator_name(kernel), kernel.link) == ("aten::mm", Link.EXTERNAL_ID)


def test_the_external_id_of_the_call_serves_as_well(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 10, id=5)
    trace.call(1, 9, 5, id=5)
    trace.kernel("gemm", 20, 3, 1)

    assert only(trace.read(tmp_path)).link is Link.EXTERNAL_ID


def test_an_external_id_that_repeats_the_correlation_id_names_nothing(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::linear", 0, 200, id=77)  # happens to have that number
    trace.op("aten::mm", 10, 100, id=78)
    trace.call(77, 50, id=77)
    trace.kernel("gemm", 60, 5, 77, id=77)
    trace.op("aten::relu", 300, 50, id=99)
    trace.kernel("lost", 400, 5, 99, id=99)

    found = trace.read(tmp_path)

    assert (operator_name(named(found, "gemm")), named(found, "gemm").link) == ("aten::mm", Link.NESTING)
    assert named(found, "lost").why is Why.NO_CALL


def test_an_external_id_of_another_thread_or_time_names_nothing(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100, id=3)
    trace.op("aten::relu", 0, 100, id=4, thread=9)
    trace.op("aten::add", 500, 10, id=5)
    trace.call(1, 50)
    trace.kernel("one", 60, 5, 1, id=4)
    trace.call(2, 70)
    trace.kernel("two", 80, 5, 2, id=5)

    assert {operator_name(kernel) for kernel in trace.read(tmp_path).kernels} == {"aten::mm"}


def test_ranges_of_the_user_are_no_operators(tmp_path: Path) -> None:
    trace = HandMade()
    trace.range("ProfilerStep#3", 0, 1000, id=1)
    trace.range("## optimizer ##", 10, 900, id=2)
    trace.op("Torch-Compiled Region: 0/0", 20, 800, id=3)
    trace.launched("adam", 1, call_at=50, start=80, length=40, id=3)

    kernel = only(trace.read(tmp_path))

    assert (kernel.operator, kernel.link, kernel.why) == (None, None, Why.OUTSIDE)
    assert kernel.call is not None
    assert kernel.ranges == ("ProfilerStep#3", "## optimizer ##", "Torch-Compiled Region: 0/0")


@pytest.mark.parametrize("correlation", [None, 0, -1])
def test_a_kernel_without_correlation_id_is_unmatched_and_says_so(tmp_path: Path, correlation: int | None) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100)
    trace.call(0, 50)
    trace.kernel("gemm", 60, 5, correlation)

    kernel = only(trace.read(tmp_path))

    assert (kernel.operator, kernel.call, kernel.why) == (None, None, Why.NO_CORRELATION)


def test_without_a_call_the_external_id_is_enough(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100, id=5)
    trace.kernel("gemm", 60, 5, id=5)

    kernel = only(trace.read(tmp_path))

    assert (operator_name(kernel), kernel.link, kernel.call) == ("aten::mm", Link.EXTERNAL_ID, None)


def test_without_a_call_an_external_id_of_two_operators_is_not(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100, id=5)
    trace.op("aten::add", 0, 100, id=5, thread=9)
    trace.kernel("gemm", 60, 5, 1, id=5)

    assert only(trace.read(tmp_path)).why is Why.NO_CALL


def test_a_kernel_whose_call_is_not_in_the_trace_is_unmatched_and_says_so(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100)
    trace.call(4, 50)
    trace.kernel("gemm", 60, 5, 44)

    assert only(trace.read(tmp_path)).why is Why.NO_CALL


def test_two_calls_with_one_correlation_id_are_not_guessed_between(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100)
    trace.op("aten::add", 0, 100, thread=9)
    trace.call(1, 50)
    trace.call(1, 52, thread=9)
    trace.kernel("gemm", 60, 5, 1)

    kernel = only(trace.read(tmp_path))

    assert (kernel.operator, kernel.call, kernel.why) == (None, None, Why.SEVERAL_CALLS)


def test_two_calls_outside_any_operator_are_not_guessed_between_either(tmp_path: Path) -> None:
    trace = HandMade()
    trace.call(1, 50)
    trace.call(1, 52, thread=9)
    trace.kernel("gemm", 60, 5, 1)

    assert only(trace.read(tmp_path)).why is Why.SEVERAL_CALLS


def test_two_calls_with_one_correlation_id_are_told_apart_by_the_external_id(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100, id=3)
    trace.op("aten::add", 0, 100, id=4, thread=9)
    trace.call(1, 50)
    trace.call(1, 52, thread=9)
    trace.kernel("add", 60, 5, 1, id=4)

    assert operator_name(only(trace.read(tmp_path))) == "aten::add"


def test_ranks_in_one_file_that_repeat_each_others_ids_are_not_guessed_between(tmp_path: Path) -> None:
    trace = HandMade()
    for thread in (1, 2):
        trace.op("aten::mm", 0, 100, id=3, thread=thread)
        trace.call(1, 50, thread=thread)
        trace.kernel("gemm", 60, 5, 1, id=3, device=thread)

    assert [kernel.why for kernel in trace.read(tmp_path).kernels] == [Why.SEVERAL_CALLS] * 2


def test_a_driver_call_inside_a_runtime_call_is_one_launch(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100)
    trace.call(1, 50, 10)
    trace.span("cuda_driver", "cuLaunchKernel", 52, 5, correlation=1)
    trace.kernel("gemm", 60, 5, 1)

    assert operator_name(only(trace.read(tmp_path))) == "aten::mm"


def test_threads_at_work_at_the_same_time_are_kept_apart(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100)
    trace.op("MmBackward0", 0, 100, thread=9)
    trace.op("aten::add", 10, 80, thread=9)
    trace.launched("forward", 1, call_at=50, start=60, length=5)
    trace.launched("backward", 2, call_at=50, start=66, length=5, thread=9)

    found = trace.read(tmp_path)

    assert operator_name(named(found, "forward")) == "aten::mm"
    assert operator_name(named(found, "backward")) == "aten::add"


def test_all_kernels_of_a_graph_launch_belong_to_its_operator(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("CompiledFunction", 0, 100)
    trace.call(1, 50, 20, name="cudaGraphLaunch")
    for node in range(5):
        trace.kernel(f"node{node}", 60 + 10 * node, 5, 1, **{"graph node id": node + 1})

    found = trace.read(tmp_path)

    assert [operator_name(kernel) for kernel in found.kernels] == ["CompiledFunction"] * 5
    assert [kernel.graph_node for kernel in found.kernels] == [1, 2, 3, 4, 5]


def test_a_graph_launched_outside_any_operator_is_said_to_be_that(tmp_path: Path) -> None:
    trace = HandMade()
    trace.range("phase:decode", 0, 100)
    trace.call(1, 50, 20, name="cudaGraphLaunch")
    for node in range(3):
        trace.kernel("node", 60 + 10 * node, 5, 1)

    assert [kernel.why for kernel in trace.read(tmp_path).kernels] == [Why.GRAPH] * 3


def test_copies_and_fills_count_as_work_of_the_device_and_ranges_on_it_do_not(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::copy_", 0, 100)
    trace.call(1, 10, name="cudaMemcpyAsync")
    trace.call(2, 20, name="cudaMemsetAsync")
    trace.kernel("Memcpy HtoD (Pinned -> Device)", 30, 5, 1, category="gpu_memcpy", bytes=4096)
    trace.kernel("Memset (Device)", 40, 1, 2, category="gpu_memset", bytes=8)
    trace.kernel("## forward ##", 29, 15, category="gpu_user_annotation", id=3)

    copy, fill = trace.read(tmp_path).kernels

    assert (copy.work, copy.size_bytes, operator_name(copy)) == (Work.MEMCPY, 4096, "aten::copy_")
    assert (fill.work, fill.size_bytes, operator_name(fill)) == (Work.MEMSET, 8, "aten::copy_")


def test_of_spans_that_start_together_the_longer_is_the_outer_one(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::inner", 0, 10)
    trace.op("aten::outer", 0, 20)
    trace.launched("one", 1, call_at=0, start=30, length=1)

    kernel = only(trace.read(tmp_path))

    assert kernel.operator is not None
    assert [operator.name for operator in kernel.operator.chain] == ["aten::outer", "aten::inner"]


def test_of_spans_that_are_equal_to_the_microsecond_the_one_entered_first_is_the_outer_one(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::inner", 0, 10, id=8)
    trace.op("aten::outer", 0, 10, id=7)
    trace.launched("one", 1, call_at=0, start=30, length=1)

    assert operator_name(only(trace.read(tmp_path))) == "aten::inner"


def test_an_operator_that_ended_when_the_call_began_is_not_around_it(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 10)
    trace.launched("adam", 1, call_at=10, start=30, length=1)

    assert only(trace.read(tmp_path)).why is Why.OUTSIDE


def test_a_call_of_no_length_in_the_last_microsecond_of_an_operator_is_inside_it(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 10)
    trace.call(1, 10, 0)
    trace.kernel("gemm", 30, 1, 1)

    assert operator_name(only(trace.read(tmp_path))) == "aten::mm"


def test_an_operator_that_outlasts_another_is_not_called_by_it(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::first", 0, 50)
    trace.op("aten::second", 30, 70)
    trace.launched("one", 1, call_at=40, start=200, length=1)

    kernel = only(trace.read(tmp_path))

    assert kernel.operator is not None
    assert (kernel.operator.name, kernel.operator.parent) == ("aten::second", None)


def test_a_range_that_ends_inside_an_operator_does_not_hide_it(tmp_path: Path) -> None:
    trace = HandMade()
    trace.range("crossing", 0, 60)
    trace.op("aten::outer", 10, 100)
    trace.range("also crossing", 20, 200)
    trace.op("aten::inner", 30, 70)
    trace.launched("one", 1, call_at=50, start=70, length=1)
    trace.launched("two", 2, call_at=105, start=120, length=1)

    found = trace.read(tmp_path)

    assert operator_name(named(found, "one")) == "aten::inner"
    assert operator_name(named(found, "two")) == "aten::outer"
    assert named(found, "two").ranges == ("also crossing",)


def test_an_operator_still_running_when_recording_stopped_is_around_all_that_follows(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::unfinished", 0, -1)
    trace.launched("one", 1, call_at=1e6, start=1e6 + 20, length=1)

    kernel = only(trace.read(tmp_path))

    assert kernel.operator is not None
    assert (kernel.operator.name, kernel.operator.duration_s) == ("aten::unfinished", None)


def test_modules_are_read_from_our_own_ranges(tmp_path: Path) -> None:
    trace = HandMade()
    trace.range("phase:prefill", 0, 1000)
    trace.range("module:model.layers.3", 10, 900)
    trace.range("module:model.layers.3.mlp", 20, 100)
    trace.op("aten::mm", 30, 20)
    trace.launched("gemm", 1, call_at=35, start=60, length=5)

    kernel = only(trace.read(tmp_path))

    assert (kernel.module, kernel.ranges) == ("model.layers.3.mlp", ("phase:prefill",))


def test_without_our_ranges_the_classes_of_python_modules_say_where_it_was(tmp_path: Path) -> None:
    trace = HandMade()
    trace.span("python_function", "nn.Module: LlamaModel_0", 0, 1000)
    trace.span("python_function", "torch/nn/modules/module.py(1779): _call_impl", 5, 900)
    trace.span("python_function", "nn.Module: LlamaMLP_3", 10, 900)
    trace.op("aten::mm", 30, 20)
    trace.launched("gemm", 1, call_at=35, start=60, length=5)

    assert only(trace.read(tmp_path)).module == "LlamaModel.LlamaMLP"


def test_a_collective_that_only_a_range_tells_of_was_launched_by_that(tmp_path: Path) -> None:
    trace = HandMade()
    trace.range("nccl:all_reduce", 0, 100)
    trace.launched("ncclDevKernel_AllReduce_Sum_f32_RING_LL", 1, call_at=50, start=60, length=5)

    assert operator_name(only(trace.read(tmp_path))) == "nccl:all_reduce"


def test_times_are_not_rounded_to_what_a_float_can_hold(tmp_path: Path) -> None:
    # torch 2.3 wrote 19 digits; a float of that size steps by a quarter of a microsecond.
    operator, call = ("1711964646000000.124", "0.400"), ("1711964646000000.126", "0.390")
    assert float(operator[0]) + float(operator[1]) < float(call[0]) + float(call[1])
    trace = HandMade()
    trace.op("aten::mm", "@0", "@1")
    trace.call(1, "@2", "@3")
    trace.kernel("gemm", "@2", 1, 1)
    text = trace.text()
    for place, time in enumerate((*operator, *call)):
        text = text.replace(f'"@{place}"', time)
    path = tmp_path / "trace.json"
    path.write_text(text)

    assert operator_name(only(read_trace(path))) == "aten::mm"


def test_the_spellings_of_old_versions_are_read(tmp_path: Path) -> None:
    trace = HandMade()
    trace.span("Operator", "ProfilerStep#10", 0, 1000, "31383", **{"external id": 1})
    trace.span("Operator", "aten::mm", 10, 100, "31383", **{"external id": 2, "Input dims": [[2, 3], [3, 4]]})
    trace.span("Runtime", "cudaLaunchKernel", 50, 5, 31383, correlation=9)
    trace.kernel("volta_sgemm_64x64_nt", 70, 4, 9, category="Kernel", **{"external id": 2})
    trace.events[-1]["tid"] = "stream 7"
    del trace.events[-1]["args"]["stream"]

    kernel = only(trace.read(tmp_path))

    assert (operator_name(kernel), kernel.link, kernel.stream) == ("aten::mm", Link.EXTERNAL_ID, 7)
    assert kernel.ranges == ("ProfilerStep#10",)


def test_calls_of_amd_gpus_are_read(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::mm", 0, 100)
    trace.span("hip_runtime", "hipExtModuleLaunchKernel", 50, 5, correlation=9)
    trace.kernel("Cijk_Ailk_Bljk_HHS_BH_MT128x128x16", 70, 4, 9)

    assert operator_name(only(trace.read(tmp_path))) == "aten::mm"


def test_spans_nested_deeper_than_any_program_are_refused(tmp_path: Path) -> None:
    trace = HandMade()
    for depth in range(300):
        trace.op("aten::recursive", depth, 1000 - 2 * depth)

    with pytest.raises(CorruptFile, match="open at once on thread 101"):
        trace.read(tmp_path)


def test_many_short_spans_under_long_crossing_ones_are_no_depth(tmp_path: Path) -> None:
    trace = HandMade()
    for step in range(1000):
        trace.op("aten::mm", 10 * step, 5)
        trace.range("crossing", 10 * step + 3, 12)
    trace.launched("gemm", 1, call_at=9991, start=10_000, length=1)

    assert operator_name(only(trace.read(tmp_path))) == "aten::mm"
