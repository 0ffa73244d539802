"""What a device kernel does: by the operator that launched it, otherwise by its own name."""

import re
from dataclasses import replace
from functools import lru_cache

from harness.kernels import KernelKind
from harness.tracing.costs import KNOWN, cost_of
from harness.tracing.kineto_records import Operator
from harness.tracing.names import NORM_MODULE
from harness.tracing.operands import DTYPES, PROFILER_NAMES, Cost, OpCall, Tensor

_LONGEST_NAME = 1000  # templates nest; what matters comes first
# In this order: a fused attention kernel also names the GEMM library it is built from, a copy the loop it is.
_BY_NAME = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        (
            KernelKind.ALL_REDUCE,
            r"(?-i:nccl).*all_?reduce|cross_device_reduce|(one|two)_?shot_?all_?reduce|multimem_all_?reduce",
        ),
        (KernelKind.ALL_GATHER, r"(?-i:nccl).*all_?gather"),
        (KernelKind.REDUCE_SCATTER, r"(?-i:nccl).*reduce_?scatter"),
        (KernelKind.ALL_TO_ALL, r"(?-i:nccl).*(all_?to_?all|sendrecv)"),
        (KernelKind.OTHER, r"(?-i:nccl)"),
        (KernelKind.GEMM, r"^triton_tem_fused_.*mm"),
        (KernelKind.OTHER, r"^triton_"),  # fused by a compiler: several things at once
        (KernelKind.ATTENTION, r"flash|fmha|attention|attn"),
        (KernelKind.SCAN, r"selective_scan|chunk_scan|chunk_state|state_passing|mamba|rwkv|gated_delta"),
        (KernelKind.MOE_GEMM, r"fused_moe_kernel|moe.*gemm|group(ed)?_?gemm"),
        (KernelKind.NORM, r"layer_?norm|rms_?norm|group_?norm|batch_?norm|\bbn_(fw|bw)|GammaBeta|RowwiseMoments"),
        (
            KernelKind.GEMM,
            r"(?<!fb)gemm|gemv|cutlass|cublas|nvjet|xmma|scudnn|wgrad|dgrad|fprop|convolve|winograd|splitkreduce|split_k_",
        ),
        (KernelKind.ACTIVATION, r"softmax|gelu|silu|relu|sigmoid|tanh|swish|act_and_mul|threshold_kernel"),
        (KernelKind.EMBEDDING, r"embedding|index_?select"),
        (
            KernelKind.COPY,
            r"^memcpy|^memset|copy|catarray|transpose|nchw2?(to)?nhwc|nhwc2?(to)?nchw|permute|vectorized_gather|scatter_gather|fillfunctor",
        ),
        (KernelKind.COPY, r"index_elementwise|index_put"),
        (KernelKind.ELEMENTWISE, r"elementwise|reduce_kernel|multi_tensor_apply|foreach|pointwise"),
    )
)


@lru_cache(maxsize=4096)
def kind_by_name(name: str) -> KernelKind:
    """The kind of a device kernel that only its name tells of.

    >>> kind_by_name("ampere_sgemm_128x64_nn"), kind_by_name("Memcpy HtoD (Pinned -> Device)")
    (<KernelKind.GEMM: 'gemm'>, <KernelKind.COPY: 'copy'>)
    """
    return next((kind for kind, pattern in _BY_NAME if pattern.search(name[:_LONGEST_NAME])), KernelKind.OTHER)


def kind_of(name: str, operator: Operator | None, module: str | None) -> KernelKind:
    """The kind of a device kernel that is no collective."""
    counted = None if operator is None else counted_operator(operator)
    kind = KernelKind.OTHER if counted is None else operator_cost(counted, module).kind
    return kind_by_name(name) if kind is KernelKind.OTHER else kind


def counted_operator(operator: Operator) -> Operator:
    """The operator a kernel is counted under: the outermost with a cost formula, which covers all it calls."""
    return next((around for around in operator.chain if plain_name(around) in KNOWN), operator)


def plain_name(operator: Operator) -> str:
    """Name without its namespace; empty for one without.

    It is what ``harness.tracing.timeline`` reads in a profiler's own events.
    """
    namespace, _, plain = operator.name.partition("::")
    return plain if namespace.isidentifier() else ""


def operator_cost(operator: Operator, module: str | None, list_dtype: str | None = None) -> Cost:
    """What a call costs, from its operands; ``list_dtype`` is the torch name of the dtype in tensor lists, if known."""
    cost = cost_of(OpCall(op=plain_name(operator), tensors=tensors_of(operator, list_dtype), dims=operator.axes))
    if module is not None and cost.kind is KernelKind.ELEMENTWISE and NORM_MODULE.search(module):
        return replace(cost, kind=KernelKind.NORM)
    return cost


def tensors_of(operator: Operator, list_dtype: str | None = None) -> tuple[Tensor, ...]:
    """Tensor operands in order; the members of a tensor list in their place, where their dtype is known."""
    spelt = None if list_dtype is None else PROFILER_NAMES[list_dtype]
    tensors: list[Tensor] = []
    for operand in operator.operands or ():
        dtype = spelt if operand.dtype == "TensorList" else operand.dtype
        if dtype in DTYPES and not operand.shapes:
            return ()  # the others would be taken for what they are not
        if dtype in DTYPES:
            tensors.extend(Tensor(shape=shape, dtype=dtype) for shape in operand.shapes)
    return tuple(tensors)
