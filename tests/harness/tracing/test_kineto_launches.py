"""The rows of a saved trace, and that they are those which the running profiler gives."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # torch re-exports it without saying so

from harness.kernels import KernelKind
from harness.tracing.kineto import read_trace
from harness.tracing.launches import launches_of, traced_kernels
from harness.tracing.ranges import marked, module_ranges
from harness.tracing.timeline import TracedKernel, kernels_of
from tests.harness.tracing.kineto_examples import HandMade, us

ALL_REDUCE = "ncclDevKernel_AllReduce_Sum_f32_RING_LL"


def product(trace: HandMade, at: float, correlation: int, m: int = 8) -> None:
    """A matrix product of two kernels inside a linear layer."""
    operands = {"Input Dims": [[m, 16], [16, 32]], "Input type": ["c10::Half", "c10::Half"]}
    trace.op("aten::linear", at, 90)
    trace.op("aten::mm", at + 10, 70, **operands)
    trace.launched("sm80_gemm", correlation, call_at=at + 20, start=at + 100, length=30)
    trace.launched("splitKreduce_kernel", correlation + 1, call_at=at + 40, start=at + 140, length=5)


def test_one_call_of_an_operator_is_one_launch_of_all_its_kernels(tmp_path: Path) -> None:
    trace = HandMade()
    product(trace, 0, 1)
    product(trace, 200, 3)

    launches = launches_of(trace.read(tmp_path))

    assert [(launch.op, launch.kind, len(launch.kernels)) for launch in launches] == [("aten::mm", "gemm", 2)] * 2
    assert us(launches[0].duration_s) == 35
    assert launches[0].cost.flop == 2 * 8 * 16 * 32


def test_launches_of_one_shape_in_any_layer_are_one_row(tmp_path: Path) -> None:
    trace = HandMade()
    for layer in range(3):
        trace.range(f"module:model.layers.{layer}.mlp", 200 * layer, 199)
        product(trace, 200 * layer + 5, 2 * layer + 1)
    product(trace, 1000, 11, m=9)

    many, one = traced_kernels(trace.read(tmp_path))

    assert (many.op, many.module, many.dtype) == ("aten::mm", "model.layers.*.mlp", "float16")
    assert (many.shape, many.launches) == ('{"m":8,"n":32,"k":16}', 3)
    assert many.flop == 3 * 2 * 8 * 16 * 32
    assert (many.read_bytes, many.write_bytes) == (3 * 2 * (8 * 16 + 16 * 32), 3 * 2 * 8 * 32)
    assert us(many.traced_duration_s) == 105
    assert (one.shape, one.launches, one.module) == ('{"m":9,"n":32,"k":16}', 1, None)


def test_an_operator_without_formula_takes_the_kind_of_its_longest_kernels(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::convolution_backward", 0, 100)
    trace.launched("nchwToNhwcKernel", 1, call_at=10, start=20, length=9)
    trace.launched("sm80_xmma_wgrad_implicit_gemm", 2, call_at=20, start=30, length=6)
    trace.launched("sm80_xmma_dgrad_implicit_gemm", 3, call_at=30, start=40, length=6)

    (row,) = traced_kernels(trace.read(tmp_path))

    assert (row.op, row.kind, row.launches) == ("aten::convolution_backward", KernelKind.GEMM, 1)
    assert (row.flop, row.read_bytes, row.write_bytes, row.dtype) == (None, None, None, "none")


def test_what_no_operator_launched_goes_by_its_own_name(tmp_path: Path) -> None:
    trace = HandMade()
    trace.call(1, 0, 50, name="cudaGraphLaunch")
    for at in (100, 200):
        trace.kernel("flash_fwd_kernel", at, 9, 1)
    trace.kernel("Memcpy DtoH (Device -> Pageable)", 300, 3, 1, category="gpu_memcpy", bytes=64)

    attention, copy = traced_kernels(trace.read(tmp_path))

    assert (attention.op, attention.kind, attention.launches) == ("flash_fwd_kernel", KernelKind.ATTENTION, 2)
    assert (attention.flop, attention.read_bytes) == (None, None)
    assert (copy.kind, copy.flop, copy.read_bytes, copy.write_bytes) == (KernelKind.COPY, 0, 64, 64)


def test_a_collective_has_the_bytes_of_all_its_launches(tmp_path: Path) -> None:
    trace = HandMade(distributedInfo={"world_size": 4})
    for turn in range(2):
        trace.op("c10d::allreduce_", 200 * turn, 100)
        trace.range("nccl:all_reduce", 200 * turn + 10, 80, **{"Input Dims": [[100]], "Input type": ["float"]})
        trace.launched(ALL_REDUCE, turn + 1, call_at=200 * turn + 50, start=200 * turn + 60, length=10 + turn)

    (row,) = traced_kernels(trace.read(tmp_path))

    assert (row.op, row.kind, row.dtype) == ("c10d::allreduce_", KernelKind.ALL_REDUCE, "float32")
    assert (row.shape, row.launches) == ('{"elements":100,"ranks":4}', 2)
    assert row.link_bytes == 2 * 2 * 3 * 400 // 4
    assert [us(duration_s) for duration_s in row.launch_durations_s] == [10, 11]


def test_copies_made_for_a_collective_are_part_of_it(tmp_path: Path) -> None:
    trace = HandMade()
    noted = {"Collective name": "allgather", "In msg nelems": 100, "Out msg nelems": 200, "dtype": "Float"}
    trace.op("c10d::allgather_", 0, 300)
    trace.op("record_param_comms", 10, 80, **noted, **{"Group size": 2})
    trace.launched("ncclDevKernel_AllGather_RING_LL", 1, call_at=50, start=60, length=10)
    trace.op("aten::copy_", 100, 80, **{"Input Dims": [[100], [100]], "Input type": ["float", "float"]})
    trace.launched("Memcpy DtoD", 2, call_at=110, start=160, length=3, category="gpu_memcpy")

    (row,) = traced_kernels(trace.read(tmp_path))

    assert (row.op, row.kind, row.launches) == ("c10d::allgather_", KernelKind.ALL_GATHER, 1)
    assert (us(row.traced_duration_s), row.link_bytes) == (13, 400)


def test_a_collective_of_unknown_size_has_no_bytes(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("record_param_comms", 0, 100)
    trace.launched(ALL_REDUCE, 1, call_at=50, start=60, length=10)

    (row,) = traced_kernels(trace.read(tmp_path))

    assert (row.op, row.kind) == ("nccl:all_reduce", KernelKind.ALL_REDUCE)
    assert (row.flop, row.read_bytes, row.write_bytes, row.link_bytes) == (None, None, None, None)


def test_the_dtype_of_the_model_tells_what_is_in_tensor_lists(tmp_path: Path) -> None:
    trace = HandMade()
    trace.op("aten::cat", 0, 100, **{"Input Dims": [[[2, 4], [3, 4]], []], "Input type": ["TensorList", "Scalar"]})
    trace.launched("CatArrayBatchedCopy", 1, call_at=50, start=60, length=10)
    read = trace.read(tmp_path)

    (unknown,), (known,) = traced_kernels(read), traced_kernels(read, dtype="bfloat16")

    assert (unknown.kind, unknown.write_bytes) == (KernelKind.COPY, None)
    assert (known.kind, known.write_bytes, known.dtype) == (KernelKind.COPY, 2 * 20, "bfloat16")


@dataclass(frozen=True)
class Kernel:
    name: str
    duration: float


@dataclass(frozen=True)
class TimeRange:
    start: float = 0.0

    def elapsed_us(self) -> float:
        return 1.0


@dataclass
class Event:
    """An event of the running profiler."""

    name: str
    cpu_children: list["Event"] = field(default_factory=list)
    kernels: list[Kernel] = field(default_factory=list)
    input_shapes: list[Any] = field(default_factory=list)
    input_dtypes: list[str] = field(default_factory=list)
    structured_input_shapes: list[Any] = field(default_factory=list)
    concrete_inputs: list[Any] = field(default_factory=list)
    time_range: TimeRange = field(default_factory=TimeRange)
    thread: int = 1
    device_type: Any = DeviceType.CPU
    cpu_parent: Any = None


def test_a_saved_trace_gives_the_rows_that_the_running_profiler_gives(tmp_path: Path) -> None:
    halves = {"Input Dims": [[8, 16], [16, 32]], "Input type": ["c10::Half", "c10::Half"]}
    one_half = {"Input Dims": [[8, 32], []], "Input type": ["c10::Half", "ScalarList"], "Concrete Inputs": ["", "[-1]"]}
    trace = HandMade()
    trace.range("module:model.layers.4.norm", 0, 1000)
    trace.op("aten::linear", 10, 200)
    trace.op("aten::mm", 20, 100, **halves)
    trace.launched("gemm", 1, call_at=30, start=100, length=30)
    trace.op("aten::mean", 300, 100, **one_half)
    trace.op("aten::sum", 310, 50, **one_half)
    trace.launched("reduce_kernel", 2, call_at=320, start=400, length=4)
    trace.op("aten::topk", 500, 100)
    trace.launched("gatherTopK", 3, call_at=510, start=600, length=7)
    mean_shapes: dict[str, Any] = {"input_shapes": [[8, 32], []], "input_dtypes": ["c10::Half", "ScalarList"]}
    mm_shapes: dict[str, Any] = {"input_shapes": [[8, 16], [16, 32]], "input_dtypes": ["c10::Half", "c10::Half"]}
    total = Event("aten::sum", kernels=[Kernel("reduce_kernel", 4.0)], concrete_inputs=["", [-1]], **mean_shapes)
    live = Event(
        "module:model.layers.4.norm",
        [
            Event("aten::linear", [Event("aten::mm", kernels=[Kernel("gemm", 30.0)], **mm_shapes)]),
            Event("aten::mean", [total], concrete_inputs=["", [-1]], **mean_shapes),
            Event("aten::topk", kernels=[Kernel("gatherTopK", 7.0)]),
        ],
    )

    saved = traced_kernels(trace.read(tmp_path), dtype="float16")
    running = kernels_of([live], dtype="float16", device="cuda")

    assert [rounded(kernel) for kernel in saved] == [rounded(kernel) for kernel in running]
    assert [kernel.kind for kernel in saved] == [KernelKind.GEMM, KernelKind.OTHER, KernelKind.NORM]


def rounded(kernel: TracedKernel) -> tuple[Any, ...]:
    counts = (kernel.launches, kernel.flop, kernel.read_bytes, kernel.write_bytes, kernel.link_bytes)
    name = (kernel.kernel_id, kernel.kind, kernel.op, kernel.module, kernel.dtype, kernel.shape)
    return (*name, *counts, round(kernel.traced_duration_s, 12))


def test_the_format_that_the_installed_torch_writes_is_read(tmp_path: Path) -> None:
    """A trace of the CPU, with a kernel added inside its matrix product as a GPU would have one."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.LayerNorm(6))
    inputs = torch.randn(2, 4)  # [batch, width]
    activities = [torch.profiler.ProfilerActivity.CPU]
    with (
        torch.inference_mode(),
        module_ranges(model),
        torch.profiler.profile(activities=activities, record_shapes=True, with_stack=True) as profiler,
        marked("trace:prefill"),
    ):
        model(inputs)
    path = tmp_path / "trace.json"
    profiler.export_chrome_trace(str(path))
    document = json.loads(path.read_text())
    (operator,) = [event for event in document["traceEvents"] if event["name"] == "aten::addmm"]
    middle = operator["ts"] + operator["dur"] / 2
    added = HandMade()
    added.call(1, middle, 0, thread=operator["tid"])
    added.events[0]["pid"] = operator["pid"]
    added.kernel("gemm", middle + 100, 30, 1)
    document["traceEvents"] += added.events
    path.write_text(json.dumps(document))

    (row,) = traced_kernels(read_trace(path))

    assert (row.op, row.kind, row.module, row.dtype) == ("aten::addmm", KernelKind.GEMM, "0", "float32")
    assert (row.shape, row.flop) == ('{"m":2,"n":6,"k":4}', 2 * 2 * 6 * 4)
