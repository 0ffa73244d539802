"""How one module is split over tensor-parallel ranks: its style, its local shapes, and the collectives it needs.

A style says which dimension of each parameter a rank holds a part of, and what the ranks exchange after the module's
forward call. The names are those of transformers 5.23 (transformers/distributed/tensor_parallel.py), and so is what
they mean; styles that transformers lacks carry our own names. Nothing here needs torch or a process group.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from harness.kernels import KernelKind


class Style(StrEnum):
    """How a module or a parameter is split."""

    COLWISE = "colwise"
    COLWISE_GATHER_OUTPUT = "colwise_gather_output"
    ROWWISE = "rowwise"
    ROWWISE_SPLIT_INPUT = "rowwise_split_input"
    EMBEDDING_ROWWISE = "embedding_rowwise"
    EMBEDDING_COLWISE = "embedding_colwise"
    PACKED_COLWISE = "packed_colwise"
    PACKED_ROWWISE = "packed_rowwise"
    MOE_TP_EXPERTS = "moe_tp_experts"
    MOE_IDENTITY_EXPERT = "moe_identity_expert"
    ALL_REDUCE = "all_reduce"
    MLA_KV_A_PROJ = "mla_kv_a_proj"
    REPLICATED_WITH_GRAD_ALLREDUCE = "replicated_with_grad_allreduce"
    LOCAL_PARAMS = "local_params"
    REPLICATE = "replicate"
    # Ours. Blocks lie side by side in one matrix, and a rank holds its part of each.
    COLWISE_3_BLOCKS = "colwise_3_blocks"  # MPT: [q | k | v]
    COLWISE_12_BLOCKS = "colwise_12_blocks"  # CodeGen: four times [q | v | k]
    ROWWISE_4_BLOCKS = "rowwise_4_blocks"  # what follows it
    CONV1D_COLWISE = "conv1d_colwise"  # GPT-2's Conv1D, whose weight is [in, out]
    CONV1D_COLWISE_3_BLOCKS = "conv1d_colwise_3_blocks"
    CONV1D_ROWWISE = "conv1d_rowwise"
    QKV_MULTI_QUERY = "qkv_multi_query"  # [q | k | v] with one KV head: q is split, k and v are whole on every rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One line of a plan."""

    path: str  # of a module or a parameter, with * for the numbers in it: "model.layers.*.self_attn.q_proj"
    style: Style


@dataclass(frozen=True, slots=True, kw_only=True)
class Collective:
    """What the ranks exchange after one forward call of a module."""

    kind: KernelKind  # ALL_REDUCE of the output, or ALL_GATHER of its last dimension
    bias_after: bool = False  # the module's bias is added after it, by a kernel of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The dimension that is cut, counted from the end, and in how many blocks side by side."""

    dim: int
    blocks: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Indices ``start`` to ``stop`` of the dimension that is cut."""

    start: int
    stop: int


_COLWISE = {Style.COLWISE: 1, Style.COLWISE_GATHER_OUTPUT: 1, Style.COLWISE_3_BLOCKS: 3, Style.COLWISE_12_BLOCKS: 12}
_ROWWISE = {Style.ROWWISE: 1, Style.ROWWISE_SPLIT_INPUT: 1, Style.ROWWISE_4_BLOCKS: 4}
_CONV1D_COLWISE = {Style.CONV1D_COLWISE: 1, Style.CONV1D_COLWISE_3_BLOCKS: 3}
_EMBEDDING = {Style.EMBEDDING_ROWWISE: -2, Style.EMBEDDING_COLWISE: -1}

_REDUCED = Collective(kind=KernelKind.ALL_REDUCE)
_REDUCED_BEFORE_BIAS = Collective(kind=KernelKind.ALL_REDUCE, bias_after=True)
_GATHERED = Collective(kind=KernelKind.ALL_GATHER)
_COLLECTIVES = {
    Style.COLWISE_GATHER_OUTPUT: _GATHERED,
    Style.EMBEDDING_COLWISE: _GATHERED,
    Style.EMBEDDING_ROWWISE: _REDUCED,
    Style.MOE_TP_EXPERTS: _REDUCED,
    Style.ALL_REDUCE: _REDUCED,
    Style.ROWWISE: _REDUCED_BEFORE_BIAS,
    Style.ROWWISE_SPLIT_INPUT: _REDUCED_BEFORE_BIAS,
    Style.ROWWISE_4_BLOCKS: _REDUCED_BEFORE_BIAS,
    Style.CONV1D_ROWWISE: _REDUCED_BEFORE_BIAS,
}


def collectives_of(style: Style) -> tuple[Collective, ...]:
    """The collectives after one forward call of a module with this style; no style has one before it.

    >>> [collective.kind.value for collective in collectives_of(Style.ROWWISE)]
    ['all_reduce']
    """
    return (_COLLECTIVES[style],) if style in _COLLECTIVES else ()


def cut_of(style: Style, parameter_name: str, dimensions: int) -> Cut | None:
    """Where a parameter of so many dimensions is cut; None where every rank holds the whole.

    ``parameter_name`` is the last part of its path: ``weight``, ``bias``, ``gate_up_proj``.
    """
    vector = dimensions == 1
    if style in _COLWISE or style is Style.QKV_MULTI_QUERY:
        return Cut(dim=-1 if vector else -2, blocks=_COLWISE.get(style, 1))
    if style in _CONV1D_COLWISE:
        return Cut(dim=-1, blocks=_CONV1D_COLWISE[style])
    if style in _ROWWISE:  # every rank adds the whole bias, once, after the reduction
        return None if parameter_name == "bias" else Cut(dim=-1, blocks=_ROWWISE[style])
    if style is Style.CONV1D_ROWWISE:
        return None if parameter_name == "bias" else Cut(dim=-2)
    if style is Style.PACKED_COLWISE:
        return Cut(dim=-1) if vector else Cut(dim=-2, blocks=2)
    if style is Style.PACKED_ROWWISE:
        return None if vector else Cut(dim=-1, blocks=2)
    return Cut(dim=_EMBEDDING[style]) if style in _EMBEDDING else None


def spans_of(width: int, *, blocks: int, degree: int, rank: int) -> tuple[Span, ...]:
    """The parts of a cut dimension that ``rank`` holds, none of them empty.

    Blocks, and pieces of a block, are ⌈n / parts⌉ wide, so the last ones may be narrower or missing.

    >>> spans_of(10, blocks=1, degree=4, rank=3)
    (Span(start=9, stop=10),)
    >>> [(span.start, span.stop) for span in spans_of(12, blocks=3, degree=2, rank=1)]
    [(2, 4), (6, 8), (10, 12)]
    """
    spans = []
    block_width = math.ceil(width / blocks)
    for first in range(0, width, block_width):
        last = min(first + block_width, width)
        piece = math.ceil((last - first) / degree)
        start = min(first + rank * piece, last)
        stop = min(start + piece, last)
        if stop > start:
            spans.append(Span(start=start, stop=stop))
    return tuple(spans)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a rank holds of a parameter: spans of one dimension, counted from the front, side by side."""

    dim: int
    spans: tuple[Span, ...]

    @property
    def width(self) -> int:
        """Indices held."""
        return sum(span.stop - span.start for span in self.spans)


def part_of(
    style: Style,
    parameter_name: str,
    shape: tuple[int, ...],
    degree: int,
    *,
    rank: int = 0,
    kv_width: int | None = None,
) -> Part | None:
    """Which part of a parameter of this whole shape ``rank`` holds; None for all of it. Arguments as ``shard_of``."""
    cut = cut_of(style, parameter_name, len(shape))
    if cut is None or degree == 1:
        return None
    width, dim = shape[cut.dim], len(shape) + cut.dim
    if style is not Style.QKV_MULTI_QUERY:
        return Part(dim=dim, spans=spans_of(width, blocks=cut.blocks, degree=degree, rank=rank))
    if kv_width is None:
        raise ValueError(f"{style} needs kv_width")
    queries = spans_of(width - kv_width, blocks=1, degree=degree, rank=rank)
    return Part(dim=dim, spans=(*queries, Span(start=width - kv_width, stop=width)))


def shard_of(
    style: Style,
    parameter_name: str,
    shape: tuple[int, ...],
    degree: int,
    *,
    rank: int = 0,
    kv_width: int | None = None,
) -> tuple[int, ...]:
    """Shape of the part of a parameter that ``rank`` of ``degree`` ranks holds; ``shape`` is that of the whole.

    Rank 0 holds the most where the dimension does not divide. ``kv_width``, the width of key and value together, is
    for ``qkv_multi_query`` only, which raises ``ValueError`` without.

    >>> shard_of(Style.COLWISE, "weight", (576, 1536), 3)
    (192, 1536)
    >>> shard_of(Style.EMBEDDING_ROWWISE, "weight", (10, 4), 4, rank=3)
    (1, 4)
    """
    part = part_of(style, parameter_name, shape, degree, rank=rank, kv_width=kv_width)
    return shape if part is None else (*shape[: part.dim], part.width, *shape[part.dim + 1 :])
