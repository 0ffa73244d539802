"""Graphs as functions of a pass, solved from captures at a few sizes and checked at others.

Counts of a captured pass are polynomials of its batch and its tokens, with rational coefficients that a few captures
determine exactly. What is no polynomial is known: the share of experts that tokens reach, a window that is full (the
graph is another one then), a scan that is padded to whole chunks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

import numpy as np

from harness.errors import CannotCapture
from harness.kernels import KernelKind, Phase, shape_dimensions
from harness.tracing.graph import Edge, GraphKernel, KernelGraph
from predictor.kernel_table import DIMENSIONS, DTYPES, KINDS, Floats
from predictor.templates_basis import Basis, Curve, PassSizes
from predictor.templates_graph import COUNTS, PhaseGraph, Region, RowGraph
from predictor.templates_merge import MergedRow, merged

Capture = Callable[[int, int], KernelGraph]  # of a batch and tokens
_BATCHES = (2, 3)
_CHECKED_BATCH = 5
_CLOSE = 1e-6  # relative: what is left is rounding of counts that the ranks share unevenly
_CLOSE_EXPERTS = 1e-3  # shares of experts are rounded to whole bytes and rows
_NARROW = 32  # tokens below a model's limit that are no piece of their own
_ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to capture, and what the counts are made of."""

    phase: Phase
    tokens: tuple[int, ...]  # sizes to capture at, one for each function of tokens
    checked: int
    powers: tuple[Basis, ...]  # functions of tokens; each counts once alone and once times the batch


@dataclass(slots=True, kw_only=True)
class _Sample:
    batch: int
    tokens: int
    rows: tuple[MergedRow, ...]
    edges: tuple[Edge, ...]
    touched: list[Fraction] = field(default_factory=list)


class _Differs(Exception):
    """Counts are not what the fit says, or the graph is another one."""


def plans(
    phase: Phase, *, limit: int, windows: Sequence[int], chunk: int | None
) -> tuple[tuple[int | None, Plan], ...]:
    """Pieces between windows: the last context of each, and how to capture it. ``limit``: the model's context.

    Where a window is just full, its mask is there already.
    """
    ends = {window - 1 for window in windows} | ({chunk} if chunk is not None and phase is Phase.PREFILL else set())
    edges = sorted(end for end in ends if 1 < end < limit - _NARROW)
    spans = list(zip([1, *edges], [*edges, None], strict=True))
    return tuple((last, _plan(phase, first, last or limit, chunk)) for first, last in spans)


def _plan(phase: Phase, first: int, last: int, chunk: int | None) -> Plan:
    """Sizes from ``first`` to ``last``; those of a scan are small, as its steps may be run one by one."""
    powers = _powers(phase, chunk if chunk is not None and first >= chunk else None)
    low, high = max(first + 1, 3), min(last - 2, max(2 * first, first + (1200 if chunk is None else 9 * chunk)))
    share = [0.07, 0.33, 0.91, 0.55, 0.77, 0.19, 0.42]
    sizes = [_odd(round(low + part * (high - low))) for part in share[: len(powers) + 1]]
    return Plan(phase=phase, tokens=tuple(sizes[:-1]), checked=sizes[-1], powers=powers)


def _odd(size: int) -> int:
    """Sizes that no width of a model equals keep shapes apart."""
    return size if size % 2 else size + 1


def _powers(phase: Phase, chunk: int | None) -> tuple[Basis, ...]:
    if phase is Phase.DECODE:
        return (Basis(), Basis(c=1))
    plain = (Basis(), Basis(q=1), Basis(q=2))
    if chunk is None:
        return plain
    pieces = [Basis(curve=Curve.CHUNKS, parameters=(chunk,), power=power) for power in (1, 2)]
    return (*plain, *pieces, Basis(q=1, curve=Curve.CHUNKS, parameters=(chunk,)))


def fitted(capture: Capture, plans_of: Sequence[tuple[int | None, Plan]], name: str) -> PhaseGraph:
    """The graph of a phase; raises ``CannotCapture`` where no polynomial gives the counts of further captures."""
    regions: list[Region] = []
    for last, plan in plans_of:
        try:
            regions.extend(_fitted_region(capture, last, plan))
        except _Differs as error:
            raise CannotCapture(
                f"The {plan.phase} of {name} is no simple function of its sizes: {error}.\n"
                "Trace it with `python -m harness.run`, which measures whatever runs."
            ) from error
    return PhaseGraph(regions=tuple(regions))


def _fitted_region(capture: Capture, last: int | None, plan: Plan) -> list[Region]:
    samples = [_sample(capture, batch, tokens) for batch in _BATCHES for tokens in plan.tokens]
    graph = _solved(samples, plan)
    _check(graph, _sample(capture, _CHECKED_BATCH, plan.checked), plan)
    one = _sample(capture, 1, plan.checked)
    try:
        _check(graph, one, plan)
    except _Differs:
        alone = [_sample(capture, 1, tokens) for tokens in plan.tokens]
        single = _solved(alone, plan)
        _check(single, one, plan)
        return [
            Region(last_context=last, single=True, graph=single),
            Region(last_context=last, single=None, graph=graph),
        ]
    return [Region(last_context=last, single=None, graph=graph)]


def _sample(capture: Capture, batch: int, tokens: int) -> _Sample:
    rows, edges = merged(capture(batch, tokens))
    return _Sample(batch=batch, tokens=tokens, rows=rows, edges=edges)


def pass_sizes(phase: Phase, batch: Sequence[int], tokens: Sequence[int]) -> PassSizes:
    """Sizes of passes with a cache: of prompts, or of decode steps that find ``tokens`` in it."""
    sequences, lengths = np.asarray(batch, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    prefill = phase is Phase.PREFILL
    query = lengths if prefill else np.ones_like(lengths)
    return PassSizes(
        batch=sequences, query=query, context=lengths if prefill else lengths + 1, tokens=sequences * query
    )


def _solved(samples: Sequence[_Sample], plan: Plan) -> RowGraph:
    first = samples[0]
    for sample in samples[1:]:
        if [row.key for row in sample.rows] != [row.key for row in first.rows]:
            raise _Differs("its kernels change with its sizes")
    batches = {sample.batch for sample in samples}
    bases = _with_batch(plan.powers) if len(batches) > 1 else plan.powers
    matrix = _inverse(tuple(bases), plan.phase, tuple((sample.batch, sample.tokens) for sample in samples))
    solver = _Solver(bases=list(bases), inverse=matrix, samples=samples, phase=plan.phase)
    return solver.graph()


def _with_batch(powers: Sequence[Basis]) -> tuple[Basis, ...]:
    times = [
        Basis(b=1, q=each.q, c=each.c, curve=each.curve, parameters=each.parameters, power=each.power)
        for each in powers
    ]
    return (*powers, *times)


@lru_cache(maxsize=64)
def _inverse(
    bases: tuple[Basis, ...], phase: Phase, sizes: tuple[tuple[int, int], ...]
) -> tuple[tuple[Fraction, ...], ...]:
    """Of the matrix of bases at the captured sizes, exactly (Gauss-Jordan)."""
    at = pass_sizes(phase, [batch for batch, _ in sizes], [tokens for _, tokens in sizes])
    rows = [
        [Fraction(int(basis(at)[index])) for basis in bases]
        + [Fraction(int(index == other)) for other in range(len(sizes))]
        for index in range(len(sizes))
    ]
    for column in range(len(rows)):
        pivot = next((index for index in range(column, len(rows)) if rows[index][column]), None)
        if pivot is None:
            raise _Differs("too few sizes tell its terms apart")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        scale = rows[column][column]
        rows[column] = [value / scale for value in rows[column]]
        for index, row in enumerate(rows):
            if index != column and row[column]:
                rows[index] = [value - row[column] * top for value, top in zip(row, rows[column], strict=True)]
    return tuple(tuple(row[len(rows) :]) for row in rows)


@dataclass(slots=True, kw_only=True)
class _Solver:
    bases: list[Basis]
    inverse: tuple[tuple[Fraction, ...], ...]
    samples: Sequence[_Sample]
    phase: Phase

    def graph(self) -> RowGraph:
        first = self.samples[0]
        shares = [_touched_bytes(row, self.phase, first) for row in first.rows]
        for share in shares:
            if share is not None and share.basis not in self.bases:
                self.bases.append(share.basis)
        counts = np.zeros((len(COUNTS), len(first.rows), len(self.bases)))
        for index, share in enumerate(shares):
            for place, name in enumerate(COUNTS):
                whole = share.size_bytes if share is not None and name in {"read_bytes", "weight_bytes"} else 0
                counts[place, index] = self._coefficients(
                    [sample.rows[index].counts[place] for sample in self.samples], share, whole
                )
        return self._with_sizes(counts)

    def _coefficients(self, values: Sequence[int], share: "_Touched | None", whole: int) -> list[float]:
        """Of one count at every sample; ``whole`` bytes are read by the share of experts that are touched."""
        left = [Fraction(value) for value in values]
        if share is not None and whole:
            parts = [share.part(sample, self.phase) for sample in self.samples]
            left = [Fraction(round(value - whole * part)) for value, part in zip(values, parts, strict=True)]
        found = [float(sum(a * b for a, b in zip(row, left, strict=True))) for row in self.inverse]
        found += [0.0] * (len(self.bases) - len(found))
        if share is not None and whole:
            found[self.bases.index(share.basis)] += whole
        return found

    def _with_sizes(self, counts: Floats) -> RowGraph:
        first = self.samples[0]
        named = [(index, dimension, not row.alone) for index, row in enumerate(first.rows) for dimension in row.sizes]
        sizes = [
            self._coefficients([sample.rows[index].sizes[dimension] for sample in self.samples], None, 0)
            for index, dimension, _ in named
        ]
        return RowGraph(
            bases=tuple(self.bases),
            kind=np.array([KINDS.index(row.kind) for row in first.rows], dtype=np.int64),
            dtype=np.array([dtype_index(row.dtype) for row in first.rows], dtype=np.int64),
            linear=np.array([_is_linear(row) for row in first.rows], dtype=np.bool_),
            experts=np.array([row.kind is KernelKind.MOE_GEMM for row in first.rows], dtype=np.bool_),
            counts=counts,
            size_row=np.array([index for index, _, _ in named], dtype=np.int64),
            size_dimension=np.array([DIMENSIONS.index(name) for _, name, _ in named], dtype=np.int64),
            size_summed=np.array([is_sum for _, _, is_sum in named], dtype=np.bool_),
            sizes=np.array(sizes, dtype=np.float64).reshape(len(named), len(self.bases)),
            edges=np.array([(edge.source, edge.target) for edge in first.edges], dtype=np.int64).reshape(-1, 2).T,
        )


def dtype_index(name: str) -> int:
    """Index into DTYPES; integers and truth values are computed with where float32 is."""
    plain = "float8" if name.startswith("float8") else name
    return DTYPES.index(plain) if plain in DTYPES else DTYPES.index("float32")


def _is_linear(row: MergedRow) -> bool:
    """A layer's product with weights; what picks experts and what chooses the next token stay as they are."""
    kernel = row.members[0]
    module = (kernel.module or "").split(".")
    return row.kind is KernelKind.GEMM and kernel.weight_bytes > 0 and "*" in module and module[-1] not in _ROUTERS


_ROUTERS = frozenset({"gate", "router", "shared_expert_gate", "linear"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Touched:
    """What a product of experts reads of its weights."""

    basis: Basis
    size_bytes: int  # of the weights of all experts

    def part(self, sample: _Sample, phase: Phase) -> float:
        return float(self.basis(pass_sizes(phase, [sample.batch], [sample.tokens]))[0])


def _touched_bytes(row: MergedRow, phase: Phase, sample: _Sample) -> _Touched | None:
    if row.kind is not KernelKind.MOE_GEMM:
        return None
    kernel: GraphKernel = row.members[0]
    sizes: Mapping[str, int] = shape_dimensions(kernel.shape)
    tokens = sample.batch * (1 if phase is Phase.DECODE else sample.tokens)
    each, remainder = divmod(sizes["m"], tokens)
    if remainder or "experts" not in sizes:
        return None
    matrix = sizes["experts"] * sizes["n"] * sizes["k"] * _ITEM_BYTES.get(kernel.dtype, 2)
    return _Touched(
        basis=Basis(curve=Curve.TOUCHED, parameters=(sizes["experts"], each)), size_bytes=matrix * kernel.launches
    )


def _check(graph: RowGraph, sample: _Sample, plan: Plan) -> None:
    table = graph.expand(pass_sizes(plan.phase, [sample.batch], [sample.tokens]))
    if len(sample.rows) != len(table.kind):
        raise _Differs("its kernels change with its sizes")
    for place, row in enumerate(sample.rows):
        close = _CLOSE_EXPERTS if row.kind is KernelKind.MOE_GEMM else _CLOSE
        for name, value in zip(COUNTS, row.counts, strict=True):
            found = float(getattr(table, name)[place])
            if abs(found - value) > close * max(abs(value), 1.0) + 1e-3:
                raise _Differs(
                    f"{name} of {' '.join(row.key)} is {value} for {sample.batch} × {sample.tokens} tokens, "
                    f"and {found:.0f} by the fit"
                )
