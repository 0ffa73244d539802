"""Families of kernels: what is timed alike. A kernel's family follows from its kind and sizes, never from its name."""

from enum import StrEnum

import numpy as np

from harness.kernels import KernelKind
from predictor.kernel_table import DTYPES, KINDS, Integers, KernelTable

LATENT_HEAD_DIM = 512  # from this width of a head on, attention reads a compressed cache (DeepSeek-V2)


class Family(StrEnum):
    """Kernels whose time and power have parameters of their own."""

    GEMM = "gemm"
    NARROW_GEMM = "narrow_gemm"  # arithmetic in 8 bits or fewer
    BATCHED_GEMM = "batched_gemm"
    CONTEXT_ATTENTION = "context_attention"
    GENERATION_ATTENTION = "generation_attention"
    ENCODER_ATTENTION = "encoder_attention"
    LATENT_CONTEXT_ATTENTION = "latent_context_attention"
    LATENT_GENERATION_ATTENTION = "latent_generation_attention"
    # Whole attention modules, projections included: some sources time only these.
    LATENT_CONTEXT_MODULE = "latent_context_module"
    LATENT_GENERATION_MODULE = "latent_generation_module"
    SPARSE_CONTEXT_MODULE = "sparse_context_module"
    SPARSE_GENERATION_MODULE = "sparse_generation_module"
    EXPERTS = "experts"
    NARROW_EXPERTS = "narrow_experts"
    SCAN = "scan"
    ELEMENTWISE = "elementwise"
    ALL_REDUCE = "all_reduce"
    ALL_GATHER = "all_gather"
    REDUCE_SCATTER = "reduce_scatter"
    ALL_TO_ALL = "all_to_all"


FAMILIES = tuple(Family)
_NARROW = [DTYPES.index(name) for name in ("float8", "int8", "float4")]
_OF_KIND = {
    KernelKind.GEMM: Family.GEMM,
    KernelKind.ATTENTION: Family.CONTEXT_ATTENTION,
    KernelKind.MOE_GEMM: Family.EXPERTS,
    KernelKind.SCAN: Family.SCAN,
    KernelKind.ALL_REDUCE: Family.ALL_REDUCE,
    KernelKind.ALL_GATHER: Family.ALL_GATHER,
    KernelKind.REDUCE_SCATTER: Family.REDUCE_SCATTER,
    KernelKind.ALL_TO_ALL: Family.ALL_TO_ALL,
}
_BY_KIND = np.array([FAMILIES.index(_OF_KIND.get(kind, Family.ELEMENTWISE)) for kind in KINDS])


def index_of(family: Family) -> int:
    """Index in ``FAMILIES``."""
    return FAMILIES.index(family)


def families(table: KernelTable) -> Integers:
    """[R] index into FAMILIES of every kernel."""
    found: Integers = _BY_KIND[table.kind]
    matrices, query, width = table.size("matrices"), table.size("query_tokens"), table.size("head_dim")
    attends = found == index_of(Family.CONTEXT_ATTENTION)
    one, latent = attends & (query == 1), attends & (width >= LATENT_HEAD_DIM)
    found = np.where((found == index_of(Family.GEMM)) & (matrices > 1), index_of(Family.BATCHED_GEMM), found)
    narrow = np.isin(table.dtype, _NARROW)
    found = np.where(narrow & (found == index_of(Family.GEMM)), index_of(Family.NARROW_GEMM), found)
    found = np.where(narrow & (found == index_of(Family.EXPERTS)), index_of(Family.NARROW_EXPERTS), found)
    found = np.where(one, index_of(Family.GENERATION_ATTENTION), found)
    found = np.where(latent, index_of(Family.LATENT_CONTEXT_ATTENTION), found)
    found = np.where(latent & one, index_of(Family.LATENT_GENERATION_ATTENTION), found)
    if table.details is not None:
        found = np.where(table.details.family >= 0, table.details.family, found)
    return found.astype(np.int64)
