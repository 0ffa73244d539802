import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from harness.kernels import KernelKind, shape_dimensions
from harness.tracing.timeline import TracedKernel, kernels_of

BATCH, TOKENS, LAYERS, HEADS, KV_HEADS, HEAD_DIM, WIDTH, INNER, VOCABULARY = 2, 12, 3, 4, 2, 16, 64, 96, 300
HEAD_FLOP = 2 * BATCH * WIDTH * VOCABULARY  # logits of the last position only
VIEWS = {"view", "reshape", "transpose", "t", "expand", "slice", "select", "unsqueeze", "empty", "as_strided", "to"}


def flop_of(kernels: Sequence[TracedKernel], *kinds: KernelKind) -> int:
    return sum(kernel.flop or 0 for kernel in kernels if kernel.kind in kinds)


def launches_of(kernels: Sequence[TracedKernel], op: str, module: str) -> int:
    return sum(kernel.launches for kernel in kernels if kernel.op == op and kernel.module == module)


def test_matrix_products_of_a_prefill_are_two_flop_per_weight_and_token(
    traced: Callable[..., Any], llama_prefill: Sequence[TracedKernel]
) -> None:
    parameters = traced("llama").linear_parameters()
    assert flop_of(llama_prefill, KernelKind.GEMM) == 2 * parameters * BATCH * TOKENS + HEAD_FLOP


def test_attention_is_the_full_square(llama_prefill: Sequence[TracedKernel]) -> None:
    assert flop_of(llama_prefill, KernelKind.ATTENTION) == 4 * LAYERS * BATCH * HEADS * TOKENS**2 * HEAD_DIM
    (attention,) = (kernel for kernel in llama_prefill if kernel.kind is KernelKind.ATTENTION)
    assert attention.launches == LAYERS
    assert shape_dimensions(attention.shape) == {
        "batch": BATCH,
        "query_tokens": TOKENS,
        "context_tokens": TOKENS,
        "heads": HEADS,
        "kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
    }
    one_layer = 4 * BATCH * TOKENS * HEAD_DIM * (HEADS + 2 * KV_HEADS)
    assert attention.read_bytes == LAYERS * one_layer
    assert attention.write_bytes == LAYERS * 4 * BATCH * TOKENS * HEAD_DIM * HEADS


def test_each_projection_is_one_launch_per_layer(llama_prefill: Sequence[TracedKernel]) -> None:
    layer = "model.layers.*"
    for module in ("self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        assert launches_of(llama_prefill, "aten::mm", f"{layer}.{module}") == LAYERS
    assert launches_of(llama_prefill, "aten::mm", "lm_head") == 1
    assert launches_of(llama_prefill, "aten::silu", f"{layer}.mlp.act_fn") == LAYERS
    assert launches_of(llama_prefill, "aten::embedding", "model.embed_tokens") == 1


def test_layer_numbers_are_stars_and_kernels_of_a_norm_are_norms(llama_prefill: Sequence[TracedKernel]) -> None:
    modules = {kernel.module for kernel in llama_prefill if kernel.module is not None}
    assert not any(re.search(r"\.\d", module) for module in modules)
    norms = [kernel for kernel in llama_prefill if kernel.module == "model.layers.*.input_layernorm"]
    assert {kernel.kind for kernel in norms} <= {KernelKind.NORM, KernelKind.COPY}
    assert {kernel.kind for kernel in llama_prefill if kernel.module == "model.norm"} == {KernelKind.NORM}


def test_a_mean_is_one_kernel_though_it_sums_and_divides(llama_prefill: Sequence[TracedKernel]) -> None:
    ops = Counter(kernel.op for kernel in llama_prefill)
    assert launches_of(llama_prefill, "aten::mean", "model.norm") == 1
    assert ops["aten::sum"] == ops["aten::div_"] == 0


def test_no_view_and_no_allocation_is_a_kernel(llama_prefill: Sequence[TracedKernel]) -> None:
    ops = {kernel.op.removeprefix("aten::") for kernel in llama_prefill}
    assert not ops & VIEWS
    assert not any(op.startswith(("module:", "trace:", "phase:")) for op in ops)


def test_kernels_have_ids_of_their_own_and_come_by_time(llama_prefill: Sequence[TracedKernel]) -> None:
    assert [kernel.kernel_id for kernel in llama_prefill] == [f"k{place:04d}" for place in range(len(llama_prefill))]
    times_s = [kernel.traced_duration_s for kernel in llama_prefill]
    assert times_s == sorted(times_s, reverse=True)
    keys = Counter((kernel.op, kernel.module, kernel.dtype, kernel.shape) for kernel in llama_prefill)
    assert set(keys.values()) == {1}


def test_every_cost_is_known_but_that_of_a_few_small_kernels(llama_prefill: Sequence[TracedKernel]) -> None:
    assert {kernel.op for kernel in llama_prefill if kernel.flop is None} <= {"aten::arange"}
    assert all(kernel.flop is None for kernel in llama_prefill if kernel.kind is KernelKind.OTHER)


@pytest.mark.parametrize("architecture", ["llama", "mixtral", "gpt2"])
def test_kernels_take_no_more_time_than_passes(traced: Callable[..., Any], architecture: str) -> None:
    model = traced(architecture)
    begun_s = time.perf_counter()
    kernels = model.prefill()
    wall_s = time.perf_counter() - begun_s
    assert 0 < sum(kernel.traced_duration_s for kernel in kernels) <= wall_s


def test_a_decode_step_sees_the_context_with_its_own_token(traced: Callable[..., Any]) -> None:
    model = traced("llama")
    kernels = model.decode()
    (attention,) = (kernel for kernel in kernels if kernel.kind is KernelKind.ATTENTION)
    shape = shape_dimensions(attention.shape)
    assert (shape["query_tokens"], shape["context_tokens"]) == (1, TOKENS + 1)
    assert attention.flop == 4 * LAYERS * BATCH * HEADS * (TOKENS + 1) * HEAD_DIM
    assert flop_of(kernels, KernelKind.GEMM) == 2 * model.linear_parameters() * BATCH + HEAD_FLOP
    assert launches_of(kernels, "aten::embedding", "model.embed_tokens") == 1
    caches = [kernel for kernel in kernels if kernel.op == "aten::cat" and kernel.module == "model.layers.*.self_attn"]
    grown = 2 * LAYERS * BATCH * KV_HEADS * (TOKENS + 1) * HEAD_DIM * 4
    assert grown in {kernel.write_bytes for kernel in caches}


def test_eager_attention_is_two_products_and_a_softmax(traced: Callable[..., Any]) -> None:
    model = traced("llama", attention="eager")
    kernels = model.prefill()
    products = [
        kernel for kernel in kernels if kernel.op == "aten::bmm" and kernel.module == "model.layers.*.self_attn"
    ]
    assert sum(kernel.flop or 0 for kernel in products) == 4 * LAYERS * BATCH * HEADS * TOKENS**2 * HEAD_DIM
    assert sum(kernel.launches for kernel in products) == 2 * LAYERS
    (softmax,) = (kernel for kernel in kernels if kernel.op == "aten::_softmax")
    assert (softmax.kind, softmax.launches) == (KernelKind.ACTIVATION, LAYERS)
    assert softmax.flop == LAYERS * BATCH * HEADS * TOKENS**2


def test_half_precision_halves_the_bytes_and_keeps_the_flop(
    traced: Callable[..., Any], llama_prefill: Sequence[TracedKernel]
) -> None:
    half = traced("llama", dtype="bfloat16").prefill()
    assert flop_of(half, KernelKind.GEMM, KernelKind.ATTENTION) == flop_of(
        llama_prefill, KernelKind.GEMM, KernelKind.ATTENTION
    )

    def of(kernels: Sequence[TracedKernel]) -> TracedKernel:
        return next(kernel for kernel in kernels if kernel.module == "model.layers.*.mlp.up_proj")

    assert of(half).dtype == "bfloat16"
    assert of(half).read_bytes == (of(llama_prefill).read_bytes or 0) // 2
    # Norms compute in single precision: casts are copies of their own.
    assert launches_of(half, "aten::copy_", "model.norm") == 2


def test_a_one_dimensional_convolution_as_gpt2_has_it_is_a_product_with_a_bias(traced: Callable[..., Any]) -> None:
    from transformers.pytorch_utils import Conv1D

    model = traced("gpt2")
    kernels = model.prefill()
    assert flop_of(kernels, KernelKind.GEMM) == 2 * model.linear_parameters(Conv1D) * BATCH * TOKENS + HEAD_FLOP
    attention = next(kernel for kernel in kernels if kernel.module == "transformer.h.*.attn.c_attn")
    assert (attention.op, attention.launches) == ("aten::addmm", LAYERS)
    assert shape_dimensions(attention.shape) == {"m": BATCH * TOKENS, "n": 3 * WIDTH, "k": WIDTH}
    assert {kernel.kind for kernel in kernels if kernel.module == "transformer.ln_f"} == {KernelKind.NORM}
    assert launches_of(kernels, "aten::copy_", "transformer.h.*.attn.c_attn") == 0  # the bias, laid out by addmm


def test_experts_compute_what_is_routed_to_them(traced: Callable[..., Any]) -> None:
    model = traced("mixtral")
    kernels = model.prefill()
    routed = BATCH * TOKENS * 2
    assert flop_of(kernels, KernelKind.MOE_GEMM) == LAYERS * 2 * routed * (WIDTH * 2 * INNER + INNER * WIDTH)
    products = [kernel for kernel in kernels if kernel.kind is KernelKind.MOE_GEMM]
    assert {shape_dimensions(kernel.shape)["experts"] for kernel in products} == {4}
    assert sum(kernel.launches for kernel in products) == 2 * LAYERS
    # Their products are not counted once more as those of single experts.
    attention = LAYERS * WIDTH * HEAD_DIM * (2 * HEADS + 2 * KV_HEADS)
    router = LAYERS * WIDTH * 4
    assert flop_of(kernels, KernelKind.GEMM) == 2 * BATCH * TOKENS * (attention + router) + HEAD_FLOP
    for op in ("aten::sort", "aten::histc", "aten::topk"):
        assert sum(kernel.launches for kernel in kernels if kernel.op == op) == LAYERS


def traced_call(call: Callable[[], object]) -> list[str]:
    """Kernels of one call on the CPU: name and launches."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        call()
    launches: Counter[str] = Counter()
    for kernel in kernels_of(profiler.events() or (), dtype="float32", device="cpu"):
        launches[kernel.op.removeprefix("aten::")] += kernel.launches
    return sorted(f"{op} {count}" for op, count in launches.items())


X = torch.randn(4, 8)
PLACES = torch.tensor([0, 2, 3])


@pytest.mark.parametrize(
    ("call", "kernels"),
    [
        (lambda: X.sum(-1), ["sum 1"]),
        (lambda: X.mean(-1), ["mean 1"]),
        (lambda: X.softmax(-1), ["_softmax 1"]),
        (lambda: X.max(-1), ["max 1"]),
        (lambda: torch.sort(X), ["sort 1"]),
        (lambda: X[PLACES], ["index 1"]),
        (lambda: X.masked_fill(X > 0, 0.0), ["gt 1", "masked_fill 1"]),
        (lambda: X.masked_fill_(X > 1e9, 0.0), ["gt 1", "masked_fill_ 1"]),
        (lambda: torch.where(X > 0, X, 0.0), ["gt 1", "where 1"]),
        (lambda: X.to(torch.bfloat16) * X, ["copy_ 1", "mul 1"]),
        (lambda: X.t().contiguous(), ["copy_ 1"]),
        (lambda: X.contiguous().reshape(8, 4).to(torch.float32), []),
        (lambda: X[0, 0].item(), []),
        (lambda: X + 1e-5, ["add 1"]),
        (lambda: torch.zeros(3, 5), ["zero_ 1"]),
        (lambda: torch.full((3,), 2.0), ["fill_ 1"]),
        (lambda: torch.nn.functional.layer_norm(X, (8,)), ["native_layer_norm 1"]),
        (lambda: torch.nn.functional.rms_norm(X, (8,)), ["_fused_rms_norm 1"]),
        (lambda: torch.nn.functional.linear(X, torch.ones(5, 8), torch.ones(5)), ["addmm 1", "fill_ 2"]),
        (lambda: torch.stack([X, X]), ["stack 1"]),
        (lambda: torch.einsum("ij,kj->ik", X, X), ["bmm 1"]),
    ],
)
def test_what_an_operator_calls_inside_is_counted_once(call: Callable[[], object], kernels: list[str]) -> None:
    assert traced_call(call) == kernels


def test_a_convolution_is_one_kernel_whatever_library_does_it() -> None:
    weight = torch.ones(4, 4, 3)
    assert len(traced_call(lambda: torch.nn.functional.conv1d(X[None], weight))) == 1


def test_masked_attention_is_its_parts_where_it_is_not_fused() -> None:
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        found = traced_call(lambda: torch.nn.functional.scaled_dot_product_attention(X[None], X[None], X[None]))
    assert "bmm 2" in found
    assert "_softmax 1" in found
    assert not any("scaled_dot_product" in kernel for kernel in found)


def test_scaling_multiplies_counts_and_time(llama_prefill: Sequence[TracedKernel]) -> None:
    kernel = llama_prefill[0]
    scaled = kernel.scaled(2.5)
    assert scaled.launches == round(2.5 * kernel.launches)
    assert scaled.flop == round(2.5 * (kernel.flop or 0))
    assert scaled.traced_duration_s == pytest.approx(2.5 * kernel.traced_duration_s)
    unknown = next(kernel for kernel in llama_prefill if kernel.flop is None).scaled(3)
    assert (unknown.flop, unknown.read_bytes, unknown.write_bytes) == (None, None, None)


def test_ranges_of_phases_and_steps_are_no_kernels() -> None:
    def work() -> None:
        with record_function("phase:prefill"), record_function("step:0"):
            X.sum()

    assert traced_call(work) == ["sum 1"]
