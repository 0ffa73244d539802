"""FLOP and bytes of one operator call, from its name and the shapes it was given.

Conventions. A multiply-add is 2 FLOP. Only matrix products and attention have FLOP formulas of their own; a pointwise
operator counts one FLOP per output element and a reduction one per input element, as rooflines usually do; moving data
is 0 FLOP. Attention counts the full square of query and context, masked or not, as ``torch.utils.flop_counter`` does,
so that implementations compare. Bytes are what inputs and outputs occupy: the traffic of a kernel that reads each
input and writes each output once. What cannot be told from shapes is None, never 0.
"""

import math
from collections.abc import Callable

from harness.kernels import KernelKind
from harness.tracing.operands import Cost, OpCall, Tensor, bytes_of, bytes_read, result_dtype, total


def _gemm(call: OpCall) -> Cost:
    """Factors [.., m, k] and [.., k, n] are the last two matrices: a bias or addend comes first."""
    left, right = [tensor for tensor in call.tensors if len(tensor.shape) >= 2][-2:]
    return _product(call, left, right)


def _scaled_gemm(call: OpCall) -> Cost:
    """Factors come first, their scales after them."""
    return _product(call, call.tensors[0], call.tensors[1])


def _product(call: OpCall, left: Tensor, right: Tensor) -> Cost:
    batch = math.prod(left.shape[:-2])
    m, k, n = left.shape[-2], left.shape[-1], right.shape[-1]
    if right.shape[-2] != k or math.prod(right.shape[:-2]) != batch:
        raise ValueError(f"{left.shape} and {right.shape} are no factors of one product")
    shape = {"m": m, "n": n, "k": k} if batch == 1 else {"batch": batch, "m": m, "n": n, "k": k}
    written = batch * m * n
    return Cost(
        kind=KernelKind.GEMM,
        shape=shape,
        flop=2 * written * k,
        read_bytes=bytes_read(call.tensors),
        write_bytes=bytes_of(written, left.dtype),
    )


def _linear(call: OpCall) -> Cost:
    """A fused linear keeps the weight as [n, k] and may keep leading dimensions."""
    inputs, weight = call.tensors[:2]
    n, k = weight.shape[-2:]
    m = inputs.elements // k
    return Cost(
        kind=KernelKind.GEMM,
        shape={"m": m, "n": n, "k": k},
        flop=2 * m * n * k,
        read_bytes=bytes_read(call.tensors),
        write_bytes=bytes_of(m * n, inputs.dtype),
    )


def _grouped_gemm(call: OpCall) -> Cost:
    """Experts' matrices [experts, k, n] applied to tokens [m, k] that were sorted by expert."""
    tokens, experts = call.tensors[:2]
    m, k = tokens.shape
    count, inner, n = experts.shape
    if inner != k:
        raise ValueError(f"{tokens.shape} and {experts.shape} are no factors of one product")
    return Cost(
        kind=KernelKind.MOE_GEMM,
        shape={"m": m, "n": n, "k": k, "experts": count},
        flop=2 * m * n * k,
        read_bytes=bytes_read(call.tensors),
        write_bytes=bytes_of(m * n, tokens.dtype),
    )


def _attention(call: OpCall) -> Cost:
    """Fused: queries [batch, heads, query, head_dim], keys and values [batch, kv_heads, context, head_dim]."""
    query, key, value = call.tensors[:3]
    batch, heads, query_tokens, head_dim = query.shape
    _, kv_heads, context_tokens, _ = key.shape
    value_dim = value.shape[-1]
    return Cost(
        kind=KernelKind.ATTENTION,
        shape={
            "batch": batch,
            "query_tokens": query_tokens,
            "context_tokens": context_tokens,
            "heads": heads,
            "kv_heads": kv_heads,
            "head_dim": head_dim,
        },
        flop=2 * batch * heads * query_tokens * context_tokens * (head_dim + value_dim),
        read_bytes=bytes_read(call.tensors[:3]),
        write_bytes=bytes_of(batch * heads * query_tokens * value_dim, query.dtype),
    )


def _attention_by_token(call: OpCall) -> Cost:
    """Fused, as flash-attn lays it out: [batch, tokens, heads, head_dim]; ragged batches have no formula."""
    heads_first = tuple(
        Tensor(shape=(batch, heads, tokens, width), dtype=tensor.dtype)
        for tensor in call.tensors[:3]
        for batch, tokens, heads, width in (tensor.shape,)
    )
    return _attention(OpCall(op=call.op, tensors=heads_first))


def _rows(call: OpCall) -> Cost:
    """Slices of a table picked by index: only those picked are read."""
    table, index = call.tensors
    width = table.elements // table.shape[call.dims[0] if call.dims else 0]
    picked = bytes_of(index.elements * width, table.dtype)
    return Cost(
        kind=KernelKind.EMBEDDING,
        shape={"rows": index.elements, "width": width},
        flop=0,
        read_bytes=total((picked, index.size_bytes)),
        write_bytes=picked,
    )


def _gather(call: OpCall) -> Cost:
    """One element picked by each index."""
    source, index = call.tensors
    picked = bytes_of(index.elements, source.dtype)
    return Cost(
        kind=KernelKind.COPY,
        shape={"elements": index.elements},
        flop=0,
        read_bytes=total((picked, index.size_bytes)),
        write_bytes=picked,
    )


def _indexed(call: OpCall) -> Cost:
    """``x[i, j]``: the profiler does not record the list of indices, so only what it is is known."""
    return Cost(kind=KernelKind.COPY, shape={"elements": call.tensors[0].elements}, flop=0)


def _copy_into(call: OpCall) -> Cost:
    """``copy_(destination, source)``: the source is read, the destination written."""
    destination, source = call.tensors[0], call.tensors[-1]
    return Cost(
        kind=KernelKind.COPY,
        shape={"elements": destination.elements},
        flop=0,
        read_bytes=source.size_bytes,
        write_bytes=destination.size_bytes,
    )


def _fill(call: OpCall) -> Cost:
    target = call.tensors[0]
    return Cost(
        kind=KernelKind.COPY,
        shape={"elements": target.elements},
        flop=0,
        read_bytes=0,
        write_bytes=target.size_bytes,
    )


def _concatenate(call: OpCall) -> Cost:
    size = bytes_read(call.tensors)
    elements = sum(tensor.elements for tensor in call.tensors)
    return Cost(kind=KernelKind.COPY, shape={"elements": elements}, flop=0, read_bytes=size, write_bytes=size)


def _norm(call: OpCall) -> Cost:
    inputs = call.tensors[0]
    return Cost(
        kind=KernelKind.NORM,
        shape={"rows": inputs.elements // max(1, inputs.shape[-1]), "width": inputs.shape[-1]},
        flop=inputs.elements,
        read_bytes=bytes_read(call.tensors),
        write_bytes=inputs.size_bytes,
    )


def _pointwise(call: OpCall) -> Cost:
    """Output shape is the broadcast of the operands."""
    op = call.op.rstrip("_")
    dimensions = max(len(tensor.shape) for tensor in call.tensors)
    padded = [(1,) * (dimensions - len(tensor.shape)) + tensor.shape for tensor in call.tensors]
    elements = math.prod(_broadcast(sizes) for sizes in zip(*padded, strict=True))
    return Cost(
        kind=KernelKind.ACTIVATION if op in _ACTIVATIONS else KernelKind.ELEMENTWISE,
        shape={"elements": elements},
        flop=elements,
        read_bytes=bytes_read(call.tensors),
        write_bytes=bytes_of(elements, _pointwise_dtype(op, call)),
    )


def _broadcast(sizes: tuple[int, ...]) -> int:
    wide = {size for size in sizes if size != 1}
    if len(wide) > 1:
        raise ValueError(f"sizes {sizes} do not broadcast")
    return wide.pop() if wide else 1


def _pointwise_dtype(op: str, call: OpCall) -> str:
    if call.op.endswith("_") or op == "masked_fill":
        return call.tensors[0].dtype
    if op in _PREDICATES:
        return "bool"
    return result_dtype(call.tensors[1:] if op == "where" and len(call.tensors) > 1 else call.tensors)


def _reduction(call: OpCall) -> Cost:
    """One result per kept position, and its place too for ``max`` and ``min`` along an axis."""
    inputs = call.tensors[0]
    if call.op in {"max", "min"} and len(call.tensors) == 2:
        return _pointwise(call)
    axes = {axis % len(inputs.shape) for axis in call.dims} or set(range(len(inputs.shape)))
    kept = math.prod(size for axis, size in enumerate(inputs.shape) if axis not in axes)
    place = kept * 8 if call.op in {"max", "min"} and call.dims else 0
    return Cost(
        kind=KernelKind.ELEMENTWISE,
        shape={"elements": inputs.elements},
        flop=inputs.elements,
        read_bytes=inputs.size_bytes,
        write_bytes=total((bytes_of(kept, _REDUCED_DTYPES.get(call.op, inputs.dtype)), place)),
    )


def _unknown(call: OpCall) -> Cost:
    elements = max((tensor.elements for tensor in call.tensors), default=0)
    return Cost(kind=KernelKind.OTHER, shape={"elements": elements} if elements else {})


_ACTIVATIONS = frozenset(
    {"silu", "gelu", "relu", "sigmoid", "tanh", "_softmax", "_log_softmax", "softplus", "hardtanh", "mish"}
    | {"leaky_relu", "elu", "hardswish", "log_sigmoid"}
)
_PREDICATES = frozenset(
    {"lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "logical_not", "isinf", "isneginf", "isposinf"}
    | {"isnan", "isfinite"}
)
_POINTWISE = frozenset(
    {"add", "sub", "rsub", "mul", "div", "neg", "exp", "exp2", "log", "cos", "sin", "pow", "sqrt", "rsqrt", "square"}
    | {"abs", "reciprocal", "clamp", "clamp_min", "clamp_max", "maximum", "minimum", "where", "masked_fill"}
    | {"bitwise_and", "bitwise_or", "bitwise_not", "tril", "triu", "addcmul", "addcdiv", "remainder", "floor_divide"}
    | {"fmod", "log1p", "expm1", "erf", "lerp", "cumsum", "cumprod", "floor", "round", "sign"}
    | _PREDICATES
    | _ACTIVATIONS
)
_REDUCED_DTYPES = {"argmax": "long int", "argmin": "long int", "all": "bool", "any": "bool"}
_REDUCTIONS = frozenset({"sum", "mean", "amax", "amin", "max", "min", "var", "std", "prod", "logsumexp"})
_ATTENTION = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_scaled_dot_product_fused_attention_overrideable",
    }
)
_ATTENTION_BY_TOKEN = frozenset({"_flash_attention_forward", "_efficient_attention_forward", "_flash_attn_forward"})
_FORMULAS: dict[str, Callable[[OpCall], Cost]] = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "_addmm_activation"), _gemm),
    **dict.fromkeys(("_scaled_mm", "_int_mm"), _scaled_gemm),
    **dict.fromkeys(("mkldnn_linear", "_mkldnn_linear", "linear_pointwise", "_linear_pointwise"), _linear),
    "_grouped_mm": _grouped_gemm,
    **dict.fromkeys(_ATTENTION, _attention),
    **dict.fromkeys(_ATTENTION_BY_TOKEN, _attention_by_token),
    **dict.fromkeys(("index_select", "embedding"), _rows),
    "gather": _gather,
    "index": _indexed,
    **dict.fromkeys(("copy_", "_local_scalar_dense"), _copy_into),
    **dict.fromkeys(("fill_", "zero_"), _fill),
    **dict.fromkeys(("cat", "stack"), _concatenate),
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "native_group_norm"), _norm),
    **dict.fromkeys((*_POINTWISE, *(f"{op}_" for op in _POINTWISE)), _pointwise),
    **dict.fromkeys((*_REDUCTIONS, *_REDUCED_DTYPES), _reduction),
}
# One kernel each, whatever they call inside: a cast of an operand or a contiguous copy of an index belongs to them.
KNOWN = frozenset(_FORMULAS)


def cost_of(call: OpCall) -> Cost:
    """Kind, named shape, FLOP and bytes of one call; an ``OTHER`` without either where the formula cannot read it."""
    if not call.tensors:
        return _unknown(call)
    try:
        return _FORMULAS.get(call.op, _unknown)(call)
    except (ValueError, IndexError, ZeroDivisionError):  # other operands or dimensions than the formula expects
        return _unknown(call)
