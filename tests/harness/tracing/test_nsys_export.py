"""Exports of Nsight Systems with known answers, in two versions of the schema."""

from pathlib import Path

import pytest

from harness.errors import RunError
from harness.kernels import KernelKind, Phase
from harness.tracing.kineto_records import DeviceKernel, Work
from harness.tracing.launches import launches_of
from harness.tracing.nsys_places import Place, place_of, placed, times_by_place, traced_phase, unplaced_groups
from tests.harness.tracing import kineto_examples
from tests.harness.tracing.nsys_examples import EARLY, RECENT, START_END, HandMade, global_tid, ns

ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_f16_RING_LL(ncclDevComm*, unsigned long, ncclWork*)"
GEMM = "ampere_fp16_s16816gemm_fp16_64x64_sliced1x2_ldg8_f2f_stages_64x5_tn"
ELEMENTWISE = "void at::native::vectorized_elementwise_kernel<(int)4, at::native::silu_kernel>(int, T2, T3)"


def a_run(schema: str = RECENT) -> HandMade:
    """A pass of each phase in a window, and one in a trace with modules. The device lags far behind the host."""
    made = HandMade(schema)
    made.range("run:1f3a", 0, 9_000)
    made.range("phase:prefill", 100, 400)
    made.launched(GEMM, 1, call_at=200, start=5_000, length=300)
    made.range("phase:decode", 600, 800)
    for step in (0, 1):
        made.range(f"step:{step}", 700 + 300 * step, 200)
        made.launched(GEMM, 2 + step, call_at=750 + 300 * step, start=6_000 + 100 * step, length=50)
    made.range("trace:decode", 2_000, 900)
    made.range("phase:decode", 2_010, 880)
    made.range("step:0", 2_020, 860)
    made.range("module:model", 2_030, 840)
    for layer in (0, 1):
        made.range(f"module:model.layers.{layer}.mlp", 2_100 + 300 * layer, 200)
        made.launched(ELEMENTWISE, 10 + layer, call_at=2_150 + 300 * layer, start=7_000 + 40 * layer, length=30)
    made.launched("argmax", 20, call_at=2_875, start=7_200, length=5)
    return made


def places(kernels: tuple[DeviceKernel, ...]) -> list[Place]:
    return [place_of(kernel) for kernel in kernels]


@pytest.mark.parametrize("schema", [RECENT, EARLY])
def test_each_kernel_has_the_phase_step_and_module_of_the_call_that_launched_it(tmp_path: Path, schema: str) -> None:
    def place(phase: str, step: int | None = None, module: str | None = None, *, traced: bool = False) -> Place:
        return Place(run_id="1f3a", phase=Phase(phase), step=step, traced=traced, module=module)

    kernels = a_run(schema).kernels(tmp_path)

    assert places(kernels) == [
        place("prefill"),
        place("decode", 0),
        place("decode", 1),
        place("decode", 0, "model.layers.0.mlp", traced=True),
        place("decode", 0, "model.layers.1.mlp", traced=True),
        place("decode", 0, traced=True),
    ]
    first = kernels[0]
    assert (first.name, first.kind, first.work, first.device, first.stream) == (GEMM, "gemm", Work.KERNEL, 0, 7)
    assert (ns(first.start_s), ns(first.duration_s), first.grid, first.block) == (5_000, 300, (8, 1, 1), (128, 1, 1))
    assert first.call is not None
    assert (first.call.name, first.call.thread, ns(first.call.start_s)) == ("cudaLaunchKernel_v7000", "4711", 200)


@pytest.mark.parametrize("schema", [RECENT, EARLY])
def test_time_is_told_by_phase_module_and_kernel(tmp_path: Path, schema: str) -> None:
    (process,) = a_run(schema).read(tmp_path).processes
    found = placed(process.trace)

    assert (found.kernels, found.with_call, found.in_run, found.in_phase) == (6, 6, 6, 6)
    assert (found.in_step, found.in_trace, found.in_module, found.collectives) == (5, 3, 2, 0)
    assert [
        (time.phase, time.traced, time.module, time.name, time.kind, time.launches, ns(time.duration_s))
        for time in times_by_place(process.trace)
    ] == [
        ("prefill", False, None, GEMM, KernelKind.GEMM, 1, 300),
        ("decode", False, None, GEMM, KernelKind.GEMM, 2, 100),
        ("decode", True, "model.layers.*.mlp", ELEMENTWISE, KernelKind.ACTIVATION, 2, 60),
        ("decode", True, None, "argmax", KernelKind.OTHER, 1, 5),
    ]
    assert sum(time.share or 0 for time in times_by_place(process.trace)) == pytest.approx(1)


def test_a_traced_phase_gives_the_rows_that_a_running_profiler_gives(tmp_path: Path) -> None:
    (process,) = a_run().read(tmp_path).processes

    silu, argmax = traced_phase(process.trace, Phase.DECODE)

    assert (silu.kernel_id, silu.op, silu.module) == ("k0000", ELEMENTWISE, "model.layers.*.mlp")
    assert (silu.kind, silu.launches, ns(silu.traced_duration_s)) == (KernelKind.ACTIVATION, 2, 60)
    assert (silu.flop, silu.read_bytes, silu.write_bytes, silu.link_bytes) == (None, None, None, 0)
    assert (argmax.op, argmax.module, argmax.launches) == ("argmax", None, 1)
    with pytest.raises(RunError, match=r"no kernel launched inside the range trace:prefill"):
        traced_phase(process.trace, Phase.PREFILL)


def test_the_same_timeline_is_the_same_from_torch_and_from_nsight_systems(tmp_path: Path) -> None:
    """Made in both formats; torch's without operators, which Nsight Systems does not record."""
    torchs, nsights = kineto_examples.HandMade(), HandMade()
    ranges = [("run:1", 0, 900), ("trace:decode", 5, 890), ("phase:decode", 10, 880), ("step:3", 20, 800)]
    for name, start, length in [*ranges, ("module:model.layers.1.attn", 30, 200)]:
        torchs.range(name, start, length)
        nsights.range(name, start * 1000, length * 1000)
    launches = [("flash_fwd_kernel", 100, 950, 7), (ALL_REDUCE, 150, 960, 9), (GEMM, 500, 980, 4)]
    for correlation, (name, call_at, start, length) in enumerate(launches, 1):
        torchs.launched(name, correlation, call_at=call_at, start=start, length=length)
        nsights.launched(name, correlation, call_at=call_at * 1000, start=start * 1000, length=length * 1000)
    torchs.call(9, 600, name="cudaMemcpyAsync_v3020")
    torchs.kernel("Memcpy DtoH (Device -> Pinned)", 990, 3, 9, category="gpu_memcpy", bytes=64)
    nsights.call(9, 600_000, name="cudaMemcpyAsync_v3020")
    nsights.device("MEMCPY", 990_000, 3_000, 9, bytes=64, copyKind=2, srcKind=2, dstKind=1)

    one = torchs.read(tmp_path)
    (process,) = nsights.read(tmp_path).processes
    other = process.trace

    assert [facts(kernel) for kernel in other.kernels] == [facts(kernel) for kernel in one.kernels]
    assert traced_phase(other, Phase.DECODE) == traced_phase(one, Phase.DECODE)


def facts(kernel: DeviceKernel) -> tuple[object, ...]:
    return (
        kernel.name,
        kernel.kind,
        kernel.work,
        ns(kernel.start_s),
        ns(kernel.duration_s),
        kernel.size_bytes,
        kernel.module,
        kernel.ranges,
        kernel.collective,
        kernel.why,
    )


def test_correlation_ids_of_two_processes_are_not_mixed_up(tmp_path: Path) -> None:
    made = HandMade()
    for pid, phase in ((10, "prefill"), (20, "decode")):
        made.domain("joulegraph", pid=pid)
        made.range(f"phase:{phase}", 0, 100, pid=pid, tid=pid)
        made.launched(f"kernel of {phase}", 1, call_at=50, start=200, length=10, pid=pid, tid=pid)
    made.row("PROCESSES", globalPid=(1 << 56) | (20 << 24), pid=20, name="python3")

    one, other = made.read(tmp_path).processes

    assert (one.process_id, one.name, place_of(one.trace.kernels[0]).phase) == (10, None, Phase.PREFILL)
    assert (other.process_id, other.name, place_of(other.trace.kernels[0]).phase) == (20, "python3", Phase.DECODE)
    assert [len(each.trace.kernels) for each in (one, other)] == [1, 1]


def test_processes_with_a_gpu_each_are_ranks_in_the_order_of_their_gpus(tmp_path: Path) -> None:
    def ranks(*devices: tuple[int, int], runs: tuple[str, ...] = ("run:1",)) -> list[tuple[int, int | None]]:
        made = HandMade()
        for (pid, _), run in zip(devices, runs, strict=False):
            made.range(run, 0, 100, pid=pid, tid=pid, domain=None)
        for pid, device in devices:
            made.range("phase:decode", 0, 100, pid=pid, tid=pid, domain=None)
            made.launched(ALL_REDUCE, 1, call_at=50, start=200, length=10 + pid, pid=pid, tid=pid, deviceId=device)
        return [(process.process_id, process.trace.rank) for process in made.read(tmp_path).processes]

    assert ranks((31, 2), (32, 0), (33, 1)) == [(32, 0), (33, 1), (31, 2)]
    assert ranks((31, 0), (32, 0)) == [(31, None), (32, None)], "each sees its GPU as the first"
    assert ranks((31, 1)) == [(31, None)]
    assert ranks((31, 0), (32, 1), runs=("run:1", "run:2")) == [(31, None), (32, None)], "one after the other"


def test_a_process_with_several_gpus_keeps_them_apart(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 100)
    for device in (0, 1):
        made.launched(GEMM, 1 + device, call_at=50, start=200, length=10, deviceId=device)

    assert [kernel.device for kernel in made.kernels(tmp_path)] == [0, 1]


def test_collectives_are_told_by_their_names_and_ranks_can_be_compared(tmp_path: Path) -> None:
    from harness.tracing.alignment import align

    made = HandMade()
    for rank, lengths in enumerate([(10, 30), (25, 20)]):
        pid = 100 + rank
        made.range("trace:decode", 0, 100, pid=pid, tid=pid, domain=None)
        for launch, length in enumerate(lengths):
            values = {"pid": pid, "tid": pid, "deviceId": rank}
            made.launched(
                ALL_REDUCE, launch + 1, call_at=50 + launch, start=200 + 100 * launch, length=length, **values
            )
    processes = made.read(tmp_path).processes

    ranks = align([traced_phase(process.trace, Phase.DECODE) for process in processes])

    assert [(kernel.op, kernel.kind) for (kernel,) in ranks] == [("nccl:all_reduce", KernelKind.ALL_REDUCE)] * 2
    assert [kernel.link_bytes for (kernel,) in ranks] == [None, None], "the file does not say how much"
    assert [ns(kernel.wait_s) for (kernel,) in ranks] == [10, 15]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ncclDevKernel_AllGather_RING_LL", KernelKind.ALL_GATHER),
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL", KernelKind.REDUCE_SCATTER),
        ("ncclDevKernel_SendRecv", KernelKind.ALL_TO_ALL),
        ("void flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128>>", KernelKind.ATTENTION),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu>", KernelKind.GEMM),
    ],
)
def test_kinds_are_those_of_the_names(tmp_path: Path, name: str, kind: KernelKind) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 100)
    made.launched(name, 1, call_at=50, start=200, length=10)

    assert [kernel.kind for kernel in made.kernels(tmp_path)] == [kind]


def test_a_range_on_another_thread_is_not_around_a_call(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 1_000)
    made.launched("here", 1, call_at=50, start=200, length=10)
    made.launched("there", 2, call_at=60, start=300, length=10, tid=99)

    here, there = places(made.kernels(tmp_path))

    assert (here.phase, there.phase) == (Phase.DECODE, None)


def test_ranges_of_other_domains_are_no_phases(tmp_path: Path) -> None:
    made = HandMade()
    made.domain("NCCL", number=5)
    made.range("phase:decode", 0, 1_000)
    made.range("phase:prefill", 10, 900, domain=5)
    made.range("phase:prefill", 15, 800, domain=None, registered=False)
    made.range("ncclAllReduce", 20, 700, domain=5)
    made.launched(GEMM, 1, call_at=50, start=200, length=10)

    (kernel,) = made.kernels(tmp_path)

    assert place_of(kernel).phase is Phase.DECODE
    assert kernel.ranges == ("phase:decode", "NCCL:phase:prefill", ":phase:prefill", "NCCL:ncclAllReduce")


def test_where_no_domain_is_named_the_names_of_ranges_decide(tmp_path: Path) -> None:
    made = HandMade(domain=None)
    made.range("phase:decode", 0, 1_000)
    made.launched(GEMM, 1, call_at=50, start=200, length=10)

    assert places(made.kernels(tmp_path))[0].phase is Phase.DECODE


def test_domains_are_numbered_by_each_process(tmp_path: Path) -> None:
    made = HandMade(domain=None)
    made.domain("joulegraph", number=1, pid=1)
    made.domain("NCCL", number=1, pid=2)
    for pid in (1, 2):
        made.domain("other", number=2, pid=pid)
        made.range("run:1", 0, 1_000, pid=pid, tid=pid, domain=1)
        made.launched(GEMM, 1, call_at=50, start=200, length=10, pid=pid, tid=pid)

    one, other = made.read(tmp_path).processes

    assert [kernel.ranges for kernel in (*one.trace.kernels, *other.trace.kernels)] == [("run:1",), ("NCCL:run:1",)]


def test_text_and_registered_text_are_both_names(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 1_000, registered=False)
    made.range("step:5", 10, 900, registered=True)
    made.range("", 20, 800, registered=False)
    made.range("", 30, 700, registered=False, textId=10_000)
    made.launched(GEMM, 1, call_at=50, start=200, length=10)

    (kernel,) = made.kernels(tmp_path)

    assert kernel.ranges == ("phase:decode", "step:5")


def test_a_start_end_range_counts_on_its_thread_and_not_if_it_ends_on_another(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 500, eventType=START_END, endGlobalTid=global_tid())
    made.range("phase:prefill", 10, 400, eventType=START_END, endGlobalTid=global_tid(tid=5))
    made.launched(GEMM, 1, call_at=50, start=200, length=10)

    (process,) = made.read(tmp_path).processes

    assert process.trace.kernels[0].ranges == ("phase:decode",)
    assert process.split_ranges == 1


def test_a_range_that_was_open_when_recording_stopped_never_ended(tmp_path: Path) -> None:
    made = HandMade()
    made.range("run:7", 0, None)
    made.launched(GEMM, 1, call_at=50_000, start=60_000, length=10)

    assert places(made.kernels(tmp_path))[0].run_id == "7"


def test_a_call_that_outlasts_a_range_is_not_in_it(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 1_000)
    made.range("step:0", 10, 45)
    made.launched(GEMM, 1, call_at=54, start=200, length=10)

    assert made.kernels(tmp_path)[0].ranges == ("phase:decode",)


def test_ranges_of_the_same_nanosecond_nest_as_the_worker_nests_them(tmp_path: Path) -> None:
    made = HandMade()
    for name in ("module:model.norm", "step:0", "module:model", "trace:decode", "phase:decode", "run:1"):
        made.range(name, 10, 90)
    made.launched(GEMM, 1, call_at=50, start=200, length=10)

    (kernel,) = made.kernels(tmp_path)

    assert kernel.ranges == ("run:1", "trace:decode", "phase:decode", "step:0")
    assert kernel.module == "model.norm"


def test_of_ranges_inside_one_another_the_innermost_counts(tmp_path: Path) -> None:
    made = HandMade()
    for depth, name in enumerate(["run:1", "run:2", "phase:decode", "phase:prefill", "step:4", "step:7"]):
        made.range(name, depth, 100 - 2 * depth)
    made.launched(GEMM, 1, call_at=50, start=200, length=10)

    assert places(made.kernels(tmp_path)) == [Place(run_id="2", phase=Phase.PREFILL, step=7, traced=False, module=None)]


def test_marks_categories_and_names_of_threads_are_no_ranges(tmp_path: Path) -> None:
    made = HandMade()
    for kind in (33, 34, 39, 76):
        made.range("phase:prefill", 0, 1_000, eventType=kind)
    made.range("phase:decode", 0, 1_000)
    made.launched(GEMM, 1, call_at=50, start=200, length=10)

    assert made.kernels(tmp_path)[0].ranges == ("phase:decode",)


def test_a_range_named_like_ours_but_not_quite_is_no_place(tmp_path: Path) -> None:
    made = HandMade()
    for name in ("run:9", "phase:training", "step:two", "step:²"):
        made.range(name, 0, 1_000)
    made.launched(GEMM, 1, call_at=50, start=200, length=10)

    assert places(made.kernels(tmp_path)) == [Place(run_id="9", phase=None, step=None, traced=False, module=None)]


@pytest.mark.parametrize("schema", [RECENT, EARLY])
def test_copies_and_fills_are_named_as_torch_names_them(tmp_path: Path, schema: str) -> None:
    made = HandMade(schema)
    made.range("phase:prefill", 0, 1_000)
    for correlation in range(1, 5):
        made.call(correlation, 50 + correlation)
    made.device("MEMCPY", 200, 10, 1, bytes=4096, copyKind=1, srcKind=0, dstKind=2)
    made.device("MEMCPY", 300, 10, 2, bytes=64, copyKind=8, srcKind=2, dstKind=2)
    made.device("MEMCPY", 400, 10, 3, bytes=8, copyKind=99)
    made.device("MEMSET", 500, 10, 4, bytes=32, memKind=2)

    kernels = made.kernels(tmp_path)

    assert [(kernel.name, kernel.work, kernel.kind, kernel.size_bytes) for kernel in kernels] == [
        ("Memcpy HtoD (Pageable -> Device)", Work.MEMCPY, KernelKind.COPY, 4096),
        ("Memcpy DtoD (Device -> Device)", Work.MEMCPY, KernelKind.COPY, 64),
        ("Memcpy", Work.MEMCPY, KernelKind.COPY, 8),
        ("Memset (Device)", Work.MEMSET, KernelKind.COPY, 32),
    ]


def test_kernels_of_a_cuda_graph_have_the_step_of_the_launch_and_the_module_of_the_capture(tmp_path: Path) -> None:
    made = HandMade()
    made.range("module:model.layers.3.mlp", 100, 100)
    node = {"globalTid": global_tid(), "start": 150, "end": 152}
    made.row("CUDA_GRAPH_NODE_EVENTS", graphNodeId=5, originalGraphNodeId=None, **node)
    clone = {"globalTid": global_tid(), "start": 900, "end": 902}
    made.row("CUDA_GRAPH_NODE_EVENTS", graphNodeId=77, originalGraphNodeId=5, **clone)
    made.range("phase:decode", 1_000, 1_000)
    for step, correlation in enumerate((31, 32)):
        made.range(f"step:{step}", 1_100 + 200 * step, 100)
        made.call(correlation, 1_150 + 200 * step, name="cudaGraphLaunch_v10000")
        made.kernel(GEMM, 3_000 + 100 * step, 40, correlation, graphNodeId=77)
        made.kernel("not captured here", 3_050 + 100 * step, 40, correlation, graphNodeId=78)

    (process,) = made.read(tmp_path).processes
    kernels = process.trace.kernels

    assert [place_of(kernel).step for kernel in kernels] == [0, 0, 1, 1]
    assert [kernel.module for kernel in kernels] == ["model.layers.3.mlp", None] * 2
    assert [kernel.graph_node for kernel in kernels] == [77, 78, 77, 78]
    assert [time.launches for time in times_by_place(process.trace) if time.name == GEMM] == [2]


def test_a_cuda_graph_recorded_as_a_whole_is_one_piece_of_work_and_counted(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 100)
    made.call(1, 50, name="cudaGraphLaunch_v10000")
    made.device("GRAPH_TRACE", 200, 700, 1, graphId=12)

    (process,) = made.read(tmp_path).processes

    assert process.whole_graphs == 1
    assert [(kernel.name, kernel.kind) for kernel in process.trace.kernels] == [
        ("CUDA graph 12 (recorded as a whole)", KernelKind.OTHER)
    ]
    assert place_of(process.trace.kernels[0]).phase is Phase.DECODE


def test_a_call_of_the_driver_inside_the_runtimes_is_the_same_launch(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 100)
    made.call(1, 52, 4, name="cuLaunchKernel")
    made.call(1, 50, 10)
    made.kernel(GEMM, 200, 10, 1)

    (kernel,) = made.kernels(tmp_path)

    assert kernel.call is not None
    assert (kernel.call.name, place_of(kernel).phase) == ("cudaLaunchKernel_v7000", Phase.DECODE)


def test_what_found_no_phase_says_why(tmp_path: Path) -> None:
    made = HandMade()
    made.range("run:1", 0, 1_000)
    made.launched("loading", 1, call_at=50, start=200, length=10)
    made.kernel("no id", 300, 10, None)
    made.kernel("zero", 350, 10, 0)
    made.kernel("lost", 400, 10, 77)
    made.call(5, 60)
    made.call(5, 70, tid=9)
    made.kernel("twice", 500, 10, 5)

    (process,) = made.read(tmp_path).processes

    assert {group.name: (group.why, group.inside) for group in unplaced_groups(process.trace)} == {
        "loading": ("it was launched outside any phase", "run:1"),
        "no id": ("it has no correlation id", None),
        "zero": ("it has no correlation id", None),
        "lost": ("no runtime call has its correlation id", None),
        "twice": ("several runtime calls have its correlation id", None),
    }


def test_operators_that_torch_emits_are_operators(tmp_path: Path) -> None:
    made = HandMade()
    made.range("phase:decode", 0, 1_000)
    made.range("module:model.layers.0.input_layernorm", 10, 900)
    made.range("aten::linear, op_id = 6", 20, 500, domain=None, registered=False)
    made.range("aten::mm, seq = 3, sizes = [[8, 16], [16, 4]]", 30, 400, domain=None, registered=False)
    made.range("not::an operator", 35, 300, domain=None, registered=False)
    made.launched(GEMM, 1, call_at=50, start=2_000, length=10)
    made.launched("splitKreduce_kernel", 2, call_at=60, start=2_100, length=3)

    (process,) = made.read(tmp_path).processes
    one, _ = process.trace.kernels
    (launch,) = launches_of(process.trace)

    assert one.operator is not None
    assert [operator.name for operator in one.operator.chain] == ["aten::linear", "aten::mm"]
    assert one.ranges == ("phase:decode", ":not::an operator")
    assert (launch.op, launch.kind, len(launch.kernels)) == ("aten::mm", KernelKind.GEMM, 2)


def test_without_a_process_in_the_kernels_the_call_tells_it(tmp_path: Path) -> None:
    made = HandMade()
    for pid in (1, 2):
        made.range("run:1", 0, 100, pid=pid, tid=pid, domain=None)
        made.launched(GEMM, pid, call_at=50, start=200, length=10, pid=pid, tid=pid, globalPid=None)
    made.kernel("launched before recording", 300, 10, 1, globalPid=None)

    one, other = made.read(tmp_path).processes

    assert [len(one.trace.kernels), len(other.trace.kernels)] == [2, 1]


def test_who_exported_is_kept_where_it_is_said(tmp_path: Path) -> None:
    recent, early = a_run(RECENT), a_run(EARLY)
    recent.row("TARGET_INFO_GPU", vmId=0, id=0, name="NVIDIA H100 80GB HBM3")
    early.row("TARGET_INFO_GPU", id=0, name="Tesla V100", busLocation="0000:00:1e.0")

    one, other = recent.read(tmp_path), early.read(tmp_path)

    assert (one.name, one.product_version, one.schema_version) == ("run.sqlite", "2024.6.2.225", "3.16.1")
    assert (one.gpus, other.gpus) == (("NVIDIA H100 80GB HBM3",), ("Tesla V100",))
    assert (other.product_version, other.schema_version) == (None, None)
