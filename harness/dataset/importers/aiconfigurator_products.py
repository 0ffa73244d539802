"""Matrix products, experts and quantisation among aiconfigurator's files: counts as ``harness.tracing`` makes them.

A multiply-add is 2 FLOP; bytes are what inputs and outputs occupy, each once, outputs in 16 bits. What a fused kernel
keeps between its own products is not counted.
"""

from harness.dataset.importers.aiconfigurator_kinds import (
    FileKind,
    Kernel,
    Size,
    activation_bits,
    weight_bits,
    whole_bytes,
)
from harness.kernels import KernelKind

_GEMM = Kernel(
    kind=KernelKind.GEMM,
    op="op_name",
    dtype="gemm_dtype",
    sizes=(Size(name="m", sql="m"), Size(name="n", sql="n"), Size(name="k", sql="k")),
    flop="2::HUGEINT * m * n * k",
    read_bytes=whole_bytes(f"m * k * {activation_bits('gemm_dtype')} + n * k * {weight_bits('gemm_dtype')}"),
    write_bytes="2 * m * n",
)


def _mla_bmm() -> Kernel:
    """Into the latent space before absorbed attention, and back after it, head by head.

    Widths: DeepSeek-V2, arXiv 2405.04434, table of hyper-parameters (head 128, latent 512), as all its successors.
    """
    n, k = (f"CASE op_name WHEN 'mla_gen_pre' THEN {pre} ELSE {post} END" for pre, post in ((512, 128), (128, 512)))
    return Kernel(
        kind=KernelKind.GEMM,
        op="op_name",
        dtype="bmm_dtype",
        sizes=(
            Size(name="batch", sql="num_heads"),
            Size(name="m", sql="num_tokens"),
            Size(name="n", sql=n),
            Size(name="k", sql=k),
        ),
        flop="2::HUGEINT * num_heads * num_tokens * 128 * 512",
        read_bytes=whole_bytes(
            f"num_heads * (num_tokens * ({k}) + 128 * 512) * {activation_bits('bmm_dtype')}",
        ),
        write_bytes=f"2 * num_heads * num_tokens * ({n})",
    )


# Experts of these models have no gate, two matrices instead of three: the rows of TensorRT-LLM name the kernel
# (moe_torch_flow_nongated), those of other backends measure the same sizes of the same models (Nemotron 3).
_NONGATED = "((hidden_size, inter_size) IN ((2688, 1856), (1024, 2688), (4096, 2688), (2048, 5120), (8192, 5120)))"
_MATRICES = f"CASE WHEN contains(kernel_source, 'nongated') OR {_NONGATED} THEN 2 ELSE 3 END"
# Of a load that is even, every rank gets its part; of any other only the whole is known.
_EVEN = "distribution = 'balanced'"
_ROWS = f"CASE WHEN moe_ep_size = 1 OR {_EVEN} THEN ceil(num_tokens * topk / moe_ep_size) END"
# An even load goes round the experts: as many different ones as there are rows, until all are in use.
_TOUCHED = f"CASE WHEN {_EVEN} THEN least(num_experts, num_tokens * topk) / moe_ep_size END"
_EXPERT_SIZES = (
    Size(name="tokens", sql="num_tokens"),
    Size(name="experts", sql="num_experts"),
    Size(name="top_k", sql="topk"),
    Size(name="hidden", sql="hidden_size"),
    Size(name="intermediate", sql="inter_size"),
    Size(name="tensor_parallel", sql="moe_tp_size"),
    Size(name="expert_parallel", sql="moe_ep_size"),
)

_MOE = Kernel(
    kind=KernelKind.MOE_GEMM,
    op="op_name",
    dtype="moe_dtype",
    sizes=_EXPERT_SIZES,
    flop=f"round(2.0 * ({_ROWS}) * ({_MATRICES}) * hidden_size * inter_size / moe_tp_size)",
    read_bytes=whole_bytes(
        f"num_tokens * hidden_size * {activation_bits('moe_dtype')} + ({_TOUCHED}) * ({_MATRICES}) * hidden_size "
        f"* (inter_size / moe_tp_size) * {weight_bits('moe_dtype')}"
    ),
    write_bytes="2 * num_tokens * hidden_size",
)

# Experts of a large deployment, on one of its ranks: how many rows fall to it the files do not say.
_WIDE_MOE = Kernel(
    kind=KernelKind.MOE_GEMM, op="'wideep_' || op_name", dtype="moe_dtype", sizes=_EXPERT_SIZES, link_bytes="0"
)
_WIDE_MOE_TRTLLM = Kernel(
    kind=KernelKind.MOE_GEMM,
    op="op_name",
    dtype="moe_dtype",
    sizes=(*_EXPERT_SIZES, Size(name="rank_tokens", sql="rank0_num_tokens"), Size(name="slots", sql="num_slots")),
)
# Dispatch, experts and combine in one kernel over all GPUs.
_MEGA_MOE = Kernel(
    kind=KernelKind.MOE_GEMM,
    op="op_name",
    dtype="moe_dtype",
    sizes=(*_EXPERT_SIZES, Size(name="global_tokens", sql="global_num_tokens")),
    link_bytes=None,
    gpus="moe_ep_size",
)


def _mlp(phase: str) -> Kernel:
    bits, matrix = activation_bits("quant_type"), "hidden_size * intermediate_size"
    return Kernel(
        kind=KernelKind.GEMM,
        op=f"'wideep_{phase}_' || op_name",
        dtype="quant_type",
        sizes=(
            Size(name="tokens", sql="num_token"),
            Size(name="hidden", sql="hidden_size"),
            Size(name="intermediate", sql="intermediate_size"),
        ),
        time_s="avg_ms / 1e3",
        flop=f"6::HUGEINT * num_token * {matrix}",
        read_bytes=whole_bytes(f"num_token * hidden_size * {bits} + 3 * {matrix} * {weight_bits('quant_type')}"),
        write_bytes="2 * num_token * hidden_size",
    )


_ROWS_AND_WIDTH = (Size(name="m", sql="m"), Size(name="k", sql="k"))
# One FLOP for each number, read in 16 bits and written in 8.
_SCALE = Kernel(
    kind=KernelKind.ELEMENTWISE,
    op="op_name",
    dtype="'bfloat16'",
    sizes=_ROWS_AND_WIDTH,
    flop="m * k",
    read_bytes="2 * m * k",
    write_bytes="m * k",
)
# The source's time is that of quantising with a scale to be found, less that with a given one.
_COMPUTE_SCALE = Kernel(kind=KernelKind.ELEMENTWISE, op="op_name", dtype="'bfloat16'", sizes=_ROWS_AND_WIDTH)
_HYPER_CONNECTION = Kernel(
    kind=KernelKind.OTHER,
    op="'mhc_' || op_name",
    dtype="NULL",  # their files do not say
    sizes=(
        Size(name="tokens", sql="num_tokens"),
        Size(name="hidden", sql="hidden_size"),
        Size(name="streams", sql="hc_mult"),
    ),
)

PRODUCTS = {
    "gemm_perf": FileKind(kernels=(_GEMM,)),
    "mla_bmm_perf": FileKind(kernels=(_mla_bmm(),)),
    "moe_perf": FileKind(kernels=(_MOE,)),
    "wideep_context_moe_perf": FileKind(kernels=(_WIDE_MOE,)),
    "wideep_generation_moe_perf": FileKind(kernels=(_WIDE_MOE,)),
    "wideep_moe_perf": FileKind(kernels=(_WIDE_MOE_TRTLLM,)),
    "dsv4_megamoe_module_perf": FileKind(kernels=(_MEGA_MOE,)),
    "wideep_context_mlp_perf": FileKind(kernels=(_mlp("context"),)),
    "wideep_generation_mlp_perf": FileKind(kernels=(_mlp("generation"),)),
    "scale_matrix_perf": FileKind(kernels=(_SCALE,)),
    "computescale_perf": FileKind(kernels=(_COMPUTE_SCALE,)),
    "mhc_module_perf": FileKind(kernels=(_HYPER_CONNECTION,)),
}
