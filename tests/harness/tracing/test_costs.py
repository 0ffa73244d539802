from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from harness.kernels import KernelKind
from harness.tracing.costs import KNOWN, cost_of
from harness.tracing.operands import DTYPES, Cost, OpCall, Tensor, bytes_of, result_dtype, total

F32, BF16, I64, BOOL = "float", "c10::BFloat16", "long int", "bool"


def tensor(*shape: int, dtype: str = F32) -> Tensor:
    return Tensor(shape=shape, dtype=dtype)


def cost(op: str, *tensors: Tensor, dims: tuple[int, ...] = ()) -> Cost:
    return cost_of(OpCall(op=op, tensors=tensors, dims=dims))


def figures(found: Cost) -> tuple[int | None, int | None, int | None]:
    return found.flop, found.read_bytes, found.write_bytes


def test_a_product_of_two_matrices() -> None:
    found = cost("mm", tensor(24, 64), tensor(64, 96))
    assert found.kind is KernelKind.GEMM
    assert found.shape == {"m": 24, "n": 96, "k": 64}
    assert figures(found) == (2 * 24 * 64 * 96, 4 * (24 * 64 + 64 * 96), 4 * 24 * 96)


def test_a_bias_comes_first_and_is_read() -> None:
    found = cost("addmm", tensor(96, dtype=BF16), tensor(24, 64, dtype=BF16), tensor(64, 96, dtype=BF16))
    assert found.shape == {"m": 24, "n": 96, "k": 64}
    assert figures(found) == (2 * 24 * 64 * 96, 2 * (96 + 24 * 64 + 64 * 96), 2 * 24 * 96)


def test_a_bias_of_a_full_matrix_is_not_taken_for_a_factor() -> None:
    assert cost("addmm", tensor(24, 96), tensor(24, 64), tensor(64, 96)).shape == {"m": 24, "n": 96, "k": 64}


def test_a_batch_of_products() -> None:
    found = cost("bmm", tensor(8, 12, 16), tensor(8, 16, 12))
    assert found.shape == {"batch": 8, "m": 12, "n": 12, "k": 16}
    assert figures(found) == (2 * 8 * 12 * 12 * 16, 4 * 2 * 8 * 12 * 16, 4 * 8 * 12 * 12)
    assert cost("baddbmm", tensor(8, 12, 12), tensor(8, 12, 16), tensor(8, 16, 12)).flop == found.flop


def test_scales_come_after_the_factors_they_belong_to() -> None:
    eight = "c10::Float8_e4m3fn"
    found = cost("_scaled_mm", tensor(24, 64, dtype=eight), tensor(64, 96, dtype=eight), tensor(24, 1), tensor(1, 96))
    assert found.shape == {"m": 24, "n": 96, "k": 64}
    assert found.read_bytes == 24 * 64 + 64 * 96 + 4 * (24 + 96)


def test_a_fused_linear_keeps_its_weight_turned() -> None:
    found = cost("mkldnn_linear", tensor(2, 12, 64), tensor(96, 64), tensor(96))
    assert found.shape == {"m": 24, "n": 96, "k": 64}
    assert figures(found) == (2 * 24 * 64 * 96, 4 * (24 * 64 + 96 * 64 + 96), 4 * 24 * 96)


def test_grouped_products_of_experts() -> None:
    found = cost("_grouped_mm", tensor(48, 64), tensor(4, 64, 96), tensor(4, dtype="int"))
    assert found.kind is KernelKind.MOE_GEMM
    assert found.shape == {"m": 48, "n": 96, "k": 64, "experts": 4}
    assert figures(found) == (2 * 48 * 64 * 96, 4 * (48 * 64 + 4 * 64 * 96) + 16, 4 * 48 * 96)


@pytest.mark.parametrize("op", ["_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_cudnn_attention"])
def test_attention_with_shared_heads(op: str) -> None:
    found = cost(op, tensor(2, 8, 5, 16), tensor(2, 2, 40, 16), tensor(2, 2, 40, 16), tensor(2, 1, 5, 40))
    assert found.kind is KernelKind.ATTENTION
    assert found.shape == {
        "batch": 2,
        "query_tokens": 5,
        "context_tokens": 40,
        "heads": 8,
        "kv_heads": 2,
        "head_dim": 16,
    }
    assert figures(found) == (
        4 * 2 * 8 * 5 * 40 * 16,
        4 * (2 * 8 * 5 * 16 + 2 * 2 * 2 * 40 * 16),
        4 * 2 * 8 * 5 * 16,
    )


def test_values_may_be_narrower_than_keys() -> None:
    found = cost("_scaled_dot_product_flash_attention", tensor(1, 4, 3, 24), tensor(1, 4, 7, 24), tensor(1, 4, 7, 16))
    assert found.flop == 2 * 4 * 3 * 7 * (24 + 16)
    assert found.write_bytes == 4 * 4 * 3 * 16


def test_flash_attention_lays_tokens_before_heads() -> None:
    found = cost("_flash_attn_forward", tensor(2, 5, 8, 16), tensor(2, 40, 2, 16), tensor(2, 40, 2, 16))
    assert (found.shape["heads"], found.shape["kv_heads"], found.shape["context_tokens"]) == (8, 2, 40)
    assert found.flop == 4 * 2 * 8 * 5 * 40 * 16


def test_only_the_rows_picked_from_a_table_are_read() -> None:
    for op, dims in (("embedding", ()), ("index_select", (0,))):
        found = cost(op, tensor(300, 64, dtype=BF16), tensor(2, 12, dtype=I64), dims=dims)
        assert found.kind is KernelKind.EMBEDDING
        assert found.shape == {"rows": 24, "width": 64}
        assert figures(found) == (0, 2 * 24 * 64 + 8 * 24, 2 * 24 * 64)


def test_slices_of_another_axis_are_as_wide_as_the_others_together() -> None:
    found = cost("index_select", tensor(4, 8, 16), tensor(3, dtype=I64), dims=(1,))
    assert found.shape == {"rows": 3, "width": 64}


def test_gathering_picks_one_element_for_each_index() -> None:
    found = cost("gather", tensor(24, 300), tensor(24, 2, dtype=I64), dims=(1,))
    assert figures(found) == (0, 4 * 48 + 8 * 48, 4 * 48)


def test_what_indices_pick_is_not_known_as_they_are_not_recorded() -> None:
    assert figures(cost("index", tensor(24, 64))) == (0, None, None)


def test_a_copy_reads_one_tensor_and_writes_the_other() -> None:
    assert figures(cost("copy_", tensor(24, 64, dtype=BF16), tensor(24, 64))) == (0, 4 * 24 * 64, 2 * 24 * 64)
    assert figures(cost("copy_", tensor(24, 64), tensor(64))) == (0, 4 * 64, 4 * 24 * 64)


def test_filling_reads_nothing() -> None:
    assert figures(cost("fill_", tensor(5, 5))) == (0, 0, 100)
    assert figures(cost("zero_", tensor(5, dtype=I64))) == (0, 0, 40)


def test_concatenating_writes_what_it_reads() -> None:
    found = cost("cat", tensor(2, 2, 12, 16), tensor(2, 2, 1, 16))
    assert found.shape == {"elements": 2 * 2 * 13 * 16}
    assert figures(found) == (0, 4 * 2 * 2 * 13 * 16, 4 * 2 * 2 * 13 * 16)


def test_a_layer_norm_reads_its_weight_and_bias() -> None:
    found = cost("native_layer_norm", tensor(2, 12, 64), tensor(64), tensor(64))
    assert found.kind is KernelKind.NORM
    assert found.shape == {"rows": 24, "width": 64}
    assert figures(found) == (24 * 64, 4 * (24 * 64 + 128), 4 * 24 * 64)


@pytest.mark.parametrize(
    ("left", "right", "elements"),
    [
        ((24, 64), (64,), 24 * 64),
        ((24, 1), (1, 64), 24 * 64),
        ((2, 1, 5, 1), (4, 1, 7), 2 * 4 * 5 * 7),
        ((24, 64), (), 24 * 64),
        ((3, 0), (1,), 0),
    ],
)
def test_a_pointwise_result_is_the_broadcast_of_its_operands(
    left: tuple[int, ...], right: tuple[int, ...], elements: int
) -> None:
    found = cost("mul", tensor(*left), tensor(*right))
    assert found.kind is KernelKind.ELEMENTWISE
    assert found.flop == elements
    assert found.write_bytes == 4 * elements


@settings(deadline=None)  # torch's own broadcasting is slow at first
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=4))
def test_broadcasting_is_torchs(axes: list[tuple[int, bool, bool]]) -> None:
    left = tuple(1 if thin else size for size, thin, _ in axes)
    right = tuple(1 if thin else size for size, _, thin in axes)
    expected = torch.empty(left, **META) + torch.empty(right, **META)
    assert cost("add", tensor(*left), tensor(*right)).flop == expected.numel()


def test_a_python_number_is_no_traffic_and_widens_nothing() -> None:
    number = tensor(dtype="double")
    assert figures(cost("add", tensor(24, 64, dtype=BF16), number)) == (24 * 64, 2 * 24 * 64, 2 * 24 * 64)


def test_results_take_the_dtype_that_torch_gives_them() -> None:
    assert cost("mul", tensor(8, dtype=BF16), tensor(8)).write_bytes == 32
    assert cost("add", tensor(8, dtype=I64), tensor(8, dtype=BF16)).write_bytes == 16
    assert cost("mul_", tensor(8, dtype=BF16), tensor(8)).write_bytes == 16
    assert cost("lt", tensor(8), tensor(8)).write_bytes == 8
    assert cost("where", tensor(8, dtype=BOOL), tensor(8, dtype=BF16), tensor(8, dtype=BF16)).write_bytes == 16
    assert cost("masked_fill", tensor(8, dtype=BF16), tensor(8, dtype=BOOL)).write_bytes == 16


META: Any = {"device": "meta"}
TORCH_DTYPES = {"float": torch.float32, "c10::BFloat16": torch.bfloat16, "long int": torch.int64, "int": torch.int32}
TORCH_DTYPES |= {"bool": torch.bool, "double": torch.float64, "unsigned char": torch.uint8}


@given(st.sampled_from(sorted(TORCH_DTYPES)), st.sampled_from(sorted(TORCH_DTYPES)))
def test_mixed_dtypes_promote_as_in_torch(left: str, right: str) -> None:
    promoted = result_dtype([tensor(3, dtype=left), tensor(3, dtype=right)])
    assert TORCH_DTYPES[promoted] == torch.promote_types(TORCH_DTYPES[left], TORCH_DTYPES[right])


def test_activations_are_told_from_other_pointwise_operators() -> None:
    for op in ("silu", "gelu", "_softmax", "relu_", "tanh"):
        assert cost(op, tensor(8)).kind is KernelKind.ACTIVATION
    assert cost("exp", tensor(8)).kind is KernelKind.ELEMENTWISE


@pytest.mark.parametrize(
    ("op", "dims", "written"),
    [
        ("sum", (-1,), 4 * 24),
        ("mean", (0, 1), 4),
        ("sum", (), 4),
        ("amax", (0,), 4 * 64),
        ("max", (1,), 4 * 24 + 8 * 24),
        ("max", (), 4),
        ("argmax", (-1,), 8 * 24),
        ("all", (), 1),
        ("cumsum", (1,), 4 * 24 * 64),
    ],
)
def test_a_reduction_writes_what_it_keeps(op: str, dims: tuple[int, ...], written: int) -> None:
    assert figures(cost(op, tensor(24, 64), dims=dims)) == (24 * 64, 4 * 24 * 64, written)


def test_the_larger_of_two_tensors_is_no_reduction() -> None:
    assert figures(cost("max", tensor(24, 64), tensor(64))) == (24 * 64, 4 * 25 * 64, 4 * 24 * 64)


@pytest.mark.parametrize(
    "call",
    [
        OpCall(op="frobnicate", tensors=(tensor(8, 8),)),
        OpCall(op="mm", tensors=(tensor(8, 8),)),
        OpCall(op="mm", tensors=(tensor(8, 4), tensor(8, 4))),
        OpCall(op="bmm", tensors=(tensor(2, 8, 4), tensor(3, 4, 8))),
        OpCall(op="_grouped_mm", tensors=(tensor(8, 4), tensor(4, 8))),
        OpCall(op="_scaled_dot_product_flash_attention", tensors=(tensor(8, 4),) * 3),
        OpCall(op="_flash_attn_forward", tensors=(tensor(100, 8, 64),) * 3),  # ragged: lengths are not in the shapes
        OpCall(op="embedding", tensors=(tensor(300, 64),)),
        OpCall(op="mkldnn_linear", tensors=(tensor(8, 0), tensor(4, 0))),
        OpCall(op="add", tensors=(tensor(3), tensor(4))),
        OpCall(op="mul", tensors=()),
        OpCall(op="native_layer_norm", tensors=(tensor(),)),
    ],
)
def test_what_shapes_do_not_tell_is_none_and_never_zero(call: OpCall) -> None:
    found = cost_of(call)
    assert found.kind is KernelKind.OTHER
    assert figures(found) == (None, None, None)


def test_a_dtype_not_known_leaves_bytes_open_but_not_flop() -> None:
    found = cost("mm", tensor(2, 2, dtype="c10::Float4"), tensor(2, 2, dtype="c10::Float4"))
    assert figures(found) == (16, None, None)


@given(st.sampled_from(sorted(KNOWN)), st.lists(st.lists(st.integers(0, 5), max_size=5), max_size=4), st.data())
def test_no_call_is_too_strange_to_be_answered(op: str, shapes: list[list[int]], data: st.DataObject) -> None:
    dtypes = st.sampled_from([*DTYPES, "c10::Unheard"])
    tensors = tuple(Tensor(shape=tuple(shape), dtype=data.draw(dtypes)) for shape in shapes)
    dims = tuple(data.draw(st.lists(st.integers(-3, 3), max_size=2)))
    found = cost_of(OpCall(op=op, tensors=tensors, dims=dims))
    assert all(figure is None or figure >= 0 for figure in figures(found))
    if found.kind is KernelKind.OTHER:
        assert figures(found) == (None, None, None)


def test_counts_add_up_only_if_all_are_known() -> None:
    assert total([1, 2]) == 3
    assert total([1, None]) is None
    assert total([]) == 0
    assert bytes_of(3, "double") == 24


def counted_flop(call: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def of(value: torch.Tensor) -> Tensor:
    return Tensor(shape=tuple(value.shape), dtype=F32)


@pytest.mark.parametrize(
    ("op", "call", "shapes"),
    [
        ("mm", torch.mm, [(24, 64), (64, 96)]),
        ("addmm", torch.addmm, [(96,), (24, 64), (64, 96)]),
        ("bmm", torch.bmm, [(8, 12, 16), (8, 16, 12)]),
        ("baddbmm", torch.baddbmm, [(8, 12, 12), (8, 12, 16), (8, 16, 12)]),
    ],
)
def test_products_cost_what_torchs_flop_counter_says(
    op: str, call: Callable[..., Any], shapes: list[tuple[int, ...]]
) -> None:
    operands = [torch.empty(shape, **META) for shape in shapes]
    assert cost(op, *map(of, operands)).flop == counted_flop(lambda: call(*operands))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_costs_what_torchs_flop_counter_says(causal: bool) -> None:
    query, key = torch.randn(2, 4, 12, 16), torch.randn(2, 4, 12, 16)  # [batch, heads, tokens, head_dim]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        counted = counted_flop(lambda: scaled_dot_product_attention(query, key, key, is_causal=causal))
    assert cost("_scaled_dot_product_flash_attention", of(query), of(key), of(key)).flop == counted
