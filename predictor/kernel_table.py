"""Kernels of many passes as columns: what features, physics and network read.

A pass is one forward pass (or one kernel alone). Rows are kernels, in any number per pass; counts are totals over a
row's launches in its pass on one rank, sizes are those of one launch.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.kernels import KernelKind

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

KINDS = tuple(KernelKind)
DTYPES = ("float32", "tf32", "float16", "bfloat16", "float8", "int8", "float4")  # of the arithmetic
# Sizes of one launch. Those of attention, of products and of experts are named as in the dataset.
DIMENSIONS = (
    "m",
    "n",
    "k",
    "matrices",  # of a batched product
    "batch",
    "query_tokens",
    "context_tokens",
    "heads",
    "kv_heads",
    "head_dim",
    "tokens",
    "experts",  # on this rank
    "top_k",
    "hidden",
    "intermediate",  # of one expert on this rank
    "elements",
    "ranks",
    "window_tokens",
    "expert_parallel",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTable:
    """R kernels of P passes; every column has length R."""

    pass_index: Integers  # [R] in 0 … P − 1, never falling
    kind: Integers  # [R] index into KINDS
    dtype: Integers  # [R] index into DTYPES
    launches: Floats  # [R]
    flop: Floats  # [R]
    read_bytes: Floats  # [R]
    write_bytes: Floats  # [R]
    weight_bytes: Floats  # [R] part of read_bytes
    link_bytes: Floats  # [R]
    sizes: Floats  # [R, len(DIMENSIONS)], NaN where a kernel has no such size
    edges: Integers  # [2, E] rows: from, to
    passes: int  # P
    details: "KernelDetails | None" = None  # None: of graphs, which say all of it by their bytes and dtype

    def size(self, dimension: str) -> Floats:
        """[R] one size; NaN where a kernel does not have it."""
        column: Floats = self.sizes[:, DIMENSIONS.index(dimension)]
        return column


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelDetails:
    """What else is known of kernels that were measured alone; every column has length R."""

    family: Integers  # [R] index into features.Family, -1: follows from kind and sizes
    implementation: Integers  # [R] bits: which of features.IMPLEMENTATIONS its name mentions
    weight_bits: Floats  # [R]
    activation_bits: Floats  # [R]
    cache_bits: Floats  # [R] of the KV cache
    block_scaled: Floats  # [R] 1: scales for blocks of weights
    routing_skew: Floats  # [R] exponent of the power law by which tokens choose experts; 0: even
