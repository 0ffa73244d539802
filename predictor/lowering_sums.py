"""One kernel of a served model as sums of functions of a pass, and a graph of many."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.kernels import KernelKind
from predictor.kernel_table import DIMENSIONS, DTYPES, KINDS
from predictor.lowering_ops import ServedOp
from predictor.templates_basis import Basis
from predictor.templates_graph import COUNTS, RowGraph

BYTES = 2  # of a number in 16 bits
STATE_BYTES = 4  # of a number in the state of a scan, or of a score
ONE, SEQUENCES, TOKENS, ALL_TOKENS = Basis(), Basis(b=1), Basis(b=1, q=1), Basis(t=1)
Sum = Mapping[Basis, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One kernel on one rank; sums are those of one launch."""

    kind: KernelKind
    launches: int
    flop: Sum = field(default_factory=dict)
    read: Sum = field(default_factory=dict)
    write: Sum = field(default_factory=dict)
    weights: Sum = field(default_factory=dict)
    link: Sum = field(default_factory=dict)
    sizes: Mapping[str, Sum] = field(default_factory=dict)
    linear: bool = False
    experts: bool = False


def product(op: ServedOp, rows: Basis, n: float, k: float) -> Row:
    """A product of ``rows`` rows with a matrix of weights [k, n]."""
    weights = {ONE: BYTES * n * (k + op.bias)}
    return Row(
        kind=KernelKind.GEMM,
        launches=op.launches,
        flop={rows: 2.0 * n * k},
        read=plus({rows: BYTES * k}, weights),
        write={rows: BYTES * n},
        weights=weights,
        sizes={"m": {rows: 1}, "n": {ONE: n}, "k": {ONE: k}},
        linear=op.stored,
    )


def by_head(op: ServedOp, heads: float, *, n: float, k: float) -> Row:
    """A matrix of its own for each head."""
    weights = {ONE: BYTES * heads * n * k}
    return Row(
        kind=KernelKind.GEMM,
        launches=op.launches,
        flop={TOKENS: 2.0 * heads * n * k},
        read=plus({TOKENS: BYTES * heads * k}, weights),
        write={TOKENS: BYTES * heads * n},
        weights=weights,
        sizes={"matrices": {ONE: heads}, "m": {TOKENS: 1}, "n": {ONE: n}, "k": {ONE: k}},
    )


def times(values: Sum, factor: float) -> Sum:
    """A sum, each part times a factor."""
    return {basis: value * factor for basis, value in values.items()}


def plus(first: Sum, second: Sum) -> Sum:
    """Two sums as one."""
    return {basis: first.get(basis, 0.0) + second.get(basis, 0.0) for basis in {**first, **second}}


def graph_of(rows: Sequence[Row], edges: Sequence[tuple[int, int]]) -> RowGraph:
    """Rows and edges between them as a graph."""
    sums = [(row.flop, row.read, row.write, row.weights, row.link) for row in rows]
    used = [
        basis for row, each in zip(rows, sums, strict=True) for part in (*each, *row.sizes.values()) for basis in part
    ]
    bases = tuple(dict.fromkeys([ONE, *used]))
    place = {basis: index for index, basis in enumerate(bases)}
    counts = np.zeros((len(COUNTS), len(rows), len(bases)))
    sized = [(index, name, values) for index, row in enumerate(rows) for name, values in row.sizes.items()]
    sizes = np.zeros((len(sized), len(bases)))
    for index, (row, each) in enumerate(zip(rows, sums, strict=True)):
        counts[0, index, 0] = row.launches
        for count, values in enumerate(each, start=1):
            for basis, value in values.items():
                counts[count, index, place[basis]] = value * row.launches
    for size, (_, _, values) in enumerate(sized):
        for basis, value in values.items():
            sizes[size, place[basis]] = value
    return RowGraph(
        bases=bases,
        kind=np.array([KINDS.index(row.kind) for row in rows], dtype=np.int64),
        dtype=np.full(len(rows), DTYPES.index("bfloat16"), dtype=np.int64),
        linear=np.array([row.linear for row in rows], dtype=np.bool_),
        experts=np.array([row.experts for row in rows], dtype=np.bool_),
        counts=counts,
        size_row=np.array([index for index, _, _ in sized], dtype=np.int64),
        size_dimension=np.array([DIMENSIONS.index(name) for _, name, _ in sized], dtype=np.int64),
        size_summed=np.zeros(len(sized), dtype=np.bool_),
        sizes=sizes,
        edges=np.array(edges, dtype=np.int64).reshape(-1, 2).T,
    )
