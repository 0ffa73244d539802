"""Collectives: recognised on both backends, costed by closed forms, and who waited for whom."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import DeviceType  # type: ignore[attr-defined]  # torch re-exports it without saying so

from harness.kernels import KernelKind
from harness.tracing.alignment import align
from harness.tracing.collectives import collective_kind, cost_of_collective, sent_bytes, waits_s
from harness.tracing.operands import Tensor
from harness.tracing.timeline import TracedKernel, kernels_of


@dataclass(frozen=True)
class DeviceKernel:
    name: str
    duration: float  # µs


@dataclass(frozen=True)
class Span:
    start: float
    end: float

    def elapsed_us(self) -> float:
        return self.end - self.start


@dataclass
class Event:
    """What ``kernels_of`` reads of an event of the profiler."""

    name: str
    time_range: Span
    thread: int = 1
    input_shapes: list[Any] = field(default_factory=list)
    input_dtypes: list[str] = field(default_factory=list)
    cpu_children: list["Event"] = field(default_factory=list)
    kernels: list[DeviceKernel] = field(default_factory=list)
    concrete_inputs: list[Any] = field(default_factory=list)
    structured_input_shapes: list[Any] = field(default_factory=list)
    device_type: Any = DeviceType.CPU
    cpu_parent: Any = None

    def all(self) -> list["Event"]:
        for child in self.cpu_children:
            child.cpu_parent = self
        return [self, *(event for child in self.cpu_children for event in child.all())]


def listed(*roots: Event) -> list[Event]:
    return [event for root in roots for event in root.all()]


def layer(number: int, start: float, *, work_us: float) -> list[Event]:
    """A module that reduces over gloo: the caller hands over, another thread works."""
    call = Event("c10d::allreduce_", Span(start + 1, start + 5), input_shapes=[[]], input_dtypes=["TensorList"])
    module = Event(f"module:layers.{number}.mlp", Span(start, start + 9 + work_us), cpu_children=[call])
    copied = Event(
        "aten::copy_", Span(start + 8, start + 9), thread=7, input_shapes=[[2, 6], [2, 6]], input_dtypes=["float"] * 2
    )
    work = Event(
        "gloo:all_reduce",
        Span(start + 6, start + 6 + work_us),
        thread=7,
        input_shapes=[[2, 6]],
        input_dtypes=["float"],
    )
    return listed(module, copied, work)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("c10d::allreduce_", KernelKind.ALL_REDUCE),
        ("c10d::allreduce_coalesced_", KernelKind.ALL_REDUCE),
        ("nccl:all_reduce", KernelKind.ALL_REDUCE),
        ("gloo:all_gather", KernelKind.ALL_GATHER),
        ("c10d::_allgather_base_", KernelKind.ALL_GATHER),
        ("c10d::allgather_into_tensor_coalesced_", KernelKind.ALL_GATHER),
        ("c10d::_reduce_scatter_base_", KernelKind.REDUCE_SCATTER),
        ("c10d::alltoall_base_", KernelKind.ALL_TO_ALL),
        ("c10d::broadcast_", KernelKind.OTHER),
        ("c10d::barrier", None),
        ("gloo:barrier", None),
        ("aten::all", None),
        ("_c10d_functional::all_reduce", None),
    ],
)
def test_a_collective_is_known_by_its_name(name: str, kind: KernelKind | None) -> None:
    assert collective_kind(name) is kind


@pytest.mark.parametrize(
    ("kind", "ranks", "link_bytes"),
    [
        (KernelKind.ALL_REDUCE, 2, 4800),  # 2 · 1/2 · S
        (KernelKind.ALL_REDUCE, 3, 6400),  # 2 · 2/3 · S
        (KernelKind.ALL_GATHER, 4, 3 * 4800),  # 3/4 of the whole, which is four times the part
        (KernelKind.REDUCE_SCATTER, 4, 3600),
        (KernelKind.ALL_REDUCE, 1, 0),
    ],
)
def test_a_ring_sends_what_the_closed_form_says(kind: KernelKind, ranks: int, link_bytes: int) -> None:
    moved = cost_of_collective(kind, Tensor(shape=(2, 600), dtype="float"), ranks)

    assert moved.link_bytes == link_bytes
    assert moved.cost.shape == {"elements": 1200, "ranks": ranks}


def test_all_gather_writes_the_parts_of_all_ranks_and_reduce_scatter_only_its_own() -> None:
    part = Tensor(shape=(100,), dtype="c10::BFloat16")

    gathered = cost_of_collective(KernelKind.ALL_GATHER, part, 4).cost
    scattered = cost_of_collective(KernelKind.REDUCE_SCATTER, part, 4).cost

    assert (gathered.read_bytes, gathered.write_bytes) == (200, 800)
    assert (scattered.read_bytes, scattered.write_bytes) == (200, 50)


@given(st.integers(0, 10**12), st.integers(1, 512))
def test_an_all_reduce_never_sends_more_than_twice_the_tensor(size_bytes: int, ranks: int) -> None:
    assert 0 <= sent_bytes(KernelKind.ALL_REDUCE, size_bytes, ranks) <= 2 * size_bytes


def test_on_a_cpu_a_collective_lasts_as_long_as_its_work_and_belongs_to_the_module_that_called() -> None:
    events = layer(0, 0.0, work_us=100.0) + layer(1, 500.0, work_us=300.0)

    (kernel,) = kernels_of(events, dtype="float32", device="cpu", ranks=3)

    assert (kernel.kind, kernel.op, kernel.module) == (KernelKind.ALL_REDUCE, "c10d::allreduce_", "layers.*.mlp")
    assert kernel.launches == 2
    assert kernel.traced_duration_s == pytest.approx(400e-6)
    assert kernel.launch_durations_s == pytest.approx((100e-6, 300e-6))
    assert kernel.link_bytes == 2 * (2 * 48 * 2 // 3)


def test_what_the_thread_of_a_collective_does_is_part_of_it() -> None:
    kernels = kernels_of(layer(0, 0.0, work_us=100.0), dtype="float32", device="cpu", ranks=2)

    assert [kernel.kind for kernel in kernels] == [KernelKind.ALL_REDUCE], "the copy on thread 7 is no kernel"


def test_waiting_for_a_collective_is_no_kernel_of_the_operator_that_waits() -> None:
    wait = Event("_c10d_functional::wait_tensor", Span(2, 90), input_shapes=[[4]], input_dtypes=["float"])
    real = Event("aten::add", Span(91, 95), input_shapes=[[4], [4]], input_dtypes=["float", "float"])
    subclass = Event("PythonSubclass", Span(1, 96), cpu_children=[wait, real])
    outer = Event(
        "aten::add", Span(0, 97), input_shapes=[[4], [4]], input_dtypes=["float", "float"], cpu_children=[subclass]
    )

    (kernel,) = kernels_of(listed(outer), dtype="float32", device="cpu")

    assert kernel.traced_duration_s == pytest.approx(4e-6)


def test_on_a_gpu_a_collective_takes_the_time_of_its_device_kernel() -> None:
    inner = Event(
        "nccl:all_reduce", Span(2, 4), kernels=[DeviceKernel("ncclDevKernel_AllReduce_Sum_bf16_RING_LL", 70.0)]
    )
    call = Event(
        "c10d::allreduce_",
        Span(1, 5),
        structured_input_shapes=[[[8, 64]], [], []],
        input_dtypes=["TensorList", "", ""],
        cpu_children=[inner],
    )

    (kernel,) = kernels_of(listed(call), dtype="bfloat16", device="cuda", ranks=2)

    assert (kernel.kind, kernel.op, kernel.dtype) == (KernelKind.ALL_REDUCE, "c10d::allreduce_", "bfloat16")
    assert kernel.traced_duration_s == pytest.approx(70e-6)
    assert kernel.link_bytes == 8 * 64 * 2


def test_the_rank_that_comes_last_waits_for_nobody() -> None:
    assert waits_s([[5.0, 1.0], [1.0, 4.0]]) == pytest.approx((4.0, 3.0))
    assert waits_s([[5.0], [1.0, 4.0]]) is None, "they do not count the same launches"


@given(st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), min_size=1, max_size=5))
def test_nobody_waits_for_longer_than_it_was_there(durations_s: list[list[float]]) -> None:
    waits = waits_s(durations_s) or ()

    assert len(waits) == len(durations_s)
    for wait_s, own in zip(waits, durations_s, strict=True):
        assert -1e-9 <= wait_s <= sum(own) + 1e-9


def kernel(op: str, *durations_s: float, kernel_id: str = "k0000", launches: int | None = None) -> TracedKernel:
    return TracedKernel(
        kernel_id=kernel_id,
        kind=KernelKind.ALL_REDUCE if durations_s else KernelKind.GEMM,
        op=op,
        module=None,
        dtype="float32",
        shape="{}",
        launches=launches or len(durations_s) or 1,
        flop=None,
        read_bytes=None,
        write_bytes=None,
        traced_duration_s=sum(durations_s) or 1.0,
        launch_durations_s=durations_s,
    )


def ids(ranks: Sequence[Sequence[TracedKernel]]) -> list[dict[str, str]]:
    return [{each.op: each.kernel_id for each in kernels} for kernels in ranks]


def test_the_same_kernel_has_the_same_id_on_every_rank_and_its_waits_become_known() -> None:
    first = [kernel("mm", kernel_id="k0000"), kernel("reduce", 3.0, 1.0, kernel_id="k0001")]
    second = [kernel("reduce", 1.0, 1.5, kernel_id="k0000"), kernel("mm", kernel_id="k0001")]

    ranks = align([first, second])

    assert ids(ranks) == [{"mm": "k0000", "reduce": "k0001"}] * 2
    assert ranks[0][1].wait_s == pytest.approx(2.0)
    assert ranks[1][0].wait_s == pytest.approx(0.5)
    assert ranks[0][0].wait_s is None, "a matrix product waits for nobody"


def test_waits_count_as_many_passes_as_the_kernel_does() -> None:
    scaled = [kernel("reduce", 3.0, 1.0).scaled(5.0), kernel("reduce", 1.0, 1.0).scaled(5.0)]

    ranks = align([[each] for each in scaled])

    assert ranks[0][0].launches == 10
    assert ranks[0][0].wait_s == pytest.approx(10.0)


def test_a_kernel_that_one_rank_alone_has_keeps_an_id_of_its_own() -> None:
    ranks = align([[kernel("mm")], [kernel("mm"), kernel("argmax")], [replace(kernel("topk"), kernel_id="k0000")]])

    assert [each.kernel_id for kernels in ranks for each in kernels] == ["k0000", "k0000", "k0001", "k0002"]
