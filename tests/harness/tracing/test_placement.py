from dataclasses import replace

import pytest

from harness.errors import UsageError
from harness.hardware import Peaks, find, roofline_time_s
from harness.kernels import KernelKind
from harness.tracing.placement import PlacedKernel, Side, is_matrix_product, place
from tests.example_graphs import GPU, a_graph, a_kernel, a_small_model


def placed_alone(*kernels: object, gpu: object = GPU) -> PlacedKernel:
    return place(a_graph(*kernels), gpu).kernels[0]  # type: ignore[arg-type]


def test_a_product_without_traffic_takes_its_flop_over_the_peak() -> None:
    kernel = a_kernel(flop=989 * 10**12, read_bytes=0, write_bytes=0)

    placed = placed_alone(kernel, gpu=find("NVIDIA H100 80GB HBM3"))

    assert placed.time_s == placed.compute_s == 1.0
    assert (placed.side, placed.memory_s, placed.link_s) == (Side.COMPUTE, 0.0, 0.0)


def test_the_slowest_of_arithmetic_memory_and_link_is_the_time_and_the_side() -> None:
    collective = a_kernel(KernelKind.ALL_REDUCE, flop=10**14, read_bytes=10**12, write_bytes=10**12)

    memory, link = placed_alone(collective), placed_alone(replace(collective, link_bytes=3 * 10**11))

    assert (memory.compute_s, memory.memory_s, memory.side, memory.time_s) == (1.0, 2.0, Side.MEMORY, 2.0)
    assert (link.link_s, link.side, link.time_s) == (3.0, Side.LINK, 3.0)


@pytest.mark.parametrize("kind", [KernelKind.GEMM, KernelKind.MOE_GEMM, KernelKind.ATTENTION])
def test_products_and_attention_are_held_against_the_peak_of_their_dtype(kind: KernelKind) -> None:
    assert placed_alone(a_kernel(kind, flop=10**15)).compute_s == 1.0


@pytest.mark.parametrize("kind", [KernelKind.NORM, KernelKind.ELEMENTWISE, KernelKind.SCAN, KernelKind.ALL_REDUCE])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "int64", "float64"])
def test_other_arithmetic_is_held_against_float32_outside_tensor_cores(kind: KernelKind, dtype: str) -> None:
    assert placed_alone(a_kernel(kind, flop=10**14, dtype=dtype)).compute_s == 1.0


def test_a_product_inside_a_scan_is_still_a_product() -> None:
    product = a_kernel(KernelKind.SCAN, flop=10**15, shape={"batch": 2, "m": 4, "n": 4, "k": 4})

    assert is_matrix_product(product)
    assert placed_alone(product).compute_s == 1.0
    assert not is_matrix_product(a_kernel(KernelKind.SCAN, flop=8))


def test_where_the_float32_peak_is_not_known_the_dtype_of_the_kernel_counts() -> None:
    gpu = replace(GPU, peak_flop_per_s=Peaks(bfloat16=1e15))

    assert placed_alone(a_kernel(KernelKind.NORM, flop=10**15), gpu=gpu).compute_s == 1.0
    with pytest.raises(UsageError, match=r"no peak_flop_per_s\.float32 for Round GPU"):
        placed_alone(a_kernel(KernelKind.ELEMENTWISE, flop=8, dtype="int64"), gpu=gpu)


@pytest.mark.parametrize(
    ("changes", "needed"),
    [({"link_bytes_per_s": None}, "link_bytes_per_s"), ({"peak_bytes_per_s": None}, "peak_bytes_per_s")],
)
def test_a_figure_that_is_missing_is_named(changes: dict[str, None], needed: str) -> None:
    with pytest.raises(UsageError, match=f"no {needed} for Round GPU"):
        place(a_small_model(), replace(GPU, **changes))  # type: ignore[arg-type]


def test_a_figure_that_is_not_needed_may_be_missing() -> None:
    place(a_graph(a_kernel()), replace(GPU, link_bytes_per_s=None))


def test_a_dtype_that_the_gpu_only_emulates_is_refused() -> None:
    with pytest.raises(UsageError, match="Tesla T4 has no native units for bfloat16"):
        placed_alone(a_kernel(), gpu=find("T4"))


def test_times_add_up_and_shares_add_to_one() -> None:
    placed = place(a_small_model(), GPU)

    # The norm reads 1 ms, three products of 10 ms, attention 20 ms, the head 1 ms, the all-reduce sends 40 ms.
    assert placed.time_s == pytest.approx(1e-3 + 30e-3 + 20e-3 + 1e-3 + 40e-3, rel=1e-3)
    assert sum(kernel.share for kernel in placed.kernels) == pytest.approx(1)
    assert placed.share_of(Side.LINK) == pytest.approx(40 / 92, rel=1e-3)
    assert placed.side is Side.COMPUTE
    assert sum(map(placed.share_of, Side)) == pytest.approx(1)


def test_kernels_are_ranked_by_share_and_ties_keep_the_order_of_the_graph() -> None:
    assert place(a_small_model(), GPU).by_share[:5] == (7, 5, 2, 3, 4)


def test_a_launch_takes_its_part_of_the_time() -> None:
    assert placed_alone(a_kernel(launches=80)).launch_s == pytest.approx(1 / 80)


def test_a_kernel_that_asks_for_nothing_takes_no_time_and_has_no_peak() -> None:
    placed = placed_alone(a_kernel(KernelKind.OTHER, read_bytes=0, write_bytes=0))

    assert (placed.time_s, placed.share, placed.side, placed.peak_flop_per_s) == (0.0, 0.0, Side.MEMORY, None)


def test_a_product_takes_what_the_roofline_of_the_hardware_table_says() -> None:
    gpu = find("NVIDIA A100-SXM4-80GB")
    for kernel in (a_kernel(flop=10**13, read_bytes=10**9), a_kernel(flop=10**9, read_bytes=10**9)):
        assert placed_alone(kernel, gpu=gpu).time_s == roofline_time_s(
            work_flop=kernel.flop, traffic_bytes=kernel.traffic_bytes, hardware=gpu, dtype="bfloat16"
        )
