"""Work for a virtual GPU: nothing of a graph is lost on the way."""

import numpy as np
import pytest

from harness.kernels import KernelKind
from harness.tracing.graph import KernelGraph
from harness.virtual.program import Segments, joined, segments_of
from tests.example_graphs import a_graph, a_kernel, a_small_model
from tests.harness.virtual.virtual_examples import COMPUTE, MEMORY, REDUCE, work


def three_layers() -> KernelGraph:
    return a_graph(
        a_kernel(KernelKind.EMBEDDING, launches=1),
        a_kernel(launches=3, flop=300),
        a_kernel(KernelKind.ALL_REDUCE, launches=6, link_bytes=60),
        a_kernel(launches=1, flop=7),
    )


def order_of(segments: Segments) -> str:
    return "".join(segments.kernels[index] for index in segments.kernel)


def test_a_graph_becomes_one_segment_per_kernel_with_all_its_work() -> None:
    graph = a_small_model()

    segments = segments_of(graph)

    assert len(segments.kernels) == len(graph.kernels) == segments.kernel.size
    assert segments.launches.sum() == graph.launches
    assert segments.flop.sum() == graph.flop
    assert segments.traffic_bytes.sum() == graph.traffic_bytes
    assert segments.link_bytes.sum() == graph.link_bytes
    assert segments.kernels[2] == "2:aten::mm"
    assert [kernel for kernel, flag in enumerate(segments.collective) if flag] == [
        kernel for kernel, one in enumerate(graph.kernels) if one.kind is KernelKind.ALL_REDUCE
    ]


def test_arithmetic_outside_products_is_held_against_float32() -> None:
    graph = a_graph(a_kernel(dtype="float16"), a_kernel(KernelKind.NORM, dtype="float16", flop=5))

    assert segments_of(graph).dtypes == ("float16", "float32")


def test_rounds_repeat_what_layers_repeat_and_keep_the_work() -> None:
    whole = segments_of(three_layers(), name=lambda index: "abcd"[index])

    spread = segments_of(three_layers(), name=lambda index: "abcd"[index], rounds=3)

    assert order_of(whole) == "abcd"
    assert order_of(spread) == "abcbcbcd"
    assert spread.launches.tolist() == [1, 1, 2, 1, 2, 1, 2, 1]
    assert spread.flop.sum() == whole.flop.sum()
    assert spread.link_bytes.sum() == whole.link_bytes.sum()


def test_what_is_launched_less_often_within_the_layers_is_shared_out() -> None:
    graph = a_graph(a_kernel(launches=4), a_kernel(KernelKind.NORM, launches=1), a_kernel(launches=4))

    spread = segments_of(graph, name=lambda index: "abc"[index], rounds=4)

    assert order_of(spread) == "abc" * 4
    assert spread.launches.tolist() == [1, 0.25, 1] * 4


def test_joined_parts_follow_each_other_and_share_kernels_by_name() -> None:
    whole = joined([work(COMPUTE, MEMORY), work(MEMORY, REDUCE, collective=("reduce",))])

    assert whole.kernels == ("compute", "memory", "reduce")
    assert whole.collective == (False, False, True)
    assert whole.kernel.tolist() == [0, 1, 1, 2]
    assert whole.traffic_bytes.tolist() == [1e9, 1e10, 1e10, 0]


def test_two_kinds_of_kernel_under_one_name_cannot_be_joined() -> None:
    with pytest.raises(ValueError, match="'reduce'"):
        joined([work(REDUCE), work(REDUCE, collective=("reduce",))])


def test_one_kernel_can_be_taken_alone() -> None:
    alone = work(COMPUTE, REDUCE, COMPUTE, collective=("reduce",)).only("compute")

    assert alone.kernels == ("compute",)
    assert alone.flop.tolist() == [1e13, 1e13]
    with pytest.raises(ValueError, match="not in tuple"):
        work(COMPUTE).only("memory")


@pytest.mark.parametrize(
    "changes",
    [
        {"flop": np.array([1.0])},
        {"flop": np.array([-1.0, 1.0])},
        {"flop": np.array([np.nan, 1.0])},
        {"launches": np.array([0.0, 1.0])},
        {"kernel": np.array([0, 2])},
        {"kernels": ("a", "a")},
        {"collective": (False,)},
        {"dtypes": ("bfloat16",)},
    ],
)
def test_work_that_makes_no_sense_is_refused(changes: dict[str, object]) -> None:
    good = work(COMPUTE, MEMORY)
    fields = {name: getattr(good, name) for name in Segments.__dataclass_fields__}

    with pytest.raises(ValueError, match=r"segments|segment|kernels|amounts"):
        Segments(**fields | changes)
