"""FLOP and bytes of one operator call, from its name and the shapes it was given.

Conventions. A multiply-add is 2 FLOP. Only matrix products and attention have FLOP formulas of their own; a pointwise
operator counts one FLOP per output element, as rooflines usually do. Attention counts the full square of query and
context, masked or not, as ``torch.utils.flop_counter`` does, so that implementations compare. Bytes are what inputs
and outputs occupy: the traffic of a kernel that reads each input and writes each output once. What cannot be told
from shapes is None, never 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.kernels import KernelKind

ITEM_BYTES = {
    "float": 4,
    "double": 8,
    "c10::Half": 2,
    "c10::BFloat16": 2,
    "c10::Float8_e4m3fn": 1,
    "c10::Float8_e5m2": 1,
    "int": 4,
    "long int": 8,
    "long": 8,
    "short": 2,
    "signed char": 1,
    "unsigned char": 1,
    "bool": 1,
}
DTYPE_NAMES = {
    "float": "float32",
    "double": "float64",
    "c10::Half": "float16",
    "c10::BFloat16": "bfloat16",
    "c10::Float8_e4m3fn": "float8_e4m3fn",
    "c10::Float8_e5m2": "float8_e5m2",
    "int": "int32",
    "long int": "int64",
    "long": "int64",
    "short": "int16",
    "signed char": "int8",
    "unsigned char": "uint8",
    "bool": "bool",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """Shape and dtype of one operand; dtype as the profiler spells it."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """Number of elements; 1 for a scalar tensor."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int | None:
        """Bytes the tensor occupies; None for a dtype not known here."""
        item = ITEM_BYTES.get(self.dtype)
        return None if item is None else self.elements * item


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCall:
    """One operator call: name without namespace, tensor operands in order, and the scalars among its arguments."""

    op: str
    tensors: tuple[Tensor, ...]
    dims: tuple[int, ...] = ()  # a reduction's axes, where the call states them


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one call costs; bytes and FLOP are None where shapes do not tell."""

    kind: KernelKind
    shape: dict[str, int] = field(default_factory=dict)
    flop: int | None = None
    read_bytes: int | None = None
    write_bytes: int | None = None


def _total(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def _read(tensors: tuple[Tensor, ...]) -> int | None:
    return _total([tensor.size_bytes for tensor in tensors])


def _bytes(elements: int, like: Tensor) -> int | None:
    return Tensor(shape=(elements,), dtype=like.dtype).size_bytes


def _matrices(call: OpCall) -> tuple[Tensor, Tensor]:
    """The two factors: the last two operands of at least two dimensions (a bias or addend comes first)."""
    left, right = [tensor for tensor in call.tensors if len(tensor.shape) >= 2][-2:]
    return left, right


def _gemm(call: OpCall) -> Cost:
    left, right = _matrices(call)
    batch = math.prod(left.shape[:-2])
    m, k, n = left.shape[-2], left.shape[-1], right.shape[-1]
    shape = {"m": m, "n": n, "k": k} if batch == 1 else {"batch": batch, "m": m, "n": n, "k": k}
    written = batch * m * n
    return Cost(
        kind=KernelKind.GEMM,
        shape=shape,
        flop=2 * written * k,
        read_bytes=_read(call.tensors),
        write_bytes=_bytes(written, left),
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
        read_bytes=_read(call.tensors),
        write_bytes=_bytes(m * n, inputs),
    )


def _grouped_gemm(call: OpCall) -> Cost:
    """Experts' matrices [experts, k, n] applied to tokens [m, k] that were sorted by expert."""
    tokens, experts = call.tensors[:2]
    m, k = tokens.shape[-2:]
    count, n = experts.shape[0], experts.shape[-1]
    return Cost(
        kind=KernelKind.MOE_GEMM,
        shape={"m": m, "n": n, "k": k, "experts": count},
        flop=2 * m * n * k,
        read_bytes=_read(call.tensors),
        write_bytes=_bytes(m * n, tokens),
    )


def _attention(call: OpCall) -> Cost:
    """Fused: queries [batch, heads, query, head_dim], keys and values [batch, kv_heads, context, head_dim]."""
    query, key, value = call.tensors[:3]
    batch, heads, query_tokens, head_dim = query.shape[-4:]
    kv_heads, context_tokens = key.shape[-3:-1]
    value_dim = value.shape[-1]
    pairs = batch * heads * query_tokens * context_tokens
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
        flop=2 * pairs * (head_dim + value_dim),
        read_bytes=_read(call.tensors[:3]),
        write_bytes=_bytes(batch * heads * query_tokens * value_dim, query),
    )


def _gather(call: OpCall) -> Cost:
    """Rows of a table picked by index: only the rows picked are read."""
    table, index = call.tensors[0], call.tensors[-1]
    width = table.shape[-1] if len(table.shape) > 1 else 1
    picked = _bytes(index.elements * width, table)
    return Cost(
        kind=KernelKind.EMBEDDING,
        shape={"rows": index.elements, "width": width},
        read_bytes=_total([picked, index.size_bytes]),
        write_bytes=picked,
    )


def _copy_into(call: OpCall) -> Cost:
    """``copy_(destination, source)``: the source is read, the destination written."""
    destination, source = call.tensors[0], call.tensors[-1]
    return Cost(
        kind=KernelKind.COPY,
        shape={"elements": destination.elements},
        read_bytes=source.size_bytes,
        write_bytes=destination.size_bytes,
    )


def _concatenate(call: OpCall) -> Cost:
    size = _read(call.tensors)
    elements = sum(tensor.elements for tensor in call.tensors)
    return Cost(kind=KernelKind.COPY, shape={"elements": elements}, read_bytes=size, write_bytes=size)


def _norm(call: OpCall) -> Cost:
    inputs = call.tensors[0]
    return Cost(
        kind=KernelKind.NORM,
        shape={"rows": inputs.elements // max(1, inputs.shape[-1]), "width": inputs.shape[-1]},
        flop=inputs.elements,
        read_bytes=_read(call.tensors),
        write_bytes=inputs.size_bytes,
    )


def _pointwise(call: OpCall) -> Cost:
    """Output shape is the broadcast of the operands."""
    largest = max(call.tensors, key=lambda tensor: len(tensor.shape))
    padded = [(1,) * (len(largest.shape) - len(tensor.shape)) + tensor.shape for tensor in call.tensors]
    elements = math.prod(max(sizes) for sizes in zip(*padded, strict=True))
    kind = KernelKind.ACTIVATION if call.op.rstrip("_") in ACTIVATIONS else KernelKind.ELEMENTWISE
    return Cost(
        kind=kind,
        shape={"elements": elements},
        flop=elements,
        read_bytes=_read(call.tensors),
        write_bytes=_bytes(elements, call.tensors[0]),
    )


def _reduction(call: OpCall) -> Cost:
    inputs = call.tensors[0]
    axes = {axis % len(inputs.shape) for axis in call.dims} if inputs.shape else set()
    kept = [size for axis, size in enumerate(inputs.shape) if axis not in axes] if axes else []
    return Cost(
        kind=KernelKind.ELEMENTWISE,
        shape={"elements": inputs.elements},
        flop=inputs.elements,
        read_bytes=inputs.size_bytes,
        write_bytes=_bytes(math.prod(kept), inputs),
    )


def _unknown(call: OpCall) -> Cost:
    elements = max((tensor.elements for tensor in call.tensors), default=0)
    shape = {"elements": elements} if elements else {}
    return Cost(kind=KernelKind.OTHER, shape=shape, read_bytes=_read(call.tensors) if call.tensors else None)


ACTIVATIONS = frozenset({"silu", "gelu", "relu", "sigmoid", "tanh", "_softmax", "softplus", "hardtanh", "mish"})
_POINTWISE = frozenset(
    {"add", "sub", "rsub", "mul", "div", "neg", "exp", "log", "cos", "sin", "pow", "sqrt", "rsqrt", "square", "abs"}
    | {"reciprocal", "clamp", "maximum", "minimum", "where", "lt", "le", "gt", "ge", "eq", "ne", "masked_fill"}
    | {"logical_and", "logical_or", "logical_not", "bitwise_and", "bitwise_or", "bitwise_not", "tril", "triu"}
    | {"addcmul", "remainder", "floor_divide", "fmod", "log1p", "expm1", "erf", "lerp", "clone"}
    | ACTIVATIONS
)
_REDUCTIONS = frozenset(
    {"sum", "mean", "amax", "amin", "argmax", "argmin", "max", "min", "all", "any", "var", "cumsum"}
)
_ATTENTION = frozenset(
    {
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_efficient_attention",
        "_scaled_dot_product_cudnn_attention",
        "_flash_attention_forward",
        "_efficient_attention_forward",
    }
)
_FORMULAS: dict[str, Callable[[OpCall], Cost]] = {
    **dict.fromkeys(("mm", "addmm", "bmm", "baddbmm", "_addmm_activation"), _gemm),
    **dict.fromkeys(("mkldnn_linear", "_mkldnn_linear", "linear_pointwise", "_linear_pointwise"), _linear),
    "_grouped_mm": _grouped_gemm,
    **dict.fromkeys(_ATTENTION, _attention),
    **dict.fromkeys(("index_select", "embedding", "gather", "index"), _gather),
    **dict.fromkeys(("copy_", "_local_scalar_dense"), _copy_into),
    "cat": _concatenate,
    **dict.fromkeys(("native_layer_norm", "_fused_rms_norm", "native_group_norm"), _norm),
    **dict.fromkeys((*_POINTWISE, *(f"{op}_" for op in _POINTWISE)), _pointwise),
    **dict.fromkeys(_REDUCTIONS, _reduction),
}
# Never looked into: what they call inside (a contiguous copy, say) belongs to them.
FUSED = frozenset(
    op for op, formula in _FORMULAS.items() if formula in {_gemm, _linear, _grouped_gemm, _attention, _norm}
)


def cost_of(call: OpCall) -> Cost:
    """Kind, named shape, FLOP and bytes of one call. Operands a formula cannot read give an ``OTHER`` without FLOP."""
    formula = _FORMULAS.get(call.op, _unknown)
    if not call.tensors:
        return _unknown(call)
    try:
        return formula(call)
    except (ValueError, IndexError):  # fewer operands or dimensions than the formula expects
        return _unknown(call)
